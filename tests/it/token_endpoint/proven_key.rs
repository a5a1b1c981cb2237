//! What is bound to the key: codes, refresh tokens, tokens (`src/token_endpoint/proven_key.rs`).

use super::*;

/// A-13, A-18: the code of an authorization request with `dpop_jkt` goes to its key only.
#[test]
fn a_code_is_redeemed_by_the_key_it_is_bound_to() {
    let (key, other) = (keys::client(), Key::es256());
    let proven = proven(&key);
    let (ours, others) = (Some(jkt(&key)), Some(jkt(&other)));
    let of_other_key = GrantBindingError::CodeOfOtherKey;
    let rows = [
        ("A-13: not bound", Some(&proven), None, Ok(())),
        ("A-13: its key", Some(&proven), ours, Ok(())),
        ("A-13: another", Some(&proven), others, Err(of_other_key)),
        (
            "A-13: no proof",
            None,
            ours,
            Err(GrantBindingError::NoProof),
        ),
        ("A-6: not bound, no proof", None, None, Ok(())),
    ];
    for (name, proof, bound_to, expected) in rows {
        assert_eq!(check_code_binding(proof, bound_to), expected, "{name}");
    }
    for (error, code) in [
        (of_other_key, "invalid_grant"),
        (GrantBindingError::NoProof, "invalid_dpop_proof"),
    ] {
        Outcome::rejection(&endpoint(), error.into()).assert_rejected("A-13", error, Some(code));
    }
}

/// Texts that are nearly a thumbprint.
fn not_the_thumbprint(jkt: &str) -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("padded", format!("{jkt}=")),
        ("with a space", format!("{jkt} ")),
        ("a prefix", jkt[..42].to_owned()),
        ("in another case", jkt.to_lowercase()),
        ("in another alphabet", "+".repeat(43)),
        ("long", "A".repeat(10_000)),
        ("not ASCII", "ä".repeat(43)),
    ]
}

/// A-14: the proof, the parameter, or both.
#[test]
fn a_pushed_request_binds_its_code_by_proof_or_parameter() {
    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let (ours, others) = (key.jkt(), other.jkt());
    let contradictory = Err(DpopJktError::Contradictory);
    let rows = [
        ("neither", None, None, Ok(None)),
        ("the proof", Some(&proof), None, Ok(Some(jkt(&key)))),
        ("the parameter", None, Some(&others), Ok(Some(jkt(&other)))),
        ("both", Some(&proof), Some(&ours), Ok(Some(jkt(&key)))),
        (
            "both, of two keys",
            Some(&proof),
            Some(&others),
            contradictory,
        ),
    ];
    for (name, proof, dpop_jkt, expected) in rows {
        let bound = authorization_request_key(proof, dpop_jkt.map(String::as_str));
        assert_eq!(bound, expected, "A-14: {name}");
    }
    for (name, malformed) in not_the_thumbprint(&ours) {
        if name == "in another case" {
            continue; // which is a thumbprint, or not, as it happens
        }
        for proof in [None, Some(&proof)] {
            let rejected = authorization_request_key(proof, Some(&malformed)).unwrap_err();
            Outcome::rejection(&endpoint(), rejected.into()).assert_rejected(
                &format!("A-14: {name}"),
                DpopJktError::Malformed,
                Some("invalid_request"),
            );
        }
    }
    Outcome::rejection(&endpoint(), DpopJktError::Contradictory.into()).assert_rejected(
        "A-14",
        DpopJktError::Contradictory,
        Some("invalid_request"),
    );
}

/// A-4, A-5, A-20: the refresh token of a public client goes with its key; that of a confidential client
/// is bound to none.
#[test]
fn a_refresh_token_is_used_by_the_key_it_is_bound_to() {
    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let other_key = GrantBindingError::RefreshTokenOfOtherKey;
    let missing = GrantBindingError::NoProof;
    let rows = [
        ("A-4: its key", Some(&proof), Some(jkt(&key)), Ok(())),
        (
            "A-4: another",
            Some(&proof),
            Some(jkt(&other)),
            Err(other_key),
        ),
        ("A-4: no proof", None, Some(jkt(&key)), Err(missing)),
        ("A-5: not bound", Some(&proof), None, Ok(())),
        ("A-6: not bound, no proof", None, None, Ok(())),
    ];
    for (name, proof, bound_to, expected) in rows {
        assert_eq!(check_refresh_binding(proof, bound_to), expected, "{name}");
    }
    Outcome::rejection(&endpoint(), other_key.into()).assert_rejected(
        "A-4",
        other_key,
        Some("invalid_grant"),
    );
}

/// A-2, A-3, A-9: `cnf`, in a JWT and at the top level of an introspection response.
#[test]
fn cnf_and_token_type_are_written_as_registered() {
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
