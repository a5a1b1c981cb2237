//! The list of defects.

use std::collections::BTreeSet;

use tower_dpop::testing::Defect;

/// The rows that the table in the docs must have.
fn table() -> Vec<String> {
    let row = |defect: &Defect| {
        let rejection = defect.rejection();
        let error = rejection
            .error_code()
            .map_or_else(|| "none".to_owned(), |error| format!("`{error}`"));
        let status = rejection.status().as_u16();
        format!("/// | [`{defect:?}`](Self::{defect:?}) | {status} | {error} | `{rejection:?}` |")
    };
    Defect::ALL.iter().map(row).collect()
}

#[test]
fn the_table_in_the_docs_matches_the_code() {
    let documented: Vec<&str> = include_str!("../../../src/testing/defect.rs")
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("/// | [`"))
        .collect();
    let table = table().join("\n");
    assert_eq!(
        documented.join("\n"),
        table,
        "the table should be:\n{table}"
    );
}

#[test]
fn every_defect_has_a_unique_name() {
    let names: BTreeSet<&str> = Defect::ALL.iter().map(|defect| defect.name()).collect();
    assert_eq!(names.len(), Defect::ALL.len());
}
