//! The keys of issuers.

use common::{AUDIENCE, ISSUER, Key, KeyExt as _, NOW, base64url, block_on};
use p256::ecdsa::Signature;
use serde_json::{Value, json};
use tower_dpop::testing::TestIssuer;
use tower_dpop::tokens::{AccessTokenVerifier as _, PresentedToken, TokenError};
use tower_dpop::{JwtVerifier, KeySet, Timestamp};

use crate::proof::decode_base64url;

/// How many requests by a key have passed before it is asked about.
pub(super) const PASSED: [usize; 5] = [0, 1, 8, 9, 17];

/// The signature of a proof changed, its signing input kept.
pub(super) fn with_signature(proof: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (input, signature) = proof.rsplit_once('.').unwrap();
    let mut signature = decode_base64url(signature);
    change(&mut signature);
    format!("{input}.{}", base64url(signature))
}

/// One segment of a proof changed, the signature kept.
pub(super) fn with_member(proof: &str, segment: usize, name: &str, value: Value) -> String {
    let mut segments: Vec<String> = proof.split('.').map(str::to_owned).collect();
    let bytes = decode_base64url(&segments[segment]);
    let mut members: Value = serde_json::from_slice(&bytes).unwrap();
    members[name] = value;
    segments[segment] = base64url(members.to_string());
    segments.join(".")
}

type Tokens = JwtVerifier<KeySet>;

/// Nothing is remembered of a token, so each is verified.
fn verifiers(issuer: &TestIssuer) -> [(&'static str, Tokens); 2] {
    let tokens = || issuer.jwt_verifier().without_cache();
    [
        ("by default", tokens()),
        ("without", tokens().without_precomputed_keys()),
    ]
}

fn issuer(key: &Key) -> TestIssuer {
    TestIssuer::new(ISSUER, AUDIENCE)
        .with_key("issuer", key.clone())
        .with_clock(common::TestClock::at(NOW))
}

/// A good token about somebody else each time.
fn token(issuer: &TestIssuer) -> String {
    let token = issuer.token_for(common::keys::client().thumbprint());
    token.with_claim("sub", common::fresh_jti()).to_text()
}

fn outcome(tokens: &Tokens, token: &str) -> Result<(), TokenError> {
    let token = PresentedToken::new(token);
    block_on(tokens.verify(token, Timestamp::from_unix(NOW))).map(drop)
}

/// (name, how a good token is changed, whether its signature is then one)
type Row = (&'static str, fn(&str) -> String, bool);

fn rows() -> [Row; 9] {
    [
        ("nothing", str::to_owned, true),
        (
            "n - s for s, which ECDSA takes as well",
            |token| {
                with_signature(token, |signature| {
                    let (r, s) = Signature::from_slice(signature).unwrap().split_scalars();
                    *signature = Signature::from_scalars(r.to_bytes(), (-s).to_bytes())
                        .unwrap()
                        .to_vec();
                })
            },
            true,
        ),
        (
            "a bit of r",
            |token| with_signature(token, |signature| signature[0] ^= 1),
            false,
        ),
        (
            "a bit of s",
            |token| with_signature(token, |signature| signature[63] ^= 1),
            false,
        ),
        (
            "all zeros",
            |token| with_signature(token, |signature| signature.fill(0)),
            false,
        ),
        (
            "an byte more",
            |token| with_signature(token, |signature| signature.push(0)),
            false,
        ),
        (
            "no signature",
            |token| with_signature(token, Vec::clear),
            false,
        ),
        (
            "another payload under the same signature",
            |token| with_member(token, 1, "sub", json!("mallory")),
            false,
        ),
        (
            "another key's signature",
            |_| token(&issuer(&Key::es256())),
            false,
        ),
    ]
}

#[test]
fn a_key_of_an_issuer_goes_on_to_decide_as_it_did() {
    for passed in PASSED {
        for (row, change, is_good) in rows() {
            let expected = is_good.then_some(()).ok_or(TokenError::Signature);
            // A key of its own, so that nothing was verified by it but what is counted.
            let issuer = issuer(&Key::es256());
            for (name, tokens) in verifiers(&issuer) {
                let name = format!("{name}, {row}, after {passed} tokens");
                for _ in 0..passed {
                    assert_eq!(outcome(&tokens, &token(&issuer)), Ok(()), "{name}");
                }
                let changed = change(&token(&issuer));
                assert_eq!(outcome(&tokens, &changed), expected.clone(), "{name}");
                assert_eq!(outcome(&tokens, &token(&issuer)), Ok(()), "{name}");
            }
        }
    }
}

/// A token without `kid` is tried with all of them, some with a table and some without.
#[test]
fn keys_of_a_set_do_not_stand_in_for_each_other() {
    let keys = [Key::es256(), Key::es256(), Key::es384()];
    let mut published = issuer(&keys[0]);
    for (i, key) in keys.iter().enumerate().skip(1) {
        published = published.add_key(format!("another-{i}"), key.clone());
    }
    for (name, tokens) in verifiers(&published) {
        for round in 0..40 {
            let signing = match round {
                0..20 => 0,
                20..30 => 1,
                _ => round % 3,
            };
            let mut good = issuer(&keys[signing]).token_for(common::keys::client().thumbprint());
            good.header.as_object_mut().unwrap().remove("kid");
            let good = good.to_text();
            let name = format!("{name}, round {round}");
            assert_eq!(outcome(&tokens, &good), Ok(()), "{name}");
            let spoiled = with_signature(&good, |signature| signature[40] ^= 1);
            let rejected = Err(TokenError::Signature);
            assert_eq!(outcome(&tokens, &spoiled), rejected, "{name}");
        }
    }
}
