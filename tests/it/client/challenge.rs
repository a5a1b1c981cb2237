//! The challenges of `WWW-Authenticate`.

use std::fmt::Debug;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tower_dpop::client::Challenge;

use super::challenges;

/// The `error` of the first DPoP challenge that has one.
fn dpop_error(lines: &[&[u8]]) -> Option<String> {
    challenges(lines)
        .iter()
        .filter(|challenge| challenge.is_scheme("DPoP"))
        .find_map(|challenge| challenge.parameter("error").map(str::to_owned))
}

/// C-16
#[test]
fn finds_the_dpop_challenge_in_every_valid_form() {
    let rows: &[(&str, &[&[u8]])] = &[
        ("alone", &[br#"DPoP error="x""#]),
        ("a scheme in mixed case", &[br#"dPoP error="x""#]),
        ("a name in upper case", &[br#"DPoP ERROR="x""#]),
        ("a token as the value", &[b"DPoP error=x"]),
        (
            "blanks around the equals sign",
            &[b"DPoP error \t= \t\"x\""],
        ),
        ("several spaces", &[br#"DPoP   error="x""#]),
        (
            "unknown parameters",
            &[br#"DPoP foo=bar, q="a, b", error="x", algs="ES256""#],
        ),
        ("an unknown parameter last", &[br#"DPoP error="x",foo=1"#]),
        ("after Bearer", &[br#"Bearer, DPoP error="x""#]),
        (
            "after a Bearer with parameters",
            &[br#"Bearer realm="a", error="y", DPoP error="x""#],
        ),
        (
            "before a Bearer with parameters",
            &[br#"DPoP error="x", Bearer realm="a", error="y""#],
        ),
        (
            "after a challenge in quotes",
            &[br#"Bearer realm="DPoP error=y, DPoP error=z", DPoP error="x""#],
        ),
        (
            "after an escaped quote",
            &[br#"Bearer realm="a\", DPoP error=\"y", DPoP error="x""#],
        ),
        ("an escape", &[br#"DPoP error="\x""#]),
        ("after a token68", &[br#"Negotiate abc==, DPoP error="x""#]),
        ("after a bare token68", &[br#"Basic abc, DPoP error="x""#]),
        (
            "after a token68 that looks like a parameter",
            &[br#"Negotiate error=, DPoP error="x""#],
        ),
        ("empty elements", &[br#", ,DPoP , error="x", ,"#]),
        (
            "empty elements before the parameter",
            &[br#"DPoP ,, error="x""#],
        ),
        ("a tab between elements", &[b"Bearer,\tDPoP error=x"]),
        ("no blank after the comma", &[br#"Bearer,DPoP error="x""#]),
        (
            "on the second line",
            &[br#"Bearer realm="a""#, br#"DPoP error="x""#],
        ),
        (
            "after a malformed line",
            &[br#"Bearer realm="a"#, br#"DPoP error="x""#],
        ),
        ("after an empty line", &[b"", br#"DPoP error="x""#]),
        (
            "the second of two, where the first has no error",
            &[br#"DPoP algs="ES256", DPoP error="x""#],
        ),
        ("the first of two", &[br#"DPoP error="x", DPoP error="y""#]),
        (
            "a parameter that occurs twice",
            &[br#"DPoP error="x", error="y""#],
        ),
        (
            "bytes that are not ASCII in another parameter",
            &[b"Bearer realm=\"\xff\xfe\", DPoP error=\"x\""],
        ),
        ("before malformed text", &[br#"DPoP error="x", @@@"#]),
        (
            "before an unterminated string",
            &[br#"DPoP error="x", foo="abc"#],
        ),
    ];
    for (name, lines) in rows {
        assert_eq!(dpop_error(lines).as_deref(), Some("x"), "C-16: {name}");
    }
}

/// C-16
#[test]
fn finds_no_error_outside_of_a_valid_dpop_challenge() {
    let rows: &[(&str, &[&[u8]])] = &[
        ("no field", &[]),
        ("an empty line", &[b""]),
        ("commas", &[b",,, ,"]),
        ("the scheme alone", &[b"DPoP"]),
        ("another scheme", &[br#"Bearer error="x""#]),
        ("a longer scheme", &[br#"DPoPs error="x""#]),
        ("the scheme in quotes", &[br#""DPoP" error="x""#]),
        ("another parameter", &[br#"DPoP error_description="x""#]),
        (
            "the parameter of the next challenge",
            &[br#"DPoP, Bearer error="x""#],
        ),
        ("a parameter before any scheme", &[br#"error="x""#]),
        (
            "a parameter at the start of the next line",
            &[b"DPoP", br#"error="x""#],
        ),
        ("an unterminated string", &[br#"DPoP error="x"#]),
        ("an escape at the end", &[br#"DPoP error="x\"#]),
        ("no value", &[b"DPoP error="]),
        ("an empty value", &[b"DPoP error= , x"]),
        ("an empty value before a semicolon", &[b"DPoP error=;"]),
        (
            "a token68 without a blank before it",
            &[br#"DPoP/abc, error="x""#],
        ),
        ("no comma", &[br#"DPoP foo="a" error="x""#]),
        ("a semicolon", &[br#"DPoP foo="a"; error="x""#]),
        ("a tab after the comma", &[b"DPoP,\t"]),
        ("not ASCII", &[b"DP\xc3\xb6P error=\"x\""]),
        ("a token68", &[b"DPoP error=="]),
    ];
    for (name, lines) in rows {
        assert_eq!(dpop_error(lines), None, "C-16: {name}");
    }
}

/// C-16
#[test]
fn reads_at_most_16_challenges() {
    let many = format!("{}DPoP error=x", "Bearer realm=\"a\", ".repeat(10_000));
    assert_eq!(challenges(&[many.as_bytes()]).len(), 16, "on one line");
    let last = format!("{}DPoP error=x", "Bearer realm=\"a\", ".repeat(15));
    assert_eq!(
        dpop_error(&[last.as_bytes()]).as_deref(),
        Some("x"),
        "the last challenge that is read"
    );
    let line: &[u8] = b"Bearer realm=a";
    assert_eq!(challenges(&vec![line; 10_000]).len(), 16, "on many lines");
    let commas = ",".repeat(1 << 20);
    assert_eq!(challenges(&[commas.as_bytes()]).len(), 0, "only commas");
    let equals = format!("DPoP a{}", "=".repeat(1 << 20));
    assert_eq!(challenges(&[equals.as_bytes()]).len(), 1, "a long token68");
    let parameters = format!("DPoP {}error=x", "a=b,".repeat(100_000));
    assert_eq!(
        dpop_error(&[parameters.as_bytes()]).as_deref(),
        Some("x"),
        "after many parameters"
    );
}

/// A parameter, and how it is written.
#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    value: String,
    before: &'static str,
    after: &'static str,
    escaped: bool,
}

impl Parameter {
    fn render(&self) -> String {
        let value: String = self
            .value
            .chars()
            .flat_map(|c| {
                let escape = self.escaped || matches!(c, '"' | '\\');
                escape.then_some('\\').into_iter().chain([c])
            })
            .collect();
        format!("{}{}={}\"{value}\"", self.name, self.before, self.after)
    }
}

fn any_parameter() -> impl Strategy<Value = Parameter> {
    let blank = || prop_oneof![Just(""), Just(" "), Just(" \t")];
    let name = "[a-zA-Z!#$%&'*+.^_`|~-]{1,8}";
    (name, "[ -~]{0,12}", blank(), blank(), any::<bool>()).prop_map(
        |(name, value, before, after, escaped)| Parameter {
            name,
            value,
            before,
            after,
            escaped,
        },
    )
}

/// A scheme, and its parameters or a token68.
fn any_challenge() -> impl Strategy<Value = (String, Result<Vec<Parameter>, String>)> {
    let content = prop_oneof![
        3 => prop::collection::vec(any_parameter(), 0..4).prop_map(Ok),
        1 => "[a-zA-Z0-9._~+/-]{1,12}={0,2}".prop_map(Err),
    ];
    ("[a-zA-Z][a-zA-Z0-9-]{0,8}", content)
}

proptest! {
    /// C-16
    #[test]
    fn reads_every_well_formed_field(
 expected in prop::collection::vec(any_challenge(), 0..6),
        comma in prop_oneof![Just(","), Just(", "), Just(" ,\t, ")],
        one_line in any::<bool>(),
    ) {
        let lines: Vec<String> = expected
            .iter()
            .map(|(scheme, content)| match content {
                Ok(parameters) if parameters.is_empty() => scheme.clone(),
                Ok(parameters) => {
                    let rendered: Vec<_> = parameters.iter().map(Parameter::render).collect();
                    format!("{scheme} {}", rendered.join(comma))
                }
                Err(token68) => format!("{scheme} {token68}"),
            })
            .collect();
        let lines = if one_line { vec![lines.join(comma)] } else { lines };
        let bytes: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        let read = challenges(&bytes);
        prop_assert_eq!(read.len(), expected.len(), "{:?}", lines);
        for (challenge, (scheme, content)) in read.iter().zip(&expected) {
            prop_assert!(challenge.is_scheme(scheme));
            let parameters = content.as_deref().unwrap_or_default();
            for parameter in parameters {
                let first = parameters
                    .iter()
                    .find(|other| other.name.eq_ignore_ascii_case(&parameter.name))
                    .unwrap();
                prop_assert_eq!(
                    challenge.parameter(&parameter.name.to_ascii_uppercase()),
                    Some(first.value.as_str())
                );
            }
        }
    }

    #[test]
    fn no_field_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.insert("www-authenticate", value);
            prop_assert!(Challenge::from_headers(&headers).len() <= 16);
        }
    }

    #[test]
    fn no_field_with_challenge_characters_makes_the_parser_panic(line in r#"[DPoP ,="\\a\t]{0,60}"#) {
        challenges(&[line.as_bytes()]);
    }
}
