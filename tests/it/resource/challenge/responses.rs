//! The complete response of each kind of rejection.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use std::convert::Infallible;

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, field, verifier, verifier_by,
};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{Claim, NonceError, NonceSource as _, ReplayKey, ReplayStoreError};
use tower_dpop::resource::Unavailable;
use tower_dpop::tokens::{KeySource, KeySourceError, TokenError};
use tower_dpop::{
    Algorithm, Algorithms, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret,
    Rejection, ReplayStore, StatelessNonces, Timestamp, Verifier,
};

use crate::credentials::with_authorization;
use crate::resource::bearer::RejectingTokens;

/// The status and the header fields of a response.
type StatusAndFields = (u16, Vec<(String, String)>);

fn status_and_fields(status: u16, fields: &[(&str, &str)]) -> StatusAndFields {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (status, fields.collect())
}

macro_rules! algs {
    () => {
        r#"algs="ES256 ES384 PS256 Ed25519 EdDSA""#
    };
}

fn respond<C: Send + Sync + 'static>(layer: &DpopLayer<C>, attempt: &Attempt) -> StatusAndFields {
    let service = layer.layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new("reached the service".to_owned()))
    }));
    let response = common::block_on(service.oneshot(attempt.request())).unwrap();
    assert_eq!(response.body(), "", "the body of a rejection");
    let fields = response.headers().iter().map(|(name, value)| {
        let value = value.to_str().unwrap();
        (name.as_str().to_owned(), value.to_owned())
    });
    (response.status().as_u16(), fields.collect())
}

const SECRET: [u8; 32] = [7; 32];

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::from_bytes(&SECRET).unwrap())
}

/// The nonce of the current period.
fn current_nonce() -> String {
    let mut headers = HeaderMap::new();
    nonces()
        .issue(Timestamp::from_unix(NOW - NOW % 120))
        .write_to(&mut headers);
    headers["dpop-nonce"].to_str().unwrap().to_owned()
}

/// The responses are the same if nonces are required and the proof has a valid one: a response contains
/// a nonce only if the request was rejected for its nonce.
#[test]
fn each_rejection_has_the_documented_response() {
    let rows: Vec<(&str, Attempt, StatusAndFields)> = vec![
        (
            "O0 R-7.2.4: no credentials",
            with_authorization(&[]),
            status_and_fields(401, &[("www-authenticate", concat!("DPoP ", algs!()))]),
        ),
        (
            "O0: another scheme",
            with_authorization(&["Basic YTpi"]),
            status_and_fields(401, &[("www-authenticate", concat!("DPoP ", algs!()))]),
        ),
        (
            "O1 R-7.1.9 R-7.1.10 R-7.1.11: an invalid proof",
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            status_and_fields(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof is for another method", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O1: a request that no proof can be made for",
            Attempt::but(|a| a.uri = "/%zz".into()),
            status_and_fields(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_dpop_proof", error_description="the path of the request is malformed", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3: an expired token",
            Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 600)),
            status_and_fields(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="the access token has expired", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3 R-4.3.12b: a token bound to another key",
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt())),
            status_and_fields(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="Invalid DPoP key binding", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3 F-12: an unbound token",
            Attempt::but(|a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
            }),
            status_and_fields(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="the access token is not bound to a key", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O3 R-7.2.3 F-10 (DPoP only): a bound token under Bearer",
            with_authorization(&["Bearer TOKEN"]),
            status_and_fields(
                401,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_token", error_description="the access token was presented as a bearer token", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O4 R-7.2.5 (DPoP only): several Authorization fields",
            with_authorization(&["DPoP TOKEN", "Bearer TOKEN"]),
            status_and_fields(
                400,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_request", error_description="several Authorization fields", "#,
                        algs!()
                    ),
                )],
            ),
        ),
        (
            "O4: malformed credentials",
            with_authorization(&["DPoP"]),
            status_and_fields(
                400,
                &[(
                    "www-authenticate",
                    concat!(
                        r#"DPoP error="invalid_request", error_description="the Authorization field is malformed", "#,
                        algs!()
                    ),
                )],
            ),
        ),
    ];
    let nonce = current_nonce();
    let without_nonces = DpopLayer::new(verifier());
    let with_nonces = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces())));
    for (name, mut attempt, expected) in rows {
        assert_eq!(respond(&without_nonces, &attempt), expected, "{name}");
        attempt.proof_claims["nonce"] = json!(nonce);
        assert_eq!(
            respond(&with_nonces, &attempt),
            expected,
            "{name}, with required nonces"
        );
    }
}

#[test]
fn a_missing_proof_gets_a_nonce_if_nonces_are_required() {
    let without_proof = Attempt::but(|a| a.dpop = Some(Vec::new()));
    assert_eq!(
        respond(&DpopLayer::new(verifier()), &without_proof),
        status_and_fields(
            401,
            &[(
                "www-authenticate",
                concat!(
                    r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof is missing", "#,
                    algs!()
                )
            )]
        ),
        "O1 R-7.1.2"
    );
    let nonce = current_nonce();
    let nonce_required = status_and_fields(
        401,
        &[
            (
                "www-authenticate",
                concat!(
                    r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof", "#,
                    algs!()
                ),
            ),
            ("dpop-nonce", &nonce),
            ("cache-control", "no-store"),
        ],
    );
    let with_nonces = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces())));
    assert_eq!(
        respond(&with_nonces, &without_proof),
        nonce_required,
        "O2 R-7.1.2"
    );
    let bad_nonce = |nonce: Value| Attempt::but(|a| a.proof_claims["nonce"] = nonce);
    for (name, attempt, reason) in [
        ("O2: no nonce", Attempt::good(), NonceError::Missing),
        (
            "O2: a nonce of another server",
            bad_nonce(json!("foreign")),
            NonceError::Foreign,
        ),
        (
            "O2: an empty nonce",
            bad_nonce(json!("")),
            NonceError::Foreign,
        ),
    ] {
        assert_eq!(respond(&with_nonces, &attempt), nonce_required, "{name}");
        attempt.outcome_by(&with_nonces).assert_reason(name, reason);
    }
}

#[test]
fn an_insufficient_scope_gets_403_and_the_required_scope() {
    let verifier = |error| Verifier::new(common::rules(), RejectingTokens(error));
    let insufficient = verifier(TokenError::InsufficientScope)
        .with_scope("orders.read orders.write".parse().unwrap());
    assert_eq!(
        respond(&DpopLayer::new(insufficient), &Attempt::good()),
        status_and_fields(
            403,
            &[(
                "www-authenticate",
                concat!(
                    r#"DPoP error="insufficient_scope", error_description="the access token does not allow this request", "#,
                    r#"scope="orders.read orders.write", "#,
                    algs!()
                )
            )]
        ),
        "O5"
    );
}

struct UnreachableKeys;

impl KeySource for UnreachableKeys {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        Err(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Err(KeySourceError)
    }
}

struct UnreachableStore;

impl ReplayStore for UnreachableStore {
    async fn claim(
        &self,
        _key: ReplayKey,
        _now: Timestamp,
        _expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        Err(ReplayStoreError::Unavailable)
    }
}

#[test]
fn a_server_error_has_no_challenge() {
    let unavailable = status_and_fields(503, &[("retry-after", "1")]);
    let full = verifier_by(|rules| rules.with_replay_store(MemoryReplayStore::with_limit(0)));
    let unreachable = verifier_by(|rules| rules.with_replay_store(UnreachableStore));
    let no_keys = Verifier::new(
        common::rules(),
        JwtVerifier::new(ISSUER, AUDIENCE, UnreachableKeys),
    );
    let undecided = Verifier::new(common::rules(), RejectingTokens(TokenError::Unavailable));
    let unreachable_with_nonces = verifier_by(|rules| {
        rules
            .with_replay_store(UnreachableStore)
            .with_nonces(nonces())
    });
    let good = Attempt::good;
    let (full, unreachable, no_keys, undecided, unreachable_with_nonces) = (
        DpopLayer::new(full),
        DpopLayer::new(unreachable),
        DpopLayer::new(no_keys),
        DpopLayer::new(undecided),
        DpopLayer::new(unreachable_with_nonces),
    );
    for (name, response) in [
        ("O6: the replay store is full", respond(&full, &good())),
        (
            "O6: the replay store is unreachable",
            respond(&unreachable, &good()),
        ),
        (
            "O6: the issuer's keys are unreachable",
            respond(&no_keys, &good()),
        ),
        (
            "O6: the token verifier is unavailable",
            respond(&undecided, &good()),
        ),
        (
            "O6: with required nonces",
            respond(
                &unreachable_with_nonces,
                &Attempt::but(|a| a.proof_claims["nonce"] = json!(current_nonce())),
            ),
        ),
    ] {
        assert_eq!(response, unavailable, "{name}");
    }
    let replay = |error| Rejection::Unavailable(Unavailable::Replay(error));
    good()
        .outcome_by(&full)
        .assert_reason("O6 T-18", replay(ReplayStoreError::Full));
    good()
        .outcome_by(&unreachable)
        .assert_reason("O6 T-18", replay(ReplayStoreError::Unavailable));
    for outcome in [good().outcome_by(&no_keys), good().outcome_by(&undecided)] {
        outcome.assert_reason("O6", Rejection::Unavailable(Unavailable::Token));
    }
}

/// Figures 15 and 16 of RFC 9449 exactly. Figure 24 has no `algs`, which this crate always adds.
#[test]
fn challenges_match_figures_15_16_and_24() {
    let vectors: Value = serde_json::from_str(include_str!("../../../vectors.json")).unwrap();
    let figure = |name: &str| {
        vectors["rfc9449"]["challenges"][name][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let es256 = Algorithms::only(Algorithm::Es256);
    let challenge = |verifier: tower_dpop::Verifier, attempt: Attempt| {
        attempt
            .outcome_by(&DpopLayer::new(verifier))
            .challenges
            .clone()
    };
    assert_eq!(
        challenge(
            verifier_by(|rules| rules.with_algorithms(es256.add(Algorithm::Ps256))),
            with_authorization(&[])
        ),
        [figure("fig15")],
        "O0"
    );
    assert_eq!(
        challenge(
            verifier_by(|rules| rules.with_algorithms(es256)),
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()))
        ),
        [figure("fig16")],
        "O3"
    );
    assert_eq!(
        challenge(
            verifier_by(|rules| rules.with_algorithms(es256).with_nonces(nonces())),
            Attempt::good()
        ),
        [figure("fig24") + r#", algs="ES256""#],
        "O2"
    );
}

/// R-7.1.8, P-8: each parameter once, always in the same order.
#[test]
fn every_challenge_contains_the_configured_parameters() {
    let metadata = "https://api.example.com/.well-known/oauth-protected-resource";
    let layer = DpopLayer::new(
        verifier()
            .with_realm("orders".parse().unwrap())
            .with_scope("orders.read".parse().unwrap())
            .with_resource_metadata(metadata.parse().unwrap()),
    );
    let configured = format!(
        r#"scope="orders.read", {}, resource_metadata="{metadata}""#,
        algs!()
    );
    assert_eq!(
        with_authorization(&[]).outcome_by(&layer).challenges,
        [format!(r#"DPoP realm="orders", {configured}"#)],
        "O0 R-7.1.8 P-8"
    );
    assert_eq!(
        with_authorization(&["DPoP"]).outcome_by(&layer).challenges,
        [format!(
            r#"DPoP realm="orders", error="invalid_request", error_description="the Authorization field is malformed", {configured}"#
        )],
        "O4 R-7.1.8 P-8"
    );
}

/// R-7.1.14: proxies do not use the scheme.
#[test]
fn a_rejection_has_no_proxy_fields() {
    let layer = DpopLayer::new(verifier());
    for attempt in [
        with_authorization(&[]),
        Attempt::but(|a| {
            a.authorization = Some(Vec::new());
            a.extra_headers = vec![("proxy-authorization", field(b"DPoP token"))];
        }),
        Attempt::but(|a| a.dpop = Some(Vec::new())),
    ] {
        let (status, fields) = respond(&layer, &attempt);
        assert_eq!(status, 401);
        assert!(!fields.iter().any(|(name, _)| name.starts_with("proxy-")));
    }
}
