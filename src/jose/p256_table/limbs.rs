//! 256-bit integers as four 64-bit limbs, the least significant first, as fiat-crypto takes them.

use ruint::aliases::U256;

pub(super) type Limbs = [u64; 4];

/// From 32 bytes, big-endian.
pub(super) const fn from_bytes(bytes: &[u8; 32]) -> Limbs {
    let mut limbs = [0; 4];
    let mut i = 0;
    while i < 32 {
        let limb = 3 - i / 8;
        limbs[limb] = limbs[limb] << 8 | bytes[i] as u64;
        i += 1;
    }
    limbs
}

/// Whether the first integer is below the second.
pub(super) const fn is_below(a: &Limbs, b: &Limbs) -> bool {
    let mut i = 4;
    while i > 0 {
        i -= 1;
        if a[i] != b[i] {
            return a[i] < b[i];
        }
    }
    false
}

/// What should be the inverse, but need not be trusted: the caller multiplies.
pub(super) fn unchecked_inverse(integer: &Limbs, modulus: &Limbs) -> Option<Limbs> {
    let inverse = U256::from_limbs(*integer).inv_mod(U256::from_limbs(*modulus))?;
    Some(inverse.into_limbs())
}
