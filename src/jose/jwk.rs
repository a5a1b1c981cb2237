//! The public key in a proof's header, and its thumbprint.
//!
//! Only one encoding of each key is accepted: full-length coordinates, canonical base64url, minimal
//! integers. Otherwise one key would have several thumbprints, and one client several identities.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use sha2::{Digest, Sha256};

use crate::jose::algorithm::{Algorithm, KeyType};
use crate::jose::json::{InvalidJson, Text, object, read};
use crate::jose::thumbprint::Thumbprint;
use crate::jose::{base64url, ed25519};

/// A public key, as the `jwk` header parameter of a proof carries it ([RFC
/// 7517](https://www.rfc-editor.org/rfc/rfc7517), [RFC 9449 section
/// 4.2](https://www.rfc-editor.org/rfc/rfc9449#section-4.2)).
///
/// Every value is well-formed: a known key type, no private member, canonical encodings, full-length
/// coordinates, an RSA modulus of 2048 to 8192 bits. Whether a point lies on its curve is checked
/// when the key first verifies a signature.
///
/// # Example
///
/// ```
/// use tower_dpop::jose::Jwk;
///
/// let jwk: Jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#.parse()?;
/// assert_eq!(jwk.thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
///
/// let private = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"AA"}"#;
/// assert_eq!(private.parse::<Jwk>().unwrap_err().to_string(), "the key holds a private member");
/// # Ok::<(), tower_dpop::jose::InvalidJwk>(())
/// ```
#[derive(Clone)]
pub struct Jwk {
    material: Material,
    declared: Declared,
}

/// The numbers of a key.
#[derive(Clone)]
pub(crate) enum Material {
    /// Uncompressed points (SEC 1 section 2.3.3): `04 ‖ x ‖ y`.
    P256([u8; 65]),
    P384([u8; 97]),
    P521([u8; 133]),
    Ed25519([u8; 32]),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// The key's own `alg` member.
#[derive(Clone, Copy)]
enum Declared {
    Nothing,
    Known(Algorithm),
    Unknown,
}

object! {
    /// The members of a JWK, as they appear in the JSON.
    pub(crate) struct JwkMembers<'de> {
        kty: Text<'de> = "kty",
        crv: Text<'de> = "crv",
        x: Text<'de> = "x",
        y: Text<'de> = "y",
        n: Text<'de> = "n",
        e: Text<'de> = "e",
        alg: Text<'de> = "alg",
        usage: Text<'de> = "use",
        key_ops: Vec<Text<'de>> = "key_ops",
    }
    forbidden {
        d = "d",
        p = "p",
        q = "q",
        dp = "dp",
        dq = "dq",
        qi = "qi",
        oth = "oth",
        k = "k",
        private = "priv",
    }
}

impl JwkMembers<'_> {
    /// Whether there is a member that only private and symmetric keys have, regardless of `kty` (RFC
    /// 7518 section 6, RFC 8037 section 2) and of its value, `null` included.
    pub(crate) fn is_private(&self) -> bool {
        [
            &self.d,
            &self.p,
            &self.q,
            &self.dp,
            &self.dq,
            &self.qi,
            &self.oth,
            &self.k,
            &self.private,
        ]
        .into_iter()
        .any(Option::is_some)
    }
}

impl Jwk {
    /// Computes the key's SHA-256 thumbprint, which a bound token has in `cnf.jkt`.
    pub fn thumbprint(&self) -> Thumbprint {
        self.material.thumbprint()
    }

    pub(crate) const fn material(&self) -> &Material {
        &self.material
    }

    /// Whether the key may be used with the algorithm: by the fixed table, and by the key's own
    /// `alg` if it has one.
    pub(crate) fn goes_with(&self, algorithm: Algorithm) -> bool {
        let declared = match self.declared {
            Declared::Nothing => true,
            Declared::Known(declared) => declared.same_computation(algorithm),
            Declared::Unknown => false,
        };
        declared && self.material.key_type() == algorithm.key_type()
    }

    pub(crate) fn from_members(members: &JwkMembers<'_>) -> Result<Self, InvalidJwk> {
        if members.is_private() {
            return Err(InvalidJwk::Private);
        }
        let contradicts_signing = members
            .usage
            .as_ref()
            .is_some_and(|usage| usage.as_str() != "sig")
            || members
                .key_ops
                .as_ref()
                .is_some_and(|ops| !ops.iter().any(|op| op.as_str() == "verify"));
        if contradicts_signing {
            return Err(InvalidJwk::Use);
        }
        let declared = match &members.alg {
            None => Declared::Nothing,
            Some(name) => name
                .as_str()
                .parse()
                .map_or(Declared::Unknown, Declared::Known),
        };
        Self::from_parameters(&Parameters {
            kty: text(members.kty.as_ref()),
            crv: text(members.crv.as_ref()),
            x: text(members.x.as_ref()),
            y: text(members.y.as_ref()),
            n: text(members.n.as_ref()),
            e: text(members.e.as_ref()),
        })
        .map(|jwk| Self { declared, ..jwk })
    }

    /// The key, if it may be a stranger's: anyone can make the server verify a proof, and the largest
    /// RSA keys cost many times what others do.
    pub(crate) fn of_a_proof(self) -> Result<Self, InvalidJwk> {
        match &self.material {
            Material::Rsa { n, e }
                if bits(n) > MAX_MODULUS_BITS_OF_A_PROOF || (e.len() > 2 && **e != [1, 0, 1]) =>
            {
                Err(InvalidJwk::RsaTooLarge)
            }
            _ => Ok(self),
        }
    }

    /// A key without its own `alg`, from the parameters that its thumbprint covers.
    pub(crate) fn from_parameters(parameters: &Parameters<'_>) -> Result<Self, InvalidJwk> {
        Ok(Self {
            material: Material::from_parameters(parameters)?,
            declared: Declared::Nothing,
        })
    }
}

/// The text of a member, if it is present.
pub(crate) fn text<'t>(member: Option<&'t Text<'_>>) -> Option<&'t str> {
    member.map(Text::as_str)
}

impl FromStr for Jwk {
    type Err = InvalidJwk;

    fn from_str(json: &str) -> Result<Self, InvalidJwk> {
        let members = read(json.as_bytes()).map_err(|InvalidJson| InvalidJwk::Json)?;
        Self::from_members(&members)
    }
}

impl Serialize for Jwk {
    /// Writes only the members that the key's thumbprint covers, in lexicographic order. The header
    /// of a proof needs these.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self.material.members();
        let mut map = serializer.serialize_map(Some(members.len()))?;
        for (name, value) in &members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Jwk {
    /// Rejects what [`FromStr`] rejects. (A duplicate member is detected only in JSON text: a
    /// `serde_json::Value` has already dropped it.)
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = JwkMembers::deserialize(deserializer)?;
        Self::from_members(&members).map_err(D::Error::custom)
    }
}

impl fmt::Debug for Jwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwk")
            .field("key_type", &self.material.key_type())
            .finish_non_exhaustive()
    }
}

/// The parameters of a public key, from any source.
#[derive(Default)]
pub(crate) struct Parameters<'a> {
    pub(crate) kty: Option<&'a str>,
    pub(crate) crv: Option<&'a str>,
    pub(crate) x: Option<&'a str>,
    pub(crate) y: Option<&'a str>,
    pub(crate) n: Option<&'a str>,
    pub(crate) e: Option<&'a str>,
}

/// 8192 bits. With a longer modulus, one signature could cost the server seconds.
const MAX_MODULUS_BYTES: usize = 1024;

/// Clients' libraries make keys of 2048 to 4096 bits, with the exponent 65537.
const MAX_MODULUS_BITS_OF_A_PROOF: usize = 4096;

impl Material {
    fn from_parameters(jwk: &Parameters<'_>) -> Result<Self, InvalidJwk> {
        match (jwk.kty, jwk.crv) {
            (Some("EC"), Some("P-256")) => Ok(Self::P256(point::<32, 65>(jwk)?)),
            (Some("EC"), Some("P-384")) => Ok(Self::P384(point::<48, 97>(jwk)?)),
            (Some("EC"), Some("P-521")) => Ok(Self::P521(point::<66, 133>(jwk)?)),
            (Some("OKP"), Some("Ed25519")) => {
                let x = jwk
                    .x
                    .and_then(base64url::decode_exact)
                    .ok_or(InvalidJwk::Coordinate)?;
                if ed25519::is_canonical(&x) && !ed25519::is_small_order(&x) {
                    Ok(Self::Ed25519(x))
                } else {
                    Err(InvalidJwk::Coordinate)
                }
            }
            (Some("RSA"), _) => rsa(jwk),
            (None, _) => Err(InvalidJwk::Missing),
            _ => Err(InvalidJwk::KeyType),
        }
    }

    pub(crate) const fn key_type(&self) -> KeyType {
        match self {
            Self::P256(_) => KeyType::P256,
            Self::P384(_) => KeyType::P384,
            Self::P521(_) => KeyType::P521,
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Rsa { .. } => KeyType::Rsa,
        }
    }

    /// The required members, in lexicographic order.
    pub(crate) fn members(&self) -> Vec<(&'static str, String)> {
        let ec = |crv: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            vec![
                ("crv", crv.to_owned()),
                ("kty", "EC".to_owned()),
                ("x", base64url::encode(x)),
                ("y", base64url::encode(y)),
            ]
        };
        match self {
            Self::P256(point) => ec("P-256", point),
            Self::P384(point) => ec("P-384", point),
            Self::P521(point) => ec("P-521", point),
            Self::Ed25519(x) => vec![
                ("crv", "Ed25519".to_owned()),
                ("kty", "OKP".to_owned()),
                ("x", base64url::encode(x)),
            ],
            Self::Rsa { n, e } => vec![
                ("e", base64url::encode(e)),
                ("kty", "RSA".to_owned()),
                ("n", base64url::encode(n)),
            ],
        }
    }

    /// RFC 7638 section 3: the required members in lexicographic order, without white space,
    /// written again from the numbers.
    fn thumbprint(&self) -> Thumbprint {
        let ec = |crv: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            let hash = Sha256::new()
                .chain_update(r#"{"crv":""#)
                .chain_update(crv)
                .chain_update(r#"","kty":"EC","x":""#);
            encoded(encoded(hash, x).chain_update(r#"","y":""#), y)
        };
        let hash = match self {
            Self::P256(point) => ec("P-256", point),
            Self::P384(point) => ec("P-384", point),
            Self::P521(point) => ec("P-521", point),
            Self::Ed25519(x) => encoded(
                Sha256::new().chain_update(r#"{"crv":"Ed25519","kty":"OKP","x":""#),
                x,
            ),
            Self::Rsa { n, e } => {
                let hash = encoded(Sha256::new().chain_update(r#"{"e":""#), e);
                encoded(hash.chain_update(r#"","kty":"RSA","n":""#), n)
            }
        };
        Thumbprint(hash.chain_update(r#""}"#).finalize().into())
    }
}

/// Continues the hash with the base64url form of the bytes.
fn encoded(hash: Sha256, bytes: &[u8]) -> Sha256 {
    base64url::encoded_pieces(bytes, hash, |hash, piece| hash.chain_update(piece))
}

/// RFC 7518 section 6.2.1.2: a coordinate has the full size of the curve, so it has `N` bytes,
/// never fewer.
fn point<const N: usize, const POINT: usize>(
    jwk: &Parameters<'_>,
) -> Result<[u8; POINT], InvalidJwk> {
    let mut point = [4; POINT];
    for (coordinate, place) in [(jwk.x, 1), (jwk.y, 1 + N)] {
        let bytes: [u8; N] = coordinate
            .and_then(base64url::decode_exact)
            .ok_or(InvalidJwk::Coordinate)?;
        point[place..place + N].copy_from_slice(&bytes);
    }
    Ok(point)
}

fn rsa(jwk: &Parameters<'_>) -> Result<Material, InvalidJwk> {
    let (Some(n), Some(e)) = (jwk.n, jwk.e) else {
        return Err(InvalidJwk::Missing);
    };
    if n.len() > MAX_MODULUS_BYTES.div_ceil(3) * 4 || e.len() > 8 {
        return Err(InvalidJwk::RsaSize);
    }
    let (Some(n), Some(e)) = (base64url::decode(n), base64url::decode(e)) else {
        return Err(InvalidJwk::Integer);
    };
    // RFC 7518 section 2, Base64urlUInt: the minimal number of bytes.
    let minimal = |integer: &[u8]| integer.first().is_some_and(|first| *first != 0);
    if !minimal(&n) || !minimal(&e) || !odd(&n) || !odd(&e) || e == [1] {
        return Err(InvalidJwk::Integer);
    }
    // Both engines accept exponents of up to 33 bits.
    if bits(&n) < 2048 || n.len() > MAX_MODULUS_BYTES || bits(&e) > 33 {
        return Err(InvalidJwk::RsaSize);
    }
    Ok(Material::Rsa { n, e })
}

fn odd(integer: &[u8]) -> bool {
    integer.last().is_some_and(|last| last % 2 == 1)
}

/// The length in bits of an integer without leading zero bytes.
pub(crate) fn bits(integer: &[u8]) -> usize {
    integer.first().map_or(0, |first| {
        integer.len() * 8 - first.leading_zeros() as usize
    })
}

/// Why a `jwk` was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwk {
    /// The key's own `alg` names an algorithm other than the header's (RFC 7517 section 4.4), or the
    /// key has the wrong type for the header's algorithm.
    #[error("the key does not match the algorithm")]
    Algorithm,
    /// A coordinate is missing, is not canonical base64url, does not have the curve's full length,
    /// or belongs to a point that must not be used.
    #[error("a coordinate of the key is missing or malformed")]
    Coordinate,
    /// `n` or `e` is not a canonical, minimal, odd integer.
    #[error("an integer of the key is malformed")]
    Integer,
    /// Not a JSON object without duplicate members.
    #[error("the key is not a JSON object without duplicate members")]
    Json,
    /// `kty` and `crv` do not name a key type that can verify a proof.
    #[error("the key type is not supported")]
    KeyType,
    /// A required member is missing.
    #[error("a required member of the key is missing")]
    Missing,
    /// A member that only private or symmetric keys have (RFC 9449 section 4.3, check 7).
    #[error("the key holds a private member")]
    Private,
    /// An RSA key outside 2048 to 8192 bits, or with an exponent of more than 33 bits.
    #[error("the size of the RSA key is not accepted")]
    RsaSize,
    /// In a proof: an RSA key of more than 4096 bits, or with an exponent above 65537. Issuers' keys may be
    /// larger.
    #[error("the RSA key has more than 4096 bits, or an exponent above 65537")]
    RsaTooLarge,
    /// `use` or `key_ops` states that the key is not for verifying signatures.
    #[error("the use, key_ops or alg of the key does not allow this signature")]
    Use,
}

/// The signature is not a valid signature of this message by this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureRejected;
