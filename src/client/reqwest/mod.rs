//! A ready client on top of reqwest: it gets tokens, renews them, and sends requests through the layers of
//! [`client`](crate::client). (Feature `reqwest`.)
//!
//! | source file | question |
//! |---|---|
//! | `error` | why is there no response, or no client? |
//! | `refresh_token` | which secret is kept between two runs? |
//! | `any_signer` | which key signs, whatever its type? |
//! | `transport` | how is reqwest called as a service? |
//! | `metadata` | where are the authorization server's endpoints, and what does it support? |
//! | `grants` | what is sent to its endpoints? |
//! | `session` | which token is current, and when is it renewed? |
//! | `dpop_client` | what is sent, and what is tried again? |
//! | `request_builder` | how is a request built? |
//! | `builder` | how is a client configured? |
//! | `login` | how does a user log in? |

pub(crate) mod error;
pub(crate) mod refresh_token;
pub(crate) mod any_signer;
pub(crate) mod transport;
pub(crate) mod metadata;
pub(crate) mod grants;
pub(crate) mod session;
pub(crate) mod dpop_client;
pub(crate) mod request_builder;
pub(crate) mod builder;
pub(crate) mod login;
