//! Functions that only the targets in `fuzz/` call. This module exists only under `--cfg fuzzing`,
//! which cargo-fuzz sets.

use crate::jose::p256_table::P256Table;

/// Verifies with a table, as for a recurring key, but without the eight requests before it.
pub struct PrecomputedKey(P256Table);

impl PrecomputedKey {
    /// Reads `04 ‖ x ‖ y`. `None` if it is not a point on the curve.
    pub fn new(point: &[u8; 65]) -> Option<Self> {
        P256Table::new(point).map(Self)
    }

    /// Whether `r ‖ s` is a valid signature of a message with this digest.
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        self.0.verify_digest(digest, signature).is_ok()
    }
}

impl std::fmt::Debug for PrecomputedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrecomputedKey(..)")
    }
}
