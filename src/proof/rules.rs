//! The requirements for every proof, and the steps that the resource server and the authorization
//! server share.
//!
//! `Verifier::verify_dpop` and `TokenEndpoint::check` define the order of the steps.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;

use crate::credentials::ProofField;
use crate::jose::algorithm::Algorithms;
use crate::jose::key_cache::KeyCache;
use crate::proof::checks::{Expected, Proof, ProofError, UnverifiedProof};
use crate::proof::freshness::Freshness;
use crate::proof::nonce::{
    AcceptedNonce, Nonce, NonceBinding, NonceError, NoncePolicy, NonceSource,
};
use crate::proof::public_url::PublicUrl;
use crate::proof::replay::epoch::{Epoch, StoreKind};
use crate::proof::replay::memory::MemoryReplayStore;
use crate::proof::replay::store::{
    AnyReplayStore, Claim, ReplayKey, ReplayStore, ReplayStoreError, UsedProof,
};
use crate::proof::target::{Target, TargetError, TargetResolver, Targets, UrlMismatch};
use crate::telemetry::Explanation;
use crate::time::{Clock, Timestamp};

/// The requirements for every proof: the public URLs, the algorithms, the freshness, whether a
/// nonce is required, and the replay store.
///
/// [`Verifier::new`](crate::Verifier::new) and
/// [`TokenEndpoint::new`](crate::token_endpoint::TokenEndpoint::new) take them. A [`PublicUrl`]
/// converts into rules with every default. Clones share the replay store and the nonce source.
///
/// # Example
///
/// ```
/// use tower_dpop::token_endpoint::TokenEndpoint;
/// use tower_dpop::{NonceSecret, ProofRules, PublicUrl, StatelessNonces};
/// # use tower_dpop::{JwtVerifier, KeySet, Verifier};
///
/// # fn example(tokens: JwtVerifier<KeySet>) -> Result<(), Box<dyn std::error::Error>> {
/// let rules = ProofRules::new("https://api.example.com".parse()?)
///     .with_nonces(StatelessNonces::new(NonceSecret::generate()));
///
/// // One process that is both servers, each under its own URL. They share nonces and replay store.
/// let endpoint = TokenEndpoint::new(rules.clone().with_public_url("https://as.example.com".parse()?));
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
    /// Rules with every check on and every default: the default [`Algorithms`] and [`Freshness`], a
    /// replay store in this process ([`MemoryReplayStore`]), and no nonces.
    ///
    /// The public URL is the URL under which clients reach the server, and the one that `htu` must
    /// name. It is never taken from the request.
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

    /// The same rules for a server under this URL instead of all others, without a target resolver. The
    /// nonces and the replay store stay shared, so one process can be both servers, each with its own
    /// host.
    ///
    /// # Security
    ///
    /// Anyone can use up records of a token endpoint's replay store, because it accepts proofs by any key.
    /// Limit the rate of token requests, or give the endpoint a store of its own.
    #[must_use]
    pub fn with_public_url(mut self, public_url: PublicUrl) -> Self {
        self.targets.replace(public_url);
        self
    }

    /// Adds another URL under which clients reach the same server.
    #[must_use]
    pub fn add_public_url(mut self, public_url: PublicUrl) -> Self {
        self.targets.add(public_url);
        self
    }

    /// Finds the original method and URI of requests with this resolver, instead of taking them as
    /// they are.
    #[must_use]
    pub fn with_target_resolver(mut self, resolver: impl TargetResolver + 'static) -> Self {
        self.targets.resolve_with(Arc::new(resolver));
        self
    }

    /// Sets the algorithms that proofs may be signed with. Challenges and metadata list them.
    #[must_use]
    pub fn with_algorithms(self, algorithms: Algorithms) -> Self {
        Self { algorithms, ..self }
    }

    /// Sets how fresh proofs must be.
    #[must_use]
    pub fn with_freshness(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// Requires a nonce in every proof ([RFC 9449 sections 8 and
    /// 9](https://www.rfc-editor.org/rfc/rfc9449#section-8)). A nonce is accepted only while the replay store
    /// has the records that it had when the nonce was issued ([`Epoch`]).
    #[must_use]
    pub fn with_nonces(mut self, nonces: impl NonceSource + 'static) -> Self {
        self.nonces.require(nonces);
        self
    }

    /// Accepts nonces whatever replay store they were issued for: those of all nodes with the same nonce
    /// secret, and those from before a restart. Without this option, nodes that have a store each reject
    /// each other's nonces with 401 `use_dpop_nonce`.
    ///
    /// # Security
    ///
    /// A proof can then be used once on each node that has its own store, and again after each restart, as
    /// long as its nonce is accepted. A shared store needs no such option.
    #[must_use]
    pub fn with_insecure_one_use_per_node(mut self) -> Self {
        self.nonces.bind_to(NonceBinding::Nothing);
        self
    }

    /// Records used proofs in this store instead of the default [`MemoryReplayStore`].
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
    /// Rules with every check on and every default.
    fn from(public_url: PublicUrl) -> Self {
        Self::new(public_url)
    }
}

impl ProofRules {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The epoch of the replay store. One request has one: its nonce is checked, and its proof recorded,
    /// for the same epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.replays.epoch()
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

    /// The target that the proof of this request must name.
    pub(crate) fn target<'t>(&'t self, request: &'t Parts) -> Result<Target<'t>, TargetError> {
        self.targets.of(request)
    }

    /// Checks the proof's form and claims.
    pub(crate) fn read<'r>(
        &self,
        field: ProofField<'r>,
        target: &Target<'_>,
        known: Option<&KeyCache>,
        now: Timestamp,
    ) -> Result<UnverifiedProof<'r>, RuleError> {
        let expected = Expected {
            algorithms: self.algorithms,
            target,
            freshness: &self.freshness,
            nonces_required: self.nonces.are_required(),
            now,
            known,
        };
        UnverifiedProof::read(field, &expected).map_err(|error| match error {
            // A client without a proof would be asked for a nonce next, so it is asked at once (RFC
            // 9449 sections 8 and 9).
            ProofError::Missing if self.nonces.are_required() => NonceError::Missing.into(),
            error => error.into(),
        })
    }

    /// Checks the nonce (RFC 9449 section 4.3, check 10).
    pub(crate) fn check_nonce<T>(
        &self,
        proof: &UnverifiedProof<'_, T>,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<AcceptedNonce, NonceError> {
        self.nonces
            .check(proof.nonce(), &self.freshness, epoch, now)
    }

    /// Records the proof's single use. This is the last step: if another step rejects the request,
    /// its proof stays unused.
    pub(crate) async fn record_use<T>(
        &self,
        proof: &Proof<T>,
        nonce_issued: Option<Timestamp>,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<(), RuleError> {
        let key = ReplayKey::new(proof.thumbprint(), proof.jti());
        let expires = self.freshness.accepted_until(proof.iat(), nonce_issued);
        // A proof that expired while keys were fetched, or a client was authenticated, is not
        // recorded.
        if self.now() > expires {
            return Err(ProofError::Expired.into());
        }
        let proof = UsedProof::new(key, now, expires, epoch);
        match self.replays.claim(proof).await {
            Ok(Claim::Replayed) => Err(ProofError::Replayed.into()),
            // The store took so long that the record of an earlier use may have been dropped before
            // the claim was made.
            Ok(Claim::First) if self.now() > expires => Err(ProofError::Expired.into()),
            Ok(Claim::First) => Ok(()),
            // The nonce was issued for records that the store no longer has. The next one is not.
            Err(ReplayStoreError::OtherStore) if self.nonces.are_required() => {
                Err(NonceError::Foreign.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// [`Verifier::allow_insecure_replays`](crate::Verifier::allow_insecure_replays).
    pub(crate) const fn accept_replays(&mut self) {
        self.replays.accept_replays();
    }

    /// What the log says about a proof that was rejected for this reason.
    pub(crate) fn explain(&self, error: &ProofError) -> Explanation {
        match error {
            ProofError::Algorithm => Explanation::expected(Some(self.algorithms.to_string())),
            ProofError::ClaimMissing => {
                let required = "jti htm htu iat, and ath with an access token";
                Explanation::expected(Some(required.into()))
            }
            ProofError::Iat(error) => Explanation {
                expected: Some(self.freshness.expected_iat()),
                detail: Some(error.detail()),
                hint: None,
            },
            ProofError::Type => Explanation::expected(Some("dpop+jwt".into())),
            ProofError::Url(mismatch) => Explanation {
                expected: Some(self.targets.to_string()),
                detail: Some(difference(*mismatch).into()),
                hint: (*mismatch == UrlMismatch::PathPrefix)
                    .then_some("is a proxy in front stripping or adding a prefix? see PublicUrl"),
            },
            _ => Explanation::default(),
        }
    }

    pub(crate) const fn targets(&self) -> &Targets {
        &self.targets
    }

    pub(crate) fn requires_nonces(&self) -> bool {
        self.nonces.are_required()
    }

    /// The type of the replay store.
    pub(crate) fn replay_store(&self) -> &'static str {
        self.replays.type_name()
    }

    /// Which `iat` is accepted, for the log.
    pub(crate) fn describe_iat(&self) -> String {
        if self.freshness.decides_by_iat(self.requires_nonces()) {
            self.freshness.expected_iat()
        } else {
            "any: the nonce decides".into()
        }
    }

    /// Whether nonces are required, and what they are bound to, for the log.
    pub(crate) fn describe_nonces(&self) -> &'static str {
        match self.nonces_bound_to() {
            _ if !self.requires_nonces() => "off",
            Ok(StoreKind::OneProcess) => "required, bound to the replay store of this process",
            Ok(_) if self.nonces.secret_is_generated() => {
                "required, bound to the shared replay store, under a secret generated by this process"
            }
            Ok(_) => "required, bound to the shared replay store",
            Err(_) => "required, not bound to a replay store",
        }
    }

    /// Each check that is off, and nonces that other nodes reject, for the log.
    pub(crate) fn weaknesses(&self) -> Vec<String> {
        let mut weaknesses = Vec::new();
        if self.targets.are_insecure() {
            weaknesses.push("a public URL is plain http: tokens can be read on the way (PublicUrl::insecure_http)".to_owned());
        }
        match self.nonces_bound_to() {
            _ if !self.requires_nonces() => {}
            Err(consequence) => weaknesses.push(format!(
                "nonces are not bound to a replay store: a proof can be used {consequence}"
            )),
            Ok(StoreKind::Shared) if self.nonces.secret_is_generated() => weaknesses.push(
                "the replay store is shared, but the secret of nonces was generated by this process (NonceSecret::generate): \
                 other nodes reject its nonces. Give all nodes the same secret (NonceSecrets::from_file or from_env)"
                    .to_owned(),
            ),
            Ok(_) => {}
        }
        weaknesses.extend(self.replays.weakness());
        weaknesses
    }

    /// The replay store that nonces are bound to, or the consequence if they are not.
    fn nonces_bound_to(&self) -> Result<StoreKind, &'static str> {
        let epoch = self.epoch();
        match (self.nonces.binding(), epoch.store_kind()) {
            (NonceBinding::Nothing, _) => Err(
                "once on each node that has its own store (ProofRules::with_insecure_one_use_per_node)",
            ),
            (NonceBinding::ReplayStore, StoreKind::Unknown) => Err(
                "again when the store has lost records, because the store does not name them (Epoch::UNKNOWN)",
            ),
            (NonceBinding::ReplayStore, _)
                if self.nonces.source_ignores_epoch(epoch, self.now()) =>
            {
                Err(
                    "on each node that has its own store, and again when a store has lost records, because the source of nonces ignores the epoch (NonceSource)",
                )
            }
            (NonceBinding::ReplayStore, kind) => Ok(kind),
        }
    }

    /// The nonce to send now, if nonces are required.
    pub(crate) fn issue_nonce(&self) -> Option<Nonce> {
        self.nonces.issue(&self.freshness, self.epoch(), self.now())
    }

    /// A nonce with this issue time, if nonces are required.
    #[cfg(feature = "testing")]
    pub(crate) fn issue_nonce_with(&self, issued: Timestamp) -> Option<Nonce> {
        self.nonces.issue_with(issued, self.epoch())
    }
}

/// Which part of a URL differs, for the log.
const fn difference(mismatch: UrlMismatch) -> &'static str {
    match mismatch {
        UrlMismatch::Malformed => "htu is malformed",
        UrlMismatch::Scheme => "the scheme differs",
        UrlMismatch::Host => "the host differs",
        UrlMismatch::Port => "the port differs",
        UrlMismatch::Path => "the path differs",
        UrlMismatch::PathPrefix => "the path differs in its prefix",
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

/// The error of a step that can fail in several ways. Each server maps it to its own rejection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleError {
    #[error(transparent)]
    Nonce(#[from] NonceError),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Replay(#[from] ReplayStoreError),
}
