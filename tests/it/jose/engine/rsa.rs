//! RSA keys and signatures.

use common::{Key, KeyExt as _, base64url};
use num_bigint::BigUint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop::Algorithm;
use tower_dpop::jose::InvalidJwk;

use super::Verification::{InvalidKey, InvalidSignature, Verified};
use super::{Signed, bytes, from_bytes, power_of_2};
use crate::jose::keys::{MESSAGE, hex};

/// An RSA key whose n is a Mersenne prime, 2^bits - 1, so that d is easy to compute.
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
        let d = e
            .modinv(&(&n - 1_u8))
            .expect("e and n - 1 have no common factor");
        Self { bits, n, e, d }
    }

    /// Signs an encoded message without checking it.
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

fn rsa_jwk(n: &BigUint, e: &BigUint) -> Value {
    json!({ "kty": "RSA", "n": base64url(n.to_bytes_be()), "e": base64url(e.to_bytes_be()) })
}

/// A signature s, and a key that is computed from it: e is 3, and n is s^3 - encoded, with exactly this many
/// bits.
fn signed_by_computed_key(bits: u32, algorithm: Algorithm, encoded: &BigUint) -> Signed {
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

/// EMSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 9.2), for a modulus of this many bits.
fn pkcs1_encoded(bits: u32) -> BigUint {
    let info = hex("3031300d060960864801650304020105000420");
    let ones = bits.div_ceil(8) as usize - 3 - info.len() - 32;
    let hash = Sha256::digest(MESSAGE).to_vec();
    from_bytes(&[vec![0, 1], vec![0xff; ones], vec![0], info, hash].concat())
}

/// EMSA-PSS with SHA-256 (RFC 8017 section 9.1.1), for a modulus of this many bits.
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

/// The message as RS256 or PS256 encodes it.
fn encoded(algorithm: Algorithm, bits: u32) -> BigUint {
    match algorithm {
        Algorithm::Rs256 => pkcs1_encoded(bits),
        _ => pss_encoded(bits, 32),
    }
}

#[test]
fn an_rsa_key_must_have_2048_to_8192_bits() {
    for bits in [2048, 2049, 2050, 2055, 2056, 3072, 4095, 8191, 8192] {
        for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
            let signed = signed_by_computed_key(bits, algorithm, &encoded(algorithm, bits));
            let result = signed.verify();
            assert_eq!(result, Verified, "J-22: {bits} bits, {algorithm}");
        }
    }
    // Keys of other sizes are rejected before any arithmetic, so huge ones cost nothing.
    for bits in [512_u32, 1024, 2040, 2047, 8193, 8200, 16_384, 8_000_000] {
        let mut signed = Signed::by(&Key::rsa("RS256"));
        let n = power_of_2(bits - 1) + 1_u8;
        assert_eq!(n.bits(), u64::from(bits));
        signed.jwk = rsa_jwk(&n, &BigUint::from(65_537_u32));
        let result = signed.verify();
        assert_eq!(result, InvalidKey(InvalidJwk::RsaSize), "J-22: {bits} bits");
    }
}

#[test]
fn an_rsa_exponent_must_be_odd_at_least_3_and_at_most_33_bits() {
    for e in [17, 65_537, (1 << 32) + 15, (1 << 33) - 9] {
        let key = MersenneKey::new(2203, e);
        for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
            let signed = key.signed(algorithm, &encoded(algorithm, key.bits));
            let result = signed.verify();
            assert_eq!(result, Verified, "J-23: e is {e}, {algorithm}");
        }
    }
    let signed = Signed::by(&Key::rsa("RS256"));
    let n = signed.member("n");
    let (integer, size) = (
        InvalidKey(InvalidJwk::Integer),
        InvalidKey(InvalidJwk::RsaSize),
    );
    for (name, e, expected) in [
        ("J-23: unchanged", vec![1, 0, 1], Verified),
        ("J-23: 3, with a key for 65537", vec![3], InvalidSignature),
        ("J-23: 0", vec![0], integer),
        ("J-23: 1", vec![1], integer),
        ("J-23: 2", vec![2], integer),
        ("J-23: even", vec![1, 0, 0], integer),
        ("J-23: empty", vec![], integer),
        ("J-23: 34 bits", vec![2, 0, 0, 0, 1], size),
        ("J-23: 64 bits", vec![0xff; 8], size),
        ("J-23: n", n.clone(), size),
        ("J-21: with a leading zero byte", vec![0, 1, 0, 1], integer),
        (
            "J-21: with many leading zero bytes",
            vec![0, 0, 0, 1, 1],
            integer,
        ),
    ] {
        signed.assert_member(name, "e", Some(e), expected);
    }
    signed.assert_member(
        "J-23: absent",
        "e",
        None::<&[u8]>,
        InvalidKey(InvalidJwk::Missing),
    );

    // With e = 1, a signature is the encoded message itself, so anyone could forge one.
    let key = MersenneKey::new(2203, 1);
    let forged = key.signed(Algorithm::Rs256, &pkcs1_encoded(key.bits));
    assert_eq!(
        forged.verify(),
        integer,
        "J-23: e is 1, and the signature matches"
    );
}

#[test]
fn an_rsa_modulus_must_be_odd_and_minimal() {
    let signed = Signed::by(&Key::rsa("RS256"));
    let n = signed.member("n");
    let even = bytes(&(from_bytes(&n) - 1_u8), n.len());
    let integer = InvalidKey(InvalidJwk::Integer);
    for (name, n, expected) in [
        ("J-21: unchanged", Some(n.clone()), Verified),
        (
            "J-21: with a leading zero byte",
            Some([&[0], &n[..]].concat()),
            integer,
        ),
        ("J-21: even", Some(even), integer),
        ("J-21: empty", Some(Vec::new()), integer),
        ("J-21: all zero", Some(vec![0; 256]), integer),
        ("J-21: absent", None, InvalidKey(InvalidJwk::Missing)),
    ] {
        signed.assert_member(name, "n", n, expected);
    }

    // Twice a prime is an even modulus, and signs like any other.
    let key = MersenneKey::new(2203, 65_537);
    let even = MersenneKey {
        n: &key.n * 2_u8,
        ..key
    };
    let encoded = pkcs1_encoded(even.bits + 1);
    let result = even.signed(Algorithm::Rs256, &encoded).verify();
    assert_eq!(result, integer, "J-21: even, and the signature matches");
}

/// RFC 8017 sections 5.2.2, 8.1.2 and 8.2.2, step 1 of each.
#[test]
fn an_rsa_signature_must_be_below_the_modulus_and_as_long() {
    let key = MersenneKey::new(2203, 65_537);
    for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
        let message = encoded(algorithm, key.bits);
        let signed = key.signed(algorithm, &message);
        let length = signed.signature.len();
        let s = from_bytes(&signed.signature);
        for (name, signature, expected) in [
            ("RSA: s", bytes(&s, length), Verified),
            (
                "RSA: s + n",
                bytes(&(&s + &key.n), length),
                InvalidSignature,
            ),
            (
                "RSA: n - s",
                bytes(&(&key.n - &s), length),
                InvalidSignature,
            ),
            ("RSA: n", bytes(&key.n, length), InvalidSignature),
            ("RSA: 0", vec![0; length], InvalidSignature),
            ("RSA: all bits set", vec![0xff; length], InvalidSignature),
            (
                "RSA: the encoded message",
                bytes(&message, length),
                InvalidSignature,
            ),
            (
                "RSA: one byte too long",
                bytes(&s, length + 1),
                InvalidSignature,
            ),
            ("RSA: empty", Vec::new(), InvalidSignature),
        ] {
            signed.assert_signature(name, signature, expected);
        }
        // This s starts with zero bytes, so that without the first one only the length is wrong.
        let small = signed_by_computed_key(2048, algorithm, &encoded(algorithm, 2048));
        assert_eq!(small.verify(), Verified);
        small.assert_signature(
            "RSA: one byte too short",
            &small.signature[1..],
            InvalidSignature,
        );
    }
}

#[test]
fn a_pss_salt_must_be_as_long_as_the_hash() {
    let key = MersenneKey::new(2203, 65_537);
    let longest = 276 - 32 - 2;
    for (salt, expected) in [
        (32, Verified),
        (0, InvalidSignature),
        (20, InvalidSignature),
        (31, InvalidSignature),
        (33, InvalidSignature),
        (48, InvalidSignature),
        (64, InvalidSignature),
        (longest, InvalidSignature),
    ] {
        let signed = key.signed(Algorithm::Ps256, &pss_encoded(key.bits, salt));
        assert_eq!(signed.verify(), expected, "J-25: {salt} bytes of salt");
    }
}

/// With a modulus of 8 k + 1 bits, there is one more byte before the encoded message. It must be zero (RFC 8017
/// section 8.1.2, step 2c).
#[test]
fn the_byte_before_a_pss_message_must_be_zero() {
    let key = MersenneKey::new(2281, 65_537);
    let encoded = pss_encoded(key.bits, 32);
    let longer = power_of_2(key.bits - 1) + &encoded;
    for (name, encoded, expected) in [
        ("J-25: a byte of 0 before the message", encoded, Verified),
        (
            "J-25: a byte of 1 before the message",
            longer,
            InvalidSignature,
        ),
    ] {
        let result = key.signed(Algorithm::Ps256, &encoded).verify();
        assert_eq!(result, expected, "{name}");
    }
}
