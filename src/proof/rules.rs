//! What a server asks of every proof, and the steps that the resource server and the authorization
//! server take alike.
//!
//! `Verifier::verify_dpop` and `TokenEndpoint::check` say in which order the steps are taken.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;

use crate::credentials::ProofField;
use crate::jose::algorithm::Algorithms;
use crate::proof::checks::{ClaimedProof, Expected, Proof, ProofError};
use crate::proof::freshness::Freshness;
use crate::proof::nonce::{AcceptedNonce, Nonce, NonceError, NoncePolicy, NonceSource};
use crate::proof::replay::memory::MemoryReplayStore;
use crate::proof::replay::store::{
    AnyReplayStore, Claim, ReplayKey, ReplayStore, ReplayStoreError,
};
use crate::proof::target::{PublicUrl, Target, TargetError, TargetResolver, Targets};
use crate::time::{Clock, Timestamp};

/// What a server asks of every proof: the public URLs, the algorithms, how fresh, with a nonce or
/// without, and where used proofs are remembered.
///
/// [`Verifier::new`](crate::Verifier::new) and
/// [`TokenEndpoint::new`](crate::token_endpoint::TokenEndpoint::new) take one. A [`PublicUrl`] is one with every default.
/// Clones share the replay store and the source of nonces.
///
/// # Example
///
/// ```
/// use tower_dpop::token_endpoint::TokenEndpoint;
/// use tower_dpop::{NonceSecret, ProofRules, PublicUrl, StatelessNonces};
/// # use tower_dpop::{JwtVerifier, KeySet, Verifier};
///
/// # fn example(tokens: JwtVerifier<KeySet>) -> Result<(), Box<dyn std::error::Error>> {
/// let rules = ProofRules::new("https://example.com".parse()?)
///     .with_nonces(StatelessNonces::new(NonceSecret::generate()));
///
/// // One process that is both servers: nonces of one are good at the other, and a proof is used once at either.
/// let endpoint = TokenEndpoint::new(rules.clone());
/// let verifier = Verifier::new(rules, tokens);
/// # let _ = (endpoint, verifier);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProofRules {
    targets: Targets,
    algorithms: Algorithms,
    freshness: Freshness,
    nonces: NoncePolicy,
    replays: AnyReplayStore,
    clock: Clock,
}

impl ProofRules {
    /// Every check on, with its default: the default [`Algorithms`] and [`Freshness`], used proofs
    /// remembered in this process ([`MemoryReplayStore`]), and no nonces.
    ///
    /// The public URL is how clients reach the server: what `htu` must say. It is never taken from the
    /// request.
    pub fn new(public_url: PublicUrl) -> Self {
        Self {
            targets: Targets::new(public_url),
            algorithms: Algorithms::default(),
            freshness: Freshness::default(),
            nonces: NoncePolicy::default(),
            replays: AnyReplayStore::new(MemoryReplayStore::default()),
            clock: Clock::default(),
        }
    }

    /// Another URL under which clients reach the same server.
    #[must_use]
    pub fn add_public_url(mut self, public_url: PublicUrl) -> Self {
        self.targets.add(public_url);
        self
    }

    /// Finds the original method and URI of requests by another rule than taking them as they are.
    #[must_use]
    pub fn with_target_resolver(mut self, resolver: impl TargetResolver + 'static) -> Self {
        self.targets.resolve_with(Arc::new(resolver));
        self
    }

    /// The algorithms by which proofs may be signed. Challenges and metadata name them.
    #[must_use]
    pub fn with_algorithms(self, algorithms: Algorithms) -> Self {
        Self { algorithms, ..self }
    }

    /// How fresh proofs must be.
    #[must_use]
    pub fn with_freshness(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// Requires a nonce in every proof ([RFC 9449 sections 8 and
    /// 9](https://www.rfc-editor.org/rfc/rfc9449#section-8)).
    #[must_use]
    pub fn with_nonces(self, nonces: impl NonceSource + 'static) -> Self {
        Self {
            nonces: NoncePolicy::required(Arc::new(nonces)),
            ..self
        }
    }

    /// Remembers used proofs elsewhere than in this process's memory.
    #[must_use]
    pub fn with_replay_store(self, replays: impl ReplayStore) -> Self {
        Self {
            replays: AnyReplayStore::new(replays),
            ..self
        }
    }

    /// Takes the time from another clock. For tests.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            clock: Clock::new(clock),
            ..self
        }
    }
}

impl From<PublicUrl> for ProofRules {
    /// Every check on, with its default.
    fn from(public_url: PublicUrl) -> Self {
        Self::new(public_url)
    }
}

impl ProofRules {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The first of the public URLs.
    pub(crate) fn public_url(&self) -> &PublicUrl {
        self.targets.public_url()
    }

    pub(crate) const fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    pub(crate) const fn freshness(&self) -> &Freshness {
        &self.freshness
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
    ) -> Result<ClaimedProof<'r>, RuleError> {
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

    /// The proof's one use. The last step: a request that is rejected by another one keeps its proof.
    pub(crate) async fn record_use<T>(
        &self,
        proof: &Proof<T>,
        nonce_issued: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), RuleError> {
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

    /// The nonce to give out now, where nonces are required.
    pub(crate) fn issue_nonce(&self) -> Option<Nonce> {
        self.nonces.issue(&self.freshness, self.now())
    }
}

impl fmt::Debug for ProofRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofRules")
            .field("public_urls", &self.targets)
            .field("algorithms", &self.algorithms.to_string())
            .field("freshness", &self.freshness)
            .field("nonces_required", &self.nonces.are_required())
            .finish_non_exhaustive()
    }
}

/// Why a step that can fail in several ways failed. Each server has its own answer to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleError {
    #[error(transparent)]
    Nonce(#[from] NonceError),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Replay(#[from] ReplayStoreError),
}
