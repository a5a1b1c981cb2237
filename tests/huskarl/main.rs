//! huskarl as a client of our servers and as a server for our client, over sockets on the loopback.

#[path = "../../examples/authorization_server/server.rs"]
mod authorization_server;
mod client;
mod server;
mod servers;
