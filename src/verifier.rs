//! Start here: one request's whole path, from its header fields to a bound token.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::Response;
use http::request::Parts;

use crate::binding::{self, BoundToken};
use crate::credentials::Credentials;
use crate::freshness::{Freshness, Timestamp};
use crate::jose::algorithm::Algorithms;
use crate::jose::key_cache::KeyCache;
use crate::nonce::{Nonce, NonceError, NoncePolicy, NonceSource};
use crate::proof::{ClaimedProof, Expected, Proof, ProofError};
use crate::rejection::{Challenge, QuotedText, Rejection};
use crate::replay::memory::MemoryReplayStore;
use crate::replay::{Claim, ReplayKey, ReplayStore};
use crate::target::{PublicUrl, Target, TargetResolver, Targets};
use crate::token::AccessTokenVerifier;

/// Decides whether a request may pass. It works on the head of a request, without tower;
/// [`DpopLayer`](crate::layer::DpopLayer) wraps it around a service.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower_dpop::{JwtVerifier, KeySet, PublicUrl, Verifier};
///
/// # async fn example(keys: KeySet) -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = Verifier::new(
///     "https://api.example.com".parse::<PublicUrl>()?,
///     JwtVerifier::new("https://as.example.com", "https://api.example.com", keys),
/// );
///
/// // What the layer does with every request:
/// let (head, _body) = Request::get("/orders").body(())?.into_parts();
/// let response: Response<String> = match verifier.verify(&head).await {
///     Ok(verified) => {
///         let mut response = Response::new(verified.token.claims().subject().to_owned());
///         if let Some(nonce) = verified.next_nonce {
///             nonce.write_to(response.headers_mut());
///         }
///         response
///     }
///     Err(rejection) => verifier.refuse(rejection), // here 401: there is no token
/// };
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// Not checked, because a proof does not cover them: the body, the query, and all other header
/// fields ([RFC 9449 section 11.7](https://www.rfc-editor.org/rfc/rfc9449#section-11.7)). Not
/// checked, because it takes a memory of keys: that a client uses a key with one algorithm only
/// (RFC 8725bis). Nor scopes, which are the application's decision.
pub struct Verifier<V, R = MemoryReplayStore> {
    targets: Targets,
    algorithms: Algorithms,
    freshness: Freshness,
    nonces: NoncePolicy,
    tokens: V,
    keys: KeyCache,
    replays: R,
    challenge: Challenge,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl<V: AccessTokenVerifier, R: ReplayStore> Verifier<V, R> {
    /// Decides about one request under the DPoP scheme: RFC 9449 sections 4.3 and 7.1, cheap checks
    /// before dear ones.
    ///
    /// The proof's `jti` is spent last, so a request that is refused for any other reason can be
    /// sent again with the same proof. A future that is dropped may have spent it.
    ///
    /// # Errors
    ///
    /// The first check that fails, for [`Verifier::refuse`] to answer with.
    pub async fn verify(&self, request: &Parts) -> Result<Verified<V::Claims>, Rejection> {
        let now = self.now();
        let credentials = Credentials::from_headers(&request.headers)?;
        let target = self.targets.of(request)?;
        let claimed = self.read_proof(&credentials, &target, now)?;
        let token = self.tokens.verify(claimed.token(), now).await?;
        binding::foresee(&token, &claimed)?;
        // After the token: a client whose token is dead needs another token, not a nonce.
        let nonce = self.nonces.check(claimed.nonce(), &self.freshness, now)?;
        let proof = claimed.verify_signature(&self.keys)?;
        let token = BoundToken::bind(token, &proof)?;
        self.claim(&proof, nonce.issued, now).await?;
        proof.remember_key(&self.keys);
        Ok(Verified {
            token,
            next_nonce: nonce.next,
        })
    }

    fn read_proof<'r>(
        &self,
        credentials: &Credentials<'r>,
        target: &Target<'_>,
        now: Timestamp,
    ) -> Result<ClaimedProof<'r>, Rejection> {
        let expected = Expected {
            algorithms: self.algorithms,
            target,
            freshness: &self.freshness,
            nonces_required: self.nonces.are_required(),
            now,
        };
        ClaimedProof::read(credentials, &expected).map_err(|error| match error {
            // A client without a proof would be asked for a nonce next: it is told at once (RFC
            // 9449 section 9).
            ProofError::Missing if self.nonces.are_required() => NonceError::Missing.into(),
            error => error.into(),
        })
    }

    async fn claim(
        &self,
        proof: &Proof,
        nonce_issued: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let key = ReplayKey::new(proof.thumbprint(), proof.jti());
        let expires = self.freshness.accepted_until(proof.iat(), nonce_issued);
        match self.replays.claim(key, now, expires).await? {
            Claim::Replayed => Err(ProofError::Replayed.into()),
            // Keys were fetched or a store was waited for meanwhile, so long that the record of an
            // earlier use may have been dropped before the claim was made.
            Claim::First if self.now() > expires => Err(ProofError::Expired.into()),
            Claim::First => Ok(()),
        }
    }
}

impl<V, R> Verifier<V, R> {
    /// The response to a refused request: its status, its challenge, a fresh nonce where one is
    /// demanded, the [`Rejection`] in its extensions, and an empty body. Says so in one `tracing`
    /// event, too.
    pub fn refuse<B: Default>(&self, rejection: Rejection) -> Response<B> {
        rejection.report();
        let nonce = match rejection {
            Rejection::Nonce(_) => self.issue_nonce(),
            _ => None,
        };
        self.challenge.refuse(rejection, nonce.as_ref())
    }

    /// The nonce to give out now, where nonces are required: for another endpoint that wants to
    /// spare clients the round trip of a first refusal.
    pub fn issue_nonce(&self) -> Option<Nonce> {
        self.nonces.issue(&self.freshness, self.now())
    }

    fn now(&self) -> Timestamp {
        (self.clock)().into()
    }
}

/// A request that may pass.
#[non_exhaustive]
pub struct Verified<C> {
    /// The access token, presented by the holder of its key.
    pub token: BoundToken<C>,
    /// The nonce for the client's next requests, where the one it used is near its end ([RFC 9449
    /// section 8.2](https://www.rfc-editor.org/rfc/rfc9449#section-8.2)). Send it with a successful
    /// response.
    pub next_nonce: Option<Nonce>,
}

impl<C> fmt::Debug for Verified<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("token", &self.token)
            .field("next_nonce", &self.next_nonce)
            .finish()
    }
}

impl<V: AccessTokenVerifier> Verifier<V> {
    /// A verifier for the service under this public URL and tokens of this kind, with every check
    /// on: replays are remembered in memory, the default [`Algorithms`] and [`Freshness`] apply,
    /// nonces are not required.
    pub fn new(public_url: PublicUrl, tokens: V) -> Self {
        let algorithms = Algorithms::default();
        Self {
            targets: Targets::new(public_url),
            algorithms,
            freshness: Freshness::default(),
            nonces: NoncePolicy::default(),
            tokens,
            keys: KeyCache::new(),
            replays: MemoryReplayStore::default(),
            challenge: Challenge {
                algorithms,
                realm: None,
                scope: None,
                resource_metadata: None,
            },
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl<V, R> Verifier<V, R> {
    /// Another URL under which clients reach the same service.
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

    /// The algorithms by which proofs may be signed. Challenges name them.
    #[must_use]
    pub fn with_algorithms(mut self, algorithms: Algorithms) -> Self {
        self.algorithms = algorithms;
        self.challenge.algorithms = algorithms;
        self
    }

    /// How fresh proofs must be.
    #[must_use]
    pub fn with_freshness(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// Requires a nonce in every proof ([RFC 9449 section
    /// 9](https://www.rfc-editor.org/rfc/rfc9449#section-9)).
    #[must_use]
    pub fn with_nonces(self, nonces: impl NonceSource + 'static) -> Self {
        Self {
            nonces: NoncePolicy::required(Arc::new(nonces)),
            ..self
        }
    }

    /// Remembers used proofs elsewhere than in this process's memory.
    #[must_use]
    pub fn with_replay_store<S: ReplayStore>(self, replays: S) -> Verifier<V, S> {
        let Self {
            targets,
            algorithms,
            freshness,
            nonces,
            tokens,
            keys,
            replays: _,
            challenge,
            clock,
        } = self;
        Verifier {
            targets,
            algorithms,
            freshness,
            nonces,
            tokens,
            keys,
            replays,
            challenge,
            clock,
        }
    }

    /// The `realm` of challenges ([RFC 9110 section
    /// 11.5](https://www.rfc-editor.org/rfc/rfc9110#section-11.5)).
    #[must_use]
    pub fn with_realm(mut self, realm: QuotedText) -> Self {
        self.challenge.realm = Some(realm);
        self
    }

    /// The `scope` of challenges: what a client should ask for, separated by spaces.
    #[must_use]
    pub fn with_scope(mut self, scope: QuotedText) -> Self {
        self.challenge.scope = Some(scope);
        self
    }

    /// The `resource_metadata` of challenges: the URL of this service's metadata ([RFC 9728 section
    /// 5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)).
    #[must_use]
    pub fn with_resource_metadata(mut self, url: QuotedText) -> Self {
        self.challenge.resource_metadata = Some(url);
        self
    }

    /// Asks another clock what time it is. For tests.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            ..self
        }
    }
}

impl<V, R> fmt::Debug for Verifier<V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("algorithms", &self.algorithms.to_string())
            .field("freshness", &self.freshness)
            .field("nonces_required", &self.nonces.are_required())
            .finish_non_exhaustive()
    }
}
