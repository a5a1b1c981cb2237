//! ES256 for recurring keys: with a table of multiples of the key's point, a verification becomes two
//! multiplications of fixed points.
//!
//! A client signs thousands of proofs with one key, and an issuer as many tokens. Everything here is
//! public (the key, the signature, the message), so values computed from a key may be kept, and nothing
//! needs to take constant time.
//!
//! # Why it is correct
//!
//! **The computation** follows FIPS 186-5 section 6.4.2 exactly ([`P256Table::verify_digest`]): r and s
//! are rejected outside 1 to n - 1; z is the digest as an integer modulo n; w = s^-1, u1 = zw,
//! u2 = rw modulo n; R = u1 G + u2 Q; infinity is rejected; the signature is valid if the x of R,
//! modulo n, is r. Since n < p < 2n, this means x = r, or x = r + n where r + n < p.
//!
//! **The arithmetic modulo p and n** comes from fiat-crypto. It is generated from a Coq proof that it
//! computes what it states for all inputs below the modulus, with outputs below the modulus. `field.rs`
//! and `scalar.rs` give names to its functions and ensure that the inputs are below the modulus. A
//! residue has one representation, so `==` of limbs is equality of residues. Inverses come from ruint.
//! One is used only if fiat-crypto's product of the two is one, which is the definition of an inverse.
//! There is no other arithmetic on large integers in this folder.
//!
//! **The group law** consists of three functions in `point.rs`. Two are transcribed operation for
//! operation from `Jacobian.v` of the Fiat-Crypto project. There, Coq proves that both are the affine
//! group law for all points of a curve with a = -3, as this one is, including equal points, opposite
//! points and infinity. Callers do not have to avoid any input. The third, [`point::add_each`], is the
//! definition of the group law for points with different x, the line through both. It adds nothing
//! if two have the same x, and the caller then uses the others.
//!
//! **The sum of two multiples** (`comb.rs`). Let L be the number of digits, at least 256, and let u be
//! a scalar. Let v = (u + 2^L - 1) / 2 modulo n. It is below n, so it is below 2^256. Its bits
//! v_0 … v_255, followed by zeros up to L, are the bits of an integer. The digits are d_i = 2 v_i - 1,
//! so each is +1 or -1, and
//!
//! ```text
//! sum of d_i 2^i = 2v - (2^L - 1) = u   (modulo n)
//! ```
//!
//! for every u from 0 to n - 1, without special cases. A multiple of G or Q depends only on the scalar
//! modulo n, because both points have order n: n is prime, and the curve has n points. So u Q is the
//! sum of d_i 2^i Q. For each block, the table holds the sums of the powers of its teeth with every
//! choice of signs in which the sign of the highest is +1. The other sums are the opposites of these.
//! So a row has seven addends, one of each block, three of G and four of Q. Those of all rows are added
//! in pairs, the sums in pairs again, and so on. At the end, the sum is computed by rows, the highest
//! first, with a doubling before each of the other rows (Horner), so every digit i is counted exactly
//! 2^i times. If two points of a pair have the same x, the remaining points of each row are added at the
//! end, where any points can be.
//!
//! **The table** is computed with the same functions, from a point that was checked to be on the
//! curve. An entry is k times the point with k = ±2^a ± 2^b …, eight powers with different exponents up
//! to 248. On the way to it, points are added whose factors are k and m. They have the same x only if
//! k + m or k - m is a multiple of n. Both are sums of this form again, in which one power may be
//! counted three times. They are not 0, because every other term is an even multiple of the lowest
//! power. Their absolute value is below 2^250, hence below n. If two points had the same x nevertheless,
//! there would be no table. The table of G is always the same, and a test compares every entry of it.
//!
//! **Which keys use it.** First, a client's key with which an engine has verified proofs of requests
//! that passed ([`KeyCache`](super::key_cache::KeyCache)). Its table is found by the key's thumbprint,
//! a SHA-256 hash. Second, an issuer's key with which an engine has verified tokens. Its table is
//! stored beside the key ([`LastingKey`](super::recurring_key::LastingKey)). Both need a build with the
//! feature `precomputed-keys`. Without it, this folder is not compiled, and the engine verifies
//! every signature. `Verifier::without_precomputed_keys` and `JwtVerifier::without_precomputed_keys`
//! disable it in a build that has the feature.
//!
//! **What was tested.** `tests.rs`: all of Wycheproof for this curve and hash; signatures with r, s,
//! u1, u2, Q and R at every edge, valid and mutated, compared with AWS-LC and p256, which has complete
//! formulas of another kind (Renes, Costello and Batina); the same as a long run and as a fuzz target.
//!
//! # Sources
//!
//! - FIPS 186-5 section 6.4.2; SP 800-186 section 3.2.1.3 (the curve).
//! - A. Erbsen, J. Philipoom, J. Gross, R. Sloan, A. Chlipala: Simple High-Level Code for
//!   Cryptographic Arithmetic, With Proofs, Without Compromises. IEEE S&P 2019.
//! - The Explicit-Formulas Database, Jacobian coordinates with a = -3: dbl-2001-b, and add-2007-bl with
//!   Z2 = 1.
//! - C. H. Lim, P. J. Lee: More Flexible Exponentiation with Precomputation. CRYPTO '94.

mod limbs;
mod field;
mod scalar;
mod point;
mod comb;

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use self::comb::{Comb, Layout, sum_of_multiples};
use self::field::FieldElement;
use self::limbs::{Limbs, is_below};
use self::point::AffinePoint;
use self::scalar::Scalar;
use crate::jose::jwk::SignatureRejected;

/// The multiples of one key's point. They take [`P256Table::BYTES`] of memory.
pub(crate) struct P256Table {
    generator: &'static Comb,
    key: Comb,
}

impl P256Table {
    /// The memory of one table, in bytes.
    pub(crate) const BYTES: usize = Layout::KEY.bytes();

    /// Takes as long as about four verifications. `None` if the bytes are not a point on the curve.
    ///
    /// The point is `04 ‖ x ‖ y` (SEC 1 section 2.3.3).
    pub(crate) fn new(point: &[u8; 65]) -> Option<Self> {
        Some(Self {
            generator: generator()?,
            key: Comb::new(AffinePoint::from_uncompressed(point)?, &Layout::KEY)?,
        })
    }

    /// Verifies a signature, `r ‖ s` (RFC 7518 section 3.4), of this message by this key.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        let signature = signature.try_into().map_err(|_| SignatureRejected)?;
        self.verify_digest(&Sha256::digest(message).into(), signature)
    }

    /// FIPS 186-5 section 6.4.2, for a message with this digest.
    pub(crate) fn verify_digest(
        &self,
        digest: &[u8; 32],
        signature: &[u8; 64],
    ) -> Result<(), SignatureRejected> {
        let (r, s) = signature.split_first_chunk().ok_or(SignatureRejected)?;
        let r = limbs::from_bytes(r);
        let s = limbs::from_bytes(s.first_chunk().ok_or(SignatureRejected)?);
        // Steps 1 and 2.
        let r_modulo_n = Scalar::new(&r).ok_or(SignatureRejected)?;
        let s = Scalar::new(&s).ok_or(SignatureRejected)?;
        if r_modulo_n == Scalar::ZERO || s == Scalar::ZERO {
            return Err(SignatureRejected);
        }
        // Steps 4 to 7.
        let z = Scalar::reduced(&limbs::from_bytes(digest));
        let w = s.inverted().ok_or(SignatureRejected)?;
        let (u1, u2) = (z.times(w), r_modulo_n.times(w));
        let point = sum_of_multiples((u1, self.generator), (u2, &self.key));
        // Steps 8 to 10.
        let r_modulo_p = FieldElement::new(&r).ok_or(SignatureRejected)?;
        let is_r = point.has_x(r_modulo_p)
            || is_below(&r, &P_MINUS_ORDER) && point.has_x(r_modulo_p.plus(ORDER_MODULO_P));
        if is_r { Ok(()) } else { Err(SignatureRejected) }
    }
}

/// p - n.
const P_MINUS_ORDER: Limbs = [0x0c46_353d_039c_daae, 0x4319_0553_58e8_617b, 0, 0];

/// n, as an element of the field.
const ORDER_MODULO_P: FieldElement = FieldElement::new(&scalar::ORDER).expect("n < p");

/// The multiples of G, computed when the first table is made.
fn generator() -> Option<&'static Comb> {
    static GENERATOR: OnceLock<Option<Comb>> = OnceLock::new();
    GENERATOR
        .get_or_init(|| Comb::new(AffinePoint::GENERATOR, &Layout::GENERATOR))
        .as_ref()
}

#[cfg(test)]
mod tests;
