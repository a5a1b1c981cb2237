//! What the pages say about metrics is what the crate records.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::promtool;
use crate::servers::Folder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices("tower_dpop_").map(|(at, _)| &text[at..]);
    starts
        .map(|rest| rest.split(|c| !is_part(c)).next().unwrap().to_owned())
        .collect()
}

/// The metrics of the crate, as its source has them.
pub fn of_the_crate() -> BTreeSet<String> {
    let files = [
        "src/telemetry.rs",
        "src/telemetry/replay_store.rs",
        "src/telemetry/replay_store/shared.rs",
    ];
    let constants = files.map(|file| {
        let text = read(file);
        let lines = text.lines().filter(|line| line.starts_with("pub const "));
        lines.fold(String::new(), |all, line| all + line + "\n")
    });
    let names = names(&constants.concat());
    assert!(names.len() >= 16, "{names:?}");
    names
}

/// The names without what Prometheus adds to those of histograms.
fn base_names(text: &str) -> BTreeSet<String> {
    let base = |name: String| {
        let suffix = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        suffix.unwrap_or(&name).to_owned()
    };
    names(text).into_iter().map(base).collect()
}

/// The expressions of the dashboard's panels, with values in place of Grafana's variables.
pub fn dashboard_expressions() -> Vec<(String, String)> {
    let dashboard: Value =
        serde_json::from_str(&read("docs/guide/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut expressions = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$job", ".*")
                .replace("$instance", ".*");
            assert!(!expression.contains('$'), "{title}: {expression}");
            expressions.push((title.to_owned(), expression));
        }
    }
    expressions
}

#[test]
fn the_page_has_the_recipe_as_it_is_run() {
    let page = read("docs/guide/logs-metrics-alerts.md");
    let recipe = format!("```rust,ignore\n{}```\n", include_str!("recipe.rs"));
    assert!(page.contains(&recipe), "the page has another recipe");
}

#[test]
fn the_page_describes_every_metric_and_no_other() {
    let page = read("docs/guide/logs-metrics-alerts.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `tower_dpop_"));
    let described: Vec<_> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    let expected = of_the_crate();
    assert_eq!(described.len(), expected.len(), "{described:?}");
    assert_eq!(
        described
            .into_iter()
            .map(String::from)
            .collect::<BTreeSet<_>>(),
        expected
    );
    assert_eq!(base_names(&page).difference(&expected).next(), None);
}

#[test]
fn dashboard_alerts_and_pages_name_only_metrics_that_exist() {
    let known = of_the_crate();
    for file in [
        "grafana-dashboard.json",
        "alerts.yml",
        "redis.md",
        "several-nodes.md",
    ] {
        let named = base_names(&read(&format!("docs/guide/{file}")));
        assert_eq!(named.difference(&known).next(), None, "{file}");
    }
    // Every metric is on the dashboard.
    let shown = base_names(&read("docs/guide/grafana-dashboard.json"));
    assert_eq!(known.difference(&shown).next(), None);
}

#[test]
fn the_alerts_are_rules_and_fire_when_they_should() {
    let alerts = root().join("docs/guide/alerts.yml");
    promtool(&["check", "rules", alerts.to_str().unwrap()]);
    let tests = root().join("tests/nodes/prometheus/alerts.test.yml");
    promtool(&["test", "rules", tests.to_str().unwrap()]);
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value =
        serde_json::from_str(&read("docs/guide/grafana-dashboard.json")).unwrap();
    assert_eq!(dashboard["schemaVersion"], 39);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource");
    assert_eq!(variables[0]["query"], "prometheus");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        assert_eq!(
            panel["datasource"]["uid"], "${datasource}",
            "{}",
            panel["title"]
        );
    }
    // PromQL that can be parsed.
    let rules = dashboard_expressions().into_iter().enumerate();
    let rules: Vec<_> = rules
        .map(|(number, (_, expr))| serde_json::json!({ "record": format!("panel:{number}"), "expr": expr }))
        .collect();
    assert!(rules.len() >= 15);
    let folder = Folder::new();
    let file = folder.path().join("rules.json");
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}
