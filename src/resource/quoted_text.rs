//! Text that can be part of a challenge.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};

use crate::deserialize::{naming, parsed};

/// Text that can be quoted in a challenge without escaping: visible ASCII and spaces, without `"` and
/// `\` (RFC 6750 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedText(String);

impl QuotedText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QuotedText {
    type Err = InvalidQuotedText;

    fn from_str(text: &str) -> Result<Self, InvalidQuotedText> {
        let quotable = text
            .bytes()
            .all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && !b"\"\\".contains(&byte));
        if quotable {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidQuotedText)
        }
    }
}

impl<'de> Deserialize<'de> for QuotedText {
    /// Reads a string, with the same rules as [`FromStr`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a text that can be quoted", |text| {
            text.parse()
                .map_err(|error: InvalidQuotedText| naming(text, &error))
        })
    }
}

impl fmt::Display for QuotedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text contains a quote, a backslash, or a character that is neither visible ASCII nor a space; in
/// a list of scopes, also an empty one. A configuration error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a quoted text: expected visible ASCII characters except quotes and backslashes")]
pub struct InvalidQuotedText;
