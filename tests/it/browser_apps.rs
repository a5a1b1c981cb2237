//! The guide's page about browser apps shows parts of the example `browser`, and its commands.

use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code blocks in a language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let start = format!("\n```{language}\n");
    page.split(start.as_str())
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_script_on_the_page_is_that_of_the_example() {
    let page = read("docs/guide/browser-apps.md");
    let script = read("examples/browser/app.js");
    let blocks = blocks(&page, "js");
    assert!(blocks.len() >= 7, "{} blocks", blocks.len());
    for block in blocks {
        assert!(
            script.contains(&format!("\n{block}")),
            "not in app.js:\n{block}"
        );
    }
}

#[test]
fn the_commands_on_the_page_are_those_of_the_example() {
    let page = read("docs/guide/browser-apps.md");
    let documented = read("examples/browser/main.rs").replace("//! ", "");
    let commands = blocks(&page, "sh");
    assert_eq!(commands.len(), 1);
    assert_eq!(commands[0].lines().count(), 3);
    assert!(documented.contains(commands[0]), "{}", commands[0]);
}
