//! What was measured, on its way to the report.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What one run of a binary found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// Whether so few rounds were run, of such a build, that the figures say nothing.
    pub quick: bool,
    /// The tables, in the order in which they are shown.
    pub sections: Vec<Section>,
}

/// One table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Section {
    /// What stands above it.
    pub title: String,
    /// What must be known to read it, in Markdown.
    pub text: String,
    /// Its lines.
    pub rows: Rows,
}

/// The lines of a table.
#[derive(Debug, Serialize, Deserialize)]
pub enum Rows {
    /// Times, in microseconds.
    Micros(Vec<Time>),
    /// Times, in nanoseconds: of what is too short for the other.
    Nanos(Vec<Time>),
    /// Numbers of allocations.
    Allocations(Vec<Allocations>),
    /// Bytes that stay allocated.
    Bytes(Vec<(Label, f64)>),
}

/// How long something takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Time {
    /// What.
    pub label: Label,
    /// Of one raw verification of the same signature.
    pub ratio: Spread,
    /// The median.
    pub micros: f64,
    /// The median of the raw verification.
    pub raw_micros: f64,
}

/// How often something allocates.
#[derive(Debug, Serialize, Deserialize)]
pub struct Allocations {
    /// What.
    pub label: Label,
    /// The median number.
    pub median: u64,
    /// The mean, which housekeeping raises that is done once in a while.
    pub mean: f64,
    /// The median of the bytes asked for.
    pub bytes: u64,
}

/// What a row says beside its figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Label {
    /// What was measured.
    pub name: String,
    /// What to know about it.
    pub note: String,
    /// What it should stay below.
    pub target: Option<Target>,
    /// Whose bar it is in the chart, if it has one.
    pub charted: Option<Party>,
}

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Party {
    /// This crate's.
    Ours,
    /// Another crate's.
    Others,
}

/// What a figure should not exceed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What it is called. Several rows may have the same.
    pub name: String,
    /// The most it may be.
    pub at_most: f64,
}

/// A median, and the quartiles around it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter of the samples are below.
    pub low: f64,
    /// Half of them are.
    pub median: f64,
    /// Three quarters are.
    pub high: f64,
}

impl Results {
    /// Reads what [`write`](Self::write) has written.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("the results are there");
        serde_json::from_str(&text).expect("the results were written by this version")
    }

    /// Leaves the results to the report.
    pub fn write(&self, file: &Path) {
        let text = serde_json::to_string(self).expect("results can be written as JSON");
        fs::write(file, text).expect("the results can be written");
    }
}

impl Section {
    /// A table.
    pub fn new(title: &str, text: &str, rows: Rows) -> Self {
        Self {
            title: title.to_owned(),
            text: text.to_owned(),
            rows,
        }
    }
}

impl Label {
    /// A row of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            note: String::new(),
            target: None,
            charted: None,
        }
    }

    /// What to know about it.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }

    /// What it should not exceed.
    #[must_use]
    pub fn at_most(self, at_most: f64, name: &str) -> Self {
        let target = Some(Target {
            name: name.to_owned(),
            at_most,
        });
        Self { target, ..self }
    }

    /// Shows it in the chart, too.
    #[must_use]
    pub fn charted(self, party: Party) -> Self {
        Self {
            charted: Some(party),
            ..self
        }
    }
}

impl Spread {
    /// Of these samples.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(|a, b| a.partial_cmp(b).expect("a number"));
        let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
        Self {
            low: at(1),
            median: at(2),
            high: at(3),
        }
    }
}

/// The median of these samples.
pub fn median<T: Copy + Ord>(mut samples: Vec<T>) -> T {
    samples.sort_unstable();
    samples[samples.len() / 2]
}
