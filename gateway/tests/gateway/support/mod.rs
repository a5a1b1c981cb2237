//! What the tests start.

mod frames;
mod gateway;
mod parties;
mod raw;
mod service;

pub use frames::{FramedRequest, Outcome};
pub use gateway::{Gateway, Started};
pub use parties::Parties;
pub use raw::{Raw, RawRequest, Received};
pub use service::Service;
