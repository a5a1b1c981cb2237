//! Claims as header fields.

use std::fmt::Write as _;

use http::Extensions;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tower_dpop::resource::Access;
use tower_dpop::{BoundToken, Claims};

use crate::config::{self, ConfigError, Encoding, IdentityField, Unrepresentable};

/// The header fields that tell services who the client is.
pub(crate) struct IdentityFields(Vec<Field>);

struct Field {
    claim: String,
    name: HeaderName,
    folded: Box<[u8]>,
    encoding: Encoding,
    unrepresentable: Unrepresentable,
}

/// The claim exists, but its header field cannot express its value.
pub(crate) struct Inexpressible {
    pub(crate) claim: String,
}

/// Servers have limits for a field and for all of them: 8 KiB for all is a common one.
const MAX_LENGTH: usize = 8 * 1024;

impl IdentityFields {
    pub(crate) fn new(fields: &[IdentityField]) -> Result<Self, ConfigError> {
        let fields = fields.iter().map(|field| {
            let name = config::parsed("identity.field", &field.field)?;
            Ok(Field {
                claim: field.claim.clone(),
                folded: folded(&name).collect(),
                name,
                encoding: field.encoding,
                unrepresentable: field.unrepresentable,
            })
        });
        fields.collect::<Result<_, _>>().map(Self)
    }

    /// The fields for a request that the layers have accepted.
    pub(crate) fn of(&self, extensions: &Extensions) -> Result<HeaderMap, Inexpressible> {
        let mut fields = HeaderMap::new();
        // Public routes have none.
        let Some(access) = Access::<Claims>::of(extensions) else {
            return Ok(fields);
        };
        for field in &self.0 {
            let Some(value) = value(access.claims(), extensions, &field.claim) else {
                continue;
            };
            match (encoded(&value, field.encoding), field.unrepresentable) {
                (Some(value), _) => {
                    fields.insert(field.name.clone(), value);
                }
                (None, Unrepresentable::Omit) => {}
                (None, Unrepresentable::Reject) => {
                    return Err(Inexpressible {
                        claim: field.claim.clone(),
                    });
                }
            }
        }
        Ok(fields)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|field| &field.name)
    }

    /// Whether a service could take this field for one of ours: CGI, WSGI, PHP and others turn names into variables, and
    /// `X_Subject`, `X.Subject` and `X-Subject` become the same variable.
    pub(crate) fn could_be(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|field| {
            field.folded.len() == name.as_str().len()
                && field.folded.iter().copied().eq(folded(name))
        })
    }
}

fn folded(name: &HeaderName) -> impl Iterator<Item = u8> {
    // A HeaderName is in lower case.
    let bytes = name.as_str().bytes();
    bytes.map(|byte| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            b'_'
        }
    })
}

/// A claim, or `None` if there is none or it is `null`. A name that begins with a slash is a JSON pointer (RFC 6901) into the
/// claims: `/realm_access/roles`.
fn value(claims: &Claims, extensions: &Extensions, claim: &str) -> Option<Value> {
    let value = match claim.strip_prefix('/') {
        Some(pointer) => {
            let (name, below) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
            let name = name.replace("~1", "/").replace("~0", "~");
            top_level(claims, &name)?.pointer(below).cloned()
        }
        None if claim == "jkt" => {
            let token = extensions.get::<BoundToken>()?;
            Some(token.thumbprint().to_string().into())
        }
        None => top_level(claims, claim),
    };
    value.filter(|value| !value.is_null())
}

fn top_level(claims: &Claims, name: &str) -> Option<Value> {
    match name {
        "sub" => claims.subject().map(Value::from),
        "client_id" => claims.client_id().map(Value::from),
        "scope" => {
            let scopes: Vec<_> = claims.scopes().collect();
            (!scopes.is_empty()).then(|| scopes.join(" ").into())
        }
        other => claims.claim(other),
    }
}

/// `None`: the encoding cannot express it.
fn encoded(value: &Value, encoding: Encoding) -> Option<HeaderValue> {
    let text = match encoding {
        Encoding::Plain => text(value).filter(|text| survives(text))?,
        Encoding::Percent => utf8_percent_encode(&text(value)?, RESERVED).to_string(),
        Encoding::Json => json(value)?,
    };
    if text.len() > MAX_LENGTH {
        return None;
    }
    let mut value = HeaderValue::try_from(text).ok()?;
    // It is personal data: `Debug` must not show it.
    value.set_sensitive(true);
    Some(value)
}

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        // Fractions have several spellings. Integers beyond 64 bits were rounded when they were read.
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// Repeated, leading and trailing spaces may be removed on the way, which would change the value.
fn survives(text: &str) -> bool {
    text.split(' ')
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// JSON in visible ASCII: everything else, spaces too, can only be within strings, and is escaped.
fn json(value: &Value) -> Option<String> {
    if !is_exact(value) {
        return None;
    }
    let mut text = String::new();
    for unit in value.to_string().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_graphic() => text.push(char::from(byte)),
            _ => write!(text, "\\u{unit:04x}").ok()?,
        }
    }
    Some(text)
}

/// Whether no number was rounded when it was read. An integer of more than 64 bits was: it is now a float of 2^53 or more.
fn is_exact(value: &Value) -> bool {
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .is_some_and(|number| number.abs() < MAX_EXACT),
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}
