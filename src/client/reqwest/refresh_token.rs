//! The secret that is kept between two runs of a client.

use std::fmt;

use zeroize::Zeroizing;

/// A refresh token, to keep between two runs of a client.
///
/// This value is wiped from memory when it is dropped. Copies of the token that were sent or received are not: the HTTP client's
/// buffers, the form of a token request, and the response that it came in.
///
/// There is neither `Display` nor a text in `Debug`, so that it does not end up in a log by mistake.
///
/// # Security
///
/// Keep it where only this client can read it, next to its key. The refresh token of a public client works only with the key
/// that it is bound to ([RFC 9449 section 5](https://www.rfc-editor.org/rfc/rfc9449#section-5)), that of a confidential
/// client with the client's credentials.
#[derive(Clone)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// A refresh token that was kept.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token. If you copy it, you must wipe the copy.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}
