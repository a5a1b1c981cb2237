//! Secrets by reference: a file, a variable of the process, a variable that was given.

use std::env;
use std::process::Command;

use serde_json::{Value, json};
use tower_dpop::settings::Settings;

use super::{SECRET, file, read, vars, with};
use common::{AUDIENCE, ISSUER, block_on, issuer_jwks};

/// Settings that need no network, with these nonces.
fn with_nonces(nonces: Value) -> Settings {
    let keys = file("secrets-keys", &issuer_jwks());
    let mut document = with("nonces", nonces);
    document["issuer"]["jwks_file"] = json!(keys);
    read(&document).unwrap()
}

fn introspection(secret: &Value) -> Settings {
    let document = json!({
        "public_url": AUDIENCE,
        "introspection": { "url": ISSUER, "client_id": "orders", "client_secret": secret },
    });
    read(&document).unwrap()
}

fn error(settings: &Settings) -> String {
    let error = block_on(settings.build()).unwrap_err().to_string();
    assert!(!error.contains(SECRET), "{error}");
    assert_eq!(settings.check().unwrap_err().to_string(), error);
    error
}

#[test]
fn an_unusable_file_with_nonce_secrets_is_named() {
    let missing = file("missing", "") + "-not";
    let short = file("short", &SECRET[2..]);
    let empty = file("empty", "\n");
    let too_short = "a nonce secret must have at least 32 bytes (64 hexadecimal digits, or 43 characters of base64url)";
    let rows = [
        (
            &missing,
            "No such file or directory (os error 2)".to_owned(),
        ),
        (&short, format!("secret 1: {too_short}")),
        (
            &empty,
            "no nonce secret, expected one per line or separated by commas".to_owned(),
        ),
    ];
    for (path, reason) in rows {
        let settings = with_nonces(json!({ "file": path }));
        let expected = format!("nonces.file: file {path}: {reason}");
        assert_eq!(error(&settings), expected);
        assert_eq!(settings.nonce_secrets().unwrap_err().to_string(), expected);

        let keys = file("secrets-keys", &issuer_jwks());
        let settings = vars(&[
            ("DPOP_PUBLIC_URL", AUDIENCE),
            ("DPOP_ISSUER", ISSUER),
            ("DPOP_ISSUER_JWKS_FILE", &keys),
            ("DPOP_NONCE_SECRETS_FILE", path),
        ]);
        let expected = format!("DPOP_NONCE_SECRETS_FILE: file {path}: {reason}");
        assert_eq!(error(&settings.unwrap()), expected);
    }
}

/// `error` searches the text for the secret.
#[test]
fn a_secret_in_the_place_of_its_path_is_not_shown() {
    let problem = "there is no such file: expected its path, not the secret itself";
    let secret = json!({ "file": SECRET });
    let with_a_slash = json!({ "file": format!("a1b2/{SECRET}") });
    for (settings, name) in [
        (with_nonces(secret.clone()), "nonces"),
        (with_nonces(with_a_slash.clone()), "nonces"),
        (introspection(&secret), "introspection.client_secret"),
        (introspection(&with_a_slash), "introspection.client_secret"),
    ] {
        assert_eq!(error(&settings), format!("{name}.file: {problem}"));
    }
}

#[test]
fn an_unusable_client_secret_is_named() {
    let missing = file("client-missing", "") + "-not";
    let empty = file("client-empty", "\n");
    let rows = [
        (
            json!({ "file": missing }),
            format!("introspection.client_secret.file: file {missing}: No such file or directory (os error 2)"),
        ),
        (
            json!({ "file": empty }),
            "introspection.client_secret.file: the secret is empty".to_owned(),
        ),
        (
            json!({ "env": "TOWER_DPOP_TEST_NOT_SET" }),
            "introspection.client_secret.env: environment variable TOWER_DPOP_TEST_NOT_SET: not set".to_owned(),
        ),
    ];
    for (secret, expected) in rows {
        assert_eq!(error(&introspection(&secret)), expected);
    }
}

/// Files of secrets end in a line break.
#[test]
fn secrets_in_a_file_are_used_and_read_again() {
    let other = "ff".repeat(32);
    let path = file("rotated", &format!("{SECRET}\n"));
    let settings = with_nonces(json!({ "file": path }));
    let parts = block_on(settings.build_parts::<tower_dpop::Claims>()).unwrap();
    let first = parts.verifier.issue_nonce().unwrap();
    file("rotated", &format!("{other}\n{SECRET}\n"));
    let secrets = settings.nonce_secrets().unwrap().unwrap();
    parts.nonces.unwrap().replace_secrets(secrets);
    assert_ne!(parts.verifier.issue_nonce().unwrap(), first);
}

#[test]
fn nonces_that_need_no_secret_have_none() {
    for (nonces, are_required) in [("off", false), ("generated", true)] {
        let settings = with_nonces(json!(nonces));
        assert!(settings.nonce_secrets().unwrap().is_none());
        let parts = block_on(settings.build_parts::<tower_dpop::Claims>()).unwrap();
        assert_eq!(parts.nonces.is_some(), are_required, "{nonces}");
        assert_eq!(
            parts.verifier.issue_nonce().is_some(),
            are_required,
            "{nonces}"
        );
    }
}

/// Runs itself with the variable, since a test cannot set one of its own process.
#[test]
fn a_document_refers_to_a_variable_of_the_process() {
    const VARIABLE: &str = "TOWER_DPOP_TEST_SETTINGS_SECRET";
    const TEST: &str = "settings::secrets::a_document_refers_to_a_variable_of_the_process";
    if env::var_os("TOWER_DPOP_TEST_INNER").is_some() {
        match block_on(with_nonces(json!({ "env": VARIABLE })).build()) {
            Ok(verifier) => println!("\nrequired: {}", verifier.issue_nonce().is_some()),
            Err(error) => println!("\nerror: {error}"),
        }
        match block_on(introspection(&json!({ "env": VARIABLE })).build()) {
            Ok(_) => println!("\nintrospects"),
            Err(error) => println!("\nerror: {error}"),
        }
        return;
    }
    let missing = format!("environment variable {VARIABLE}: not set");
    let rows = [
        (
            Some(SECRET),
            ["required: true".to_owned(), "introspects".to_owned()],
        ),
        (
            None,
            [
                format!("error: nonces.env: {missing}"),
                format!("error: introspection.client_secret.env: {missing}"),
            ],
        ),
    ];
    for (value, expected) in rows {
        let mut inner = Command::new(env::current_exe().unwrap());
        inner
            .args(["--exact", TEST, "--nocapture"])
            .env("TOWER_DPOP_TEST_INNER", "1");
        inner.envs(value.map(|value| (VARIABLE, value)));
        let output = String::from_utf8(inner.output().unwrap().stdout).unwrap();
        for expected in expected {
            assert!(output.lines().any(|line| line == expected), "{output}");
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let settings = vars(&[
        ("DPOP_PUBLIC_URL", AUDIENCE),
        ("DPOP_INTROSPECTION_URL", ISSUER),
        ("DPOP_INTROSPECTION_CLIENT_ID", "orders"),
        ("DPOP_INTROSPECTION_CLIENT_SECRET", "hunter2"),
        ("DPOP_NONCE_SECRETS", SECRET),
    ]);
    let settings = settings.unwrap();
    let parts = block_on(settings.build_parts::<tower_dpop::Claims>()).unwrap();
    for shown in [
        format!("{settings:?}"),
        format!("{settings:#?}"),
        format!("{parts:?}"),
    ] {
        assert!(
            !shown.contains("hunter2") && !shown.contains(SECRET),
            "{shown}"
        );
    }
    assert!(parts.verifier.issue_nonce().is_some());
}

#[test]
fn an_invalid_secret_in_a_variable_is_not_shown() {
    let keys = file("secrets-keys", &issuer_jwks());
    let settings = vars(&[
        ("DPOP_PUBLIC_URL", AUDIENCE),
        ("DPOP_ISSUER", ISSUER),
        ("DPOP_ISSUER_JWKS_FILE", &keys),
        ("DPOP_NONCE_SECRETS", "hunter2"),
    ]);
    assert_eq!(
        error(&settings.unwrap()),
        "DPOP_NONCE_SECRETS: the text: secret 1: a nonce secret must be base64url, or an even number of hexadecimal digits"
    );
}
