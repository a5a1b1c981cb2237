//! Configuration values in documents: one row per value, with the whole text of the error.

use std::env;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower_dpop::resource::{QuotedText, Scopes};
use tower_dpop::tokens::{EndpointUrl, Profile};
use tower_dpop::{Algorithms, Freshness, NonceSecret, NonceSecrets, PublicUrl};

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

#[track_caller]
fn accepts<T: DeserializeOwned + Debug>(value: &Value, expected: &T) {
    let found: T = read(value).unwrap();
    assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{value}");
}

#[track_caller]
fn rejects<T: DeserializeOwned + Debug>(value: &Value, expected: &str) {
    assert_eq!(read::<T>(value).unwrap_err(), expected, "{value}");
}

#[test]
fn a_url_is_a_string() {
    let (url, plain) = ("https://a.example", "http://a.example");
    let not_https = "\"http://a.example\": must be https (plain http is accepted on loopback only)";
    accepts(&json!(url), &url.parse::<PublicUrl>().unwrap());
    rejects::<PublicUrl>(&json!(plain), not_https);
    rejects::<PublicUrl>(
        &json!(5),
        "invalid type: integer `5`, expected the URL of a service",
    );
    accepts(&json!(url), &url.parse::<EndpointUrl>().unwrap());
    rejects::<EndpointUrl>(&json!(plain), not_https);
    rejects::<EndpointUrl>(
        &json!([]),
        "invalid type: sequence, expected the URL of an endpoint",
    );
}

/// A password in a URL is not shown.
#[test]
fn an_error_shows_no_userinfo() {
    for error in [
        read::<PublicUrl>(&json!("https://a:hunter2@a.example")).unwrap_err(),
        read::<EndpointUrl>(&json!("https://a:hunter2@a.example")).unwrap_err(),
    ] {
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn words_are_a_string_or_a_list() {
    let algorithms: Algorithms = "ES256 EdDSA".parse().unwrap();
    accepts(&json!("ES256 EdDSA"), &algorithms);
    accepts(&json!(["ES256", "EdDSA"]), &algorithms);
    rejects::<Algorithms>(&json!([]), "\"\": a list of algorithms must not be empty");
    rejects::<Algorithms>(
        &json!("none"),
        "\"none\": not a supported signature algorithm",
    );
    rejects::<Algorithms>(
        &json!(["ES256", 5]),
        "invalid type: integer `5`, expected a string",
    );
    rejects::<Algorithms>(
        &json!(["ES256 ES384"]),
        "\"ES256 ES384\": must not contain spaces in a list",
    );
    let expected = "invalid type: null, expected the names of algorithms, as a string or a list";
    rejects::<Algorithms>(&Value::Null, expected);

    let scopes: Scopes = "orders.read orders.write".parse().unwrap();
    accepts(&json!("orders.read orders.write"), &scopes);
    accepts(&json!(["orders.read", "orders.write"]), &scopes);
    let quoted =
        "not a quoted text: expected visible ASCII characters except quotes and backslashes";
    rejects::<Scopes>(&json!("a\"b"), &format!("\"a\\\"b\": {quoted}"));
    rejects::<Scopes>(&json!([]), &format!("\"\": {quoted}"));
    rejects::<QuotedText>(&json!("a\"b"), &format!("\"a\\\"b\": {quoted}"));
    accepts(&json!("orders"), &"orders".parse::<QuotedText>().unwrap());
}

#[test]
fn a_profile_is_the_name_of_a_product() {
    for (name, profile) in [
        ("auth0", Profile::Auth0),
        ("entra_id", Profile::EntraId),
        ("keycloak", Profile::Keycloak),
        ("okta", Profile::Okta),
    ] {
        accepts(&json!(name), &profile);
    }
    let expected =
        "unknown variant `Okta`, expected one of `auth0`, `entra_id`, `keycloak`, `okta`";
    rejects::<Profile>(&json!("Okta"), expected);
}

#[test]
fn freshness_is_a_name_or_a_table() {
    let seconds = Duration::from_secs;
    accepts(&json!("fapi2"), &Freshness::fapi2());
    accepts(&json!("mcp"), &Freshness::mcp());
    accepts(&json!({}), &Freshness::default());
    accepts(
        &json!({ "nonce_instead_of_iat": true }),
        &Freshness::fapi2(),
    );
    accepts(
        &json!({ "max_age_seconds": 0, "leeway_seconds": 300 }),
        &Freshness::mcp(),
    );
    let all = json!({ "max_age_seconds": 86400, "leeway_seconds": 5, "nonce_period_seconds": 1 });
    let expected = Freshness::default()
        .with_max_age(seconds(86_400))
        .with_leeway(seconds(5))
        .with_nonce_period(seconds(1));
    accepts(&all, &expected);
    rejects::<Freshness>(&json!("FAPI2"), "\"FAPI2\": must be fapi2, mcp, or a table");
    rejects::<Freshness>(
        &json!(60),
        "invalid type: integer `60`, expected fapi2, mcp, or a table",
    );
    rejects::<Freshness>(
        &json!({ "max_age_seconds": 86401 }),
        "86401: must be 0 to 86400 seconds",
    );
    rejects::<Freshness>(
        &json!({ "nonce_period_seconds": 0 }),
        "0: must be 1 to 86400 seconds",
    );
    rejects::<Freshness>(
        &json!({ "max_age": 60 }),
        "unknown field `max_age`, expected one of `max_age_seconds`, `leeway_seconds`, `nonce_period_seconds`, `nonce_instead_of_iat`",
    );
}

/// A file, and the reference to it.
fn file(name: &str, content: &str) -> (String, Value) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("deserialize-{name}"));
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let reference = json!({ "file": path });
    (path, reference)
}

#[test]
fn a_secret_in_a_document_is_an_error_that_does_not_show_it() {
    let expected = "a secret is given by reference, as { file = \"/path\" } or { env = \"NAME\" }, and never as text";
    for value in [
        json!(SECRET),
        json!([SECRET]),
        json!(31_337),
        json!(-31_337),
        json!(31.337),
        json!(true),
        Value::Null,
        json!({}),
        json!({ "env": "A", "file": "/a" }),
    ] {
        rejects::<NonceSecret>(&value, expected);
        rejects::<NonceSecrets>(&value, expected);
    }
    let expected = "unknown field `value`, expected `env` or `file`";
    rejects::<NonceSecret>(&json!({ "value": SECRET }), expected);
}

/// T-22: nodes share a file, which may have several secrets.
#[test]
fn a_secret_is_read_from_a_file() {
    let (_, one) = file("one", &format!("{SECRET}\n"));
    let (path, two) = file("two", &format!("{SECRET}\n{OTHER}\n"));
    assert!(read::<NonceSecret>(&one).is_ok());
    assert!(read::<NonceSecrets>(&one).is_ok());
    assert!(read::<NonceSecrets>(&two).is_ok());
    rejects::<NonceSecret>(&two, "there must be one nonce secret, and there are 2");

    let missing = format!("{path}-not");
    let expected = format!("file {missing}: No such file or directory (os error 2)");
    rejects::<NonceSecrets>(&json!({ "file": missing }), &expected);
    let expected = "environment variable TOWER_DPOP_TEST_NOT_SET: not set";
    rejects::<NonceSecret>(&json!({ "env": "TOWER_DPOP_TEST_NOT_SET" }), expected);
    let (path, short) = file("short", &SECRET[2..]);
    let error = read::<NonceSecrets>(&short).unwrap_err();
    assert!(
        error.starts_with(&format!("file {path}: secret 1: ")),
        "{error}"
    );
    assert!(!error.contains(&SECRET[2..]), "{error}");
}

/// A name of Cargo, which no test has to set: its value is a path and no secret.
#[test]
fn a_secret_is_read_from_a_variable() {
    assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
    let error = read::<NonceSecret>(&json!({ "env": "CARGO_MANIFEST_DIR" })).unwrap_err();
    let start = "environment variable CARGO_MANIFEST_DIR: secret 1: ";
    assert!(error.starts_with(start), "{error}");
}
