//! RFC 9728: the metadata of a service state what its verifier checks. Clients find them at a well-known URL.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, block_on, jwt_verifier, verifier,
    verifier_by,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::resource::{MetadataLayer, ResourceMetadata};
use tower_dpop::testing::TestResponse;
use tower_dpop::tokens::TokenCache;
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, Issuers, JwtVerifier, KeySet, NonceSecret, PublicUrl,
    StatelessNonces, Verifier,
};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn document(metadata: &ResourceMetadata) -> Value {
    serde_json::from_str(&metadata.to_json()).unwrap()
}

fn keys() -> KeySet {
    common::issuer_jwks().parse().unwrap()
}

/// The default verifier under this public URL.
fn at_url(url: &str) -> Verifier {
    verifier_by(|rules| rules.with_public_url(url.parse().unwrap()))
}

/// The document of [`verifier`].
fn default_document() -> Value {
    json!({
        "resource": AUDIENCE,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": [],
        "dpop_signing_alg_values_supported": ["ES256", "ES384", "PS256", "Ed25519", "EdDSA"],
        "dpop_bound_access_tokens_required": true,
    })
}

fn without_issuers() -> Verifier {
    Verifier::new(common::rules(), Issuers::<Claims>::new())
}

/// P-1, P-2, P-3, P-4, P-6: every row changes one setting of the verifier or of the document.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn the_document_states_what_the_verifier_checks() {
    type Make = fn() -> ResourceMetadata;
    type Change = fn(&mut Value);
    let rows: Vec<(&str, Make, Change)> = vec![
        (
            "the defaults",
            || ResourceMetadata::of(&mut verifier()),
            |_| {},
        ),
        (
            "P-1: one algorithm",
            || {
                let only = Algorithms::only(Algorithm::Es256);
                ResourceMetadata::of(&mut verifier_by(|rules| rules.with_algorithms(only)))
            },
            |d| d["dpop_signing_alg_values_supported"] = json!(["ES256"]),
        ),
        (
            "P-1: the algorithms for access tokens are not listed",
            || {
                let only = Algorithms::only(Algorithm::Es256);
                let tokens = jwt_verifier().with_algorithms(only);
                ResourceMetadata::of(&mut Verifier::new(
                    AUDIENCE.parse::<PublicUrl>().unwrap(),
                    tokens,
                ))
            },
            |_| {},
        ),
        (
            "P-2: Bearer is allowed",
            || ResourceMetadata::of(&mut verifier().allow_bearer()),
            |d| {
                d["bearer_methods_supported"] = json!(["header"]);
                let members = d.as_object_mut().unwrap();
                members.remove("dpop_bound_access_tokens_required").unwrap();
            },
        ),
        (
            "P-2: Bearer is allowed, with an unchecked cnf",
            || ResourceMetadata::of(&mut verifier().allow_insecure_unchecked_cnf()),
            |d| {
                d["bearer_methods_supported"] = json!(["header"]);
                let members = d.as_object_mut().unwrap();
                members.remove("dpop_bound_access_tokens_required").unwrap();
            },
        ),
        (
            "P-3: a path prefix",
            || ResourceMetadata::of(&mut at_url("https://example.com/orders-api")),
            |d| d["resource"] = json!("https://example.com/orders-api"),
        ),
        (
            "P-3: a trailing slash is removed",
            || ResourceMetadata::of(&mut at_url("https://example.com/")),
            |d| d["resource"] = json!("https://example.com"),
        ),
        (
            "P-3: a port",
            || ResourceMetadata::of(&mut at_url("https://example.com:8443")),
            |d| d["resource"] = json!("https://example.com:8443"),
        ),
        (
            "P-3: the default port is removed",
            || ResourceMetadata::of(&mut at_url("https://example.com:443")),
            |d| d["resource"] = json!("https://example.com"),
        ),
        (
            "P-3: an IP address",
            || ResourceMetadata::of(&mut at_url("https://[2001:DB8:0::1]/a")),
            |d| d["resource"] = json!("https://[2001:db8::1]/a"),
        ),
        (
            "P-3: the first of several URLs",
            || {
                let second = "https://second.example.com".parse().unwrap();
                ResourceMetadata::of(&mut verifier_by(|rules| rules.add_public_url(second)))
            },
            |_| {},
        ),
        (
            "P-4: scopes",
            || ResourceMetadata::of(&mut verifier().with_scope("a b:c".parse().unwrap())),
            |d| d["scopes_supported"] = json!(["a", "b:c"]),
        ),
        (
            "P-4: a name",
            || ResourceMetadata::of(&mut verifier()).with_name("Örders \"API\""),
            |d| d["resource_name"] = json!("Örders \"API\""),
        ),
        (
            "P-4: the last of two names",
            || {
                ResourceMetadata::of(&mut verifier())
                    .with_name("a")
                    .with_name("b")
            },
            |d| d["resource_name"] = json!("b"),
        ),
        (
            "P-4: URLs of pages",
            || {
                ResourceMetadata::of(&mut verifier())
                    .with_documentation("https://example.com/docs")
                    .with_policy("https://example.com/policy")
                    .with_terms_of_service("https://example.com/terms")
            },
            |d| {
                d["resource_documentation"] = json!("https://example.com/docs");
                d["resource_policy_uri"] = json!("https://example.com/policy");
                d["resource_tos_uri"] = json!("https://example.com/terms");
            },
        ),
        (
            "P-6: no issuer",
            || ResourceMetadata::of(&mut without_issuers()),
            |d| {
                let members = d.as_object_mut().unwrap();
                members.remove("authorization_servers").unwrap();
            },
        ),
        (
            "P-4: issuers added to the document",
            || {
                ResourceMetadata::of(&mut without_issuers())
                    .add_authorization_server("https://a.example.com")
                    .add_authorization_server("https://b.example.com")
            },
            |d| {
                d["authorization_servers"] =
                    json!(["https://a.example.com", "https://b.example.com"]);
            },
        ),
        (
            "P-4: another issuer added to the document",
            || {
                ResourceMetadata::of(&mut verifier())
                    .add_authorization_server("https://b.example.com")
            },
            |d| d["authorization_servers"] = json!([ISSUER, "https://b.example.com"]),
        ),
        (
            "P-4: several issuers",
            || {
                let tokens = Issuers::new()
                    .add_issuer(JwtVerifier::new("https://b.example.com", AUDIENCE, keys()))
                    .add_issuer(JwtVerifier::new("https://a.example.com", "a", keys()));
                ResourceMetadata::of(&mut Verifier::new(
                    AUDIENCE.parse::<PublicUrl>().unwrap(),
                    tokens,
                ))
            },
            |d| {
                d["authorization_servers"] =
                    json!(["https://a.example.com", "https://b.example.com"]);
            },
        ),
        (
            "P-4: the issuer of a cached token verifier",
            || {
                let tokens = TokenCache::new(jwt_verifier(), Duration::from_secs(1));
                ResourceMetadata::of(&mut Verifier::new(
                    AUDIENCE.parse::<PublicUrl>().unwrap(),
                    tokens,
                ))
            },
            |_| {},
        ),
        (
            "nonces do not change the document",
            || {
                let nonces = StatelessNonces::new(NonceSecret::generate());
                ResourceMetadata::of(&mut verifier_by(|rules| rules.with_nonces(nonces)))
            },
            |_| {},
        ),
        (
            "realm and URL of the challenges do not change the document",
            || {
                let url = "https://docs.example.com".parse().unwrap();
                let verifier = verifier().with_realm("orders".parse().unwrap());
                ResourceMetadata::of(&mut verifier.with_resource_metadata(url))
            },
            |_| {},
        ),
    ];
    for (name, make, change) in rows {
        let mut expected = default_document();
        change(&mut expected);
        assert_eq!(document(&make()), expected, "{name}");
    }
}

#[test]
fn lists_the_issuer_of_an_introspection_endpoint_if_configured() {
    use tower_dpop::tokens::{ClientAuthentication, HttpClient, IntrospectionVerifier};

    let tokens = || {
        IntrospectionVerifier::new(
            "https://as.example.com/introspect".parse().unwrap(),
            ClientAuthentication::basic("orders-api", "marker-secret-marker"),
            AUDIENCE,
            HttpClient::new().unwrap(),
        )
    };
    let document_of = |tokens: IntrospectionVerifier| {
        document(&ResourceMetadata::of(&mut Verifier::new(
            AUDIENCE.parse::<PublicUrl>().unwrap(),
            tokens,
        )))
    };
    assert_eq!(document_of(tokens())["authorization_servers"], Value::Null);
    let with_issuer = document_of(tokens().with_issuer(ISSUER));
    assert_eq!(with_issuer, default_document());
}

/// P-1: "the same list as `algs`".
#[test]
fn document_challenge_and_verifier_have_the_same_algorithms() {
    let keys = [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("PS256"),
        Key::rsa("RS256"),
    ];
    for list in [
        "ES256",
        "EdDSA",
        "RS256 PS512",
        "ES256 ES384 PS256 Ed25519 EdDSA",
        "ES256 ES384 ES512 PS256 PS384 PS512 RS256 RS384 RS512 Ed25519 EdDSA",
    ] {
        let algorithms: Algorithms = list.parse().unwrap();
        let mut verifier = verifier_by(|rules| rules.with_algorithms(algorithms));
        let document = document(&ResourceMetadata::of(&mut verifier));
        let listed: Vec<&str> = document["dpop_signing_alg_values_supported"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let layer = DpopLayer::new(verifier);
        let outcome = Attempt::but(|a| a.authorization = Some(vec![])).outcome_by(&layer);
        assert_eq!(outcome.parameter("algs"), Some(listed.join(" ")), "{list}");
        for key in &keys {
            let outcome = Attempt::with_key(key.clone()).outcome_by(&layer);
            let is_accepted = outcome.status == StatusCode::OK;
            assert_eq!(
                is_accepted,
                listed.contains(&key.alg()),
                "{list}: {}",
                key.alg()
            );
        }
    }
}

/// P-5: the well-known path is inserted between the host and the path of the public URL.
#[test]
fn computes_the_url_of_the_document_from_the_public_url() {
    let rows = [
        ("https://api.example.com", "https://api.example.com", ""),
        ("https://api.example.com/", "https://api.example.com", ""),
        (
            "https://api.example.com:8443",
            "https://api.example.com:8443",
            "",
        ),
        ("HTTPS://API.example.com:443", "https://api.example.com", ""),
        (
            "https://example.com/orders-api",
            "https://example.com",
            "/orders-api",
        ),
        (
            "https://example.com/orders-api/",
            "https://example.com",
            "/orders-api",
        ),
        ("https://example.com/a/b", "https://example.com", "/a/b"),
        (
            "https://example.com/%7ejoe/x/..",
            "https://example.com",
            "/~joe",
        ),
        ("https://[::1]:8443/a", "https://[::1]:8443", "/a"),
    ];
    for (public_url, origin, prefix) in rows {
        let mut verifier = at_url(public_url);
        let metadata = ResourceMetadata::of(&mut verifier);
        let path = format!("{WELL_KNOWN}{prefix}");
        let url = format!("{origin}{path}");
        assert_eq!(metadata.path(), path, "{public_url}");
        assert_eq!(metadata.url(), url, "{public_url}");
        let resource = format!("{origin}{prefix}");
        assert_eq!(
            document(&metadata)["resource"],
            json!(resource),
            "{public_url}"
        );
        let in_challenge = Attempt::but(|a| a.authorization = Some(vec![]))
            .outcome_by(&DpopLayer::new(verifier))
            .parameter("resource_metadata");
        assert_eq!(in_challenge, Some(url), "{public_url}: in the challenge");
    }
}

/// All other URLs are configuration errors.
#[test]
fn every_valid_public_url_can_be_quoted_in_a_challenge() {
    for bad in [
        "https://example.com/a\"b",
        "https://example.com/a\\b",
        "https://example.com/a b",
        "https://example.com/ä",
        "https://exa\"mple.com",
        "https://example.com/?q",
        "https://example.com/#f",
        "http://example.com",
    ] {
        assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
    }
    // All characters that a path can contain.
    let mut verifier = at_url("https://example.com/-._~!$&'()*+,;=:@%22%5C");
    let url = ResourceMetadata::of(&mut verifier).url().to_owned();
    let outcome =
        Attempt::but(|a| a.authorization = Some(vec![])).outcome_by(&DpopLayer::new(verifier));
    assert_eq!(outcome.parameter("resource_metadata"), Some(url));
}

#[test]
fn the_layer_supports_every_body_type_that_converts_from_a_string() {
    let metadata = ResourceMetadata::of(&mut verifier());
    let layers = ServiceBuilder::new()
        .layer(MetadataLayer::new(&metadata))
        .layer(DpopLayer::new(verifier()));
    let with_full_body = layers
        .clone()
        .service(service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }));
    let with_text_body = layers.service(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(String::from("orders")))
    }));
    block_on(async {
        let request = Request::get(WELL_KNOWN).body(String::new()).unwrap();
        let response = with_full_body.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, metadata.to_json());
        let request = Request::get("/orders").body(String::new()).unwrap();
        let rejected = with_full_body.oneshot(request).await.unwrap();
        TestResponse::of(&rejected).assert_rejected("orders", 401, None);
        let request = Request::get(WELL_KNOWN).body(Body::empty()).unwrap();
        let response = with_text_body.oneshot(request).await.unwrap();
        assert_eq!(*response.body(), metadata.to_json());
    });
}

#[test]
fn debug_shows_the_document_but_not_the_inner_service() {
    let metadata = ResourceMetadata::of(&mut verifier());
    let layer = MetadataLayer::new(&metadata);
    let service = layer.layer("marker-service-marker");
    for shown in [
        format!("{metadata:?}"),
        format!("{layer:?}"),
        format!("{service:?}"),
        format!("{:?}", metadata.service()),
    ] {
        assert!(shown.contains(AUDIENCE), "{shown}");
        assert!(!shown.contains("marker"), "{shown}");
    }
}
