//! The authorization server's side: proofs of token and pushed authorization requests.

mod endpoint;
mod layer;
mod proven_key;
mod rejection;

use http::Method;
use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::{IatError, ProofError, UrlMismatch};
use tower_dpop::token_endpoint::{ProvenKey, TokenEndpoint};
use tower_dpop::{ProofRules, StatelessNonces, Thumbprint};

use common::remove;
use common::token_endpoint::{Attempt, endpoint, nonce_secret, rules};
use common::{Key, KeyExt as _, NOW, TestClock, field};

fn nonce_rules(clock: &TestClock) -> ProofRules {
    rules()
        .with_clock(clock.read())
        .with_nonces(StatelessNonces::new(nonce_secret(1)))
}

fn endpoint_with_nonces(clock: &TestClock) -> TokenEndpoint {
    TokenEndpoint::new(nonce_rules(clock))
}

/// The proven key of a valid request that is signed with this key.
fn proven(key: &Key) -> ProvenKey {
    Attempt::with_key(key.clone()).verify(&endpoint()).unwrap()
}

fn jkt(key: &Key) -> Thumbprint {
    key.jkt().parse().unwrap()
}

type Change = fn(&mut Attempt);

/// For every check that one proof can fail, a change that makes it fail. Not in the list: `Replayed`,
/// which takes two requests, and `TokenHash`, because a token endpoint does not check `ath`.
#[expect(clippy::too_many_lines, reason = "a table of every check")]
fn bad_proofs() -> Vec<(&'static str, Change, ProofError)> {
    use ProofError as E;
    vec![
        ("A-1: no proof", |a| a.dpop = Some(vec![]), E::Missing),
        (
            "A-1: two proofs",
            |a| {
                a.dpop = Some(vec![a.proof().parse().unwrap(), a.proof().parse().unwrap()]);
            },
            E::Several,
        ),
        (
            "A-1: the same proof twice",
            |a| {
                a.dpop = Some(vec![a.proof().parse().unwrap(); 2]);
            },
            E::Several,
        ),
        (
            "two proofs in one field",
            |a| {
                a.dpop = Some(vec![format!("{0},{0}", a.proof()).parse().unwrap()]);
            },
            E::NotAJwt,
        ),
        (
            "an empty field",
            |a| a.dpop = Some(vec![field(b"")]),
            E::NotAJwt,
        ),
        (
            "a field that is not text",
            |a| a.dpop = Some(vec![field(b"\xff.\xff.\xff")]),
            E::NotAJwt,
        ),
        (
            "a padded proof",
            |a| a.edit_proof = |proof| proof + "=",
            E::NotAJwt,
        ),
        (
            "a proof that is too long",
            |a| a.claims["more"] = json!("m".repeat(8_000)),
            E::TooLong,
        ),
        (
            "a header that is not an object",
            |a| a.header = json!(["dpop+jwt"]),
            E::HeaderNotJson,
        ),
        (
            "claims that are not an object",
            |a| a.claims = json!("claims"),
            E::PayloadNotJson,
        ),
        (
            "A-21: an ath that is not a string",
            |a| a.claims["ath"] = json!(1),
            E::PayloadNotJson,
        ),
        ("no jti", |a| remove(&mut a.claims, "jti"), E::ClaimMissing),
        ("no htm", |a| remove(&mut a.claims, "htm"), E::ClaimMissing),
        ("no htu", |a| remove(&mut a.claims, "htu"), E::ClaimMissing),
        ("no iat", |a| remove(&mut a.claims, "iat"), E::ClaimMissing),
        ("no jwk", |a| remove(&mut a.header, "jwk"), E::NoKey),
        (
            "an empty jti",
            |a| a.claims["jti"] = json!(""),
            E::JtiLength,
        ),
        (
            "a jti that is too long",
            |a| a.claims["jti"] = json!("j".repeat(513)),
            E::JtiLength,
        ),
        ("A-15: no typ", |a| remove(&mut a.header, "typ"), E::Type),
        (
            "A-15: typ of an access token",
            |a| a.header["typ"] = json!("at+jwt"),
            E::Type,
        ),
        ("crit", |a| a.header["crit"] = json!(["exp"]), E::Extension),
        ("b64", |a| a.header["b64"] = json!(true), E::Extension),
        (
            "a nested JWT",
            |a| a.header["cty"] = json!("JWT"),
            E::Extension,
        ),
        (
            "A-15: no alg",
            |a| remove(&mut a.header, "alg"),
            E::Algorithm,
        ),
        (
            "A-15: alg none",
            |a| a.header["alg"] = json!("none"),
            E::Algorithm,
        ),
        (
            "A-15: the alg of a MAC",
            |a| a.header["alg"] = json!("HS256"),
            E::Algorithm,
        ),
        (
            "A-15: an alg that is not allowed",
            |a| a.header["alg"] = json!("RS256"),
            E::Algorithm,
        ),
        (
            "signed with another key",
            |a| a.key = Key::es256(),
            E::Signature,
        ),
        (
            "no signature",
            |a| {
                a.edit_proof = |proof| proof[..=proof.rfind('.').unwrap()].to_owned();
            },
            E::Signature,
        ),
        (
            "a private key",
            |a| a.header["jwk"]["d"] = json!("AA"),
            E::Key(InvalidJwk::Private),
        ),
        (
            "a key of another type",
            |a| a.header["alg"] = json!("ES384"),
            E::Key(InvalidJwk::Algorithm),
        ),
        (
            "a point without y",
            |a| remove(&mut a.header["jwk"], "y"),
            E::Key(InvalidJwk::Coordinate),
        ),
        (
            "a proof for GET",
            |a| a.claims["htm"] = json!("GET"),
            E::Method,
        ),
        ("a GET request", |a| a.method = Method::GET, E::Method),
        (
            "A-14: a proof for the other endpoint",
            |a| {
                a.claims["htu"] = json!("https://as.example.com/par");
            },
            E::Url(UrlMismatch::Path),
        ),
        (
            "A-14: a request to the other endpoint",
            |a| a.uri = "/par".into(),
            E::Url(UrlMismatch::Path),
        ),
        (
            "a proof for a resource server",
            |a| {
                a.claims["htu"] = json!("https://api.example.com/token");
            },
            E::Url(UrlMismatch::Host),
        ),
        (
            "a proof for another port",
            |a| {
                a.claims["htu"] = json!("https://as.example.com:8443/token");
            },
            E::Url(UrlMismatch::Port),
        ),
        (
            "a proof for http",
            |a| {
                a.claims["htu"] = json!("http://as.example.com/token");
            },
            E::Url(UrlMismatch::Scheme),
        ),
        (
            "an htu that is not a URL",
            |a| a.claims["htu"] = json!("/token"),
            E::Url(UrlMismatch::Malformed),
        ),
        (
            "A-15: a proof that is too old",
            |a| a.claims["iat"] = json!(NOW - 91),
            E::Iat(IatError::TooOld { by: 1 }),
        ),
        (
            "A-18: iat 61 s ahead",
            |a| {
                a.claims["iat"] = json!(NOW + 61);
            },
            E::Iat(IatError::InTheFuture { by: 31 }),
        ),
        (
            "A-18: nbf 61 s ahead",
            |a| a.claims["nbf"] = json!(NOW + 61),
            E::NotYetValid,
        ),
        (
            "an expired proof",
            |a| a.claims["exp"] = json!(NOW - 30),
            E::Expired,
        ),
    ]
}
