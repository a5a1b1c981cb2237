//! A proof is identified by its key and its `jti`.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tower_dpop::proof::{ProofError, ReplayKey, UrlMismatch};
use tower_dpop::{DpopLayer, Thumbprint};

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, verifier};

/// T-14, R-11.1.3: no client can use up the identifiers of another client.
#[test]
fn the_same_jti_under_another_key_is_another_proof() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    let mut other = Attempt::with_key(Key::es256());
    other.proof_claims["jti"] = one.proof_claims["jti"].clone();
    one.outcome_by(&layer).assert_passed("the first client");
    other
        .outcome_by(&layer)
        .assert_passed("T-14: the other client");
    one.outcome_by(&layer)
        .assert_reason("a replay by the first client", ProofError::Replayed);
}

/// T-14: stricter than RFC 9449 section 11.1, which compares identifiers "in the context of the target URI".
#[test]
fn the_same_jti_at_another_url_is_a_replay() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    one.outcome_by(&layer).assert_passed("the first URL");
    let other = Attempt::but(|a| {
        a.proof_claims["jti"] = one.proof_claims["jti"].clone();
        a.uri = "/accounts".into();
        a.proof_claims["htu"] = json!("https://api.example.com/accounts");
    });
    other
        .outcome_by(&layer)
        .assert_reason("T-14", ProofError::Replayed);
}

/// A store can count the records of each client, and keep half of the hash.
#[test]
fn a_key_names_the_client_apart_from_the_proof() {
    let thumbprint = |key: Key| -> Thumbprint { key.jkt().parse().unwrap() };
    let (one, other) = (thumbprint(Key::es256()), thumbprint(Key::es256()));
    let key = ReplayKey::new(one, "a");
    for (name, again, same_proof, same_client) in [
        ("the same proof", ReplayKey::new(one, "a"), true, true),
        ("another proof", ReplayKey::new(one, "b"), false, true),
        ("another client", ReplayKey::new(other, "a"), false, false),
    ] {
        assert_eq!(key == again, same_proof, "{name}");
        assert_eq!(key.as_bytes() == again.as_bytes(), same_proof, "{name}");
        assert_eq!(key.half() == again.half(), same_proof, "{name}");
        assert_eq!(key.client() == again.client(), same_client, "{name}");
    }
    let hash = Sha256::new()
        .chain_update(one.as_bytes())
        .chain_update("a")
        .finalize();
    assert_eq!(key.as_bytes()[..], hash[..]);
    assert_eq!(key.half()[..], hash[..16]);
    assert_eq!(ReplayKey::from_parts(*key.as_bytes(), key.client()), key);
}

/// The spelling of `htu` is not part of the identity.
#[test]
fn another_spelling_of_the_url_is_the_same_proof() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    one.outcome_by(&layer).assert_passed("the first spelling");
    let other = Attempt::but(|a| {
        a.proof_claims["jti"] = one.proof_claims["jti"].clone();
        a.proof_claims["htu"] = json!("HTTPS://API.example.com:443/%6Frders?x#y");
    });
    other
        .outcome_by(&layer)
        .assert_reason("another spelling", ProofError::Replayed);
    let other_path =
        Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/orders/"));
    other_path
        .outcome_by(&layer)
        .assert_reason("another path", ProofError::Url(UrlMismatch::Path));
}
