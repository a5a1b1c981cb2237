//! The DPoP proof: the checks of [RFC 9449 section
//! 4.3](https://www.rfc-editor.org/rfc/rfc9449#section-4.3).
//!
//! The types enforce the order of the checks. An `UnverifiedProof` has the right form and the right
//! claims, but its signature has not been verified; a `Proof` is signed by the key it names. Either
//! is a proof `for` an access token (`T` is a `PresentedToken`) only after its `ath` was compared
//! with that token; a token endpoint has no access token (`T` is `NoToken`). Only a `Proof` for a
//! token can make a bound token.

use std::marker::PhantomData;

use crate::credentials::{PresentedToken, ProofField};
use crate::jose::algorithm::{Algorithm, Algorithms};
use crate::jose::base64url;
use crate::jose::engine::KeyRejected;
use crate::jose::json::{Text, object, read};
use crate::jose::jwk::{InvalidJwk, Jwk, JwkMembers, SignatureRejected};
use crate::jose::jws::{CompactJws, InvalidJws, Segments, jws_header};
use crate::jose::key_cache::{ClientKey, KeyCache};
use crate::jose::thumbprint::Thumbprint;
use crate::proof::freshness::{Freshness, IatError};
use crate::proof::target::{Target, UrlMismatch};
use crate::telemetry::ProofFacts;
use crate::time::{OutOfTime, Timestamp, Validity};

/// Longer proofs are not decoded. A proof signed by a 4096-bit RSA key takes about 2 KiB.
const MAX_LENGTH: usize = 8 * 1024;

/// RFC 9449 section 11.1: "reject unnecessarily large" identifiers.
const MAX_JTI_LENGTH: usize = 512;

jws_header! {
    struct Header<'de> {
        typ: Text<'de> = "typ",
        alg: Text<'de> = "alg",
        jwk: JwkMembers<'de> = "jwk",
        cty: Text<'de> = "cty",
    }
}

object! {
    struct Claims<'de> {
        jti: Text<'de> = "jti",
        htm: Text<'de> = "htm",
        htu: Text<'de> = "htu",
        iat: f64 = "iat",
        ath: Text<'de> = "ath",
        nonce: Text<'de> = "nonce",
        exp: f64 = "exp",
        nbf: f64 = "nbf",
    }
}

/// The values that a proof is checked against.
pub(crate) struct Expected<'e> {
    pub(crate) algorithms: Algorithms,
    pub(crate) target: &'e Target<'e>,
    pub(crate) freshness: &'e Freshness,
    pub(crate) nonces_required: bool,
    pub(crate) now: Timestamp,
    /// Headers that need not be read again.
    pub(crate) known: Option<&'e KeyCache>,
}

/// A proof whose form and claims are valid. Its signature has not been verified.
pub(crate) struct UnverifiedProof<'r, T = NoToken> {
    token: T,
    jws: CompactJws<'r>,
    algorithm: Algorithm,
    key: NamedKey<'r>,
    thumbprint: Thumbprint,
    jti: String,
    iat: f64,
    ath: Ath,
    nonce: Option<String>,
}

/// The key in the header of a proof.
enum NamedKey<'r> {
    /// An accepted proof had the same header.
    Known(ClientKey),
    /// The header was read and checked.
    New { header: &'r str, jwk: Jwk },
}

/// The proof has no access token, or its `ath` has not been compared with one yet.
pub(crate) struct NoToken;

/// The access token that a proof names.
enum Ath {
    Hash([u8; 32]),
    Missing,
    NotAHash,
}

impl<'r> UnverifiedProof<'r> {
    /// Makes every check that needs no signature verification, no access token and no nonce source,
    /// in the order of the standard unless there is a reason for another.
    pub(crate) fn read(field: ProofField<'r>, expected: &Expected<'_>) -> Result<Self, ProofError> {
        let text = match field {
            ProofField::Absent => return Err(ProofError::Missing),
            ProofField::Several => return Err(ProofError::Several),
            ProofField::One(bytes) if bytes.len() > MAX_LENGTH => {
                return Err(ProofError::TooLong);
            }
            ProofField::One(bytes) => str::from_utf8(bytes).map_err(|_| ProofError::NotAJwt)?,
        };
        let segments = Segments::split(text).map_err(|InvalidJws| ProofError::NotAJwt)?;
        let known = expected.known.and_then(|keys| keys.find(segments.header));
        let jws = match known {
            Some(_) => segments.decode_without_header(),
            None => segments.decode(),
        };
        let jws = jws.map_err(|InvalidJws| ProofError::NotAJwt)?;
        let (algorithm, thumbprint, key) = if let Some(key) = known {
            (key.algorithm(), key.thumbprint(), NamedKey::Known(key))
        } else {
            let read: Header<'_> = read(jws.header()).map_err(|_| ProofError::HeaderNotJson)?;
            let (algorithm, jwk) = check_header(&read, expected.algorithms)?;
            let header = segments.header;
            (algorithm, jwk.thumbprint(), NamedKey::New { header, jwk })
        };
        let claims: Claims<'_> = read(jws.payload()).map_err(|_| ProofError::PayloadNotJson)?;
        let RequiredClaims { jti, iat } = check_claims(&claims, expected)?;
        Ok(Self {
            token: NoToken,
            algorithm,
            thumbprint,
            key,
            jti: jti.to_owned(),
            iat,
            ath: Ath::of(claims.ath.as_ref()),
            nonce: claims.nonce.map(|nonce| nonce.0.into_owned()),
            jws,
        })
    }

    /// Check 12, first half: the token is the one that the proof names. Tokens are long, so the
    /// hash is computed only here, after `read` has checked the other claims.
    pub(crate) fn for_token<'t>(
        self,
        token: &'t str,
    ) -> Result<UnverifiedProof<'r, PresentedToken<'t>>, ProofError> {
        let named = match &self.ath {
            Ath::Hash(hash) => hash,
            Ath::Missing => return Err(ProofError::ClaimMissing),
            Ath::NotAHash => return Err(ProofError::TokenHash),
        };
        let token = PresentedToken::new(token);
        if token.sha256() != named {
            return Err(ProofError::TokenHash);
        }
        Ok(UnverifiedProof {
            token,
            jws: self.jws,
            algorithm: self.algorithm,
            key: self.key,
            thumbprint: self.thumbprint,
            jti: self.jti,
            iat: self.iat,
            ath: self.ath,
            nonce: self.nonce,
        })
    }
}

impl<'t> UnverifiedProof<'_, PresentedToken<'t>> {
    /// The access token that the proof names.
    pub(crate) fn token(&self) -> PresentedToken<'t> {
        self.token
    }
}

impl<T> UnverifiedProof<'_, T> {
    /// The thumbprint of the key that the proof names.
    pub(crate) fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    pub(crate) fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// Check 6: the signature was made by the key that the proof names.
    pub(crate) fn verify_signature(self) -> Result<Proof<T>, ProofError> {
        let key = match self.key {
            NamedKey::Known(key) => key,
            NamedKey::New { header, jwk } => {
                ClientKey::parse(header, &jwk, self.thumbprint, self.algorithm)
                    .map_err(|KeyRejected| ProofError::Key(InvalidJwk::Coordinate))?
            }
        };
        key.verify(self.jws.signing_input.as_bytes(), self.jws.signature())
            .map_err(|SignatureRejected| ProofError::Signature)?;
        Ok(Proof {
            _token: PhantomData,
            key,
            jti: self.jti,
            iat: self.iat,
        })
    }
}

impl Ath {
    /// The decoder accepts only one encoding of a hash, so equal bytes mean equal characters.
    fn of(claim: Option<&Text<'_>>) -> Self {
        claim.map_or(Self::Missing, |ath| {
            base64url::decode_exact(ath.as_str()).map_or(Self::NotAHash, Self::Hash)
        })
    }
}

/// Checks 4, 5 and 7, and the header parameters that would change what is signed.
fn check_header(
    header: &Header<'_>,
    algorithms: Algorithms,
) -> Result<(Algorithm, Jwk), ProofError> {
    // Checked first, whatever else is wrong: the key's owner must learn of it.
    if header.jwk.as_ref().is_some_and(JwkMembers::is_private) {
        return Err(ProofError::Key(InvalidJwk::Private));
    }
    if header.typ.as_ref().map(Text::as_str) != Some("dpop+jwt") {
        return Err(ProofError::Type);
    }
    // `cty: JWT` announces a nested token.
    let nested = header
        .cty
        .as_ref()
        .is_some_and(|cty| cty.as_str().eq_ignore_ascii_case("JWT"));
    if nested || header.is_extended() {
        return Err(ProofError::Extension);
    }
    let members = header.jwk.as_ref().ok_or(ProofError::NoKey)?;
    let algorithm = header
        .alg
        .as_ref()
        .and_then(|alg| alg.as_str().parse().ok())
        .filter(|algorithm| algorithms.contains(*algorithm))
        .ok_or(ProofError::Algorithm)?;
    let jwk = Jwk::from_members(members)
        .and_then(Jwk::of_a_proof)
        .map_err(ProofError::Key)?;
    if jwk.goes_with(algorithm) {
        Ok((algorithm, jwk))
    } else {
        Err(ProofError::Key(InvalidJwk::Algorithm))
    }
}

/// The required claims that are needed again after the checks.
struct RequiredClaims<'c> {
    jti: &'c str,
    iat: f64,
}

/// Checks 3, 8, 9 and 11.
fn check_claims<'c>(
    claims: &'c Claims<'_>,
    expected: &Expected<'_>,
) -> Result<RequiredClaims<'c>, ProofError> {
    let jti = required(claims.jti.as_ref())?;
    let htm = required(claims.htm.as_ref())?;
    let htu = required(claims.htu.as_ref())?;
    let iat = claims.iat.ok_or(ProofError::ClaimMissing)?;
    if jti.is_empty() || jti.len() > MAX_JTI_LENGTH {
        return Err(ProofError::JtiLength);
    }
    if !expected.target.is_method(htm) {
        return Err(ProofError::Method);
    }
    expected.target.check_url(htu).map_err(ProofError::Url)?;
    if expected.freshness.decides_by_iat(expected.nonces_required) {
        expected
            .freshness
            .check_iat(iat, expected.now)
            .map_err(ProofError::Iat)?;
    }
    let validity = Validity {
        not_before: claims.nbf,
        expires: claims.exp,
    };
    validity
        .check(expected.now, expected.freshness.leeway())
        .map_err(|error| match error {
            OutOfTime::Expired => ProofError::Expired,
            OutOfTime::NotYetValid => ProofError::NotYetValid,
        })?;
    Ok(RequiredClaims { jti, iat })
}

fn required<'c>(claim: Option<&'c Text<'_>>) -> Result<&'c str, ProofError> {
    claim.map(Text::as_str).ok_or(ProofError::ClaimMissing)
}

/// A proof whose form and claims are valid, signed by the key it names. It has not been checked for replay.
pub(crate) struct Proof<T> {
    _token: PhantomData<fn() -> T>,
    key: ClientKey,
    jti: String,
    iat: f64,
}

impl<T> Proof<T> {
    /// The thumbprint of the key that signed the proof.
    pub(crate) fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    pub(crate) fn jti(&self) -> &str {
        &self.jti
    }

    pub(crate) fn iat(&self) -> f64 {
        self.iat
    }

    /// The facts that are reported about the proof when its request is accepted.
    pub(crate) fn facts(&self, now: Timestamp) -> ProofFacts {
        ProofFacts {
            algorithm: self.algorithm().name(),
            skew_seconds: now.as_numeric_date() - self.iat,
        }
    }

    /// Caches the parsed key for the client's next request. Only for a proof whose request was accepted.
    pub(crate) fn remember_key(&self, keys: &KeyCache) {
        keys.remember(&self.key);
    }
}

/// The check of [RFC 9449 section 4.3](https://www.rfc-editor.org/rfc/rfc9449#section-4.3) that a
/// proof failed, in the order of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// There is no proof (section 7.1; at a token endpoint, section 5).
    #[error("the DPoP proof is missing")]
    Missing,
    /// More than one `DPoP` field (check 1).
    #[error("several DPoP proofs")]
    Several,
    /// More than 8 KiB.
    #[error("the DPoP proof is too long")]
    TooLong,
    /// Not three segments of canonical base64url (check 2).
    #[error("the DPoP proof is not a JWT")]
    NotAJwt,
    /// The header is not a JSON object, repeats a member, or has a member of the wrong type (check 2).
    #[error("the header of the DPoP proof is malformed")]
    HeaderNotJson,
    /// The payload is not a JSON object, repeats a member, or has a member of the wrong type (check 2).
    #[error("the payload of the DPoP proof is malformed")]
    PayloadNotJson,
    /// `jti`, `htm`, `htu` or `iat` is missing, or `ath` is missing although there is an access
    /// token (check 3).
    #[error("a required claim of the DPoP proof is missing")]
    ClaimMissing,
    /// There is no `jwk` (check 3).
    #[error("the DPoP proof has no key")]
    NoKey,
    /// `jti` is empty or longer than 512 bytes (check 3, section 11.1).
    #[error("the jti of the DPoP proof is empty or too long")]
    JtiLength,
    /// `typ` is not `dpop+jwt` (check 4).
    #[error("the DPoP proof has the wrong typ")]
    Type,
    /// The header has `crit`, `b64`, `enc` or `zip`, or announces a nested token.
    #[error("the DPoP proof uses an extension that is not supported")]
    Extension,
    /// `alg` is missing, unknown, or not on the list of accepted algorithms (check 5).
    #[error("the algorithm of the DPoP proof is not accepted")]
    Algorithm,
    /// The signature does not verify with the key in the header (check 6).
    #[error("the signature of the DPoP proof does not verify")]
    Signature,
    /// The `jwk` is a private key (check 7) or is not acceptable.
    #[error("the key of the DPoP proof is not accepted: {0}")]
    Key(InvalidJwk),
    /// `htm` names another method (check 8).
    #[error("the DPoP proof is for another method")]
    Method,
    /// `htu` names another URL (check 9).
    #[error("the DPoP proof is for another URL")]
    Url(UrlMismatch),
    /// `iat` is outside the window (check 11).
    #[error("{0}")]
    Iat(IatError),
    /// `exp` has passed (RFC 7519 section 4.1.4), or the proof expired while the request was being checked.
    #[error("the DPoP proof has expired")]
    Expired,
    /// `nbf` is in the future (RFC 7519 section 4.1.5).
    #[error("the DPoP proof is not valid yet")]
    NotYetValid,
    /// `ath` is not the hash of the access token (check 12).
    #[error("the DPoP proof is for another access token")]
    TokenHash,
    /// The proof was used before (section 11.1). The client must sign a new one, for retries too.
    #[error("the DPoP proof was used before")]
    Replayed,
}

impl ProofError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "proof_missing",
            Self::Several => "proof_several",
            Self::TooLong => "proof_too_long",
            Self::NotAJwt => "proof_not_a_jwt",
            Self::HeaderNotJson => "proof_header",
            Self::PayloadNotJson => "proof_payload",
            Self::ClaimMissing => "proof_claim_missing",
            Self::NoKey => "proof_no_key",
            Self::JtiLength => "proof_jti_length",
            Self::Type => "proof_typ",
            Self::Extension => "proof_extension",
            Self::Algorithm => "proof_algorithm",
            Self::Signature => "proof_signature",
            Self::Key(_) => "proof_key",
            Self::Method => "proof_htm",
            Self::Url(_) => "proof_htu",
            Self::Iat(IatError::InTheFuture { .. }) => "proof_iat_in_the_future",
            Self::Iat(IatError::TooOld { .. }) => "proof_iat_too_old",
            Self::Expired => "proof_expired",
            Self::NotYetValid => "proof_not_yet_valid",
            Self::TokenHash => "proof_ath",
            Self::Replayed => "proof_replayed",
        }
    }
}
