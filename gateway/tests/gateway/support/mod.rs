//! What the tests start.

mod gateway;
mod parties;
mod service;

pub use gateway::{Gateway, Started};
pub use parties::{PUBLIC_URL, Parties};
pub use service::Service;
