//! From the text of a file to a [`Document`], with all problems at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::de::DeTable;
use tower_dpop::settings::Settings;

use crate::config::document::Document;
use crate::config::fault::{self, Kind, Step};
use crate::config::node::Node;
use crate::config::report::{Problems, Report};
use crate::config::{checks, files};

/// A configuration that the gateway can run with.
pub(crate) struct Checked {
    pub(crate) document: Document,
    pub(crate) warnings: Problems,
}

impl Checked {
    /// The document, once its warnings are logged.
    pub(crate) fn logged(self) -> Document {
        for warning in self.warnings.lines() {
            tracing::warn!("{warning}");
        }
        self.document
    }
}

/// After this many problems, the rest of the file is not checked.
const MAX_PROBLEMS: usize = 50;

/// Reads and checks a file, and the files that it refers to. No server is contacted, and no name is resolved.
pub(super) fn check(path: &Path, names: Names) -> Result<Checked, Problems> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| Problems::of_file(path, error.to_string()))?;
    let mut report = Report::new(path, text);
    let Some(document) = read(&mut report) else {
        return Err(report.into_problems());
    };
    checks::check(&document, &mut report);
    files::check(&document, &mut report);
    if names == Names::Resolved {
        files::resolve(&document, &mut report);
    }
    if report.has_errors() {
        return Err(report.into_problems());
    }
    Ok(Checked {
        document,
        warnings: report.into_problems(),
    })
}

/// Whether the names of servers are looked up. This can take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Resolved,
    Unresolved,
}

fn read(report: &mut Report) -> Option<Document> {
    let text = report.text().to_owned();
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors.iter().take(MAX_PROBLEMS) {
        let offset = error.span().map_or(0, |span| span.start);
        report.error_at(offset, error.message());
    }
    if report.has_errors() {
        return None;
    }
    report.tree = Node::of_document(table.get_ref());
    dpop(report);
    let mut document = settings(report)?;
    // The gateway starts while an issuer or Redis is unreachable. Its health check reports that it is not ready.
    let start_timeout = document.dpop.entry("start_timeout_seconds");
    start_timeout.or_insert(toml::Value::Integer(0));
    Some(document)
}

/// Reads the settings. A setting that is wrong is reported and removed, until the rest can be read.
fn settings(report: &mut Report) -> Option<Document> {
    let mut removed: BTreeSet<Vec<Step>> = BTreeSet::new();
    loop {
        let fault = match Document::deserialize(&report.tree) {
            Ok(document) if removed.is_empty() => return Some(document),
            Ok(_) => return None,
            Err(fault) => fault,
        };
        let mut path = fault.path;
        // A setting that is missing because it was removed is reported already.
        if !removed.contains(&path) {
            report.error(fault::shown(&path), fault.problem);
        }
        removed.insert(path.clone());
        if fault.kind == Kind::Missing {
            match path.pop() {
                Some(Step::Name(name)) if path.is_empty() => {
                    report.tree.add_table(&name);
                    continue;
                }
                _ => removed.insert(path.clone()),
            };
        }
        if report.len() >= MAX_PROBLEMS || !report.tree.remove(&path) {
            return None;
        }
    }
}

/// Reports what `tower_dpop` finds wrong with its settings. Secrets and files are read; no server is contacted.
fn dpop(report: &mut Report) {
    let Some(node) = report.tree.table("dpop") else {
        return;
    };
    let text = match Settings::deserialize(node) {
        Ok(settings) => match settings.check() {
            Ok(()) => return,
            Err(error) => error.to_string(),
        },
        Err(fault) if fault.path.is_empty() => fault.problem,
        // Of the document: it is found once more when all settings are read.
        Err(_) => return,
    };
    // `issuer[1].url: must be set`
    let is_path = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.[]".contains(c))
    };
    match text.split_once(": ") {
        Some((path, problem)) if is_path(path) => report.error(format!("dpop.{path}"), problem),
        _ => report.error("dpop", text),
    }
}
