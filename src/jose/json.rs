//! JSON objects: those of proofs and tokens, without duplicate members at any level, and those of trusted servers.
//!
//! RFC 7515 section 4 allows a parser to use the last of two members with the same name. Two parsers
//! that choose differently then see two different proofs, so duplicates are rejected, in known and
//! unknown members alike. Names are compared after unescaping. The depth is bounded by serde_json
//! (128), and the input length by the caller.
//!
//! The types are read directly, never through `serde_json::Value`. Another crate in the build may
//! enable features (`arbitrary_precision`, `preserve_order`) that change what a `Value` is. They must
//! not change what is accepted here. (One difference remains: with `arbitrary_precision`, a number
//! beyond the range of a double is not an error in a member that is ignored.)

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

#[cfg(any(feature = "jwks", feature = "client"))]
use serde::de::DeserializeOwned;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads one JSON text with nothing after it.
pub(crate) fn read<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, InvalidJson> {
    // Checked once. `from_slice` would check each string.
    let text = str::from_utf8(text).map_err(|_| InvalidJson)?;
    serde_json::from_str(text).map_err(|_| InvalidJson)
}

/// Reads an object that a trusted server sent. Members that the type does not have are ignored, duplicates included. serde
/// alone would also read the members from an array.
#[cfg(any(feature = "jwks", feature = "client"))]
pub(crate) fn read_object<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let is_object = text.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(text).ok().filter(|_| is_object)
}

/// The text could not be read. The error of serde_json would quote the text, so it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidJson;

/// A string, borrowed from the text unless it contains escapes.
pub(crate) struct Text<'de>(pub(crate) Cow<'de, str>);

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// A value that is checked for duplicate members and then discarded.
pub(crate) struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IgnoredVisitor;

        impl<'de> Visitor<'de> for IgnoredVisitor {
            type Value = Ignored;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Ignored, E> {
                Ok(Ignored)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Ignored, E> {
                Ok(Ignored)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Ignored, E> {
                Ok(Ignored)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Ignored, E> {
                Ok(Ignored)
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Ignored, E> {
                Ok(Ignored)
            }

            fn visit_unit<E: Error>(self) -> Result<Ignored, E> {
                Ok(Ignored)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Ignored, A::Error> {
                while elements.next_element::<Ignored>()?.is_some() {}
                Ok(Ignored)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Ignored, A::Error> {
                let mut names = Names::default();
                while let Some(name) = members.next_key::<Text<'de>>()? {
                    names.add(name)?;
                    members.next_value::<Ignored>()?;
                }
                Ok(Ignored)
            }
        }

        deserializer.deserialize_any(IgnoredVisitor)
    }
}

/// The member names of one object seen so far.
#[derive(Default)]
pub(crate) struct Names<'de>(BTreeSet<Cow<'de, str>>);

impl<'de> Names<'de> {
    pub(crate) fn add<E: Error>(&mut self, name: Text<'de>) -> Result<(), E> {
        if self.0.insert(name.0) {
            Ok(())
        } else {
            Err(E::custom("duplicate member"))
        }
    }
}

/// Defines a struct of optional members and its strict reader: wrong types are rejected, and unknown
/// members are ignored. A member that is `null` is absent, as some serializers write it. A
/// `forbidden` member is present whatever its value.
macro_rules! object {
    (
        $(#[$meta:meta])* $vis:vis struct $name:ident<$de:lifetime> { $($field:ident: $type:ty = $member:literal,)* }
        $(forbidden { $($forbidden:ident = $forbidden_member:literal,)* })?
    ) => {
        $(#[$meta])*
        #[derive(Default)]
        $vis struct $name<$de> {
            $($field: Option<$type>,)*
            $($($forbidden: Option<$crate::jose::json::Ignored>,)*)?
            marker: std::marker::PhantomData<&$de str>,
        }

        impl<$de> serde::Deserialize<$de> for $name<$de> {
            fn deserialize<D: serde::Deserializer<$de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor;

                impl<$de> serde::de::Visitor<$de> for ObjectVisitor {
                    type Value = $name<$de>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<$de>>(self, mut members: A) -> Result<$name<$de>, A::Error> {
                        // The outer `Option` says whether the member was seen, `null` or not.
                        $(let mut $field: Option<Option<$type>> = None;)*
                        $($(let mut $forbidden = None;)*)?
                        let mut unknown = $crate::jose::json::Names::default();
                        while let Some(name) = members.next_key::<$crate::jose::json::Text<$de>>()? {
                            let repeated = match name.as_str() {
                                $($member => $field.replace(members.next_value()?).is_some(),)*
                                $($($forbidden_member => {
                                    $forbidden.replace(members.next_value::<$crate::jose::json::Ignored>()?).is_some()
                                })*)?
                                _ => {
                                    unknown.add(name)?;
                                    members.next_value::<$crate::jose::json::Ignored>()?;
                                    false
                                }
                            };
                            if repeated {
                                return Err(serde::de::Error::custom("duplicate member"));
                            }
                        }
                        Ok($name {
                            $($field: $field.flatten(),)*
                            $($($forbidden,)*)?
                            marker: std::marker::PhantomData,
                        })
                    }
                }

                deserializer.deserialize_map(ObjectVisitor)
            }
        }
    };
}
pub(crate) use object;

#[cfg(test)]
mod tests {
    use super::*;

    object! {
        struct Sample<'de> {
            known: Text<'de> = "known",
            number: f64 = "number",
        }
        forbidden {
            private = "private",
        }
    }

    fn accepts(text: &str) -> bool {
        read::<Sample<'_>>(text.as_bytes()).is_ok()
    }

    /// J-12, J-15
    #[test]
    fn rejects_what_two_parsers_could_read_differently() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        let lone_surrogate = r#"{"a":"\ud800"}"#;
        for (name, text) in [
            ("a duplicate known member", r#"{"known":"a","known":"a"}"#),
            (
                "a duplicate under an escape",
                r#"{"known":"a","kno\u0077n":"a"}"#,
            ),
            ("a duplicate unknown member", r#"{"x":1,"x":1}"#),
            (
                "a duplicate inside an unknown member",
                r#"{"x":[{"y":{"z":1,"z":2}}]}"#,
            ),
            ("a duplicate of null", r#"{"known":null,"known":"a"}"#),
            ("null as a duplicate", r#"{"known":"a","known":null}"#),
            ("null twice", r#"{"known":null,"known":null}"#),
            (
                "a duplicate forbidden member",
                r#"{"private":null,"private":1}"#,
            ),
            ("null in an object of its own", "null"),
            ("a number for a string", r#"{"known":1}"#),
            ("a string for a number", r#"{"number":"1"}"#),
            ("a number beyond range", r#"{"number":1e400}"#),
            ("an array", "[]"),
            ("a string", r#""known""#),
            ("nothing", ""),
            ("trailing data", "{} {}"),
            ("a byte order mark", "\u{feff}{}"),
            ("a deep nest", deep.as_str()),
            ("a lone surrogate", lone_surrogate),
            ("NaN", r#"{"number":NaN}"#),
        ] {
            assert!(!accepts(text), "{name}");
        }
        assert!(
            read::<Sample<'_>>(b"{\"x\":\"\xff\"}").is_err(),
            "invalid UTF-8"
        );
        assert!(read::<Sample<'_>>(b"{\0\"\0}\0").is_err(), "UTF-16");
    }

    #[test]
    fn ignores_unknown_members_and_reads_known_ones() {
        let object: Sample<'_> =
            read(br#" {"x":{"y":[1,-2,3.5,true,null,"s"]},"known":"k\u0065y","number":1.5e3} "#)
                .unwrap();
        assert_eq!(
            (object.known.unwrap().as_str(), object.number),
            ("key", Some(1500.0))
        );
    }

    /// D9
    #[test]
    fn null_is_absent_unless_the_member_is_forbidden() {
        let object: Sample<'_> =
            read(br#"{"known":null,"number":null,"private":null,"x":null}"#).unwrap();
        assert!(object.known.is_none() && object.number.is_none());
        assert!(object.private.is_some());
        let object: Sample<'_> = read(b"{}").unwrap();
        assert!(object.private.is_none());
    }
}
