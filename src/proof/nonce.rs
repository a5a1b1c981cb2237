//! Nonces that the server issues, so that proofs cannot be made in advance ([RFC 9449 sections 8
//! and 9](https://www.rfc-editor.org/rfc/rfc9449#section-8)).
//!
//! These nonces are stateless: a nonce is its issue time, authenticated by a MAC, which also covers the
//! epoch of the replay store. Every node that has the secret and uses the same store accepts the nonces
//! of every other node. [`Freshness`] decides whether the issue time is acceptable.
//!
//! ```text
//! nonce = base64url( key id (4 bytes) ‖ issued, seconds (8 bytes) ‖
//!                    HMAC-SHA-256(secret, label ‖ key id ‖ epoch (16 bytes) ‖ issued)[..16] )
//! ```

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use http::header::{CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue};
use sha2::Sha256;

use crate::jose::base64url;
use crate::proof::freshness::{Freshness, NonceAge, NonceAgeError};
use crate::proof::nonce_secret::{NonceSecret, NonceSecrets};
use crate::proof::replay::epoch::Epoch;
use crate::sync::RwLock;
use crate::time::Timestamp;

/// The header field that carries a nonce to the client
/// ([RFC 9449 section 8.1](https://www.rfc-editor.org/rfc/rfc9449#section-8.1)).
///
/// ```text
/// nonce  = 1*NQCHAR
/// NQCHAR = %x21 / %x23-5B / %x5D-7E
///
/// DPoP-Nonce: eyJ7S_zG.eyJH0-Z.HX4w-7v
/// ```
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Issues nonces, and recognises the nonces it has issued. Whether a nonce is too old is not its
/// decision but that of [`Freshness`].
///
/// # Security
///
/// A nonce that was issued for one [`Epoch`] must not be recognised in another: the replay store of the
/// other epoch cannot know whether a proof with this nonce was used. A source that ignores the epoch
/// allows a replay after each restart of a store in memory, and one on each node that has its own store.
///
/// # Example
///
/// [`StatelessNonces`], the source of this crate, is behind every other that only adds something to it:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tower_dpop::proof::{Epoch, Nonce, NonceSource};
/// use tower_dpop::{NonceSecret, StatelessNonces, Timestamp};
///
/// /// Counts the nonces that are not its own, or no longer.
/// struct Counted(StatelessNonces, AtomicU64);
///
/// impl NonceSource for Counted {
///     fn issue(&self, issued: Timestamp, epoch: Epoch) -> Nonce {
///         self.0.issue(issued, epoch)
///     }
///
///     fn issued_at(&self, nonce: &str, epoch: Epoch) -> Option<Timestamp> {
///         let issued = self.0.issued_at(nonce, epoch);
///         if issued.is_none() {
///             self.1.fetch_add(1, Ordering::Relaxed);
///         }
///         issued
///     }
/// }
///
/// let nonces = Counted(StatelessNonces::new(NonceSecret::generate()), AtomicU64::new(0));
/// assert_eq!(nonces.issued_at("foreign", Epoch::UNKNOWN), None);
/// assert_eq!(nonces.1.into_inner(), 1);
/// ```
pub trait NonceSource: Send + Sync {
    /// Returns a nonce for this epoch with this issue time: the start of the current nonce period, which
    /// is the same for all nonces of a period. Equal arguments may give equal nonces.
    fn issue(&self, issued: Timestamp, epoch: Epoch) -> Nonce;

    /// Returns the issue time if this source (or a node that shares its secret) issued the nonce for
    /// this epoch.
    fn issued_at(&self, nonce: &str, epoch: Epoch) -> Option<Timestamp>;
}

/// A source shared by several servers.
impl<N: NonceSource + ?Sized> NonceSource for Arc<N> {
    fn issue(&self, issued: Timestamp, epoch: Epoch) -> Nonce {
        N::issue(self, issued, epoch)
    }

    fn issued_at(&self, nonce: &str, epoch: Epoch) -> Option<Timestamp> {
        N::issued_at(self, nonce, epoch)
    }
}

/// A nonce: one or more visible ASCII characters except `"` and `\` (RFC 9449 section 8.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(HeaderValue);

impl Nonce {
    /// The value of a `DPoP-Nonce` field.
    pub fn as_header_value(&self) -> &HeaderValue {
        &self.0
    }

    /// The nonce as a proof repeats it.
    #[expect(
        clippy::missing_panics_doc,
        reason = "no value exists that is not visible ASCII"
    )]
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("a nonce is visible ASCII")
    }

    /// Sets `DPoP-Nonce`, replacing any other, and `Cache-Control: no-store` (RFC 9449 section
    /// 8.2).
    pub fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(DPOP_NONCE, self.0.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

impl FromStr for Nonce {
    type Err = InvalidNonce;

    fn from_str(nonce: &str) -> Result<Self, InvalidNonce> {
        let well_formed = !nonce.is_empty()
            && nonce
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
        if well_formed {
            HeaderValue::from_str(nonce)
                .map(Self)
                .map_err(|_| InvalidNonce)
        } else {
            Err(InvalidNonce)
        }
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// The text does not follow the grammar of nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a nonce: expected one or more visible ASCII characters except quotes and backslashes")]
pub struct InvalidNonce;

/// Nonces without state: each is an issue time with a MAC, so all nodes with the same secret and the same
/// replay store accept it. [`Freshness::with_nonce_period`] sets for how long; by default, for two to four
/// minutes.
///
/// The MAC also covers the [`Epoch`] of the replay store, so a proof passes only with the store that will
/// remember it. With a nonce of another store, or from before a restart, a client gets 401
/// `use_dpop_nonce` and repeats the request with the new nonce, but most clients do so only once. So
/// behind a load balancer that spreads the requests of one client over several nodes, use a shared store,
/// or send all requests with one token to the same node ([the guide](crate::guide::several_nodes#affinity) shows
/// how, with nginx).
/// [`with_insecure_one_use_per_node`](crate::ProofRules::with_insecure_one_use_per_node) gives up the
/// protection instead.
///
/// Clones share their secrets, which can be replaced while the server runs:
/// [the steps of a rotation](crate::guide::several_nodes#rotation-without-a-restart).
///
/// # Example
///
/// ```
/// use tower_dpop::{NonceSecrets, ProofRules, StatelessNonces};
///
/// # fn example(rules: ProofRules) -> Result<(), tower_dpop::proof::InvalidNonceSecrets> {
/// // For one node alone, use `NonceSecret::generate()`.
/// let nonces = StatelessNonces::new(NonceSecrets::from_file("/etc/dpop/nonce-secrets")?);
/// let rules = rules.with_nonces(nonces.clone()); // every proof then needs one
///
/// // Later, when the file has changed:
/// nonces.replace_secrets(NonceSecrets::from_file("/etc/dpop/nonce-secrets")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StatelessNonces {
    secrets: Arc<RwLock<Arc<NonceSecrets>>>,
}

impl StatelessNonces {
    /// Issues and accepts nonces under these secrets, or under this one.
    pub fn new(secrets: impl Into<NonceSecrets>) -> Self {
        Self {
            secrets: Arc::new(RwLock::new(Arc::new(secrets.into()))),
        }
    }

    /// Replaces the secrets of this source and of all its clones, at once: each nonce is issued or
    /// checked under either the old secrets or the new ones. A nonce of a secret that is not among the
    /// new ones is rejected from now on, with a new nonce in the response.
    pub fn replace_secrets(&self, secrets: impl Into<NonceSecrets>) {
        let secrets = Arc::new(secrets.into());
        *self.secrets.write() = secrets;
    }

    /// The secrets at this moment. The lock is held for no longer than it takes to clone an `Arc`.
    fn secrets(&self) -> Arc<NonceSecrets> {
        Arc::clone(&self.secrets.read())
    }
}

impl NonceSource for StatelessNonces {
    fn issue(&self, issued: Timestamp, epoch: Epoch) -> Nonce {
        let issued = issued.as_unix().to_be_bytes();
        let secrets = self.secrets();
        let tag = secrets.issuing.mac(epoch, issued).finalize().into_bytes();
        let mut bytes = [0; NONCE_LENGTH];
        bytes[..4].copy_from_slice(&secrets.issuing.id);
        bytes[4..12].copy_from_slice(&issued);
        bytes[12..].copy_from_slice(&tag[..TAG_LENGTH]);
        base64url::encode(bytes)
            .parse()
            .expect("base64url has no character that a nonce may not have")
    }

    fn issued_at(&self, nonce: &str, epoch: Epoch) -> Option<Timestamp> {
        let bytes: [u8; NONCE_LENGTH] = base64url::decode_exact(nonce)?;
        let (id, rest) = bytes.split_first_chunk::<4>()?;
        let (issued, tag) = rest.split_first_chunk::<8>()?;
        let secrets = self.secrets();
        let secret = secrets.all().find(|secret| secret.id == *id)?;
        // Constant-time comparison: the tag is what an attacker would have to guess.
        let mac = secret.mac(epoch, *issued);
        mac.verify_truncated_left(tag).ok()?;
        Some(Timestamp::from_unix(u64::from_be_bytes(*issued)))
    }
}

impl fmt::Debug for StatelessNonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatelessNonces")
            .field("accepted", &self.secrets().all().count())
            .finish_non_exhaustive()
    }
}

/// 128 bits: an attacker who forges nonces has one guess per request.
const TAG_LENGTH: usize = 16;
const NONCE_LENGTH: usize = 4 + 8 + TAG_LENGTH;

impl NonceSecret {
    /// Each part has a fixed length, so different parts never give the same input.
    fn mac(&self, epoch: Epoch, issued: [u8; 8]) -> Hmac<Sha256> {
        self.keyed
            .clone()
            .chain_update("tower-dpop nonce")
            .chain_update(self.id)
            .chain_update(epoch.as_bytes())
            .chain_update(issued)
    }
}

/// Whether nonces are required: from no client, or from every client (RFC 9449 section 11.3 leaves
/// no other choice to a server that keeps no state per client).
#[derive(Clone, Default)]
pub(crate) struct NoncePolicy {
    source: Option<Arc<dyn NonceSource>>,
    /// The same source, if it is of this type and not inside another.
    stateless: Option<StatelessNonces>,
    binding: NonceBinding,
}

/// What nonces are bound to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum NonceBinding {
    #[default]
    ReplayStore,
    Nothing,
}

impl NoncePolicy {
    pub(crate) fn require(&mut self, source: impl NonceSource + 'static) {
        self.stateless = (&source as &dyn Any).downcast_ref().cloned();
        self.source = Some(Arc::new(source));
    }

    pub(crate) fn are_required(&self) -> bool {
        self.source.is_some()
    }

    /// Whether no other process has the secret, as far as the source is known.
    pub(crate) fn secret_is_generated(&self) -> bool {
        let stateless = self.stateless.as_ref();
        stateless.is_some_and(|nonces| nonces.secrets().issuing.is_generated)
    }

    pub(crate) const fn bind_to(&mut self, binding: NonceBinding) {
        self.binding = binding;
    }

    pub(crate) const fn binding(&self) -> NonceBinding {
        self.binding
    }

    /// Whether the source recognises a nonce in another epoch than that for which it was issued, as a source
    /// outside this crate may do. It is tried with a new nonce.
    pub(crate) fn source_ignores_epoch(&self, epoch: Epoch, now: Timestamp) -> bool {
        self.source.as_ref().is_some_and(|source| {
            let nonce = source.issue(now, epoch);
            let other = Epoch::of(b"the epoch of no store");
            source.issued_at(nonce.as_str(), other).is_some()
        })
    }

    /// The epoch for which nonces are issued and recognised while this is the replay store's.
    const fn bound_to(&self, epoch: Epoch) -> Epoch {
        match self.binding {
            NonceBinding::ReplayStore => epoch,
            NonceBinding::Nothing => Epoch::UNKNOWN,
        }
    }

    /// RFC 9449 section 4.3, check 10. If nonces are not required, a nonce in the proof is ignored.
    pub(crate) fn check(
        &self,
        nonce: Option<&str>,
        freshness: &Freshness,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<AcceptedNonce, NonceError> {
        let Some(source) = &self.source else {
            return Ok(AcceptedNonce::default());
        };
        let issued = source
            .issued_at(nonce.ok_or(NonceError::Missing)?, self.bound_to(epoch))
            .ok_or(NonceError::Foreign)?;
        let next = match freshness.check_nonce(issued, now) {
            Ok(NonceAge::Young) => None,
            Ok(NonceAge::NearItsEnd) => self.issue(freshness, epoch, now),
            Err(NonceAgeError::InTheFuture) => return Err(NonceError::InTheFuture),
            Err(NonceAgeError::Stale) => return Err(NonceError::Stale),
        };
        Ok(AcceptedNonce {
            issued: Some(issued),
            next,
        })
    }

    /// The nonce to send now, if nonces are required.
    pub(crate) fn issue(
        &self,
        freshness: &Freshness,
        epoch: Epoch,
        now: Timestamp,
    ) -> Option<Nonce> {
        self.issue_with(freshness.nonce_issue_time(now), epoch)
    }

    /// A nonce with this issue time, if nonces are required.
    pub(crate) fn issue_with(&self, issued: Timestamp, epoch: Epoch) -> Option<Nonce> {
        let source = self.source.as_ref()?;
        Some(source.issue(issued, self.bound_to(epoch)))
    }
}

/// The result of checking a proof's nonce.
#[derive(Default)]
pub(crate) struct AcceptedNonce {
    /// When the nonce was issued, if nonces are required.
    pub(crate) issued: Option<Timestamp>,
    /// The nonce to use next, if this one is near the end of its lifetime.
    pub(crate) next: Option<Nonce>,
}

/// Why a nonce was rejected. The response is the same in every case: `use_dpop_nonce` and a fresh
/// nonce (RFC 9449 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NonceError {
    /// The nonce was not issued by this server, or was issued for another [`Epoch`] of its replay store,
    /// or was tampered with.
    #[error("the nonce of the DPoP proof was not issued by this server")]
    Foreign,
    /// The issue time is in the future by more than the leeway.
    #[error("the nonce of the DPoP proof is from the future")]
    InTheFuture,
    /// The proof has no nonce, or the request has no proof.
    #[error("the DPoP proof has no nonce")]
    Missing,
    /// The nonce was issued by this server, but its lifetime has ended.
    #[error("the nonce of the DPoP proof is stale")]
    Stale,
}

impl NonceError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Foreign => "nonce_foreign",
            Self::InTheFuture => "nonce_in_the_future",
            Self::Missing => "nonce_missing",
            Self::Stale => "nonce_stale",
        }
    }
}
