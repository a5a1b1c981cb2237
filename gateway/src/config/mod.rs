//! The configuration: one TOML file. `docs/guide/gateway.md` has a table of all settings.

mod document;

use std::fs;
use std::path::Path;

pub(crate) use document::{
    Access, AskedBy, Claim, Cors, Document, Encoding, ForwardAuth, HealthCheck, IdentityField,
    Listener, LogFormat, Operations, Protocol, Route, Tls, Unrepresentable, Upstream,
};

/// Why a configuration cannot be used: where in the file, and what is expected there.
#[derive(Debug)]
pub(crate) struct ConfigError {
    pub(crate) place: String,
    pub(crate) problem: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl Document {
    /// Reads and checks a file. What it refers to (keys, certificates, secrets) is read when it is used.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let at = |problem: String| ConfigError {
            place: path.display().to_string(),
            problem,
        };
        let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
        let document: Self =
            toml::from_str(&text).map_err(|error| at(error.message().to_owned()))?;
        Ok(document)
    }
}
