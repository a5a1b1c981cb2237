//! Text that can be part of a challenge.

use std::fmt;
use std::str::FromStr;

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
