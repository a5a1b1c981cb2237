//! Builds a verifier from settings: a document in any format that serde knows, or variables.
//!
//! [The guide](crate::guide::configuration) has a table of all settings.

pub(crate) mod fault;
pub(crate) mod node;
pub(crate) mod secrets;
pub(crate) mod variables;
pub(crate) mod document;
pub(crate) mod lasting;
#[cfg(any(feature = "jwks", feature = "introspection"))]
pub(crate) mod remote;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod checks;
pub(crate) mod assemble;
pub(crate) mod build;

pub use crate::settings::assemble::Parts;
pub use crate::settings::build::Settings;
pub use crate::settings::fault::SettingsError;
