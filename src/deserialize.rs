//! Reads configuration values from documents of any format that serde knows.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a string, and parses it. The text of the parse error shows the value.
pub(crate) fn parsed<'de, T, D>(
    deserializer: D,
    expecting: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Parsed<T> {
        expecting: &'static str,
        parse: fn(&str) -> Result<T, String>,
    }

    impl<T> Visitor<'_> for Parsed<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expecting)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.parse)(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Parsed { expecting, parse })
}

/// Reads words as one string, separated by spaces, or as a list of strings.
pub(crate) fn words<'de, T, D>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    struct Words<T> {
        expecting: &'static str,
        parsed: PhantomData<T>,
    }

    impl<'de, T: FromStr<Err: Display>> Visitor<'de> for Words<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expecting)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse()
                .map_err(|error| E::custom(naming(text, &error)))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
            let mut words: Vec<String> = Vec::new();
            while let Some(word) = list.next_element::<String>()? {
                if word.contains(char::is_whitespace) {
                    let reason = format_args!("{word:?}: must not contain spaces in a list");
                    return Err(A::Error::custom(reason));
                }
                words.push(word);
            }
            self.visit_str(&words.join(" "))
        }
    }

    deserializer.deserialize_any(Words {
        expecting,
        parsed: PhantomData,
    })
}

/// The error, preceded by the value if it does not show it.
pub(crate) fn naming(value: &str, error: &dyn Display) -> String {
    let error = error.to_string();
    if error.starts_with('"') {
        error
    } else {
        format!("{value:?}: {error}")
    }
}

/// Where a secret is. A document never has the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretReference {
    Env(String),
    File(PathBuf),
}

impl<'de> Deserialize<'de> for SecretReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

struct ReferenceVisitor;

/// Every other type is an error without the value, which is probably the secret.
macro_rules! rejected {
    ($($visit:ident($type:ty))*) => {
        $(fn $visit<E: Error>(self, _: $type) -> Result<SecretReference, E> {
            Err(E::custom(BY_REFERENCE))
        })*
    };
}

const BY_REFERENCE: &str = "a secret is given by reference, as { file = \"/path\" } or { env = \"NAME\" }, and never as text";

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = SecretReference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reference to a secret")
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<SecretReference, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            env: Option<String>,
            file: Option<PathBuf>,
        }

        let table = Table::deserialize(MapAccessDeserializer::new(table))?;
        match (table.env, table.file) {
            (Some(name), None) => Ok(SecretReference::Env(name)),
            (None, Some(path)) => Ok(SecretReference::File(path)),
            _ => Err(A::Error::custom(BY_REFERENCE)),
        }
    }

    rejected! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) visit_bytes(&[u8]) }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<SecretReference, A::Error> {
        Err(A::Error::custom(BY_REFERENCE))
    }

    fn visit_unit<E: Error>(self) -> Result<SecretReference, E> {
        Err(E::custom(BY_REFERENCE))
    }
}
