//! One public key of an issuer, read as issuers write it.
//!
//! An issuer's documents are trusted and vary widely. So every spelling with one meaning is accepted: padded base64,
//! the standard alphabet, integers with leading zeros, coordinates without them, members that are `null`. The keys of
//! clients have one spelling only (`jose/jwk.rs`).

use serde_json::Value;

use crate::jose::algorithm::Algorithm;
use crate::jose::base64url;
use crate::jose::jwk::{InvalidJwk, Jwk, Parameters, bits};
use crate::jose::recurring_key::LastingKey;

/// A key that can verify access tokens.
pub(crate) struct IssuerKey {
    pub(crate) kid: Option<String>,
    /// Parsed for every algorithm that it may be used with, at least one.
    pub(crate) verifying: Vec<(Algorithm, LastingKey)>,
}

impl IssuerKey {
    pub(crate) fn read(json: &Value) -> Result<Self, Unusable> {
        if !json.is_object() {
            return Err(Unusable::NotAnObject);
        }
        let kid = text(json, "kid")?;
        let declared = purpose(json)?;
        let jwk = public_key(json)?;
        let may_verify = |algorithm: &Algorithm| {
            declared.is_none_or(|declared| declared.same_computation(*algorithm))
                && jwk.goes_with(*algorithm)
        };
        let mut algorithms = Algorithm::ALL.into_iter().filter(may_verify).peekable();
        if algorithms.peek().is_none() {
            return Err(Unusable::OtherKeyType);
        }
        let verifying: Vec<_> = algorithms
            .filter_map(|algorithm| Some((algorithm, LastingKey::parse(&jwk, algorithm).ok()?)))
            .collect();
        if verifying.is_empty() {
            return Err(Unusable::NotAKey);
        }
        Ok(Self {
            kid: kid.map(str::to_owned),
            verifying,
        })
    }
}

/// The `kid` of a key that may be unusable, for messages.
pub(crate) fn shown_kid(json: &Value) -> Option<String> {
    json.get("kid").and_then(Value::as_str).map(shown)
}

/// A text of the issuer, for messages, which escape it: a document may contain any text of any length.
fn shown(text: &str) -> String {
    const MAX: usize = 64;

    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The algorithm that the key is limited to, if it names one.
fn purpose(json: &Value) -> Result<Option<Algorithm>, Unusable> {
    if let Some(usage) = text(json, "use")?.filter(|usage| *usage != "sig") {
        return Err(Unusable::OtherUse(shown(usage)));
    }
    let operations = member(json, "key_ops", Value::as_array)?;
    if operations.is_some_and(|operations| !operations.iter().any(|name| name == "verify")) {
        return Err(Unusable::OtherOperations);
    }
    // A private key in a public document is known to everyone.
    for name in ["d", "p", "q", "dp", "dq", "qi"] {
        if json.get(name).is_some_and(|value| !value.is_null()) {
            return Err(Unusable::Private(name));
        }
    }
    let declared = text(json, "alg")?;
    declared
        .map(|name| {
            let unknown = |_| Unusable::OtherAlgorithm(shown(name));
            name.parse().map_err(unknown)
        })
        .transpose()
}

/// Writes the numbers in their only spelling, for the strict reader.
fn public_key(json: &Value) -> Result<Jwk, Unusable> {
    let kty = required(text(json, "kty")?, "kty")?;
    let crv = text(json, "crv")?;
    let named = Parameters {
        kty: Some(kty),
        crv,
        ..Parameters::default()
    };
    match (kty, crv) {
        ("EC", Some("P-256")) => point(json, 32, &named),
        ("EC", Some("P-384")) => point(json, 48, &named),
        ("EC", Some("P-521")) => point(json, 66, &named),
        ("OKP", Some("Ed25519")) => {
            let x = base64url::encode(bytes(json, "x")?);
            strict(&Parameters {
                x: Some(&x),
                ..named
            })
        }
        ("RSA", _) => rsa(json, &named),
        _ => Err(Unusable::KeyType {
            kty: shown(kty),
            crv: crv.map(|crv| format!(" with crv {:?}", shown(crv))),
        }),
    }
}

fn point(json: &Value, size: usize, named: &Parameters<'_>) -> Result<Jwk, Unusable> {
    let (x, y) = (coordinate(json, "x", size)?, coordinate(json, "y", size)?);
    strict(&Parameters {
        x: Some(&x),
        y: Some(&y),
        ..*named
    })
}

fn rsa(json: &Value, named: &Parameters<'_>) -> Result<Jwk, Unusable> {
    let modulus = integer(json, "n")?;
    if !(2048..=8192).contains(&bits(&modulus)) {
        return Err(Unusable::RsaSize(bits(&modulus)));
    }
    let (n, e) = (
        base64url::encode(modulus),
        base64url::encode(integer(json, "e")?),
    );
    strict(&Parameters {
        n: Some(&n),
        e: Some(&e),
        ..*named
    })
}

fn strict(parameters: &Parameters<'_>) -> Result<Jwk, Unusable> {
    Jwk::from_parameters(parameters).map_err(Unusable::Invalid)
}

/// A member, if it is there. `null` is absent.
fn member<'j, T>(
    json: &'j Value,
    name: &'static str,
    read: impl Fn(&'j Value) -> Option<T>,
) -> Result<Option<T>, Unusable> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or(Unusable::Type(name)),
    }
}

fn text<'j>(json: &'j Value, name: &'static str) -> Result<Option<&'j str>, Unusable> {
    member(json, name, Value::as_str)
}

fn required<T>(member: Option<T>, name: &'static str) -> Result<T, Unusable> {
    member.ok_or(Unusable::Missing(name))
}

/// base64url or standard base64, padded or not.
fn bytes(json: &Value, name: &'static str) -> Result<Vec<u8>, Unusable> {
    let text = required(text(json, name)?, name)?.trim_end_matches('=');
    base64url::decode(text.replace('+', "-").replace('/', "_")).ok_or(Unusable::Encoding(name))
}

/// Without leading zeros.
fn integer(json: &Value, name: &'static str) -> Result<Vec<u8>, Unusable> {
    let mut bytes = bytes(json, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

/// At full length, in base64url.
fn coordinate(json: &Value, name: &'static str, size: usize) -> Result<String, Unusable> {
    let integer = integer(json, name)?;
    let zeros = size.checked_sub(integer.len());
    let mut coordinate = vec![0; zeros.ok_or(Unusable::TooLong(name))?];
    coordinate.extend(integer);
    Ok(base64url::encode(coordinate))
}

/// Why a key cannot verify access tokens. For logs and errors of the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0} is neither base64url nor base64")]
    Encoding(&'static str),
    #[error(transparent)]
    Invalid(InvalidJwk),
    #[error("kty {kty:?}{} is not supported", crv.as_deref().unwrap_or_default())]
    KeyType { kty: String, crv: Option<String> },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("its numbers are not a key, for example a point off the curve")]
    NotAKey,
    #[error("not a JSON object")]
    NotAnObject,
    #[error("alg {0:?} is not a supported signature algorithm")]
    OtherAlgorithm(String),
    #[error("alg belongs to another kty or crv")]
    OtherKeyType,
    #[error("key_ops has no \"verify\"")]
    OtherOperations,
    #[error("use is {0:?}, not \"sig\"")]
    OtherUse(String),
    #[error("it is published with its private member {0}, so anyone can sign with it: replace it")]
    Private(&'static str),
    #[error("n has {0} bits (2048 to 8192 are accepted)")]
    RsaSize(usize),
    #[error("{0} is longer than the curve allows")]
    TooLong(&'static str),
    #[error("{0} has the wrong JSON type")]
    Type(&'static str),
}

impl Unusable {
    /// Whether the issuer itself says that the key is not for verifying signatures, as many issuers do of one of
    /// their keys.
    pub(crate) const fn is_intended(&self) -> bool {
        matches!(self, Self::OtherOperations | Self::OtherUse(_))
    }
}
