//! Which records a replay store has, so that a nonce is valid only with the store that will record the
//! proof.

use std::fmt;

use sha2::{Digest, Sha256};

/// Names the records that a replay store has. It is another one as soon as records may be missing:
/// after a restart of a store in memory, a failover to a replica, or a `FLUSHALL`.
///
/// Nonces are bound to it: [`NonceSource`](crate::proof::NonceSource) issues a nonce for the current epoch
/// and recognises it in this epoch only. So a proof that was made for one store is not accepted with
/// another store, which cannot know whether the proof was used: the client gets 401 `use_dpop_nonce` with
/// a nonce of the current epoch, and clients respond to that without help from the user.
///
/// # Security
///
/// > As long as the jti value is tracked and duplicates are rejected for the lifetime of the nonce, there
/// > is no additional risk of token replay. ([RFC 9449 section
/// > 11.1](https://www.rfc-editor.org/rfc/rfc9449#section-11.1))
///
/// Only the store that accepts a nonce has to track the proofs with it. An epoch ends when its store may
/// have lost a record, and all its nonces end with it. So if nonces are required, no restart, failover or
/// network partition lets a proof be used twice. If they are not required, a proof is accepted again by a
/// store that lost its record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    bytes: [u8; 16],
    store: StoreKind,
}

/// Who uses the replay store of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StoreKind {
    OneProcess,
    Shared,
    Unknown,
}

impl Epoch {
    /// The epoch of a store that cannot tell when it loses records. Nonces are then not bound to the
    /// store, and a proof can be used again after each loss.
    pub const UNKNOWN: Self = Self {
        bytes: [0; 16],
        store: StoreKind::Unknown,
    };

    /// A new epoch, for a store in the memory of this process. Call it once when the store is created.
    ///
    /// # Panics
    ///
    /// Panics if the operating system provides no randomness.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives randomness");
        Self {
            bytes,
            store: StoreKind::OneProcess,
        }
    }

    /// The epoch of a store that several processes share, from anything that names the store and the
    /// records it has: for example, the run id and the replication id of a Redis primary. Equal
    /// identities give equal epochs in all processes.
    pub fn of(identity: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(identity).into();
        Self {
            bytes: std::array::from_fn(|i| hash[i]),
            store: StoreKind::Shared,
        }
    }

    /// The 16 bytes to authenticate in a nonce.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }

    pub(crate) const fn store_kind(&self) -> StoreKind {
        self.store
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Epoch(..)")
    }
}
