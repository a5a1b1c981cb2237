//! Bearer tokens beside DPoP (RFC 9449 section 7.2): what passes, as which type, and what the others
//! are told in which challenge, to the letter.

mod accepted;
mod challenge;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, block_on, verifier, verifier_by};
use http::{Request, Response};
use serde_json::json;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::resource::{BearerError, BindingError, CredentialsError, Scheme, Unavailable};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{
    AcceptedToken, Algorithms, BearerToken, BoundToken, Claims, DpopLayer, MemoryReplayStore,
    NonceSecret, PublicUrl, Rejection, StatelessNonces, Timestamp, Verifier,
};

/// What every DPoP challenge says by default.
const ALGS: &str = r#"algs="ES256 ES384 PS256 Ed25519 EdDSA""#;

/// The types under which a service finds the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Bearer,
    Bound,
    Both,
    Nothing,
}

/// The whole of an answer.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    challenges: Vec<String>,
    nonces: usize,
    retry_after: bool,
    rejection: Option<Rejection>,
    /// What the service found, if it was reached.
    found: Option<Found>,
}

fn found(request: &Request<()>) -> Found {
    let extensions = request.extensions();
    let bearer = extensions.get::<BearerToken<Claims>>();
    let bound = extensions.get::<BoundToken<Claims>>();
    let either = AcceptedToken::<Claims>::of(extensions);
    match (bearer, bound, either) {
        (Some(token), None, Some(AcceptedToken::Bearer(same))) => {
            assert_eq!(token.claims().subject(), same.claims().subject());
            Found::Bearer
        }
        (None, Some(token), Some(AcceptedToken::Bound(same))) => {
            assert_eq!(token.thumbprint(), same.thumbprint());
            Found::Bound
        }
        (None, None, None) => Found::Nothing,
        _ => Found::Both,
    }
}

/// What a service behind the layer makes of a request.
fn outcome_by(layer: &DpopLayer, request: Request<()>) -> Outcome {
    let service = layer.layer(service_fn(async |request: Request<()>| {
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

fn rejected(status: u16, challenges: &[String], rejection: impl Into<Rejection>) -> Outcome {
    Outcome {
        status,
        challenges: challenges.to_vec(),
        nonces: 0,
        retry_after: false,
        rejection: Some(rejection.into()),
        found: None,
    }
}

/// Rejected, and told so in the Bearer challenge alone (Figure 18).
fn rejected_as_bearer(error: BearerError) -> Outcome {
    let told = format!(r#"Bearer error="invalid_token", error_description="{error}""#);
    rejected(401, &[told, format!("DPoP {ALGS}")], error)
}

fn allowing() -> DpopLayer {
    DpopLayer::new(verifier().allow_bearer())
}

/// `Authorization` fields, with the attempt's token for `TOKEN`.
fn present(attempt: &mut Attempt, fields: &[&str]) {
    let token = attempt.token();
    attempt.authorization = Some(
        fields
            .iter()
            .map(|field| field.replace("TOKEN", &token).parse().unwrap())
            .collect(),
    );
}

fn unbind(attempt: &mut Attempt) {
    attempt.token_claims.as_object_mut().unwrap().remove("cnf");
}

/// The good request of a client without DPoP, changed.
fn bearer(change: impl FnOnce(&mut Attempt)) -> Attempt {
    Attempt::but(|a| {
        unbind(a);
        a.dpop = Some(Vec::new());
        change(a);
        if a.authorization.is_none() {
            present(a, &["Bearer TOKEN"]);
        }
    })
}

type Change = fn(&mut Attempt);

/// The strings of the standard's figures, with its algorithms.
mod figures {
    pub(super) const FIGURE_15: [&str; 1] = [r#"DPoP algs="ES256 PS256""#];
    pub(super) const FIGURE_16: [&str; 1] = [
        r#"DPoP error="invalid_token", error_description="Invalid DPoP key binding", algs="ES256 PS256""#,
    ];
    pub(super) const FIGURE_17: [&str; 2] = ["Bearer", r#"DPoP algs="ES256 PS256""#];
    /// With descriptions of ours in place of "Invalid token".
    pub(super) const FIGURE_18: [&str; 2] = [
        r#"Bearer error="invalid_token", error_description="the access token has expired""#,
        r#"DPoP algs="ES256 PS256""#,
    ];
    /// With descriptions of ours in place of "Multiple methods used to include access token".
    pub(super) const FIGURE_19: [&str; 2] = [
        r#"Bearer error="invalid_request", error_description="several Authorization fields""#,
        r#"DPoP error="invalid_request", error_description="several Authorization fields", algs="ES256 PS256""#,
    ];
}
