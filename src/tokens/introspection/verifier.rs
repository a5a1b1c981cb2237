//! The verifier that sends introspection requests and evaluates the responses.

use std::fmt;
use std::time::Duration;

use derive_where::derive_where;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time;

use crate::credentials::PresentedToken;
use crate::issuer::client_authentication::ClientAuthentication;
use crate::issuer::endpoint_url::EndpointUrl;
use crate::issuer::http::{HttpClient, JSON};
use crate::jose::json::{Text, object};
use crate::telemetry::{self, Cached};
use crate::time::{Timestamp, Validity};
use crate::tokens::access_token::{
    AccessToken, AccessTokenVerifier, Confirmation, Strings, TokenError,
};
use crate::tokens::cache::{CachedTokens, DEFAULT_CAPACITY};
use crate::tokens::claim_fault::{read_claims, read_registered};
use crate::tokens::introspection::claims::IntrospectedClaims;
use crate::tokens::introspection::failure::{Endpoint, Failure};
use crate::tokens::introspection::in_flight::InFlight;
use crate::tokens::introspection::response::{MAX_RESPONSE, read_response};
use crate::tokens::introspection::signed_responses::{SIGNED, SignedResponses};

/// Verifies access tokens by asking the authorization server about them.
///
/// A token is accepted if the server reports it as active, `aud` names this resource server, `exp` (if
/// present) has not passed, `nbf` (if present) has been reached, and `token_type` and `token_use` do not
/// contradict what the token is bound to and for.
///
/// `C` is the type of the claims that the application receives: [`IntrospectedClaims`], or a type of your own
/// ([`with_claims`](Self::with_claims)).
///
/// # Example
///
/// ```no_run
/// use tower_dpop::tokens::{ClientAuthentication, HttpClient, IntrospectionVerifier};
///
/// # fn example(secret: String) -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = IntrospectionVerifier::new(
///     "https://as.example.com/introspect".parse()?,
///     ClientAuthentication::basic("orders-api", secret),
///     "https://api.example.com",
///     HttpClient::new()?,
/// );
/// # let _ = tokens;
/// # Ok(())
/// # }
/// ```
///
/// Simultaneous requests with the same token share one introspection request. Its response is cached for [ten
/// seconds](Self::with_cache_lifetime).
///
/// | the server's response | a request with the token is |
/// |---|---|
/// | `"active": true`, and the other members allow it | accepted, if its proof is signed with the key of `cnf.jkt` |
/// | `"active": false`, or 400 with the error `unsupported_token_type` | rejected with 401: [`TokenError::Invalid`] |
/// | `"active": true`, but another `aud`, a past `exp`, a malformed `cnf`, … | rejected with 401: the other [`TokenError`]s |
/// | none in time; a status other than 200; not a JSON object without duplicate members of at most 64 KiB; no `active`, or one that is not a JSON boolean; not [signed](Self::with_signed_responses), if it must be | rejected with 503: [`TokenError::Unavailable`] |
///
/// In the last row, this service or the server is at fault, even if the status is 401: the server then
/// rejects this service's own credentials. It is logged at `error` for 401 and 403, at `warn` otherwise. The
/// log never shows a token or a secret.
///
/// # Panics
///
/// Introspection requests need a tokio runtime with I/O and timers; outside of one they panic.
///
/// # Security
///
/// A revoked token is accepted for the lifetime of a cached response. Only valid tokens are cached, so a
/// made-up token costs one introspection request each time. The number of introspection requests in flight is
/// [limited](Self::with_concurrency). When made-up tokens use up the limit, requests with valid tokens are
/// rejected with 503. If clients are not trusted that far, limit the rate of each client in an outer layer.
///
/// A refresh token is active, too. It is rejected if the response distinguishes it: by `token_type` (which
/// must be `DPoP` for a bound token and `Bearer` for any other), by `token_use` (`access_token`), or by
/// `aud`. Not checked: scopes (the application's decision), `iat`, `jti`.
pub struct IntrospectionVerifier<C = IntrospectedClaims> {
    endpoint: Endpoint,
    client: ClientAuthentication,
    audiences: Vec<String>,
    missing_audience: MissingAudience,
    issuer: Option<String>,
    signed_responses: Option<SignedResponses>,
    http: HttpClient,
    places: Semaphore,
    /// In whole seconds. Zero disables the cache.
    cache_lifetime: u64,
    cached_tokens: CachedTokens<IntrospectedToken<C>>,
    in_flight: InFlight<Result<IntrospectedToken<C>, TokenError>>,
}

/// What happens to a token if the response has no `aud`.
#[derive(Clone, Copy, Debug)]
enum MissingAudience {
    Accept,
    Reject,
}

/// An active token for this resource server.
#[derive_where(Clone)]
pub(crate) struct IntrospectedToken<C> {
    pub(crate) token: AccessToken<C>,
    pub(crate) validity: Validity,
    since: Timestamp,
}

/// How far the server's clock may be off: as for [`JwtVerifier`](crate::JwtVerifier).
const LEEWAY: Duration = Duration::from_secs(30);

const DEFAULT_CACHE_LIFETIME: u64 = 10;

const DEFAULT_CONCURRENCY: usize = 64;

impl IntrospectionVerifier {
    /// A verifier for tokens that this introspection endpoint knows, for this audience.
    ///
    /// The audience is compared with `aud` exactly, character by character.
    pub fn new(
        endpoint: EndpointUrl,
        client: ClientAuthentication,
        audience: impl Into<String>,
        http: HttpClient,
    ) -> Self {
        Self {
            endpoint: Endpoint::new(endpoint),
            client,
            audiences: vec![audience.into()],
            missing_audience: MissingAudience::Reject,
            issuer: None,
            signed_responses: None,
            http,
            places: Semaphore::new(DEFAULT_CONCURRENCY),
            cache_lifetime: DEFAULT_CACHE_LIFETIME,
            cached_tokens: CachedTokens::with_capacity(DEFAULT_CAPACITY),
            in_flight: InFlight::default(),
        }
    }
}

impl<C: Send + Sync + 'static> IntrospectionVerifier<C> {
    /// Also accepts tokens for another audience.
    #[must_use]
    pub fn add_audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self.renewed()
    }

    /// Also accepts tokens if the response has no `aud`, which is optional in RFC 7662. If there is an `aud`,
    /// it must still name this resource server.
    ///
    /// # Security
    ///
    /// Without an audience, a token that a client got for another service is accepted here, and so is a token
    /// that the other service received and kept. Use this only if the endpoint reports to each resource
    /// server only its own tokens ([RFC 7662 section
    /// 2.2](https://www.rfc-editor.org/rfc/rfc7662#section-2.2)), or if scopes distinguish the services.
    #[must_use]
    pub fn with_optional_audience(self) -> Self {
        Self {
            missing_audience: MissingAudience::Accept,
            ..self
        }
        .renewed()
    }

    /// The issuer of the tokens. If the response has an `iss`, it must be equal, character by character.
    #[must_use]
    pub fn with_issuer(self, issuer: impl Into<String>) -> Self {
        Self {
            issuer: Some(issuer.into()),
            ..self
        }
        .renewed()
    }

    /// Asks for signed responses ([RFC 9701](https://www.rfc-editor.org/rfc/rfc9701)), and requires them: with an
    /// unsigned one, the request is rejected with 503. The default is unsigned JSON.
    #[must_use]
    pub fn with_signed_responses(self, responses: SignedResponses) -> Self {
        Self {
            signed_responses: Some(responses),
            ..self
        }
        .renewed()
    }

    /// How long the response for a valid token is cached, in whole seconds, and never beyond the token's
    /// `exp`. A revoked token may be accepted for as long. The default is 10 s. With zero, every request asks
    /// the server, but simultaneous requests with the same token still share one request.
    #[must_use]
    pub fn with_cache_lifetime(self, lifetime: Duration) -> Self {
        Self {
            cache_lifetime: lifetime.as_secs(),
            ..self
        }
    }

    /// How much memory the cached tokens may take, in bytes (an estimate). The default is 16 MiB, about 6,000
    /// tokens.
    #[must_use]
    pub fn with_cache_capacity(self, bytes: u64) -> Self {
        Self {
            cached_tokens: CachedTokens::with_capacity(bytes),
            ..self
        }
    }

    /// How many introspection requests may be in flight at once, at least one. The default is 64. Further
    /// requests wait for at most the [timeout of one
    /// exchange](crate::tokens::HttpClientBuilder::with_timeout), and are then rejected with 503.
    #[must_use]
    pub fn with_concurrency(self, most: usize) -> Self {
        Self {
            places: Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)),
            ..self
        }
    }

    /// Empties the cache: tokens that were cached under other rules may no longer be valid.
    fn renewed(mut self) -> Self {
        self.cached_tokens = self.cached_tokens.renewed();
        self
    }

    /// Parses the server's response into a type of your own. A token is rejected if its response does not
    /// fit.
    ///
    /// # Example
    ///
    /// ```
    /// # use tower_dpop::tokens::IntrospectionVerifier;
    /// #[derive(serde::Deserialize)]
    /// struct OrderClaims {
    ///     sub: String,
    ///     tenant: u64,
    /// }
    ///
    /// # fn example(tokens: IntrospectionVerifier) {
    /// let tokens = tokens.with_claims::<OrderClaims>();
    /// # }
    /// ```
    #[must_use]
    pub fn with_claims<D: DeserializeOwned + Send + Sync + 'static>(
        self,
    ) -> IntrospectionVerifier<D> {
        IntrospectionVerifier {
            endpoint: self.endpoint,
            client: self.client,
            audiences: self.audiences,
            missing_audience: self.missing_audience,
            issuer: self.issuer,
            signed_responses: self.signed_responses,
            http: self.http,
            places: self.places,
            cache_lifetime: self.cache_lifetime,
            cached_tokens: self.cached_tokens.renewed(),
            in_flight: InFlight::default(),
        }
    }

    /// The cached token, if it may still be used.
    fn recall(&self, token: &PresentedToken<'_>, now: Timestamp) -> Option<IntrospectedToken<C>> {
        let introspected = self.cached_tokens.get(token)?;
        let lives = introspected.since <= now
            && now < introspected.since.plus(self.cache_lifetime)
            && introspected
                .validity
                .expires
                .is_none_or(|expires| now.as_numeric_date() < expires);
        lives.then_some(introspected)
    }

    /// Sends an introspection request. Returns the members of the response if the token is active.
    async fn introspect(
        &self,
        token: &PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let place = time::timeout(self.http.timeout(), self.places.acquire());
        let _place = place.await.map_err(|_| Failure::TooManyInFlight)?;
        let (authorization, form) = self.client.request(token, now)?;
        let (url, signed) = (self.endpoint.url.url(), self.signed_responses.as_ref());
        let accept = signed.map_or(JSON, |_| SIGNED);
        let response = self
            .http
            .post(url, authorization, accept, form, MAX_RESPONSE);
        read_response(response.await?, signed, now).await
    }

    /// The checks of an active token that do not depend on the time.
    fn check(&self, claims: &Registered<'_>) -> Result<(), TokenError> {
        if let (Some(expected), Some(issuer)) = (&self.issuer, &claims.iss)
            && issuer.as_str() != expected
        {
            return Err(TokenError::Issuer);
        }
        match (&claims.aud, self.missing_audience) {
            (None, MissingAudience::Accept) => {}
            (Some(audience), _) if audience.has_one_of(&self.audiences) => {}
            _ => return Err(TokenError::Audience),
        }
        // RFC 9449 section 6.2: "If the token_type member is included in the introspection
        // response, it MUST contain the value DPoP."
        let is_bound = matches!(claims.cnf, Some(Confirmation::Thumbprint(_)));
        let expected = if is_bound { "DPoP" } else { "Bearer" };
        let is_of_type = |name: &Text<'_>| name.as_str().eq_ignore_ascii_case(expected);
        // `token_type_hint` is only a hint: a server finds refresh tokens, too.
        let is_for_access = |usage: &Text<'_>| usage.as_str() == "access_token";
        if claims.token_type.as_ref().is_none_or(is_of_type)
            && claims.token_use.as_ref().is_none_or(is_for_access)
        {
            Ok(())
        } else {
            Err(TokenError::TokenType)
        }
    }
}

impl<C: DeserializeOwned + Send + Sync + 'static> IntrospectionVerifier<C> {
    async fn look_up(
        &self,
        token: &PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<IntrospectedToken<C>, TokenError> {
        // A response may have been cached since this request looked.
        if let Some(known) = self.recall(token, now) {
            return Ok(known);
        }
        // If the clock steps back, a token that the server is about to report as inactive must not come back.
        self.cached_tokens.forget(token);
        let response = self.introspect(token, now).await.map_err(|failure| {
            self.endpoint.failed(&failure, now);
            TokenError::Unavailable
        })?;
        let Some(response) = response else {
            self.endpoint.responded("inactive", now);
            return Err(TokenError::Invalid);
        };
        self.endpoint.responded("active", now);
        let introspected = self.read_claims(&response, now)?;
        if self.cache_lifetime > 0 {
            self.cached_tokens
                .keep(token, response.len(), introspected.clone());
        }
        Ok(introspected)
    }

    pub(crate) fn read_claims(
        &self,
        response: &[u8],
        now: Timestamp,
    ) -> Result<IntrospectedToken<C>, TokenError> {
        let registered: Registered<'_> = read_registered(response)?;
        self.check(&registered)?;
        let claims = read_claims(response)?;
        let mut token = AccessToken::new(registered.cnf.unwrap_or(Confirmation::Unbound), claims);
        token.expires = registered.exp.map(Timestamp::from_numeric_date);
        Ok(IntrospectedToken {
            token,
            validity: Validity {
                not_before: registered.nbf,
                expires: registered.exp,
            },
            since: now,
        })
    }
}

impl<C: DeserializeOwned + Send + Sync + 'static> AccessTokenVerifier for IntrospectionVerifier<C> {
    type Claims = C;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<C>, TokenError> {
        let known = self.recall(&token, now);
        if self.cache_lifetime > 0 {
            telemetry::token_cache(match known {
                Some(_) => Cached::Hit,
                None => Cached::Miss,
            });
        }
        let introspected = if let Some(introspected) = known {
            introspected
        } else {
            let response = self.look_up(&token, now);
            self.in_flight.share(token.sha256(), response).await?
        };
        // Checked for each request at its own time, whichever request asked the server.
        introspected.validity.check(now, LEEWAY)?;
        Ok(introspected.token)
    }

    fn issuers(&self) -> Vec<&str> {
        self.issuer.as_deref().into_iter().collect()
    }

    fn expected(&self, error: &TokenError) -> Option<String> {
        match error {
            TokenError::Audience => Some(self.audiences.join(" ")),
            TokenError::Issuer => self.issuer.clone(),
            _ => None,
        }
    }
}

impl<C> fmt::Debug for IntrospectionVerifier<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectionVerifier")
            .field("endpoint", &self.endpoint.url)
            .field("client", &self.client)
            .field("audiences", &self.audiences)
            .field("missing_audience", &self.missing_audience)
            .field("issuer", &self.issuer)
            .field("signed_responses", &self.signed_responses)
            .field("cache_lifetime", &Duration::from_secs(self.cache_lifetime))
            .finish_non_exhaustive()
    }
}

object! {
    struct Registered<'de> {
        iss: Text<'de> = "iss",
        aud: Strings = "aud",
        exp: f64 = "exp",
        nbf: f64 = "nbf",
        cnf: Confirmation = "cnf",
        token_type: Text<'de> = "token_type",
        token_use: Text<'de> = "token_use",
    }
}
