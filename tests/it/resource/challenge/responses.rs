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
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, KeySource, KeySourceError, PresentedToken, TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret,
    ProofRules, Rejection, ReplayStore, StatelessNonces, Timestamp, Verifier,
};

use crate::credentials::authorized_by;

/// Everything about a rejection that goes over the wire.
type OnTheWire = (u16, Vec<(String, String)>);

fn wire(status: u16, fields: &[(&str, &str)]) -> OnTheWire {
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

fn on_the_wire<C: Send + Sync + 'static>(layer: &DpopLayer<C>, attempt: &Attempt) -> OnTheWire {
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new("reached the service".to_owned()))
    }));
    let response = common::block_on(service.oneshot(attempt.request())).unwrap();
    assert_eq!(response.body(), "", "a rejection has no body");
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

/// The nonce of the period in which the tests run.
fn nonce_of_now() -> String {
    let mut headers = HeaderMap::new();
    nonces()
        .issue(Timestamp::from_unix(NOW - NOW % 120))
        .write_to(&mut headers);
    headers["dpop-nonce"].to_str().unwrap().to_owned()
}

/// The rows of the table of outcomes, whole: status and every header field. With nonces on, the
/// attempts carry a good nonce, and nothing else changes: a nonce is given out only where one is
/// asked for.
#[test]
fn every_outcome_has_one_form() {
    let rows: Vec<(&str, Attempt, OnTheWire)> = vec![
        (
            "O0 R-7.2.4: no credentials",
            authorized_by(&[]),
            wire(401, &[("www-authenticate", concat!("DPoP ", algs!()))]),
        ),
        (
            "O0: another scheme",
            authorized_by(&["Basic YTpi"]),
            wire(401, &[("www-authenticate", concat!("DPoP ", algs!()))]),
        ),
        (
            "O1 R-7.1.9 R-7.1.10 R-7.1.11: a bad proof",
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            wire(
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
            "O1: a request that no proof can be for",
            Attempt::but(|a| a.uri = "/%zz".into()),
            wire(
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
            "O3: a bad token",
            Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 600)),
            wire(
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
            "O3 R-4.3.12b: a token of another key",
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt())),
            wire(
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
            wire(
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
            "O3 R-7.2.3 F-10 (DPoP only): a bound token as Bearer",
            authorized_by(&["Bearer TOKEN"]),
            wire(
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
            authorized_by(&["DPoP TOKEN", "Bearer TOKEN"]),
            wire(
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
            "O4: broken credentials",
            authorized_by(&["DPoP"]),
            wire(
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
    let nonce = nonce_of_now();
    let without_nonces = DpopLayer::new(verifier());
    let with_nonces = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces())));
    for (name, mut attempt, expected) in rows {
        assert_eq!(on_the_wire(&without_nonces, &attempt), expected, "{name}");
        attempt.proof_claims["nonce"] = json!(nonce);
        assert_eq!(
            on_the_wire(&with_nonces, &attempt),
            expected,
            "{name}, with nonces on"
        );
    }
}

#[test]
fn a_proof_that_is_missing_is_a_bad_proof_or_lacks_a_nonce() {
    let without_proof = Attempt::but(|a| a.dpop = Some(Vec::new()));
    assert_eq!(
        on_the_wire(&DpopLayer::new(verifier()), &without_proof),
        wire(
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
    let nonce = nonce_of_now();
    let demand = wire(
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
        on_the_wire(&with_nonces, &without_proof),
        demand,
        "O2 R-7.1.2"
    );
    let bad_nonce = |nonce: Value| Attempt::but(|a| a.proof_claims["nonce"] = nonce);
    for (name, attempt, reason) in [
        ("O2: no nonce", Attempt::good(), NonceError::Missing),
        (
            "O2: a foreign one",
            bad_nonce(json!("foreign")),
            NonceError::Foreign,
        ),
        (
            "O2: an empty one",
            bad_nonce(json!("")),
            NonceError::Foreign,
        ),
    ] {
        assert_eq!(on_the_wire(&with_nonces, &attempt), demand, "{name}");
        attempt.outcome_by(&with_nonces).assert_reason(name, reason);
    }
}

/// Rejects every token, for this reason.
#[derive(Clone)]
struct Always(TokenError);

impl AccessTokenVerifier for Always {
    type Claims = Claims;

    async fn verify(
        &self,
        _token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        Err(self.0.clone())
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

#[test]
fn a_token_that_does_not_suffice_is_forbidden_and_told_the_scope() {
    let verifier = |error| {
        Verifier::new(
            ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| common::at(NOW)),
            Always(error),
        )
    };
    let insufficient = verifier(TokenError::InsufficientScope)
        .with_scope("orders.read orders.write".parse().unwrap());
    assert_eq!(
        on_the_wire(&DpopLayer::new(insufficient), &Attempt::good()),
        wire(
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

struct NoKeys;

impl KeySource for NoKeys {
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

struct NoStore;

impl ReplayStore for NoStore {
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
fn a_fault_of_ours_is_no_challenge() {
    let out_of_order = wire(503, &[("retry-after", "1")]);
    let url = || AUDIENCE.parse().unwrap();
    let with_clock = |seconds| move || common::at(seconds);
    let full = verifier_by(|rules| rules.with_replay_store(MemoryReplayStore::with_limit(0)));
    let down = verifier_by(|rules| rules.with_replay_store(NoStore));
    let no_keys = Verifier::new(
        ProofRules::new(url()).with_clock(with_clock(NOW)),
        JwtVerifier::new(ISSUER, AUDIENCE, NoKeys),
    );
    let no_answer = Verifier::new(
        ProofRules::new(url()).with_clock(with_clock(NOW)),
        Always(TokenError::Unavailable),
    );
    let down_with_nonces =
        verifier_by(|rules| rules.with_replay_store(NoStore).with_nonces(nonces()));
    let good = Attempt::good;
    let (full, down, no_keys, no_answer, down_with_nonces) = (
        DpopLayer::new(full),
        DpopLayer::new(down),
        DpopLayer::new(no_keys),
        DpopLayer::new(no_answer),
        DpopLayer::new(down_with_nonces),
    );
    for (name, on_the_wire) in [
        ("O6: the replay store is full", on_the_wire(&full, &good())),
        ("O6: the replay store is down", on_the_wire(&down, &good())),
        (
            "O6: the issuer's keys are out of reach",
            on_the_wire(&no_keys, &good()),
        ),
        ("O6: nobody can say", on_the_wire(&no_answer, &good())),
        (
            "O6: with nonces on",
            on_the_wire(
                &down_with_nonces,
                &Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce_of_now())),
            ),
        ),
    ] {
        assert_eq!(on_the_wire, out_of_order, "{name}");
    }
    let replay = |error| Rejection::Unavailable(Unavailable::Replay(error));
    good()
        .outcome_by(&full)
        .assert_reason("O6 T-18", replay(ReplayStoreError::Full));
    good()
        .outcome_by(&down)
        .assert_reason("O6 T-18", replay(ReplayStoreError::Unavailable));
    for layer_says in [good().outcome_by(&no_keys), good().outcome_by(&no_answer)] {
        layer_says.assert_reason("O6", Rejection::Unavailable(Unavailable::Token));
    }
}

/// Figures 15 and 16 of RFC 9449 to the letter, Figure 24 but for `algs`, which we always tell.
#[test]
fn challenges_are_those_of_the_figures() {
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
            authorized_by(&[])
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

/// R-7.1.8, P-8: each parameter once, in one order.
#[test]
fn what_is_configured_stands_in_every_challenge() {
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
        authorized_by(&[]).outcome_by(&layer).challenges,
        [format!(r#"DPoP realm="orders", {configured}"#)],
        "O0 R-7.1.8 P-8"
    );
    assert_eq!(
        authorized_by(&["DPoP"]).outcome_by(&layer).challenges,
        [format!(
            r#"DPoP realm="orders", error="invalid_request", error_description="the Authorization field is malformed", {configured}"#
        )],
        "O4 R-7.1.8 P-8"
    );
}

/// R-7.1.14: the scheme is for servers, never for proxies.
#[test]
fn no_rejection_speaks_to_a_proxy() {
    let layer = DpopLayer::new(verifier());
    for attempt in [
        authorized_by(&[]),
        Attempt::but(|a| {
            a.authorization = Some(Vec::new());
            a.extra_headers = vec![("proxy-authorization", field(b"DPoP token"))];
        }),
        Attempt::but(|a| a.dpop = Some(Vec::new())),
    ] {
        let (status, fields) = on_the_wire(&layer, &attempt);
        assert_eq!(status, 401);
        assert!(!fields.iter().any(|(name, _)| name.starts_with("proxy-")));
    }
}
