//! The URL of a request, and `htu`, each in its normal form (RFC 3986): check 9.

use super::{Judgement, Request, Server, Strictness};

/// The URL of the request (RFC 9110 section 7.1), if a proof can name it.
pub(super) fn expected_url(
    request: &Request<'_>,
    server: &Server<'_>,
    judgement: &mut Judgement,
) -> Option<String> {
    let origin = format!("https://{}:{}", server.host, server.port);
    let target = request.target;
    if request.method == "CONNECT" {
        // RFC 9112 section 3.2.3: only a host and a port, which have no path that a proof could name.
        judgement.strict.push(Strictness::Target);
        None
    } else if target.contains("://") && !target.starts_with('/') {
        // RFC 9112 section 3.2.2, absolute-form.
        let url = normal_url(target, judgement);
        let is_own = |url: &String| {
            let path = url.strip_prefix(&origin);
            path.is_some_and(|path| path.starts_with(['/', '*']))
        };
        let own = url.filter(is_own);
        judgement.strict_if(own.is_none(), Strictness::Target);
        own
    } else if target.starts_with('/') {
        // RFC 9112 section 3.2.1, origin-form.
        let url = normal_url(&format!("{origin}{target}"), judgement);
        judgement.strict_if(url.is_none(), Strictness::TargetCharacters);
        url
    } else if target == "*" && request.method == "OPTIONS" {
        // RFC 9112 section 3.2.4: the URL has an empty path.
        Some(format!("{origin}*"))
    } else {
        judgement.strict.push(Strictness::Target);
        None
    }
}

/// Check 9, for normal forms. An empty path is equal to a slash (RFC 3986 section 6.2.3). For OPTIONS, RFC 9110 section 4.2.3 has
/// it mean `*`; the crate accepts both.
pub(super) fn names(htu: &str, url: &str) -> bool {
    let without_path = htu
        .strip_suffix('*')
        .filter(|origin| origin.matches('/').count() == 2);
    htu == url || without_path.is_some_and(|origin| format!("{origin}/") == url)
}

/// Scheme, host, port and path, normalised by RFC 3986 sections 6.2.2 and 6.2.3, which section 4.3 recommends. The port is
/// always written, and `*` stands for an empty path.
pub(super) fn normal_url(url: &str, judgement: &mut Judgement) -> Option<String> {
    // Appendix B, without query and fragment.
    let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let (scheme, rest) = url.split_once(':')?;
    let rest = rest.strip_prefix("//")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match &scheme[..] {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    if authority.contains(['@', '[', ']']) {
        // No URL of the server has user information or an IPv6 address.
        return None;
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    judgement.strict_if(host.contains('%'), Strictness::EncodedHost);
    judgement.strict_if(port.starts_with('0'), Strictness::PortZeros);
    let host = normal_characters(host)?.to_ascii_lowercase();
    let port = match port {
        "" => default_port,
        port if port.bytes().all(|digit| digit.is_ascii_digit()) => port.parse::<u32>().ok()?,
        _ => return None,
    };
    let path = match path {
        "" => "*".to_owned(),
        path => without_dot_segments(&normal_characters(path)?),
    };
    Some(format!("{scheme}://{host}:{port}{path}"))
}

/// Sections 6.2.2.1 and 6.2.2.2. A visible character that may not be in a path (section 3.3) is read as its
/// percent-encoding, since browsers send some of these as they are (D2). Other characters make no URL.
fn normal_characters(text: &str) -> Option<String> {
    let mut normal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = rest.strip_prefix('%').and_then(|rest| rest.get(..2));
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let (value, length) = match digits {
            Some(digits) => (u8::from_str_radix(digits, 16).ok()?, 3),
            None if first.is_ascii_graphic() => (u8::try_from(first).ok()?, 1),
            None => return None,
        };
        rest = &rest[length..];
        let unreserved = value.is_ascii_alphanumeric() || b"-._~".contains(&value);
        let delimiter = b"/!$&'()*+,;=:@".contains(&value);
        if unreserved || delimiter && digits.is_none() {
            normal.push(char::from(value));
        } else {
            normal.push_str(&format!("%{value:02X}"));
        }
    }
    Some(normal)
}

/// Section 5.2.4, step by step.
fn without_dot_segments(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if input == "/." || input.starts_with("/./") {
            input = format!("/{}", input.get(3..).unwrap_or_default());
        } else if input == "/.." || input.starts_with("/../") {
            input = format!("/{}", input.get(4..).unwrap_or_default());
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input.drain(..end);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3986 sections 5.2.4, 6.2.2 and 6.2.3.
    #[test]
    fn normalises_as_the_examples_of_the_standard() {
        let normal = |url| normal_url(url, &mut Judgement::default());
        for (one, other) in [
            ("https://h/a/b/c/./../../g", "https://h/a/g"),
            ("HTTP://www.EXAMPLE.com/", "http://www.example.com/"),
            ("https://h/%7Ejoe%2f", "https://h/~joe%2F"),
            ("http://example.com:/", "http://example.com:80/"),
            ("https://h/a/..", "https://h/"),
            ("https://h/a/.?q=/x#f", "https://h/a/"),
        ] {
            assert_eq!(normal(one), normal(other), "{one}");
            assert!(normal(one).is_some(), "{one}");
        }
        let named = |htu, url| names(&normal(htu).unwrap(), &normal(url).unwrap());
        assert!(named("https://h", "https://h/"));
        assert!(!named("https://h/a*", "https://h/a/"));
        assert_ne!(normal("https://h/a//b"), normal("https://h/a/b"));
        assert_ne!(normal("https://h/A"), normal("https://h/a"));
        assert_eq!(normal("https:/h/a"), None);
        assert_eq!(normal("https://h/a b"), None);
    }
}
