//! Start here: one request's whole path, from its header fields to a bound token.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::Response;
use http::request::Parts;

use crate::binding::{self, BoundToken};
use crate::credentials::Credentials;
use crate::freshness::Freshness;
use crate::jose::algorithm::Algorithms;
use crate::nonce::{Nonce, NoncePolicy, NonceSource};
use crate::proof_policy::ProofPolicy;
use crate::rejection::{Challenge, QuotedText, Rejection};
use crate::replay::ReplayStore;
use crate::replay::memory::MemoryReplayStore;
use crate::target::{PublicUrl, TargetResolver};
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
/// (RFC 8725bis; [`BoundToken::algorithm`] says which it was). Nor scopes, which are the
/// application's decision.
pub struct Verifier<V, R = MemoryReplayStore> {
    policy: ProofPolicy<R>,
    tokens: V,
    challenge: Challenge,
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
        let now = self.policy.now();
        let credentials = Credentials::from_headers(&request.headers)?;
        let target = self.policy.target(request)?;
        let claimed = self.policy.read(credentials.proof, &target, now)?;
        let claimed = claimed.for_token(credentials.token)?;
        let token = self.tokens.verify(claimed.token(), now).await?;
        binding::foresee(&token, &claimed)?;
        // After the token: a client whose token is dead needs another token, not a nonce.
        let nonce = self.policy.check_nonce(&claimed, now)?;
        let proof = self.policy.verify_signature(claimed)?;
        let token = BoundToken::bind(token, &proof)?;
        self.policy.spend(&proof, nonce.issued, now).await?;
        self.policy.remember_key(&proof);
        Ok(Verified {
            token,
            next_nonce: nonce.next,
        })
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
        self.policy.issue_nonce()
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
        Self {
            policy: ProofPolicy::new(public_url, Arc::new(SystemTime::now)),
            tokens,
            challenge: Challenge {
                algorithms: Algorithms::default(),
                realm: None,
                scope: None,
                resource_metadata: None,
            },
        }
    }
}

impl<V, R> Verifier<V, R> {
    /// Another URL under which clients reach the same service.
    #[must_use]
    pub fn add_public_url(mut self, public_url: PublicUrl) -> Self {
        self.policy.targets.add(public_url);
        self
    }

    /// Finds the original method and URI of requests by another rule than taking them as they are.
    #[must_use]
    pub fn with_target_resolver(mut self, resolver: impl TargetResolver + 'static) -> Self {
        self.policy.targets.resolve_with(Arc::new(resolver));
        self
    }

    /// The algorithms by which proofs may be signed. Challenges name them.
    #[must_use]
    pub fn with_algorithms(mut self, algorithms: Algorithms) -> Self {
        self.policy.algorithms = algorithms;
        self.challenge.algorithms = algorithms;
        self
    }

    /// How fresh proofs must be.
    #[must_use]
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.policy.freshness = freshness;
        self
    }

    /// Requires a nonce in every proof ([RFC 9449 section
    /// 9](https://www.rfc-editor.org/rfc/rfc9449#section-9)).
    #[must_use]
    pub fn with_nonces(mut self, nonces: impl NonceSource + 'static) -> Self {
        self.policy.nonces = NoncePolicy::required(Arc::new(nonces));
        self
    }

    /// Remembers used proofs elsewhere than in this process's memory.
    #[must_use]
    pub fn with_replay_store<S: ReplayStore>(self, replays: S) -> Verifier<V, S> {
        Verifier {
            policy: self.policy.with_replay_store(replays),
            tokens: self.tokens,
            challenge: self.challenge,
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
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.policy.clock = Arc::new(clock);
        self
    }
}

impl<V, R> fmt::Debug for Verifier<V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
