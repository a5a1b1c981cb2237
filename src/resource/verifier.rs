//! Start here: one request's whole path, from its header fields to a bound token.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::Response;
use http::request::Parts;

use crate::credentials::{self, Credentials};
use crate::jose::algorithm::Algorithms;
use crate::proof::checks::ProofError;
use crate::proof::freshness::Freshness;
use crate::proof::nonce::{Nonce, NoncePolicy, NonceSource};
use crate::proof::replay::memory::MemoryReplayStore;
use crate::proof::replay::store::ReplayStore;
use crate::proof::rules::ProofPolicy;
use crate::proof::target::{PublicUrl, TargetResolver};
use crate::resource::bearer::{self, AcceptedToken, BearerError, BearerPolicy, BearerToken};
use crate::resource::bound_token::{self, BoundToken};
use crate::resource::challenge::Challenges;
use crate::resource::quoted_text::QuotedText;
use crate::resource::rejection::{Consequence, Rejection};
use crate::resource::requirement::Scopes;
use crate::telemetry;
use crate::time::{Clock, Timestamp};
use crate::tokens::access_token::AccessTokenVerifier;

/// Decides whether a request may pass. It works on the head of a request, without tower;
/// [`DpopLayer`](crate::resource::layer::DpopLayer) wraps it around a service.
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
/// // What the layer does with every request (`verify_either`, where Bearer is allowed):
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
/// (RFC 8725bis; [`BoundToken::algorithm`] says which it was). Nor scopes, which differ from route to
/// route ([`authorization`](crate::resource::authorization)).
///
/// Bearer tokens are refused, unless [`allow_bearer`](Self::allow_bearer) was said.
pub struct Verifier<V, R = MemoryReplayStore> {
    policy: ProofPolicy<R>,
    tokens: V,
    challenges: Challenges,
}

/// The name of the document about a protected resource (RFC 9728 section 3).
pub(crate) const WELL_KNOWN: &str = "oauth-protected-resource";

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
    pub async fn verify(
        &self,
        request: &Parts,
    ) -> Result<Verified<BoundToken<V::Claims>>, Rejection> {
        let now = self.policy.now();
        let credentials = Credentials::from_headers(&request.headers)?;
        let target = self.policy.target(request)?;
        let claimed = self.policy.read(credentials.proof, &target, now)?;
        let claimed = claimed.for_token(credentials.token)?;
        let token = self.tokens.verify(claimed.token(), now).await?;
        bound_token::foresee(&token, &claimed)?;
        // After the token: a client whose token is dead needs another token, not a nonce.
        let nonce = self.policy.check_nonce(&claimed, now)?;
        let proof = self.policy.verify_signature(claimed)?;
        let token = BoundToken::bind(token, &proof)?;
        self.policy.spend(&proof, nonce.issued, now).await?;
        self.policy.conclude(&proof, now);
        Ok(Verified {
            token,
            next_nonce: nonce.next,
        })
    }

    /// Decides about one request under either scheme, where Bearer is allowed; does the same as
    /// [`verify`](Self::verify) where it is not.
    ///
    /// # Errors
    ///
    /// The first check that fails, for [`Verifier::refuse`] to answer with.
    pub async fn verify_either(
        &self,
        request: &Parts,
    ) -> Result<Verified<AcceptedToken<V::Claims>>, Rejection> {
        let bearer = match self.challenges.bearer {
            BearerPolicy::Refused => None,
            _ => credentials::bearer_token(&request.headers),
        };
        if let Some(token) = bearer {
            return Ok(Verified {
                token: AcceptedToken::Bearer(self.verify_bearer(token).await?),
                next_nonce: None,
            });
        }
        let verified = self.verify(request).await?;
        Ok(Verified {
            token: AcceptedToken::Bound(verified.token),
            next_nonce: verified.next_nonce,
        })
    }

    /// RFC 9449 section 7.2.
    async fn verify_bearer(&self, token: &str) -> Result<BearerToken<V::Claims>, BearerError> {
        let token = bearer::presented(token)?;
        let token = self.tokens.verify(token, self.policy.now()).await?;
        let token = BearerToken::accept(token, self.challenges.bearer)?;
        telemetry::decision("accepted", "bearer", "none");
        tracing::debug!(target: "tower_dpop", scheme = "bearer", "request accepted");
        Ok(token)
    }
}

impl<V, R> Verifier<V, R> {
    /// The response to a refused request: its status, its challenge, a fresh nonce where one is
    /// demanded, the [`Rejection`] in its extensions, and an empty body. Says so in one `tracing`
    /// event, too.
    pub fn refuse<B: Default>(&self, rejection: Rejection) -> Response<B> {
        let nonce = self.report(&rejection, Consequence::Refused);
        self.challenges.refuse(rejection, nonce.as_ref())
    }

    /// Says what was decided against a request, and gives the nonce that the client needs, if it
    /// needs one.
    pub(crate) fn report(&self, rejection: &Rejection, consequence: Consequence) -> Option<Nonce> {
        rejection.report(consequence);
        match rejection {
            Rejection::Nonce(_) => self.issue_nonce(),
            Rejection::Proof(ProofError::Iat(error)) => {
                telemetry::clock_skew(consequence.name(), self.policy.freshness.skew(*error));
                None
            }
            _ => None,
        }
    }

    pub(crate) const fn tokens(&self) -> &V {
        &self.tokens
    }

    pub(crate) fn public_url(&self) -> &PublicUrl {
        self.policy.targets.public_url()
    }

    pub(crate) const fn algorithms(&self) -> Algorithms {
        self.challenges.algorithms
    }

    pub(crate) const fn scopes(&self) -> Option<&Scopes> {
        self.challenges.scope.as_ref()
    }

    pub(crate) fn allows_bearer(&self) -> bool {
        self.challenges.bearer != BearerPolicy::Refused
    }

    /// What time it is, for decisions that come after this one.
    pub(crate) fn now(&self) -> Timestamp {
        self.policy.now()
    }

    /// The nonce to give out now, where nonces are required: for another endpoint that wants to
    /// spare clients the round trip of a first refusal.
    pub fn issue_nonce(&self) -> Option<Nonce> {
        self.policy.issue_nonce()
    }
}

/// A request that may pass.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verified<T> {
    /// The access token: a [`BoundToken`], or an [`AcceptedToken`].
    pub token: T,
    /// The nonce for the client's next requests, where the one it used is near its end ([RFC 9449
    /// section 8.2](https://www.rfc-editor.org/rfc/rfc9449#section-8.2)). Send it with a successful
    /// response.
    pub next_nonce: Option<Nonce>,
}

impl<V: AccessTokenVerifier> Verifier<V> {
    /// A verifier for the service under this public URL and tokens of this kind, with every check
    /// on: replays are remembered in memory, the default [`Algorithms`] and [`Freshness`] apply,
    /// nonces are not required.
    pub fn new(public_url: PublicUrl, tokens: V) -> Self {
        Self {
            policy: ProofPolicy::new(public_url),
            tokens,
            challenges: Challenges {
                bearer: BearerPolicy::Refused,
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
        self.challenges.algorithms = algorithms;
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
            challenges: self.challenges,
        }
    }

    /// How much memory may go to what is computed in advance about clients' keys that recur, in octets;
    /// the default is 16 MiB, enough for some 1,300 keys.
    ///
    /// For a P-256 key by which nine requests have passed, multiples of its point are kept, so that the
    /// next proofs by it take four tenths less time to verify. More keys than there is room for
    /// do no harm: they are verified as the first requests were. Verifying by the table does not go
    /// through the engine; what it computes with instead, and why that is right, is said at the head
    /// of `src/jose/p256_table/mod.rs`.
    #[must_use]
    pub fn with_precomputed_keys(mut self, octets: u64) -> Self {
        self.policy = self.policy.with_precomputed_keys(octets);
        self
    }

    /// Verifies every proof by the engine, whatever key signed it: where only a certified
    /// implementation may, or where the memory is needed. Tokens are verified by another one, with a
    /// switch of its own
    /// ([`JwtVerifier::without_precomputed_keys`](crate::tokens::jwt::JwtVerifier::without_precomputed_keys)).
    #[must_use]
    pub fn without_precomputed_keys(self) -> Self {
        self.with_precomputed_keys(0)
    }

    /// The `realm` of challenges ([RFC 9110 section
    /// 11.5](https://www.rfc-editor.org/rfc/rfc9110#section-11.5)).
    #[must_use]
    pub fn with_realm(mut self, realm: QuotedText) -> Self {
        self.challenges.realm = Some(realm);
        self
    }

    /// The `scope` of challenges, and the scopes of the metadata: what a client should ask for.
    #[must_use]
    pub fn with_scope(mut self, scope: Scopes) -> Self {
        self.challenges.scope = Some(scope);
        self
    }

    /// Also lets requests through whose token is bound to nothing and presented under the Bearer
    /// scheme: for the time in which clients move to DPoP ([RFC 9449 section
    /// 7.2](https://www.rfc-editor.org/rfc/rfc9449#section-7.2)).
    ///
    /// They bring a [`BearerToken`] instead of a [`BoundToken`], and challenges name both schemes. A
    /// token that is bound to a key is refused under the Bearer scheme, with or without a proof
    /// beside it. Without the layer, call [`verify_either`](Self::verify_either):
    /// [`verify`](Self::verify) goes on taking bound tokens only.
    ///
    /// # Security
    ///
    /// Whoever stole such a token can use it. And a token is taken for unbound where nobody says what
    /// it is bound to: an introspection endpoint must tell `cnf` ([RFC 9449 section
    /// 6.2](https://www.rfc-editor.org/rfc/rfc9449#section-6.2)).
    #[must_use]
    pub fn allow_bearer(mut self) -> Self {
        self.challenges.bearer = BearerPolicy::Unbound;
        self
    }

    /// As [`allow_bearer`](Self::allow_bearer), and also lets tokens through whose `cnf` names no
    /// key by its thumbprint (`x5t#S256`, for one).
    ///
    /// # Security
    ///
    /// Nothing here looks at such a binding: use it only where another layer confirms it for every
    /// request (mutual TLS, [RFC 8705](https://www.rfc-editor.org/rfc/rfc8705)).
    #[must_use]
    pub fn allow_bearer_confirmed_elsewhere(mut self) -> Self {
        self.challenges.bearer = BearerPolicy::ConfirmedElsewhere;
        self
    }

    /// The `resource_metadata` of challenges: the URL of this service's metadata ([RFC 9728 section
    /// 5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)).
    /// [`with_well_known_metadata`](Self::with_well_known_metadata) knows it.
    #[must_use]
    pub fn with_resource_metadata(mut self, url: QuotedText) -> Self {
        self.challenges.resource_metadata = Some(url);
        self
    }

    /// Lets challenges point to the well-known place of this service's metadata ([RFC 9728 section
    /// 3.1](https://www.rfc-editor.org/rfc/rfc9728#section-3.1)), where
    /// [`ResourceMetadata`](crate::resource::metadata::ResourceMetadata) is served.
    #[expect(clippy::missing_panics_doc, reason = "a URL by RFC 3986 can be quoted")]
    #[must_use]
    pub fn with_well_known_metadata(self) -> Self {
        let resource = self.public_url();
        let url = format!(
            "{}{}",
            resource.origin(),
            resource.well_known_path(WELL_KNOWN)
        );
        let url = url
            .parse()
            .expect("a URL by RFC 3986 holds no quotes and no backslashes");
        self.with_resource_metadata(url)
    }

    /// Asks another clock what time it is. For tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.policy.clock = Clock::new(clock);
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
