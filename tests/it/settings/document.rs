//! Documents: one change to a good one per row, and the whole text of its error.

use serde::Deserialize;
use serde_json::{Value, json};
use tower_dpop::settings::Settings;

use super::{good, read, with};
use common::ISSUER;

#[test]
fn a_good_document_is_accepted_in_each_format() {
    assert!(read(&good()).is_ok());
    let toml = toml::to_string_of(&good());
    let from_toml: Settings = toml::parse(&toml).unwrap();
    let from_json: Settings = serde_json::from_str(&good().to_string()).unwrap();
    assert_eq!(format!("{from_toml:?}"), format!("{from_json:?}"));
}

/// The same document, written by hand: the crate `toml` is built without its writer.
mod toml {
    use serde_json::Value;
    use tower_dpop::settings::Settings;

    pub(super) fn parse(text: &str) -> Result<Settings, String> {
        ::toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    pub(super) fn to_string_of(document: &Value) -> String {
        let member = |name: &str| document[name].to_string();
        let issuer = &document["issuer"];
        format!(
            "public_url = {}\n[issuer]\nurl = {}\njwks_file = {}\n",
            member("public_url"),
            issuer["url"],
            issuer["jwks_file"]
        )
    }
}

/// A setting of the good document, the value that it gets instead, and the error.
const INVALID: &[(&str, &str, &str)] = &[
    (
        "public_url",
        "null",
        "public_url: has no value: set it, or remove it",
    ),
    (
        "public_url",
        "[]",
        "public_url: must be set: the URL under which clients reach the service",
    ),
    (
        "public_url",
        r#""http://api.example.com""#,
        r#"public_url: "http://api.example.com": {https}"#,
    ),
    (
        "public_url",
        r#"["https://a.example", "ftp://b.example"]"#,
        r#"public_url: "ftp://b.example": must be an absolute URL of the form https://host[:port][/prefix]"#,
    ),
    (
        "public_url",
        r#"["https://a.example", 5]"#,
        "public_url[1]: expected a string, found a number",
    ),
    (
        "public_url",
        r#"{ "url": "https://a.example" }"#,
        "public_url: expected a string, found a table",
    ),
    (
        "public_uri",
        r#""https://a.example""#,
        "public_uri: unknown setting, did you mean public_url?",
    ),
    (
        "insecure_http",
        r#""true""#,
        "insecure_http: expected true or false, found a string",
    ),
    ("audience", r#""""#, "audience: must not be empty"),
    (
        "audience",
        "1.5",
        "audience: no setting has this type: a fraction",
    ),
    (
        "issuer",
        "null",
        "issuer: has no value: set it, or remove it",
    ),
    ("issuer", "[]", "issuer: must be set, or introspection"),
    (
        "issuer",
        "5",
        "issuer: expected the URL of an issuer, or a table, found a number",
    ),
    ("issuer", "{}", "issuer.url: must be set"),
    (
        "issuer.url",
        "null",
        "issuer.url: has no value: set it, or remove it",
    ),
    (
        "nonces",
        "null",
        "nonces: has no value: set it, or remove it",
    ),
    ("redis", "null", "redis: has no value: set it, or remove it"),
    ("realm", r#""""#, "realm: must not be empty"),
    (
        "issuer.name",
        r#""x""#,
        "issuer.name: unknown setting, expected one of url, audience, profile, lenient_typ, algorithms, metadata_url, jwks_url, jwks_file, insecure_http",
    ),
    (
        "issuer.audience",
        r#"[""]"#,
        "issuer.audience: must not be empty",
    ),
    (
        "issuer.profile",
        r#""ping""#,
        r#"issuer.profile: "ping": must be one of auth0, entra_id, keycloak, okta"#,
    ),
    (
        "issuer.profile",
        "5",
        "issuer.profile: expected one of auth0, entra_id, keycloak, okta, found a number",
    ),
    (
        "issuer.algorithms",
        r#""none""#,
        r#"issuer.algorithms: "none": not a supported signature algorithm"#,
    ),
    (
        "issuer.algorithms",
        r#"["ES256", "HS256"]"#,
        r#"issuer.algorithms: "HS256": not a supported signature algorithm"#,
    ),
    (
        "issuer.jwks_url",
        r#""https://as.example.com/keys""#,
        "issuer: metadata_url, jwks_url and jwks_file must not be set together",
    ),
    (
        "introspection",
        r#"{ "client_id": "a" }"#,
        "introspection.url: must be set",
    ),
    (
        "introspection",
        r#"{ "url": "https://a.example" }"#,
        "introspection.client_id: must be set",
    ),
    (
        "introspection",
        r#"{ "url": "https://a.example", "client_id": "a" }"#,
        "introspection.client_secret: must be set",
    ),
    (
        "introspection",
        r#"{ "url": "http://a.example", "client_id": "a", "client_secret": { "env": "A" } }"#,
        r#"introspection.url: "http://a.example": {https}"#,
    ),
    (
        "introspection.client_secret",
        r#""hunter2""#,
        "introspection.client_secret: {reference}",
    ),
    (
        "introspection.client_secret",
        r#"["hunter2"]"#,
        "introspection.client_secret: {reference}",
    ),
    (
        "introspection.client_secret",
        "31337",
        "introspection.client_secret: {reference}",
    ),
    (
        "introspection.client_secret",
        r#"{ "env": "A", "file": "/a" }"#,
        "introspection.client_secret: {reference}",
    ),
    (
        "introspection.client_secret",
        "{}",
        "introspection.client_secret: {reference}",
    ),
    (
        "introspection.client_secret",
        r#"{ "value": "hunter2" }"#,
        "introspection.client_secret.value: unknown setting, expected one of env, file",
    ),
    (
        "introspection.cache_seconds",
        "-1",
        "introspection.cache_seconds: expected a whole number, found a negative number",
    ),
    ("http", "[5]", "http: expected a table, found a list"),
    (
        "http.timeout_seconds",
        "0",
        "http.timeout_seconds: must be 1 to 3600 seconds",
    ),
    (
        "http.timeout_seconds",
        "18446744073709551615",
        "http.timeout_seconds: must be 1 to 3600 seconds",
    ),
    (
        "start_timeout_seconds",
        "3601",
        "start_timeout_seconds: must be 0 to 3600 seconds",
    ),
    (
        "http.proxy",
        r#""http://user:hunter2@proxy.example""#,
        "http.proxy: must have no user and no password",
    ),
    (
        "start_timeout_seconds",
        r#""10s""#,
        "start_timeout_seconds: expected a whole number, found a string",
    ),
    ("algorithms", r#""""#, "algorithms: must not be empty"),
    (
        "algorithms",
        r#"["ES256 ES384"]"#,
        r#"algorithms: "ES256 ES384": must not contain spaces in a list"#,
    ),
    (
        "algorithms",
        "true",
        "algorithms: expected the names of algorithms, as a string or a list, found a boolean",
    ),
    (
        "freshness",
        r#""strict""#,
        r#"freshness: "strict": must be fapi2, mcp, or a table"#,
    ),
    (
        "freshness",
        "60",
        "freshness: expected fapi2, mcp, or a table, found a number",
    ),
    (
        "freshness.max_age",
        "60",
        "freshness.max_age: unknown setting, expected one of max_age_seconds, leeway_seconds, nonce_period_seconds, nonce_instead_of_iat",
    ),
    (
        "freshness.leeway_seconds",
        "86401",
        "freshness.leeway_seconds: 86401: must be 0 to 86400 seconds",
    ),
    (
        "freshness.nonce_period_seconds",
        "0",
        "freshness.nonce_period_seconds: 0: must be 1 to 86400 seconds",
    ),
    ("nonces", r#""hunter2""#, "nonces: {nonces}"),
    (
        "nonces",
        r#"["hunter2"]"#,
        r#"nonces: expected off, generated, or a reference to secrets, { file = "/path" } or { env = "NAME" }, found a list"#,
    ),
    (
        "nonces.secret",
        r#""hunter2""#,
        "nonces.secret: unknown setting, expected one of env, file",
    ),
    (
        "replay_memory_limit",
        "0",
        "replay_memory_limit: must not be 0",
    ),
    (
        "realm",
        r#""\"orders\"""#,
        r#"realm: "\"orders\"": not a quoted text: expected visible ASCII characters except quotes and backslashes"#,
    ),
    (
        "scope",
        r#""orders  read""#,
        r#"scope: "orders  read": not a quoted text: expected visible ASCII characters except quotes and backslashes"#,
    ),
];

#[test]
fn an_invalid_setting_is_named_with_what_was_expected() {
    let https = "must be https (plain http is accepted on loopback only)";
    let reference = r#"a secret is given by reference, as { file = "/path" } or { env = "NAME" }, and never as text"#;
    let nonces = r#"must be off, generated, or a reference to secrets, { file = "/path" } or { env = "NAME" }"#;
    for (path, value, expected) in INVALID {
        let document = with(path, serde_json::from_str(value).unwrap());
        let expected = expected
            .replace("{https}", https)
            .replace("{reference}", reference)
            .replace("{nonces}", nonces);
        assert_eq!(read(&document).unwrap_err(), expected, "{document}");
    }
}

#[test]
fn several_issuers_have_numbers() {
    let issuers = |second: Value| {
        with(
            "issuer",
            json!([{ "url": ISSUER, "jwks_file": "/a" }, second]),
        )
    };
    let rows = [
        (json!({ "jwks_file": "/b" }), "issuer[1].url: must be set"),
        (
            json!({ "url": ISSUER, "jwks_file": "/b" }),
            "issuer[1].url: \"https://as.example.com\": is set twice",
        ),
        (
            json!({ "url": "https://b.example", "typ": "JWT" }),
            "issuer[1].typ: unknown setting, expected one of url, audience, profile, lenient_typ, algorithms, metadata_url, jwks_url, jwks_file, insecure_http",
        ),
        (
            json!({ "url": "b.example" }),
            "issuer[1].url: \"b.example\": must be an absolute URL of the form https://host[:port][/path]",
        ),
        (
            json!({ "url": "https://b.example", "jwks_url": "http://b.example" }),
            "issuer[1].jwks_url: \"http://b.example\": must be https (plain http is accepted on loopback only)",
        ),
        (
            json!({ "url": "https://b.example", "metadata_url": "b" }),
            "issuer[1].metadata_url: \"b\": must be an absolute URL of the form https://host[:port][/path]",
        ),
        (
            json!({ "url": "https://b.example", "profile": "okta", "lenient_typ": true }),
            "issuer[1]: profile and lenient_typ must not be set together",
        ),
    ];
    for (second, expected) in rows {
        assert_eq!(read(&issuers(second)).unwrap_err(), expected);
    }
    assert!(read(&issuers(json!("https://b.example"))).is_ok());
}

#[test]
fn an_issuer_is_named_once_also_if_its_profile_adds_a_slash() {
    let issuer = |url: &str| json!({ "url": url, "profile": "auth0", "jwks_file": "/a" });
    let document = with(
        "issuer",
        json!([issuer("https://a.example"), issuer("https://a.example/")]),
    );
    let expected = "issuer[1].url: \"https://a.example/\": is set twice";
    assert_eq!(read(&document).unwrap_err(), expected);
}

#[test]
fn only_an_insecure_setting_accepts_plain_http() {
    let rows = [
        (
            "insecure_http",
            json!({ "public_url": "http://api.internal", "issuer": ISSUER }),
        ),
        (
            "issuer.insecure_http",
            json!({ "public_url": ISSUER, "issuer": { "url": "http://as.internal" } }),
        ),
        (
            "introspection.insecure_http",
            json!({
                "public_url": ISSUER,
                "introspection": { "url": "http://as.internal", "client_id": "a", "client_secret": { "env": "A" } },
            }),
        ),
    ];
    for (setting, mut document) in rows {
        let error = read(&document).unwrap_err();
        assert!(error.contains("must be https"), "{setting}: {error}");
        *super::at(&mut document, setting) = json!(true);
        assert!(read(&document).is_ok(), "{setting}");
    }
}

#[test]
fn a_setting_is_set_once() {
    let document = r#"{ "public_url": "https://a.example", "public_url": "https://b.example" }"#;
    let error = serde_json::from_str::<Settings>(document).unwrap_err();
    assert!(
        error.to_string().starts_with("public_url: is set twice"),
        "{error}"
    );
}

#[test]
fn a_document_is_a_table() {
    for document in [json!([]), json!("DPOP"), json!(null), json!(5)] {
        let error = read(&document).unwrap_err();
        assert!(error.starts_with("expected a table, found "), "{error}");
    }
}

#[test]
fn settings_are_a_table_of_a_larger_document() {
    #[derive(Deserialize)]
    struct Orders {
        listen: String,
        dpop: Settings,
    }

    let document = json!({ "listen": "0.0.0.0:80", "dpop": good() });
    let orders: Orders = serde_json::from_value(document).unwrap();
    assert_eq!(orders.listen, "0.0.0.0:80");
    let expected = format!("{:?}", read(&good()).unwrap());
    assert_eq!(format!("{:?}", orders.dpop), expected);
}

#[test]
fn settings_are_part_of_a_flat_document() {
    #[derive(Debug, Deserialize)]
    struct Orders {
        listen: String,
        #[serde(flatten)]
        dpop: Settings,
    }

    let mut document = with("listen", json!("0.0.0.0:80"));
    let orders: Orders = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(orders.listen, "0.0.0.0:80");
    let expected = format!("{:?}", read(&good()).unwrap());
    assert_eq!(format!("{:?}", orders.dpop), expected);

    document["lisen"] = json!("0.0.0.0:80");
    let error = serde_json::from_value::<Orders>(document).unwrap_err();
    assert!(
        error.to_string().starts_with("lisen: unknown setting, "),
        "{error}"
    );
}

/// The line with the secret is not shown either.
#[test]
fn an_error_of_toml_does_not_show_a_secret() {
    let document = "public_url = \"https://a.example\"\nissuer = \"https://b.example\"\nnonces = \"hunter2\"\n";
    let error = ::toml::from_str::<Settings>(document).unwrap_err();
    assert!(
        error.message().starts_with("nonces: must be off"),
        "{error}"
    );
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_setting_that_needs_a_missing_feature_names_it() {
    let document = with("redis.url", json!("rediss://redis.internal"));
    let expected = "redis: needs a build of tower-dpop with the feature redis";
    assert_eq!(read(&document).unwrap_err(), expected);
}

#[cfg(feature = "redis")]
#[test]
fn an_invalid_setting_of_redis_is_named() {
    let both = "redis.url: must not be set together with redis.sentinels and redis.primary";
    let rows = [
        (
            json!({}),
            "redis.url: must be set, or redis.sentinels and redis.primary",
        ),
        (
            json!({ "primary": "a" }),
            "redis.url: must be set, or redis.sentinels and redis.primary",
        ),
        (json!({ "url": "rediss://a", "primary": "a" }), both),
        (
            json!({ "url": "rediss://a", "sentinels": "rediss://a" }),
            both,
        ),
        (
            json!({ "sentinels": ["rediss://a", "rediss://b"] }),
            "redis.primary: must be set: the name of the primary at the sentinels",
        ),
        (
            json!({ "sentinels": ["rediss://a", "redis://localhost"], "primary": "a" }),
            "redis.sentinels: \"redis://localhost\": the sentinels must be all rediss:// or all redis://",
        ),
        (
            json!({ "url": "redis://a" }),
            "redis.url: \"redis://a\": must be rediss:// (redis:// is accepted on loopback only)",
        ),
        (
            json!({ "url": "rediss://dpop:hunter2@a" }),
            "redis.url: must have no user and no password: use redis.user and redis.password",
        ),
        (
            json!({ "sentinels": "rediss://:hunter2@a", "primary": "a" }),
            "redis.sentinels: must have no user and no password: use redis.user and redis.password",
        ),
        (
            json!({ "url": "rediss://a", "user": "dpop" }),
            "redis.password: must be set, with redis.user",
        ),
    ];
    for (redis, expected) in rows {
        let document = with("redis", redis);
        assert_eq!(read(&document).unwrap_err(), expected, "{document}");
    }
    let mut document = with("redis.url", json!("rediss://a"));
    document["replay_memory_limit"] = json!(5);
    let expected =
        "replay_memory_limit: has no effect with redis, unless redis.insecure_node_memory is set";
    assert_eq!(read(&document).unwrap_err(), expected);
    document["redis"]["insecure_node_memory"] = json!(true);
    assert!(read(&document).is_ok());
    let mut document = with("redis.url", json!("rediss://a"));
    document["nonces"] = json!("generated");
    let error = read(&document).unwrap_err();
    let start = r#"nonces: "generated": must not be set together with redis, "#;
    assert!(error.starts_with(start), "{error}");
    for advice in [r#"set { file = "/path" }"#, "DPOP_NONCE_SECRETS_FILE"] {
        assert!(error.contains(advice), "{error}");
    }
    document["nonces"] = json!({ "file": "/nonces" });
    assert!(read(&document).is_ok());
    let plaintext = json!({ "url": "redis://a", "insecure_plaintext": true });
    assert!(read(&with("redis", plaintext)).is_ok());
}
