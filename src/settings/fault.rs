//! What is wrong with a setting.

use std::fmt::{self, Display};

use serde::de::{Error, Expected, Unexpected};

use crate::deserialize::naming;

/// What is wrong, and with which setting: a path like `issuer[1].audience`, which is empty for the whole document.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) problem: String,
}

impl Fault {
    pub(crate) fn at(path: impl Into<String>, problem: impl Display) -> Self {
        Self {
            path: path.into(),
            problem: problem.to_string(),
        }
    }

    /// With the value, unless the problem shows it. Not for secrets.
    pub(crate) fn of_value(path: impl Into<String>, value: &str, problem: &dyn Display) -> Self {
        Self::at(path, naming(value, problem))
    }

    /// The same problem, one level up.
    pub(crate) fn within(mut self, step: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => step.to_owned(),
            path if path.starts_with('[') => format!("{step}{path}"),
            path => format!("{step}.{path}"),
        };
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: Display>(problem: T) -> Self {
        Self::at("", problem)
    }

    /// Without the value: it may be a secret in the wrong place.
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
        let expected = expected.join(", ");
        Self::custom(format_args!("{name:?}: must be one of {expected}"))
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Self::at(
            name,
            unknown("setting", name, &mut expected.iter().copied()),
        )
    }

    fn missing_field(name: &'static str) -> Self {
        Self::at(name, "must be set")
    }
}

/// What a type of Rust is in a document.
fn named(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u32" | "u64" | "usize" => "a whole number".to_owned(),
        other => other.to_owned(),
    }
}

/// What is wrong with a name that is not one of these.
pub(crate) fn unknown(
    what: &str,
    name: &str,
    known: &mut dyn Iterator<Item = &'static str>,
) -> String {
    let known: Vec<_> = known.collect();
    let nearest = known.iter().min_by_key(|known| distance(name, known));
    match nearest {
        Some(nearest) if distance(name, nearest) <= 3.min(name.len() / 2) => {
            format!("unknown {what}, did you mean {nearest}?")
        }
        _ => format!("unknown {what}, expected one of {}", known.join(", ")),
    }
}

/// How many characters must be inserted, removed or replaced to make one text the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Why settings give no verifier: a configuration error, or something unreachable at the start. Its text names the setting,
/// and has no secret.
///
/// The setting is a path like `issuer.audience` or, if the settings came from variables, the variable's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    pub(crate) setting: String,
    pub(crate) problem: String,
}

impl SettingsError {
    /// The name of the setting or of the variable. It is empty if the whole document is wrong.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

impl From<Fault> for SettingsError {
    fn from(fault: Fault) -> Self {
        Self {
            setting: fault.path,
            problem: fault.problem,
        }
    }
}

impl Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting.as_str() {
            "" => f.write_str(&self.problem),
            setting => write!(f, "{setting}: {}", self.problem),
        }
    }
}

impl std::error::Error for SettingsError {}
