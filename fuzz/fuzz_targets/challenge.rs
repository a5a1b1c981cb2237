//! Any lines of `WWW-Authenticate`: no panic, and at most 16 challenges are read. Challenges that this target or this
//! crate's server writes by the grammar are read as they were meant.
#![no_main]

use std::sync::LazyLock;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Response};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use tower_dpop::client::Challenge;
use tower_dpop::resource::{CredentialsError, QuotedText};
use tower_dpop::testing::TestIssuer;
use tower_dpop::{PublicUrl, Rejection, Verifier};

static ISSUER: LazyLock<TestIssuer> =
    LazyLock::new(|| TestIssuer::new("https://as.example.com", "https://api.example.com"));

/// A challenge to be written. Characters that its parts cannot contain are left out.
#[derive(Arbitrary, Debug)]
struct Written<'a> {
    scheme: &'a str,
    token68: Option<&'a str>,
    parameters: Vec<Parameter<'a>>,
    has_own_line: bool,
}

#[derive(Arbitrary, Debug)]
struct Parameter<'a> {
    name: &'a str,
    value: &'a [u8],
    is_token: bool,
    has_blanks: bool,
    escapes_all: bool,
}

fuzz_target!(|input: &[u8]| {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let challenges = read(&lines);
    assert!(challenges.len() <= 16);
    for challenge in &challenges {
        assert!(format!("{challenge:?}").starts_with("Challenge { scheme: "));
        assert_eq!(challenge.parameter("algs"), challenge.parameter("ALGS"));
        assert_eq!(challenge.is_scheme("DPoP"), challenge.is_scheme("dpop"));
        assert_eq!(challenge.parameter(""), None);
    }
    // A line is read in the same way beside others.
    let alone = lines.iter().flat_map(|line| read(&[*line]));
    assert_eq!(challenges, alone.take(16).collect::<Vec<_>>());

    if let Ok(written) = Vec::<Written<'_>>::arbitrary(&mut Unstructured::new(input)) {
        assert_reads_what_is_written(&written);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        assert_reads_own_challenges(text);
    }
});

fn read(lines: &[&[u8]]) -> Vec<Challenge> {
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, line);
        }
    }
    Challenge::from_headers(&headers)
}

fn assert_reads_what_is_written(written: &[Written<'_>]) {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for challenge in written {
        match lines.last_mut() {
            Some(line) if !challenge.has_own_line => {
                line.extend(b" ,, ");
                line.extend(challenge.text());
            }
            _ => lines.push(challenge.text()),
        }
    }
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let challenges = read(&lines);
    assert_eq!(challenges.len(), written.len().min(16), "{lines:02x?}");
    for (challenge, written) in challenges.iter().zip(written) {
        assert!(challenge.is_scheme(&token(written.scheme)));
        let parameters = match written.token68 {
            Some(_) => &[],
            None => written.parameters.as_slice(),
        };
        for (index, parameter) in parameters.iter().enumerate() {
            let name = token(parameter.name);
            let is_repeated = parameters[..index]
                .iter()
                .any(|before| token(before.name).eq_ignore_ascii_case(&name));
            if !is_repeated {
                let value = parameter.value();
                let value = String::from_utf8_lossy(&value);
                let found = challenge.parameter(&name);
                assert_eq!(found, Some(value.as_ref()), "{lines:02x?}");
            }
        }
    }
}

impl Written<'_> {
    /// RFC 9110 section 11.6.1.
    fn text(&self) -> Vec<u8> {
        let mut text = token(self.scheme).into_bytes();
        if let Some(token68) = self.token68 {
            text.push(b' ');
            let is_token68 = |c: &char| c.is_ascii_alphanumeric() || "-._~+/".contains(*c);
            text.extend(token68.chars().filter(is_token68).map(|c| c as u8));
            text.extend(b"0==");
            return text;
        }
        for (index, parameter) in self.parameters.iter().enumerate() {
            text.extend(if index == 0 { " " } else { ", " }.bytes());
            text.extend(token(parameter.name).bytes());
            text.extend(if parameter.has_blanks { " =\t" } else { "=" }.bytes());
            if parameter.is_token {
                text.extend(parameter.value());
                continue;
            }
            text.push(b'"');
            for byte in parameter.value() {
                if parameter.escapes_all || b"\"\\".contains(&byte) {
                    text.push(b'\\');
                }
                text.push(byte);
            }
            text.push(b'"');
        }
        text
    }
}

impl Parameter<'_> {
    fn value(&self) -> Vec<u8> {
        if self.is_token {
            return token(&String::from_utf8_lossy(self.value)).into_bytes();
        }
        let is_in_field = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        self.value.iter().copied().filter(is_in_field).collect()
    }
}

/// RFC 9110 section 5.6.2. Never empty.
fn token(text: &str) -> String {
    let is_token = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
    let token: String = text.chars().filter(is_token).collect();
    if token.is_empty() {
        "t".to_owned()
    } else {
        token
    }
}

/// The client reads the realm that the server was given.
fn assert_reads_own_challenges(text: &str) {
    let Ok(realm) = text.parse::<QuotedText>() else {
        return;
    };
    let url: PublicUrl = "https://api.example.com".parse().expect("a URL");
    let verifier = Verifier::new(url, ISSUER.jwt_verifier());
    let verifier = verifier.allow_bearer().with_realm(realm);
    let response: Response<()> = verifier.reject(Rejection::Credentials(CredentialsError::Missing));
    let challenges = Challenge::from_headers(response.headers());
    assert_eq!(challenges.len(), 2);
    for challenge in challenges {
        assert_eq!(challenge.parameter("realm"), Some(text));
    }
}
