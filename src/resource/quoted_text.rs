//! Text that may stand in a challenge.

use std::fmt;
use std::str::FromStr;

/// Text that can stand between quotes in a challenge as it is: visible ASCII and spaces, without
/// `"` and `\` (RFC 6750 section 3).
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
            .all(|octet| (octet == b' ' || octet.is_ascii_graphic()) && !b"\"\\".contains(&octet));
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

/// The text holds a quote, a backslash, or something that is not visible ASCII; scopes, also an empty
/// one. The deployer's mistake, seen at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a challenge can hold visible ASCII without quotes and backslashes only")]
pub struct InvalidQuotedText;
