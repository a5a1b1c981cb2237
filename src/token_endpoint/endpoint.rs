//! Start here: the path of one token request, from its header fields to a proven key.

use std::fmt;
use std::sync::Once;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Response};
use serde::{Serialize, Serializer};

use crate::credentials::ProofField;
use crate::jose::algorithm::{Algorithm, Algorithms};
use crate::jose::thumbprint::Thumbprint;
use crate::proof::checks::{NoToken, Proof, ProofError};
use crate::proof::nonce::{AcceptedNonce, Nonce};
use crate::proof::replay::epoch::Epoch;
use crate::proof::rules::ProofRules;
use crate::proof::target::TargetError;
use crate::telemetry::{Consequence, Decision, Explanation, Server, short_type_name};
use crate::time::Timestamp;
use crate::token_endpoint::proven_key::ProvenKey;
use crate::token_endpoint::rejection::TokenRequestRejection;

/// Decides whether a token request, or a pushed authorization request, comes from the holder of a
/// key, from its head alone. [`TokenEndpointLayer`](crate::token_endpoint::TokenEndpointLayer)
/// applies it to a tower service.
///
/// One `TokenEndpoint` serves both endpoints: a proof must name the public URL with the request's
/// own path. The [module](crate::token_endpoint) says what the application must do.
///
/// # Example
///
/// ```
/// use tower_dpop::token_endpoint::TokenEndpoint;
/// use tower_dpop::{NonceSecret, ProofRules, StatelessNonces};
///
/// let rules = ProofRules::new("https://as.example.com".parse()?)
///     .with_nonces(StatelessNonces::new(NonceSecret::generate()));
/// let endpoint = TokenEndpoint::new(rules);
/// # let _ = endpoint;
/// # Ok::<(), tower_dpop::proof::InvalidPublicUrl>(())
/// ```
///
/// # Security
///
/// Not checked: the client's authentication, and everything in the body. A proof shows which key
/// the client holds, not who the client is.
///
/// Anyone can make a valid proof with their own key, and its record takes room in the replay store.
/// If strangers fill the store, requests of clients are rejected. So rate-limit requests before
/// [`verify`](Self::verify), or call its two halves separately: [`check`](Self::check), then
/// authenticate the client and check its grant, then [`UnrecordedProof::record_use`].
pub struct TokenEndpoint {
    rules: ProofRules,
    /// What it checks was logged.
    announced: Once,
}

impl TokenEndpoint {
    /// Checks proofs by these rules. The authorization server's [`PublicUrl`](crate::PublicUrl) stands for
    /// [`ProofRules::new`] with it.
    pub fn new(rules: impl Into<ProofRules>) -> Self {
        Self {
            rules: rules.into(),
            announced: Once::new(),
        }
    }

    /// Logs what proofs must meet, once.
    pub(crate) fn announce(&self) {
        self.announced.call_once(|| {
            let rules = &self.rules;
            tracing::info!(
                public_urls = %rules.targets(),
                proof_algorithms = %rules.algorithms(),
                proof_iat = rules.describe_iat(),
                nonces = rules.describe_nonces(),
                replay_store = short_type_name(rules.replay_store()),
                "DPoP proofs of token requests are checked"
            );
            for weakness in rules.weaknesses() {
                tracing::warn!(public_urls = %rules.targets(), "{weakness}");
            }
        });
    }

    /// Checks one request: RFC 9449 section 4.3, checks 1 to 11, and that the proof was not used before.
    ///
    /// Call it before the authorization code is consumed or the refresh token rotated. The use of the
    /// proof is recorded last, so a request rejected for another reason can be sent again with the same
    /// proof. If the future is dropped, the use may already be recorded.
    ///
    /// # Errors
    ///
    /// The first check that fails. [`TokenEndpoint::reject`] turns it into the response.
    pub async fn verify(&self, request: &Parts) -> Result<ProvenKey, TokenRequestRejection> {
        self.check(request)?.record_use().await
    }

    /// The first half of [`verify`](Self::verify): everything but the replay check, cheap checks
    /// before expensive ones. There is no access token yet, so an `ath` is not checked.
    ///
    /// # Security
    ///
    /// Issue nothing before the second half: the proof that was checked here may be a replay.
    ///
    /// # Errors
    ///
    /// The first check that fails. [`TokenEndpoint::reject`] turns it into the response.
    pub fn check(&self, request: &Parts) -> Result<UnrecordedProof<'_>, TokenRequestRejection> {
        self.announce();
        let (now, epoch) = (self.rules.now(), self.rules.epoch());
        let field = ProofField::from_headers(&request.headers);
        let target = self.rules.target(request)?;
        let unverified = self.rules.read(field, &target, None, now)?;
        let nonce = self.rules.check_nonce(&unverified, epoch, now)?;
        let proof = unverified.verify_signature()?;
        Ok(UnrecordedProof {
            rules: &self.rules,
            proof,
            nonce,
            epoch,
            now,
        })
    }

    /// Like [`verify`](Self::verify), for a server that also serves clients without DPoP: a request
    /// without any `DPoP` field gives `None`; any other must pass every check.
    ///
    /// # Security
    ///
    /// A request without a proof gets a bearer token, and must not redeem a grant that is bound to a
    /// key. Pass the `Option` to [`check_code_binding`](crate::token_endpoint::check_code_binding) or
    /// [`check_refresh_binding`](crate::token_endpoint::check_refresh_binding).
    ///
    /// # Errors
    ///
    /// The first check that fails. [`TokenEndpoint::reject`] turns it into the response.
    pub async fn verify_if_present(
        &self,
        request: &Parts,
    ) -> Result<Option<ProvenKey>, TokenRequestRejection> {
        match ProofField::from_headers(&request.headers) {
            ProofField::Absent => Ok(None),
            ProofField::One(_) | ProofField::Several => self.verify(request).await.map(Some),
        }
    }

    /// Makes the response to a rejected request: its status, its JSON, a nonce if one is demanded, and
    /// the [`TokenRequestRejection`] in its extensions. Also emits one `tracing` event.
    ///
    /// A 429 or 503 has no body: [RFC 6749 section
    /// 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2) defines only errors of the client.
    pub fn reject<B: From<String>>(
        &self,
        rejection: impl Into<TokenRequestRejection>,
    ) -> Response<B> {
        let rejection = rejection.into();
        self.report(&rejection);
        let mut response = Response::new(B::from(rejection.body()));
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if rejection.error_code().is_none() {
            // A short time: records in a replay store expire every second, and a shared store has its own
            // timeouts.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let (TokenRequestRejection::Nonce(_), Some(nonce)) = (&rejection, self.issue_nonce()) {
            nonce.write_to(headers);
        }
        response.extensions_mut().insert(rejection);
        response
    }

    fn report(&self, rejection: &TokenRequestRejection) {
        let skew_seconds = match rejection {
            TokenRequestRejection::Proof(ProofError::Iat(error)) => {
                Some(self.rules.freshness().skew(*error))
            }
            _ => None,
        };
        let decision = Decision::Rejected {
            consequence: Consequence::Rejected,
            reason: rejection.reason(),
            error: rejection,
            fault: rejection.fault(),
            skew_seconds,
            explain: &|| self.explain(rejection),
        };
        decision.report(Server::Token);
    }

    fn explain(&self, rejection: &TokenRequestRejection) -> Explanation {
        match rejection {
            TokenRequestRejection::Proof(error) => self.rules.explain(error),
            TokenRequestRejection::Target(TargetError::Misdirected) => {
                Explanation::expected(Some(self.rules.targets().to_string()))
            }
            _ => Explanation::default(),
        }
    }

    /// The nonce to send now, if nonces are required. If another endpoint sends it
    /// ([`Nonce::write_to`]), clients are spared a first rejection.
    pub fn issue_nonce(&self) -> Option<Nonce> {
        self.rules.issue_nonce()
    }

    /// The DPoP part of the server's metadata ([RFC 9449 section
    /// 5.1](https://www.rfc-editor.org/rfc/rfc9449#section-5.1)), to be flattened into the metadata
    /// of [RFC 8414](https://www.rfc-editor.org/rfc/rfc8414).
    ///
    /// # Example
    ///
    /// ```
    /// use serde::Serialize;
    /// use tower_dpop::token_endpoint::{AuthorizationServerMetadata, TokenEndpoint};
    /// use tower_dpop::PublicUrl;
    ///
    /// #[derive(Serialize)]
    /// struct Metadata {
    ///     issuer: &'static str,
    ///     #[serde(flatten)]
    ///     dpop: AuthorizationServerMetadata,
    /// }
    ///
    /// let issuer = "https://as.example.com";
    /// let endpoint = TokenEndpoint::new(issuer.parse::<PublicUrl>()?);
    /// assert_eq!(
    ///     serde_json::to_string(&Metadata { issuer, dpop: endpoint.metadata() })?,
    ///     r#"{"issuer":"https://as.example.com","dpop_signing_alg_values_supported":["ES256","ES384","PS256","Ed25519","EdDSA"]}"#
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn metadata(&self) -> AuthorizationServerMetadata {
        AuthorizationServerMetadata {
            algorithms: self.rules.algorithms(),
        }
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// A valid proof that may have been used before.
pub struct UnrecordedProof<'e> {
    rules: &'e ProofRules,
    proof: Proof<NoToken>,
    nonce: AcceptedNonce,
    epoch: Epoch,
    now: Timestamp,
}

impl UnrecordedProof<'_> {
    /// The second half of [`TokenEndpoint::verify`]: records the proof's single use. Call it while the
    /// proof is still fresh, and consume the code or rotate the refresh token after it, atomically.
    ///
    /// # Errors
    ///
    /// The proof was used before, has become too old in the meantime, or the replay store could not
    /// decide.
    pub async fn record_use(self) -> Result<ProvenKey, TokenRequestRejection> {
        let (issued, epoch) = (self.nonce.issued, self.epoch);
        self.rules
            .record_use(&self.proof, issued, epoch, self.now)
            .await?;
        Decision::Accepted(Some(self.proof.facts(self.now))).report(Server::Token);
        Ok(ProvenKey {
            thumbprint: self.proof.thumbprint(),
            algorithm: self.proof.algorithm(),
            next_nonce: self.nonce.next,
        })
    }

    /// The thumbprint (`jkt`) of the key, to compare with that of the grant.
    pub fn thumbprint(&self) -> Thumbprint {
        self.proof.thumbprint()
    }
}

impl fmt::Debug for UnrecordedProof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnrecordedProof(..)")
    }
}

/// The DPoP part of an authorization server's metadata, `{"dpop_signing_alg_values_supported":[…]}`
/// ([RFC 9449 section 5.1](https://www.rfc-editor.org/rfc/rfc9449#section-5.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AuthorizationServerMetadata {
    #[serde(
        rename = "dpop_signing_alg_values_supported",
        serialize_with = "serialize_names"
    )]
    algorithms: Algorithms,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
fn serialize_names<S: Serializer>(
    algorithms: &Algorithms,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(algorithms.iter().map(Algorithm::name))
}
