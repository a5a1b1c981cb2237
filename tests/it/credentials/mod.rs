//! Which credentials are looked at, and what each kind of rejection looks like to a client.
//!
//! Only the DPoP scheme is accepted here, so of the rows that tell two kinds of servers apart, the
//! DPoP-only half is tested.

#![expect(clippy::too_many_lines, reason = "tables are long")]

mod fields;
mod rejections;
mod token;

use bytes::Bytes;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, ath, base64url, field,
    verifier, verifier_by,
};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::convert::Infallible;
use tower::{Layer, ServiceExt, service_fn};
use tower_dpop::proof::{Claim, NonceError, NonceSource, ProofError, ReplayKey, ReplayStoreError};
use tower_dpop::resource::{BindingError, CredentialsError, Unavailable};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, KeySource, KeySourceError, PresentedToken,
    TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret,
    ProofRules, Rejection, ReplayStore, StatelessNonces, Timestamp, Verifier,
};

/// Gives an attempt these `Authorization` fields, its token where `TOKEN` stands.
fn present(attempt: &mut Attempt, authorization: &[&str]) {
    let token = attempt.token();
    let fields = authorization
        .iter()
        .map(|text| field(text.replace("TOKEN", &token).as_bytes()));
    attempt.authorization = Some(fields.collect());
    attempt.token = Some(token);
}

fn authorized_by(authorization: &[&str]) -> Attempt {
    Attempt::but(|a| present(a, authorization))
}

/// Everything about a rejection that goes over the wire.
type OnTheWire = (u16, Vec<(String, String)>);

fn wire(status: u16, fields: &[(&str, &str)]) -> OnTheWire {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (status, fields.collect())
}
