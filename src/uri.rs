//! Origins and paths of `http` and `https` URLs, in their normal form.
//!
//! Both sides of a comparison are normalised by RFC 3986 (sections
//! [6.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2) and
//! [6.2.3](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.3)), not as browsers do it: a WHATWG
//! parser repairs input that it should reject.
//!
//! | input | equal to |
//! |---|---|
//! | `HTTPS://API.example:443/a` | `https://api.example/a` |
//! | `https://api.example` | `https://api.example/` |
//! | `/%7Ejoe/%2e%2e/a/./b%2fc` | `/a/b%2Fc` |
//! | `/a?x=1#y` | `/a` |
//! | `/a[b]\c%` in a request or a proof | `/a%5Bb%5D%5Cc%25` |
//!
//! RFC 3986 does not allow the characters of the last row in a path, but browsers and other WHATWG parsers send some
//! of them as they are. The following remain different: `/a` and `/a/`, `/a//b` and `/a/b`, `%2F` and
//! `/`, `%5C` and `/`, `api.example.` and `api.example`, upper and lower case in a path.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A text that should be a URL, for an error message. Userinfo may hold a password, and a malformed URL does
/// not show where it ends: everything before the last `@` is left out, except the scheme.
pub(crate) fn without_userinfo(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
            format!("{scheme}…@{after}")
        }
        None => url.to_owned(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UrlScheme {
    Http,
    Https,
}

impl UrlScheme {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'u> {
    pub(crate) scheme: UrlScheme,
    pub(crate) host: Host<'u>,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host<'u> {
    /// A registered name or an IPv4 address, in lower case.
    Name(Cow<'u, str>),
    /// Compared as an address: RFC 3986 normalises the case of its letters, but not its zeros.
    Ipv6(Ipv6Addr),
}

impl<'u> Origin<'u> {
    pub(crate) fn parse(scheme: &str, authority: &'u str) -> Option<Self> {
        let scheme = if scheme.eq_ignore_ascii_case("https") {
            UrlScheme::Https
        } else if scheme.eq_ignore_ascii_case("http") {
            UrlScheme::Http
        } else {
            return None;
        };
        // RFC 9110 section 4.2.4: userinfo is an error, even if empty. No host contains `@`.
        let (host, port) = if let Some(literal) = authority.strip_prefix('[') {
            let (address, port) = literal.split_once(']')?;
            (Host::Ipv6(address.parse().ok()?), port)
        } else {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| is_unreserved(byte) || is_sub_delimiter(byte));
            (is_name.then(|| Host::Name(in_lower_case(name)))?, port)
        };
        let port = parse_port(port, scheme)?;
        Some(Self { scheme, host, port })
    }

    /// Whether nothing that is sent there can be read on the way: `https`, or a host that is this
    /// machine (`localhost`, `127.0.0.0/8`, `[::1]`).
    pub(crate) fn is_https_or_loopback(&self) -> bool {
        self.scheme == UrlScheme::Https
            || match &self.host {
                Host::Name(name) if name == "localhost" => true,
                Host::Name(name) => name.parse().is_ok_and(|v4: Ipv4Addr| v4.is_loopback()),
                Host::Ipv6(address) => address.is_loopback(),
            }
    }

    pub(crate) fn into_owned(self) -> Origin<'static> {
        Origin {
            scheme: self.scheme,
            host: match self.host {
                Host::Name(name) => Host::Name(name.into_owned().into()),
                Host::Ipv6(address) => Host::Ipv6(address),
            },
            port: self.port,
        }
    }
}

fn in_lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

/// Parses the text after the host: nothing, `:`, or `:` and a port without leading zeros.
fn parse_port(text: &str, scheme: UrlScheme) -> Option<u16> {
    let digits = match text.strip_prefix(':') {
        None if !text.is_empty() => return None,
        None | Some("") => return Some(scheme.default_port()),
        Some(digits) => digits,
    };
    let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if canonical { digits.parse().ok() } else { None }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        match &self.host {
            Host::Name(name) => write!(f, "{scheme}://{name}")?,
            Host::Ipv6(address) => write!(f, "{scheme}://[{address}]")?,
        }
        if self.port == self.scheme.default_port() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

pub(crate) struct InvalidHttpUrl;

/// Splits an absolute URL into its origin and what follows, as written. The caller removes or rejects
/// a query and a fragment.
pub(crate) fn split(url: &str) -> Result<(Origin<'_>, &str), InvalidHttpUrl> {
    let (scheme, rest) = url.split_once(':').ok_or(InvalidHttpUrl)?;
    let rest = rest.strip_prefix("//").ok_or(InvalidHttpUrl)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let origin = Origin::parse(scheme, authority).ok_or(InvalidHttpUrl)?;
    Ok((origin, path))
}

/// Which characters a path may contain unencoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathSyntax {
    /// Those of RFC 3986 section 3.3, and complete percent-encodings: configured URLs, and URLs that we sign.
    Rfc3986,
    /// Also the other visible ASCII characters, and a `%` that begins no percent-encoding. Each
    /// is equal to its own percent-encoding: what others send and sign.
    AsSent,
}

/// Normalises a path by RFC 3986 section 6.2.2: decodes percent-encoded unreserved characters, writes
/// other percent-encodings in upper case, then removes dot segments (section 5.2.4). An empty path
/// becomes `/` (section 6.2.3). `None` if the text is not an absolute path by this syntax.
pub(crate) fn normalise_path(path: &str, syntax: PathSyntax) -> Option<Cow<'_, str>> {
    if path.is_empty() {
        return Some("/".into());
    }
    if !path.starts_with('/') {
        return None;
    }
    // Nearly every path takes the first branch: it has nothing to decode.
    let decoded = if path.bytes().all(is_path_character) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(decode_unreserved(path, syntax)?)
    };
    // Paths are short: for them, `str::contains` takes longer to begin.
    Some(if decoded.as_bytes().windows(2).any(|pair| pair == b"/.") {
        remove_dot_segments(&decoded).into()
    } else {
        decoded
    })
}

/// Whether a path may contain this byte unencoded (RFC 3986 section 3.3): `pchar` and the slash.
fn is_path_character(byte: u8) -> bool {
    IS_PATH_CHARACTER[usize::from(byte)]
}

/// A table, for speed: every request has two paths.
const IS_PATH_CHARACTER: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] =
            is_unreserved(byte) || is_sub_delimiter(byte) || matches!(byte, b':' | b'@' | b'/');
        byte += 1;
    }
    table
};

/// RFC 3986 sections 6.2.2.1 and 6.2.2.2. `None` for a character that the syntax does not allow.
fn decode_unreserved(path: &str, syntax: PathSyntax) -> Option<String> {
    let mut decoded = String::with_capacity(path.len() + 2);
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let Some(value) = hexadecimal_byte(*high, *low)
        {
            rest = after;
            if is_unreserved(value) {
                decoded.push(char::from(value));
            } else {
                push_encoded(&mut decoded, value);
            }
        } else if is_path_character(*byte) {
            decoded.push(char::from(*byte));
        } else if syntax == PathSyntax::AsSent && byte.is_ascii_graphic() {
            push_encoded(&mut decoded, *byte);
        } else {
            return None;
        }
    }
    Some(decoded)
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn hexadecimal_byte(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

/// RFC 3986 section 5.2.4, for a path that starts with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut output = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    output.truncate(output.rfind('/').unwrap_or(0));
                }
                if last {
                    output.push('/');
                }
            }
            _ => {
                output.push('/');
                output.push_str(segment);
            }
        }
    }
    output
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 2.2.
const fn is_sub_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    )
}
