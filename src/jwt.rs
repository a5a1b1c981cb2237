//! Access tokens that are JWTs, by the profile of [RFC
//! 9068](https://www.rfc-editor.org/rfc/rfc9068), and the keys of their issuer.

use std::fmt;
use std::future::{self, Future};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::credentials::PresentedToken;
use crate::freshness::Timestamp;
use crate::jose::algorithm::{Algorithm, Algorithms};
use crate::jose::engine::VerificationKey;
use crate::jose::json::{Ignored, Text, object, read};
use crate::jose::jwk::{Jwk, Parameters};
use crate::jose::jws::{CompactJws, NotCompactJws};
use crate::token::{AccessToken, AccessTokenVerifier, Confirmation, TokenError};

/// Verifies access tokens that their issuer signed.
///
/// A token passes when its `typ` is `at+jwt` (or `application/at+jwt`), its `alg` is on the list,
/// its `iss` is the issuer, its `aud` names this resource server, it is not expired, and its
/// signature verifies with a key of the issuer ([RFC 9068 section
/// 4](https://www.rfc-editor.org/rfc/rfc9068#section-4)).
///
/// `C` is what the application learns: [`Claims`], or a type of your own
/// ([`JwtVerifier::with_claims`]).
///
/// # Example
///
/// ```
/// use tower_dpop::jwt::{JwtVerifier, KeySet};
///
/// let keys: KeySet = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.parse()?;
/// let tokens = JwtVerifier::new("https://as.example.com", "https://api.example.com", keys);
/// # let _ = tokens;
/// # Ok::<(), tower_dpop::jwt::KeySetError>(())
/// ```
///
/// # Security
///
/// Not checked: revocation (a JWT is good until it expires), scopes (the application's decision),
/// `jti`, `auth_time`, `acr`. Keys that a token brings or points to (`jwk`, `jku`, `x5c`, `x5u`)
/// are never looked at.
pub struct JwtVerifier<K, C = Claims> {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Algorithms,
    leeway: Duration,
    typ: TypCheck,
    keys: K,
    claims: PhantomData<fn() -> C>,
}

#[derive(Clone, Copy, Debug)]
enum TypCheck {
    AtJwt,
    Lenient,
}

impl<K: KeySource> JwtVerifier<K> {
    /// Tokens of this issuer for this audience, signed by one of these keys.
    ///
    /// Both are compared exactly, character by character: `https://as.example.com` is not
    /// `https://as.example.com/`. The algorithms are RS256 (which issuers use most), PS256, ES256,
    /// ES384 and Ed25519 under both of its names; the leeway is 30 s.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, keys: K) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            algorithms: Algorithms::default().add(Algorithm::Rs256),
            leeway: Duration::from_secs(30),
            typ: TypCheck::AtJwt,
            keys,
            claims: PhantomData,
        }
    }
}

impl<K, C> JwtVerifier<K, C> {
    /// Also accepts tokens for another audience.
    #[must_use]
    pub fn add_audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// The algorithms by which tokens may be signed. Those of proofs are another list.
    #[must_use]
    pub fn with_algorithms(self, algorithms: Algorithms) -> Self {
        Self { algorithms, ..self }
    }

    /// How far the issuer's clock may be off when `exp` and `nbf` are compared. More than five
    /// minutes are cut to five: RFC 9068 section 4 says "no more than a few minutes".
    #[must_use]
    pub fn with_leeway(self, leeway: Duration) -> Self {
        Self {
            leeway: leeway.min(Duration::from_secs(300)),
            ..self
        }
    }

    /// Also accepts tokens whose `typ` is `JWT` or missing, as many issuers write them.
    ///
    /// # Security
    ///
    /// `typ` is what tells an access token from the issuer's other JWTs. Without it, an ID token
    /// passes if its `aud` is one of yours: make sure that the audience is an identifier of this
    /// API and never a client's.
    #[must_use]
    pub fn with_lenient_typ(self) -> Self {
        Self {
            typ: TypCheck::Lenient,
            ..self
        }
    }

    /// Reads the token's claims into a type of your own. A token that does not fit is refused.
    ///
    /// # Example
    ///
    /// ```
    /// # use tower_dpop::jwt::{JwtVerifier, KeySet};
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
    pub fn with_claims<D: DeserializeOwned>(self) -> JwtVerifier<K, D> {
        let Self {
            issuer,
            audiences,
            algorithms,
            leeway,
            typ,
            keys,
            claims: PhantomData,
        } = self;
        JwtVerifier {
            issuer,
            audiences,
            algorithms,
            leeway,
            typ,
            keys,
            claims: PhantomData,
        }
    }

    fn check_header(&self, header: &Header<'_>) -> Result<Algorithm, TokenError> {
        let typ = header.typ.as_ref().map(Text::as_str);
        match (typ, self.typ) {
            (Some("at+jwt" | "application/at+jwt"), _) | (None, TypCheck::Lenient) => {}
            (Some(typ), TypCheck::Lenient) if typ.eq_ignore_ascii_case("JWT") => {}
            _ => return Err(TokenError::Type),
        }
        if header.crit.is_some()
            || header.b64.is_some()
            || header.enc.is_some()
            || header.zip.is_some()
        {
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
    ) -> Result<f64, TokenError> {
        if claims.iss.as_ref().map(Text::as_str) != Some(self.issuer.as_str()) {
            return Err(TokenError::Issuer);
        }
        if !claims
            .aud
            .as_ref()
            .is_some_and(|audience| audience.names_one_of(&self.audiences))
        {
            return Err(TokenError::Audience);
        }
        let (now, leeway) = (now.as_numeric_date(), self.leeway.as_secs_f64());
        let expires = claims
            .exp
            .filter(|expires| now - leeway < *expires)
            .ok_or(TokenError::Expired)?;
        if claims
            .nbf
            .is_some_and(|not_before| now + leeway < not_before)
        {
            Err(TokenError::NotYetValid)
        } else {
            Ok(expires)
        }
    }
}

impl<K: KeySource, C: DeserializeOwned + Send + Sync + 'static> AccessTokenVerifier
    for JwtVerifier<K, C>
{
    type Claims = C;

    /// What costs nothing is compared before the issuer's keys are asked for, so a token of another
    /// issuer never causes a fetch.
    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<C>, TokenError> {
        let jws =
            CompactJws::parse(token.as_str()).map_err(|NotCompactJws| TokenError::Malformed)?;
        let header: Header<'_> = read(&jws.header).map_err(|_| TokenError::Malformed)?;
        let algorithm = self.check_header(&header)?;
        let registered: RegisteredClaims<'_> =
            read(&jws.payload).map_err(|_| TokenError::Malformed)?;
        let expires = self.check_claims(&registered, now)?;
        let kid = header.kid.as_ref().map(Text::as_str);
        let keys = self
            .keys
            .key_set(kid)
            .await
            .map_err(|KeySourceError| TokenError::Unavailable)?;
        keys.verify(kid, algorithm, jws.signing_input.as_bytes(), &jws.signature)?;
        let claims = serde_json::from_slice(&jws.payload).map_err(|_| TokenError::Claims)?;
        let token = AccessToken::new(registered.cnf.unwrap_or(Confirmation::Unbound), claims);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        Ok(token.with_expiry(Timestamp::from_unix(expires as u64)))
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

object! {
    struct Header<'de> {
        typ: Text<'de> = "typ",
        alg: Text<'de> = "alg",
        kid: Text<'de> = "kid",
        crit: Ignored = "crit",
        b64: Ignored = "b64",
        enc: Ignored = "enc",
        zip: Ignored = "zip",
    }
}

object! {
    struct RegisteredClaims<'de> {
        iss: Text<'de> = "iss",
        aud: Audience<'de> = "aud",
        exp: f64 = "exp",
        nbf: f64 = "nbf",
        cnf: Confirmation = "cnf",
    }
}

/// RFC 7519 section 4.1.3: one string, or an array of them.
#[derive(Deserialize)]
#[serde(untagged, bound(deserialize = "'de: 'a"))]
enum Audience<'a> {
    One(Text<'a>),
    Several(Vec<Text<'a>>),
}

impl Audience<'_> {
    fn names_one_of(&self, expected: &[String]) -> bool {
        let is_expected = |audience: &Text<'_>| {
            expected
                .iter()
                .any(|expected| expected == audience.as_str())
        };
        match self {
            Self::One(audience) => is_expected(audience),
            Self::Several(audiences) => audiences.iter().any(is_expected),
        }
    }
}

/// The claims of an RFC 9068 access token.
///
/// `Debug` shows none of them: they are about a person.
#[derive(Clone, Deserialize)]
pub struct Claims {
    sub: String,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Claims {
    /// `sub`: whom the token is about.
    pub fn subject(&self) -> &str {
        &self.sub
    }

    /// `client_id`: the client that the token was issued to.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The scopes of the `scope` claim.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope
            .iter()
            .flat_map(|scope| scope.split(' '))
            .filter(|scope| !scope.is_empty())
    }

    /// Whether the `scope` claim holds this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|held| held == scope)
    }

    /// Another claim, if it is there and of this type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.others
            .get(name)
            .and_then(|claim| T::deserialize(claim).ok())
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

/// Where the issuer's keys come from. A [`KeySet`] is a source that never changes; keys that are
/// fetched are another.
pub trait KeySource: Send + Sync + 'static {
    /// The issuer's keys, fetched anew if need be to find one of this `kid`.
    ///
    /// The `kid` is out of a token that nobody has verified: do not let it cause unbounded work.
    fn key_set(
        &self,
        kid: Option<&str>,
    ) -> impl Future<Output = Result<KeySet, KeySourceError>> + Send;
}

/// The issuer's keys are out of reach. The request is answered with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's keys are not available")]
pub struct KeySourceError;

/// The public keys of an issuer, parsed once. Cloning is cheap.
///
/// It is read from a JWK Set (`{"keys":[…]}`) or from a single JWK. Keys that cannot verify access
/// tokens (encryption keys, unknown types, RSA below 2048 bits) are left out, as [RFC 7517 section
/// 5](https://www.rfc-editor.org/rfc/rfc7517#section-5) says; a set without any other is an error.
#[derive(Clone)]
pub struct KeySet(Arc<[IssuerKey]>);

struct IssuerKey {
    kid: Option<String>,
    verifying: Vec<(Algorithm, VerificationKey)>,
}

/// A token without `kid` is tried with no more keys than this, so that it cannot buy a verification
/// for each key of a large set.
const MAX_CANDIDATES: usize = 4;

impl KeySet {
    fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let mut outcome = Err(TokenError::Key);
        for key in self.candidates(kid, algorithm).take(MAX_CANDIDATES) {
            if key.verify(message, signature).is_ok() {
                return Ok(());
            }
            outcome = Err(TokenError::Signature);
        }
        outcome
    }

    /// The keys that may have signed: those of the token's `kid`, or without one; every key, where
    /// the token does not say.
    fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &VerificationKey> {
        self.0
            .iter()
            .filter(move |key| match (kid, &key.kid) {
                (Some(wanted), Some(kid)) => wanted == kid,
                _ => true,
            })
            .flat_map(|key| &key.verifying)
            .filter(move |(usable, _)| *usable == algorithm)
            .map(|(_, key)| key)
    }
}

impl FromStr for KeySet {
    type Err = KeySetError;

    fn from_str(json: &str) -> Result<Self, KeySetError> {
        let document: Value = serde_json::from_str(json).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<_> = match document.get("keys") {
            Some(Value::Array(keys)) => keys.iter().filter_map(IssuerKey::from_json).collect(),
            Some(_) => return Err(KeySetError::Malformed),
            None => IssuerKey::from_json(&document).into_iter().collect(),
        };
        if keys.is_empty() {
            Err(KeySetError::NoUsableKey)
        } else {
            Ok(Self(keys.into()))
        }
    }
}

impl IssuerKey {
    fn from_json(json: &Value) -> Option<Self> {
        // The issuer's documents are trusted and of all kinds, so they are read by a tolerant
        // reader, one key at a time.
        let key = jsonwebtoken::jwk::Jwk::deserialize(json).ok()?;
        let verifies = key
            .common
            .public_key_use
            .is_none_or(|usage| usage == PublicKeyUse::Signature)
            && key
                .common
                .key_operations
                .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        // A private key in a public document is everybody's.
        if !verifies || json.get("d").is_some() {
            return None;
        }
        let jwk = match &key.algorithm {
            AlgorithmParameters::EllipticCurve(ec) => Jwk::from_parameters(&Parameters {
                kty: Some("EC"),
                crv: curve_name(&ec.curve),
                x: Some(&ec.x),
                y: Some(&ec.y),
                ..Parameters::default()
            }),
            AlgorithmParameters::OctetKeyPair(okp) => Jwk::from_parameters(&Parameters {
                kty: Some("OKP"),
                crv: curve_name(&okp.curve),
                x: Some(&okp.x),
                ..Parameters::default()
            }),
            AlgorithmParameters::RSA(rsa) => Jwk::from_parameters(&Parameters {
                kty: Some("RSA"),
                n: Some(&rsa.n),
                e: Some(&rsa.e),
                ..Parameters::default()
            }),
            _ => return None,
        }
        .ok()?;
        // jsonwebtoken knows neither `Ed25519` nor `ES512` by name, so `alg` is read from the
        // document.
        let declared: Option<Option<Algorithm>> = json
            .get("alg")
            .map(|alg| alg.as_str().and_then(|alg| alg.parse().ok()));
        let usable = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| match declared {
                None => true,
                Some(declared) => {
                    declared.is_some_and(|declared| declared.same_computation(*algorithm))
                }
            });
        let verifying: Vec<_> = usable
            .filter_map(|algorithm| {
                Some((algorithm, VerificationKey::parse(&jwk, algorithm).ok()?))
            })
            .collect();
        (!verifying.is_empty()).then_some(Self {
            kid: key.common.key_id,
            verifying,
        })
    }
}

fn curve_name(curve: &EllipticCurve) -> Option<&'static str> {
    match curve {
        EllipticCurve::P256 => Some("P-256"),
        EllipticCurve::P384 => Some("P-384"),
        EllipticCurve::P521 => Some("P-521"),
        EllipticCurve::Ed25519 => Some("Ed25519"),
        _ => None,
    }
}

impl KeySource for KeySet {
    fn key_set(
        &self,
        _kid: Option<&str>,
    ) -> impl Future<Output = Result<KeySet, KeySourceError>> + Send {
        future::ready(Ok(self.clone()))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.0.len())
            .finish_non_exhaustive()
    }
}

/// Why a document holds no key set. The deployer's mistake, seen at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Neither a JWK Set nor a JWK.
    #[error("not a JWK Set and not a JWK")]
    Malformed,
    /// No key of it can verify access tokens.
    #[error("the key set holds no key that can verify access tokens")]
    NoUsableKey,
}
