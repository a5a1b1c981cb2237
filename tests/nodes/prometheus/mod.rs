//! The guide's recipe for Prometheus, its dashboard and its alerts: a real server, scraped by a real Prometheus.

mod pages;
mod recipe;
mod scraped;

use std::process::Command;

/// Runs `promtool`, and returns what it prints.
#[track_caller]
fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.expect("promtool: on Debian, apt-get install prometheus");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{arguments:?}: {}", text.concat());
    text.concat()
}
