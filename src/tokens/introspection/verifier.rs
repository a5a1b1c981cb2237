//! The verifier that asks, and what it makes of answers.

use std::fmt;
use std::time::Duration;

use derive_where::derive_where;
use form_urlencoded::Serializer;
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time;

use crate::credentials::PresentedToken;
use crate::jose::json::{InvalidJson, Text, object, read};
use crate::telemetry::{self, Cached};
use crate::time::{Timestamp, Validity};
use crate::tokens::access_token::{
    AccessToken, AccessTokenVerifier, Audience, Confirmation, TokenError,
};
use crate::tokens::cache::{CachedTokens, DEFAULT_CAPACITY};
use crate::tokens::http::{EndpointUrl, HttpClient, HttpResponse};
use crate::tokens::introspection::claims::IntrospectedClaims;
use crate::tokens::introspection::client_authentication::{ClientAuthentication, NoAssertion};
use crate::tokens::introspection::failure::{Failure, is_unsupported_token_type};
use crate::tokens::introspection::in_flight::InFlight;

/// Verifies access tokens by asking the authorization server about them.
///
/// A token passes when the server says that it is active, when `aud` names this resource server,
/// when `exp` has not passed and `nbf` has come, where they are there, and when `token_type` and
/// `token_use` do not contradict what the token is bound to and for.
///
/// `C` is what the application learns: [`IntrospectedClaims`], or a type of your own
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
/// Requests with one token at one time share one question, and its answer serves for
/// [ten seconds](Self::with_cache_life) more.
///
/// | the server says | a request with the token is |
/// |---|---|
/// | `"active": true`, and the other members allow it | let through, if its proof is by the key of `cnf.jkt` |
/// | `"active": false`, or 400 with the error `unsupported_token_type` | refused with 401: [`TokenError::Invalid`] |
/// | `"active": true`, with another `aud`, `exp` past, a `cnf` that is malformed … | refused with 401: the other [`TokenError`]s |
/// | nothing in time, another status than 200, not a JSON object without duplicate members of at most 64 KiB, one whose `active` is missing or is not a JSON boolean | refused with 503: [`TokenError::Unavailable`] |
///
/// The last row is a fault of ours or of the server's, a 401 included: what it refuses then is this
/// service's own credentials. The log has it at `error` for 401 and 403, at `warn` otherwise,
/// and never shows a token or a secret.
///
/// # Panics
///
/// Questions are asked within a tokio runtime that has I/O and timers; outside of one they panic.
///
/// # Security
///
/// A token that was revoked goes on for the life of a cached answer. A request with a made-up token
/// costs a question each time, for only good tokens are remembered: the number of questions at one
/// time is [limited](Self::with_concurrency), and when made-up tokens take all places, requests
/// with good ones are answered 503. Where clients are not trusted that far, limit the rate of each
/// in a layer outside of this one.
///
/// A refresh token is active, too. It is refused where the answer tells it apart: by `token_type` (which
/// must be `DPoP` for a bound token and `Bearer` for any other), by `token_use` (`access_token`), or by
/// `aud`. Not checked: scopes (the application's decision), `iat`, `jti`.
pub struct IntrospectionVerifier<C = IntrospectedClaims> {
    endpoint: EndpointUrl,
    client: ClientAuthentication,
    audiences: Vec<String>,
    missing_audience: MissingAudience,
    issuer: Option<String>,
    http: HttpClient,
    places: Semaphore,
    /// Whole seconds. Zero is no cache.
    cache_life: u64,
    cached_tokens: CachedTokens<IntrospectedToken<C>>,
    in_flight: InFlight<Result<IntrospectedToken<C>, TokenError>>,
}

/// What becomes of a token whose answer has no `aud`.
#[derive(Clone, Copy, Debug)]
enum MissingAudience {
    Passes,
    Refuses,
}

/// An active token for this resource server.
#[derive_where(Clone)]
struct IntrospectedToken<C> {
    token: AccessToken<C>,
    validity: Validity,
    since: Timestamp,
}

/// The longest answer that is read, in octets.
const MAX_ANSWER: usize = 64 * 1024;

/// How far the server's clock may be off: as with
/// [`JwtVerifier`](crate::JwtVerifier).
const LEEWAY: Duration = Duration::from_secs(30);

const DEFAULT_CACHE_LIFE: u64 = 10;

const DEFAULT_CONCURRENCY: usize = 64;

impl IntrospectionVerifier {
    /// Tokens that this introspection endpoint knows, for this audience.
    ///
    /// The audience is compared with `aud` exactly, character by character.
    pub fn new(
        endpoint: EndpointUrl,
        client: ClientAuthentication,
        audience: impl Into<String>,
        http: HttpClient,
    ) -> Self {
        Self {
            endpoint,
            client,
            audiences: vec![audience.into()],
            missing_audience: MissingAudience::Refuses,
            issuer: None,
            http,
            places: Semaphore::new(DEFAULT_CONCURRENCY),
            cache_life: DEFAULT_CACHE_LIFE,
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

    /// Also accepts tokens whose answer has no `aud`, which RFC 7662 leaves to the server. Where
    /// there is one, it must name this resource server still.
    ///
    /// # Security
    ///
    /// Without an audience, a token that a client got for another service passes here, and so does
    /// one that the other service received and kept. Use this where the endpoint answers each
    /// resource server about its own tokens only ([RFC 7662 section
    /// 2.2](https://www.rfc-editor.org/rfc/rfc7662#section-2.2)), or where scopes tell services
    /// apart.
    #[must_use]
    pub fn with_optional_audience(self) -> Self {
        Self {
            missing_audience: MissingAudience::Passes,
            ..self
        }
        .renewed()
    }

    /// The issuer of the tokens: `iss`, where the answer has it, must be this, character by
    /// character.
    #[must_use]
    pub fn with_issuer(self, issuer: impl Into<String>) -> Self {
        Self {
            issuer: Some(issuer.into()),
            ..self
        }
        .renewed()
    }

    /// How long an answer about a good token serves, in whole seconds, and never beyond the token's
    /// `exp`: for so long may a token go on that was revoked. The default is 10 s; zero asks with
    /// every request, but still once for requests with one token at one time.
    #[must_use]
    pub fn with_cache_life(self, life: Duration) -> Self {
        Self {
            cache_life: life.as_secs(),
            ..self
        }
    }

    /// How much memory the answers about good tokens may take, in octets, by estimate. The default
    /// is 16 MiB, some 6,000 answers.
    #[must_use]
    pub fn with_cache_capacity(self, octets: u64) -> Self {
        Self {
            cached_tokens: CachedTokens::with_capacity(octets),
            ..self
        }
    }

    /// How many questions may be under way at one time, one at least. The default is 64. Requests
    /// beyond it wait for a place, at most for as long as a question [may
    /// take](crate::tokens::HttpClientBuilder::with_timeout), and are then answered 503.
    #[must_use]
    pub fn with_concurrency(self, most: usize) -> Self {
        Self {
            places: Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)),
            ..self
        }
    }

    /// Under other rules, no token is cached yet.
    fn renewed(mut self) -> Self {
        self.cached_tokens = self.cached_tokens.renewed();
        self
    }

    /// Reads the server's answer into a type of your own. A token whose answer does not fit is
    /// refused.
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
            http: self.http,
            places: self.places,
            cache_life: self.cache_life,
            cached_tokens: self.cached_tokens.renewed(),
            in_flight: InFlight::default(),
        }
    }

    /// The cached token, if it may still be used.
    fn recall(&self, token: &PresentedToken<'_>, now: Timestamp) -> Option<IntrospectedToken<C>> {
        let introspected = self.cached_tokens.get(token)?;
        let lives = introspected.since <= now
            && now < introspected.since.plus(self.cache_life)
            && introspected
                .validity
                .expires
                .is_none_or(|expires| now.as_numeric_date() < expires);
        lives.then_some(introspected)
    }

    /// Asks the server: its answer, if the token is active.
    async fn ask(
        &self,
        token: &PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let place = time::timeout(self.http.timeout(), self.places.acquire());
        let _place = place.await.map_err(|_| Failure::Crowded)?;
        let (authorization, form) = self.question(token, now)?;
        let HttpResponse { status, body, .. } = self
            .http
            .post(self.endpoint.url(), authorization, form, MAX_ANSWER)
            .await?;
        match status {
            StatusCode::OK => {}
            // Not RFC 7662, but what some servers say of a token that is none of those they
            // introspect: a JWT that anybody has made up, for one.
            StatusCode::BAD_REQUEST if is_unsupported_token_type(&body) => return Ok(None),
            status => return Err(Failure::Status(status)),
        }
        let activity: Activity<'_> = read(&body).map_err(|InvalidJson| Failure::NotAnAnswer)?;
        let active = activity.active.ok_or(Failure::NotAnAnswer)?;
        Ok(active.then_some(body))
    }

    /// RFC 7662 section 2.1: the `Authorization` field and the form.
    fn question(
        &self,
        token: &PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<(Option<HeaderValue>, String), NoAssertion> {
        let mut form = Serializer::new(String::new());
        form.append_pair("token", token.as_str())
            .append_pair("token_type_hint", "access_token");
        let authorization = self.client.authenticate(&mut form, now)?;
        Ok((authorization, form.finish()))
    }

    /// What must hold of an active token at any time.
    fn check(&self, answer: &Registered<'_>) -> Result<(), TokenError> {
        if let (Some(expected), Some(issuer)) = (&self.issuer, &answer.iss)
            && issuer.as_str() != expected
        {
            return Err(TokenError::Issuer);
        }
        match (&answer.aud, self.missing_audience) {
            (None, MissingAudience::Passes) => {}
            (Some(audience), _) if audience.names_one_of(&self.audiences) => {}
            _ => return Err(TokenError::Audience),
        }
        // RFC 9449 section 6.2: "If the token_type member is included in the introspection
        // response, it MUST contain the value DPoP."
        let is_bound = matches!(answer.cnf, Some(Confirmation::Thumbprint(_)));
        let expected = if is_bound { "DPoP" } else { "Bearer" };
        let is_of_type = |name: &Text<'_>| name.as_str().eq_ignore_ascii_case(expected);
        // The hint in the question is no more than that: a server finds refresh tokens, too.
        let is_for_access = |usage: &Text<'_>| usage.as_str() == "access_token";
        if answer.token_type.as_ref().is_none_or(is_of_type)
            && answer.token_use.as_ref().is_none_or(is_for_access)
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
        // Another question may have been answered since this request looked.
        if let Some(known) = self.recall(token, now) {
            return Ok(known);
        }
        // A clock that steps back must not bring back what the server is about to take back.
        self.cached_tokens.forget(token);
        let answer = match self.ask(token, now).await {
            Ok(answer) => answer,
            Err(failure) => {
                failure.report(&self.endpoint);
                return Err(TokenError::Unavailable);
            }
        };
        let Some(answer) = answer else {
            telemetry::introspection("inactive");
            return Err(TokenError::Invalid);
        };
        telemetry::introspection("active");
        let introspected = self.judge(&answer, now)?;
        if self.cache_life > 0 {
            self.cached_tokens
                .keep(token, answer.len(), introspected.clone());
        }
        Ok(introspected)
    }

    fn judge(&self, answer: &[u8], now: Timestamp) -> Result<IntrospectedToken<C>, TokenError> {
        let registered: Registered<'_> =
            read(answer).map_err(|InvalidJson| TokenError::Malformed)?;
        self.check(&registered)?;
        let claims = serde_json::from_slice(answer).map_err(|_| TokenError::Claims)?;
        let mut token = AccessToken::new(registered.cnf.unwrap_or(Confirmation::Unbound), claims);
        if let Some(expires) = registered.exp {
            token = token.with_expiry(Timestamp::from_numeric_date(expires));
        }
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
        if self.cache_life > 0 {
            telemetry::token_cache(match known {
                Some(_) => Cached::Hit,
                None => Cached::Miss,
            });
        }
        let introspected = if let Some(introspected) = known {
            introspected
        } else {
            let question = self.look_up(&token, now);
            self.in_flight.share(token.sha256(), question).await?
        };
        // Each request by its own clock, whoever asked.
        introspected.validity.check(now, LEEWAY)?;
        Ok(introspected.token)
    }

    fn issuers(&self) -> Vec<&str> {
        self.issuer.as_deref().into_iter().collect()
    }
}

impl<C> fmt::Debug for IntrospectionVerifier<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectionVerifier")
            .field("endpoint", &self.endpoint)
            .field("client", &self.client)
            .field("audiences", &self.audiences)
            .field("missing_audience", &self.missing_audience)
            .field("issuer", &self.issuer)
            .field("cache_life", &Duration::from_secs(self.cache_life))
            .finish_non_exhaustive()
    }
}

object! {
    /// The one member that every answer must have (RFC 7662 section 2.2).
    struct Activity<'de> {
        active: bool = "active",
    }
}

object! {
    struct Registered<'de> {
        iss: Text<'de> = "iss",
        aud: Audience<'de> = "aud",
        exp: f64 = "exp",
        nbf: f64 = "nbf",
        cnf: Confirmation = "cnf",
        token_type: Text<'de> = "token_type",
        token_use: Text<'de> = "token_use",
    }
}
