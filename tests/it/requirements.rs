//! No requirement is dropped in silence: every row of `spec_rows.txt` is cited by a test, or says
//! why it cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Words of the form of a row's id: `R-4.3.12a`, `R-AT.1`, `H-5`. The names of curves have three
/// digits.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            let Some((family, number)) = word.split_once('-') else {
                return false;
            };
            let number = number.strip_prefix("AT.").unwrap_or(number);
            let is_curve = family == "P" && number.len() == 3;
            matches!(family, "R" | "H" | "T" | "F" | "J" | "X" | "C" | "A" | "P")
                && number.starts_with(|c: char| c.is_ascii_digit())
                && !is_curve
        })
}

#[test]
fn every_row_is_cited_by_a_test_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows: BTreeMap<&str, Option<&str>> = include_str!("../requirements.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.split_once(": ") {
            Some((id, reason)) => (id, Some(reason)),
            None => (line, None),
        })
        .collect();
    assert_eq!(rows.len(), 260, "the rows of the list");

    let mut files = Vec::new();
    rust_files(root, &mut files);
    rust_files(&root.join("../src"), &mut files);
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let this_file = include_str!("requirements.rs");
    let cited: BTreeSet<&str> = texts
        .iter()
        .filter(|text| *text != this_file)
        .flat_map(|text| ids(text))
        .collect();

    let dropped: Vec<_> = rows
        .iter()
        .filter(|(id, reason)| reason.is_none() && !cited.contains(*id))
        .map(|(id, _)| *id)
        .collect();
    assert!(dropped.is_empty(), "rows that no test cites: {dropped:?}");
    let unknown: Vec<_> = cited.iter().filter(|id| !rows.contains_key(*id)).collect();
    assert!(unknown.is_empty(), "ids that are no rows: {unknown:?}");
    let excused: Vec<_> = rows
        .iter()
        .filter(|(id, reason)| reason.is_some() && cited.contains(*id))
        .map(|(id, _)| *id)
        .collect();
    assert!(
        excused.is_empty(),
        "rows said to be untestable that a test cites: {excused:?}"
    );
}
