//! The key of an issuer gets a table after eight tokens. That does not change which tokens are valid.

use common::{AUDIENCE, ISSUER, Key, KeyExt as _, NOW, base64url, block_on};
use p256::ecdsa::Signature;
use serde_json::{Value, json};
use tower_dpop::testing::TestIssuer;
use tower_dpop::tokens::{AccessTokenVerifier as _, PresentedToken, TokenError};
use tower_dpop::{JwtVerifier, KeySet, Timestamp};

use crate::proof::decode_base64url;

/// How many valid signatures by a key were verified before the case: from none to enough for a table.
pub(super) const EARLIER_USES: [usize; 5] = [0, 1, 8, 9, 17];

/// Changes the signature of a JWS, and keeps its signing input.
pub(super) fn with_signature(jws: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (input, signature) = jws.rsplit_once('.').unwrap();
    let mut signature = decode_base64url(signature);
    change(&mut signature);
    format!("{input}.{}", base64url(signature))
}

/// Changes one member in a segment of a JWS, and keeps the signature.
pub(super) fn with_member(jws: &str, segment: usize, name: &str, value: Value) -> String {
    let mut segments: Vec<String> = jws.split('.').map(str::to_owned).collect();
    let bytes = decode_base64url(&segments[segment]);
    let mut members: Value = serde_json::from_slice(&bytes).unwrap();
    members[name] = value;
    segments[segment] = base64url(members.to_string());
    segments.join(".")
}

/// Without a token cache, so that each token is verified.
fn verifiers(issuer: &TestIssuer) -> [(&'static str, JwtVerifier<KeySet>); 2] {
    let verifier = || issuer.jwt_verifier().without_cache();
    [
        ("by default", verifier()),
        ("without tables", verifier().without_precomputed_keys()),
    ]
}

fn issuer(key: &Key) -> TestIssuer {
    TestIssuer::new(ISSUER, AUDIENCE)
        .with_key("issuer", key.clone())
        .with_clock(common::TestClock::at(NOW))
}

/// A valid token, for another subject each time.
fn token(issuer: &TestIssuer) -> String {
    let token = issuer.token_for(common::keys::client().thumbprint());
    token.with_claim("sub", common::fresh_jti()).to_text()
}

fn result(verifier: &JwtVerifier<KeySet>, token: &str) -> Result<(), TokenError> {
    let token = PresentedToken::new(token);
    block_on(verifier.verify(token, Timestamp::from_unix(NOW))).map(drop)
}

/// (name, the change to a valid token, whether the signature is still valid)
type Row = (&'static str, fn(&str) -> String, bool);

fn rows() -> [Row; 9] {
    [
        ("no change", str::to_owned, true),
        (
            "n - s instead of s, which is valid in ECDSA",
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
            "a changed bit of r",
            |token| with_signature(token, |signature| signature[0] ^= 1),
            false,
        ),
        (
            "a changed bit of s",
            |token| with_signature(token, |signature| signature[63] ^= 1),
            false,
        ),
        (
            "all zeros",
            |token| with_signature(token, |signature| signature.fill(0)),
            false,
        ),
        (
            "one byte more",
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
            "the token of another key",
            |_| token(&issuer(&Key::es256())),
            false,
        ),
    ]
}

#[test]
fn a_table_does_not_change_which_tokens_of_an_issuer_are_valid() {
    for uses in EARLIER_USES {
        for (row, change, is_valid) in rows() {
            let expected = is_valid.then_some(()).ok_or(TokenError::Signature);
            // Each row has its own key, so that only these tokens use it.
            let issuer = issuer(&Key::es256());
            for (name, verifier) in verifiers(&issuer) {
                let name = format!("{name}, {row}, after {uses} tokens");
                for _ in 0..uses {
                    assert_eq!(result(&verifier, &token(&issuer)), Ok(()), "{name}");
                }
                let changed = change(&token(&issuer));
                assert_eq!(result(&verifier, &changed), expected.clone(), "{name}");
                assert_eq!(result(&verifier, &token(&issuer)), Ok(()), "{name}");
            }
        }
    }
}

/// Without `kid`, every key of the set is tried. Some of them have a table.
#[test]
fn a_table_does_not_change_which_key_of_a_set_verifies_a_token() {
    let keys = [Key::es256(), Key::es256(), Key::es384()];
    let mut published = issuer(&keys[0]);
    for (i, key) in keys.iter().enumerate().skip(1) {
        published = published.add_key(format!("another-{i}"), key.clone());
    }
    for (name, verifier) in verifiers(&published) {
        for round in 0..40 {
            let signing = match round {
                0..20 => 0,
                20..30 => 1,
                _ => round % 3,
            };
            let mut valid = issuer(&keys[signing]).token_for(common::keys::client().thumbprint());
            valid.header.as_object_mut().unwrap().remove("kid");
            let valid = valid.to_text();
            let name = format!("{name}, round {round}");
            assert_eq!(result(&verifier, &valid), Ok(()), "{name}");
            let changed = with_signature(&valid, |signature| signature[40] ^= 1);
            let rejected = Err(TokenError::Signature);
            assert_eq!(result(&verifier, &changed), rejected, "{name}");
        }
    }
}
