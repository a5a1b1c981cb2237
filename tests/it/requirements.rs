//! Every requirement of `requirements.md` is cited in a file of tests, or its row says why it is not tested.

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

/// Words with the form of an id: `R-4.3.12a`, `R-AT.1`, `H-5`. `P-256` and the like are curves.
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
fn every_requirement_is_cited_or_its_row_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Id, and whether a test can cite it.
    let rows: BTreeMap<&str, bool> = include_str!("../requirements.md")
        .lines()
        .filter_map(|line| {
            let (id, row) = line.strip_prefix("| ")?.split_once(" | ")?;
            ids(id).next()?;
            Some((id, !row.contains("*Not tested: ")))
        })
        .collect();
    assert_eq!(rows.len(), 261, "the number of rows");

    let text_of = |folder: &Path| {
        let mut files = Vec::new();
        rust_files(folder, &mut files);
        files.retain(|file| !file.ends_with("it/requirements.rs"));
        files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect::<String>()
    };
    let (tests, code) = (text_of(root), text_of(&root.join("../src")));
    let cited: BTreeSet<&str> = ids(&tests).collect();

    let not_cited: Vec<_> = rows
        .iter()
        .filter(|(id, is_testable)| **is_testable && !cited.contains(*id))
        .collect();
    assert!(not_cited.is_empty(), "cited nowhere: {not_cited:?}");
    let unknown: Vec<_> = ids(&tests)
        .chain(ids(&code))
        .filter(|id| !rows.contains_key(id))
        .collect();
    assert!(unknown.is_empty(), "no such requirement: {unknown:?}");
    let tested: Vec<_> = rows
        .iter()
        .filter(|(id, is_testable)| !**is_testable && cited.contains(*id))
        .collect();
    assert!(tested.is_empty(), "cited in spite of its row: {tested:?}");
}
