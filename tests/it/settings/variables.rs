//! Variables: one change to good ones per row, and the whole text of the error.

use std::env;
use std::process::Command;

use tower_dpop::settings::Settings;

use super::{SECRET, vars};

const GOOD: [(&str, &str); 3] = [
    ("DPOP_PUBLIC_URL", "https://api.example.com"),
    ("DPOP_ISSUER", "https://as.example.com"),
    ("DPOP_ISSUER_JWKS_FILE", "/keys.json"),
];

/// The good variables and these. A later one replaces an earlier one with its name.
fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [GOOD.as_slice(), more].concat()
}

#[test]
fn an_invalid_variable_is_named_with_what_was_expected() {
    let https = "must be https (plain http is accepted on loopback only)";
    let rows: &[(&[(&str, &str)], &str)] = &[
        (
            &[("DPOP_PUBLIC_URL", "http://a.example")],
            &format!("DPOP_PUBLIC_URL: \"http://a.example\": {https}"),
        ),
        (
            &[("DPOP_PUBLIC_URL", "https://a.example ftp://b")],
            "DPOP_PUBLIC_URL: \"ftp://b\": must be an absolute URL of the form https://host[:port][/prefix]",
        ),
        (
            &[("DPOP_AUDIANCE", "a")],
            "DPOP_AUDIANCE: unknown variable, did you mean DPOP_AUDIENCE?",
        ),
        (&[("DPOP_REALM", "")], "DPOP_REALM: is empty"),
        (
            &[("DPOP_NONCE_SECRETS", "\n")],
            "DPOP_NONCE_SECRETS: is empty",
        ),
        (
            &[("DPOP_ALLOW_BEARER", "yes")],
            "DPOP_ALLOW_BEARER: must be true or false",
        ),
        (
            &[("DPOP_START_TIMEOUT_SECONDS", "10s")],
            "DPOP_START_TIMEOUT_SECONDS: \"10s\": must be a whole number",
        ),
        (
            &[("DPOP_FRESHNESS", "strict")],
            "DPOP_FRESHNESS: \"strict\": must be fapi2, mcp, or a table",
        ),
        (
            &[("DPOP_FRESHNESS_LEEWAY_SECONDS", "90000")],
            "DPOP_FRESHNESS_LEEWAY_SECONDS: 90000: must be 0 to 86400 seconds",
        ),
        (
            &[
                ("DPOP_FRESHNESS", "fapi2"),
                ("DPOP_FRESHNESS_LEEWAY_SECONDS", "5"),
            ],
            "DPOP_FRESHNESS_LEEWAY_SECONDS: must not be set together with DPOP_FRESHNESS",
        ),
        (
            &[("DPOP_ISSUER_PROFILE", "Auth0")],
            "DPOP_ISSUER_PROFILE: \"Auth0\": must be one of auth0, entra_id, keycloak, okta",
        ),
        (
            &[("DPOP_ISSUER_JWKS_URL", "https://a.example")],
            "DPOP_ISSUER: metadata_url, jwks_url and jwks_file must not be set together",
        ),
        (
            &[("DPOP_ALGORITHMS", "ES256,ES384")],
            "DPOP_ALGORITHMS: \"ES256,ES384\": not a supported signature algorithm",
        ),
        (
            &[("DPOP_NONCES", "on")],
            "DPOP_NONCES: must be off, generated, or a reference to secrets, { file = \"/path\" } or { env = \"NAME\" }",
        ),
        (
            &[("DPOP_NONCES", "generated"), ("DPOP_NONCE_SECRETS", "a")],
            "DPOP_NONCE_SECRETS: must not be set together with DPOP_NONCES",
        ),
        (
            &[("DPOP_NONCES", "off"), ("DPOP_NONCE_SECRETS_FILE", "/a")],
            "DPOP_NONCE_SECRETS_FILE: must not be set together with DPOP_NONCES",
        ),
        (
            &[
                ("DPOP_NONCE_SECRETS", SECRET),
                ("DPOP_NONCE_SECRETS_FILE", "/a"),
            ],
            "DPOP_NONCE_SECRETS_FILE: must not be set together with DPOP_NONCE_SECRETS",
        ),
        (
            &[("DPOP_INTROSPECTION_URL", "https://a.example")],
            "DPOP_INTROSPECTION_CLIENT_ID: must be set",
        ),
        (
            &[
                ("DPOP_INTROSPECTION_URL", "https://a.example"),
                ("DPOP_INTROSPECTION_CLIENT_ID", "a"),
            ],
            "DPOP_INTROSPECTION_CLIENT_SECRET: must be set",
        ),
        (
            &[("DPOP_INTROSPECTION_CLIENT_ID", "a")],
            "DPOP_INTROSPECTION_URL: must be set",
        ),
    ];
    for (more, expected) in rows {
        let error = vars(&with(more)).unwrap_err();
        assert_eq!(&error.to_string(), expected);
        let (name, _) = expected.split_once(": ").unwrap();
        assert_eq!(error.setting(), name);
    }
}

#[test]
fn a_missing_variable_is_named() {
    let rows = [
        (
            &GOOD[1..],
            "DPOP_PUBLIC_URL: must be set: the URL under which clients reach the service",
        ),
        (&GOOD[..1], "DPOP_ISSUER: must be set, or introspection"),
        (
            &[][..],
            "DPOP_PUBLIC_URL: must be set: the URL under which clients reach the service",
        ),
    ];
    for (given, expected) in rows {
        assert_eq!(vars(given).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_unknown_variable_that_is_not_misspelt_gets_a_list() {
    let error = vars(&with(&[("DPOP_PASSPHRASE", "hunter2")])).unwrap_err();
    let start =
        "DPOP_PASSPHRASE: unknown variable, expected one of DPOP_PUBLIC_URL, DPOP_INSECURE_HTTP, ";
    assert!(error.to_string().starts_with(start), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn other_variables_are_ignored() {
    assert!(
        vars(&with(&[
            ("PATH", "/bin"),
            ("dpop_realm", ""),
            ("DPOPX", ""),
            // The tool `dpop` reads it.
            ("DPOP_CLIENT_SECRET", "hunter2")
        ]))
        .is_ok()
    );
}

/// Runs itself with each environment, since a test cannot set a variable of its own process.
#[test]
fn the_variables_of_the_process_are_read() {
    const TEST: &str = "settings::variables::the_variables_of_the_process_are_read";
    if env::var_os("TOWER_DPOP_TEST_INNER").is_some() {
        match Settings::from_env() {
            Ok(settings) => println!("\nsettings: {settings:?}"),
            Err(error) => println!("\nerror: {error}"),
        }
        return;
    }
    let good = format!("settings: {:?}", vars(&GOOD).unwrap());
    let rows = [
        ("good", with(&[]), good),
        (
            "unknown",
            with(&[("DPOP_REALMS", "a")]),
            "error: DPOP_REALMS: unknown variable, did you mean DPOP_REALM?".to_owned(),
        ),
    ];
    for (name, given, expected) in rows {
        let mut inner = Command::new(env::current_exe().unwrap());
        inner
            .args(["--exact", TEST, "--nocapture"])
            .env("TOWER_DPOP_TEST_INNER", "1")
            .envs(given);
        let output = inner.output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.lines().any(|line| line == expected),
            "{name}: {output}"
        );
    }
}

/// The value of a variable that is not Unicode is not shown.
#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    const TEST: &str = "settings::variables::a_variable_that_is_not_unicode_is_named";
    if env::var_os("TOWER_DPOP_TEST_INNER").is_some() {
        println!("\nerror: {}", Settings::from_env().unwrap_err());
        return;
    }
    let mut inner = Command::new(env::current_exe().unwrap());
    inner
        .args(["--exact", TEST, "--nocapture"])
        .env("TOWER_DPOP_TEST_INNER", "1")
        .env("DPOP_REALM", OsStr::from_bytes(b"hunter2\xff"));
    let output = String::from_utf8(inner.output().unwrap().stdout).unwrap();
    let expected = "error: DPOP_REALM: is not Unicode";
    assert!(output.lines().any(|line| line == expected), "{output}");
}
