//! Which keys are accepted in the header of a proof.

use serde_json::{Value, json};
use tower_dpop::DpopLayer;
use tower_dpop::jose::{InvalidJwk, Jwk};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::BindingError;

use crate::proof::{
    Change, assert_outcome, bind_token_to_jwk, decode_base64url, from_hex,
    layer_with_every_algorithm, with_edited_json, with_members,
};
use common::remove;
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, base64url, keys, verifier};

type ChangeKey = fn(&mut Value);

/// RFC 9449 section 4.3, check 7: any private member, of any value, in a key of any type.
#[test]
fn rejects_a_private_member_in_any_key() {
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
            "an invalid EC key",
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
    let other_errors: &[(&str, Change)] = &[
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
    for (name, change) in other_errors {
        Attempt::but(|a| {
            a.proof_header["jwk"]["d"] = json!("AA");
            change(a);
        })
        .outcome()
        .assert_reason(
            &format!("J-3: with {name}"),
            ProofError::Key(InvalidJwk::Private),
        );
    }
    for (name, member) in [("J-3: D is not d", "D"), ("J-3: kid is not private", "kid")] {
        Attempt::but(|a| a.proof_header["jwk"][member] = json!("AA"))
            .outcome()
            .assert_passed(name);
    }
    with_edited_json(
        |header| {
            header
                .replace(r#""jwk":{"#, r#""jwk":{"\u0064":"AA","#)
                .into_bytes()
        },
        String::into_bytes,
    )
    .outcome()
    .assert_reason("J-3: an escaped d", ProofError::Key(InvalidJwk::Private));
}

/// D9
#[test]
fn an_optional_member_of_the_key_or_the_header_may_be_null() {
    let attempt = Attempt::but(|a| {
        for member in ["alg", "use", "key_ops", "n", "e", "kid", "x5c"] {
            a.proof_header["jwk"][member] = json!(null);
        }
        for member in ["cty", "kid", "jku"] {
            a.proof_header[member] = json!(null);
        }
    });
    attempt.outcome().assert_passed("null");
    Attempt::but(|a| a.proof_header["jwk"]["x"] = json!(null))
        .outcome()
        .assert_reason("a required member", ProofError::Key(InvalidJwk::Coordinate));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_key_must_be_public_and_of_a_known_type() {
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
            key(InvalidJwk::Missing),
        ),
        (
            "J-4: an empty object",
            |a| a.proof_header["jwk"] = json!({}),
            key(InvalidJwk::Missing),
        ),
        (
            "J-4: jwk is null",
            |a| a.proof_header["jwk"] = json!(null),
            Some(ProofError::NoKey),
        ),
        (
            "J-4: jwk is an array",
            |a| a.proof_header["jwk"] = json!([a.proof_header["jwk"]]),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4: jwk is a string",
            |a| a.proof_header["jwk"] = json!(a.proof_header["jwk"].to_string()),
            Some(ProofError::HeaderNotJson),
        ),
        (
            "J-4 R-4.2.3: no jwk",
            |a| remove(&mut a.proof_header, "jwk"),
            Some(ProofError::NoKey),
        ),
        (
            "J-4: a kid instead of jwk",
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
            "J-5: an OKP curve in an EC key",
            |a| a.proof_header["jwk"]["crv"] = json!("Ed25519"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: an EC curve in an OKP key",
            |a| a.proof_header["jwk"]["kty"] = json!("OKP"),
            key(InvalidJwk::KeyType),
        ),
        (
            "J-5: coordinates of another curve",
            |a| a.proof_header["jwk"]["crv"] = json!("P-384"),
            key(InvalidJwk::Coordinate),
        ),
        (
            "J-5: an RSA key with the members of an EC key",
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

/// Every combination of algorithm and kind of key.
#[test]
fn each_algorithm_accepts_only_its_kind_of_key() {
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
    let layer = layer_with_every_algorithm();
    for alg in algorithms {
        for (key, own) in &keys {
            let mut attempt = Attempt::with_key(key.clone());
            attempt.proof_header["alg"] = json!(alg);
            let name = format!("J-5: {alg} with a key for {own:?}");
            let expected = if !own.contains(alg) {
                Some(ProofError::Key(InvalidJwk::Algorithm))
            } else if rsa.contains(alg) && *alg != "PS256" {
                // The key fits, but the signature was made with PS256.
                Some(ProofError::Signature)
            } else {
                None
            };
            assert_outcome(&name, &attempt.outcome_by(&layer), expected);
        }
    }
}

/// J-28: one request cannot show whether a key is used with exactly one algorithm. A key that is used
/// with both names is accepted, and identifies the same client.
#[test]
fn an_ed25519_key_may_use_both_algorithm_names() {
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
fn use_key_ops_and_alg_must_allow_the_signature() {
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
            "J-8: key_ops with an unknown operation",
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
        ("J-8: an empty key_ops", "key_ops", json!([]), usage),
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
        ("J-8: an encryption alg", "alg", json!("ECDH-ES"), algorithm),
        ("J-8: alg none", "alg", json!("none"), algorithm),
        ("J-8: an empty alg", "alg", json!(""), algorithm),
        ("J-8: alg is not a string", "alg", json!(-7), not_json),
        ("J-8 T-12: a kid", "kid", json!("1"), None),
        (
            "J-8 T-12: a kid that is not a string",
            "kid",
            json!(1),
            None,
        ),
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
fn coordinates_must_have_full_length() {
    let coordinate = ProofError::Key(InvalidJwk::Coordinate);
    let bytes_of = |key: &Key, member: &str| {
        let jwk = key.public_jwk();
        decode_base64url(jwk[member].as_str().unwrap())
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
                ("with a leading zero", [&[0], bytes.as_slice()].concat()),
                ("with a trailing zero", [bytes.as_slice(), &[0]].concat()),
                ("of one byte", vec![4]),
                ("of no bytes", Vec::new()),
                ("repeated", bytes.repeat(2)),
            ] {
                let mut attempt = Attempt::with_key(key.clone());
                attempt.proof_header["jwk"][member] = json!(base64url(changed));
                attempt
                    .outcome_by(&layer_with_every_algorithm())
                    .assert_reason(
                        &format!("J-20 J-24: {member} of {} {name}", key.alg()),
                        coordinate,
                    );
            }
        }
    }
    // Bytes move from one coordinate to the other; x and y together are the same.
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

/// The prime of the P-256 field.
const P256_PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";

/// These keys have the right form. They are rejected when they first verify a signature.
#[test]
fn rejects_points_off_the_curve() {
    let off_curve: &[(&str, ChangeKey)] = &[
        ("J-19: another y", |jwk| jwk["y"] = jwk["x"].clone()),
        ("J-19: zeros", |jwk| {
            (jwk["x"], jwk["y"]) = (json!(base64url([0; 32])), json!(base64url([0; 32])));
        }),
        ("J-19: x is the prime", |jwk| {
            jwk["x"] = json!(base64url(from_hex(P256_PRIME)));
        }),
        ("J-19: y is larger than the prime", |jwk| {
            jwk["y"] = json!(base64url([0xff; 32]));
        }),
    ];
    for (name, change) in off_curve {
        Attempt::but(|a| {
            change(&mut a.proof_header["jwk"]);
            bind_token_to_jwk(a);
        })
        .outcome()
        .assert_reason(name, ProofError::Key(InvalidJwk::Coordinate));
    }
}

#[test]
fn rejects_ed25519_keys_of_small_order_or_in_noncanonical_form() {
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
        ("J-24: the neutral element, with the sign bit", low(1, 0x80)),
        ("J-24: order 4", low(0, 0)),
        ("J-24: order 4, with the sign bit", low(0, 0x80)),
        ("J-24: order 2", edge(0xec, 0x7f)),
        ("J-24: y is the prime", edge(0xed, 0x7f)),
        ("J-24: y is one more than the prime", edge(0xee, 0xff)),
        ("J-24: y is three more than the prime", edge(0xf0, 0x7f)),
        ("J-24: all ones", edge(0xff, 0xff)),
    ] {
        let mut attempt = Attempt::with_key(Key::ed25519("Ed25519"));
        attempt.proof_header["jwk"]["x"] = json!(base64url(x));
        bind_token_to_jwk(&mut attempt);
        attempt
            .outcome()
            .assert_reason(name, ProofError::Key(InvalidJwk::Coordinate));
    }
}

#[test]
fn rsa_numbers_must_be_minimal_and_within_bounds() {
    let key = Key::rsa("PS256");
    let bytes = decode_base64url(key.public_jwk()["n"].as_str().unwrap());
    let integer = InvalidJwk::Integer;
    let size = InvalidJwk::RsaSize;
    let too_large = InvalidJwk::RsaTooLarge;
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
            "J-21: n with a leading zero",
            "n",
            [&[0], bytes.as_slice()].concat(),
            integer,
        ),
        (
            "J-21: e with a leading zero",
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
        ("J-22: 4097 bits", "n", with_first(1, ones(513)), too_large),
        ("J-22: 8192 bits", "n", ones(1024), too_large),
        ("J-23: e is 65539", "e", vec![1, 0, 3], too_large),
        ("J-23: e of 33 bits", "e", vec![1, 0, 0, 0, 1], too_large),
    ];
    for (name, member, number, error) in rows {
        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"][member] = json!(base64url(number));
        attempt
            .outcome()
            .assert_reason(name, ProofError::Key(error));
    }
    // These keys are accepted; the request fails later, because the token is bound to another key.
    for (name, member, number) in [
        ("J-22: 2048 bits", "n", with_first(0x80, ones(256))),
        ("J-22: 4096 bits", "n", ones(512)),
        ("J-23: e is 3", "e", vec![3]),
        ("J-23: e is 65535", "e", vec![0xff, 0xff]),
    ] {
        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"][member] = json!(base64url(number));
        attempt
            .outcome()
            .assert_reason(name, BindingError::OtherKey);
    }
}

/// Decoding a text that is too long for any accepted key would cost time and memory in proportion to it.
#[test]
fn rsa_numbers_that_are_too_long_are_not_decoded() {
    for (name, member, length, error) in [
        ("n", "n", 1368, InvalidJwk::Integer),
        ("a longer n", "n", 1369, InvalidJwk::RsaSize),
        ("a much longer n", "n", 4096, InvalidJwk::RsaSize),
        ("e", "e", 8, InvalidJwk::Integer),
        ("a longer e", "e", 9, InvalidJwk::RsaSize),
        ("a much longer e", "e", 4096, InvalidJwk::RsaSize),
    ] {
        let mut jwk = Key::rsa("PS256").public_jwk();
        jwk[member] = json!("!".repeat(length));
        assert_eq!(jwk.to_string().parse::<Jwk>().err(), Some(error), "{name}");
    }
}

#[test]
fn from_str_is_as_strict_as_for_proofs() {
    let client = keys::client().public_jwk().to_string();
    let with = |members: &str| String::from_utf8(with_members(&client, members)).unwrap();
    for (name, json, error) in [
        (
            "J-12: a repeated member",
            with(r#""kty":"EC""#),
            InvalidJwk::Json,
        ),
        (
            "J-12: a repeated unknown member",
            with(r#""z":1,"z":1"#),
            InvalidJwk::Json,
        ),
        ("J-15: an array", format!("[{client}]"), InvalidJwk::Json),
        ("J-15: two keys", client.repeat(2), InvalidJwk::Json),
        ("J-15: an empty text", String::new(), InvalidJwk::Json),
        (
            "J-3: a private member",
            with(r#""d":null"#),
            InvalidJwk::Private,
        ),
        ("J-4: oct", r#"{"kty":"oct"}"#.into(), InvalidJwk::KeyType),
        (
            "J-4: a JWK Set",
            format!(r#"{{"keys":[{client}]}}"#),
            InvalidJwk::Missing,
        ),
    ] {
        assert_eq!(json.parse::<Jwk>().err(), Some(error), "{name}");
    }
    assert!(client.parse::<Jwk>().is_ok());
}
