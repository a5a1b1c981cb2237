//! Claims as header fields.

use http::Extensions;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tower_dpop::resource::Access;
use tower_dpop::{BoundToken, Claims};

use crate::config::{ConfigError, Encoding, IdentityField, Unrepresentable};

/// The fields in which services learn of the client.
pub(crate) struct IdentityFields(Vec<Field>);

struct Field {
    claim: String,
    name: HeaderName,
    encoding: Encoding,
    unrepresentable: Unrepresentable,
}

/// The claim exists, but no header field can express its value.
pub(crate) struct Inexpressible {
    pub(crate) claim: String,
}

impl IdentityFields {
    pub(crate) fn new(fields: &[IdentityField]) -> Result<Self, ConfigError> {
        let fields = fields.iter().map(|field| {
            let name = field.field.parse().map_err(|_| ConfigError {
                place: format!("identity {}: field", field.claim),
                problem: format!("{:?} is not the name of a header field", field.field),
            })?;
            Ok(Field {
                claim: field.claim.clone(),
                name,
                encoding: field.encoding,
                unrepresentable: field.unrepresentable,
            })
        });
        fields.collect::<Result<_, _>>().map(Self)
    }

    /// The fields of a request that the layers have accepted.
    pub(crate) fn of(&self, extensions: &Extensions) -> Result<HeaderMap, Inexpressible> {
        let mut fields = HeaderMap::new();
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
        self.0
            .iter()
            .any(|field| folded(&field.name) == folded(name))
    }
}

fn folded(name: &HeaderName) -> String {
    // A HeaderName is in lower case.
    name.as_str()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn value(claims: &Claims, extensions: &Extensions, claim: &str) -> Option<Value> {
    match claim {
        "jkt" => extensions
            .get::<BoundToken>()
            .map(|token| token.thumbprint().to_string().into()),
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
    let text = match (encoding, value) {
        (Encoding::Json, _) => todo!("JSON in ASCII"),
        (_, Value::String(text)) => text.clone(),
        (_, Value::Bool(truth)) => truth.to_string(),
        // Large numbers were rounded when they were read.
        (_, Value::Number(number)) if !number.is_f64() => number.to_string(),
        _ => return None,
    };
    // Repeated, leading or trailing spaces may get lost on the way, which changes the value.
    let words_stand = text
        .split(' ')
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()));
    match HeaderValue::try_from(text) {
        Ok(value) if words_stand => Some(value),
        _ => None,
    }
}
