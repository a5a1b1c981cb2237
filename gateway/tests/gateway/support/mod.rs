//! What the tests start.

mod client;
mod frames;
mod gateway;
mod load;
mod parties;
mod program;
mod raw;
mod service;
mod upstream;
mod wire;

use std::collections::BTreeSet;

pub use client::Client;
pub use frames::{FramedRequest, Outcome};
pub use gateway::{Gateway, Started};
pub use load::Load;
pub use parties::{PUBLIC_URL, Parties};
pub use program::{Certificate, Program, eventually, signal_to};
pub use raw::{Raw, RawRequest, Received};
pub use service::Service;
pub use upstream::{Authority, Seen, Upstream};
pub use wire::{Wire, head};

/// The names in the first column of the table behind this heading, on the page of the guide for operators. A cell can have several.
pub fn first_column(heading: &str) -> BTreeSet<String> {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/guide/gateway-operations.md"
    );
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    // Tables are separated by text.
    let table = section.split("\n| field | value |\n").last().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" |").next().unwrap());
    cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

/// Waits until there is a value. Panics if there is none for half a minute: what is waited for takes milliseconds.
pub async fn until<T>(what: &str, mut value: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(value) = value().await {
            return value;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}: not within half a minute");
}

/// A configuration that sends everything to one upstream, with this in its table.
pub fn forwarding_to(upstream: &str) -> String {
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        [[route]]
        path = "/"
        upstream = "orders"
        [[identity]]
        claim = "sub"
        field = "X-Auth-Subject"
        [upstream.orders]
        {upstream}
        "#
    )
}
