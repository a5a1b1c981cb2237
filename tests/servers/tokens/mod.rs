mod http;
mod introspection;
mod jwks;
pub(crate) mod server;
