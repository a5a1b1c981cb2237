//! What a rejection says: the challenges of `WWW-Authenticate` ([RFC 9110 section
//! 11.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1)).
//!
//! ```text
//! WWW-Authenticate = #challenge
//! challenge        = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
//! auth-param       = token BWS "=" BWS ( token / quoted-string )
//! ```
//!
//! Several challenges may share a field line or have lines of their own. The crates that parse this
//! field do not support `token68`, so one `Negotiate` challenge would hide the challenges next to
//! it.

use std::fmt;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::credentials::{is_token_character, is_token68_character};

/// One challenge of a response.
///
/// # Example
///
/// ```
/// use tower_dpop::client::Challenge;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("www-authenticate", r#"Bearer, dpop error="use_dpop_nonce", algs="ES256 PS256""#.parse()?);
/// let challenges = Challenge::from_headers(&headers);
/// let dpop = challenges.iter().find(|challenge| challenge.is_scheme("DPoP")).expect("the second");
/// assert_eq!(dpop.parameter("error"), Some("use_dpop_nonce"));
/// assert_eq!(dpop.parameter("ALGS"), Some("ES256 PS256"));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// Further challenges are not read. No server has that many schemes.
const MAX_CHALLENGES: usize = 16;

impl Challenge {
    /// The challenges of a response, in their order. If a line violates the grammar, the rest of
    /// that line is not read.
    pub fn from_headers(headers: &HeaderMap) -> Vec<Self> {
        let mut challenges = Vec::new();
        for field in headers.get_all(WWW_AUTHENTICATE) {
            let mut line = Line {
                rest: field.as_bytes(),
            };
            // A parameter at the start of a line belongs to no challenge.
            let first = challenges.len();
            while line.skip_to_element()
                && challenges.len() <= MAX_CHALLENGES
                && line.element(&mut challenges, first).is_some()
            {}
        }
        challenges.truncate(MAX_CHALLENGES);
        challenges
    }

    /// Whether the challenge has this scheme. Schemes are case-insensitive.
    pub fn is_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter, unquoted. Names are case-insensitive. If a parameter occurs twice,
    /// the first one counts.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Challenge {
    /// Shows the scheme and the parameter names. The values come from the server and are not
    /// logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.parameters.iter().map(|(name, _)| name);
        f.debug_struct("Challenge")
            .field("scheme", &self.scheme)
            .field("parameters", &names.collect::<Vec<_>>())
            .finish()
    }
}

/// The unread rest of a field line.
struct Line<'l> {
    rest: &'l [u8],
}

impl<'l> Line<'l> {
    /// RFC 9110 section 5.6.1.2: empty list elements are skipped.
    fn skip_to_element(&mut self) -> bool {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b','));
        !self.rest.is_empty()
    }

    /// Reads a parameter of the latest challenge, or the start of another challenge. Returns `None`
    /// if the grammar is violated.
    fn element(&mut self, challenges: &mut Vec<Challenge>, first: usize) -> Option<()> {
        let name = self.token()?;
        let after_name = self.rest;
        self.skip_blanks();
        if self.rest.first() == Some(&b'=') {
            self.rest = &self.rest[1..];
            self.skip_blanks();
            let value = self.value()?;
            let challenge = challenges.get_mut(first..)?.last_mut()?;
            challenge.parameters.push((text(name), value));
            return self.end_of_element();
        }
        challenges.push(Challenge {
            scheme: text(name),
            parameters: Vec::new(),
        });
        if after_name.len() > self.rest.len() {
            self.skip_token68();
        }
        Some(())
    }

    /// A `token68` extends to the comma. A parameter does not: its `=` is followed by its value.
    fn skip_token68(&mut self) {
        let start = self.rest;
        self.take_while(is_token68_character);
        self.take_while(|byte| byte == b'=');
        if self.end_of_element().is_none() {
            self.rest = start;
        }
    }

    fn end_of_element(&mut self) -> Option<()> {
        self.skip_blanks();
        matches!(self.rest.first(), None | Some(b',')).then_some(())
    }

    fn value(&mut self) -> Option<String> {
        if self.rest.first() == Some(&b'"') {
            self.quoted_string()
        } else {
            self.token().map(text)
        }
    }

    /// RFC 9110 section 5.6.4.
    fn quoted_string(&mut self) -> Option<String> {
        let mut value = Vec::new();
        let mut bytes = self.rest.iter().enumerate().skip(1);
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(String::from_utf8_lossy(&value).into_owned());
                }
                b'\\' => value.push(*bytes.next()?.1),
                byte => value.push(*byte),
            }
        }
        None
    }

    fn token(&mut self) -> Option<&'l [u8]> {
        let token = self.take_while(is_token_character);
        (!token.is_empty()).then_some(token)
    }

    fn skip_blanks(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'l [u8] {
        let length = self.rest.iter().take_while(|byte| wanted(**byte)).count();
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

fn text(ascii: &[u8]) -> String {
    String::from_utf8_lossy(ascii).into_owned()
}
