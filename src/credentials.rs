//! Finds the access token and the proof in a request's header fields.
//!
//! | field | ABNF |
//! |---|---|
//! | `Authorization` | `"DPoP" 1*SP token68` ([RFC 9449 section 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1)), or `"Bearer" 1*SP token68` ([RFC 6750 section 2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)) if Bearer is allowed |
//! | `DPoP` | `token68` ([section 4.1](https://www.rfc-editor.org/rfc/rfc9449#section-4.1)), of which a JWT uses letters, digits, `-`, `_` and `.` |
//!
//! Tokens in the query or in a form are never read (OAuth 2.1 and FAPI 2.0 forbid them), nor is
//! `Proxy-Authorization`.

use std::fmt;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest, Sha256};

/// The header field that carries the proof: one compact JWT.
///
/// ```text
/// DPoP: eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2Iiwian….eyJqdGkiOiJlMWoz….2oW9RP35yRqz…
/// ```
pub const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Longer tokens are not hashed. Tokens that list dozens of groups have a few KiB.
pub(crate) const MAX_TOKEN_LENGTH: usize = 32 * 1024;

/// The authentication scheme under which an access token is presented. The scheme's challenge
/// reports the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 9449.
    Dpop,
}

impl Scheme {
    /// The name in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Dpop => "dpop",
        }
    }
}

/// The content of a request's only `Authorization` field. It is read once.
pub(crate) enum Presented<'r> {
    /// A `DPoP` field in the same request is not read: clients attach it unconditionally.
    Bearer { token: &'r str },
    /// A token, and its proof, if the request has one.
    Dpop {
        token: &'r str,
        proof: ProofField<'r>,
    },
}

/// The `DPoP` fields of a request. Their content is not checked here.
#[derive(Clone, Copy)]
pub(crate) enum ProofField<'r> {
    Absent,
    One(&'r [u8]),
    Several,
}

impl<'r> Presented<'r> {
    /// Requires exactly one `Authorization` field, with a scheme for access tokens.
    pub(crate) fn from_headers(headers: &'r HeaderMap) -> Result<Self, CredentialsError> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let field = fields.next().ok_or(CredentialsError::Missing)?;
        if fields.next().is_some() {
            return Err(CredentialsError::Ambiguous);
        }
        match scheme_and_token(field.as_bytes())? {
            (Scheme::Bearer, token) => Ok(Self::Bearer { token }),
            (Scheme::Dpop, token) if token.len() > MAX_TOKEN_LENGTH => {
                Err(CredentialsError::TokenTooLong)
            }
            (Scheme::Dpop, token) => Ok(Self::Dpop {
                token,
                proof: ProofField::from_headers(headers),
            }),
        }
    }
}

impl<'r> ProofField<'r> {
    /// Counts field lines. Values joined by a comma are one field, which is not a valid proof.
    pub(crate) fn from_headers(headers: &'r HeaderMap) -> Self {
        let mut fields = headers.get_all(DPOP).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Self::Absent,
            (Some(proof), None) => Self::One(proof.as_bytes()),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// An access token as the client presented it, and its SHA-256 for `ath` and caches.
#[derive(Clone, Copy)]
pub struct PresentedToken<'r> {
    text: &'r str,
    hash: [u8; 32],
}

impl<'r> PresentedToken<'r> {
    /// A token, for code that calls an [`AccessTokenVerifier`](crate::tokens::AccessTokenVerifier)
    /// directly.
    pub fn new(text: &'r str) -> Self {
        Self {
            text,
            hash: Sha256::digest(text).into(),
        }
    }

    /// The token. It is a secret: do not log it.
    pub const fn as_str(&self) -> &'r str {
        self.text
    }

    /// The SHA-256 of the token's characters.
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedToken(..)")
    }
}

fn scheme_and_token(field: &[u8]) -> Result<(Scheme, &str), CredentialsError> {
    let scheme_end = field
        .iter()
        .position(|byte| !is_token_character(*byte))
        .unwrap_or(field.len());
    let (scheme, rest) = field.split_at(scheme_end);
    let scheme = if scheme.eq_ignore_ascii_case(b"DPoP") {
        Scheme::Dpop
    } else if scheme.eq_ignore_ascii_case(b"Bearer") {
        Scheme::Bearer
    } else if scheme.is_empty() {
        return Err(CredentialsError::Malformed);
    } else {
        // RFC 6750 section 3.1: a request with an unsupported authentication method gets no error
        // code.
        return Err(CredentialsError::Missing);
    };
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let token = &rest[spaces..];
    if spaces == 0 || !is_token68(token) {
        return Err(CredentialsError::Malformed);
    }
    let token = str::from_utf8(token).map_err(|_| CredentialsError::Malformed)?;
    Ok((scheme, token))
}

/// RFC 9110 section 5.6.2, `tchar`.
pub(crate) fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 11.2: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(crate) fn is_token68(text: &[u8]) -> bool {
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last + 1);
    // Deliberately without an early exit, so that the compiler can check many bytes at once: tokens are
    // long, and every request has one.
    let characters = text[..end].iter();
    end > 0 && characters.fold(true, |all, byte| all & is_token68_character(*byte))
}

/// A character of `token68`, other than the padding at its end.
pub(crate) fn is_token68_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// An error in the header fields themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Several `Authorization` fields (RFC 9449 section 7.2, Figure 19).
    #[error("several Authorization fields")]
    Ambiguous,
    /// An access token under the Bearer scheme, which is not accepted here (RFC 9449 section 7.2).
    /// The token is not verified.
    #[error("the access token was presented as a bearer token")]
    Bearer,
    /// The `Authorization` field does not follow its grammar (RFC 9449 section 7.1).
    #[error("the Authorization field is malformed")]
    Malformed,
    /// No `Authorization` field, or one with a scheme that is not for access tokens.
    #[error("no access token was presented")]
    Missing,
    /// An access token of more than 32 KiB.
    #[error("the access token is too long")]
    TokenTooLong,
}

impl CredentialsError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Ambiguous => "credentials_ambiguous",
            Self::Bearer => "credentials_bearer",
            Self::Malformed => "credentials_malformed",
            Self::Missing => "credentials_missing",
            Self::TokenTooLong => "credentials_token_too_long",
        }
    }
}
