//! Which claim of a token could not be read, for the log.
//!
//! serde_json does not name the member at fault, and its errors quote the value, which is about a
//! person. So claims that could not be read are read a second time, by a deserializer whose errors
//! have only what the types say: the names of the claims and what was expected.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::jose::json::read;
use crate::tokens::access_token::TokenError;

/// Reads the claims that decide about a token. Nothing is verified yet, so the log names a claim
/// only if it is one of these.
pub(crate) fn read_registered<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, TokenError> {
    const NAMES: [&str; 8] = [
        "iss",
        "aud",
        "exp",
        "nbf",
        "cnf",
        "cnf.jkt",
        "token_type",
        "token_use",
    ];
    read(json).map_err(|_| {
        ClaimFault::find::<T>(json)
            .filter(|fault| NAMES.contains(&fault.claim.as_str()))
            .inspect(ClaimFault::report);
        TokenError::Malformed
    })
}

/// Reads the claims of a valid token into the type that the application receives.
pub(crate) fn read_claims<C: DeserializeOwned>(json: &[u8]) -> Result<C, TokenError> {
    read(json).map_err(|_| {
        ClaimFault::find::<C>(json).inspect(ClaimFault::report);
        TokenError::Claims
    })
}

/// The claim that could not be read, and why. It never has the value.
#[derive(Debug)]
struct ClaimFault {
    /// With a dot before each inner name. Empty if the fault is not that of one claim.
    claim: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    /// What the type expects instead.
    Expected(String),
    Missing,
    /// The type gave a reason of its own, which may quote the value.
    Rejected,
    Unknown,
}

impl ClaimFault {
    fn find<'de, T: Deserialize<'de>>(json: &[u8]) -> Option<Self> {
        let claims: Value = serde_json::from_slice(json).ok()?;
        T::deserialize(Claim::whole(&claims)).err()
    }

    fn report(&self) {
        tracing::info!(detail = %self, "the claims of an access token cannot be read");
    }

    fn expected(what: impl fmt::Display) -> Self {
        Self {
            claim: String::new(),
            problem: Problem::Expected(what.to_string()),
        }
    }

    fn inside(mut self, name: &str) -> Self {
        if !name.is_empty() && !self.claim.is_empty() {
            self.claim.insert(0, '.');
        }
        self.claim.insert_str(0, name);
        self
    }
}

impl fmt::Display for ClaimFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.claim.is_empty() {
            write!(f, "claim {:?}: ", self.claim)?;
        }
        match &self.problem {
            Problem::Expected(what) => write!(f, "expected {what}"),
            Problem::Missing => f.write_str("missing"),
            Problem::Rejected => f.write_str("rejected by the claims type"),
            Problem::Unknown => f.write_str("not a member of the claims type"),
        }
    }
}

impl std::error::Error for ClaimFault {}

impl Error for ClaimFault {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self {
            claim: String::new(),
            problem: Problem::Rejected,
        }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::expected(format_args!("one of {}", expected.join(", ")))
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self {
            claim: name.to_owned(),
            problem: Problem::Unknown,
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self {
            claim: name.to_owned(),
            problem: Problem::Missing,
        }
    }
}

/// A claim, or what is inside of one. Its errors name it.
#[derive(Clone, Copy)]
struct Claim<'v> {
    name: &'v str,
    value: &'v Value,
}

impl<'v> Claim<'v> {
    /// The object of all claims, or an element of an array.
    const fn whole(value: &'v Value) -> Self {
        Self { name: "", value }
    }

    /// The members of an object.
    fn members<'de>(
        members: &'v serde_json::Map<String, Value>,
    ) -> MapDeserializer<'de, impl Iterator<Item = (&'v str, Self)>, ClaimFault> {
        MapDeserializer::new(
            members
                .iter()
                .map(|(name, value)| (name.as_str(), Self { name, value })),
        )
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ClaimFault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(elements) => {
                visitor.visit_seq(SeqDeserializer::new(elements.iter().map(Claim::whole)))
            }
            Value::Object(members) => visitor.visit_map(Claim::members(members)),
        }
    }
}

impl IntoDeserializer<'_, ClaimFault> for Claim<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Claim<'_> {
    type Error = ClaimFault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ClaimFault> {
        self.visit(visitor).map_err(|fault| fault.inside(self.name))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ClaimFault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ClaimFault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ClaimFault> {
        let result = match self.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Object(members) => {
                visitor.visit_enum(MapAccessDeserializer::new(Claim::members(members)))
            }
            _ => Err(ClaimFault::expected("a string or an object")),
        };
        result.map_err(|fault| fault.inside(self.name))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
