//! The complete response of each kind of rejection.

use std::convert::Infallible;
use std::sync::Arc;

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, field, required_nonce,
    verifier, verifier_by,
};
use http::{Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{NonceError, ReplayStoreError};
use tower_dpop::resource::Unavailable;
use tower_dpop::tokens::TokenError;
use tower_dpop::{
    DpopLayer, JwtVerifier, MemoryReplayStore, NonceSecret, Rejection, StatelessNonces, Verifier,
};

use super::{ALGS, UnreachableKeys};
use crate::credentials::with_authorization;
use crate::resource::layer::{FailingStore, RejectingTokens};

/// The status and the header fields of a response.
type StatusAndFields = (u16, Vec<(String, String)>);

fn status_and_fields(status: u16, fields: &[(&str, &str)]) -> StatusAndFields {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (status, fields.collect())
}

/// A rejection whose only field is a challenge with this error.
fn error(status: u16, code: &str, description: &str) -> StatusAndFields {
    let challenge = format!(r#"DPoP error="{code}", error_description="{description}", {ALGS}"#);
    status_and_fields(status, &[("www-authenticate", &challenge)])
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

/// The responses are the same if nonces are required and the proof has a valid one: a response contains
/// a nonce only if the request was rejected for its nonce.
#[test]
fn each_rejection_has_the_documented_response() {
    let algs = format!("DPoP {ALGS}");
    let without_error = || status_and_fields(401, &[("www-authenticate", &algs)]);
    let rows: Vec<(&str, Attempt, StatusAndFields)> = vec![
        (
            "O0 R-7.2.4: no credentials",
            with_authorization(&[]),
            without_error(),
        ),
        (
            "O0: another scheme",
            with_authorization(&["Basic YTpi"]),
            without_error(),
        ),
        (
            "O0 R-7.1.14: Proxy-Authorization, and no proxy fields in the response",
            Attempt::but(|a| {
                a.authorization = Some(Vec::new());
                a.extra_headers = vec![("proxy-authorization", field(b"DPoP token"))];
            }),
            without_error(),
        ),
        (
            "O1 R-7.1.9 R-7.1.10 R-7.1.11: an invalid proof",
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            error(
                401,
                "invalid_dpop_proof",
                "the DPoP proof is for another method",
            ),
        ),
        (
            "O1: a request that no proof can be made for",
            Attempt::but(|a| a.uri = "/ordérs".into()),
            error(
                401,
                "invalid_dpop_proof",
                "the path of the request is malformed",
            ),
        ),
        (
            "O3: an expired token",
            Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 600)),
            error(401, "invalid_token", "the access token has expired"),
        ),
        (
            "O3 R-4.3.12b: a token bound to another key",
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt())),
            error(401, "invalid_token", "Invalid DPoP key binding"),
        ),
        (
            "O3 F-12: an unbound token",
            Attempt::but(|a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
            }),
            error(
                401,
                "invalid_token",
                "the access token is not bound to a key",
            ),
        ),
        (
            "O3 R-7.2.3 F-10 (DPoP only): a bound token under Bearer",
            with_authorization(&["Bearer TOKEN"]),
            error(
                401,
                "invalid_token",
                "the access token was presented as a bearer token",
            ),
        ),
        (
            "O4 R-7.2.5 (DPoP only): several Authorization fields",
            with_authorization(&["DPoP TOKEN", "Bearer TOKEN"]),
            error(400, "invalid_request", "several Authorization fields"),
        ),
        (
            "O4: malformed credentials",
            with_authorization(&["DPoP"]),
            error(
                400,
                "invalid_request",
                "the Authorization field is malformed",
            ),
        ),
    ];
    let without_nonces = DpopLayer::new(verifier());
    let with_nonces = DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces())));
    let nonce = required_nonce(&with_nonces).unwrap();
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
        error(401, "invalid_dpop_proof", "the DPoP proof is missing"),
        "O1 R-7.1.2"
    );
    let with_nonces = Arc::new(verifier_by(|rules| rules.with_nonces(nonces())));
    let nonce = with_nonces.issue_nonce().unwrap().as_str().to_owned();
    let with_nonces = DpopLayer::new(with_nonces);
    let description = "Resource server requires nonce in DPoP proof";
    let mut nonce_required = error(401, "use_dpop_nonce", description);
    nonce_required.1.extend([
        ("dpop-nonce".to_owned(), nonce),
        ("cache-control".to_owned(), "no-store".to_owned()),
    ]);
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

/// R-AT.9, R-AT.10: scopes are checked by the application, for example in its own verifier of access tokens.
#[test]
fn a_token_verifier_can_reject_an_insufficient_scope() {
    let tokens = RejectingTokens(TokenError::InsufficientScope);
    let layer = DpopLayer::new(
        Verifier::new(common::rules(), tokens)
            .with_scope("orders.read orders.write".parse().unwrap()),
    );
    let description = "the access token does not allow this request";
    let challenge = format!(
        r#"DPoP error="insufficient_scope", error_description="{description}", scope="orders.read orders.write", {ALGS}"#
    );
    assert_eq!(
        respond(&layer, &Attempt::good()),
        status_and_fields(403, &[("www-authenticate", &challenge)]),
        "O5"
    );
    Attempt::good()
        .outcome_by(&layer)
        .assert_reason("O5", TokenError::InsufficientScope);
}

#[test]
fn a_server_error_has_no_challenge() {
    let unavailable = status_and_fields(503, &[("retry-after", "1")]);
    let full = verifier_by(|rules| rules.with_replay_store(MemoryReplayStore::with_limit(0)));
    let unreachable =
        verifier_by(|rules| rules.with_replay_store(FailingStore(ReplayStoreError::Unavailable)));
    let no_keys = Verifier::new(
        common::rules(),
        JwtVerifier::new(ISSUER, AUDIENCE, UnreachableKeys),
    );
    let undecided = Verifier::new(common::rules(), RejectingTokens(TokenError::Unavailable));
    let unreachable_with_nonces = verifier_by(|rules| {
        rules
            .with_replay_store(FailingStore(ReplayStoreError::Unavailable))
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
    let nonce = required_nonce(&unreachable_with_nonces).unwrap();
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
                &Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce)),
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
