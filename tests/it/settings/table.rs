//! The table in `docs/guide/configuration.md` has the settings and variables that are accepted, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{SECRET, good, read, vars, with};
use common::{AUDIENCE, ISSUER};

/// A row of the table.
struct Row {
    setting: String,
    variables: Vec<String>,
}

/// The texts in code marks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn table() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    let table = page.split("## All settings").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 5, "{row}");
        let setting = code(cells[0]);
        assert_eq!(setting.len(), 1, "{row}");
        Row {
            setting: setting[0].clone(),
            variables: code(cells[1]),
        }
    })
    .collect()
}

/// The names that an error lists after an unknown one.
fn listed(error: &str) -> Vec<String> {
    let (_, names) = error
        .split_once("expected one of ")
        .unwrap_or_else(|| panic!("{error}"));
    names.split(", ").map(str::to_owned).collect()
}

/// Not similar to any name.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqq";

#[test]
fn the_table_has_every_setting() {
    let mut accepted = BTreeSet::new();
    let top = read(&with(UNKNOWN, json!(1))).unwrap_err();
    for name in listed(&top) {
        let inner = read(&with(&format!("{name}.{UNKNOWN}"), json!(1))).unwrap_err();
        match inner.split_once(": unknown setting") {
            // A reference to a secret is one setting.
            Some((path, _)) if name != "nonces" => {
                assert_eq!(path, format!("{name}.{UNKNOWN}"));
                accepted.extend(listed(&inner).iter().map(|inner| format!("{name}.{inner}")));
            }
            _ => {
                accepted.insert(name);
            }
        }
    }
    let mut documented: BTreeSet<_> = table().into_iter().map(|row| row.setting).collect();
    assert!(documented.len() > 40, "{documented:?}");
    // A name instead of a table.
    assert!(documented.remove("freshness"));
    assert_eq!(accepted, documented);
}

#[test]
fn the_table_has_every_variable() {
    let error = vars(&[("DPOP_QQQQQQQQQQQQQQQQ", "1")]).unwrap_err();
    let accepted: BTreeSet<_> = listed(&error.to_string()).into_iter().collect();
    let documented: Vec<_> = table().into_iter().flat_map(|row| row.variables).collect();
    let unique: BTreeSet<_> = documented.iter().cloned().collect();
    assert_eq!(unique.len(), documented.len());
    assert_eq!(accepted, unique);
}

/// The name of a variable follows from that of its setting.
#[test]
fn variables_are_named_as_their_settings() {
    for row in table() {
        let name = match row.setting.as_str() {
            "issuer.url" => "DPOP_ISSUER".to_owned(),
            setting => format!("DPOP_{}", setting.replace('.', "_").to_uppercase()),
        };
        assert_eq!(row.variables[0], name);
        let rest: Vec<_> = row.variables[1..].iter().map(String::as_str).collect();
        match row.setting.as_str() {
            "nonces" => assert_eq!(rest, ["DPOP_NONCE_SECRETS", "DPOP_NONCE_SECRETS_FILE"]),
            _ if rest.is_empty() => {}
            _ => assert_eq!(rest, [format!("{name}_FILE")]),
        }
    }
}

/// What each setting needs next to it, besides the good document.
fn context(setting: &str) -> Vec<(&'static str, &'static str, Value)> {
    if setting.starts_with("introspection.") {
        let secret = json!({ "env": "DPOP_INTROSPECTION_CLIENT_SECRET" });
        return vec![
            ("introspection.url", "DPOP_INTROSPECTION_URL", json!(ISSUER)),
            (
                "introspection.client_id",
                "DPOP_INTROSPECTION_CLIENT_ID",
                json!("orders"),
            ),
            (
                "introspection.client_secret",
                "DPOP_INTROSPECTION_CLIENT_SECRET",
                secret,
            ),
        ];
    }
    match setting {
        "redis.sentinels" => vec![("redis.primary", "DPOP_REDIS_PRIMARY", json!("a"))],
        "redis.primary" => vec![(
            "redis.sentinels",
            "DPOP_REDIS_SENTINELS",
            json!("rediss://a"),
        )],
        "redis.user" => vec![
            ("redis.url", "DPOP_REDIS_URL", json!("rediss://a")),
            (
                "redis.password",
                "DPOP_REDIS_PASSWORD",
                json!({ "env": "DPOP_REDIS_PASSWORD" }),
            ),
        ],
        _ if setting.starts_with("redis.") => {
            vec![("redis.url", "DPOP_REDIS_URL", json!("rediss://a"))]
        }
        _ => Vec::new(),
    }
}

/// A value of each variable, and the same in a document.
fn sample(setting: &str, variable: &str) -> (String, Value) {
    if let Some(secret) = variable.strip_suffix("_FILE")
        && (secret.ends_with("SECRET")
            || secret.ends_with("SECRETS")
            || secret.ends_with("PASSWORD"))
    {
        return ("/run/secret".into(), json!({ "file": "/run/secret" }));
    }
    if ["SECRET", "SECRETS", "PASSWORD"]
        .iter()
        .any(|end| variable.ends_with(end))
    {
        return (SECRET.into(), json!({ "env": variable }));
    }
    let last = setting.rsplit('.').next().unwrap();
    let text = match last {
        "public_url" => "https://a.example https://b.example",
        "profile" => "keycloak",
        "algorithms" => "ES256 EdDSA",
        "freshness" => "mcp",
        "nonces" => "generated",
        "url" if setting == "redis.url" => "rediss://b",
        "sentinels" => "rediss://a rediss://b",
        "url" | "proxy" | "metadata_url" | "jwks_url" => "https://c.example",
        _ if last.ends_with("_seconds") || last.ends_with("_limit") => "7",
        _ if last.starts_with("insecure")
            || [
                "lenient_typ",
                "optional_audience",
                "client_secret_post",
                "nonce_instead_of_iat",
                "allow_bearer",
            ]
            .contains(&last) =>
        {
            "true"
        }
        _ => "sample",
    };
    let value = match text {
        "7" => json!(7),
        "true" => json!(true),
        _ if ["public_url", "sentinels"].contains(&last) => {
            json!(text.split(' ').collect::<Vec<_>>())
        }
        _ => json!(text),
    };
    (text.to_owned(), value)
}

#[test]
fn a_variable_is_its_setting() {
    let mut seen = BTreeSet::new();
    for row in table() {
        for variable in &row.variables {
            let mut document = good();
            let mut given = vec![
                ("DPOP_PUBLIC_URL".to_owned(), AUDIENCE.to_owned()),
                ("DPOP_ISSUER".to_owned(), ISSUER.to_owned()),
                ("DPOP_ISSUER_JWKS_FILE".to_owned(), "/keys.json".to_owned()),
            ];
            for (setting, name, value) in context(&row.setting) {
                if setting == row.setting {
                    continue;
                }
                let text = value.as_str().unwrap_or(SECRET).to_owned();
                given.push((name.to_owned(), text));
                *super::at(&mut document, setting) = value;
            }
            // The keys have one place.
            if ["issuer.jwks_url", "issuer.metadata_url"].contains(&row.setting.as_str()) {
                given.pop();
                document["issuer"]
                    .as_object_mut()
                    .unwrap()
                    .remove("jwks_file");
            }
            let (text, value) = sample(&row.setting, variable);
            given.push((variable.clone(), text));
            *super::at(&mut document, &row.setting) = value;

            let from_document = read(&document);
            let from_variables = tower_dpop::settings::Settings::from_vars(given);
            if cfg!(not(feature = "redis")) && row.setting.starts_with("redis.") {
                assert!(from_document.unwrap_err().contains("the feature redis"));
                assert!(
                    from_variables
                        .unwrap_err()
                        .to_string()
                        .contains("the feature redis")
                );
                continue;
            }
            let shown = format!("{:?}", from_document.expect(variable));
            assert_eq!(format!("{:?}", from_variables.expect(variable)), shown);
            assert_ne!(shown, format!("{:?}", read(&good()).unwrap()), "{variable}");
            assert!(!shown.contains(SECRET), "{variable}");
            seen.insert(variable.clone());
        }
    }
    assert!(seen.len() > 40, "{seen:?}");
}
