//! Start reading here: how one request is verified, from its header fields to a bound token.

use std::fmt;
use std::sync::{Arc, Once};

use http::Response;
use http::request::Parts;

use crate::credentials::{CredentialsError, Presented, ProofField, Scheme};
use crate::jose::key_cache::KeyCache;
use crate::proof::nonce::Nonce;
use crate::proof::rules::ProofRules;
use crate::resource::bearer::{self, AcceptedToken, BearerError, BearerPolicy, BearerToken};
use crate::resource::bound_token::{BoundToken, check_binding_early};
use crate::resource::challenge::Challenges;
use crate::resource::facts::RequestFacts;
use crate::resource::policy::Policy;
use crate::resource::quoted_text::QuotedText;
use crate::resource::rejection::Rejection;
use crate::resource::requirement::Scopes;
use crate::telemetry::{Consequence, Decision, Server};
use crate::tokens::access_token::{AccessTokenVerifier, AnyTokenVerifier};
use crate::tokens::claims::Claims;

/// Decides whether a request is accepted, from its head alone. [`DpopLayer`](crate::DpopLayer) applies
/// it to a tower service.
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
/// // The layer does this with every request (it calls `verify_either`):
/// let (head, _body) = Request::get("/orders").body(())?.into_parts();
/// let response: Response<String> = match verifier.verify(&head).await {
///     Ok(verified) => {
///         let mut response = Response::new(verified.token.claims().subject().unwrap_or("a machine").to_owned());
///         if let Some(nonce) = verified.next_nonce {
///             nonce.write_to(response.headers_mut());
///         }
///         response
///     }
///     Err(rejection) => verifier.reject(rejection), // here: 401, the request has no token
/// };
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// The verifier does not check:
///
/// - the body, the query and all other header fields, because a proof does not cover them ([RFC 9449
///   section 11.7](https://www.rfc-editor.org/rfc/rfc9449#section-11.7));
/// - that a client uses each key with one algorithm only (RFC 8725bis), because that requires
///   remembering keys ([`BoundToken::algorithm`] reports the algorithm);
/// - scopes, because they differ between routes ([`RequireScopesLayer`](crate::RequireScopesLayer)).
///
/// Bearer tokens are rejected unless [`allow_bearer`](Self::allow_bearer) or
/// [`allow_insecure_unchecked_cnf`](Self::allow_insecure_unchecked_cnf) was called.
pub struct Verifier<C = Claims> {
    policy: Arc<Policy>,
    tokens: AnyTokenVerifier<C>,
    /// The keys of clients whose requests were accepted.
    keys: Arc<KeyCache>,
    announced: Arc<Announced>,
}

/// What was logged already about a policy.
struct Announced {
    policy: Once,
    report_only: Once,
}

impl Default for Announced {
    fn default() -> Self {
        Self {
            policy: Once::new(),
            report_only: Once::new(),
        }
    }
}

/// The well-known name of a protected resource's metadata (RFC 9728 section 3).
pub(crate) const WELL_KNOWN: &str = "oauth-protected-resource";

impl<C: Send + Sync + 'static> Verifier<C> {
    /// Checks proofs by these rules, and access tokens with a [`JwtVerifier`](crate::JwtVerifier),
    /// [`Issuers`](crate::Issuers), or an [`AccessTokenVerifier`] of your own.
    ///
    /// A [`PublicUrl`](crate::PublicUrl) stands for [`ProofRules::new`] with it: every default.
    pub fn new(rules: impl Into<ProofRules>, tokens: impl AccessTokenVerifier<Claims = C>) -> Self {
        let rules = rules.into();
        let challenges = Challenges {
            bearer: BearerPolicy::Rejected,
            algorithms: rules.algorithms(),
            realm: None,
            scope: None,
            resource_metadata: None,
        };
        let tokens = AnyTokenVerifier::new(tokens);
        let policy = Policy {
            rules,
            challenges,
            tokens: tokens.expectations(),
        };
        Self {
            policy: Arc::new(policy),
            tokens,
            keys: Arc::default(),
            announced: Arc::default(),
        }
    }
}

impl<C> Clone for Verifier<C> {
    /// The clone shares the replay store, the nonces and the caches, so of the requests with one proof, one is accepted,
    /// by either of them. A method that changes the clone does not change the original. So routes can differ in what
    /// they accept:
    ///
    /// ```
    /// use tower_dpop::{DpopLayer, Verifier};
    ///
    /// # fn example(verifier: Verifier) {
    /// let with_a_proof = DpopLayer::new(verifier.clone());
    /// let while_clients_move = DpopLayer::new(verifier.allow_bearer());
    /// # let _ = (with_a_proof, while_clients_move);
    /// # }
    /// ```
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
            tokens: self.tokens.clone(),
            keys: Arc::clone(&self.keys),
            announced: Arc::clone(&self.announced),
        }
    }
}

impl<C> Verifier<C> {
    /// Verifies one request under the DPoP scheme (RFC 9449 sections 4.3 and 7.1), and rejects one under
    /// any other. Cheap checks come before expensive ones.
    ///
    /// The use of the proof is recorded last, so a request rejected for another reason can be sent again
    /// with the same proof. If the future is dropped, the use may already be recorded.
    ///
    /// # Errors
    ///
    /// The first check that fails. [`Verifier::reject`] turns it into the response.
    pub async fn verify(&self, request: &Parts) -> Result<Verified<BoundToken<C>>, Rejection> {
        let mut facts = RequestFacts::default();
        match Presented::from_headers(&request.headers)? {
            Presented::Dpop { token, proof } => {
                self.verify_dpop(request, (token, proof), &mut facts).await
            }
            Presented::Bearer { .. } => Err(CredentialsError::Bearer.into()),
        }
    }

    /// All steps of the verification, in their order.
    async fn verify_dpop(
        &self,
        request: &Parts,
        (token, proof): (&str, ProofField<'_>),
        facts: &mut RequestFacts,
    ) -> Result<Verified<BoundToken<C>>, Rejection> {
        let rules = &self.policy.rules;
        let (now, epoch) = (rules.now(), rules.epoch());
        let target = rules.target(request)?;
        facts.set_method(target.method());
        let proof = rules.read(proof, &target, Some(&self.keys), now)?;
        let unverified = proof.for_token(token)?;
        let token = self.tokens.verify(unverified.token(), now).await?;
        check_binding_early(&token, &unverified)?;
        // After the token: a client whose token has expired needs another token, not a nonce.
        let nonce = rules.check_nonce(&unverified, epoch, now)?;
        let proof = unverified.verify_signature()?;
        facts.jkt = Some(proof.thumbprint());
        let token = BoundToken::bind(token, &proof)?;
        rules.record_use(&proof, nonce.issued, epoch, now).await?;
        // Only after acceptance: other keys must not evict those of clients.
        proof.remember_key(&self.keys);
        Decision::Accepted(Some(proof.facts(now))).report(Server::accepting("dpop"));
        Ok(Verified::new(token, nonce.next))
    }

    /// Verifies one request under either scheme if Bearer is allowed; if not, the same as
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// The first check that fails. [`Verifier::reject`] turns it into the response.
    pub async fn verify_either(
        &self,
        request: &Parts,
    ) -> Result<Verified<AcceptedToken<C>>, Rejection> {
        self.decide(request, &mut RequestFacts::default()).await
    }

    /// The same, and notes what the log says about the request.
    pub(crate) async fn decide(
        &self,
        request: &Parts,
        facts: &mut RequestFacts,
    ) -> Result<Verified<AcceptedToken<C>>, Rejection> {
        match Presented::from_headers(&request.headers)? {
            Presented::Dpop { token, proof } => {
                facts.scheme = Some(Scheme::Dpop);
                let verified = self.verify_dpop(request, (token, proof), facts).await?;
                let token = AcceptedToken::Bound(verified.token);
                Ok(Verified::new(token, verified.next_nonce))
            }
            Presented::Bearer { token } => {
                facts.scheme = Some(Scheme::Bearer);
                if !self.policy.allows_bearer() {
                    return Err(CredentialsError::Bearer.into());
                }
                let token = AcceptedToken::Bearer(self.verify_bearer(token).await?);
                Ok(Verified::new(token, None))
            }
        }
    }

    /// RFC 9449 section 7.2.
    async fn verify_bearer(&self, token: &str) -> Result<BearerToken<C>, BearerError> {
        let token = bearer::presented(token)?;
        let token = self.tokens.verify(token, self.policy.now()).await?;
        let token = BearerToken::accept(token, self.policy.challenges.bearer)?;
        Decision::Accepted(None).report(Server::accepting("bearer"));
        Ok(token)
    }

    /// Makes the response to a rejected request: status and challenge as [`Rejection`] lists them, a
    /// nonce if one is demanded, the [`Rejection`] in its extensions, and an empty body. Also emits one
    /// `tracing` event, which does not describe the request: only the layer knows it.
    pub fn reject<B: Default>(&self, rejection: Rejection) -> Response<B> {
        self.policy.reject(rejection, &RequestFacts::default())
    }

    /// Logs what requests must meet, and that a layer does not enforce it. Each is logged once, however
    /// many layers and services share the verifier, and again for a clone that was changed.
    pub(crate) fn announce(&self, consequence: Consequence) {
        self.announced.policy.call_once(|| self.policy.announce());
        if consequence == Consequence::Reported {
            self.announced.report_only.call_once(|| {
                tracing::warn!(
                    "a layer only reports: requests that are rejected reach the service (DpopLayer::with_insecure_report_only)"
                );
            });
        }
    }

    /// The nonce to send now, if nonces are required. If another endpoint sends it
    /// ([`Nonce::write_to`]), clients are spared a first rejection.
    pub fn issue_nonce(&self) -> Option<Nonce> {
        self.policy.rules.issue_nonce()
    }

    pub(crate) const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    pub(crate) fn issuers(&self) -> Vec<&str> {
        self.tokens.issuers()
    }

    /// Names the scopes that a client should request, in challenges and metadata. It checks none:
    /// [`RequireScopesLayer`](crate::RequireScopesLayer) does.
    #[must_use]
    pub fn with_scope(mut self, scope: Scopes) -> Self {
        self.challenges().scope = Some(scope);
        self
    }

    /// Also accepts requests with an unbound token under the Bearer scheme, while clients migrate to
    /// DPoP ([RFC 9449 section 7.2](https://www.rfc-editor.org/rfc/rfc9449#section-7.2)).
    ///
    /// These requests have a [`BearerToken`] instead of a [`BoundToken`], and challenges name both
    /// schemes. A bound token under the Bearer scheme is rejected, with or without a proof. Without the
    /// layer, call [`verify_either`](Self::verify_either): [`verify`](Self::verify) still rejects Bearer.
    ///
    /// # Security
    ///
    /// Anyone who steals an unbound token can use it. A token without `cnf` is treated as unbound, so an
    /// introspection endpoint must report `cnf` ([RFC 9449 section
    /// 6.2](https://www.rfc-editor.org/rfc/rfc9449#section-6.2)).
    #[must_use]
    pub fn allow_bearer(mut self) -> Self {
        self.challenges().bearer = BearerPolicy::Unbound;
        self
    }

    /// As [`allow_bearer`](Self::allow_bearer), and also accepts tokens whose `cnf` has no `jkt` (for
    /// example, only `x5t#S256`).
    ///
    /// # Security
    ///
    /// This crate does not check a binding of that kind. Use it only if another layer confirms the
    /// binding for every request (mutual TLS, [RFC 8705](https://www.rfc-editor.org/rfc/rfc8705)).
    #[must_use]
    pub fn allow_insecure_unchecked_cnf(mut self) -> Self {
        self.challenges().bearer = BearerPolicy::UncheckedCnf;
        self
    }

    /// Accepts a proof as often as it is sent. Its use is neither looked up nor recorded in the replay store; all other
    /// checks remain. For a gate in front of services that verify each request again: whichever of the two records a
    /// proof first, the other would reject it.
    ///
    /// ```
    /// use tower_dpop::Verifier;
    ///
    /// # fn example(verifier: Verifier) {
    /// let gate = verifier.clone().allow_insecure_replays();
    /// let service = verifier; // it still accepts each proof once
    /// # let _ = (gate, service);
    /// # }
    /// ```
    ///
    /// # Security
    ///
    /// Anyone who reads a request on its way can repeat it as long as its proof is fresh ([RFC 9449 section
    /// 11.1](https://www.rfc-editor.org/rfc/rfc9449#section-11.1)). Use it only if every service behind the gate
    /// accepts each proof once.
    ///
    /// If nonces are required, the gate and the services must accept each other's: with the same secret and the same
    /// replay store, to which nonces are bound, or with nonces at the gate alone.
    #[must_use]
    pub fn allow_insecure_replays(mut self) -> Self {
        self.change_policy().rules.accept_replays();
        self
    }

    /// Sets the `realm` of challenges ([RFC 9110 section
    /// 11.5](https://www.rfc-editor.org/rfc/rfc9110#section-11.5)). The default is none.
    #[must_use]
    pub fn with_realm(mut self, realm: QuotedText) -> Self {
        self.challenges().realm = Some(realm);
        self
    }

    /// Sets the `resource_metadata` of challenges: the URL of this service's metadata ([RFC 9728 section
    /// 5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)). The default is none;
    /// [`ResourceMetadata::of`](crate::resource::ResourceMetadata::of) sets the document's well-known URL.
    #[must_use]
    pub fn with_resource_metadata(mut self, url: QuotedText) -> Self {
        self.challenges().resource_metadata = Some(url);
        self
    }

    /// The `resource_metadata` of challenges, unless the application has set another one.
    pub(crate) fn name_metadata(&mut self, url: QuotedText) {
        self.challenges().resource_metadata.get_or_insert(url);
    }

    /// Sets the maximum memory, in bytes, for tables that make ES256 verification faster. The default
    /// is 32 MiB, enough for about 1,000 keys. (Feature `precomputed-keys`; without it, the engine
    /// verifies every signature.)
    ///
    /// After nine accepted requests with proofs by one P-256 key, a table of multiples of its point is
    /// kept, and verifying further proofs by it takes 60% less time, without the engine. The head of
    /// `src/jose/p256_table/mod.rs` describes the arithmetic and why it is correct.
    #[cfg(feature = "precomputed-keys")]
    #[must_use]
    pub fn with_precomputed_keys(mut self, bytes: u64) -> Self {
        self.keys = Arc::new(KeyCache::with_tables(bytes));
        self
    }

    /// Verifies every proof with the engine: where only a certified implementation may verify, or to
    /// save the memory. Access tokens have their own switch
    /// ([`JwtVerifier::without_precomputed_keys`](crate::JwtVerifier::without_precomputed_keys)).
    #[cfg(feature = "precomputed-keys")]
    #[must_use]
    pub fn without_precomputed_keys(self) -> Self {
        self.with_precomputed_keys(0)
    }

    fn challenges(&mut self) -> &mut Challenges {
        &mut self.change_policy().challenges
    }

    /// Clones keep the policy that they have.
    fn change_policy(&mut self) -> &mut Policy {
        self.announced = Arc::default();
        Arc::make_mut(&mut self.policy)
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

/// An accepted request.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verified<T> {
    /// The access token: a [`BoundToken`], or an [`AcceptedToken`].
    pub token: T,
    /// The nonce for the client's next requests, if the lifetime of the one it used is about to end
    /// ([RFC 9449 section 8.2](https://www.rfc-editor.org/rfc/rfc9449#section-8.2)). Send it with a
    /// successful response.
    pub next_nonce: Option<Nonce>,
}

impl<T> Verified<T> {
    const fn new(token: T, next_nonce: Option<Nonce>) -> Self {
        Self { token, next_nonce }
    }
}
