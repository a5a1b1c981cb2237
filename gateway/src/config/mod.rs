//! The configuration: one TOML file. `docs/guide/gateway-configuration.md` has a table of all settings.

mod document;
mod names;
mod fault;
mod node;
mod report;
mod checks;
mod files;
mod read;

use std::fmt::{self, Display};
use std::path::Path;
use std::str::FromStr;

pub(crate) use checks::Server;
pub(crate) use document::{
    Access, AskedBy, Cors, Document, Encoding, ForwardAuth, HealthCheck, IdentityField, Listener,
    LogFormat, LoggedRequests, Protocol, Route, Tls, Unrepresentable, Upstream,
};
pub(crate) use files::{Pair, roots};
pub(crate) use read::Checked;
pub(crate) use report::Problems;

use crate::config::read::Names;

/// Why a part cannot be built from the configuration. The checks of the file find such errors before, with their places: only
/// what can change between the two is checked again, and what the types ask for.
#[derive(Debug)]
pub(crate) struct ConfigError {
    pub(crate) place: String,
    pub(crate) problem: String,
}

impl Tls {
    /// The certificate of a part at this place.
    pub(crate) fn read_for(&self, place: &str) -> Result<Pair, ConfigError> {
        self.read().map_err(|problems| {
            let problems = problems.iter();
            let problems: Vec<_> = problems
                .map(|(member, problem)| format!("{member}: {problem}"))
                .collect();
            ConfigError {
                place: place.to_owned(),
                problem: problems.join("; "),
            }
        })
    }
}

/// A value that the checks have found to be valid.
pub(crate) fn parsed<T: FromStr<Err: Display>>(place: &str, text: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|error| ConfigError {
        place: place.to_owned(),
        problem: format!("{text:?}: {error}"),
    })
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl Document {
    /// Reads and checks a file, and the files that it refers to. Nothing is bound, and no server is contacted.
    pub(crate) fn read(path: &Path) -> Result<Checked, Problems> {
        read::check(path, Names::Unresolved)
    }

    /// The same, and warns of servers whose names cannot be resolved.
    pub(crate) fn read_and_resolve(path: &Path) -> Result<Checked, Problems> {
        read::check(path, Names::Resolved)
    }

    /// What it contains, in one line.
    pub(crate) fn summary(&self) -> String {
        let counted = |count: usize, name: &str| match count {
            1 => format!("1 {name}"),
            count => format!("{count} {name}s"),
        };
        [
            counted(self.listener.len(), "listener"),
            counted(self.forward_auth.len(), "forward_auth"),
            counted(self.route.len(), "route"),
            counted(self.upstream.len(), "upstream"),
        ]
        .join(", ")
    }
}
