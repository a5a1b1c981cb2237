//! What serde finds wrong with a setting. Its texts never show a value, which may be a secret in the wrong place.

use std::fmt::{self, Display};

use serde::de::{Error, Expected, Unexpected};

use crate::config::names::suggestion;

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: Vec<Step>,
    pub(super) problem: String,
    pub(super) kind: Kind,
}

/// From a table or a list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Name(String),
    Number(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The setting at the path is not there.
    Missing,
    Wrong,
}

impl Fault {
    /// The same problem, one level up.
    pub(super) fn within(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

/// A path as it is shown: `route[2].upstream`.
pub(super) fn shown(path: &[Step]) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let steps = path.iter().enumerate().map(|(number, step)| match step {
        Step::Number(number) => format!("[{number}]"),
        Step::Name(name) => {
            let dot = if number == 0 { "" } else { "." };
            if name.chars().all(is_bare) {
                format!("{dot}{name}")
            } else {
                format!("{dot}{name:?}")
            }
        }
    });
    steps.collect()
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: Display>(problem: T) -> Self {
        let problem = match problem.to_string().as_str() {
            "invalid socket address syntax" => {
                "expected an IP address with a port, such as \"127.0.0.1:8080\" or \"[::]:443\""
            }
            "invalid IP address syntax" => {
                "expected a network, such as \"10.0.0.0/8\", \"192.0.2.7/32\" or \"fd00::/8\""
            }
            other => other,
        }
        .to_owned();
        Self {
            path: Vec::new(),
            problem,
            kind: Kind::Wrong,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "another value",
        };
        Self::custom(format_args!("expected {}, found {found}", named(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}", named(expected)))
    }

    fn unknown_variant(name: &str, expected: &'static [&'static str]) -> Self {
        let expected = suggestion(name, expected.iter().copied());
        Self::custom(format_args!("{name:?} is unknown, {expected}"))
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        let expected = suggestion(name, expected.iter().copied());
        Self::custom(format_args!("unknown setting, {expected}"))
            .within(Step::Name(name.to_owned()))
    }

    fn missing_field(name: &'static str) -> Self {
        let fault = Self {
            kind: Kind::Missing,
            ..Self::custom("must be set")
        };
        fault.within(Step::Name(name.to_owned()))
    }
}

/// The name of a Rust type in terms of the document.
fn named(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u16" | "u32" | "u64" | "usize" => "a whole number".to_owned(),
        "socket address" => "a string with an IP address and a port".to_owned(),
        "IP network" | "IPv4 network or IPv6 network" => "a string with a network".to_owned(),
        "path string" => "a string with a path".to_owned(),
        other => other.to_owned(),
    }
}
