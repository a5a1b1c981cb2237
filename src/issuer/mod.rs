//! How are requests sent to an issuer? What resource servers and clients share: the URLs, the connections, the metadata, and the
//! authentication of the sender.

pub(crate) mod endpoint_url;
pub(crate) mod http;
#[cfg(any(feature = "jwks", feature = "reqwest"))]
pub(crate) mod metadata;
#[cfg(any(feature = "introspection", feature = "reqwest"))]
#[cfg_attr(
    not(feature = "introspection"),
    allow(unreachable_pub, reason = "`tokens` exports it for introspection")
)]
pub(crate) mod client_authentication;
