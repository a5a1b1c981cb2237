//! Start here: one request's whole path, from its header fields to a bound token.

use std::fmt;
use std::sync::Arc;

use http::Response;
use http::request::Parts;

use crate::credentials::{CredentialsError, Presented, ProofField};
use crate::jose::key_cache::KeyCache;
use crate::proof::nonce::Nonce;
use crate::proof::rules::ProofRules;
use crate::resource::bearer::{self, AcceptedToken, BearerError, BearerPolicy, BearerToken};
use crate::resource::bound_token::{BoundToken, check_binding_early};
use crate::resource::challenge::Challenges;
use crate::resource::policy::Policy;
use crate::resource::quoted_text::QuotedText;
use crate::resource::rejection::Rejection;
use crate::resource::requirement::Scopes;
use crate::telemetry::{Decision, Server};
use crate::tokens::access_token::{AccessTokenVerifier, AnyTokenVerifier};
use crate::tokens::claims::Claims;

/// Decides whether a request may pass. It works on the head of a request, without tower;
/// [`DpopLayer`](crate::DpopLayer) wraps it around a service.
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
/// route ([`RequireScopesLayer`](crate::RequireScopesLayer)).
///
/// Bearer tokens are refused, unless [`allow_bearer`](Self::allow_bearer) was said.
pub struct Verifier<C = Claims> {
    policy: Arc<Policy>,
    tokens: AnyTokenVerifier<C>,
    /// The keys of clients whose requests have passed.
    keys: KeyCache,
}

/// The name of the document about a protected resource (RFC 9728 section 3).
pub(crate) const WELL_KNOWN: &str = "oauth-protected-resource";

impl<C: Send + Sync + 'static> Verifier<C> {
    /// A verifier by these rules for proofs, whose access tokens another one verifies:
    /// [`JwtVerifier`](crate::JwtVerifier), [`Issuers`](crate::Issuers), or one of your own.
    ///
    /// A [`PublicUrl`](crate::PublicUrl) stands for rules with every default.
    pub fn new(rules: impl Into<ProofRules>, tokens: impl AccessTokenVerifier<Claims = C>) -> Self {
        let rules = rules.into();
        let challenges = Challenges {
            bearer: BearerPolicy::Refused,
            algorithms: rules.algorithms(),
            realm: None,
            scope: None,
            resource_metadata: None,
        };
        Self {
            policy: Arc::new(Policy { rules, challenges }),
            tokens: AnyTokenVerifier::new(tokens),
            keys: KeyCache::default(),
        }
    }
}

impl<C> Verifier<C> {
    /// Decides about one request under the DPoP scheme: RFC 9449 sections 4.3 and 7.1, cheap checks
    /// before expensive ones.
    ///
    /// The use of the proof's `jti` is recorded last, so a request that is refused for any other
    /// reason can be sent again with the same proof. A future that is dropped may have recorded it.
    ///
    /// # Errors
    ///
    /// The first check that fails, for [`Verifier::refuse`] to answer with.
    pub async fn verify(&self, request: &Parts) -> Result<Verified<BoundToken<C>>, Rejection> {
        match Presented::from_headers(&request.headers)? {
            Presented::Dpop { token, proof } => self.verify_dpop(request, token, proof).await,
            Presented::Bearer { .. } => Err(CredentialsError::Bearer.into()),
        }
    }

    /// The table of contents: one request's whole path.
    async fn verify_dpop(
        &self,
        request: &Parts,
        token: &str,
        proof: ProofField<'_>,
    ) -> Result<Verified<BoundToken<C>>, Rejection> {
        let rules = &self.policy.rules;
        let now = rules.now();
        let target = rules.target(request)?;
        let claimed = rules.read(proof, &target, now)?.for_token(token)?;
        let token = self.tokens.verify(claimed.token(), now).await?;
        check_binding_early(&token, &claimed)?;
        // After the token: a client whose token has expired needs another token, not a nonce.
        let nonce = rules.check_nonce(&claimed, now)?;
        let proof = claimed.verify_signature_with(&self.keys)?;
        let token = BoundToken::bind(token, &proof)?;
        rules.record_use(&proof, nonce.issued, now).await?;
        // Now only: the keys of strangers must not push out those of clients.
        proof.remember_key(&self.keys);
        Decision::Accepted(Some(proof.facts(now))).report(Server::Resource { scheme: "dpop" });
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
    ) -> Result<Verified<AcceptedToken<C>>, Rejection> {
        match Presented::from_headers(&request.headers)? {
            Presented::Dpop { token, proof } => {
                let verified = self.verify_dpop(request, token, proof).await?;
                Ok(Verified {
                    token: AcceptedToken::Bound(verified.token),
                    next_nonce: verified.next_nonce,
                })
            }
            Presented::Bearer { token } if self.policy.allows_bearer() => Ok(Verified {
                token: AcceptedToken::Bearer(self.verify_bearer(token).await?),
                next_nonce: None,
            }),
            Presented::Bearer { .. } => Err(CredentialsError::Bearer.into()),
        }
    }

    /// RFC 9449 section 7.2.
    async fn verify_bearer(&self, token: &str) -> Result<BearerToken<C>, BearerError> {
        let token = bearer::presented(token)?;
        let token = self.tokens.verify(token, self.policy.now()).await?;
        let token = BearerToken::accept(token, self.policy.challenges.bearer)?;
        Decision::Accepted(None).report(Server::Resource { scheme: "bearer" });
        Ok(token)
    }

    /// The response to a refused request: its status, its challenge, a fresh nonce where one is
    /// demanded, the [`Rejection`] in its extensions, and an empty body. Says so in one `tracing`
    /// event, too.
    pub fn refuse<B: Default>(&self, rejection: Rejection) -> Response<B> {
        self.policy.refuse(rejection)
    }

    /// The nonce to give out now, where nonces are required: for another endpoint that wants to
    /// spare clients the round trip of a first refusal.
    pub fn issue_nonce(&self) -> Option<Nonce> {
        self.policy.rules.issue_nonce()
    }

    pub(crate) const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    pub(crate) fn issuers(&self) -> Vec<&str> {
        self.tokens.issuers()
    }
}

impl<C> Verifier<C> {
    /// How much memory may go to multiples of clients' points, in bytes; the default is 16 MiB, enough
    /// for some 1,300 keys. (Feature `precomputed-keys`, without which the engine verifies every
    /// signature.)
    ///
    /// For a P-256 key by which nine requests have passed, multiples of its point are kept, so that the
    /// next proofs by it take four tenths less time to verify. More keys than there is room for
    /// do no harm: they are verified as the first requests were. Verifying by the table does not go
    /// through the engine; what it computes with instead, and why that is right, is said at the head
    /// of `src/jose/p256_table/mod.rs`.
    #[cfg(feature = "precomputed-keys")]
    #[must_use]
    pub fn with_precomputed_keys(mut self, bytes: u64) -> Self {
        self.keys = KeyCache::with_tables(bytes);
        self
    }

    /// Verifies every proof by the engine all the same, whatever key signed it: where only a certified
    /// implementation may, or where the memory is needed, in a build that has the feature
    /// `precomputed-keys`. Tokens are verified by another one, with a
    /// switch of its own
    /// ([`JwtVerifier::without_precomputed_keys`](crate::JwtVerifier::without_precomputed_keys)).
    #[cfg(feature = "precomputed-keys")]
    #[must_use]
    pub fn without_precomputed_keys(self) -> Self {
        self.with_precomputed_keys(0)
    }

    /// The `realm` of challenges ([RFC 9110 section
    /// 11.5](https://www.rfc-editor.org/rfc/rfc9110#section-11.5)).
    #[must_use]
    pub fn with_realm(mut self, realm: QuotedText) -> Self {
        self.challenges().realm = Some(realm);
        self
    }

    /// The `scope` of challenges, and the scopes of the metadata: what a client should ask for.
    #[must_use]
    pub fn with_scope(mut self, scope: Scopes) -> Self {
        self.challenges().scope = Some(scope);
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
        self.challenges().bearer = BearerPolicy::Unbound;
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
        self.challenges().bearer = BearerPolicy::ConfirmedElsewhere;
        self
    }

    /// The `resource_metadata` of challenges: the URL of this service's metadata ([RFC 9728 section
    /// 5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)).
    /// [`with_well_known_metadata`](Self::with_well_known_metadata) knows it.
    #[must_use]
    pub fn with_resource_metadata(mut self, url: QuotedText) -> Self {
        self.challenges().resource_metadata = Some(url);
        self
    }

    /// Lets challenges point to the well-known place of this service's metadata ([RFC 9728 section
    /// 3.1](https://www.rfc-editor.org/rfc/rfc9728#section-3.1)), where
    /// [`ResourceMetadata`](crate::resource::ResourceMetadata) is served.
    #[expect(clippy::missing_panics_doc, reason = "a URL by RFC 3986 can be quoted")]
    #[must_use]
    pub fn with_well_known_metadata(self) -> Self {
        let resource = self.policy.rules.public_url();
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

    /// While it is built, a verifier shares its policy with none.
    fn challenges(&mut self) -> &mut Challenges {
        &mut Arc::make_mut(&mut self.policy).challenges
    }
}

impl<C> fmt::Debug for Verifier<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("rules", &self.policy.rules)
            .field("challenges", &self.policy.challenges)
            .finish_non_exhaustive()
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
