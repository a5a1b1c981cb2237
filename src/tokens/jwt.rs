//! Access tokens that are JWTs, as profiled in [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068).

use std::fmt;
use std::time::Duration;

use derive_where::derive_where;
use serde::de::DeserializeOwned;

use crate::credentials::PresentedToken;
use crate::jose::algorithm::{Algorithm, Algorithms};
use crate::jose::json::{Text, object, read};
use crate::jose::jws::{CompactJws, InvalidJws, jws_header};
use crate::telemetry::{self, Cached};
use crate::time::{Timestamp, Validity};
use crate::tokens::access_token::{
    AccessToken, AccessTokenVerifier, Confirmation, Strings, TokenError,
};
use crate::tokens::cache::{CachedTokens, DEFAULT_CAPACITY};
use crate::tokens::claim_fault::{read_claims, read_registered};
use crate::tokens::claims::Claims;
use crate::tokens::key_set::{KeySet, KeySource, KeySourceError, verifying_keys};
use crate::tokens::profile::Profile;

/// Verifies access tokens that are signed by their issuer.
///
/// A token is accepted if its `typ` is `at+jwt` (or `application/at+jwt`), its `alg` is on the
/// list, its `iss` is the issuer, its `aud` names this resource server, it is not expired, and its
/// signature verifies with a key of the issuer ([RFC 9068 section
/// 4](https://www.rfc-editor.org/rfc/rfc9068#section-4)).
///
/// The keys, `K`, are a [`KeySet`], `RemoteKeys` (feature `jwks`) or a [`KeySource`] of your own. `C`
/// is the type of the claims that the application receives: [`Claims`], or your own
/// ([`with_claims`](Self::with_claims)).
///
/// # Example
///
/// ```
/// use tower_dpop::{JwtVerifier, KeySet};
///
/// let keys: KeySet = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.parse()?;
/// let tokens = JwtVerifier::new("https://as.example.com", "https://api.example.com", keys);
/// # let _ = tokens;
/// # Ok::<(), tower_dpop::tokens::InvalidKeySet>(())
/// ```
///
/// A valid token is cached until it expires or the issuer's keys change
/// ([`without_cache`](Self::without_cache) turns this off). If no key verifies a token, the
/// [`KeySource`] is asked for newer keys, once.
///
/// # Security
///
/// Not checked: revocation (a JWT is valid until it expires), scopes, `auth_time` and `acr` (the
/// application's decision), `jti`. The [`Verifier`](crate::Verifier) checks the binding (`cnf`). Keys
/// that a token contains or points to (`jwk`, `jku`, `x5c`, `x5u`) are never used.
pub struct JwtVerifier<K, C = Claims> {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Algorithms,
    leeway: Duration,
    typ: TypCheck,
    keys: K,
    #[cfg(feature = "precomputed-keys")]
    precomputes: bool,
    cached_tokens: Option<CachedTokens<CachedToken<C>>>,
}

/// A valid token, and what its validity depends on.
#[derive_where(Clone)]
struct CachedToken<C> {
    token: AccessToken<C>,
    validity: Validity,
    keys: KeySet,
}

#[derive(Clone, Copy, Debug)]
enum TypCheck {
    AtJwt,
    Lenient,
    Profile(Profile),
}

impl TypCheck {
    const fn expected(self) -> &'static str {
        match self {
            Self::AtJwt => "at+jwt (with_profile and with_lenient_typ accept others)",
            Self::Lenient => "at+jwt, JWT or none",
            Self::Profile(Profile::Okta) => "at+jwt, or none with the claim cid (Profile::Okta)",
            Self::Profile(Profile::Auth0) => "at+jwt, or JWT with the claim azp (Profile::Auth0)",
            Self::Profile(Profile::EntraId) => {
                "at+jwt, or JWT with the claim azp or appid (Profile::EntraId)"
            }
            Self::Profile(Profile::Keycloak) => {
                "at+jwt, or JWT with a claim typ of Bearer or DPoP (Profile::Keycloak)"
            }
        }
    }
}

impl<K: KeySource> JwtVerifier<K> {
    /// A verifier for tokens of this issuer for this audience, signed with one of these keys.
    ///
    /// Issuer and audience are compared character by character: `https://as.example.com` is not
    /// `https://as.example.com/`. Every setting below has its default.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, keys: K) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            algorithms: Algorithms::default().add(Algorithm::Rs256),
            leeway: Duration::from_secs(30),
            typ: TypCheck::AtJwt,
            keys,
            #[cfg(feature = "precomputed-keys")]
            precomputes: true,
            cached_tokens: Some(CachedTokens::with_capacity(DEFAULT_CAPACITY)),
        }
    }
}

impl<K, C: Send + Sync + 'static> JwtVerifier<K, C> {
    /// Parses the token's claims into a type of your own. A token that does not fit is rejected, and the log names
    /// the claim. Handlers and layers must name the same type (`BoundToken<OrderClaims>`), or they find no token.
    ///
    /// # Example
    ///
    /// ```
    /// # use tower_dpop::{JwtVerifier, KeySet};
    /// #[derive(serde::Deserialize)]
    /// struct OrderClaims {
    ///     sub: String,
    ///     tenant: u64,
    /// }
    ///
    /// # fn example(keys: KeySet) {
    /// let tokens = JwtVerifier::new("https://as.example.com", "https://api.example.com", keys).with_claims::<OrderClaims>();
    /// # }
    /// ```
    #[must_use]
    pub fn with_claims<D: DeserializeOwned + Send + Sync + 'static>(self) -> JwtVerifier<K, D> {
        JwtVerifier {
            issuer: self.issuer,
            audiences: self.audiences,
            algorithms: self.algorithms,
            leeway: self.leeway,
            typ: self.typ,
            keys: self.keys,
            #[cfg(feature = "precomputed-keys")]
            precomputes: self.precomputes,
            cached_tokens: self.cached_tokens.as_ref().map(CachedTokens::renewed),
        }
    }

    /// Also accepts tokens for this audience.
    #[must_use]
    pub fn add_audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self.renewed()
    }

    /// Sets the algorithms with which tokens may be signed. The default is RS256 (which issuers use
    /// most), PS256, ES256, ES384 and Ed25519 under both of its names. Proofs have [a list of their
    /// own](crate::ProofRules::with_algorithms).
    #[must_use]
    pub fn with_algorithms(self, algorithms: Algorithms) -> Self {
        Self { algorithms, ..self }.renewed()
    }

    /// Sets how far the issuer's clock may be off when `exp` and `nbf` are compared. The default is 30 s.
    /// Values above five minutes are reduced to that: RFC 9068 section 4 says "no more than a few
    /// minutes".
    #[must_use]
    pub fn with_leeway(self, leeway: Duration) -> Self {
        Self {
            leeway: leeway.min(Duration::from_secs(300)),
            ..self
        }
        .renewed()
    }

    /// Also accepts tokens whose `typ` is `JWT` or missing, as many issuers write them. If there is a [`Profile`]
    /// for the issuer, it is the stricter choice ([`with_profile`](Self::with_profile)).
    ///
    /// # Security
    ///
    /// `typ` distinguishes an access token from the issuer's other JWTs. Without this check, an ID
    /// token is accepted if its `aud` is one of yours: make sure that the audience is an identifier
    /// of this API and never a client's.
    #[must_use]
    pub fn with_lenient_typ(self) -> Self {
        Self {
            typ: TypCheck::Lenient,
            ..self
        }
        .renewed()
    }

    /// Reads tokens as this product writes them. See [`Profile`] for what it sets.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_dpop::tokens::Profile;
    /// # use tower_dpop::{JwtVerifier, KeySet};
    ///
    /// # fn example(keys: KeySet) {
    /// let tokens = JwtVerifier::new("https://example.okta.com/oauth2/default", "api://default", keys)
    ///     .with_profile(Profile::Okta);
    /// # }
    /// ```
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        Self {
            issuer: profile.issuer(self.issuer),
            typ: TypCheck::Profile(profile),
            ..self
        }
        .renewed()
    }

    /// Sets the memory that cached tokens may take, in bytes (an estimate). The default is 16 MiB, about
    /// 6,000 tokens.
    #[must_use]
    pub fn with_cache_capacity(self, bytes: u64) -> Self {
        Self {
            cached_tokens: Some(CachedTokens::with_capacity(bytes)),
            ..self
        }
    }

    /// Verifies a token again for every request, which doubles the signature verifications.
    #[must_use]
    pub fn without_cache(self) -> Self {
        Self {
            cached_tokens: None,
            ..self
        }
    }

    /// Verifies every token with the engine only, as
    /// [`Verifier::without_precomputed_keys`](crate::Verifier::without_precomputed_keys) does for
    /// proofs. (Feature `precomputed-keys`.)
    ///
    /// Without this, a P-256 key that has verified eight tokens keeps multiples of its point (32 KiB),
    /// and further verifications take 60% less time.
    #[cfg(feature = "precomputed-keys")]
    #[must_use]
    pub fn without_precomputed_keys(self) -> Self {
        Self {
            precomputes: false,
            ..self
        }
    }

    /// Empties the cache: tokens that were cached under other rules may no longer be valid.
    fn renewed(mut self) -> Self {
        self.cached_tokens = self.cached_tokens.as_ref().map(CachedTokens::renewed);
        self
    }

    /// RFC 9068 section 4. If `typ` does not say that this is an access token, the claims may have to.
    fn check_typ(&self, header: &Header<'_>, claims: &[u8]) -> Result<(), TokenError> {
        let typ = header.typ.as_ref().map(Text::as_str);
        let accepted = match self.typ {
            _ if matches!(typ, Some("at+jwt" | "application/at+jwt")) => true,
            TypCheck::AtJwt => false,
            TypCheck::Lenient => typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT")),
            TypCheck::Profile(profile) => profile.has_typ(typ) && profile.marks(claims),
        };
        if accepted {
            Ok(())
        } else {
            Err(TokenError::Type)
        }
    }

    fn check_header(&self, header: &Header<'_>) -> Result<Algorithm, TokenError> {
        if header.is_extended() {
            return Err(TokenError::Malformed);
        }
        let algorithm = header
            .alg
            .as_ref()
            .and_then(|alg| alg.as_str().parse().ok());
        algorithm
            .filter(|algorithm| self.algorithms.contains(*algorithm))
            .ok_or(TokenError::Algorithm)
    }

    fn check_claims(
        &self,
        claims: &RegisteredClaims<'_>,
        now: Timestamp,
    ) -> Result<Validity, TokenError> {
        if claims.iss.as_ref().map(Text::as_str) != Some(self.issuer.as_str()) {
            return Err(TokenError::Issuer);
        }
        if !claims
            .aud
            .as_ref()
            .is_some_and(|audience| audience.has_one_of(&self.audiences))
        {
            return Err(TokenError::Audience);
        }
        let validity = Validity {
            not_before: claims.nbf,
            expires: Some(claims.exp.ok_or(TokenError::Expired)?),
        };
        validity.check(now, self.leeway)?;
        Ok(validity)
    }
}

impl<K: KeySource, C: DeserializeOwned + Send + Sync + 'static> JwtVerifier<K, C> {
    /// The cached token, if it is still valid and the issuer's keys are the same.
    async fn recall(
        &self,
        token: &PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<Option<AccessToken<C>>, TokenError> {
        let Some(cached_tokens) = &self.cached_tokens else {
            return Ok(None);
        };
        let Some(cached) = cached_tokens.get(token) else {
            telemetry::token_cache(Cached::Miss);
            return Ok(None);
        };
        // Before the keys, as for a token that is not cached: checks that cost nothing come first.
        if let Err(error) = cached.validity.check(now, self.leeway) {
            cached_tokens.forget(token);
            telemetry::token_cache(Cached::Miss);
            return Err(error.into());
        }
        // The source is asked for every request: it renews its keys only when it is asked for them,
        // and only it knows whether they have changed.
        let keys = self.keys.key_set(now).await;
        let keys = keys.map_err(|KeySourceError| TokenError::Unavailable)?;
        if !keys.is(&cached.keys) {
            cached_tokens.forget(token);
            telemetry::token_cache(Cached::Miss);
            return Ok(None);
        }
        telemetry::token_cache(Cached::Hit);
        Ok(Some(cached.token))
    }

    /// The keys that verify the signature.
    async fn verify_signature(
        &self,
        jws: &CompactJws<'_>,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<KeySet, TokenError> {
        let (message, signature) = (jws.signing_input.as_bytes(), jws.signature());
        let verify = |keys: &KeySet| {
            keys.verify(kid, algorithm, |key| {
                #[cfg(feature = "precomputed-keys")]
                if !self.precomputes {
                    return key.verify_by_engine(message, signature);
                }
                key.verify(message, signature)
            })
        };
        verifying_keys(&self.keys, now, verify).await
    }
}

impl<K: KeySource, C: DeserializeOwned + Send + Sync + 'static> AccessTokenVerifier
    for JwtVerifier<K, C>
{
    type Claims = C;

    /// Checks that cost nothing come before the issuer's keys are asked for, so a token of another
    /// issuer never causes a fetch.
    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<C>, TokenError> {
        if let Some(known) = self.recall(&token, now).await? {
            return Ok(known);
        }
        let jws = CompactJws::parse(token.as_str()).map_err(|InvalidJws| TokenError::Malformed)?;
        let header: Header<'_> = read(jws.header()).map_err(|_| TokenError::Malformed)?;
        self.check_typ(&header, jws.payload())?;
        let algorithm = self.check_header(&header)?;
        let registered: RegisteredClaims<'_> = read_registered(jws.payload())?;
        let validity = self.check_claims(&registered, now)?;
        let kid = header.kid.as_ref().map(Text::as_str);
        let keys = self.verify_signature(&jws, kid, algorithm, now).await?;
        let claims = read_claims(jws.payload())?;
        let confirmation = registered.cnf.unwrap_or(Confirmation::Unbound);
        let mut good = AccessToken::new(confirmation, claims);
        good.expires = validity.expires.map(Timestamp::from_numeric_date);
        if let Some(cached_tokens) = &self.cached_tokens {
            let cached = CachedToken {
                token: good.clone(),
                validity,
                keys,
            };
            cached_tokens.keep(&token, token.as_str().len(), cached);
        }
        Ok(good)
    }

    fn issuers(&self) -> Vec<&str> {
        vec![&self.issuer]
    }

    fn expected(&self, error: &TokenError) -> Option<String> {
        match error {
            TokenError::Algorithm => Some(self.algorithms.to_string()),
            TokenError::Audience => Some(self.audiences.join(" ")),
            TokenError::Issuer => Some(self.issuer.clone()),
            TokenError::Type => Some(self.typ.expected().into()),
            _ => None,
        }
    }
}

impl<K, C> fmt::Debug for JwtVerifier<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier")
            .field("issuer", &self.issuer)
            .field("audiences", &self.audiences)
            .field("algorithms", &self.algorithms.to_string())
            .field("leeway", &self.leeway)
            .field("typ", &self.typ)
            .finish_non_exhaustive()
    }
}

jws_header! {
    struct Header<'de> {
        typ: Text<'de> = "typ",
        alg: Text<'de> = "alg",
        kid: Text<'de> = "kid",
    }
}

object! {
    struct RegisteredClaims<'de> {
        iss: Text<'de> = "iss",
        aud: Strings = "aud",
        exp: f64 = "exp",
        nbf: f64 = "nbf",
        cnf: Confirmation = "cnf",
    }
}
