//! What the tests start.

mod gateway;
mod parties;
mod service;

pub use gateway::{Gateway, Started};
pub use parties::Parties;
pub use service::Service;
