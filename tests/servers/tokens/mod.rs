mod http;
mod introspection;
mod jwks;
mod server;
