//! Integers of 256 bits as four limbs of 64, the least significant first: what fiat-crypto takes.

pub(super) type Limbs = [u64; 4];

/// From 32 octets, big-endian.
pub(super) const fn from_octets(octets: &[u8; 32]) -> Limbs {
    let mut limbs = [0; 4];
    let mut i = 0;
    while i < 32 {
        let limb = 3 - i / 8;
        limbs[limb] = limbs[limb] << 8 | octets[i] as u64;
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
