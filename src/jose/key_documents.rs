//! Reads (strictly) and writes private keys as documents: PKCS#8 in DER and PEM, and private JWKs.
//!
//! | document | private part | standard |
//! |---|---|---|
//! | PKCS#8, EC | `ECPrivateKey` | RFC 5915 |
//! | PKCS#8, Ed25519 | an octet string within the octet string | RFC 8410 |
//! | PKCS#8, RSA | `RSAPrivateKey` | RFC 8017 |
//! | JWK | `d`, and for RSA `p`, `q`, `dp`, `dq`, `qi` | RFC 7518, RFC 8037 |
//!
//! If a document contains a public half, it must match the private half.
//!
//! Every buffer in this file that has held private bytes is wiped when it is dropped, even when the
//! input is rejected. This does not cover the cases listed in `private_key.rs`, or the caller's own copy of
//! the imported document.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pkcs1::{RsaPrivateKeyRef, RsaPublicKeyRef, UintRef};
use pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use pkcs8::der::pem::{self, LineEnding};
use pkcs8::der::{AnyRef, Decode as _, Encode as _};
use pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use crate::jose::algorithm::{Algorithm, InvalidAlgorithm, KeyType};
use crate::jose::base64url;
use crate::jose::json::{Ignored, InvalidJson, Text, object, read};
use crate::jose::jwk::{InvalidJwk, Jwk, Material, Parameters, text};
use crate::jose::private_key::{KeyRejected, PrivateKey};
use crate::jose::sec1::Sec1;

const EC_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The maximum length of a document, in bytes. The PKCS#8 PEM and the JWK of an RSA key of 8192 bits
/// have about 6500.
const MAX_DOCUMENT: usize = 16 * 1024;

const PEM_LABEL: &str = "PRIVATE KEY";

object! {
    /// The members of a private JWK. The private ones are borrowed from the text, never copied, so
    /// a value with an escape is rejected: base64url needs none.
    struct PrivateMembers<'de> {
        kty: Text<'de> = "kty",
        crv: Text<'de> = "crv",
        x: Text<'de> = "x",
        y: Text<'de> = "y",
        n: Text<'de> = "n",
        e: Text<'de> = "e",
        alg: Text<'de> = "alg",
        usage: Text<'de> = "use",
        key_ops: Vec<Text<'de>> = "key_ops",
        d: &'de str = "d",
        p: &'de str = "p",
        q: &'de str = "q",
        dp: &'de str = "dp",
        dq: &'de str = "dq",
        qi: &'de str = "qi",
        oth: Ignored = "oth",
    }
}

pub(crate) fn from_pkcs8_der(der: &[u8]) -> Result<PrivateKey, SigningKeyError> {
    if der.len() > MAX_DOCUMENT {
        return Err(SigningKeyError::TooLong);
    }
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| SigningKeyError::Pkcs8)?;
    let key = from_algorithm(info.algorithm, info.private_key.as_bytes())?;
    if info.public_key.is_some_and(|bits| !is_public(bits, &key)) {
        return Err(SigningKeyError::Mismatch);
    }
    Ok(key)
}

pub(crate) fn from_pkcs8_pem(text: &str) -> Result<PrivateKey, SigningKeyError> {
    if text.len() > MAX_DOCUMENT {
        return Err(SigningKeyError::TooLong);
    }
    let text = text.trim_ascii().as_bytes();
    let mut buffer = Zeroizing::new(vec![0; text.len()]);
    match pem::decode(text, &mut buffer) {
        Ok((PEM_LABEL, der)) => from_pkcs8_der(der),
        _ => Err(SigningKeyError::Pem),
    }
}

/// The key, and the algorithm that its `alg` names.
pub(crate) fn from_jwk(json: &str) -> Result<(PrivateKey, Option<Algorithm>), SigningKeyError> {
    if json.len() > MAX_DOCUMENT {
        return Err(SigningKeyError::TooLong);
    }
    let members: PrivateMembers<'_> =
        read(json.as_bytes()).map_err(|InvalidJson| SigningKeyError::Json)?;
    if members.oth.is_some() {
        return Err(SigningKeyError::Primes);
    }
    let forbids_signing = members
        .usage
        .as_ref()
        .is_some_and(|usage| usage.as_str() != "sig")
        || members
            .key_ops
            .as_ref()
            .is_some_and(|ops| !ops.iter().any(|op| op.as_str() == "sign"));
    if forbids_signing {
        return Err(SigningKeyError::Use);
    }
    let algorithm = match &members.alg {
        None => None,
        Some(name) => Some(
            name.as_str()
                .parse::<Algorithm>()
                .map_err(|InvalidAlgorithm| SigningKeyError::Algorithm)?,
        ),
    };
    let declared = Jwk::from_parameters(&Parameters {
        kty: text(members.kty.as_ref()),
        crv: text(members.crv.as_ref()),
        x: text(members.x.as_ref()),
        y: text(members.y.as_ref()),
        n: text(members.n.as_ref()),
        e: text(members.e.as_ref()),
    })
    .map_err(SigningKeyError::Public)?;
    if algorithm.is_some_and(|algorithm| !declared.goes_with(algorithm)) {
        return Err(SigningKeyError::Algorithm);
    }
    let key = from_members(&declared, &members)?;
    if key.thumbprint() == declared.thumbprint() {
        Ok((key, algorithm))
    } else {
        Err(SigningKeyError::Mismatch)
    }
}

pub(crate) fn to_pkcs8_der(key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    let secret = key.secret();
    let ec = |curve, point: &[u8]| {
        let algorithm = AlgorithmIdentifierRef {
            oid: EC_OID,
            parameters: Some(AnyRef::from(curve)),
        };
        Sec1::write(&secret, point).map(|sec1| (algorithm, sec1))
    };
    let (algorithm, private_key) = match key.public().material() {
        Material::P256(point) => ec(&P256_OID, point),
        Material::P384(point) => ec(&P384_OID, point),
        Material::P521(point) => ec(&P521_OID, point),
        Material::Ed25519(_) => {
            let algorithm = AlgorithmIdentifierRef {
                oid: ED25519_OID,
                parameters: None,
            };
            // RFC 8410 section 7: an octet string within the octet string.
            let seed = [&[0x04, 0x20], secret.as_slice()].concat();
            Ok((algorithm, Zeroizing::new(seed)))
        }
        Material::Rsa { .. } => Ok((pkcs1::ALGORITHM_ID, secret)),
    }
    .map_err(|_| SigningKeyError::Export)?;
    OctetStringRef::new(&private_key)
        .and_then(|private_key| PrivateKeyInfoRef::new(algorithm, private_key).to_der())
        .map(Zeroizing::new)
        .map_err(|_| SigningKeyError::Export)
}

pub(crate) fn to_pkcs8_pem(key: &PrivateKey) -> Result<Zeroizing<String>, SigningKeyError> {
    pem::encode_string(PEM_LABEL, LineEnding::LF, &to_pkcs8_der(key)?)
        .map(Zeroizing::new)
        .map_err(|_| SigningKeyError::Export)
}

/// Writes the private JWK, which names the algorithm.
pub(crate) fn to_jwk(
    key: &PrivateKey,
    algorithm: Algorithm,
) -> Result<Zeroizing<String>, SigningKeyError> {
    let secret = key.secret();
    let encode = |bytes: &[u8]| Zeroizing::new(base64url::encode(bytes));
    let private = if key.key_type() == KeyType::Rsa {
        let numbers =
            RsaPrivateKeyRef::try_from(secret.as_slice()).map_err(|_| SigningKeyError::Export)?;
        vec![
            ("d", encode(numbers.private_exponent.as_bytes())),
            ("p", encode(numbers.prime1.as_bytes())),
            ("q", encode(numbers.prime2.as_bytes())),
            ("dp", encode(numbers.exponent1.as_bytes())),
            ("dq", encode(numbers.exponent2.as_bytes())),
            ("qi", encode(numbers.coefficient.as_bytes())),
        ]
    } else {
        vec![("d", encode(&secret))]
    };
    let public = key.public().material().members();
    let mut members: Vec<(&str, &str)> = vec![("alg", algorithm.name())];
    members.extend(public.iter().map(|(name, value)| (*name, value.as_str())));
    members.extend(private.iter().map(|(name, value)| (*name, value.as_str())));
    members.sort_unstable();
    Ok(write_object(&members))
}

fn from_algorithm(
    algorithm: AlgorithmIdentifierRef<'_>,
    private_key: &[u8],
) -> Result<PrivateKey, SigningKeyError> {
    if algorithm.oid == EC_OID {
        let curve = algorithm
            .parameters_oid()
            .map_err(|_| SigningKeyError::KeyType)?;
        let key_type = match curve {
            P256_OID => KeyType::P256,
            P384_OID => KeyType::P384,
            P521_OID => KeyType::P521,
            _ => return Err(SigningKeyError::KeyType),
        };
        let sec1 = Sec1::from_der(private_key).map_err(|_| SigningKeyError::Pkcs8)?;
        let key = PrivateKey::from_secret(key_type, sec1.scalar.as_bytes())?;
        let other_curve = sec1.curve.is_some_and(|oid| oid != curve);
        if other_curve || sec1.public.is_some_and(|bits| !is_public(bits, &key)) {
            return Err(SigningKeyError::Mismatch);
        }
        Ok(key)
    } else if algorithm.oid == ED25519_OID {
        // RFC 8410 sections 3 and 7: no parameters, an octet string within the octet string.
        match (algorithm.parameters, private_key) {
            (None, [0x04, 0x20, seed @ ..]) if seed.len() == 0x20 => {
                Ok(PrivateKey::from_secret(KeyType::Ed25519, seed)?)
            }
            _ => Err(SigningKeyError::Pkcs8),
        }
    } else if algorithm == pkcs1::ALGORITHM_ID {
        Ok(PrivateKey::from_secret(KeyType::Rsa, private_key)?)
    } else {
        Err(SigningKeyError::KeyType)
    }
}

/// Reads the private members of a key of the declared type.
fn from_members(
    declared: &Jwk,
    members: &PrivateMembers<'_>,
) -> Result<PrivateKey, SigningKeyError> {
    let d = secret(members.d)?;
    let Material::Rsa { n, e } = declared.material() else {
        return Ok(PrivateKey::from_secret(declared.material().key_type(), &d)?);
    };
    let [p, q, dp, dq, qi] = [members.p, members.q, members.dp, members.dq, members.qi].map(secret);
    let (p, q, dp, dq, qi) = (p?, q?, dp?, dq?, qi?);
    let numbers = RsaPrivateKeyRef {
        modulus: uint(n)?,
        public_exponent: uint(e)?,
        private_exponent: uint(&d)?,
        prime1: uint(&p)?,
        prime2: uint(&q)?,
        exponent1: uint(&dp)?,
        exponent2: uint(&dq)?,
        coefficient: uint(&qi)?,
        other_prime_infos: None,
    };
    let pkcs1 = Zeroizing::new(numbers.to_der().map_err(|_| SigningKeyError::Export)?);
    Ok(PrivateKey::from_secret(KeyType::Rsa, &pkcs1)?)
}

/// Whether the bits are the public half, in a form that PKCS#8 documents use.
fn is_public(bits: BitStringRef<'_>, key: &PrivateKey) -> bool {
    let Some(bytes) = bits.as_bytes() else {
        return false;
    };
    match key.public().material() {
        Material::P256(point) => is_point(bytes, point),
        Material::P384(point) => is_point(bytes, point),
        Material::P521(point) => is_point(bytes, point),
        Material::Ed25519(x) => bytes == x,
        Material::Rsa { n, e } => RsaPublicKeyRef::try_from(bytes).is_ok_and(|public| {
            public.modulus.as_bytes() == n && public.public_exponent.as_bytes() == e
        }),
    }
}

/// Whether the bytes are the uncompressed point, or its compressed form (SEC 1 section 2.3.3).
fn is_point(bytes: &[u8], point: &[u8]) -> bool {
    let (x, y) = point[1..].split_at(point.len() / 2);
    let sign = 2 + y[y.len() - 1] % 2;
    bytes == point
        || bytes
            .split_first()
            .is_some_and(|(first, rest)| *first == sign && rest == x)
}

/// Decodes a private member into a buffer that is wiped even when the text is rejected.
fn secret(member: Option<&str>) -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    let member = member.ok_or(SigningKeyError::Missing)?;
    let mut bytes = Zeroizing::new(vec![0; member.len()]);
    let length = URL_SAFE_NO_PAD
        .decode_slice(member, &mut bytes)
        .map_err(|_| SigningKeyError::Member)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// RFC 7518 section 2, Base64urlUInt: the minimal number of bytes.
fn uint(bytes: &[u8]) -> Result<UintRef<'_>, SigningKeyError> {
    if bytes.first().is_none_or(|first| *first == 0) {
        return Err(SigningKeyError::Length);
    }
    UintRef::new(bytes).map_err(|_| SigningKeyError::Length)
}

/// Writes an object. The names and values of its members must need no escapes.
fn write_object(members: &[(&str, &str)]) -> Zeroizing<String> {
    // Allocated once: a string that grows leaves its old buffers behind, unwiped.
    let length = members
        .iter()
        .map(|(name, value)| name.len() + value.len() + r#""":"","#.len())
        .sum::<usize>()
        + 1;
    let mut json = Zeroizing::new(String::with_capacity(length));
    for (i, (name, value)) in members.iter().enumerate() {
        json.push(if i == 0 { '{' } else { ',' });
        for part in ["\"", name, "\":\"", value, "\""] {
            json.push_str(part);
        }
    }
    json.push('}');
    debug_assert_eq!(json.len(), length, "the text did not grow");
    json
}

/// Why a private key was not made, read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// The requested algorithm, or the `alg` of the JWK, is not an algorithm for this type of key.
    #[error("the key does not match the algorithm")]
    Algorithm,
    /// The key could not be written out.
    #[error("the key could not be written")]
    Export,
    /// The operating system provided no randomness, or the engine made no key from it.
    #[error("no key could be generated")]
    Generation,
    /// Not a JSON object without duplicate members, or a private member is not a plain string.
    #[error("the key is not a JSON object without duplicate members")]
    Json,
    /// Neither ECDSA with P-256, P-384 or P-521, nor Ed25519, nor RSA (`rsaEncryption`).
    #[error("the key type is not supported")]
    KeyType,
    /// A private number does not have the length that its key type requires: the curve's full length
    /// (RFC 7518 section 6.2.2.1, RFC 5915 section 3), 32 bytes for Ed25519, no leading zero byte
    /// for RSA.
    #[error("a private member of the key has the wrong length")]
    Length,
    /// A private member of the JWK is not canonical base64url.
    #[error("a private member of the key is malformed")]
    Member,
    /// The public half does not match the private half, or the numbers of an RSA key do not match
    /// each other.
    #[error("the members of the key do not match each other")]
    Mismatch,
    /// A private member of the JWK is missing. RSA keys need `d`, `p`, `q`, `dp`, `dq` and `qi`.
    #[error("a private member of the key is missing")]
    Missing,
    /// None of the names is an algorithm that this crate can sign with.
    #[error("the document lists no supported algorithm")]
    NoCommonAlgorithm,
    /// Not exactly one PEM document with the label `PRIVATE KEY`. To convert a key with another
    /// label, including an encrypted one, use `openssl pkcs8 -topk8 -nocrypt`.
    #[error("not a PEM document with the label PRIVATE KEY")]
    Pem,
    /// Not the DER of an unencrypted PKCS#8 private key.
    #[error("not a PKCS#8 private key")]
    Pkcs8,
    /// An RSA key with more than two primes, or with two whose lengths differ by more than one bit.
    #[error("the RSA key does not have exactly two primes of equal length")]
    Primes,
    /// The public half is rejected, as in the header of a proof: an RSA modulus outside
    /// 2048 to 8192 bits, a coordinate that is malformed or missing, an unknown key type.
    #[error("the public members of the key are invalid")]
    Public(#[source] InvalidJwk),
    /// The private scalar is zero, or not below the order of the curve.
    #[error("the private scalar is out of range")]
    Scalar,
    /// The document is longer than any supported key.
    #[error("the document is too long")]
    TooLong,
    /// `use` or `key_ops` states that the key is not for signing.
    #[error("the use or key_ops of the key does not allow signing")]
    Use,
}

impl From<KeyRejected> for SigningKeyError {
    fn from(rejected: KeyRejected) -> Self {
        match rejected {
            KeyRejected::Length => Self::Length,
            KeyRejected::Mismatch => Self::Mismatch,
            KeyRejected::Pkcs1 => Self::Pkcs8,
            KeyRejected::Primes => Self::Primes,
            KeyRejected::Public(why) => Self::Public(why),
            KeyRejected::Scalar => Self::Scalar,
        }
    }
}
