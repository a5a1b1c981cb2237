//! Any public URL, request target and `htu`: no panic, one normal form, the same decision for each spelling of a URL,
//! and work in proportion to the length.
//!
//! An input is up to four lines: a public URL, a method, a request target, an `htu`.
#![no_main]

use http::request::Parts;
use http::{Method, Request, Uri, Version};
use libfuzzer_sys::fuzz_target;
use tower_dpop::PublicUrl;
use tower_dpop::fuzzing::{check_url, htu_of, normalised_path};
use tower_dpop::tokens::EndpointUrl;

/// A path of this length takes milliseconds. If the work grew with the square of the length, it would exceed the
/// fuzzer's time limit.
const LONG: usize = 1 << 20;

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (public_url, method, target, htu) = (line(), line(), line(), line());

    for path in [public_url, target, htu] {
        assert_has_one_normal_form(path);
    }
    if let Ok(url) = public_url.parse::<EndpointUrl>() {
        assert_eq!(url.as_str(), public_url);
    }
    // It takes as long as a thousand other inputs.
    if input.ends_with('/') && input.len().is_multiple_of(32) {
        assert_is_fast(target);
    }
    let Ok(public_url) = PublicUrl::insecure_http(public_url) else {
        return;
    };
    let written = public_url.to_string();
    let again = PublicUrl::insecure_http(&written);
    assert_eq!(again.as_ref(), Ok(&public_url), "{written:?}");

    let Some(request) = request(method, target) else {
        return;
    };
    let result = check_url(&public_url, &request, htu);
    assert_eq!(result, check_url(&public_url, &request, htu));
    if result == Ok(Ok(())) {
        assert_spellings_are_equal(&public_url, &request, htu);
    }
    assert_own_htu_is_accepted(&public_url, &request);
});

fn request(method: &str, target: &str) -> Option<Parts> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    *request.version_mut() = Version::HTTP_11;
    Some(request.into_parts().0)
}

fn assert_has_one_normal_form(path: &str) {
    let as_sent = normalised_path(path, false);
    assert_eq!(as_sent, in_passes(path), "{path:?}");
    if let Some(configured) = normalised_path(path, true) {
        assert_eq!(as_sent.as_ref(), Some(&configured), "{path:?}");
    }
    let Some(normal) = as_sent else {
        return;
    };
    let again = normalised_path(&normal, true);
    assert_eq!(again.as_ref(), Some(&normal), "{path:?}");
    assert!(normal.len() <= path.len() * 3 + 1, "{path:?}");
}

/// A second implementation of RFC 3986 sections 6.2.2 and 6.2.3: one pass for the characters and one for the segments,
/// without regard to speed.
fn in_passes(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("/".to_owned());
    }
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut decoded = String::new();
    let mut at = 0;
    while at < path.len() {
        let is_digits = |digits: &&str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let digits = path.get(at + 1..at + 3).filter(is_digits);
        let digits = digits.filter(|_| path.as_bytes()[at] == b'%');
        let byte = digits.map_or(path.as_bytes()[at], |digits| {
            u8::from_str_radix(digits, 16).expect("two digits")
        });
        at += if digits.is_some() { 3 } else { 1 };
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_unreserved || (digits.is_none() && b"!$&'()*+,;=:@/".contains(&byte)) {
            decoded.push(char::from(byte));
        } else {
            decoded += &format!("%{byte:02X}");
        }
    }
    let segments: Vec<&str> = decoded.split('/').skip(1).collect();
    let mut kept: Vec<&str> = Vec::new();
    for segment in &segments {
        match *segment {
            ".." => drop(kept.pop()),
            "." => {}
            segment => kept.push(segment),
        }
    }
    if matches!(segments.last(), Some(&"." | &"..")) {
        kept.push("");
    }
    Some(format!("/{}", kept.join("/")))
}

/// An accepted `htu` is accepted in other spellings of the same URL, and rejected with another host or path, or with
/// userinfo.
fn assert_spellings_are_equal(public_url: &PublicUrl, request: &Parts, htu: &str) {
    let accepts = |htu: &str| check_url(public_url, request, htu) == Ok(Ok(()));
    let end = htu.find(['?', '#']).unwrap_or(htu.len());
    let htu = &htu[..end];
    let (scheme, rest) = htu.split_once("://").expect("an absolute URL");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (upper_scheme, upper) = (scheme.to_ascii_uppercase(), authority.to_ascii_uppercase());
    assert!(accepts(&format!("{htu}?query#fragment")), "{htu:?}");
    assert!(
        accepts(&format!("{upper_scheme}://{upper}{path}")),
        "{htu:?}"
    );
    if !path.is_empty() {
        assert!(
            accepts(&format!("{scheme}://{authority}/x/%2E%2e{path}")),
            "{htu:?}"
        );
    }
    for other in [
        format!("{scheme}://x{rest}"),
        format!("{scheme}://{authority}{path}/x"),
        format!("{scheme}://a@{rest}"),
    ] {
        assert!(!accepts(&other), "{other:?}");
    }
}

/// The URL that the client of this crate signs for the same target is accepted.
fn assert_own_htu_is_accepted(public_url: &PublicUrl, request: &Parts) {
    let path = request.uri.path();
    let is_origin_form = request.uri.authority().is_none() && path.starts_with('/');
    let Ok(uri) = format!("{public_url}{path}").parse::<Uri>() else {
        return;
    };
    if !is_origin_form || request.method == Method::CONNECT || leaves_the_service(path) {
        return;
    }
    if let Ok(htu) = htu_of(&uri) {
        let result = check_url(public_url, request, &htu);
        assert_eq!(result, Ok(Ok(())), "{htu:?} behind {public_url:?}");
    }
}

/// Whether `..` goes above the root of the service.
fn leaves_the_service(path: &str) -> bool {
    let path = path.replace("%2e", ".").replace("%2E", ".");
    let mut depth = 0_i64;
    path.split('/').skip(1).any(|segment| {
        depth += match segment {
            ".." => -1,
            "." => 0,
            _ => 1,
        };
        depth < 0
    })
}

fn assert_is_fast(piece: &str) {
    if piece.is_empty() {
        return;
    }
    let path = format!("/{}", piece.repeat(LONG / piece.len()));
    let url = format!("https://api.example.com{path}");
    if let Some(normal) = normalised_path(&path, false) {
        assert!(normal.len() <= path.len() * 3 + 1);
    }
    let request = request("GET", "/").expect("a request");
    let public_url: PublicUrl = "https://api.example.com".parse().expect("a URL");
    let result = check_url(&public_url, &request, &url);
    assert!(result.is_ok(), "GET / has a target: {result:?}");
    let _ = PublicUrl::insecure_http(&url);
}
