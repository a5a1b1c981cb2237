//! What a client makes and reads without sending anything: proofs, tokens, token responses,
//! challenges.

use std::collections::{BTreeSet, HashSet};
use std::error::Error as _;
use std::fmt::Debug;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use proptest::prelude::*;
use tower_dpop::client::{
    AccessTokenText, Challenge, ClientError, InvalidAccessToken, InvalidRequestUrl,
    InvalidTokenResponse, NewProof, ProofSigner, SignedProof, TokenErrorResponse, TokenResponse,
    TokenSourceError,
};
use tower_dpop::jose::{Jwk, SigningError, SigningKey};
use tower_dpop::{Algorithm, Algorithms, Timestamp};

use common::proofs::{ReadProof, assert_shows_nothing, names};
use common::{Attempt, AttemptExt as _, NOW, at, block_on, field, verifier_by};

const ORDERS: &str = "https://api.example.com/orders";

/// RFC 9449, Figure 12.
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

fn token(text: &str) -> AccessTokenText {
    text.parse().unwrap()
}

fn new_proof(method: &str, url: &str) -> Result<NewProof, InvalidRequestUrl> {
    NewProof::new(&method.parse().unwrap(), &url.parse().unwrap())
}

fn good() -> NewProof {
    new_proof("GET", ORDERS).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

#[track_caller]
fn signed(proof: &NewProof, key: &impl ProofSigner) -> ReadProof {
    ReadProof::of(block_on(proof.sign(key, now())).unwrap().as_header_value())
}

/// C-4, C-18, C-30: for every kind of key, the header has what it must and nothing else.
#[test]
fn the_header_names_the_algorithm_and_the_public_key_and_nothing_else() {
    let rows: &[(Algorithm, &[&str])] = &[
        (Algorithm::Es256, &["crv", "kty", "x", "y"]),
        (Algorithm::Es384, &["crv", "kty", "x", "y"]),
        (Algorithm::Es512, &["crv", "kty", "x", "y"]),
        (Algorithm::Ed25519, &["crv", "kty", "x"]),
        (Algorithm::EdDsa, &["crv", "kty", "x"]),
        (Algorithm::Ps256, &["e", "kty", "n"]),
    ];
    for (algorithm, members) in rows {
        let name = algorithm.name();
        // C-18: the server's list decides, and what is unknown in it is skipped.
        let key = SigningKey::generate_for_one_of(&format!("none ML-DSA-44 {name}")).unwrap();
        let proof = signed(&good(), &key);
        assert_eq!(
            names(&proof.header),
            BTreeSet::from(["alg", "jwk", "typ"]),
            "C-4: {name}"
        );
        assert_eq!(proof.header["typ"], "dpop+jwt", "C-4: {name}");
        assert_eq!(proof.header["alg"], name, "C-4");
        assert_eq!(
            names(&proof.header["jwk"]),
            members.iter().copied().collect(),
            "C-4: {name}"
        );
        assert_eq!(proof.thumbprint(), key.thumbprint(), "{name}");
        proof.assert_signed(name);
        let (one, other) = (key.sign_now(b"input"), key.sign_now(b"input"));
        if name.starts_with("ES") {
            assert_eq!(one.unwrap(), other.unwrap(), "C-30: {name}");
        }
    }
}

/// C-9, C-10, C-11: what is not asked for is not said.
#[test]
fn the_claims_are_those_asked_for_and_no_others() {
    let key = SigningKey::generate().unwrap();
    let nonce = "eyJ7S_zG.eyJH0-Z.HX4w-7v";
    let with_token = |proof: NewProof| proof.with_access_token(&token(TOKEN));
    let with_nonce = |proof: NewProof| proof.with_nonce(nonce.parse().unwrap());
    let rows: [(&str, NewProof, &[&str]); 4] = [
        ("C-11: bare", good(), &[]),
        ("C-9: with a token", with_token(good()), &["ath"]),
        ("C-10: with a nonce", with_nonce(good()), &["nonce"]),
        (
            "with both",
            with_nonce(with_token(good())),
            &["ath", "nonce"],
        ),
    ];
    for (name, proof, extra) in rows {
        let proof = signed(&proof, &key);
        let mut expected = BTreeSet::from(["jti", "htm", "htu", "iat"]);
        expected.extend(extra);
        assert_eq!(names(&proof.claims), expected, "{name}");
        assert_eq!(
            proof.claim("ath"),
            extra
                .contains(&"ath")
                .then_some("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"),
            "{name}: RFC 9449, Figure 12"
        );
        assert_eq!(
            proof.nonce(),
            extra.contains(&"nonce").then_some(nonce),
            "{name}"
        );
        proof.assert_signed(name);
    }
}

/// C-10: the latest nonce replaces the one before, and the latest token likewise.
#[test]
fn the_last_token_and_nonce_count() {
    let proof = good()
        .with_nonce("one".parse().unwrap())
        .with_nonce("two".parse().unwrap())
        .with_access_token(&token("other"))
        .with_access_token(&token(TOKEN));
    let proof = signed(&proof, &SigningKey::generate().unwrap());
    assert_eq!(proof.payload.matches("nonce").count(), 1);
    assert_eq!(proof.nonce(), Some("two"));
    assert_eq!(proof.claim("ath"), Some(common::ath(TOKEN).as_str()));
}

/// A signer that costs nothing.
struct Instant(Jwk);

impl Instant {
    fn new() -> Self {
        Self(SigningKey::generate().unwrap().public_key().clone())
    }
}

impl ProofSigner for Instant {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Es256
    }

    fn public_key(&self) -> &Jwk {
        &self.0
    }

    async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SigningError> {
        Ok(vec![1; 64])
    }
}

/// C-5: 128 bits, each of them random, none of ten thousand twice.
#[test]
fn every_jti_is_new_and_random() {
    let (proof, key) = (good(), Instant::new());
    let identifiers: HashSet<[u8; 16]> = (0..10_000)
        .map(|_| {
            let jti = signed(&proof, &key).jti().to_owned();
            URL_SAFE_NO_PAD.decode(jti).unwrap().try_into().unwrap()
        })
        .collect();
    assert_eq!(identifiers.len(), 10_000);
    let (mut ones, mut zeros) = ([0; 16], [0; 16]);
    for identifier in &identifiers {
        for (at, byte) in identifier.iter().enumerate() {
            ones[at] |= byte;
            zeros[at] |= !byte;
        }
    }
    assert_eq!(
        (ones, zeros),
        ([0xff; 16], [0xff; 16]),
        "a bit never varies"
    );
}

/// C-6
#[test]
fn htm_is_the_method_as_it_is_sent() {
    let key = Instant::new();
    for method in [
        "GET",
        "get",
        "pAtCh",
        "M-SEARCH",
        "QUERY",
        "!#$%&'*+-.^_`|~",
    ] {
        let proof = signed(&new_proof(method, ORDERS).unwrap(), &key);
        assert_eq!(proof.claim("htm"), Some(method));
    }
}

/// C-7
#[test]
fn htu_is_the_url_in_its_normal_form() {
    let key = Instant::new();
    let rows = [
        ("as it is", ORDERS, ORDERS),
        ("a query", "https://api.example.com/orders?page=2", ORDERS),
        ("an empty query", "https://api.example.com/orders?", ORDERS),
        (
            "a query that looks like a path",
            "https://api.example.com/orders?/../x",
            ORDERS,
        ),
        (
            "a query and no path",
            "https://api.example.com?page=2",
            "https://api.example.com/",
        ),
        (
            "no path",
            "https://api.example.com",
            "https://api.example.com/",
        ),
        (
            "scheme and host in upper case",
            "HTTPS://API.Example.COM/orders",
            ORDERS,
        ),
        (
            "the port of https",
            "https://api.example.com:443/orders",
            ORDERS,
        ),
        (
            "the port of http",
            "http://127.0.0.1:80/orders",
            "http://127.0.0.1/orders",
        ),
        (
            "the port of the other scheme",
            "https://api.example.com:80/orders",
            "https://api.example.com:80/orders",
        ),
        (
            "dot segments",
            "https://api.example.com/a/./b/../../orders",
            ORDERS,
        ),
        (
            "encoded dot segments",
            "https://api.example.com/a/%2e%2E/orders",
            ORDERS,
        ),
        (
            "more dot segments than there are segments",
            "https://api.example.com/../../orders",
            ORDERS,
        ),
        (
            "an encoded letter",
            "https://api.example.com/%6Frders",
            ORDERS,
        ),
        (
            "an encoded tilde",
            "https://api.example.com/%7Ejoe",
            "https://api.example.com/~joe",
        ),
        (
            "an encoded slash stays",
            "https://api.example.com/a%2fb",
            "https://api.example.com/a%2Fb",
        ),
        (
            "a trailing slash stays",
            "https://api.example.com/orders/",
            "https://api.example.com/orders/",
        ),
        (
            "empty segments stay",
            "https://api.example.com//a//b",
            "https://api.example.com//a//b",
        ),
        (
            "upper case in the path stays",
            "https://api.example.com/Orders",
            "https://api.example.com/Orders",
        ),
        (
            "IPv6",
            "https://[2001:DB8:0::1]:8443/",
            "https://[2001:db8::1]:8443/",
        ),
        (
            "a dot behind the host stays",
            "https://api.example.com./",
            "https://api.example.com./",
        ),
    ];
    for (name, url, expected) in rows {
        let proof = signed(&new_proof("GET", url).unwrap(), &key);
        assert_eq!(proof.claim("htu"), Some(expected), "C-7: {name}");
    }
}

/// C-7: userinfo is never generated, and what is no URL by RFC 3986 is not repaired.
#[test]
fn rejects_urls_that_no_proof_can_name() {
    use InvalidRequestUrl::{NotHttp, Path};
    let rows = [
        ("userinfo", "https://joe:secret@api.example.com/", NotHttp),
        ("empty userinfo", "https://@api.example.com/", NotHttp),
        ("no scheme", "/orders", NotHttp),
        ("an authority alone", "api.example.com:443", NotHttp),
        ("an asterisk", "*", NotHttp),
        ("another scheme", "wss://api.example.com/orders", NotHttp),
        ("port 0443", "https://api.example.com:0443/", NotHttp),
        ("a bar", "https://api.example.com/a|b", Path),
        ("a bracket", "https://api.example.com/a[0]", Path),
        ("a quote", "https://api.example.com/a\"b", Path),
        ("a brace", "https://api.example.com/{a}", Path),
        ("half an encoding", "https://api.example.com/a%2", Path),
        ("no encoding", "https://api.example.com/a%zz", Path),
    ];
    for (name, url, expected) in rows {
        assert_eq!(
            new_proof("GET", url).map(|_| ()),
            Err(expected),
            "C-7: {name}"
        );
    }
}

/// C-8
#[test]
fn iat_is_a_whole_number_of_seconds() {
    let key = Instant::new();
    let rows = [
        ("a fraction", at(NOW) + Duration::from_millis(999), NOW),
        ("before 1970", UNIX_EPOCH - Duration::from_secs(9), 0),
        ("9999", at(253_402_300_799), 253_402_300_799),
    ];
    for (name, time, expected) in rows {
        let signed = block_on(good().sign(&key, Timestamp::from(time))).unwrap();
        let proof = ReadProof::of(signed.as_header_value());
        assert!(
            proof.payload.contains(&format!(r#""iat":{expected},"#))
                || proof.payload.contains(&format!(r#""iat":{expected}}}"#)),
            "{name}: {}",
            proof.payload
        );
    }
}

/// C-1, C-2, C-15: what a client makes by hand passes our own verifier, once.
#[test]
fn the_verifier_takes_each_proof_once() {
    let verifier = verifier_by(|rules| rules.with_algorithms(Algorithms::default()));
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Ed25519] {
        let name = algorithm.name();
        let key = SigningKey::generate_for(algorithm).unwrap();
        let token = token(
            &Attempt::but(|a| a.token_claims["cnf"]["jkt"] = key.thumbprint().to_string().into())
                .token(),
        );
        let uri: Uri = "https://API.example.com:443/a/../orders?x=1"
            .parse()
            .unwrap();
        let proof = NewProof::new(&Method::GET, &uri)
            .unwrap()
            .with_access_token(&token);
        let request = || {
            let signed = block_on(proof.sign(&key, now())).unwrap();
            let request = Request::get("/orders?x=1")
                .header("authorization", token.authorization())
                .header("dpop", signed.as_header_value());
            request.body(()).unwrap().into_parts().0
        };
        let one = request();
        assert!(block_on(verifier.verify(&one)).is_ok(), "C-15: {name}");
        assert!(block_on(verifier.verify(&one)).is_err(), "C-2: {name}");
        assert!(block_on(verifier.verify(&request())).is_ok(), "C-2: {name}");
    }
    let plain = "http://api.example.com".parse::<tower_dpop::PublicUrl>();
    assert!(plain.is_err(), "C-1");
}

/// A signer far away: it takes a while, and then does as it is told.
struct Remote<F> {
    key: SigningKey,
    outcome: F,
}

impl<F> ProofSigner for Remote<F>
where
    F: Fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError> + Send + Sync + 'static,
{
    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    fn public_key(&self) -> &Jwk {
        self.key.public_key()
    }

    async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SigningError> {
        tokio::task::yield_now().await;
        (self.outcome)(&self.key, input)
    }
}

#[test]
fn a_signer_may_take_its_time_and_must_keep_to_the_form() {
    type Outcome = fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>;
    let rows: [(&str, Algorithm, Outcome, bool); 10] = [
        ("good", Algorithm::Es256, SigningKey::sign_now, true),
        (
            "out of reach",
            Algorithm::Es256,
            |_, _| Err(SigningError::new("timeout")),
            false,
        ),
        ("empty", Algorithm::Es256, |_, _| Ok(Vec::new()), false),
        ("DER", Algorithm::Es256, |_, _| Ok(vec![0x30; 71]), false),
        (
            "DER, ES384",
            Algorithm::Es384,
            |_, _| Ok(vec![0x30; 102]),
            false,
        ),
        (
            "DER, ES512",
            Algorithm::Es512,
            |_, _| Ok(vec![0x30; 139]),
            false,
        ),
        (
            "shorter than any modulus",
            Algorithm::Ps256,
            |_, _| Ok(vec![1; 255]),
            false,
        ),
        (
            "empty, Ed25519",
            Algorithm::Ed25519,
            |_, _| Ok(vec![]),
            false,
        ),
        ("empty, RSA", Algorithm::Ps256, |_, _| Ok(vec![]), false),
        (
            "endless",
            Algorithm::Es384,
            |_, _| Ok(vec![0; 1 << 20]),
            false,
        ),
    ];
    for (name, algorithm, outcome, passes) in rows {
        let key = SigningKey::generate_for(algorithm).unwrap();
        match block_on(good().sign(&Remote { key, outcome }, now())) {
            Ok(proof) => {
                assert!(passes, "{name}: signed");
                ReadProof::of(proof.as_header_value()).assert_signed(name);
            }
            Err(error) => {
                assert!(!passes, "{name}: {error}");
                assert!(error.source().is_some(), "{name}");
            }
        }
    }
}

/// C-15: what an `Authorization` field can carry is a token, and nothing else is.
#[test]
fn a_token_is_what_a_field_can_carry() {
    for text in [TOKEN, "a", "abc==", "a+b/c", "-._~"] {
        let token = token(text);
        assert_eq!(token.as_str(), text);
        assert_eq!(token.authorization(), &format!("DPoP {text}"), "C-15");
        assert!(token.authorization().is_sensitive());
    }
    for text in [
        "",
        "=",
        "a b",
        " a",
        "a ",
        "a\r\nX: y",
        "a\0",
        "a=b",
        "a,b",
        "\"a\"",
        "ä",
        "a%20b",
    ] {
        assert_eq!(
            text.parse::<AccessTokenText>().map(|_| ()),
            Err(InvalidAccessToken),
            "{text:?}"
        );
    }
}

type Granted = (
    &'static str,
    Option<Duration>,
    Option<&'static str>,
    Option<&'static str>,
);

/// C-13
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn takes_only_tokens_that_are_bound_out_of_a_token_response() {
    use InvalidTokenResponse::{Malformed, NotBound};
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let bare = ("t", None, None, None);
    let rows: [(&str, &str, Result<Granted, InvalidTokenResponse>); 34] = [
        (
            "C-13: RFC 9449, Figure 6",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":2677,"refresh_token":"Q..Zkm","scope":"a b"}"#,
            Ok(("t", seconds(2677), Some("Q..Zkm"), Some("a b"))),
        ),
        (
            "C-13: lower case",
            r#"{"access_token":"t","token_type":"dpop"}"#,
            Ok(bare),
        ),
        (
            "C-13: mixed case",
            r#"{"access_token":"t","token_type":"dPOP"}"#,
            Ok(bare),
        ),
        (
            "C-13: bearer",
            r#"{"access_token":"t","token_type":"Bearer"}"#,
            Err(NotBound),
        ),
        (
            "C-13: empty type",
            r#"{"access_token":"t","token_type":""}"#,
            Err(NotBound),
        ),
        (
            "C-13: a space",
            r#"{"access_token":"t","token_type":"DPoP "}"#,
            Err(NotBound),
        ),
        (
            "C-13: a long s",
            r#"{"access_token":"t","token_type":"DPo\u1d56"}"#,
            Err(NotBound),
        ),
        ("no type", r#"{"access_token":"t"}"#, Err(Malformed)),
        (
            "type null",
            r#"{"access_token":"t","token_type":null}"#,
            Err(Malformed),
        ),
        (
            "type a list",
            r#"{"access_token":"t","token_type":["DPoP"]}"#,
            Err(Malformed),
        ),
        ("no token", r#"{"token_type":"DPoP"}"#, Err(Malformed)),
        (
            "token null",
            r#"{"access_token":null,"token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token a number",
            r#"{"access_token":1,"token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token empty",
            r#"{"access_token":"","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token with a space",
            r#"{"access_token":"a b","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token with a line break",
            r#"{"access_token":"a\r\nX: y","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token beyond ASCII",
            r#"{"access_token":"ä","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token twice",
            r#"{"access_token":"a","access_token":"t","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "type twice",
            r#"{"access_token":"t","token_type":"DPoP","token_type":"Bearer"}"#,
            Err(Malformed),
        ),
        (
            "unknown members",
            r#"{"access_token":"t","token_type":"DPoP","id_token":{"a":[1]}}"#,
            Ok(bare),
        ),
        (
            "optional members null",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":null,"refresh_token":null,"scope":null}"#,
            Ok(bare),
        ),
        (
            "expires_in a fraction",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":1.5}"#,
            Ok(("t", Some(Duration::from_millis(1500)), None, None)),
        ),
        (
            "expires_in zero",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":0}"#,
            Ok(("t", seconds(0), None, None)),
        ),
        (
            "expires_in negative",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":-1}"#,
            Ok(bare),
        ),
        (
            "expires_in beyond a Duration",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":1e300}"#,
            Ok(bare),
        ),
        (
            "expires_in beyond a double",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":1e400}"#,
            Err(Malformed),
        ),
        (
            "expires_in a string",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":"300"}"#,
            Err(Malformed),
        ),
        (
            "refresh_token a number",
            r#"{"access_token":"t","token_type":"DPoP","refresh_token":7}"#,
            Err(Malformed),
        ),
        ("an array", r#"["t","DPoP",300,null,null]"#, Err(Malformed)),
        (
            "an array behind a space",
            "\n [\"t\",\"DPoP\",300,null,null]",
            Err(Malformed),
        ),
        ("not JSON", "access_token=t&token_type=DPoP", Err(Malformed)),
        ("empty", "", Err(Malformed)),
        (
            "half",
            r#"{"access_token":"t","token_type":"DPoP""#,
            Err(Malformed),
        ),
        (
            "something behind it",
            r#"{"access_token":"t","token_type":"DPoP"}{}"#,
            Err(Malformed),
        ),
    ];
    for (name, body, expected) in rows {
        let granted = TokenResponse::from_json(body.as_bytes());
        let granted = granted.as_ref().map(|granted| {
            (
                granted.access_token().as_str(),
                granted.expires_in(),
                granted.refresh_token(),
                granted.scope(),
            )
        });
        assert_eq!(granted, expected.as_ref().map(|row| *row), "{name}");
    }
    let deep = format!(
        r#"{{"access_token":"t","token_type":"DPoP","x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(
        TokenResponse::from_json(deep.as_bytes()).is_ok(),
        "an unknown member of any depth is skipped"
    );
    assert_eq!(
        TokenResponse::from_json(b"{\"access_token\":\"t\xff\",\"token_type\":\"DPoP\"}")
            .unwrap_err(),
        Malformed,
        "not UTF-8"
    );
}

fn challenges(lines: &[&[u8]]) -> Vec<Challenge> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("www-authenticate", field(line));
    }
    Challenge::from_headers(&headers)
}

/// The `error` of the first DPoP challenge that has one.
fn dpop_error(lines: &[&[u8]]) -> Option<String> {
    challenges(lines)
        .iter()
        .filter(|challenge| challenge.is_scheme("DPoP"))
        .find_map(|challenge| challenge.parameter("error").map(str::to_owned))
}

/// C-16
#[test]
fn finds_the_dpop_challenge_in_every_form_of_the_field() {
    let rows: &[(&str, &[&[u8]])] = &[
        ("alone", &[br#"DPoP error="x""#]),
        ("no case in the scheme", &[br#"dPoP error="x""#]),
        ("no case in the name", &[br#"DPoP ERROR="x""#]),
        ("a token for a value", &[b"DPoP error=x"]),
        (
            "blanks around the equals sign",
            &[b"DPoP error \t= \t\"x\""],
        ),
        ("several spaces", &[br#"DPoP   error="x""#]),
        (
            "parameters that nobody knows",
            &[br#"DPoP foo=bar, q="a, b", error="x", algs="ES256""#],
        ),
        ("an unknown parameter last", &[br#"DPoP error="x",foo=1"#]),
        ("behind Bearer", &[br#"Bearer, DPoP error="x""#]),
        (
            "behind a Bearer with parameters",
            &[br#"Bearer realm="a", error="y", DPoP error="x""#],
        ),
        (
            "before a Bearer with parameters",
            &[br#"DPoP error="x", Bearer realm="a", error="y""#],
        ),
        (
            "behind a quoted challenge",
            &[br#"Bearer realm="DPoP error=y, DPoP error=z", DPoP error="x""#],
        ),
        (
            "behind a quoted quote",
            &[br#"Bearer realm="a\", DPoP error=\"y", DPoP error="x""#],
        ),
        ("an escape", &[br#"DPoP error="\x""#]),
        ("behind a token68", &[br#"Negotiate abc==, DPoP error="x""#]),
        ("behind a bare token68", &[br#"Basic abc, DPoP error="x""#]),
        (
            "behind a token68 that looks like a parameter",
            &[br#"Negotiate error=, DPoP error="x""#],
        ),
        ("empty elements", &[br#", ,DPoP , error="x", ,"#]),
        (
            "empty elements before the parameter",
            &[br#"DPoP ,, error="x""#],
        ),
        ("a tab between elements", &[b"Bearer,\tDPoP error=x"]),
        ("no blank behind the comma", &[br#"Bearer,DPoP error="x""#]),
        (
            "on the second line",
            &[br#"Bearer realm="a""#, br#"DPoP error="x""#],
        ),
        (
            "behind a broken line",
            &[br#"Bearer realm="a"#, br#"DPoP error="x""#],
        ),
        ("behind an empty line", &[b"", br#"DPoP error="x""#]),
        (
            "the second of two, where the first has no error",
            &[br#"DPoP algs="ES256", DPoP error="x""#],
        ),
        ("the first of two", &[br#"DPoP error="x", DPoP error="y""#]),
        ("given twice", &[br#"DPoP error="x", error="y""#]),
        (
            "beyond ASCII elsewhere",
            &[b"Bearer realm=\"\xff\xfe\", DPoP error=\"x\""],
        ),
        ("before something broken", &[br#"DPoP error="x", @@@"#]),
        ("before an open quote", &[br#"DPoP error="x", foo="abc"#]),
    ];
    for (name, lines) in rows {
        assert_eq!(dpop_error(lines).as_deref(), Some("x"), "C-16: {name}");
    }
}

/// C-16: nothing is found that is not there.
#[test]
fn finds_no_error_where_there_is_none() {
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
        ("an open quote", &[br#"DPoP error="x"#]),
        ("an escape without an end", &[br#"DPoP error="x\"#]),
        ("no value", &[b"DPoP error="]),
        ("an empty value", &[b"DPoP error= , x"]),
        ("an empty value before a semicolon", &[b"DPoP error=;"]),
        (
            "a token68 without a blank before it",
            &[br#"DPoP/abc, error="x""#],
        ),
        ("no comma", &[br#"DPoP foo="a" error="x""#]),
        ("a semicolon", &[br#"DPoP foo="a"; error="x""#]),
        ("a tab behind the scheme's comma", &[b"DPoP,\t"]),
        ("beyond ASCII", &[b"DP\xc3\xb6P error=\"x\""]),
        ("a token68", &[b"DPoP error=="]),
    ];
    for (name, lines) in rows {
        assert_eq!(dpop_error(lines), None, "C-16: {name}");
    }
}

/// C-16: however many a server sends, few are read.
#[test]
fn reads_few_of_endless_challenges() {
    let many = format!("{}DPoP error=x", "Bearer realm=\"a\", ".repeat(10_000));
    assert_eq!(challenges(&[many.as_bytes()]).len(), 16, "on one line");
    let last = format!("{}DPoP error=x", "Bearer realm=\"a\", ".repeat(15));
    assert_eq!(
        dpop_error(&[last.as_bytes()]).as_deref(),
        Some("x"),
        "the last that is read"
    );
    let line: &[u8] = b"Bearer realm=a";
    assert_eq!(challenges(&vec![line; 10_000]).len(), 16, "on many lines");
    let commas = ",".repeat(1 << 20);
    assert_eq!(challenges(&[commas.as_bytes()]).len(), 0, "of none");
    let equals = format!("DPoP a{}", "=".repeat(1 << 20));
    assert_eq!(challenges(&[equals.as_bytes()]).len(), 1, "a long token68");
    let parameters = format!("DPoP {}error=x", "a=b,".repeat(100_000));
    assert_eq!(
        dpop_error(&[parameters.as_bytes()]).as_deref(),
        Some("x"),
        "behind many parameters"
    );
}

/// How a parameter may be written.
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
    /// C-16: whatever a server writes there is read as it was meant.
    #[test]
    fn reads_what_a_server_writes(
        meant in prop::collection::vec(any_challenge(), 0..6),
        comma in prop_oneof![Just(","), Just(", "), Just(" ,\t, ")],
        one_line in any::<bool>(),
    ) {
        let lines: Vec<String> = meant
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
        prop_assert_eq!(read.len(), meant.len(), "{:?}", lines);
        for (challenge, (scheme, content)) in read.iter().zip(&meant) {
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
    fn no_field_of_the_right_letters_makes_the_parser_panic(line in r#"[DPoP ,="\\a\t]{0,60}"#) {
        challenges(&[line.as_bytes()]);
    }

    #[test]
    fn no_body_makes_the_reader_of_token_responses_panic(body in "[{}\\[\\]\":,a-z_0-9 ]{0,80}") {
        let _ = TokenResponse::from_json(body.as_bytes());
    }
}

/// The texts of public values and errors show nothing of a token, a proof, a nonce or a key.
#[test]
fn debug_and_errors_show_no_secret() {
    let nonce = "nonce-of-the-server-1234";
    let refresh = "Q..Zkm29lexi8VnWg2zPW1x-tgGad0Ibc3s3EwM_Ni4-g";
    let key = SigningKey::generate().unwrap();
    let private = key.to_jwk().unwrap().as_str().to_owned();
    let private: serde_json::Value = serde_json::from_str(&private).unwrap();
    let jwk = serde_json::to_value(key.public_key()).unwrap();
    let access = token(TOKEN);
    let proof = good()
        .with_access_token(&access)
        .with_nonce(nonce.parse().unwrap());
    let signed: SignedProof = block_on(proof.sign(&key, now())).unwrap();
    let text = signed.as_header_value().to_str().unwrap().to_owned();
    let segments: Vec<&str> = text.split('.').collect();
    let response = TokenResponse::from_json(
        format!(r#"{{"access_token":"{TOKEN}","token_type":"DPoP","refresh_token":"{refresh}","scope":"orders.read"}}"#)
            .as_bytes(),
    )
    .unwrap();
    let challenge = challenges(&[format!(r#"DPoP error="{nonce}", Basic {TOKEN}"#).as_bytes()]);
    let ath = common::ath(TOKEN);
    let thumbprint = key.thumbprint().to_string();
    let mut secrets = vec![TOKEN, nonce, refresh, &ath, &thumbprint];
    secrets.extend(&segments);
    secrets.extend(["x", "y"].map(|member| jwk[member].as_str().unwrap()));
    secrets.push(private["d"].as_str().unwrap());
    let shown: [(&str, &dyn Debug); 15] = [
        ("AccessTokenText", &access),
        ("its field", access.authorization()),
        ("NewProof", &proof),
        ("SignedProof", &signed),
        ("its field", signed.as_header_value()),
        ("TokenResponse", &response),
        ("Challenge", &challenge),
        ("SigningKey", &key),
        ("SecretText", &key.to_jwk().unwrap()),
        ("SecretBytes", &key.to_pkcs8_der().unwrap()),
        ("InvalidRequestUrl", &InvalidRequestUrl::Path),
        ("InvalidTokenResponse", &InvalidTokenResponse::Malformed),
        (
            "InvalidAccessToken",
            &format!("{TOKEN} ").parse::<AccessTokenText>(),
        ),
        ("SigningError", &SigningError::new("timeout")),
        ("TokenSourceError", &TokenSourceError::new("logged out")),
    ];
    for (name, value) in shown {
        assert_shows_nothing(name, &format!("{value:?} {value:#?}"), &secrets);
    }
    let malformed = TokenResponse::from_json(format!(r#"{{"access_token":"{TOKEN}"#).as_bytes());
    let errors: Vec<Box<dyn std::error::Error>> = vec![
        Box::new(malformed.unwrap_err()),
        Box::new(InvalidAccessToken),
        Box::new(InvalidRequestUrl::NotHttp),
        Box::new(ClientError::OtherServer),
        Box::new(ClientError::BodyNotCopyable),
        Box::new(ClientError::Url(InvalidRequestUrl::Path)),
    ];
    for error in errors {
        let text = error.to_string();
        assert_shows_nothing(&text, &format!("{error:?} {text}"), &secrets);
        assert!(error.source().is_none(), "{text}");
        assert!(text.starts_with(char::is_lowercase), "{text}");
    }
}

/// C-21: an error response is a JSON object with an `error`, and shows no more than that.
#[test]
fn an_error_response_is_told_from_everything_else() {
    let read = |json: &str| TokenErrorResponse::from_json(json.as_bytes());
    let rejected = read(r#"{"error":"invalid_grant","error_description":"secret","x":1}"#).unwrap();
    assert_eq!(rejected.error(), "invalid_grant");
    assert_eq!(rejected.description(), Some("secret"));
    assert!(!format!("{rejected:?}").contains("secret"));
    assert_eq!(read(r#"{"error":"x"}"#).unwrap().description(), None);
    for (name, json) in [
        ("nothing", ""),
        ("no object", r#"["use_dpop_nonce"]"#),
        ("no error", r#"{"error_description":"x"}"#),
        ("an error that is no text", r#"{"error":{"a":1}}"#),
        ("two", r#"{"error":"a","error":"b"}"#),
        ("half of it", r#"{"error":"use_dpop_nonce""#),
        ("something behind it", r#"{"error":"use_dpop_nonce"} x"#),
    ] {
        assert!(read(json).is_none(), "{name}");
    }
}
