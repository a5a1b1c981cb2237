//! The signature algorithms of proofs and access tokens, and the kind of key that each one needs.
//!
//! `none` and the MACs (HS256 and the like) cannot be represented, so no configuration can allow
//! them ([RFC 9449 section 11.6](https://www.rfc-editor.org/rfc/rfc9449#section-11.6)).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::deserialize::words;

/// A JWS signature algorithm that this crate can verify ([RFC 7518 section
/// 3](https://www.rfc-editor.org/rfc/rfc7518#section-3)).
///
/// Each algorithm needs exactly one kind of key. A proof whose `alg` and `jwk` do not match is
/// rejected before anything is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// ECDSA with P-521 and SHA-512.
    Es512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// Ed25519 under its own name ([RFC 9864](https://www.rfc-editor.org/rfc/rfc9864)).
    Ed25519,
    /// Ed25519 under its older, polymorphic name ([RFC
    /// 8037](https://www.rfc-editor.org/rfc/rfc8037)). Ed448 is not accepted.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
}

/// The kind of key that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    P256,
    P384,
    P521,
    Rsa,
    Ed25519,
}

impl Algorithm {
    /// Every algorithm, in the order in which lists are written.
    pub(crate) const ALL: [Self; 11] = [
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Ed25519,
        Self::EdDsa,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// The registered `alg` value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Ed25519 => "Ed25519",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    /// The fixed table of key types (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 9864
    /// section 2).
    pub(crate) const fn key_type(self) -> KeyType {
        match self {
            Self::Es256 => KeyType::P256,
            Self::Es384 => KeyType::P384,
            Self::Es512 => KeyType::P521,
            Self::Ed25519 | Self::EdDsa => KeyType::Ed25519,
            Self::Ps256 | Self::Ps384 | Self::Ps512 | Self::Rs256 | Self::Rs384 | Self::Rs512 => {
                KeyType::Rsa
            }
        }
    }

    /// Whether both names mean the same computation. `Ed25519` and `EdDSA` do, because this crate
    /// supports only one kind of EdDSA key.
    pub(crate) fn same_computation(self, other: Self) -> bool {
        self == other
            || (self.key_type() == KeyType::Ed25519 && other.key_type() == KeyType::Ed25519)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidAlgorithm;

    /// Case-sensitive, as RFC 7515 section 4.1.1 requires.
    fn from_str(name: &str) -> Result<Self, InvalidAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(InvalidAlgorithm)
    }
}

impl Serialize for Algorithm {
    /// Writes the registered name.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    /// Reads the registered name, case-sensitive.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(D::Error::custom)
    }
}

/// The name is not an asymmetric signature algorithm that this crate can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a supported signature algorithm")]
pub struct InvalidAlgorithm;

/// An allow-list of algorithms, never empty.
///
/// The default is ES256, ES384, PS256, and Ed25519 under both of its names: what the FAPI 2.0
/// Security Profile allows and what clients use in practice. RS256 and the others must be added
/// explicitly.
///
/// # Example
///
/// ```
/// use tower_dpop::{Algorithm, Algorithms};
///
/// assert_eq!(Algorithms::default().to_string(), "ES256 ES384 PS256 Ed25519 EdDSA");
/// let list = Algorithms::only(Algorithm::Es256).add(Algorithm::Rs256);
/// assert_eq!("RS256 ES256".parse(), Ok(list));
/// assert!("ES256 none".parse::<Algorithms>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms(u16);

impl Algorithms {
    /// A list with only this algorithm.
    pub const fn only(algorithm: Algorithm) -> Self {
        Self(algorithm.bit())
    }

    /// Adds an algorithm to the list.
    #[must_use]
    pub const fn add(self, algorithm: Algorithm) -> Self {
        Self(self.0 | algorithm.bit())
    }

    /// Whether the list contains the algorithm.
    pub const fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & algorithm.bit() != 0
    }

    /// The algorithms in the list, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL
            .into_iter()
            .filter(move |algorithm| self.contains(*algorithm))
    }
}

impl Default for Algorithms {
    fn default() -> Self {
        Self::only(Algorithm::Es256)
            .add(Algorithm::Es384)
            .add(Algorithm::Ps256)
            .add(Algorithm::Ed25519)
            .add(Algorithm::EdDsa)
    }
}

impl fmt::Display for Algorithms {
    /// Separated by single spaces, as in the `algs` parameter of a challenge (RFC 9449 section
    /// 7.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, algorithm) in self.iter().enumerate() {
            write!(f, "{}{algorithm}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl FromStr for Algorithms {
    type Err = InvalidAlgorithms;

    /// Names separated by white space.
    fn from_str(names: &str) -> Result<Self, InvalidAlgorithms> {
        let mut list = 0;
        for name in names.split_ascii_whitespace() {
            let algorithm: Algorithm = name
                .parse()
                .map_err(|InvalidAlgorithm| InvalidAlgorithms::Unknown(name.to_owned()))?;
            list |= algorithm.bit();
        }
        if list == 0 {
            Err(InvalidAlgorithms::Empty)
        } else {
            Ok(Self(list))
        }
    }
}

impl<'de> Deserialize<'de> for Algorithms {
    /// Reads a string of names separated by white space, or a list of names.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words(
            deserializer,
            "the names of algorithms, as a string or a list",
        )
    }
}

/// Why a text is not a list of algorithms: a configuration error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAlgorithms {
    /// The text contains no name.
    #[error("a list of algorithms must not be empty")]
    Empty,
    /// A name is not an algorithm that this crate can verify.
    #[error("{0:?}: not a supported signature algorithm")]
    Unknown(String),
}
