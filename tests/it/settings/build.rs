//! What a built verifier accepts and rejects.

use std::time::SystemTime;

use http::{Method, Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::settings::{Parts, Settings};
use tower_dpop::testing::{TestClient, TestClock, TestIssuer, TestResponse, assert_protected};
use tower_dpop::tokens::TokenError;
use tower_dpop::{BoundToken, DpopLayer, Verifier};

use super::{file, read};
use common::{AUDIENCE, ISSUER, block_on};

/// A good request at the time of this machine, and the settings of a service that accepts it.
struct Fixture {
    client: TestClient,
    document: Value,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let clock = TestClock::from(SystemTime::now());
        let issuer = TestIssuer::new(ISSUER, AUDIENCE).with_clock(clock.clone());
        let keys = file(name, &issuer.jwks());
        Self {
            client: TestClient::new(&issuer).with_clock(clock),
            document: json!({ "public_url": AUDIENCE, "issuer": { "url": ISSUER, "jwks_file": keys } }),
        }
    }

    /// With one more setting.
    fn with(mut self, path: &str, value: Value) -> Self {
        *super::at(&mut self.document, path) = value;
        self
    }

    fn settings(&self) -> Settings {
        read(&self.document).unwrap()
    }

    #[track_caller]
    fn verifier(&self) -> Verifier {
        block_on(self.settings().build()).unwrap()
    }

    fn send(&self, change: impl FnOnce(&mut tower_dpop::testing::TestRequest)) -> TestResponse {
        let mut request = self
            .client
            .request(Method::GET, &format!("{AUDIENCE}/orders"));
        change(&mut request);
        send(&DpopLayer::new(self.verifier()), request.build())
    }
}

fn send(layer: &DpopLayer, request: Request<String>) -> TestResponse {
    let service = layer.layer(service_fn(async |request: Request<String>| {
        assert!(request.extensions().get::<BoundToken>().is_some());
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    TestResponse::of(&block_on(service.oneshot(request)).unwrap())
}

#[test]
fn a_service_with_settings_is_protected() {
    let fixture = Fixture::new("build-protected");
    let layer = DpopLayer::new(fixture.verifier());
    let request = fixture
        .client
        .request(Method::GET, &format!("{AUDIENCE}/orders"));
    block_on(assert_protected(
        &request,
        async |request: Request<String>| {
            let service = layer.layer(service_fn(async |_: Request<String>| {
                Ok::<_, std::convert::Infallible>(Response::new(String::new()))
            }));
            service.oneshot(request).await.unwrap()
        },
    ));
}

#[test]
fn a_setting_changes_what_is_accepted() {
    let rows: &[(&str, Value, &str)] = &[
        (
            "public_url",
            json!("https://other.example.com"),
            "another URL",
        ),
        (
            "audience",
            json!("https://other.example.com"),
            "another audience",
        ),
        ("algorithms", json!("ES384"), "another algorithm"),
        (
            "issuer.algorithms",
            json!("PS256"),
            "another algorithm of tokens",
        ),
        ("freshness.max_age_seconds", json!(600), "longer"),
    ];
    for (path, value, name) in rows {
        let fixture = Fixture::new("build-changes").with(path, value.clone());
        match *path {
            "public_url" => fixture
                .send(|_| {})
                .assert_reason(name, ProofError::Url(tower_dpop::proof::UrlMismatch::Host)),
            "audience" => fixture
                .send(|_| {})
                .assert_reason(name, TokenError::Audience),
            "algorithms" => fixture
                .send(|_| {})
                .assert_reason(name, ProofError::Algorithm),
            "issuer.algorithms" => fixture
                .send(|_| {})
                .assert_reason(name, TokenError::Algorithm),
            _ => {
                let old = |request: &mut tower_dpop::testing::TestRequest| {
                    let iat = request.proof_claims["iat"].as_u64().unwrap();
                    request.proof_claims["iat"] = json!(iat - 300);
                };
                fixture.send(old).assert_passed(name);
                Fixture::new("build-changes").send(old).assert_rejected(
                    name,
                    401,
                    Some("invalid_dpop_proof"),
                );
            }
        }
    }
}

#[test]
fn the_audience_is_the_first_public_url_unless_it_is_set() {
    let urls = json!([AUDIENCE, "https://other.example.com"]);
    Fixture::new("build-audience")
        .with("public_url", urls)
        .send(|_| {})
        .assert_passed("the first");
    let urls = json!(["https://other.example.com", AUDIENCE]);
    let fixture = Fixture::new("build-audience").with("public_url", urls);
    fixture
        .send(|_| {})
        .assert_reason("the second", TokenError::Audience);
    let fixture = fixture.with("audience", json!(["a", AUDIENCE]));
    fixture.send(|_| {}).assert_passed("in the list");
    let fixture = fixture.with("issuer.audience", json!("b"));
    fixture
        .send(|_| {})
        .assert_reason("the issuer's own", TokenError::Audience);
}

#[test]
fn typ_is_lenient_only_by_a_setting() {
    let without_typ = |request: &mut tower_dpop::testing::TestRequest| {
        request.token_header["typ"] = json!("JWT");
    };
    let fixture = Fixture::new("build-typ");
    fixture
        .send(without_typ)
        .assert_reason("strict", TokenError::Type);
    let lenient = fixture.with("issuer.lenient_typ", json!(true));
    lenient.send(without_typ).assert_passed("lenient");
    let keycloak = Fixture::new("build-typ").with("issuer.profile", json!("keycloak"));
    keycloak
        .send(without_typ)
        .assert_reason("no mark", TokenError::Type);
    let marked = keycloak.send(|request| {
        request.token_header["typ"] = json!("JWT");
        request.token_claims["typ"] = json!("Bearer");
    });
    marked.assert_passed("a mark");
}

#[test]
fn challenges_have_the_settings() {
    let fixture = Fixture::new("build-challenges")
        .with("realm", json!("orders"))
        .with("scope", json!(["orders.read", "orders.write"]))
        .with(
            "resource_metadata",
            json!("https://api.example.com/metadata"),
        )
        .with("allow_bearer", json!(true));
    let response = fixture.send(|request| request.authorization = Some(Vec::new()));
    response.assert_rejected("no credentials", 401, None);
    for (name, value) in [
        ("realm", "orders"),
        ("scope", "orders.read orders.write"),
        ("resource_metadata", "https://api.example.com/metadata"),
    ] {
        assert_eq!(response.parameter(name), Some(value), "{name}");
    }
}

#[test]
fn a_full_replay_store_has_the_limit() {
    let fixture = Fixture::new("build-limit").with("replay_memory_limit", json!(1));
    let layer = DpopLayer::new(fixture.verifier());
    let request = || {
        fixture
            .client
            .request(Method::GET, &format!("{AUDIENCE}/orders"))
    };
    send(&layer, request().build()).assert_passed("the first");
    send(&layer, request().build()).assert_rejected("the second", 503, None);
}

#[test]
fn an_unusable_file_with_keys_is_named() {
    let missing = file("build-missing", "") + "-not";
    let other = file("build-other", "{}");
    let rows = [
        (&missing, "No such file or directory (os error 2)"),
        (&other, "not a JWK Set"),
    ];
    for (path, reason) in rows {
        let fixture = Fixture::new("build-files").with("issuer.jwks_file", json!(path));
        let error = block_on(fixture.settings().build())
            .unwrap_err()
            .to_string();
        let start = format!("issuer.jwks_file: {path}: ");
        let rest = error
            .strip_prefix(&start)
            .unwrap_or_else(|| panic!("{error}"));
        assert!(
            rest.starts_with(reason) || reason == "not a JWK Set",
            "{error}"
        );
    }
    let fixture = Fixture::new("build-files").with("http.roots_file", json!(missing));
    let fixture = fixture.with("issuer", json!(ISSUER));
    assert_eq!(
        block_on(fixture.settings().build())
            .unwrap_err()
            .to_string(),
        format!("http.roots_file: {missing}: No such file or directory (os error 2)")
    );
}

#[test]
fn claims_of_another_type_are_read() {
    #[derive(serde::Deserialize)]
    struct OrderClaims {
        tenant: u64,
    }

    let fixture = Fixture::new("build-claims");
    let verifier = block_on(fixture.settings().build_with_claims::<OrderClaims>()).unwrap();
    let mut request = fixture
        .client
        .request(Method::GET, &format!("{AUDIENCE}/orders"));
    request.token_claims["tenant"] = json!(7);
    let (head, ()) = request.build::<()>().into_parts();
    let verified = block_on(verifier.verify(&head)).unwrap();
    assert_eq!(verified.token.claims().tenant, 7);
}

/// There is no runtime, in which something could be sent later.
#[test]
fn a_check_contacts_no_server() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let mut document = json!({ "public_url": AUDIENCE, "issuer": format!("http://{address}") });
    if cfg!(feature = "redis") {
        document["redis"] = json!({ "url": format!("redis://{address}") });
    }
    read(&document).unwrap().check().unwrap();
    let asked = server.accept().unwrap_err();
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

/// Sends one request to a verifier, then again to one that was built after it, from other settings.
#[track_caller]
fn again_after(before: &Fixture, after: &Fixture) -> TestResponse {
    let request = before
        .client
        .request(Method::GET, &format!("{AUDIENCE}/orders"));
    let first: Parts = block_on(before.settings().build_parts()).unwrap();
    let first_layer = DpopLayer::new(first.verifier.clone());
    let mut request = request;
    if first.nonces.is_some() {
        let asked = send(&first_layer, request.build());
        request.proof_claims["nonce"] = json!(asked.nonces[0]);
    }
    send(&first_layer, request.build()).assert_passed("the first");
    let second = block_on(after.settings().build_parts_after(&first)).unwrap();
    send(&DpopLayer::new(second.verifier), request.build())
}

#[test]
fn a_later_verifier_knows_the_proofs_of_the_one_before() {
    let rows: &[(&str, &str, Value)] = &[
        ("the same settings", "realm", json!("orders")),
        ("another freshness", "freshness.max_age_seconds", json!(61)),
        ("another limit", "replay_memory_limit", json!(1000)),
        (
            "another URL besides",
            "public_url",
            json!([AUDIENCE, "https://other.example.com"]),
        ),
    ];
    for (name, path, value) in rows {
        let before = Fixture::new("build-later").with("realm", json!("orders"));
        let after = Fixture {
            client: before.client.clone(),
            document: before.document.clone(),
        };
        let after = after.with(path, value.clone());
        again_after(&before, &after).assert_reason(name, ProofError::Replayed);
    }
}

#[test]
fn a_later_verifier_accepts_the_nonces_of_the_one_before() {
    let before = Fixture::new("build-later-nonces").with("nonces", json!("generated"));
    let after = Fixture {
        client: before.client.clone(),
        document: before.document.clone(),
    };
    // The nonce is checked before the replay store is asked.
    let response = again_after(&before, &after.with("realm", json!("orders")));
    response.assert_reason("generated", ProofError::Replayed);
}

#[test]
fn a_later_verifier_reads_the_files_again() {
    let fixture = Fixture::new("build-later-files");
    let first: Parts = block_on(fixture.settings().build_parts()).unwrap();
    let path = file("build-later-files", "{}");
    let failed = block_on(fixture.settings().build_parts_after(&first));
    let error = failed.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("issuer.jwks_file: {path}: ")),
        "{error}"
    );
    // The first one goes on.
    let request = fixture
        .client
        .request(Method::GET, &format!("{AUDIENCE}/orders"));
    send(&DpopLayer::new(first.verifier), request.build()).assert_passed("the keys before");
}
