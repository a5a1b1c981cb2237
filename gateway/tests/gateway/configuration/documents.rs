//! The guide's page and the example file are true.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Folder, SECRET};
use crate::support::{Gateway, Parties};

const EXAMPLE: &str = include_str!("../../../gateway.toml");

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join("docs/guide/gateway-configuration.md")).unwrap()
}

/// The content of the first block of this language.
fn block(language: &str) -> String {
    let page = page();
    let (_, after) = page.split_once(&format!("```{language}\n")).unwrap();
    after.split_once("```").unwrap().0.to_owned()
}

/// The example, with the files of a test.
fn example(folder: &Folder) -> String {
    for (name, source) in [
        ("internal-ca.pem", "certificate.pem"),
        ("redis-password", "nonces"),
    ] {
        fs::copy(folder.path().join(source), folder.path().join(name)).unwrap();
    }
    EXAMPLE.replace("/etc/dpop-gateway/", "FOLDER/")
}

#[test]
fn the_example_is_valid_and_on_the_page() {
    assert_eq!(block("toml"), EXAMPLE);
    let folder = Folder::new();
    assert_eq!(folder.check(&example(&folder)), (0, String::new()));
}

#[test]
fn the_problems_on_the_page_are_those_of_the_program() {
    let folder = Folder::new();
    let wrong = example(&folder)
        .replace(
            "write\"\nupstream = \"orders\"",
            "write\"\nupstream = \"order\"",
        )
        .replace("max_age_seconds = 300", "max_age_seconds = 0");
    assert_eq!(folder.check(&wrong), (2, block("text")));
}

/// Not similar to any name.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqq";

/// What the program says about a table that has an unknown setting: the names that it knows, or nothing if it is no table.
fn known(folder: &Folder, tables: &[(String, bool)]) -> Option<Vec<String>> {
    let headers = tables.iter().map(|(path, is_list)| match is_list {
        true => format!("[[{path}]]\n"),
        false => format!("[{path}]\n"),
    });
    let config = headers.collect::<Vec<_>>().concat();
    let (status, errors) = folder.check(&format!("{config}{UNKNOWN} = 1\n"));
    assert_eq!(status, 2);
    let line = errors.lines().find(|line| line.contains(UNKNOWN))?;
    let (_, names) = line.split_once(": unknown setting, expected one of ")?;
    Some(names.split(", ").map(str::to_owned).collect())
}

/// All settings below these tables.
fn settings(folder: &Folder, tables: &[(String, bool)], found: &mut BTreeSet<String>) {
    let parent = tables
        .last()
        .map_or(String::new(), |(path, _)| format!("{path}."));
    for name in known(folder, tables).unwrap() {
        let path = match format!("{parent}{name}").as_str() {
            // The crate's own, in another table.
            "dpop" => continue,
            "upstream" => "upstream.NAME".to_owned(),
            path => path.to_owned(),
        };
        let inner = [false, true].map(|is_list| [tables, &[(path.clone(), is_list)]].concat());
        let table = inner
            .into_iter()
            .find(|tables| known(folder, tables).is_some());
        match table {
            Some(tables) => settings(folder, &tables, found),
            None => assert!(found.insert(path)),
        }
    }
}

#[test]
fn the_table_has_every_setting() {
    let page = page();
    let (_, table) = page.split_once("## All settings").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut documented = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        let name = cells[0].trim_start_matches("| ").trim_matches('`');
        assert!(documented.insert(name.to_owned()), "{name} is there twice");
    }
    let mut accepted = BTreeSet::new();
    settings(&Folder::new(), &[], &mut accepted);
    assert!(accepted.len() > 40, "{accepted:?}");
    assert_eq!(accepted, documented);
}

/// `start_timeout_seconds` is 0.
#[test]
fn the_gateway_starts_while_its_issuer_and_redis_are_down() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let dpop = format!("redis = {{ url = \"redis://{address}\" }}");
    let config = format!(
        r#"
        [[dpop.issuer]]
        url = "http://{address}"
        [[listener]]
        address = "127.0.0.1:0"
        [upstream.orders]
        servers = ["http://127.0.0.1:1"]
        [[route]]
        path = "/"
        upstream = "orders"
        "#
    );
    let gateway = Gateway::with_dpop(&Parties::new(), &dpop, &config).start();
    assert!(gateway.url("proxy").starts_with("http://127.0.0.1:"));
}

#[test]
fn the_help_names_signals_and_exit_statuses() {
    let output = Folder::new().run("", &["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for expected in [
        "--check",
        "--config <FILE>",
        "DPOP_GATEWAY_CONFIG",
        "SIGHUP",
        "SIGTERM",
        "SIGINT",
        "SIGUSR2",
        "Exit statuses",
    ] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    assert!(!help.contains(SECRET));
}
