//! The checks of RFC 9449 section 4.3 on the header, the claims and the signature of a proof.

use p256::ecdsa::Signature;
use serde_json::{Value, json};
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::{Algorithm, Algorithms, DpopLayer, NonceSecret, Rejection, StatelessNonces};

use super::{Change, assert_outcome, decode_base64url, from_hex, segments};
use common::remove;
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, base64url, verifier_by};

type EditSignature = fn(Vec<u8>) -> Vec<u8>;

#[test]
fn typ_must_be_exactly_dpop_jwt() {
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
        ("J-1: the typ of an access token", json!("at+jwt"), wrong),
        ("J-1: with a suffix", json!("dpop+jwt+wrongyousee"), wrong),
        ("J-1: only the start", json!("dpop"), wrong),
        ("J-1: with a trailing space", json!("dpop+jwt "), wrong),
        ("J-1: with a parameter", json!("dpop+jwt;v=1"), wrong),
        ("J-1: empty", json!(""), wrong),
        ("J-1: null", json!(null), wrong),
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
fn alg_must_be_on_the_allow_list() {
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
        ("J-2: with a trailing space", json!("ES256 "), wrong),
        ("J-2: two algorithms", json!("ES256 ES384"), wrong),
        ("J-2: empty", json!(""), wrong),
        ("J-2: an encryption algorithm", json!("ECDH-ES"), wrong),
        ("J-2 J-5: ES256K", json!("ES256K"), wrong),
        ("J-2 J-5: Ed448", json!("Ed448"), wrong),
        ("J-2: supported, but not on the list", json!("ES512"), wrong),
        ("J-2: null", json!(null), wrong),
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
    .assert_reason("J-2: none, without a signature", ProofError::Algorithm);
}

/// Only the allow-list decides, although RS256 can be verified.
#[test]
fn rs256_is_accepted_only_if_it_was_added() {
    let rs256 = || Attempt::with_key(Key::rsa("RS256"));
    rs256()
        .outcome()
        .assert_reason("J-7: by default", ProofError::Algorithm);
    let with_rs256 = Algorithms::default().add(Algorithm::Rs256);
    rs256()
        .outcome_by(&DpopLayer::new(verifier_by(|rules| {
            rules.with_algorithms(with_rs256)
        })))
        .assert_passed("J-7: added to the list");
    Attempt::good()
        .outcome_by(&DpopLayer::new(verifier_by(|rules| {
            rules.with_algorithms(Algorithms::only(Algorithm::Rs256))
        })))
        .assert_reason("J-7: ES256 is not on the list", ProofError::Algorithm);
}

/// The key's owner must learn of the leak, so this is reported before any other error in the header.
#[test]
fn a_private_key_is_reported_before_other_errors() {
    let rows: &[(&str, Change)] = &[
        ("J-3: with a wrong typ", |a| {
            a.proof_header["typ"] = json!("JWT");
        }),
        ("J-3: without typ", |a| remove(&mut a.proof_header, "typ")),
        ("J-3: with crit", |a| a.proof_header["crit"] = json!(["x"])),
        ("J-3: with enc", |a| {
            a.proof_header["enc"] = json!("A256GCM");
        }),
        ("J-3: with a nested token", |a| {
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

/// The order of the P-256 group.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// One row per kind of error. The tests of `jose/engine.rs` cover every form for every algorithm.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_signature_must_be_by_the_key_in_the_header() {
    let rows: &[(&str, EditSignature, Option<ProofError>)] = &[
        ("R-4.3.6: unchanged", |signature| signature, None),
        (
            "R-4.3.6: one bit changed",
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
            "J-16: one byte too short",
            |signature| signature[..63].to_vec(),
            Some(ProofError::Signature),
        ),
        (
            "J-16: one byte too long",
            |signature| [signature.as_slice(), &[0]].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-16: s before r",
            |signature| [&signature[32..], &signature[..32]].concat(),
            Some(ProofError::Signature),
        ),
        (
            "J-17: only zeros",
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
            "J-17: s is the order of the group",
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
            let signature = base64url(edit(decode_base64url(signature)));
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
    .assert_reason(
        "R-4.3.6: the signature of another proof",
        ProofError::Signature,
    );
}

#[derive(Clone, Copy)]
enum Half {
    Higher,
    Lower,
}

/// (r, s) and (r, -s) are both valid signatures: returns the one with the lower or the higher s.
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
    Attempt::but(|a| a.proof_claims["jti"] = json!(null))
        .outcome()
        .assert_reason("null", ProofError::ClaimMissing);
    for jti in [json!(1), json!(["x"]), json!({}), json!(true)] {
        let outcome = Attempt::but(|a| a.proof_claims["jti"] = jti.clone()).outcome();
        outcome.assert_reason(&jti.to_string(), ProofError::PayloadNotJson);
    }
}

/// A longer proof is not decoded.
#[test]
fn a_proof_has_at_most_8_kib() {
    for (name, length, expected) in [
        ("8 KiB", 8192, None),
        ("one byte more", 8193, Some(ProofError::TooLong)),
    ] {
        assert_outcome(name, &attempt_with_length(length).outcome(), expected);
    }
}

/// Makes the proof longer by members that have no meaning.
fn attempt_with_length(length: usize) -> Attempt {
    let padded = |header: usize, claims: usize| {
        Attempt::but(|a| {
            a.proof_header["pad"] = json!("x".repeat(header));
            a.proof_claims["pad"] = json!("x".repeat(claims));
            a.proof_claims["jti"] = json!("jti");
        })
    };
    let length_of = |attempt: &Attempt| attempt.proof(&attempt.token()).len();
    // Not every length exists in base64url, so both parts vary.
    let claims = (length - length_of(&padded(0, 0))) * 3 / 4;
    (0..4)
        .flat_map(|header| (0..8).map(move |less| padded(header, claims - less)))
        .find(|attempt| length_of(attempt) == length)
        .unwrap()
}

#[test]
fn htu_must_be_a_string() {
    for (name, htu) in [
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
    Attempt::but(|a| a.proof_claims["htu"] = Value::Null)
        .outcome()
        .assert_reason("H-23: null", ProofError::ClaimMissing);
}

#[test]
fn rejects_a_nonce_that_is_not_a_string() {
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_nonces(StatelessNonces::new(NonceSecret::generate()))
    }));
    for nonce in [json!(1), json!(true), json!(["n"]), json!({ "n": 1 })] {
        let outcome = Attempt::but(|a| a.proof_claims["nonce"] = nonce.clone()).outcome_by(&layer);
        outcome.assert_reason(&nonce.to_string(), ProofError::PayloadNotJson);
    }
    Attempt::but(|a| a.proof_claims["nonce"] = json!(null))
        .outcome_by(&layer)
        .assert_reason("null", NonceError::Missing);
}

/// T-11: RFC 9449 does not define `exp` and `nbf` for proofs. If a client sends them, they are checked.
#[test]
fn exp_and_nbf_are_checked_if_present() {
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
            "T-11: not valid yet, within the leeway",
            json!({ "nbf": NOW + 30 }),
            None,
        ),
        (
            "T-11: not valid yet",
            json!({ "nbf": NOW + 31 }),
            Some(ProofError::NotYetValid),
        ),
        (
            "T-11: exp is a string",
            json!({ "exp": "soon" }),
            Some(ProofError::PayloadNotJson),
        ),
        (
            "T-11: both are null",
            json!({ "nbf": null, "exp": null }),
            None,
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
