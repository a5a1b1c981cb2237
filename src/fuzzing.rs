//! What only the targets of `fuzz/` call: this module exists under `--cfg fuzzing`, as cargo-fuzz sets
//! it.

use crate::jose::p256_table::P256Table;

/// The verification by multiples that recurring keys have, without the eight requests before it.
pub struct PrecomputedKey(P256Table);

impl PrecomputedKey {
    /// From `04 ‖ x ‖ y`, if that is a point of the curve.
    pub fn new(point: &[u8; 65]) -> Option<Self> {
        P256Table::new(point).map(Self)
    }

    /// Whether `r ‖ s` is a signature of a message of this digest.
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        self.0.verify_digest(digest, signature).is_ok()
    }
}

impl std::fmt::Debug for PrecomputedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrecomputedKey(..)")
    }
}
