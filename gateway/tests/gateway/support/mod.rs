//! What the tests start.

mod gateway;
mod load;
mod parties;
mod program;
mod service;

pub use gateway::{Gateway, Started};
pub use load::Load;
pub use parties::Parties;
pub use program::{Certificate, Program, eventually, signal_to};
pub use service::Service;
