//! The checks of RFC 9449 section 4.3 on the header, the claims and the signature of a proof.

use p256::ecdsa::Signature;
use serde_json::{Value, json};
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::ProofError;
use tower_dpop::{Algorithm, Algorithms, DpopLayer, NonceSecret, Rejection, StatelessNonces};

use super::{Change, assert_outcome, base64url_bytes, from_hex, remove, segments};
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, base64url, verifier_by};

type Resign = fn(Vec<u8>) -> Vec<u8>;

#[test]
fn typ_is_dpop_jwt_to_the_letter() {
    let wrong = Some(ProofError::Type);
    let not_json = Some(ProofError::HeaderNotJson);
    for (name, typ, expected) in [
        ("J-1 R-4.3.4: dpop+jwt", json!("dpop+jwt"), None),
        ("J-1: in mixed case", json!("DPoP+JWT"), wrong),
        ("J-1: in upper case", json!("DPOP+JWT"), wrong),
        (
            "J-1: the whole media type",
            json!("application/dpop+jwt"),
            wrong,
        ),
        ("J-1: JWT", json!("JWT"), wrong),
        ("J-1: jwt", json!("jwt"), wrong),
        ("J-1: of an access token", json!("at+jwt"), wrong),
        ("J-1: longer", json!("dpop+jwt+wrongyousee"), wrong),
        ("J-1: shorter", json!("dpop"), wrong),
        ("J-1: with a space", json!("dpop+jwt "), wrong),
        ("J-1: with a parameter", json!("dpop+jwt;v=1"), wrong),
        ("J-1: empty", json!(""), wrong),
        ("J-1: null", json!(null), not_json),
        ("J-1: an array", json!(["dpop+jwt"]), not_json),
    ] {
        let outcome = Attempt::but(|a| a.proof_header["typ"] = typ).outcome();
        assert_outcome(name, &outcome, expected);
    }
    Attempt::but(|a| remove(&mut a.proof_header, "typ"))
        .outcome()
        .assert_reason("J-1 R-4.2.1 R-11.5.1: absent", ProofError::Type);
}

#[test]
fn alg_is_looked_up_in_an_allow_list() {
    let wrong = Some(ProofError::Algorithm);
    let not_json = Some(ProofError::HeaderNotJson);
    for (name, alg, expected) in [
        ("J-2 R-4.3.5: ES256", json!("ES256"), None),
        ("J-2 R-11.6.1: none", json!("none"), wrong),
        ("J-2: None", json!("None"), wrong),
        ("J-2: nOnE", json!("nOnE"), wrong),
        ("J-2: NONE", json!("NONE"), wrong),
        ("J-2 R-4.2.2: HS256", json!("HS256"), wrong),
        ("J-2: HS384", json!("HS384"), wrong),
        ("J-2: HS512", json!("HS512"), wrong),
        ("J-2: in lower case", json!("es256"), wrong),
        ("J-2: in mixed case", json!("Es256"), wrong),
        ("J-2: with a space", json!("ES256 "), wrong),
        ("J-2: a list", json!("ES256 ES384"), wrong),
        ("J-2: empty", json!(""), wrong),
        ("J-2: an encryption", json!("ECDH-ES"), wrong),
        ("J-2 J-5: ES256K", json!("ES256K"), wrong),
        ("J-2 J-5: Ed448", json!("Ed448"), wrong),
        ("J-2: not on the list", json!("ES512"), wrong),
        ("J-2: null", json!(null), not_json),
        ("J-2: a number", json!(-7), not_json),
        ("J-2: an array", json!(["ES256"]), not_json),
        ("J-2: an object", json!({ "name": "ES256" }), not_json),
    ] {
        let outcome = Attempt::but(|a| a.proof_header["alg"] = alg).outcome();
        assert_outcome(name, &outcome, expected);
    }
    Attempt::but(|a| remove(&mut a.proof_header, "alg"))
        .outcome()
        .assert_reason("J-2: absent", ProofError::Algorithm);
    Attempt::but(|a| {
        a.proof_header["alg"] = json!("none");
        a.edit_proof = |proof| proof[..=proof.rfind('.').unwrap()].into();
    })
    .outcome()
    .assert_reason("J-2: none, and no signature", ProofError::Algorithm);
}

/// Whether an algorithm is on the list decides, not whether it could be verified.
#[test]
fn rs256_is_accepted_only_where_it_was_asked_for() {
    let rs256 = || Attempt::with_key(Key::rsa("RS256"));
    rs256()
        .outcome()
        .assert_reason("J-7: by default", ProofError::Algorithm);
    let opted_in = Algorithms::default().add(Algorithm::Rs256);
    rs256()
        .outcome_by(&DpopLayer::new(verifier_by(|rules| {
            rules.with_algorithms(opted_in)
        })))
        .assert_passed("J-7: opted in");
    Attempt::good()
        .outcome_by(&DpopLayer::new(verifier_by(|rules| {
            rules.with_algorithms(Algorithms::only(Algorithm::Rs256))
        })))
        .assert_reason("J-7: ES256 opted out", ProofError::Algorithm);
}

/// Its owner must hear of it, so nothing else about the header comes first.
#[test]
fn a_private_key_is_told_before_all_else() {
    let rows: &[(&str, Change)] = &[
        ("J-3: and a wrong typ", |a| {
            a.proof_header["typ"] = json!("JWT");
        }),
        ("J-3: and no typ", |a| remove(&mut a.proof_header, "typ")),
        ("J-3: and crit", |a| a.proof_header["crit"] = json!(["x"])),
        ("J-3: and enc", |a| a.proof_header["enc"] = json!("A256GCM")),
        ("J-3: and a nested token", |a| {
            a.proof_header["cty"] = json!("JWT");
        }),
    ];
    for (name, change) in rows {
        Attempt::but(|a| {
            a.proof_header["jwk"]["d"] = json!("AA");
            change(a);
        })
        .outcome()
        .assert_reason(name, ProofError::Key(InvalidJwk::Private));
    }
}

/// The order of P-256's group.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// One row each; every form of every signature stands in the tests of the engines.
#[test]
fn the_signature_is_one_by_the_key_in_the_header() {
    let rows: &[(&str, Resign, Option<ProofError>)] = &[
        ("R-4.3.6: as signed", |signature| signature, None),
        (
            "R-4.3.6: a bit changed",
            |mut signature| {
                signature[40] ^= 1;
                signature
            },
            Some(ProofError::Signature),
        ),
        (
            "J-16: DER",
            |signature| {
                Signature::from_slice(&signature)
                    .unwrap()
                    .to_der()
                    .as_bytes()
                    .to_vec()
            },
            Some(ProofError::Signature),
        ),
        (
            "J-16: one byte less",
            |signature| signature[..63].to_vec(),
            Some(ProofError::Signature),
        ),
        (
            "J-16: one byte more",
            |signature| [signature.as_slice(), &[0]].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-16: s before r",
            |signature| [&signature[32..], &signature[..32]].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-17: nothing but zeros",
            |_| vec![0; 64],
            Some(ProofError::Signature),
        ),
        (
            "J-17: r is 0",
            |signature| [&[0; 32], &signature[32..]].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-17: s is 0",
            |signature| [&signature[..32], &[0; 32]].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-17: s is the order",
            |signature| [&signature[..32], &from_hex(P256_ORDER)].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-18: the lower s",
            |signature| with_s(&signature, Half::Lower),
            None,
        ),
        (
            "J-18: the higher s",
            |signature| with_s(&signature, Half::Higher),
            None,
        ),
    ];
    for (name, edit, expected) in rows {
        let outcome = Attempt::but(|a| {
            let token = a.token();
            let proof = a.proof(&token);
            let (signing_input, signature) = proof.rsplit_once('.').unwrap();
            let signature = base64url(edit(base64url_bytes(signature)));
            let proof = format!("{signing_input}.{signature}");
            a.dpop = Some(vec![proof.parse().unwrap()]);
            a.token = Some(token);
        })
        .outcome();
        assert_outcome(name, &outcome, *expected);
    }
    Attempt::but(|a| a.key = Key::es256())
        .outcome()
        .assert_reason("R-4.3.6: by another key", ProofError::Signature);
    Attempt::but(|a| {
        let token = a.token();
        let another = a.proof(&token);
        a.proof_claims["jti"] = json!(common::fresh_jti());
        let ([header, payload, _], [_, _, signature]) = (
            segments(&a.proof(&token)).map(str::to_owned),
            segments(&another),
        );
        a.dpop = Some(vec![
            format!("{header}.{payload}.{signature}").parse().unwrap(),
        ]);
        a.token = Some(token);
    })
    .outcome()
    .assert_reason("R-4.3.6: of another proof", ProofError::Signature);
}

#[derive(Clone, Copy)]
enum Half {
    Higher,
    Lower,
}

/// Of the two signatures with the same r, the one whose s is in that half.
fn with_s(signature: &[u8], half: Half) -> Vec<u8> {
    let signature = Signature::from_slice(signature).unwrap();
    let lower = signature.normalize_s();
    let (r, s) = lower.split_scalars();
    let chosen = match half {
        Half::Lower => lower,
        Half::Higher => Signature::from_scalars(r, -s).unwrap(),
    };
    chosen.to_bytes().to_vec()
}

/// T-13, R-11.1.4
#[test]
fn a_jti_has_1_to_512_bytes() {
    for (name, jti, passes) in [
        ("T-13: empty", String::new(), false),
        ("T-13: one byte", "x".into(), true),
        ("T-13: 512 bytes", "x".repeat(512), true),
        ("T-13: 513 bytes", "x".repeat(513), false),
        ("T-13: 512 bytes in 256 characters", "ä".repeat(256), true),
        ("T-13: 514 bytes in 257 characters", "ä".repeat(257), false),
    ] {
        let outcome = Attempt::but(|a| a.proof_claims["jti"] = json!(jti)).outcome();
        let rejected = (!passes).then_some(Rejection::Proof(ProofError::JtiLength));
        assert_eq!(outcome.rejection, rejected, "{name}");
    }
    for jti in [json!(null), json!(1), json!(["x"]), json!({}), json!(true)] {
        let outcome = Attempt::but(|a| a.proof_claims["jti"] = jti.clone()).outcome();
        outcome.assert_reason(&jti.to_string(), ProofError::PayloadNotJson);
    }
}

#[test]
fn htu_must_be_a_string() {
    for (name, htu) in [
        ("H-23: null", Value::Null),
        ("H-23: true", json!(true)),
        ("H-23: a number", json!(443)),
        ("H-23: an array", json!(["https://api.example.com/orders"])),
        (
            "H-23: an object",
            json!({ "url": "https://api.example.com/orders" }),
        ),
    ] {
        Attempt::but(|a| a.proof_claims["htu"] = htu)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
}

#[test]
fn a_nonce_that_is_not_a_string_is_a_bad_proof() {
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_nonces(StatelessNonces::new(NonceSecret::generate()))
    }));
    for nonce in [
        json!(null),
        json!(1),
        json!(true),
        json!(["n"]),
        json!({ "n": 1 }),
    ] {
        let answer = Attempt::but(|a| a.proof_claims["nonce"] = nonce.clone()).outcome_by(&layer);
        answer.assert_reason(&nonce.to_string(), ProofError::PayloadNotJson);
    }
}

/// T-11: `exp` and `nbf` are not the standard's, but who sends them means them.
#[test]
fn exp_and_nbf_are_honoured_where_they_are_present() {
    let rows: Vec<(&str, Value, Option<ProofError>)> = vec![
        (
            "T-11: as the OpenID suite sends them",
            json!({ "nbf": NOW, "exp": NOW + 300 }),
            None,
        ),
        (
            "T-11: expired within the leeway",
            json!({ "exp": NOW - 29 }),
            None,
        ),
        (
            "T-11: expired",
            json!({ "exp": NOW - 30 }),
            Some(ProofError::Expired),
        ),
        (
            "T-11: long expired",
            json!({ "exp": 0 }),
            Some(ProofError::Expired),
        ),
        (
            "T-11: not yet, within the leeway",
            json!({ "nbf": NOW + 30 }),
            None,
        ),
        (
            "T-11: not yet",
            json!({ "nbf": NOW + 31 }),
            Some(ProofError::NotYetValid),
        ),
        (
            "T-11: exp of another type",
            json!({ "exp": "soon" }),
            Some(ProofError::PayloadNotJson),
        ),
        (
            "T-11: nbf of another type",
            json!({ "nbf": null }),
            Some(ProofError::PayloadNotJson),
        ),
    ];
    for (name, claims, rejected) in rows {
        let outcome = Attempt::but(|a| {
            a.proof_claims
                .as_object_mut()
                .unwrap()
                .extend(claims.as_object().unwrap().clone());
        })
        .outcome();
        assert_eq!(outcome.rejection, rejected.map(Rejection::Proof), "{name}");
    }
}
