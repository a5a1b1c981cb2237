//! The secrets of stateless nonces: how nodes get the same ones, and how they are rotated.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::{env, fs, iter};

use hmac::{Hmac, KeyInit, Mac};
use serde::de::{Deserialize, Deserializer, Error};
use sha2::Sha256;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::deserialize::SecretReference;
use crate::jose::base64url;

/// The fewest bytes of a secret: as many as HMAC-SHA-256 has security for.
const MIN_LENGTH: usize = 32;

/// The state of the MAC is as good as the secret, and is wiped only with the feature `zeroize` of sha2.
const _: fn() = {
    fn is_wiped<T: ZeroizeOnDrop>() {}
    is_wiped::<Sha256>
};

/// A secret for the MAC (HMAC-SHA-256) of [`StatelessNonces`](crate::StatelessNonces): at least 32
/// random bytes, not a password. It is wiped from memory when it is dropped.
///
/// As text it is one of these, without white space:
///
/// | form | length | made by |
/// |---|---|---|
/// | hexadecimal digits of either case | an even number, at least 64 | `openssl rand -hex 32` |
/// | base64url or base64 (RFC 4648), padded or not | at least 43 characters before the padding | `openssl rand -base64 32` |
///
/// A text of hexadecimal digits only is hexadecimal, any other is base64url or base64.
///
/// # Example
///
/// ```
/// use tower_dpop::NonceSecret;
/// use tower_dpop::proof::InvalidNonceSecret;
///
/// let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// assert!(hex.parse::<NonceSecret>().is_ok());
/// assert!("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse::<NonceSecret>().is_ok());
/// assert_eq!(hex[2..].parse::<NonceSecret>().unwrap_err(), InvalidNonceSecret::TooShort);
/// ```
#[derive(Clone)]
pub struct NonceSecret {
    pub(crate) keyed: Hmac<Sha256>,
    pub(crate) id: [u8; 4],
    /// By [`generate`](Self::generate): no other process has it.
    pub(crate) is_generated: bool,
}

impl NonceSecret {
    /// A secret of at least 32 bytes that all nodes share: random bytes, not a password.
    pub fn from_bytes(secret: &[u8]) -> Result<Self, InvalidNonceSecret> {
        if secret.len() < MIN_LENGTH {
            return Err(InvalidNonceSecret::TooShort);
        }
        let keyed =
            Hmac::<Sha256>::new_from_slice(secret).map_err(|_| InvalidNonceSecret::TooShort)?;
        let id = keyed
            .clone()
            .chain_update("tower-dpop nonce key id")
            .finalize()
            .into_bytes();
        Ok(Self {
            keyed,
            id: [id[0], id[1], id[2], id[3]],
            is_generated: false,
        })
    }

    /// A new random secret, for a service with one node. After a restart, a request with an earlier
    /// nonce is rejected, with a new nonce in the response.
    ///
    /// # Panics
    ///
    /// Panics if the operating system provides no randomness.
    pub fn generate() -> Self {
        let mut secret = Zeroizing::new([0; MIN_LENGTH]);
        getrandom::fill(secret.as_mut()).expect("the operating system gives randomness");
        let secret = Self::from_bytes(secret.as_ref()).expect("32 bytes are enough");
        Self {
            is_generated: true,
            ..secret
        }
    }

    fn from_text(text: &[u8]) -> Result<Self, InvalidNonceSecret> {
        let secret = if text.iter().all(u8::is_ascii_hexdigit) {
            decode_hex(text)
        } else {
            decode_base64(text)
        };
        Self::from_bytes(&secret.ok_or(InvalidNonceSecret::Encoding)?)
    }
}

impl FromStr for NonceSecret {
    type Err = InvalidNonceSecret;

    fn from_str(text: &str) -> Result<Self, InvalidNonceSecret> {
        Self::from_text(text.as_bytes())
    }
}

impl<'de> Deserialize<'de> for NonceSecret {
    /// Reads a reference, as for [`NonceSecrets`]. There must be one secret.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secrets = NonceSecrets::deserialize(deserializer)?;
        if secrets.accepted.is_empty() {
            Ok(secrets.issuing)
        } else {
            let found = secrets.all().count();
            Err(D::Error::custom(format_args!(
                "there must be one nonce secret, and there are {found}"
            )))
        }
    }
}

impl fmt::Debug for NonceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSecret(..)")
    }
}

/// Two digits per byte.
fn decode_hex(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let value = |digit: u8| char::from(digit).to_digit(16);
    // Allocated once: a vector that grows leaves copies that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push(u8::try_from(16 * value(*high)? + value(*low)?).ok()?);
    }
    rest.is_empty().then_some(bytes)
}

/// Either alphabet. The padding is complete or absent.
fn decode_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let end = text.iter().rposition(|byte| *byte != b'=')? + 1;
    if text.len() != end && text.len() != end.next_multiple_of(4) {
        return None;
    }
    let url_safe = text[..end].iter().map(|character| match character {
        b'+' => b'-',
        b'/' => b'_',
        other => *other,
    });
    let url_safe = Zeroizing::new(url_safe.collect::<Vec<u8>>());
    base64url::decode(url_safe.as_slice()).map(Zeroizing::new)
}

/// The secrets of [`StatelessNonces`](crate::StatelessNonces), of which there are several during a
/// rotation: nonces are issued under the first, and accepted under each.
///
/// As text, in a file or in an environment variable, secrets are separated by line breaks or commas.
/// White space around secrets and empty entries are ignored. To repeat a secret has no effect.
/// [`NonceSecret`] describes the form of each.
///
/// The guide has [the steps of a rotation](crate::guide::several_nodes#rotation-without-a-restart) that rejects no
/// request, and a Kubernetes `Secret` with two of them.
///
/// # Example
///
/// ```
/// use tower_dpop::{NonceSecrets, StatelessNonces};
/// # use tower_dpop::proof::InvalidNonceSecrets;
///
/// # fn example() -> Result<(), InvalidNonceSecrets> {
/// let nonces = StatelessNonces::new(NonceSecrets::from_file("/etc/dpop/nonce-secrets")?);
/// // Later, on a signal for example. If the file is invalid, the secrets stay as they are.
/// nonces.replace_secrets(NonceSecrets::from_file("/etc/dpop/nonce-secrets")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NonceSecrets {
    pub(crate) issuing: NonceSecret,
    accepted: Vec<NonceSecret>,
}

impl NonceSecrets {
    /// Reads a file. Its content is not kept.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, InvalidNonceSecrets> {
        let path = path.as_ref();
        let place = format!("file {}", path.display());
        match fs::read(path).map(Zeroizing::new) {
            Ok(text) => Self::from_text(&text, place),
            Err(error) => Err(InvalidNonceSecrets::Unreadable {
                place,
                reason: error.to_string(),
            }),
        }
    }

    /// Reads an environment variable, which remains set.
    pub fn from_env(name: &str) -> Result<Self, InvalidNonceSecrets> {
        let place = format!("environment variable {name}");
        match env::var_os(name) {
            Some(text) => {
                let text = Zeroizing::new(text.into_encoded_bytes());
                Self::from_text(&text, place)
            }
            None => Err(InvalidNonceSecrets::Unreadable {
                place,
                reason: "not set".into(),
            }),
        }
    }

    /// Also accepts nonces under this secret, the previous or the next one.
    #[must_use]
    pub fn add_accepted(mut self, secret: NonceSecret) -> Self {
        self.accepted.push(secret);
        self
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &NonceSecret> {
        iter::once(&self.issuing).chain(&self.accepted)
    }

    fn from_text(text: &[u8], place: String) -> Result<Self, InvalidNonceSecrets> {
        let mut secrets = Vec::new();
        let parts = text.split(|byte| matches!(byte, b'\n' | b'\r' | b','));
        let parts = parts.map(<[u8]>::trim_ascii);
        for secret in parts.filter(|part| !part.is_empty()) {
            match NonceSecret::from_text(secret) {
                Ok(secret) => secrets.push(secret),
                Err(reason) => {
                    return Err(InvalidNonceSecrets::Secret {
                        place,
                        number: secrets.len() + 1,
                        reason,
                    });
                }
            }
        }
        let mut secrets = secrets.into_iter();
        match secrets.next() {
            Some(issuing) => Ok(Self {
                issuing,
                accepted: secrets.collect(),
            }),
            None => Err(InvalidNonceSecrets::Empty { place }),
        }
    }
}

/// One secret, which issues and is accepted.
impl From<NonceSecret> for NonceSecrets {
    fn from(issuing: NonceSecret) -> Self {
        Self {
            issuing,
            accepted: Vec::new(),
        }
    }
}

impl FromStr for NonceSecrets {
    type Err = InvalidNonceSecrets;

    fn from_str(text: &str) -> Result<Self, InvalidNonceSecrets> {
        Self::from_text(text.as_bytes(), "the text".into())
    }
}

impl<'de> Deserialize<'de> for NonceSecrets {
    /// Reads a reference, `{ file = "/path" }` or `{ env = "NAME" }` as TOML writes it, and then the file or the
    /// environment variable. A secret in the document itself is an error.
    ///
    /// # Security
    ///
    /// The error does not show the secret. But the format may show the line of the document in its own error, as the crate
    /// `toml` does.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secrets = match SecretReference::deserialize(deserializer)? {
            SecretReference::Env(name) => Self::from_env(&name),
            SecretReference::File(path) => Self::from_file(path),
        };
        secrets.map_err(D::Error::custom)
    }
}

impl fmt::Debug for NonceSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSecrets(..)")
    }
}

/// Why a secret is invalid: a configuration error. It has no part of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNonceSecret {
    /// The text is neither base64url or base64, nor an even number of hexadecimal digits.
    #[error("a nonce secret must be base64url, or an even number of hexadecimal digits")]
    Encoding,
    /// Fewer than 32 bytes.
    #[error(
        "a nonce secret must have at least 32 bytes (64 hexadecimal digits, or 43 characters of base64url)"
    )]
    TooShort,
}

/// Why a text, a file or an environment variable gives no [`NonceSecrets`]: a configuration error. It
/// names the place, and has no part of its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNonceSecrets {
    /// There is no secret in it.
    #[error("{place}: no nonce secret, expected one per line or separated by commas")]
    Empty {
        /// The file or the environment variable, with its name.
        place: String,
    },
    /// One of the secrets is invalid.
    #[error("{place}: secret {number}: {reason}")]
    Secret {
        /// The file or the environment variable, with its name.
        place: String,
        /// Which one, counted from one.
        number: usize,
        /// Why it is invalid.
        reason: InvalidNonceSecret,
    },
    /// The file cannot be read, or the environment variable is not set.
    #[error("{place}: {reason}")]
    Unreadable {
        /// The file or the environment variable, with its name.
        place: String,
        /// The operating system's reason.
        reason: String,
    },
}
