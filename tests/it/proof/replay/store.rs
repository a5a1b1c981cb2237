//! What makes two proofs the same proof: the key and the `jti`.

use serde_json::json;
use tower_dpop::DpopLayer;
use tower_dpop::proof::{ProofError, UrlMismatch};

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, verifier};

/// T-14, R-11.1.3: nobody can burn the identifiers of another client's key.
#[test]
fn the_same_jti_under_another_key_is_another_proof() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    let mut other = Attempt::with_key(Key::es256());
    other.proof_claims["jti"] = one.proof_claims["jti"].clone();
    one.outcome_by(&layer).assert_passed("one");
    other.outcome_by(&layer).assert_passed("T-14: the other");
    one.outcome_by(&layer)
        .assert_reason("one again", ProofError::Replayed);
}

/// T-14: stricter than the standard's "in the context of the target URI".
#[test]
fn the_same_jti_at_another_url_is_a_replay() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    one.outcome_by(&layer).assert_passed("one");
    let other = Attempt::but(|a| {
        a.proof_claims["jti"] = one.proof_claims["jti"].clone();
        a.uri = "/accounts".into();
        a.proof_claims["htu"] = json!("https://api.example.com/accounts");
    });
    other
        .outcome_by(&layer)
        .assert_reason("T-14", ProofError::Replayed);
}

/// The path is compared before anything is spent, whichever way it is spelled.
#[test]
fn another_spelling_of_the_url_is_the_same_proof() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    one.outcome_by(&layer).assert_passed("as it is");
    let other = Attempt::but(|a| {
        a.proof_claims["jti"] = one.proof_claims["jti"].clone();
        a.proof_claims["htu"] = json!("HTTPS://API.example.com:443/%6Frders?x#y");
    });
    other
        .outcome_by(&layer)
        .assert_reason("in another spelling", ProofError::Replayed);
    let elsewhere =
        Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/orders/"));
    elsewhere
        .outcome_by(&layer)
        .assert_reason("elsewhere", ProofError::Url(UrlMismatch::Path));
}
