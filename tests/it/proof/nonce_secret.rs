//! The secrets of nonces as text: one, several, in a file, in an environment variable.

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use tower_dpop::proof::{InvalidNonceSecret, InvalidNonceSecrets};
use tower_dpop::{DpopLayer, NonceSecret, NonceSecrets, StatelessNonces};

use super::with_nonce;
use common::{AttemptExt as _, NOW, TestClock, required_nonce, verifier_by};

/// 32 bytes, whose base64 has characters in which the two alphabets differ.
const BYTES: [u8; 32] = *b"\xfb\xff\xbf>?>?>?>?>?>?>?>?>?>?>?>?>?>?>";
const HEX: &str = "fbffbf3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e3f3e";
const BASE64URL: &str = "-_-_Pj8-Pz4_Pj8-Pz4_Pj8-Pz4_Pj8-Pz4_Pj8-Pz4";
/// Another secret.
const OTHER: &str = "0101010101010101010101010101010101010101010101010101010101010101";

fn layer_with(nonces: &StatelessNonces) -> DpopLayer {
    let nonces = nonces.clone();
    DpopLayer::new(verifier_by(|rules| {
        rules
            .with_clock(TestClock::at(NOW).read())
            .with_nonces(nonces)
    }))
}

/// The first characters of a nonce: the id of the secret that issues.
fn issuing(secrets: impl Into<NonceSecrets>) -> String {
    let nonce = required_nonce(&layer_with(&StatelessNonces::new(secrets))).unwrap();
    nonce[..5].to_owned()
}

/// A file of this test alone.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nonce-secrets-{name}"));
    fs::write(&path, content).unwrap();
    path
}

/// An error has no run of characters of the secret text, however it is printed.
#[track_caller]
fn assert_hides(name: &str, error: &(impl Debug + ToString), secret: &str) {
    let shown = format!("{error:?} {error:#?} {}", error.to_string());
    let secret: Vec<char> = secret.chars().collect();
    for run in secret.windows(6) {
        let run: String = run.iter().collect();
        assert!(!shown.contains(&run), "{name}: {shown}");
    }
}

/// T-22
#[test]
fn a_secret_is_read_in_each_form() {
    let expected = issuing(NonceSecret::from_bytes(&BYTES).unwrap());
    let rows = [
        ("hexadecimal", HEX.to_owned()),
        ("hexadecimal in upper case", HEX.to_uppercase()),
        ("base64url", BASE64URL.to_owned()),
        ("base64url, padded", format!("{BASE64URL}=")),
        ("base64", BASE64URL.replace('-', "+").replace('_', "/")),
        (
            "base64, padded, as openssl writes it",
            BASE64URL.replace('-', "+").replace('_', "/") + "=",
        ),
    ];
    for (name, text) in rows {
        let secret: NonceSecret = text.parse().expect(name);
        assert_eq!(issuing(secret), expected, "{name}");
    }
    let longer: NonceSecret = format!("{HEX}01").parse().unwrap();
    assert_ne!(issuing(longer), expected, "33 bytes");
}

#[test]
fn rejects_a_text_that_is_no_secret() {
    use InvalidNonceSecret::{Encoding, TooShort};
    let rows = [
        ("empty", String::new(), TooShort),
        ("31 bytes in hexadecimal", HEX[2..].to_owned(), TooShort),
        ("a digit is missing", HEX[1..].to_owned(), Encoding),
        ("a digit too many", format!("{HEX}0"), Encoding),
        (
            "31 bytes in base64url",
            format!("{}A", &BASE64URL[..41]),
            TooShort,
        ),
        ("an impossible length", format!("{BASE64URL}AA"), Encoding),
        ("stray bits", format!("{}5", &BASE64URL[..42]), Encoding),
        ("too much padding", format!("{BASE64URL}=="), Encoding),
        (
            "four more of padding",
            format!("{BASE64URL}====="),
            Encoding,
        ),
        ("padding in front", format!("={BASE64URL}"), Encoding),
        ("padding alone", "=".repeat(44), Encoding),
        (
            "another character",
            BASE64URL.replacen('P', "!", 1),
            Encoding,
        ),
        ("a space inside", BASE64URL.replacen('P', " ", 1), Encoding),
        ("not ASCII", BASE64URL.replacen("Pj", "ä", 1), Encoding),
        ("a line feed at the end", format!("{HEX}\n"), Encoding),
        ("two secrets", format!("{HEX},{OTHER}"), Encoding),
        (
            "a password",
            "correct horse battery staple, correct horse".into(),
            Encoding,
        ),
    ];
    for (name, text, expected) in rows {
        let error = text.parse::<NonceSecret>().expect_err(name);
        assert_eq!(error, expected, "{name}");
        assert_hides(name, &error, &text);
    }
    assert_eq!(
        TooShort.to_string(),
        "a nonce secret must have at least 32 bytes (64 hexadecimal digits, or 43 characters of base64url)"
    );
    assert_eq!(
        Encoding.to_string(),
        "a nonce secret must be base64url, or an even number of hexadecimal digits"
    );
}

#[test]
fn rejects_short_bytes() {
    for length in [0, 1, 31] {
        assert_eq!(
            NonceSecret::from_bytes(&vec![7; length]).unwrap_err(),
            InvalidNonceSecret::TooShort
        );
    }
    assert!(NonceSecret::from_bytes(&[7; 32]).is_ok());
    assert!(NonceSecret::from_bytes(&[7; 200]).is_ok());
}

/// T-22
#[test]
fn the_first_of_several_secrets_issues_and_each_is_accepted() {
    let rows = [
        ("one per line", format!("{HEX}\n{OTHER}")),
        ("a line feed at the end", format!("{HEX}\n{OTHER}\n")),
        ("lines of Windows", format!("{HEX}\r\n{OTHER}\r\n")),
        ("commas", format!("{HEX},{OTHER}")),
        ("commas and spaces", format!(" {HEX} ,\t{OTHER} ")),
        ("empty lines", format!("\n\n{HEX}\n\n{OTHER}\n\n")),
        ("a comma at the end", format!("{HEX},{OTHER},")),
        ("different forms", format!("{BASE64URL}=\n{OTHER}")),
        ("duplicates", format!("{HEX}\n{HEX}\n{OTHER}\n{HEX}")),
    ];
    for (name, text) in rows {
        let nonces = StatelessNonces::new(NonceSecret::generate());
        let layer = layer_with(&nonces);
        let issued = [HEX, OTHER].map(|secret| {
            nonces.replace_secrets(secret.parse::<NonceSecret>().unwrap());
            required_nonce(&layer).unwrap()
        });
        nonces.replace_secrets(text.parse::<NonceSecrets>().expect(name));
        assert_eq!(required_nonce(&layer).unwrap(), issued[0], "{name}");
        for nonce in &issued {
            with_nonce(nonce, NOW)
                .outcome_by(&layer)
                .assert_passed(name);
        }
    }
}

/// The error names the place and the secret, and shows nothing of it.
#[test]
fn rejects_a_file_without_valid_secrets() {
    let short = "a nonce secret must have at least 32 bytes (64 hexadecimal digits, or 43 characters of base64url)";
    let encoding = "a nonce secret must be base64url, or an even number of hexadecimal digits";
    let none = "no nonce secret, expected one per line or separated by commas";
    let rows = [
        ("empty", String::new(), none.to_owned()),
        ("blank", " \r\n,\n\t".into(), none.to_owned()),
        ("short", HEX[2..].into(), format!("secret 1: {short}")),
        (
            "second",
            format!("{HEX}\n\n{}", &OTHER[2..]),
            format!("secret 2: {short}"),
        ),
        (
            "character",
            format!("{HEX},{}", BASE64URL.replacen('P', "!", 1)),
            format!("secret 2: {encoding}"),
        ),
        (
            "comment",
            format!("# old\n{HEX}"),
            format!("secret 1: {encoding}"),
        ),
    ];
    for (name, text, expected) in rows {
        let path = file(name, text.as_bytes());
        let error = NonceSecrets::from_file(&path).expect_err(name);
        assert_eq!(
            error.to_string(),
            format!("file {}: {expected}", path.display())
        );
        assert_hides(name, &error, &text);
        let error = text.parse::<NonceSecrets>().expect_err(name);
        assert_eq!(error.to_string(), format!("the text: {expected}"));
        assert_hides(name, &error, &text);
    }
    let path = file("not-unicode", &[&[0xff; 32], HEX.as_bytes()].concat());
    let error = NonceSecrets::from_file(&path).unwrap_err();
    assert_hides("not Unicode", &error, HEX);
    assert!(matches!(
        error,
        InvalidNonceSecrets::Secret {
            number: 1,
            reason: InvalidNonceSecret::Encoding,
            ..
        }
    ));
    let missing = path.with_file_name("no-nonce-secrets");
    let error = NonceSecrets::from_file(&missing).unwrap_err();
    assert!(matches!(error, InvalidNonceSecrets::Unreadable { .. }));
    let start = format!("file {}: ", missing.display());
    assert!(error.to_string().starts_with(&start), "{error}");
}

/// T-22: two nodes that read the same file. Its name may be any kind of path.
#[test]
fn nodes_with_the_same_file_have_the_same_secrets() {
    let path = file("shared", format!("{HEX}\n{OTHER}\n").as_bytes());
    let node = issuing(NonceSecrets::from_file(&path).unwrap());
    let other = issuing(NonceSecrets::from_file(path.to_str().unwrap()).unwrap());
    assert_eq!(node, other);
    assert_eq!(node, issuing(HEX.parse::<NonceSecret>().unwrap()));
}

/// Runs itself with each value, since a test cannot set a variable of its own process.
#[test]
fn secrets_are_read_from_an_environment_variable() {
    const VARIABLE: &str = "TOWER_DPOP_TEST_NONCE_SECRETS";
    const TEST: &str = "proof::nonce_secret::secrets_are_read_from_an_environment_variable";
    if env::var_os("TOWER_DPOP_TEST_INNER").is_some() {
        match NonceSecrets::from_env(VARIABLE) {
            Ok(secrets) => println!("\nissues: {}", issuing(secrets)),
            Err(error) => println!("\nerror: {error}"),
        }
        return;
    }
    let issues = issuing(HEX.parse::<NonceSecret>().unwrap());
    let issues = format!("issues: {issues}");
    let error = |text: &str| format!("error: environment variable {VARIABLE}: {text}");
    let rows = [
        ("one", Some(HEX.to_owned()), issues.clone()),
        ("several", Some(format!("{HEX},{OTHER}\n")), issues),
        (
            "empty",
            Some(String::new()),
            error("no nonce secret, expected one per line or separated by commas"),
        ),
        (
            "bad character",
            Some(BASE64URL.replacen('P', "!", 1)),
            error(
                "secret 1: a nonce secret must be base64url, or an even number of hexadecimal digits",
            ),
        ),
        ("not set", None, error("not set")),
    ];
    for (name, value, expected) in rows {
        let mut inner = Command::new(env::current_exe().unwrap());
        inner
            .args(["--exact", TEST, "--nocapture"])
            .env("TOWER_DPOP_TEST_INNER", "1")
            .env_remove(VARIABLE);
        if let Some(value) = &value {
            inner.env(VARIABLE, value);
        }
        let output = inner.output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.lines().any(|line| line == expected),
            "{name}: {output}"
        );
    }
}
