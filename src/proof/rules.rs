//! The steps that the resource server and the authorization server take alike: what either asks of
//! a proof, and the memory of proofs that were used.
//!
//! [`Verifier::verify`](crate::resource::verifier::Verifier::verify) and the token endpoint's `verify` say in
//! which order the steps are taken.

use std::fmt;

use http::request::Parts;

use crate::credentials::{PresentedToken, ProofField};
use crate::jose::algorithm::Algorithms;
use crate::jose::key_cache::{DEFAULT_TABLE_OCTETS, KeyCache};
use crate::proof::checks::{ClaimedProof, Expected, Proof, ProofError};
use crate::proof::freshness::Freshness;
use crate::proof::nonce::{AcceptedNonce, Nonce, NonceError, NoncePolicy};
use crate::proof::replay::memory::MemoryReplayStore;
use crate::proof::replay::store::{Claim, ReplayKey, ReplayStore, ReplayStoreError};
use crate::proof::target::{PublicUrl, Target, TargetError, Targets};
use crate::telemetry;
use crate::time::{Clock, Timestamp};

/// What one server asks of every proof.
pub(crate) struct ProofPolicy<R> {
    pub(crate) targets: Targets,
    pub(crate) algorithms: Algorithms,
    pub(crate) freshness: Freshness,
    pub(crate) nonces: NoncePolicy,
    pub(crate) clock: Clock,
    keys: KeyCache,
    replays: R,
}

impl ProofPolicy<MemoryReplayStore> {
    /// Every check on, with its default.
    pub(crate) fn new(public_url: PublicUrl) -> Self {
        Self {
            targets: Targets::new(public_url),
            algorithms: Algorithms::default(),
            freshness: Freshness::default(),
            nonces: NoncePolicy::default(),
            clock: Clock::default(),
            keys: KeyCache::with_tables(DEFAULT_TABLE_OCTETS),
            replays: MemoryReplayStore::default(),
        }
    }
}

impl<R> ProofPolicy<R> {
    pub(crate) fn with_replay_store<S>(self, replays: S) -> ProofPolicy<S> {
        ProofPolicy {
            targets: self.targets,
            algorithms: self.algorithms,
            freshness: self.freshness,
            nonces: self.nonces,
            clock: self.clock,
            keys: self.keys,
            replays,
        }
    }

    /// Remembers the clients' keys anew, with tables of at most this many octets.
    pub(crate) fn with_precomputed_keys(self, octets: u64) -> Self {
        Self {
            keys: KeyCache::with_tables(octets),
            ..self
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the proof of this request must say.
    pub(crate) fn target<'t>(&'t self, request: &'t Parts) -> Result<Target<'t>, TargetError> {
        self.targets.of(request)
    }

    /// The checks of the proof's form and claims.
    pub(crate) fn read<'r>(
        &self,
        field: ProofField<'r>,
        target: &Target<'_>,
        now: Timestamp,
    ) -> Result<ClaimedProof<'r>, PolicyError> {
        let expected = Expected {
            algorithms: self.algorithms,
            target,
            freshness: &self.freshness,
            nonces_required: self.nonces.are_required(),
            now,
        };
        ClaimedProof::read(field, &expected).map_err(|error| match error {
            // A client without a proof would be asked for a nonce next: it is told at once (RFC
            // 9449 sections 8 and 9).
            ProofError::Missing if self.nonces.are_required() => NonceError::Missing.into(),
            error => error.into(),
        })
    }

    /// The nonce (RFC 9449 section 4.3, check 10).
    pub(crate) fn check_nonce<T>(
        &self,
        proof: &ClaimedProof<'_, T>,
        now: Timestamp,
    ) -> Result<AcceptedNonce, NonceError> {
        self.nonces.check(proof.nonce(), &self.freshness, now)
    }

    /// The signature (RFC 9449 section 4.3, check 6).
    pub(crate) fn verify_signature<T>(
        &self,
        proof: ClaimedProof<'_, T>,
    ) -> Result<Proof<T>, ProofError> {
        proof.verify_signature(&self.keys)
    }

    /// What is left to do for a request that has passed, with a token. Its parsed key is kept for the
    /// client's next request: a stranger's keys must not push out those of clients.
    pub(crate) fn conclude(&self, proof: &Proof<PresentedToken<'_>>, now: Timestamp) {
        proof.remember_key(&self.keys);
        let skew_seconds = now.as_numeric_date() - proof.iat();
        telemetry::decision("accepted", "dpop", "none");
        telemetry::clock_skew("accepted", skew_seconds);
        tracing::debug!(target: "tower_dpop", scheme = "dpop", algorithm = %proof.algorithm(), skew_seconds, "request accepted");
    }

    /// The nonce to give out now, where nonces are required.
    pub(crate) fn issue_nonce(&self) -> Option<Nonce> {
        self.nonces.issue(&self.freshness, self.now())
    }
}

impl<R: ReplayStore> ProofPolicy<R> {
    /// The proof's one use. The last step: a request that is refused by another one keeps its
    /// proof.
    pub(crate) async fn spend<T>(
        &self,
        proof: &Proof<T>,
        nonce_issued: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), PolicyError> {
        let key = ReplayKey::new(proof.thumbprint(), proof.jti());
        let expires = self.freshness.accepted_until(proof.iat(), nonce_issued);
        // What has run out while keys were fetched, or a client was looked at, takes no place.
        if self.now() > expires {
            return Err(ProofError::Expired.into());
        }
        match self.replays.claim(key, now, expires).await? {
            Claim::Replayed => Err(ProofError::Replayed.into()),
            // A store was waited for meanwhile, so long that the record of an earlier use may have
            // been dropped before the claim was made.
            Claim::First if self.now() > expires => Err(ProofError::Expired.into()),
            Claim::First => Ok(()),
        }
    }
}

impl<R> fmt::Debug for ProofPolicy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofPolicy")
            .field("algorithms", &self.algorithms.to_string())
            .field("freshness", &self.freshness)
            .field("nonces_required", &self.nonces.are_required())
            .finish_non_exhaustive()
    }
}

/// Why a step that can fail in several ways failed. Each server has its own answer to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error(transparent)]
    Nonce(#[from] NonceError),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Replay(#[from] ReplayStoreError),
}
