//! One binary: `<room>/<file>.rs` tests `src/<room>/<file>.rs` through the public API, in this process.

mod jose;
mod proof;
mod tokens;
mod resource;
mod settings;
mod token_endpoint;
mod client;
#[cfg(feature = "axum")]
mod extract;
mod testing;
mod browser_apps;
mod credentials;
mod deserialize;
mod discard;
mod docs;
mod house;
mod requirements;
mod rfc9449;
mod telemetry;
mod uri;
