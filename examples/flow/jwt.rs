//! Decodes JWTs, to show them. Nothing is verified here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tower_dpop::jose::Jwk;

pub(crate) struct Jwt {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) header: Json,
    pub(crate) claims: Json,
    /// What its recipient computes from it: name and value.
    pub(crate) computed: (&'static str, String),
    /// Whether no message before has it, and the step whose message has it first.
    pub(crate) is_first: bool,
    pub(crate) step: usize,
}

/// JSON whose members are in the order in which they were sent.
pub(crate) enum Json {
    Object(Vec<(String, Json)>),
    Other(Value),
}

impl Jwt {
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut segments = text.split('.');
        let mut next = || String::from_utf8(URL_SAFE_NO_PAD.decode(segments.next()?).ok()?).ok();
        let (header, claims) = (next()?, next()?);
        let members: Value = serde_json::from_str(&header).ok()?;
        let (name, computed) = match serde_json::from_value::<Jwk>(members["jwk"].clone()) {
            Ok(jwk) => (
                "proof",
                ("thumbprint of the jwk", jwk.thumbprint().to_string()),
            ),
            Err(_) => ("access token", ("SHA-256 of the token", sha256(text))),
        };
        Some(Self {
            name,
            text: text.to_owned(),
            header: Json::read(&header).ok()?,
            claims: Json::read(&claims).ok()?,
            computed,
            is_first: true,
            step: 0,
        })
    }
}

/// The claims of a JWT, or `null` if it is none.
pub(crate) fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

/// In base64url, as in `ath` (RFC 9449 section 4.2) and `code_challenge` (RFC 7636 section 4.2).
pub(crate) fn sha256(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

impl Json {
    pub(crate) fn read(text: &str) -> serde_json::Result<Self> {
        let Ok(Members(members)) = serde_json::from_str(text) else {
            return Ok(Self::Other(serde_json::from_str(text)?));
        };
        let read = |(name, value): (String, Box<RawValue>)| Ok((name, Self::read(value.get())?));
        let members: serde_json::Result<_> = members.into_iter().map(read).collect();
        Ok(Self::Object(members?))
    }

    /// The members, if it is an object.
    pub(crate) fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            Self::Other(_) => &[],
        }
    }

    /// A string without its quotes, and any other value as JSON.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Other(Value::String(text)) => text.clone(),
            json => json.to_string(),
        }
    }
}

impl fmt::Display for Json {
    /// On one line, or with `{:#}` on several. The precision is the depth.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = match self {
            Self::Object(members) => members,
            Self::Other(value) => return write!(f, "{value}"),
        };
        let depth = f.precision().unwrap_or_default() + 1;
        f.write_str("{")?;
        for (at, (name, value)) in members.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let name = Value::from(name.as_str());
            if f.alternate() {
                let indent = 2 * depth;
                write!(f, "{comma}\n{:indent$}{name}: {value:#.depth$}", "")?;
            } else {
                write!(f, "{comma}{name}:{value}")?;
            }
        }
        if f.alternate() {
            let indent = 2 * (depth - 1);
            write!(f, "\n{:indent$}", "")?;
        }
        f.write_str("}")
    }
}

struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
