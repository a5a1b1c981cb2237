//! What is wrong with a configuration, and where in the file.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::node::Node;

/// Collects problems while a file is read and checked.
pub(super) struct Report {
    text: String,
    /// Where each setting is.
    pub(super) tree: Node,
    problems: Problems,
}

/// The problems of one file, each on a line of its own: `FILE:line:column: setting: problem`.
#[derive(Debug)]
pub(crate) struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    severity: Severity,
    /// Line and column, from 1. `None`: the file as a whole.
    position: Option<(usize, usize)>,
    /// The path of the setting. Empty: none.
    setting: String,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error,
    /// The gateway can run with it, but not as its operator expects.
    Warning,
}

impl Report {
    pub(super) fn new(file: &Path, text: String) -> Self {
        let problems = Problems {
            file: file.to_owned(),
            list: Vec::new(),
        };
        Self {
            text,
            tree: Node::default(),
            problems,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// An error of a setting, by its path: `route[2].upstream`.
    pub(super) fn error(&mut self, setting: impl Into<String>, problem: impl Into<String>) {
        self.add(Severity::Error, setting.into(), problem.into());
    }

    pub(super) fn warning(&mut self, setting: impl Into<String>, problem: impl Into<String>) {
        self.add(Severity::Warning, setting.into(), problem.into());
    }

    /// An error at a byte of the text, without a setting.
    pub(super) fn error_at(&mut self, offset: usize, problem: impl Into<String>) {
        let position = position(&self.text, offset);
        self.push(
            Severity::Error,
            Some(position),
            String::new(),
            problem.into(),
        );
    }

    fn add(&mut self, severity: Severity, setting: String, problem: String) {
        let offset = self.tree.offset_of(&setting);
        let position = offset.map(|offset| position(&self.text, offset));
        self.push(severity, position, setting, problem);
    }

    fn push(
        &mut self,
        severity: Severity,
        position: Option<(usize, usize)>,
        setting: String,
        text: String,
    ) {
        self.problems.list.push(Problem {
            severity,
            position,
            setting,
            text,
        });
    }

    /// The line of a setting, for texts that refer to it.
    pub(super) fn line_of(&self, setting: &str) -> usize {
        let offset = self.tree.offset_of(setting).unwrap_or(0);
        position(&self.text, offset).0
    }

    pub(super) fn has_errors(&self) -> bool {
        let mut list = self.problems.list.iter();
        list.any(|problem| problem.severity == Severity::Error)
    }

    pub(super) fn len(&self) -> usize {
        self.problems.list.len()
    }

    /// In the order of the file.
    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.list.sort_by_key(|problem| problem.position);
        self.problems
    }
}

/// Line and column of a byte, in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    // The offset of a parser is at a character, but a wrong place is better than a panic.
    let before = String::from_utf8_lossy(&text.as_bytes()[..offset.min(text.len())]);
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}

impl Problems {
    /// A problem with the file as a whole.
    pub(super) fn of_file(file: &Path, problem: String) -> Self {
        let mut report = Report::new(file, String::new());
        report.error("", problem);
        report.into_problems()
    }

    /// Each as its line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let file = self.file.display();
        let list = self.list.iter();
        list.map(move |problem| format!("{file}{problem}"))
    }

    /// For a line of the log.
    pub(crate) fn in_one_line(&self) -> String {
        self.lines().collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(": warning")?;
        }
        if !self.setting.is_empty() {
            write!(f, ": {}", self.setting)?;
        }
        write!(f, ": {}", self.text)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Problems {}
