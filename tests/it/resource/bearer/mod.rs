//! Bearer tokens next to DPoP (RFC 9449 section 7.2): which tokens are accepted, as which type, and the exact challenges
//! for rejected ones.

mod confirmation;
mod credentials;

use std::convert::Infallible;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, block_on, verifier, verifier_by};

use crate::credentials::set_authorization;
use http::{Request, Response};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::NonceError;
use tower_dpop::resource::{BearerError, CredentialsError, Scheme, Unavailable};
use tower_dpop::tokens::TokenError;
use tower_dpop::{
    AcceptedToken, BearerToken, BoundToken, Claims, DpopLayer, MemoryReplayStore, NonceSecret,
    Rejection, StatelessNonces, Timestamp, Verifier,
};

use super::challenge::ALGS;
use super::layer::RejectingTokens;

/// The types of the token in the extensions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundToken {
    Bearer,
    Bound,
    Both,
    None,
}

/// Everything that a test checks about a response.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) challenges: Vec<String>,
    pub(super) nonces: usize,
    pub(super) retry_after: bool,
    pub(super) rejection: Option<Rejection>,
    /// What the service found, if it was called.
    pub(super) found: Option<FoundToken>,
}

fn found(request: &Request<String>) -> FoundToken {
    let extensions = request.extensions();
    let bearer = extensions.get::<BearerToken<Claims>>();
    let bound = extensions.get::<BoundToken<Claims>>();
    let either = AcceptedToken::<Claims>::of(extensions);
    match (bearer, bound, either) {
        (Some(token), None, Some(AcceptedToken::Bearer(same))) => {
            assert_eq!(token.claims().subject(), same.claims().subject());
            FoundToken::Bearer
        }
        (None, Some(token), Some(AcceptedToken::Bound(same))) => {
            assert_eq!(token.thumbprint(), same.thumbprint());
            FoundToken::Bound
        }
        (None, None, None) => FoundToken::None,
        _ => FoundToken::Both,
    }
}

/// Sends a request through the layer to a service that reports the [`FoundToken`].
pub(super) fn outcome_by(layer: &DpopLayer, request: Request<String>) -> Outcome {
    let service = layer.layer(service_fn(async |request: Request<String>| {
        let mut response = Response::new(());
        response.extensions_mut().insert(found(&request));
        Ok::<_, Infallible>(response)
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    Outcome {
        status: response.status().as_u16(),
        challenges: response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .map(|field| field.to_str().unwrap().to_owned())
            .collect(),
        nonces: response.headers().get_all("dpop-nonce").iter().count(),
        retry_after: response.headers().contains_key("retry-after"),
        rejection: response.extensions().get().cloned(),
        found: response.extensions().get().copied(),
    }
}

fn passed_with(found: FoundToken) -> Outcome {
    Outcome {
        status: 200,
        challenges: Vec::new(),
        nonces: 0,
        retry_after: false,
        rejection: None,
        found: Some(found),
    }
}

pub(super) fn rejected(
    status: u16,
    challenges: &[String],
    rejection: impl Into<Rejection>,
) -> Outcome {
    Outcome {
        status,
        challenges: challenges.to_vec(),
        nonces: 0,
        retry_after: false,
        rejection: Some(rejection.into()),
        found: None,
    }
}

/// The error is in the Bearer challenge only (Figure 18).
pub(super) fn rejected_as_bearer(error: BearerError) -> Outcome {
    let challenge = format!(r#"Bearer error="invalid_token", error_description="{error}""#);
    rejected(401, &[challenge, format!("DPoP {ALGS}")], error)
}

/// The error is in the DPoP challenge only.
fn rejected_as_dpop(error: &str, rejection: impl Into<Rejection>) -> Outcome {
    let rejection = rejection.into();
    let challenge = format!(r#"DPoP error="{error}", error_description="{rejection}", {ALGS}"#);
    rejected(401, &["Bearer".to_owned(), challenge], rejection)
}

/// The error is in both challenges (Figure 19).
fn bad_request(error: CredentialsError) -> Outcome {
    let parameters = format!(r#"error="invalid_request", error_description="{error}""#);
    let challenges = [
        format!("Bearer {parameters}"),
        format!("DPoP {parameters}, {ALGS}"),
    ];
    rejected(400, &challenges, error)
}

pub(super) fn allowing_bearer() -> DpopLayer {
    DpopLayer::new(verifier().allow_bearer())
}

pub(super) fn allowing_unchecked_cnf() -> DpopLayer {
    DpopLayer::new(verifier().allow_insecure_unchecked_cnf())
}

pub(super) fn remove_cnf(attempt: &mut Attempt) {
    attempt.token_claims.as_object_mut().unwrap().remove("cnf");
}

/// A request of a client without DPoP, with a change.
pub(super) fn bearer_attempt(change: impl FnOnce(&mut Attempt)) -> Attempt {
    Attempt::but(|a| {
        remove_cnf(a);
        a.dpop = Some(Vec::new());
        change(a);
        if a.authorization.is_none() {
            set_authorization(a, &["Bearer TOKEN"]);
        }
    })
}

pub(super) type Change = fn(&mut Attempt);

#[test]
fn reports_an_invalid_bearer_token_in_the_bearer_challenge() {
    let rows: [(&str, Change, TokenError); 12] = [
        (
            "R-AT.5: expired",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired,
        ),
        (
            "R-AT.5: exp is null",
            |a| a.token_claims["exp"] = json!(null),
            TokenError::Expired,
        ),
        (
            "not valid yet",
            |a| a.token_claims["nbf"] = json!(NOW + 60),
            TokenError::NotYetValid,
        ),
        (
            "R-AT.2: another issuer",
            |a| a.token_claims["iss"] = json!("https://other.example"),
            TokenError::Issuer,
        ),
        (
            "R-AT.3: another audience",
            |a| a.token_claims["aud"] = json!("https://other.example"),
            TokenError::Audience,
        ),
        (
            "R-AT.4: signed by another key",
            |a| a.token_key = Key::es256(),
            TokenError::Signature,
        ),
        (
            "R-AT.4: an unknown kid",
            |a| a.token_header["kid"] = json!("x"),
            TokenError::Key,
        ),
        (
            "R-AT.4: alg none",
            |a| a.token_header["alg"] = json!("none"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.1: an ID token",
            |a| a.token_header["typ"] = json!("JWT"),
            TokenError::Type,
        ),
        (
            "a DPoP proof",
            |a| a.token_header["typ"] = json!("dpop+jwt"),
            TokenError::Type,
        ),
        (
            "sub is a number",
            |a| a.token_claims["sub"] = json!(7),
            TokenError::Claims,
        ),
        (
            "opaque",
            |a| a.token = Some("opaque".into()),
            TokenError::Malformed,
        ),
    ];
    for (name, change, error) in rows {
        let outcome = outcome_by(&allowing_bearer(), bearer_attempt(change).request());
        assert_eq!(
            outcome,
            rejected_as_bearer(BearerError::Token(error)),
            "R-AT.6: {name}"
        );
    }
}

pub(super) fn rejecting_tokens(error: TokenError) -> DpopLayer {
    DpopLayer::new(Verifier::new(common::rules(), RejectingTokens(error)).allow_bearer())
}

#[test]
fn unreachable_keys_are_a_503_under_both_schemes() {
    let expected = Outcome {
        retry_after: true,
        ..rejected(503, &[], Unavailable::Token)
    };
    for (name, attempt) in [
        ("Bearer", bearer_attempt(|_| {})),
        ("DPoP", Attempt::good()),
    ] {
        let outcome = outcome_by(
            &rejecting_tokens(TokenError::Unavailable),
            attempt.request(),
        );
        assert_eq!(outcome, expected, "{name}");
    }
}

/// Under the DPoP scheme, the same layer still requires both.
#[test]
fn a_bearer_token_uses_no_proof_and_needs_no_nonce() {
    let store = MemoryReplayStore::default();
    let nonces = StatelessNonces::new(NonceSecret::generate());
    let layer = DpopLayer::new(
        verifier_by(|rules| rules.with_nonces(nonces).with_replay_store(store.clone()))
            .allow_bearer(),
    );
    for (name, dpop) in [("without a proof", Some(vec![])), ("with a proof", None)] {
        let outcome = outcome_by(&layer, bearer_attempt(|a| a.dpop = dpop).request());
        assert_eq!(outcome, passed_with(FoundToken::Bearer), "{name}");
    }
    let mut bound = Attempt::good();
    set_authorization(&mut bound, &["Bearer TOKEN"]);
    let outcome = outcome_by(&layer, bound.request());
    assert_eq!(
        outcome,
        rejected_as_bearer(BearerError::Bound),
        "R-8.2: without a nonce"
    );
    assert_eq!(store.usage().live, 0);

    let description = "Resource server requires nonce in DPoP proof";
    let challenge =
        format!(r#"DPoP error="use_dpop_nonce", error_description="{description}", {ALGS}"#);
    let outcome = outcome_by(&layer, Attempt::good().request());
    let expected = Outcome {
        nonces: 1,
        ..rejected(401, &["Bearer".to_owned(), challenge], NonceError::Missing)
    };
    assert_eq!(outcome, expected, "R-9.1, R-11.3.1: under DPoP");
}

/// For routes that require a bound token. The rejection still states that the Bearer scheme was used.
#[test]
fn verify_accepts_only_dpop_even_if_bearer_is_allowed() {
    let verifier = verifier().allow_bearer();
    let (head, _) = bearer_attempt(|_| {}).request().into_parts();
    let rejection = block_on(verifier.verify(&head)).unwrap_err();
    assert_eq!(rejection, CredentialsError::Bearer.into());
    assert_eq!(rejection.scheme(), Some(Scheme::Bearer));
    let response: Response<()> = verifier.reject(rejection);
    let challenges: Vec<_> = response
        .headers()
        .get_all("www-authenticate")
        .iter()
        .collect();
    let expected = r#"Bearer error="invalid_token", error_description="the access token was presented as a bearer token""#;
    assert_eq!(challenges, [expected, &format!("DPoP {ALGS}")]);

    let accepted = block_on(verifier.verify_either(&head)).unwrap();
    assert!(matches!(accepted.token, AcceptedToken::Bearer(_)));
    assert_eq!(
        accepted.token.expires(),
        Some(Timestamp::from_unix(NOW + 600))
    );
    assert!(accepted.next_nonce.is_none());
    let (head, _) = Attempt::good().request().into_parts();
    let accepted = block_on(verifier.verify_either(&head)).unwrap();
    assert!(matches!(accepted.token, AcceptedToken::Bound(_)));
    assert_eq!(accepted.token.claims().subject(), Some("alice"));
    assert_eq!(
        accepted.token.expires(),
        Some(Timestamp::from_unix(NOW + 600))
    );
}

#[test]
fn removes_the_token_that_an_outer_layer_inserted() {
    let inner = allowing_bearer().layer(service_fn(async |request: Request<String>| {
        Ok::<_, Infallible>(Response::new(Some(found(&request))))
    }));
    // Like a gateway that exchanges tokens.
    let exchange = service_fn(move |mut request: Request<String>| {
        let other = bearer_attempt(|a| a.token_claims["sub"] = json!("service")).request();
        *request.headers_mut() = other.headers().clone();
        inner.clone().oneshot(request)
    });
    let outer = DpopLayer::new(verifier()).layer(exchange);
    let response = block_on(outer.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.into_body(), Some(FoundToken::Bearer));
}
