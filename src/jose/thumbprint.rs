//! The thumbprint of a public key, `jkt` in DPoP.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::jose::base64url;
use crate::jose::json::Text;

/// A key's SHA-256 thumbprint ([RFC 7638](https://www.rfc-editor.org/rfc/rfc7638)), `jkt` in DPoP.
///
/// `Display` writes, and `FromStr` reads, the 43 characters of canonical base64url. `Debug` does not
/// show it.
///
/// # Example
///
/// ```
/// use tower_dpop::Thumbprint;
///
/// let jkt: Thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".parse()?;
/// assert_eq!(jkt.to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
/// assert!("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J".parse::<Thumbprint>().is_err()); // stray bits
/// # Ok::<(), tower_dpop::jose::InvalidThumbprint>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub(crate) [u8; 32]);

impl Thumbprint {
    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidThumbprint;

    fn from_str(jkt: &str) -> Result<Self, InvalidThumbprint> {
        base64url::decode_exact(jkt)
            .map(Self)
            .ok_or(InvalidThumbprint)
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(self.0))
    }
}

impl Serialize for Thumbprint {
    /// Writes the 43 characters, as in `jkt`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64url::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Thumbprint {
    /// Reads the 43 characters, as strictly as [`FromStr`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let jkt = Text::deserialize(deserializer)?;
        jkt.as_str().parse().map_err(D::Error::custom)
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Thumbprint(..)")
    }
}

/// The text is not a SHA-256 hash in 43 characters of base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a base64url SHA-256 thumbprint")]
pub struct InvalidThumbprint;
