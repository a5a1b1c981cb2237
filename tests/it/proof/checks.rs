//! The form of a proof: its header, its key, its JSON and its encoding, read strictly.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use p256::ecdsa::Signature;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_dpop::jose::{InvalidJwk, Jwk};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::BindingError;
use tower_dpop::{Algorithm, Algorithms, DpopLayer};

use common::{
    Attempt, AttemptExt as _, Key, KeyExt as _, Outcome, ath, base64url, keys, verifier,
    verifier_by,
};

type Change = fn(&mut Attempt);
type MoveThePoint = fn(&mut Value);
type Rewrite = fn(String) -> Vec<u8>;
type Resign = fn(Vec<u8>) -> Vec<u8>;
type Respell = fn(String) -> String;

/// What comes of a good attempt with one thing changed: `None` is a pass.
#[track_caller]
fn assert_outcome(name: &str, outcome: &Outcome, expected: Option<ProofError>) {
    match expected {
        None => outcome.assert_passed(name),
        Some(error) => outcome.assert_reason(name, error),
    }
}

/// A layer that accepts every algorithm there is.
fn every_algorithm() -> DpopLayer {
    let all = "ES256 ES384 ES512 PS256 PS384 PS512 Ed25519 EdDSA RS256 RS384 RS512";
    DpopLayer::new(verifier_by(|rules| {
        rules.with_algorithms(all.parse().unwrap())
    }))
}

/// Binds the token to the key in the proof's header, whatever that key is.
fn bind(attempt: &mut Attempt) {
    let jwk = attempt.proof_header["jwk"].to_string();
    attempt.token_claims["cnf"]["jkt"] = json!(base64url(Sha256::digest(jwk)));
}

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

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
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

/// RFC 9449 section 4.3, check 7: in a key of any type, of any value, and before all else about it.
#[test]
fn a_private_member_in_any_key_is_rejected() {
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    let ec = keys::client().public_jwk();
    let keys = [
        ("EC", ec.clone()),
        ("OKP", Key::ed25519("EdDSA").public_jwk()),
        ("RSA", Key::rsa("PS256").public_jwk()),
        ("oct", json!({ "kty": "oct" })),
        ("an unknown kty", json!({ "kty": "AKP", "pub": "AA" })),
        ("no kty", json!({})),
        (
            "a broken EC",
            json!({ "kty": "EC", "crv": "P-256", "x": "!" }),
        ),
    ];
    let values = [
        json!("MoYtv_8cBvTjvhvDEPf9mFmiHZ4Yc9Ssb0qXFYyWP7U"),
        json!(""),
        json!(null),
        json!(1),
        json!([]),
        json!({}),
    ];
    for (kty, jwk) in &keys {
        for member in private {
            for value in &values {
                Attempt::but(|a| {
                    a.proof_header["jwk"] = jwk.clone();
                    a.proof_header["jwk"][member] = value.clone();
                })
                .outcome()
                .assert_reason(
                    &format!("J-3 R-4.2.3 R-4.3.7: {member} = {value} in {kty}"),
                    ProofError::Key(InvalidJwk::Private),
                );
            }
        }
    }
    let also: &[(&str, Change)] = &[
        ("an algorithm that is not accepted", |a| {
            a.proof_header["alg"] = json!("HS256");
        }),
        ("no algorithm", |a| remove(&mut a.proof_header, "alg")),
        ("the wrong use", |a| {
            a.proof_header["jwk"]["use"] = json!("enc");
        }),
        ("another alg", |a| {
            a.proof_header["jwk"]["alg"] = json!("ES384");
        }),
        ("every private member", |a| {
            for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
                a.proof_header["jwk"][member] = json!("AA");
            }
        }),
    ];
    for (name, change) in also {
        Attempt::but(|a| {
            a.proof_header["jwk"]["d"] = json!("AA");
            change(a);
        })
        .outcome()
        .assert_reason(
            &format!("J-3: and {name}"),
            ProofError::Key(InvalidJwk::Private),
        );
    }
    for (name, member) in [("J-3: D is another member", "D"), ("J-3: so is kid", "kid")] {
        Attempt::but(|a| a.proof_header["jwk"][member] = json!("AA"))
            .outcome()
            .assert_passed(name);
    }
    raw(
        |header| {
            header
                .replace(r#""jwk":{"#, r#""jwk":{"\u0064":"AA","#)
                .into_bytes()
        },
        String::into_bytes,
    )
    .outcome()
    .assert_reason("J-3: d, escaped", ProofError::Key(InvalidJwk::Private));
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

#[test]
fn the_key_is_a_public_key_of_a_known_type() {
    let key = |error| Some(ProofError::Key(error));
    let rows: &[(&str, Change, Option<ProofError>)] = &[
        (
            "J-4: oct",
            |a| a.proof_header["jwk"]["kty"] = json!("oct"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-4: no kty",
            |a| remove(&mut a.proof_header["jwk"], "kty"),
            key(InvalidJwk::Missing),
        ),
        (
            "J-4: an empty kty",
            |a| a.proof_header["jwk"]["kty"] = json!(""),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-4: an unknown kty",
            |a| a.proof_header["jwk"]["kty"] = json!("AKP"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-4: kty in lower case",
            |a| a.proof_header["jwk"]["kty"] = json!("ec"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-4: kty is a number",
            |a| a.proof_header["jwk"]["kty"] = json!(2),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4: kty is null",
            |a| a.proof_header["jwk"]["kty"] = json!(null),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4: an empty object",
            |a| a.proof_header["jwk"] = json!({}),
            key(InvalidJwk::Missing),
        ),
        (
            "J-4: null",
            |a| a.proof_header["jwk"] = json!(null),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4: an array",
            |a| a.proof_header["jwk"] = json!([a.proof_header["jwk"]]),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4: a string",
            |a| a.proof_header["jwk"] = json!(a.proof_header["jwk"].to_string()),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4 R-4.2.3: absent",
            |a| remove(&mut a.proof_header, "jwk"),
            Some(ProofError::NoKey),
        ),
        (
            "J-4: a kid in its place",
            |a| {
                remove(&mut a.proof_header, "jwk");
                a.proof_header["kid"] = json!("issuer");
            },
            Some(ProofError::NoKey),
        ),
        (
            "J-5: no crv",
            |a| remove(&mut a.proof_header["jwk"], "crv"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: crv in lower case",
            |a| a.proof_header["jwk"]["crv"] = json!("p-256"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: another name of the curve",
            |a| a.proof_header["jwk"]["crv"] = json!("secp256r1"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: secp256k1",
            |a| a.proof_header["jwk"]["crv"] = json!("secp256k1"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: a curve of OKP in EC",
            |a| a.proof_header["jwk"]["crv"] = json!("Ed25519"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: a curve of EC in OKP",
            |a| a.proof_header["jwk"]["kty"] = json!("OKP"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: coordinates of another curve",
            |a| a.proof_header["jwk"]["crv"] = json!("P-384"),
            key(InvalidJwk::Coordinate),
        ),
        (
            "J-5: RSA with the numbers of EC",
            |a| a.proof_header["jwk"]["kty"] = json!("RSA"),
            key(InvalidJwk::Missing),
        ),
        (
            "J-20: no x",
            |a| remove(&mut a.proof_header["jwk"], "x"),
            key(InvalidJwk::Coordinate),
        ),
        (
            "J-20: no y",
            |a| remove(&mut a.proof_header["jwk"], "y"),
            key(InvalidJwk::Coordinate),
        ),
        (
            "J-20: x is a number",
            |a| a.proof_header["jwk"]["x"] = json!(1),
            Some(ProofError::HeaderNotJson),
        ),
    ];
    for (name, change, expected) in rows {
        assert_outcome(name, &Attempt::but(change).outcome(), *expected);
    }
    for crv in ["X25519", "X448", "Ed448", "ed25519", "P-256"] {
        let mut attempt = Attempt::with_key(Key::ed25519("EdDSA"));
        attempt.proof_header["jwk"]["crv"] = json!(crv);
        attempt.outcome().assert_reason(
            &format!("J-5: OKP/{crv}"),
            ProofError::Key(InvalidJwk::KeyType),
        );
    }
}

/// The fixed table, in both directions: who goes with whom, and nobody with anyone else.
#[test]
fn every_algorithm_goes_with_its_own_kind_of_key_only() {
    let rsa = ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
    let keys: [(Key, &[&str]); 5] = [
        (Key::es256(), &["ES256"]),
        (Key::es384(), &["ES384"]),
        (Key::es512(), &["ES512"]),
        (Key::ed25519("Ed25519"), &["Ed25519", "EdDSA"]),
        (Key::rsa("PS256"), &rsa),
    ];
    let algorithms = ["ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
        .iter()
        .chain(&rsa);
    let layer = every_algorithm();
    for alg in algorithms {
        for (key, own) in &keys {
            let mut attempt = Attempt::with_key(key.clone());
            attempt.proof_header["alg"] = json!(alg);
            let name = format!("J-5: {alg} by a key for {own:?}");
            let expected = if !own.contains(alg) {
                Some(ProofError::Key(InvalidJwk::Algorithm))
            } else if rsa.contains(alg) && *alg != "PS256" {
                // The key would do, but it has signed by PS256.
                Some(ProofError::Signature)
            } else {
                None
            };
            assert_outcome(&name, &attempt.outcome_by(&layer), expected);
        }
    }
}

/// J-28: "each key exactly one alg" cannot be seen from one request, so a key that signs by two is
/// not rejected: it stays one client.
#[test]
fn an_ed25519_key_may_go_by_both_of_its_names() {
    let key = Key::ed25519("Ed25519");
    let layer = DpopLayer::new(verifier());
    for (alg, declared) in [
        ("Ed25519", None),
        ("EdDSA", None),
        ("Ed25519", Some("EdDSA")),
        ("EdDSA", Some("Ed25519")),
    ] {
        let name = format!("J-6 J-28: {alg}, declared {declared:?}");
        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["alg"] = json!(alg);
        if let Some(declared) = declared {
            attempt.proof_header["jwk"]["alg"] = json!(declared);
        }
        let outcome = attempt.outcome_by(&layer);
        outcome.assert_passed(&name);
        let thumbprint = outcome.token.unwrap().thumbprint().to_string();
        assert_eq!(thumbprint, key.jkt(), "{name}");
    }
    let challenge = Attempt::but(|a| a.dpop = Some(Vec::new())).outcome();
    let algs = challenge.parameter("algs").unwrap();
    assert!(
        algs.ends_with("Ed25519 EdDSA"),
        "J-6: both are listed: {algs}"
    );
}

#[test]
fn what_a_key_says_of_its_use_must_not_contradict() {
    let usage = Some(ProofError::Key(InvalidJwk::Use));
    let algorithm = Some(ProofError::Key(InvalidJwk::Algorithm));
    let not_json = Some(ProofError::HeaderNotJson);
    for (name, member, value, expected) in [
        ("J-8: use sig", "use", json!("sig"), None),
        ("J-8: use enc", "use", json!("enc"), usage),
        ("J-8: use in upper case", "use", json!("SIG"), usage),
        ("J-8: an unknown use", "use", json!("tls"), usage),
        ("J-8: use is not a string", "use", json!(["sig"]), not_json),
        ("J-8: key_ops verify", "key_ops", json!(["verify"]), None),
        (
            "J-8: key_ops sign and verify",
            "key_ops",
            json!(["sign", "verify"]),
            None,
        ),
        (
            "J-8: key_ops with an unknown one",
            "key_ops",
            json!(["verify", "x"]),
            None,
        ),
        ("J-8: key_ops sign", "key_ops", json!(["sign"]), usage),
        (
            "J-8: key_ops encrypt",
            "key_ops",
            json!(["encrypt", "wrapKey"]),
            usage,
        ),
        ("J-8: no key_ops", "key_ops", json!([]), usage),
        (
            "J-8: key_ops is not an array",
            "key_ops",
            json!("verify"),
            not_json,
        ),
        ("J-8: key_ops of numbers", "key_ops", json!([1]), not_json),
        ("J-8: alg as in the header", "alg", json!("ES256"), None),
        ("J-8: another alg", "alg", json!("ES384"), algorithm),
        (
            "J-8: an alg in lower case",
            "alg",
            json!("es256"),
            algorithm,
        ),
        (
            "J-8: an alg of encryption",
            "alg",
            json!("ECDH-ES"),
            algorithm,
        ),
        ("J-8: alg none", "alg", json!("none"), algorithm),
        ("J-8: an empty alg", "alg", json!(""), algorithm),
        ("J-8: alg is not a string", "alg", json!(-7), not_json),
        ("J-8 T-12: a kid", "kid", json!("1"), None),
        ("J-8 T-12: a kid that is no string", "kid", json!(1), None),
        ("J-8 T-12: a certificate", "x5c", json!(["MIIB"]), None),
        (
            "J-8 T-12: a URL is not followed",
            "x5u",
            json!("https://127.0.0.1:1/"),
            None,
        ),
        ("J-8: ext, as browsers write it", "ext", json!(true), None),
    ] {
        let outcome = Attempt::but(|a| a.proof_header["jwk"][member] = value).outcome();
        assert_outcome(name, &outcome, expected);
    }
}

#[test]
fn header_parameters_that_change_what_was_signed_are_rejected() {
    let extension = Some(ProofError::Extension);
    let not_json = Some(ProofError::HeaderNotJson);
    for (name, member, value, expected) in [
        (
            "J-9: crit of an unknown one",
            "crit",
            json!(["exp"]),
            extension,
        ),
        (
            "J-9: crit of a known one",
            "crit",
            json!(["alg"]),
            extension,
        ),
        ("J-9: crit of b64", "crit", json!(["b64"]), extension),
        (
            "J-9: crit of one twice",
            "crit",
            json!(["x", "x"]),
            extension,
        ),
        ("J-9: an empty crit", "crit", json!([]), extension),
        ("J-9: crit is a string", "crit", json!("exp"), extension),
        ("J-9: crit is null", "crit", json!(null), extension),
        ("J-10: b64 is false", "b64", json!(false), extension),
        ("J-10: b64 is true", "b64", json!(true), extension),
        ("J-10: b64 is null", "b64", json!(null), extension),
        ("J-11: zip", "zip", json!("DEF"), extension),
        ("J-11: enc", "enc", json!("A256GCM"), extension),
        ("J-11: cty JWT", "cty", json!("JWT"), extension),
        ("J-11: cty jwt", "cty", json!("jwt"), extension),
        ("J-11: another cty", "cty", json!("application/json"), None),
        ("J-11: an empty cty", "cty", json!(""), None),
        ("J-11: cty is not a string", "cty", json!(1), not_json),
        ("J-9: CRIT is another member", "CRIT", json!(["exp"]), None),
    ] {
        let outcome = Attempt::but(|a| a.proof_header[member] = value).outcome();
        assert_outcome(name, &outcome, expected);
    }
    Attempt::but(|a| {
        a.proof_header["crit"] = json!(["b64"]);
        a.proof_header["b64"] = json!(false);
    })
    .outcome()
    .assert_reason("J-10: b64 as RFC 7797 has it", ProofError::Extension);
    Attempt::but(|a| {
        a.proof_header["crit"] = json!(["x"]);
        a.proof_header["x"] = json!(1);
    })
    .outcome()
    .assert_reason("J-9: crit of one that is there", ProofError::Extension);
}

#[test]
fn a_proof_is_three_segments() {
    let rows: &[(&str, Respell)] = &[
        ("J-11: five segments, a JWE", |proof| {
            format!("{proof}.AAAA.AAAA")
        }),
        ("J-11: four segments", |proof| format!("{proof}.AAAA")),
        ("R-4.3.2: two segments", |proof| {
            proof[..proof.rfind('.').unwrap()].into()
        }),
        ("R-4.3.2: one segment", |proof| proof.replace('.', "")),
        ("R-4.3.2: a dot behind", |proof| format!("{proof}.")),
        ("R-4.3.2: a dot in front", |proof| format!(".{proof}")),
        ("R-4.3.2: two dots between", |proof| {
            proof.replacen('.', "..", 1)
        }),
        ("R-4.3.2: the JSON serialisation", |proof| {
            let [header, payload, signature] = segments(&proof);
            json!({ "protected": header, "payload": payload, "signature": signature }).to_string()
        }),
        ("R-4.3.2: the header as plain JSON", |proof| {
            let [_, payload, signature] = segments(&proof);
            format!("{{}}.{payload}.{signature}")
        }),
    ];
    for (name, edit) in rows {
        Attempt::but(|a| a.edit_proof = *edit)
            .outcome()
            .assert_reason(name, ProofError::NotAJwt);
    }
    for (name, edit, reason) in [
        (
            "R-4.3.2: an empty header",
            (|proof| proof[proof.find('.').unwrap()..].into()) as Respell,
            ProofError::HeaderNotJson,
        ),
        (
            "R-4.3.2: an empty payload",
            |proof| {
                let [header, _, signature] = segments(&proof);
                format!("{header}..{signature}")
            },
            ProofError::PayloadNotJson,
        ),
        (
            "R-4.3.2 R-4.3.6: an empty signature",
            |proof| proof[..=proof.rfind('.').unwrap()].into(),
            ProofError::Signature,
        ),
    ] {
        Attempt::but(|a| a.edit_proof = edit)
            .outcome()
            .assert_reason(name, reason);
    }
}

fn segments(proof: &str) -> [&str; 3] {
    proof.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// A good attempt whose header and payload are written by hand.
fn raw(header: Rewrite, payload: Rewrite) -> Attempt {
    Attempt::but(|a| {
        let token = a.token();
        a.proof_claims["ath"] = json!(ath(&token));
        let proof = a.key.sign_text(
            header(a.proof_header.to_string()),
            payload(a.proof_claims.to_string()),
        );
        a.dpop = Some(vec![proof.parse().unwrap()]);
        a.token = Some(token);
    })
}

/// The same edit, in the header and then in the payload.
#[track_caller]
fn assert_no_part_may_be(name: &str, edit: Rewrite) {
    raw(edit, String::into_bytes)
        .outcome()
        .assert_reason(&format!("{name}, header"), ProofError::HeaderNotJson);
    raw(String::into_bytes, edit)
        .outcome()
        .assert_reason(&format!("{name}, payload"), ProofError::PayloadNotJson);
}

/// Puts members in front of those of an object.
fn with_members(json: &str, members: &str) -> Vec<u8> {
    json.replacen('{', &format!("{{{members},"), 1).into_bytes()
}

#[test]
fn text_that_two_parsers_could_read_differently_is_rejected() {
    let rows: &[(&str, Rewrite)] = &[
        ("J-15: a byte order mark", |json| {
            format!("\u{feff}{json}").into_bytes()
        }),
        ("J-15: an object behind", |json| {
            format!("{json}{{}}").into_bytes()
        }),
        ("J-15: the same once more", |json| {
            format!("{json}{json}").into_bytes()
        }),
        ("J-15: a comma behind", |json| {
            format!("{json},").into_bytes()
        }),
        ("J-15: a NUL behind", |json| {
            format!("{json}\0").into_bytes()
        }),
        ("J-15: a letter in front", |json| {
            format!("x{json}").into_bytes()
        }),
        ("J-15: a comma behind the last member", |json| {
            format!("{},}}", &json[..json.len() - 1]).into_bytes()
        }),
        ("J-15: an open end", |json| json[..json.len() - 1].into()),
        ("J-15: a comment", |json| format!("/**/{json}").into_bytes()),
        ("J-15: single quotes", |json| {
            json.replace('"', "'").into_bytes()
        }),
        ("J-15: an array", |json| format!("[{json}]").into_bytes()),
        ("J-15: an array of its values", |_| {
            br#"["dpop+jwt","ES256"]"#.into()
        }),
        ("J-15: a string", |json| {
            Value::from(json).to_string().into_bytes()
        }),
        ("J-15: null", |_| b"null".into()),
        ("J-15: a number", |_| b"1".into()),
        ("J-15: nothing", |_| Vec::new()),
        ("J-15: white space", |_| b" ".into()),
        ("J-15: UTF-16, big end first", |json| {
            json.encode_utf16().flat_map(u16::to_be_bytes).collect()
        }),
        ("J-15: UTF-16, little end first", |json| {
            json.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }),
        ("J-15: invalid UTF-8 in a value", |json| {
            in_unknown_value(&json, b"\xff")
        }),
        ("J-15: half a character", |json| {
            in_unknown_value(&json, b"\xc3")
        }),
        ("J-15: an overlong slash", |json| {
            in_unknown_value(&json, b"\xc0\xaf")
        }),
        ("J-15: a surrogate in UTF-8", |json| {
            in_unknown_value(&json, b"\xed\xa0\x80")
        }),
        ("J-15: a lone high surrogate", |json| {
            in_unknown_value(&json, br"\ud800")
        }),
        ("J-15: a lone low surrogate", |json| {
            in_unknown_value(&json, br"\udc00")
        }),
        ("J-15: surrogates in the wrong order", |json| {
            in_unknown_value(&json, br"\udc00\ud800")
        }),
        ("J-15: a lone surrogate in a name", |json| {
            with_members(&json, r#""\ud800":1"#)
        }),
        ("J-15: invalid UTF-8 in a name", |json| {
            let mut text = b"{\"\xff\":1,".to_vec();
            text.extend(&json.as_bytes()[1..]);
            text
        }),
        ("J-15: a control character", |json| {
            in_unknown_value(&json, b"\n")
        }),
        ("J-15: an unknown escape", |json| {
            in_unknown_value(&json, br"\x41")
        }),
        ("J-15: a deep nest of arrays", |json| {
            with_members(
                &json,
                &format!(r#""z":{}{}"#, "[".repeat(200), "]".repeat(200)),
            )
        }),
        ("J-15: a deep nest of objects", |json| {
            let (open, close) = (r#"{"a":"#.repeat(200), "}".repeat(200));
            with_members(&json, &format!(r#""z":{open}1{close}"#))
        }),
        ("J-15: a deep nest without an end", |json| {
            with_members(&json, &format!(r#""z":{}"#, "[".repeat(2000)))
        }),
        ("J-15: a number that is none", |json| {
            with_members(&json, r#""z":01"#)
        }),
        ("J-15: NaN", |json| with_members(&json, r#""z":NaN"#)),
    ];
    for (name, edit) in rows {
        assert_no_part_may_be(name, *edit);
    }
}

/// A string with these bytes in it as the value of a member that nobody knows.
fn in_unknown_value(json: &str, bytes: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 4] = [br#"{"z":"a"#, bytes, br#"b","#, &json.as_bytes()[1..]];
    parts.concat()
}

#[test]
fn members_may_not_be_repeated_at_any_level() {
    let anywhere: &[(&str, Rewrite)] = &[
        ("J-12: an unknown member", |json| {
            with_members(&json, r#""z":1,"z":1"#)
        }),
        ("J-12: with another value", |json| {
            with_members(&json, r#""z":1,"z":[]"#)
        }),
        ("J-12: one of them escaped", |json| {
            with_members(&json, r#""z":1,"\u007a":1"#)
        }),
        ("J-12: both escaped, in two ways", |json| {
            with_members(&json, r#""\u00e9":1,"\u00E9":1"#)
        }),
        ("J-12: one escaped, one in UTF-8", |json| {
            with_members(&json, r#""\u00e9":1,"é":1"#)
        }),
        ("J-12: a pair of surrogates", |json| {
            with_members(&json, r#""\ud83d\ude00":1,"😀":1"#)
        }),
        ("J-12: empty names", |json| {
            with_members(&json, r#""":1,"":1"#)
        }),
        ("J-12: in an unknown object", |json| {
            with_members(&json, r#""z":{"y":1,"y":1}"#)
        }),
        ("J-12: escaped there", |json| {
            with_members(&json, r#""z":{"y":1,"\u0079":1}"#)
        }),
        ("J-12: in an array", |json| {
            with_members(&json, r#""z":[1,{"y":1,"y":1}]"#)
        }),
        ("J-12: deep down", |json| {
            with_members(&json, r#""z":[[{"x":{"w":[{"y":1,"y":1}]}}]]"#)
        }),
    ];
    for (name, edit) in anywhere {
        assert_no_part_may_be(name, *edit);
    }
    let in_the_header: &[(&str, Rewrite)] = &[
        ("J-12: typ", |json| {
            with_members(&json, r#""typ":"dpop+jwt""#)
        }),
        ("J-12: another typ", |json| {
            with_members(&json, r#""typ":"JWT""#)
        }),
        ("J-12: typ, escaped", |json| {
            with_members(&json, r#""\u0074yp":"dpop+jwt""#)
        }),
        ("J-12: alg", |json| with_members(&json, r#""alg":"ES256""#)),
        ("J-12: alg none", |json| {
            with_members(&json, r#""alg":"none""#)
        }),
        ("J-12: alg, escaped", |json| {
            with_members(&json, r#""\u0061lg":"ES256""#)
        }),
        ("J-12: jwk", |json| with_members(&json, r#""jwk":{}"#)),
        ("J-12: jwk, escaped", |json| {
            with_members(&json, r#""jw\u006B":{}"#)
        }),
        ("J-12: crit", |json| {
            with_members(&json, r#""crit":[],"crit":[]"#)
        }),
        ("J-12: kid", |json| {
            with_members(&json, r#""kid":"1","kid":"1""#)
        }),
        ("J-12: kty", |json| in_jwk(&json, r#""kty":"EC""#)),
        ("J-12: another kty", |json| in_jwk(&json, r#""kty":"oct""#)),
        ("J-12: kty, escaped", |json| {
            in_jwk(&json, r#""\u006bty":"EC""#)
        }),
        ("J-12: crv", |json| in_jwk(&json, r#""crv":"P-256""#)),
        ("J-12: x", |json| in_jwk(&json, r#""x":"AA""#)),
        ("J-12: x, escaped", |json| in_jwk(&json, r#""\u0078":"AA""#)),
        ("J-12: y", |json| in_jwk(&json, r#""y":"AA""#)),
        ("J-12: n", |json| in_jwk(&json, r#""n":"AA","n":"AA""#)),
        ("J-12: use", |json| {
            in_jwk(&json, r#""use":"sig","use":"sig""#)
        }),
        ("J-12: d", |json| in_jwk(&json, r#""d":"AA","d":"AA""#)),
        ("J-12: an unknown one in jwk", |json| {
            in_jwk(&json, r#""z":1,"z":1"#)
        }),
        ("J-12: escaped in jwk", |json| {
            in_jwk(&json, r#""z":1,"\u007a":1"#)
        }),
        ("J-12: in an unknown one in jwk", |json| {
            in_jwk(&json, r#""z":{"y":1,"y":1}"#)
        }),
        ("J-12: in crit", |json| {
            with_members(&json, r#""crit":[{"y":1,"y":1}]"#)
        }),
    ];
    for (name, edit) in in_the_header {
        raw(*edit, String::into_bytes)
            .outcome()
            .assert_reason(name, ProofError::HeaderNotJson);
    }
    let in_the_payload: &[(&str, Rewrite)] = &[
        ("J-12: jti", |json| with_members(&json, r#""jti":"other""#)),
        ("J-12: jti, escaped", |json| {
            with_members(&json, r#""jt\u0069":"other""#)
        }),
        ("J-12: htm", |json| with_members(&json, r#""htm":"GET""#)),
        ("J-12: htu", |json| {
            with_members(&json, r#""htu":"https://api.example.com/orders""#)
        }),
        ("J-12: another htu", |json| {
            with_members(&json, r#""htu":"https://evil.example/""#)
        }),
        ("J-12: htu, escaped", |json| {
            with_members(&json, r#""\u0068tu":"https://evil.example/""#)
        }),
        ("J-12: iat", |json| {
            with_members(&json, r#""iat":1700000000"#)
        }),
        ("J-12: ath", |json| with_members(&json, r#""ath":"AA""#)),
        ("J-12: nonce", |json| {
            with_members(&json, r#""nonce":"a","nonce":"b""#)
        }),
        ("J-12: exp", |json| {
            with_members(&json, r#""exp":1800000000,"exp":1800000000"#)
        }),
        ("J-12: nbf", |json| {
            with_members(&json, r#""nbf":0,"nbf":0"#)
        }),
    ];
    for (name, edit) in in_the_payload {
        raw(String::into_bytes, *edit)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
}

/// Puts members in front of those of the key.
fn in_jwk(json: &str, members: &str) -> Vec<u8> {
    let (before, jwk) = json.split_once(r#""jwk":{"#).unwrap();
    format!(r#"{before}"jwk":{{{members},{jwk}"#).into_bytes()
}

#[test]
fn unknown_members_and_other_ways_to_write_json_do_no_harm() {
    let rows: &[(&str, Rewrite)] = &[
        ("J-13: as the OpenID suite sends it", |json| {
            with_members(&json, r#""tx_id":"1","tx_id_key":"2""#)
        }),
        ("J-13: a value of every type", |json| {
            with_members(
                &json,
                r#""a":null,"b":true,"c":-1.5e3,"d1":"","e1":[1,[]],"f":{"g":{}}"#,
            )
        }),
        ("J-13: large integers", |json| {
            with_members(
                &json,
                r#""a":18446744073709551616,"b":-9223372036854775809"#,
            )
        }),
        ("J-13: names that differ in case", |json| {
            with_members(&json, r#""Typ":"x","ALG":"none","Jti":1"#)
        }),
        ("J-13 J-12: the same name at two levels", |json| {
            with_members(&json, r#""z":{"z":{"z":1}}"#)
        }),
        ("J-13 J-12: the same name in two objects", |json| {
            with_members(&json, r#""z":[{"y":1},{"y":1}]"#)
        }),
        ("J-13 J-12: a nested alg and htu", |json| {
            with_members(&json, r#""z":{"alg":"none","htu":"x"}"#)
        }),
        ("J-13 T-12: URLs are not followed", |json| {
            with_members(
                &json,
                r#""jku":"https://127.0.0.1:1/","x5u":"https://127.0.0.1:1/""#,
            )
        }),
        ("J-13: a name that means something elsewhere", |json| {
            with_members(
                &json,
                r#""$serde_json::private::Number":"1","__proto__":{}"#,
            )
        }),
        ("J-15: a nest that is not deep", |json| {
            with_members(
                &json,
                &format!(r#""z":{}{}"#, "[".repeat(50), "]".repeat(50)),
            )
        }),
        ("J-15: a pair of surrogates", |json| {
            in_unknown_value(&json, br"\ud83d\ude00")
        }),
        ("J-15: white space", |json| {
            format!(" \t\r\n{}\n ", json.replace("\":", "\"\t:\n ")).into_bytes()
        }),
        ("J-15: other than ASCII", |json| {
            in_unknown_value(&json, "é😀\u{2028}".as_bytes())
        }),
    ];
    for (name, edit) in rows {
        raw(*edit, String::into_bytes)
            .outcome()
            .assert_passed(&format!("{name}, header"));
        raw(String::into_bytes, *edit)
            .outcome()
            .assert_passed(&format!("{name}, payload"));
    }
    raw(
        |json| in_jwk(&json, r#""z":{"y":[1,null]},"KTY":"oct""#),
        String::into_bytes,
    )
    .outcome()
    .assert_passed("J-13: in the key");
    raw(
        |json| {
            json.replace("typ", r"\u0074yp")
                .replace("dpop+jwt", r"dpop\u002bjwt")
                .into_bytes()
        },
        |json| {
            json.replace("htu", r"\u0068tu")
                .replace('/', r"\/")
                .into_bytes()
        },
    )
    .outcome()
    .assert_passed("J-12: one escaped name is one name");
}

/// Spaces behind a JSON text until base64url leaves four bits of its last character unused.
fn with_unused_bits(json: &str) -> String {
    let spaces = (0..3)
        .find(|spaces| (json.len() + spaces) % 3 == 1)
        .unwrap();
    json.to_owned() + &" ".repeat(spaces)
}

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The same text with another last character, that many places further in the alphabet.
fn respelled(text: &str, further: usize) -> String {
    let (start, last) = text.split_at(text.len() - 1);
    let place = ALPHABET.find(last).unwrap() + further;
    format!("{start}{}", &ALPHABET[place..=place])
}

#[test]
fn segments_are_written_in_the_one_canonical_way() {
    let edits: &[(&str, Respell)] = &[
        ("padding", |text| text + "=="),
        ("half of the padding", |text| text + "="),
        ("a plus", |text| format!("+{}", &text[1..])),
        ("a slash", |text| format!("/{}", &text[1..])),
        ("a space in front", |text| format!(" {text}")),
        ("a space inside", |text| {
            format!("{} {}", &text[..8], &text[8..])
        }),
        ("a space behind", |text| text + " "),
        ("a TAB inside", |text| {
            format!("{}\t{}", &text[..8], &text[8..])
        }),
        ("an impossible length", |text| text + "AAA"),
        ("an exclamation mark", |text| format!("!{}", &text[1..])),
        ("a tilde", |text| format!("~{}", &text[1..])),
        ("a percent-encoding", |text| text + "%3D%3D"),
        ("other than ASCII", |text| format!("é{}", &text[2..])),
        ("the lowest unused bit", |text| respelled(&text, 1)),
        ("the next unused bit", |text| respelled(&text, 2)),
        ("the next but one", |text| respelled(&text, 4)),
        ("the highest unused bit", |text| respelled(&text, 8)),
        ("all unused bits", |text| respelled(&text, 15)),
    ];
    let proof = |in_segment: usize, edit: Respell| {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            let spelled = |segment, bytes: &[u8]| {
                let text = base64url(bytes);
                if segment == in_segment {
                    edit(text)
                } else {
                    text
                }
            };
            let header = spelled(0, with_unused_bits(&a.proof_header.to_string()).as_bytes());
            let payload = spelled(1, with_unused_bits(&a.proof_claims.to_string()).as_bytes());
            let signing_input = format!("{header}.{payload}");
            let signature = spelled(2, &a.key.signature(signing_input.as_bytes()));
            let proof = format!("{signing_input}.{signature}");
            a.dpop = Some(vec![common::field(proof.as_bytes())]);
            a.token = Some(token);
        })
        .outcome()
    };
    for (segment, of) in ["header", "payload", "signature"].into_iter().enumerate() {
        proof(segment, |text| text).assert_passed("the canonical spelling");
        for (name, edit) in edits {
            proof(segment, *edit)
                .assert_reason(&format!("J-14: {name} in the {of}"), ProofError::NotAJwt);
        }
    }
}

#[test]
fn the_numbers_of_a_key_are_written_in_the_one_canonical_way() {
    let edits: &[(&str, Respell)] = &[
        ("padding", |text| text + "="),
        ("a plus", |text| format!("+{}", &text[1..])),
        ("a slash", |text| format!("/{}", &text[1..])),
        ("a space in front", |text| format!(" {text}")),
        ("a space behind", |text| text + " "),
        ("a line feed inside", |text| {
            format!("{}\n{}", &text[..2], &text[2..])
        }),
        ("an impossible length", |text| {
            text[..text.len() / 4 * 4].to_owned() + "A"
        }),
        ("other than ASCII", |text| format!("é{}", &text[2..])),
        ("nothing", |_| String::new()),
    ];
    let aliases: &[(&str, Respell)] = &[
        ("an unused bit", |text| respelled(&text, 1)),
        ("the other unused bit", |text| respelled(&text, 2)),
        ("both unused bits", |text| respelled(&text, 3)),
    ];
    let rows = [
        (keys::client(), "x", InvalidJwk::Coordinate),
        (keys::client(), "y", InvalidJwk::Coordinate),
        (Key::es384(), "x", InvalidJwk::Coordinate),
        (Key::ed25519("EdDSA"), "x", InvalidJwk::Coordinate),
        (Key::rsa("PS256"), "n", InvalidJwk::Integer),
        (Key::rsa("PS256"), "e", InvalidJwk::Integer),
    ];
    for (key, member, error) in rows {
        // A multiple of three bytes leaves no bit unused.
        let number = key.public_jwk()[member].as_str().unwrap().len();
        let aliases = if number % 4 == 0 { &[] } else { aliases };
        for (name, edit) in edits.iter().chain(aliases) {
            let mut attempt = Attempt::with_key(key.clone());
            let number = attempt.proof_header["jwk"][member].as_str().unwrap();
            attempt.proof_header["jwk"][member] = json!(edit(number.to_owned()));
            attempt.outcome().assert_reason(
                &format!("J-14: {name} in {member} of {}", key.alg()),
                ProofError::Key(error),
            );
        }
    }
}

#[test]
fn coordinates_have_the_full_length_of_the_curve() {
    let coordinate = ProofError::Key(InvalidJwk::Coordinate);
    let bytes_of = |key: &Key, member: &str| {
        let jwk = key.public_jwk();
        base64url_bytes(jwk[member].as_str().unwrap())
    };
    for key in [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
    ] {
        let members: &[&str] = if key.alg() == "Ed25519" {
            &["x"]
        } else {
            &["x", "y"]
        };
        for member in members {
            let bytes = bytes_of(&key, member);
            for (name, changed) in [
                ("without the first byte", bytes[1..].to_vec()),
                ("without the last byte", bytes[..bytes.len() - 1].to_vec()),
                ("with a zero in front", [&[0], bytes.as_slice()].concat()),
                ("with a zero behind", [bytes.as_slice(), &[0]].concat()),
                ("of one byte", vec![4]),
                ("of no byte", Vec::new()),
                ("twice", bytes.repeat(2)),
            ] {
                let mut attempt = Attempt::with_key(key.clone());
                attempt.proof_header["jwk"][member] = json!(base64url(changed));
                attempt.outcome_by(&every_algorithm()).assert_reason(
                    &format!("J-20 J-24: {member} of {} {name}", key.alg()),
                    coordinate,
                );
            }
        }
    }
    // One byte moved from one coordinate to the other: the point as a whole is the same.
    let key = keys::client();
    let (x, y) = (bytes_of(&key, "x"), bytes_of(&key, "y"));
    let point = [x, y].concat();
    for split in [0, 31, 33, 64] {
        Attempt::but(|a| {
            a.proof_header["jwk"]["x"] = json!(base64url(&point[..split]));
            a.proof_header["jwk"]["y"] = json!(base64url(&point[split..]));
        })
        .outcome()
        .assert_reason(&format!("J-20: split at {split}"), coordinate);
    }
    let compressed = |a: &mut Attempt| {
        a.proof_header["jwk"]["x"] = json!(base64url([&[2], &point[..32]].concat()));
        remove(&mut a.proof_header["jwk"], "y");
    };
    Attempt::but(compressed)
        .outcome()
        .assert_reason("J-20: a compressed point", coordinate);
}

fn base64url_bytes(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

/// The order of P-256's group, and the prime of its field.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const P256_PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap())
        .collect()
}

/// A key that has the right form and is none is seen when it should verify something.
#[test]
fn points_off_the_curve_are_rejected() {
    let off_curve: &[(&str, MoveThePoint)] = &[
        ("J-19: another y", |jwk| jwk["y"] = jwk["x"].clone()),
        ("J-19: zeros", |jwk| {
            (jwk["x"], jwk["y"]) = (json!(base64url([0; 32])), json!(base64url([0; 32])));
        }),
        ("J-19: x is the prime", |jwk| {
            jwk["x"] = json!(base64url(from_hex(P256_PRIME)));
        }),
        ("J-19: y is beyond the prime", |jwk| {
            jwk["y"] = json!(base64url([0xff; 32]));
        }),
    ];
    for (name, change) in off_curve {
        Attempt::but(|a| {
            change(&mut a.proof_header["jwk"]);
            bind(a);
        })
        .outcome()
        .assert_reason(name, ProofError::Key(InvalidJwk::Coordinate));
    }
}

#[test]
fn ed25519_keys_of_small_order_or_two_spellings_are_rejected() {
    let edge = |first: u8, last: u8| {
        let mut y = [0xff; 32];
        (y[0], y[31]) = (first, last);
        y
    };
    let low = |first: u8, last: u8| {
        let mut y = [0; 32];
        (y[0], y[31]) = (first, last);
        y
    };
    for (name, x) in [
        ("J-24: the neutral element", low(1, 0)),
        ("J-24: with the sign bit", low(1, 0x80)),
        ("J-24: order 4", low(0, 0)),
        ("J-24: order 4, with the sign bit", low(0, 0x80)),
        ("J-24: order 2", edge(0xec, 0x7f)),
        ("J-24: y is the prime", edge(0xed, 0x7f)),
        ("J-24: y is the prime and one", edge(0xee, 0xff)),
        ("J-24: y is the prime and some", edge(0xf0, 0x7f)),
        ("J-24: all ones", edge(0xff, 0xff)),
    ] {
        let mut attempt = Attempt::with_key(Key::ed25519("Ed25519"));
        attempt.proof_header["jwk"]["x"] = json!(base64url(x));
        bind(&mut attempt);
        attempt
            .outcome()
            .assert_reason(name, ProofError::Key(InvalidJwk::Coordinate));
    }
}

#[test]
fn rsa_keys_are_minimal_integers_of_a_size_in_bounds() {
    let key = Key::rsa("PS256");
    let bytes = base64url_bytes(key.public_jwk()["n"].as_str().unwrap());
    let integer = InvalidJwk::Integer;
    let size = InvalidJwk::RsaSize;
    let ones = |bytes: usize| vec![0xff; bytes];
    let with_first = |first: u8, mut bytes: Vec<u8>| {
        bytes[0] = first;
        bytes
    };
    let even = |mut bytes: Vec<u8>| {
        *bytes.last_mut().unwrap() -= 1;
        bytes
    };
    let rows = [
        (
            "J-21: n with a zero in front",
            "n",
            [&[0], bytes.as_slice()].concat(),
            integer,
        ),
        (
            "J-21: e with a zero in front",
            "e",
            vec![0, 1, 0, 1],
            integer,
        ),
        ("J-21: n is zero", "n", vec![0], integer),
        ("J-23: an even n", "n", even(ones(256)), integer),
        ("J-23: e is 0", "e", vec![0], integer),
        ("J-23: e is 1", "e", vec![1], integer),
        ("J-23: e is 2", "e", vec![2], integer),
        ("J-23: e is 65536", "e", vec![1, 0, 0], integer),
        ("J-23: e of 34 bits", "e", vec![2, 0, 0, 0, 1], size),
        ("J-23: e of 40 bytes", "e", ones(40), size),
        ("J-22: 512 bits", "n", ones(64), size),
        ("J-22: 1024 bits", "n", ones(128), size),
        ("J-22: 2047 bits", "n", with_first(0x7f, ones(256)), size),
        ("J-22: 8193 bits", "n", with_first(1, ones(1025)), size),
        ("J-22: 16384 bits", "n", ones(2048), size),
    ];
    for (name, member, number, error) in rows {
        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"][member] = json!(base64url(number));
        attempt
            .outcome()
            .assert_reason(name, ProofError::Key(error));
    }
    // In bounds, so it is the binding that tells the key from the client's.
    for (name, member, number) in [
        ("J-22: 2048 bits", "n", with_first(0x80, ones(256))),
        ("J-22: 8192 bits", "n", ones(1024)),
        ("J-23: e is 3", "e", vec![3]),
        ("J-23: e of 33 bits", "e", vec![1, 0, 0, 0, 1]),
    ] {
        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"][member] = json!(base64url(number));
        attempt
            .outcome()
            .assert_reason(name, BindingError::OtherKey);
    }
}

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

/// J-26: the vectors of RFC 7638, RFC 8037 and RFC 9449, however the JSON is written.
#[test]
fn thumbprints_are_those_of_the_rfcs() {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors.json")).unwrap();
    let (rfc7638, rfc8037, rfc9449) = (
        &vectors["rfc7638"],
        &vectors["rfc8037_appendix_A"],
        &vectors["rfc9449"],
    );
    let rows = [
        (
            "J-26: RFC 7638 section 3.1",
            &rfc7638["jwk"],
            &rfc7638["thumbprint"],
        ),
        (
            "J-26: RFC 9449 Figure 25",
            &rfc7638["jwk"],
            &rfc9449["fig25_dpop_jkt"],
        ),
        (
            "J-26: RFC 8037 appendix A.3",
            &rfc8037["jwk"],
            &rfc8037["thumbprint_A3"],
        ),
        (
            "J-26: RFC 9449 section 6.1",
            &rfc9449["proof_public_jwk"],
            &rfc9449["jkt"],
        ),
    ];
    for (name, jwk, thumbprint) in rows {
        let of = |json: &str| Some(json.parse::<Jwk>().ok()?.thumbprint().to_string());
        let thumbprint = thumbprint.as_str().map(str::to_owned);
        assert!(thumbprint.is_some());
        assert_eq!(of(&jwk.to_string()), thumbprint, "{name}");

        let members = jwk.as_object().unwrap();
        let turned: Vec<String> = members
            .iter()
            .rev()
            .map(|(name, value)| format!(" \"{name}\" :\n{value}"))
            .collect();
        let turned = format!("{{{}}}", turned.join(","));
        assert_eq!(of(&turned), thumbprint, "{name}, in another order");

        let escaped = jwk
            .to_string()
            .replace("kty", r"\u006bty")
            .replace('A', r"\u0041");
        assert_eq!(of(&escaped), thumbprint, "{name}, with escapes");

        let mut described = jwk.clone();
        for (member, value) in [
            ("kid", json!("1")),
            ("use", json!("sig")),
            ("key_ops", json!(["verify"])),
            ("x5c", json!([])),
            ("zzz", json!({ "kty": "oct" })),
        ] {
            described[member] = value;
        }
        assert_eq!(
            of(&described.to_string()),
            thumbprint,
            "{name}, with more members"
        );
    }
}

/// J-26, J-27: the thumbprint of the parsed key is what the token must name.
#[test]
fn the_thumbprint_is_the_clients_identity() {
    for key in [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::rsa("PS256"),
    ] {
        let outcome = Attempt::with_key(key.clone()).outcome_by(&every_algorithm());
        let name = format!("J-26 J-27: {}", key.alg());
        outcome.assert_passed(&name);
        let thumbprint = outcome.token.unwrap().thumbprint();
        assert_eq!(thumbprint.to_string(), key.jkt(), "{name}");

        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"]["kid"] = json!("1");
        attempt
            .outcome_by(&every_algorithm())
            .assert_passed(&format!("{name}, with a kid"));
        bind(&mut attempt);
        attempt.outcome_by(&every_algorithm()).assert_reason(
            &format!("{name}, a hash over other members, too"),
            BindingError::OtherKey,
        );
    }
}

#[test]
fn a_jwk_of_ones_own_is_read_as_strictly() {
    let client = keys::client().public_jwk().to_string();
    let with = |members: &str| String::from_utf8(with_members(&client, members)).unwrap();
    for (name, json, error) in [
        (
            "J-12: a member twice",
            with(r#""kty":"EC""#),
            InvalidJwk::Json,
        ),
        (
            "J-12: an unknown one twice",
            with(r#""z":1,"z":1"#),
            InvalidJwk::Json,
        ),
        ("J-15: an array", format!("[{client}]"), InvalidJwk::Json),
        (
            "J-15: a key behind the key",
            client.repeat(2),
            InvalidJwk::Json,
        ),
        ("J-15: nothing", String::new(), InvalidJwk::Json),
        (
            "J-3: a private member",
            with(r#""d":null"#),
            InvalidJwk::Private,
        ),
        ("J-4: oct", r#"{"kty":"oct"}"#.into(), InvalidJwk::KeyType),
        (
            "J-4: a set of keys",
            format!(r#"{{"keys":[{client}]}}"#),
            InvalidJwk::Missing,
        ),
    ] {
        assert_eq!(json.parse::<Jwk>().err(), Some(error), "{name}");
    }
    assert!(client.parse::<Jwk>().is_ok());
}
