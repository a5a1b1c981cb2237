//! A parsed key that verifies many signatures. The engine verifies, and nothing is precomputed, unless
//! the feature `precomputed-keys` is enabled. Then a key gets a table after it has been used a few times.

#[cfg(feature = "precomputed-keys")]
use std::sync::OnceLock;
#[cfg(feature = "precomputed-keys")]
use std::sync::atomic::{AtomicU32, Ordering};

use crate::jose::algorithm::Algorithm;
use crate::jose::engine::{KeyRejected, VerificationKey};
#[cfg(feature = "precomputed-keys")]
use crate::jose::jwk::Material;
use crate::jose::jwk::{Jwk, SignatureRejected};
#[cfg(feature = "precomputed-keys")]
use crate::jose::p256_table::P256Table;

/// A key that counts its uses. Its owner decides what counts as a use, and where the table is stored.
pub(crate) struct RecurringKey {
    key: VerificationKey,
    /// The point that a table is computed from. `None` for algorithms other than ES256.
    #[cfg(feature = "precomputed-keys")]
    point: Option<Box<[u8; 65]>>,
    #[cfg(feature = "precomputed-keys")]
    served: AtomicU32,
}

/// A table costs as much as it saves in about seven verifications, so it is made for a key that has
/// been used about that often. If the table was not kept, it is made again only after twice as many
/// uses.
#[cfg(feature = "precomputed-keys")]
const USES_BEFORE_TABLE: u32 = 8;

impl RecurringKey {
    pub(crate) fn parse(jwk: &Jwk, algorithm: Algorithm) -> Result<Self, KeyRejected> {
        Ok(Self {
            key: VerificationKey::parse(jwk, algorithm)?,
            #[cfg(feature = "precomputed-keys")]
            point: match (algorithm, jwk.material()) {
                (Algorithm::Es256, Material::P256(point)) => Some(Box::new(*point)),
                _ => None,
            },
            #[cfg(feature = "precomputed-keys")]
            served: AtomicU32::new(0),
        })
    }

    /// Verifies with the engine.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        self.key.verify(message, signature)
    }

    /// Counts one use, and makes the key's table if it is due.
    #[cfg(feature = "precomputed-keys")]
    pub(crate) fn served(&self) -> Option<P256Table> {
        let point = self.point.as_ref()?;
        let served = self
            .served
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if served >= USES_BEFORE_TABLE && served.is_power_of_two() {
            P256Table::new(point)
        } else {
            None
        }
    }
}

/// A key that stores its own table: an issuer's key. Issuers' keys are few, and the service trusts
/// them. Only valid signatures count as uses.
#[cfg(feature = "precomputed-keys")]
pub(crate) struct LastingKey {
    key: RecurringKey,
    table: OnceLock<P256Table>,
}

#[cfg(feature = "precomputed-keys")]
impl LastingKey {
    pub(crate) fn parse(jwk: &Jwk, algorithm: Algorithm) -> Result<Self, KeyRejected> {
        Ok(Self {
            key: RecurringKey::parse(jwk, algorithm)?,
            table: OnceLock::new(),
        })
    }

    /// Verifies with the table, if there is one.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        if let Some(table) = self.table.get() {
            return table.verify(message, signature);
        }
        self.key.verify(message, signature)?;
        if let Some(table) = self.key.served() {
            // Another thread may have set it first.
            let _ = self.table.set(table);
        }
        Ok(())
    }

    pub(crate) fn verify_by_engine(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRejected> {
        self.key.verify(message, signature)
    }
}

/// An issuer's key.
#[cfg(not(feature = "precomputed-keys"))]
pub(crate) type LastingKey = RecurringKey;
