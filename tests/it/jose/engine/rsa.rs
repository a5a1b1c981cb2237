//! RSA.

use common::{Key, KeyExt as _, base64url};
use num_bigint::BigUint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop::Algorithm;
use tower_dpop::jose::InvalidJwk;

use super::Outcome::{NoKey, NotVerified, Verified};
use super::{Signed, bytes, from_bytes, power_of_2};
use crate::jose::keys::{MESSAGE, hex};

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
