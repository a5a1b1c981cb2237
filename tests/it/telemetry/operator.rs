//! What an operator reads in the log: what was expected, of which request, what to do, and what applies at start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use http::{Request, Response};
use serde_json::{Value, json};
use tower::util::MapRequest;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{
    Claim, Epoch, Nonce, NonceSource, ReplayStoreError, RequestTarget, UsedProof, WhileUnavailable,
};
use tower_dpop::resource::{RequireAuthenticationLayer, ResourceMetadata};
use tower_dpop::token_endpoint::{TokenEndpoint, TokenEndpointLayer};
use tower_dpop::{
    BoundToken, Claims, DpopLayer, Freshness, Issuers, JwtVerifier, KeySet, NonceSecret,
    ProofRules, PublicUrl, ReplayStore, RequireScopesLayer, StatelessNonces, Timestamp, Verifier,
};

use super::as_bearer;
use common::log::logged;
use common::token_endpoint::Attempt as TokenAttempt;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, KeyExt as _, NOW, at, block_on, issuer_jwks,
    jwt_verifier, keys, verifier, verifier_by,
};

type Change = fn(&mut Attempt);

/// The line about the decision, which must be the only one.
#[track_caller]
fn decision(name: &str, log: &str) -> String {
    let mut lines = log.lines().filter(|line| line.contains(" tower_dpop: "));
    let line = lines.next().unwrap_or_else(|| panic!("{name}: {log}"));
    assert_eq!(lines.next(), None, "{name}: {log}");
    line.to_owned()
}

/// D21
#[test]
fn a_rejection_says_what_the_configuration_expects() {
    let api = r#"expected="https://api.example.com""#;
    let rows: Vec<(&str, Change, &str)> = vec![
        (
            "htu",
            |a| a.proof_claims["htu"] = json!("https://api.example.com:8443/orders"),
            api,
        ),
        (
            "another server in the target",
            |a| a.uri = "https://other.example.com/orders".into(),
            api,
        ),
        (
            "iat",
            |a| a.proof_claims["iat"] = json!(NOW - 91),
            r#"expected="iat from 90 s before to 30 s after the time of this server" detail="1 s too old""#,
        ),
        (
            "typ",
            |a| a.proof_header["typ"] = json!("jwt"),
            r#"expected="dpop+jwt""#,
        ),
        (
            "alg",
            |a| a.proof_header["alg"] = json!("RS256"),
            r#"expected="ES256 ES384 PS256 Ed25519 EdDSA""#,
        ),
        (
            "a missing claim",
            |a| common::remove(&mut a.proof_claims, "ath"),
            r#"expected="jti htm htu iat, and ath with an access token""#,
        ),
        (
            "issuer",
            |a| a.token_claims["iss"] = json!("https://as.example.com/"),
            r#"expected="https://as.example.com" "#,
        ),
        (
            "audience",
            |a| a.token_claims["aud"] = json!("https://other.example.com"),
            api,
        ),
        (
            "typ of the token",
            |a| a.token_header["typ"] = json!("JWT"),
            r#"expected="at+jwt (with_profile and with_lenient_typ accept others)""#,
        ),
        (
            "alg of the token",
            |a| a.token_header["alg"] = json!("ES512"),
            r#"expected="ES256 ES384 PS256 Ed25519 EdDSA RS256""#,
        ),
    ];
    for (name, change, expected) in rows {
        let (_, log) = logged(|| Attempt::but(change).outcome());
        let line = decision(name, &log);
        assert!(line.contains(expected), "{name}: {line}");
    }
}

/// As `Settings` make them.
#[test]
fn the_only_issuer_is_not_named_before_what_its_tokens_must_have() {
    let layer = |tokens: Issuers<Claims>| DpopLayer::new(Verifier::new(common::rules(), tokens));
    let one = || Issuers::new().add_issuer(jwt_verifier());
    let lines = start_of(&layer(one()));
    for part in [
        r#"issuers="https://as.example.com" audience="https://api.example.com" "#,
        r#"token_typ="at+jwt (with_"#,
        r#"token_algorithms="ES256 "#,
    ] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    // The tokens of another verifier need not have the same.
    let lines = start_of(&layer(one().with_opaque_tokens(jwt_verifier())));
    let part = r#"audience="https://as.example.com: https://api.example.com" "#;
    assert!(lines[0].contains(part), "{lines:?}");
}

#[test]
fn all_public_urls_and_the_audiences_of_all_issuers_are_named() {
    let keys: KeySet = issuer_jwks().parse().unwrap();
    let other = JwtVerifier::new("https://other.example", "urn:orders", keys);
    let tokens: Issuers<Claims> = Issuers::new().add_issuer(jwt_verifier()).add_issuer(other);
    let rules = common::rules().add_public_url("https://example.com/api".parse().unwrap());
    let layer = DpopLayer::new(Verifier::new(rules, tokens));
    let rows: [(&str, Change, &str); 3] = [
        (
            "public URLs",
            |a| a.proof_claims["htu"] = json!("https://evil.example/orders"),
            r#"expected="https://api.example.com https://example.com/api" detail="the host differs""#,
        ),
        (
            "issuers",
            |a| a.token_claims["iss"] = json!("https://evil.example"),
            r#"expected="https://as.example.com https://other.example""#,
        ),
        (
            "audiences",
            |a| a.token_claims["aud"] = json!("urn:other"),
            r#"expected="https://as.example.com: https://api.example.com, https://other.example: urn:orders""#,
        ),
    ];
    for (name, change, expected) in rows {
        let (_, log) = logged(|| Attempt::but(change).outcome_by(&layer));
        let line = decision(name, &log);
        assert!(line.contains(expected), "{name}: {line}");
    }
}

#[test]
fn a_path_that_differs_in_its_prefix_has_a_hint() {
    let hint = r#"detail="the path differs in its prefix" hint="is a proxy in front stripping or adding a prefix? see PublicUrl""#;
    let with_hint = |uri: &'static str| {
        let (_, log) = logged(|| Attempt::but(|a| a.uri = uri.into()).outcome());
        decision(uri, &log).contains(hint)
    };
    assert!(with_hint("//orders"));
    assert!(with_hint("/api/orders"));
    assert!(!with_hint("/orders/7"));
}

/// A client can invent methods and paths, but not the routes of the application.
#[test]
fn a_rejection_names_the_standard_method_and_the_matched_route() {
    let app = Router::new()
        .route("/orders/{id}", any(async || "order"))
        .route_layer(DpopLayer::new(verifier()));
    // Known to the layer with the feature `axum`.
    let route = if cfg!(feature = "axum") {
        r#" route="/orders/{id}""#
    } else {
        ""
    };
    let rows = [
        ("GET", "GET"),
        ("DELETE", "DELETE"),
        ("get", "_OTHER"),
        ("PROPFIND", "_OTHER"),
    ];
    for (method, expected) in rows {
        let request = Request::builder().method(method).uri("/orders/marker-7");
        let request = request.body(Body::empty()).unwrap();
        let (response, log) = logged(|| block_on(app.clone().oneshot(request)).unwrap());
        assert_eq!(response.status(), 401, "{method}");
        let line = decision(method, &log);
        let expected = format!(r#"method="{expected}"{route}"#);
        assert!(line.contains(&expected), "{line}");
        assert!(
            !line.contains("marker") && !line.contains("PROPFIND"),
            "{line}"
        );
    }
    let (_, log) = logged(|| Attempt::good().outcome_by(&DpopLayer::new(verifier())));
    assert!(!log.contains("route="), "{log}");
}

/// The request that a proxy sends has a method of its own.
#[test]
fn behind_a_resolver_the_method_is_the_one_that_the_proof_must_name() {
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_target_resolver(|request: &http::request::Parts| {
            let path = request.uri.path().parse().unwrap();
            Some(RequestTarget::new(http::Method::PATCH, path))
        })
    }));
    let (_, log) = logged(|| Attempt::good().outcome_by(&layer));
    let line = decision("another method", &log);
    assert!(line.contains(r#"method="PATCH""#), "{line}");
    let no_token = Attempt::but(|a| a.authorization = Some(vec![]));
    let (_, log) = logged(|| no_token.outcome_by(&layer));
    assert!(!decision("no token", &log).contains("method="), "{log}");
}

#[test]
fn the_thumbprint_is_logged_only_after_a_signature_was_verified() {
    let jkt = format!("jkt={}", keys::client().jkt());
    let layer = DpopLayer::new(verifier());
    let used = Attempt::good();
    used.outcome_by(&layer).assert_passed("first");
    let (_, log) = logged(|| used.outcome_by(&layer));
    let line = decision("a replay", &log);
    assert!(
        line.contains("proof_replayed") && line.contains(&jkt),
        "{line}"
    );
    let forged: [(&str, Change); 3] = [
        ("a forged signature", |a| {
            a.edit_proof = |proof| {
                let (signed, _) = proof.rsplit_once('.').unwrap();
                format!("{signed}.{}", "A".repeat(86))
            };
        }),
        ("expired", |a| a.token_claims["exp"] = json!(NOW - 100)),
        ("htm", |a| a.proof_claims["htm"] = json!("POST")),
    ];
    for (name, change) in forged {
        let (_, log) = logged(|| Attempt::but(change).outcome_by(&layer));
        let line = decision(name, &log);
        assert!(!line.contains("jkt"), "{name}: {line}");
    }
}

#[test]
fn a_rejection_by_an_inner_layer_describes_the_request_and_its_requirement() {
    let service = || service_fn(async |_: Request<String>| Ok::<_, Never>(Response::new(())));
    let scopes = RequireScopesLayer::all_of("admin audit".parse().unwrap()).layer(service());
    let acr = RequireAuthenticationLayer::by_acr("gold".parse().unwrap())
        .with_max_age(std::time::Duration::from_secs(5))
        .layer(service());
    let jkt = format!(r#"scheme="dpop" method="GET" jkt={}"#, keys::client().jkt());
    let send = |response: Result<Response<()>, Never>| response.unwrap().status().as_u16();
    let layer = DpopLayer::new(verifier());
    let request = || Attempt::good().request();
    let (status, log) = logged(|| send(block_on(layer.layer(scopes).oneshot(request()))));
    assert_eq!(status, 403);
    assert!(
        log.contains(r#"expected="admin audit""#) && log.contains(&jkt),
        "{log}"
    );
    let (status, log) = logged(|| send(block_on(layer.layer(acr).oneshot(request()))));
    assert_eq!(status, 401);
    let expected = r#"expected="acr gold, auth_time at most 5 s ago""#;
    assert!(log.contains(expected) && log.contains(&jkt), "{log}");
}

type Never = std::convert::Infallible;

/// Layers in the wrong order, and layers for different claims.
#[test]
fn a_misplaced_authorization_layer_says_what_to_add_where() {
    let service = service_fn(async |_: Request<String>| Ok::<_, Never>(Response::new(())));
    let required = RequireScopesLayer::all_of("admin".parse().unwrap());
    let wrong_order = required.layer(DpopLayer::new(verifier()).layer(service));
    let (_, log) = logged(|| block_on(wrong_order.oneshot(Attempt::good().request())));
    assert!(
        log.contains("RequireLayer<ScopeRequirement, Claims> found no verified token: add DpopLayer outside it, with the same claims type (in axum, after it)"),
        "{log}"
    );
    let without_token = MapRequest::new(required.layer(service), |mut request: Request<String>| {
        request.extensions_mut().remove::<BoundToken<Claims>>();
        request
    });
    let removed = DpopLayer::new(verifier()).layer(without_token);
    let (_, log) = logged(|| block_on(removed.oneshot(Attempt::good().request())));
    assert!(log.contains("no verified token: add DpopLayer"), "{log}");
    let others = Verifier::new(common::rules(), jwt_verifier().with_claims::<Value>());
    let other_claims = DpopLayer::new(others).layer(required.layer(service));
    let (_, log) = logged(|| block_on(other_claims.oneshot(Attempt::good().request())));
    assert!(
        log.contains("RequireLayer<ScopeRequirement, Claims> found no verified token: the claims of DpopLayer outside it have the type Value, call with_claims on one of them"),
        "{log}"
    );
}

fn start_of(layer: &DpopLayer) -> Vec<String> {
    let (_, log) = logged(|| {
        // Every route is a service of its own.
        let routes = Router::<()>::new()
            .route("/a", any(async || "a"))
            .route("/b", any(async || "b"))
            .route_layer(layer.clone());
        drop(routes.layer(layer.clone()));
        Attempt::good().outcome_by(layer)
    });
    let mut lines: Vec<_> = log.lines().map(str::to_owned).collect();
    lines.retain(|line| line.contains("tower_dpop::resource"));
    lines
}

#[test]
fn what_requests_must_meet_is_logged_once_per_verifier() {
    let lines = start_of(&DpopLayer::new(verifier()));
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    let expected = r#" INFO tower_dpop::resource::policy: requests must have an access token and a DPoP proof public_urls=https://api.example.com issuers="https://as.example.com" audience="https://api.example.com" token_typ="at+jwt (with_profile and with_lenient_typ accept others)" token_algorithms="ES256 ES384 PS256 Ed25519 EdDSA RS256" proof_algorithms=ES256 ES384 PS256 Ed25519 EdDSA proof_iat="iat from 90 s before to 30 s after the time of this server" nonces="off" replay_store="MemoryReplayStore" bearer="rejected""#;
    assert!(line.ends_with(expected), "{line}");

    let secret = [b's'; 32];
    let rules = ProofRules::new(AUDIENCE.parse().unwrap())
        .with_clock(|| at(NOW))
        .with_freshness(Freshness::fapi2())
        .with_nonces(StatelessNonces::new(
            NonceSecret::from_bytes(&secret).unwrap(),
        ))
        .with_replay_store(Arc::new(tower_dpop::MemoryReplayStore::default()));
    let verifier = Verifier::new(rules, jwt_verifier().with_lenient_typ()).allow_bearer();
    let lines = start_of(&DpopLayer::new(verifier));
    for part in [
        r#"token_typ="at+jwt, JWT or none""#,
        r#"proof_iat="any: the nonce decides""#,
        r#"nonces="required, bound to the replay store of this process""#,
        r#"replay_store="Arc<MemoryReplayStore>""#,
        r#"bearer="unbound tokens are accepted""#,
    ] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    assert!(!lines[0].contains("sss") && lines.len() == 1, "{lines:?}");
}

#[test]
fn what_bearer_tokens_may_be_is_logged_at_start() {
    for (verifier, expected) in [
        (verifier().allow_bearer(), "unbound tokens are accepted"),
        (
            verifier().allow_insecure_unchecked_cnf(),
            "unbound tokens and unchecked bindings are accepted",
        ),
    ] {
        let lines = start_of(&DpopLayer::new(verifier));
        let expected = format!("bearer=\"{expected}\"");
        assert!(
            lines.iter().any(|line| line.contains(&expected)),
            "{lines:?}"
        );
    }
}

/// D26: which replay store a nonce is valid with, and that a proof can be used twice without one.
#[test]
fn what_nonces_are_bound_to_is_logged_at_start() {
    struct Store(Epoch);

    impl ReplayStore for Store {
        async fn claim(&self, _: UsedProof) -> Result<Claim, ReplayStoreError> {
            Err(ReplayStoreError::Unavailable)
        }

        fn epoch(&self) -> Epoch {
            self.0
        }
    }

    let given: fn() -> NonceSecret = || NonceSecret::from_bytes(&[b's'; 32]).unwrap();
    let generated: fn() -> NonceSecret = NonceSecret::generate;
    let insecure: fn(ProofRules) -> ProofRules = ProofRules::with_insecure_one_use_per_node;
    let secure: fn(ProofRules) -> ProofRules = |rules| rules;
    let rows = [
        (
            Epoch::random(),
            secure,
            generated,
            "bound to the replay store of this process",
            None,
        ),
        (
            Epoch::of(b"a primary"),
            secure,
            given,
            "bound to the shared replay store",
            None,
        ),
        (
            Epoch::of(b"a primary"),
            secure,
            generated,
            "bound to the shared replay store, under a secret generated by this process",
            Some("NonceSecret::generate"),
        ),
        (
            Epoch::UNKNOWN,
            secure,
            generated,
            "not bound to a replay store",
            Some("Epoch::UNKNOWN"),
        ),
        (
            Epoch::of(b"a primary"),
            insecure,
            given,
            "not bound to a replay store",
            Some("ProofRules::with_insecure_one_use_per_node"),
        ),
    ];
    for (epoch, change, secret, bound_to, warning) in rows {
        let layer = |nonces: bool| {
            let rules = change(common::rules().with_replay_store(Store(epoch)));
            let rules = if nonces {
                rules.with_nonces(StatelessNonces::new(secret()))
            } else {
                rules
            };
            DpopLayer::new(Verifier::new(rules, jwt_verifier()))
        };
        let lines = start_of(&layer(true));
        let expected = format!(r#"nonces="required, {bound_to}""#);
        assert!(lines[0].contains(&expected), "{expected}: {lines:?}");
        assert_eq!(lines.len(), 1 + usize::from(warning.is_some()), "{lines:?}");
        if let Some(warning) = warning {
            assert!(
                lines[1].contains(" WARN ") && lines[1].contains(warning),
                "{lines:?}"
            );
        }
        let without_nonces = start_of(&layer(false));
        assert!(
            without_nonces[0].contains(r#"nonces="off""#),
            "{without_nonces:?}"
        );
        assert_eq!(without_nonces.len(), 1, "{without_nonces:?}");
    }
}

/// D26: nonces that are recognised in every epoch, as a source outside this crate may do.
#[test]
fn a_source_of_nonces_that_ignores_the_epoch_is_a_warning_at_start() {
    struct Careless(StatelessNonces);

    impl NonceSource for Careless {
        fn issue(&self, issued: Timestamp, _: Epoch) -> Nonce {
            self.0.issue(issued, Epoch::UNKNOWN)
        }

        fn issued_at(&self, nonce: &str, _: Epoch) -> Option<Timestamp> {
            self.0.issued_at(nonce, Epoch::UNKNOWN)
        }
    }

    let nonces = StatelessNonces::new(NonceSecret::generate());
    let rules = common::rules().with_nonces(Careless(nonces));
    let lines = start_of(&DpopLayer::new(Verifier::new(rules, jwt_verifier())));
    assert!(
        lines[0].contains(r#"nonces="required, not bound to a replay store""#),
        "{lines:?}"
    );
    assert!(
        lines[1].contains(" WARN ") && lines[1].contains("NonceSource") && lines.len() == 2,
        "{lines:?}"
    );
}

/// What the action logs about what a token endpoint checks.
fn token_endpoint_start(action: impl FnOnce()) -> Vec<String> {
    let ((), log) = logged(action);
    let lines = log.lines().map(str::to_owned);
    lines
        .filter(|line| line.contains("tower_dpop::token_endpoint"))
        .collect()
}

#[test]
fn what_proofs_at_a_token_endpoint_must_meet_is_logged_once() {
    let service =
        || service_fn(async |_: Request<String>| Ok::<_, Never>(Response::new(String::new())));
    let expected = r#" INFO tower_dpop::token_endpoint::endpoint: DPoP proofs of token requests are checked public_urls=https://as.example.com proof_algorithms=ES256 ES384 PS256 Ed25519 EdDSA proof_iat="iat from 90 s before to 30 s after the time of this server" nonces="off" replay_store="MemoryReplayStore""#;
    let endpoint = Arc::new(TokenEndpoint::new(common::token_endpoint::rules()));
    let attempts = || {
        for _ in 0..2 {
            assert!(TokenAttempt::good().verify(&endpoint).is_ok());
        }
    };
    let layers = || {
        let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
        drop((layer.layer(service()), layer.layer(service())));
    };
    let lines = token_endpoint_start(layers);
    assert!(
        lines[0].ends_with(expected) && lines.len() == 1,
        "{lines:?}"
    );
    assert_eq!(token_endpoint_start(layers), [""; 0]);
    assert_eq!(token_endpoint_start(attempts), [""; 0]);

    let endpoint = TokenEndpoint::new(common::token_endpoint::rules());
    let lines = token_endpoint_start(|| {
        for _ in 0..2 {
            assert!(TokenAttempt::good().verify(&endpoint).is_ok());
        }
    });
    assert!(
        lines[0].ends_with(expected) && lines.len() == 1,
        "{lines:?}"
    );
}

#[test]
fn each_insecure_option_of_a_token_endpoint_is_a_warning_at_start() {
    type Change = fn(ProofRules) -> ProofRules;
    let memory = tower_dpop::MemoryReplayStore::default;
    let nonces = || StatelessNonces::new(NonceSecret::generate());
    let rows: [(&str, Change); 2] = [
        ("PublicUrl::insecure_http", |rules| {
            rules.add_public_url(PublicUrl::insecure_http("http://as.internal").unwrap())
        }),
        (
            "ProofRules::with_insecure_one_use_per_node",
            ProofRules::with_insecure_one_use_per_node,
        ),
    ];
    for (expected, change) in rows {
        let rules = change(common::token_endpoint::rules().with_nonces(nonces()));
        let endpoint = TokenEndpoint::new(rules);
        let lines = token_endpoint_start(|| drop(TokenAttempt::good().verify(&endpoint)));
        assert!(
            lines[1].contains(" WARN ") && lines[1].contains(expected) && lines.len() == 2,
            "{lines:?}"
        );
    }
    let store = WhileUnavailable::insecurely_by_node_memory(memory(), memory());
    let rules = common::token_endpoint::rules().with_replay_store(store);
    let endpoint = TokenEndpoint::new(rules);
    let lines = token_endpoint_start(|| drop(TokenAttempt::good().verify(&endpoint)));
    assert!(
        lines[0].contains(r#"replay_store="WhileUnavailable<MemoryReplayStore>""#),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("WhileUnavailable::insecurely_by_node_memory"),
        "{lines:?}"
    );
}

#[test]
fn each_insecure_option_is_a_warning_at_start() {
    let insecure_url = PublicUrl::insecure_http("http://api.internal").unwrap();
    let memory = tower_dpop::MemoryReplayStore::default;
    let rows: [(&str, DpopLayer, &[&str]); 6] = [
        (
            "report-only",
            DpopLayer::new(verifier()).with_insecure_report_only(),
            &["DpopLayer::with_insecure_report_only"],
        ),
        (
            "unchecked cnf",
            DpopLayer::new(verifier().allow_insecure_unchecked_cnf()),
            &["Verifier::allow_insecure_unchecked_cnf"],
        ),
        (
            "replays",
            DpopLayer::new(verifier().allow_insecure_replays()),
            &["Verifier::allow_insecure_replays"],
        ),
        (
            "plain http",
            DpopLayer::new(verifier_by(|rules| rules.add_public_url(insecure_url))),
            &["PublicUrl::insecure_http"],
        ),
        (
            "the memory of each node",
            DpopLayer::new(verifier_by(|rules| {
                let store = WhileUnavailable::insecurely_by_node_memory(memory(), memory());
                rules.with_replay_store(Arc::new(store))
            })),
            &["WhileUnavailable::insecurely_by_node_memory"],
        ),
        (
            "http on loopback",
            DpopLayer::new(verifier_by(|rules| {
                rules.add_public_url("http://127.0.0.1:8080".parse().unwrap())
            })),
            &[],
        ),
    ];
    for (name, layer, expected) in rows {
        let lines = start_of(&layer);
        let warnings: Vec<_> = lines
            .iter()
            .filter(|line| line.contains(" WARN "))
            .collect();
        assert_eq!(warnings.len(), expected.len(), "{name}: {lines:?}");
        assert_eq!(lines.len(), 1 + expected.len(), "{name}: {lines:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{name}: {warning}");
        }
    }
}

/// A layer that only reports does not hide behind one that was announced before.
#[test]
fn a_report_only_layer_is_a_warning_though_its_verifier_was_announced() {
    let shared = Arc::new(verifier());
    assert_eq!(start_of(&DpopLayer::new(shared.clone())).len(), 1);
    let reporting = DpopLayer::new(shared).with_insecure_report_only();
    let lines = start_of(&reporting);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN"), "{lines:?}");
}

/// Layers for the routes of one service: what they have in common is logged once, and each difference.
#[test]
fn a_clone_logs_what_requests_must_meet_only_if_it_was_changed() {
    let shared = verifier();
    for (name, clone, lines) in [
        ("the first", shared.clone(), 1),
        ("unchanged", shared.clone(), 0),
        ("with Bearer", shared.clone().allow_bearer(), 1),
        ("with replays", shared.clone().allow_insecure_replays(), 2),
        ("unchanged after them", shared, 0),
    ] {
        let layer = DpopLayer::new(clone);
        assert_eq!(start_of(&layer).len(), lines, "{name}");
        assert_eq!(start_of(&layer).len(), 0, "{name}: again");
    }
}

/// P-8: a served document that no challenge names helps no client.
#[test]
fn challenges_name_the_metadata_once_they_exist() {
    let mut verifier = verifier();
    let metadata = ResourceMetadata::of(&mut verifier);
    let outcome = Attempt::but(as_bearer).outcome_by(&DpopLayer::new(verifier));
    let named = outcome.parameter("resource_metadata");
    assert_eq!(named.as_deref(), Some(metadata.url()));
    assert!(metadata.to_json().contains(ISSUER));
}

/// A store that fails on demand.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl ReplayStore for Switch {
    async fn claim(&self, _: UsedProof) -> Result<Claim, ReplayStoreError> {
        if self.0.load(Ordering::Relaxed) {
            Err(ReplayStoreError::Unavailable)
        } else {
            Ok(Claim::First)
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch::UNKNOWN
    }
}

/// Each request is logged as rejected. The outage is logged besides, but not for each request.
#[test]
fn an_outage_of_the_replay_store_is_logged_once_and_so_is_its_end() {
    let (store, clock) = (Switch::default(), Arc::new(AtomicU64::new(NOW)));
    let now = Arc::clone(&clock);
    let rules = ProofRules::new(AUDIENCE.parse().unwrap())
        .with_clock(move || at(now.load(Ordering::Relaxed)))
        .with_replay_store(store.clone());
    let layer = DpopLayer::new(Verifier::new(rules, jwt_verifier()));
    let began = r#"the replay store is unreachable: requests are rejected with 503 until it records proofs again reason="unavailable_replay""#;
    // Whether the store fails, seconds, and what is logged besides the decision.
    let rows = [
        (false, 0, None),
        (true, 1, Some((" WARN", began))),
        (true, 1, None),
        (true, 2, None),
        // One success among failures is not the end.
        (false, 3, None),
        (true, 4, None),
        (false, 8, None),
        (
            false,
            9,
            Some((" INFO", "the replay store records proofs again seconds=8")),
        ),
        (false, 10, None),
        (true, 11, Some((" WARN", began))),
    ];
    start_of(&layer);
    for (row, (fails, seconds, expected)) in rows.into_iter().enumerate() {
        store.0.store(fails, Ordering::Relaxed);
        clock.store(NOW + seconds, Ordering::Relaxed);
        let (outcome, log) = logged(|| Attempt::good().outcome_by(&layer));
        assert_eq!(outcome.status, if fails { 503 } else { 200 }, "{row}");
        decision("one decision", &log);
        let others = log.lines().filter(|line| line.contains("tower_dpop::"));
        let others: Vec<_> = others.collect();
        assert_eq!(
            others.len(),
            usize::from(expected.is_some()),
            "{row}: {log}"
        );
        if let Some((level, message)) = expected {
            assert!(
                others[0].contains(level) && others[0].ends_with(message),
                "{row}: {log}"
            );
        }
    }
}

/// A store that lost records is no outage: only requests that were under way are rejected.
#[test]
fn records_that_a_replay_store_lost_are_logged_once() {
    struct Lost;

    impl ReplayStore for Lost {
        async fn claim(&self, _: UsedProof) -> Result<Claim, ReplayStoreError> {
            Err(ReplayStoreError::OtherStore)
        }

        fn epoch(&self) -> Epoch {
            Epoch::of(b"a primary")
        }
    }

    let rules = common::rules().with_replay_store(Lost);
    let layer = DpopLayer::new(Verifier::new(rules, jwt_verifier()));
    let ((), log) = logged(|| {
        for _ in 0..2 {
            assert_eq!(Attempt::good().outcome_by(&layer).status, 503);
        }
    });
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    let [warning] = warnings[..] else {
        panic!("{log}");
    };
    assert!(
        warning.ends_with(r#"the replay store may have lost records since the request came in: requests that came in before are rejected reason="unavailable_replay_other_store""#),
        "{warning}"
    );
}
