//! The key of a proof, and the tokens, codes and refresh tokens that are bound to it.

use serde_json::json;
use tower_dpop::token_endpoint::{
    Cnf, DpopJktError, GrantBindingError, TOKEN_TYPE, authorization_request_key,
    check_code_binding, check_refresh_binding,
};

use common::token_endpoint::{Outcome, endpoint};
use common::{Key, KeyExt as _, keys};

use super::{jkt, proven};

/// A-2, A-3, A-9: `cnf`, in a JWT and at the top level of an introspection response.
#[test]
fn cnf_and_token_type_are_serialized_as_registered() {
    let key = keys::client();
    let cnf = proven(&key).cnf();
    let expected = format!(r#"{{"jkt":"{}"}}"#, key.jkt());
    assert_eq!(serde_json::to_string(&cnf).unwrap(), expected, "A-3");
    assert_eq!(cnf, Cnf::from(jkt(&key)));
    assert_eq!(cnf.jkt, jkt(&key));
    assert_eq!(TOKEN_TYPE, "DPoP", "A-2");
    let introspection = json!({ "active": true, "cnf": cnf, "token_type": TOKEN_TYPE });
    assert_eq!(
        introspection.to_string(),
        format!(r#"{{"active":true,"cnf":{expected},"token_type":"DPoP"}}"#),
        "A-9"
    );
}

/// A-13, A-18: no other key can redeem the code of an authorization request with `dpop_jkt`.
#[test]
fn a_bound_code_requires_a_proof_by_its_key() {
    let (key, other) = (keys::client(), Key::es256());
    let proven = proven(&key);
    let (jkt_of_key, jkt_of_other) = (Some(jkt(&key)), Some(jkt(&other)));
    let of_other_key = GrantBindingError::CodeOfOtherKey;
    let rows = [
        ("A-13: an unbound code", Some(&proven), None, Ok(())),
        (
            "A-13: a proof by its key",
            Some(&proven),
            jkt_of_key,
            Ok(()),
        ),
        (
            "A-13: a proof by another key",
            Some(&proven),
            jkt_of_other,
            Err(of_other_key),
        ),
        (
            "A-13: no proof",
            None,
            jkt_of_key,
            Err(GrantBindingError::NoProof),
        ),
        ("A-6: not bound, and no proof", None, None, Ok(())),
    ];
    for (name, proof, bound_to, expected) in rows {
        assert_eq!(check_code_binding(proof, bound_to), expected, "{name}");
    }
    for (error, code) in [
        (of_other_key, "invalid_grant"),
        (GrantBindingError::NoProof, "invalid_dpop_proof"),
    ] {
        Outcome::of_rejection(&endpoint(), error.into()).assert_rejected("A-13", error, Some(code));
    }
}

/// Texts that are almost a thumbprint.
fn malformed_thumbprints(jkt: &str) -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("padded", format!("{jkt}=")),
        ("with a space", format!("{jkt} ")),
        ("a prefix", jkt[..42].to_owned()),
        ("in another alphabet", "+".repeat(43)),
        ("long", "A".repeat(10_000)),
        ("not ASCII", "ä".repeat(43)),
    ]
}

/// A-14: by the proof, by `dpop_jkt`, or by both.
#[test]
fn a_pushed_request_binds_its_code_by_proof_or_parameter() {
    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let (jkt_of_key, jkt_of_other) = (key.jkt(), other.jkt());
    let contradictory = Err(DpopJktError::Contradictory);
    let rows = [
        ("neither", None, None, Ok(None)),
        ("a proof", Some(&proof), None, Ok(Some(jkt(&key)))),
        ("dpop_jkt", None, Some(&jkt_of_other), Ok(Some(jkt(&other)))),
        ("both", Some(&proof), Some(&jkt_of_key), Ok(Some(jkt(&key)))),
        (
            "both, with different keys",
            Some(&proof),
            Some(&jkt_of_other),
            contradictory,
        ),
    ];
    for (name, proof, dpop_jkt, expected) in rows {
        let bound = authorization_request_key(proof, dpop_jkt.map(String::as_str));
        assert_eq!(bound, expected, "A-14: {name}");
    }
    for (name, malformed) in malformed_thumbprints(&jkt_of_key) {
        for proof in [None, Some(&proof)] {
            let rejected = authorization_request_key(proof, Some(&malformed)).unwrap_err();
            Outcome::of_rejection(&endpoint(), rejected.into()).assert_rejected(
                &format!("A-14: {name}"),
                DpopJktError::Malformed,
                Some("invalid_request"),
            );
        }
    }
    Outcome::of_rejection(&endpoint(), DpopJktError::Contradictory.into()).assert_rejected(
        "A-14",
        DpopJktError::Contradictory,
        Some("invalid_request"),
    );
}

/// A-4, A-5, A-20: the refresh token of a public client is bound to its key; that of a confidential
/// client is not bound to a key.
#[test]
fn a_bound_refresh_token_requires_a_proof_by_its_key() {
    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let other_key = GrantBindingError::RefreshTokenOfOtherKey;
    let missing = GrantBindingError::NoProof;
    let rows = [
        (
            "A-4: a proof by its key",
            Some(&proof),
            Some(jkt(&key)),
            Ok(()),
        ),
        (
            "A-4: a proof by another key",
            Some(&proof),
            Some(jkt(&other)),
            Err(other_key),
        ),
        ("A-4: no proof", None, Some(jkt(&key)), Err(missing)),
        ("A-5: an unbound token", Some(&proof), None, Ok(())),
        ("A-6: not bound, and no proof", None, None, Ok(())),
    ];
    for (name, proof, bound_to, expected) in rows {
        assert_eq!(check_refresh_binding(proof, bound_to), expected, "{name}");
    }
    Outcome::of_rejection(&endpoint(), other_key.into()).assert_rejected(
        "A-4",
        other_key,
        Some("invalid_grant"),
    );
}
