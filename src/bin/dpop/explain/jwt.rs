//! Reads JWTs as far as they can be read, to show what is in them. Nothing is decided here.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::URL_SAFE_NO_PAD};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Padded or not, canonical or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A text of three segments.
pub(crate) struct Jwt<'t> {
    pub(crate) header: Part,
    pub(crate) payload: Part,
    /// As they are written: header, payload, signature.
    pub(crate) segments: [&'t str; 3],
    pub(crate) signing_input: &'t str,
    pub(crate) signature: Option<Vec<u8>>,
}

/// A header or a payload.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    /// The last one of each name; empty if this is no object.
    pub(crate) members: Map<String, Value>,
    /// Why this is not an object with one member of each name.
    pub(crate) fault: Option<String>,
}

/// What is longer is rejected by its length alone, and not looked into: each member costs a signature.
const MAX_LENGTH: usize = 64 * 1024;

impl<'t> Jwt<'t> {
    /// An access token, if it is a JWT or the start of one: other tokens may have dots, too.
    pub(crate) fn of_token(text: &'t str) -> Option<Self> {
        /// The members of an object begin so.
        const START: &str = "eyJ";

        Self::read(text).filter(|jwt| !jwt.header.members.is_empty() || text.starts_with(START))
    }

    pub(crate) fn read(text: &'t str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let (signing_input, signature) = text.rsplit_once('.')?;
        let (header, payload) = signing_input.split_once('.')?;
        (!payload.contains('.')).then(|| Self {
            header: Part::read(header),
            payload: Part::read(payload),
            segments: [header, payload, signature],
            signing_input,
            signature: LENIENT.decode(signature).ok(),
        })
    }
}

impl Part {
    fn read(segment: &str) -> Self {
        let Ok(bytes) = LENIENT.decode(segment) else {
            return Self {
                fault: Some("it is not base64url".to_owned()),
                ..Self::default()
            };
        };
        let (members, fault) = match serde_json::from_slice(&bytes) {
            Ok(Value::Object(members)) => (members, repeated_member(&bytes)),
            Ok(_) => (Map::new(), Some("it is not a JSON object".to_owned())),
            Err(error) => (Map::new(), Some(format!("it is not JSON: {error}"))),
        };
        Self {
            bytes,
            members,
            fault,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }
}

/// The hash of a token, or a segment of a JWT.
pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of canonical base64url.
pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn repeated_member(json: &[u8]) -> Option<String> {
    match serde_json::from_slice(json) {
        Ok(Unique(Some(name))) => Some(format!("it has the member {name:?} twice")),
        _ => None,
    }
}

/// The first name that an object has twice, at any level.
struct Unique(Option<String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let (mut names, mut repeated) = (Vec::<String>::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            let Unique(inside) = map.next_value()?;
            if repeated.is_none() {
                repeated = names.contains(&name).then(|| name.clone()).or(inside);
            }
            // More are not needed to find the first.
            if names.len() < 1000 {
                names.push(name);
            }
        }
        Ok(Unique(repeated))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Unique, A::Error> {
        let mut repeated = None;
        while let Some(Unique(inside)) = elements.next_element()? {
            repeated = repeated.or(inside);
        }
        Ok(Unique(repeated))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique(None))
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(None))
    }
}
