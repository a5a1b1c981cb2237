//! The content of a proof, before it is signed ([RFC 9449 section
//! 4.2](https://www.rfc-editor.org/rfc/rfc9449#section-4.2)).

use std::fmt;
use std::ops::RangeInclusive;

use http::uri::Uri;
use http::{HeaderValue, Method};
use serde::Serialize;

use crate::client::signer::ProofSigner;
use crate::client::token::AccessTokenText;
use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::Jwk;
use crate::jose::jws;
use crate::jose::signing_key::SigningError;
use crate::proof::nonce::Nonce;
use crate::time::Timestamp;
use crate::uri::{Origin, PathSyntax, normalise_path};

/// An unsigned proof for one request. The layers make proofs themselves; this type is for clients
/// without them.
///
/// # Example
///
/// ```
/// use http::{Method, Uri};
/// use tower_dpop::client::{AccessTokenText, NewProof};
/// use tower_dpop::jose::SigningKey;
/// use tower_dpop::Timestamp;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::generate()?;
/// let token: AccessTokenText = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU".parse()?;
/// let uri: Uri = "https://api.example.com/orders?page=2".parse()?;
///
/// let proof = NewProof::new(&Method::GET, &uri)?
///     .with_access_token(&token)
///     .sign(&key, Timestamp::from(std::time::SystemTime::now()))
///     .await?;
/// let request = http::Request::get(uri)
///     .header("authorization", token.authorization())
///     .header("dpop", proof.as_header_value())
///     .body(())?;
/// # let _ = request;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NewProof {
    htm: Method,
    htu: Htu,
    ath: Option<AccessTokenText>,
    nonce: Option<Nonce>,
}

/// The URL of a request as a proof contains it: normalised, without userinfo, query and fragment.
#[derive(Clone)]
pub(crate) struct Htu {
    pub(crate) origin: Origin<'static>,
    pub(crate) path: String,
}

impl Htu {
    pub(crate) fn of(uri: &Uri) -> Result<Self, InvalidRequestUrl> {
        let origin = Self::origin_of(uri)?;
        let path =
            normalise_path(uri.path(), PathSyntax::Rfc3986).ok_or(InvalidRequestUrl::Path)?;
        Ok(Self {
            origin: origin.into_owned(),
            path: path.into_owned(),
        })
    }

    pub(crate) fn origin_of(uri: &Uri) -> Result<Origin<'_>, InvalidRequestUrl> {
        uri.scheme_str()
            .zip(uri.authority())
            .and_then(|(scheme, authority)| Origin::parse(scheme, authority.as_str()))
            .ok_or(InvalidRequestUrl::NotHttp)
    }
}

#[derive(Serialize)]
struct Header<'p> {
    typ: &'static str,
    alg: Algorithm,
    jwk: &'p Jwk,
}

#[derive(Serialize)]
struct Claims<'p> {
    jti: String,
    htm: &'p str,
    htu: String,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'p str>,
}

impl NewProof {
    /// A proof for a request with this method to this URL. The signed URL is the normal form,
    /// without query and fragment.
    pub fn new(method: &Method, url: &Uri) -> Result<Self, InvalidRequestUrl> {
        Ok(Self::at(method.clone(), Htu::of(url)?))
    }

    pub(crate) fn at(htm: Method, htu: Htu) -> Self {
        Self {
            htm,
            htu,
            ath: None,
            nonce: None,
        }
    }

    /// Sets the access token that is sent with the proof to a resource server (`ath`). A proof for
    /// a token endpoint has none.
    #[must_use]
    pub fn with_access_token(self, token: &AccessTokenText) -> Self {
        Self {
            ath: Some(token.clone()),
            ..self
        }
    }

    /// Sets the nonce: the latest one of the server that the request goes to.
    #[must_use]
    pub fn with_nonce(self, nonce: Nonce) -> Self {
        Self {
            nonce: Some(nonce),
            ..self
        }
    }

    /// Signs the proof, with a new identifier (`jti`) each time: 128 random bits.
    ///
    /// `now` becomes the `iat`. Pass the server's time if its clock is known to differ.
    pub async fn sign(
        &self,
        key: &impl ProofSigner,
        now: Timestamp,
    ) -> Result<SignedProof, SigningError> {
        let header = Header {
            typ: "dpop+jwt",
            alg: key.algorithm(),
            jwk: key.public_key(),
        };
        let claims = Claims {
            jti: jws::fresh_jti().map_err(SigningError::new)?,
            htm: self.htm.as_str(),
            htu: format!("{}{}", self.htu.origin, self.htu.path),
            iat: now.as_unix(),
            ath: self.ath.as_ref().map(AccessTokenText::ath),
            nonce: self.nonce.as_ref().map(Nonce::as_str),
        };
        let header = serde_json::to_vec(&header).map_err(SigningError::new)?;
        let claims = serde_json::to_vec(&claims).map_err(SigningError::new)?;
        let input = jws::signing_input(header, claims);
        let signature = key.sign(input.as_bytes()).await?;
        if !signature_lengths(key.algorithm()).contains(&signature.len()) {
            return Err(SigningError::new(InvalidSignature));
        }
        let proof = jws::with_signature(input, &signature);
        let mut field = HeaderValue::from_str(&proof).map_err(SigningError::new)?;
        field.set_sensitive(true);
        Ok(SignedProof(field))
    }
}

/// Catches the most common errors of custom signers: ECDSA signatures in DER, and empty ones.
const fn signature_lengths(algorithm: Algorithm) -> RangeInclusive<usize> {
    match algorithm {
        Algorithm::Es256 | Algorithm::Ed25519 | Algorithm::EdDsa => 64..=64,
        Algorithm::Es384 => 96..=96,
        Algorithm::Es512 => 132..=132,
        // As long as the modulus: 2048 to 8192 bits.
        Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512
        | Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512 => 256..=1024,
    }
}

/// The signature does not have the length that its algorithm requires.
#[derive(Debug, thiserror::Error)]
#[error("not a JWS signature of the key's algorithm")]
struct InvalidSignature;

impl fmt::Debug for NewProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewProof")
            .field("htm", &self.htm)
            .finish_non_exhaustive()
    }
}

/// A signed proof, valid for one request.
#[derive(Clone)]
pub struct SignedProof(HeaderValue);

impl SignedProof {
    /// The value of the request's only [`DPoP`](crate::credentials::DPOP) field, marked as
    /// sensitive.
    pub const fn as_header_value(&self) -> &HeaderValue {
        &self.0
    }

    /// The compact JWT.
    pub fn as_str(&self) -> &str {
        // A compact JWT consists of base64url characters and dots.
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for SignedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedProof(..)")
    }
}

/// Why no proof can be made for requests to a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequestUrl {
    /// Not an absolute `http` or `https` URL, or one with userinfo (RFC 9110 section 4.2.4).
    #[error("not an absolute http or https URL without userinfo")]
    NotHttp,
    /// The path has a character that RFC 3986 does not allow: it must be percent-encoded in the
    /// URL.
    #[error("the path of the URL has a character that must be percent-encoded")]
    Path,
}
