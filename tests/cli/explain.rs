//! `dpop explain`, with every defect of the test kit.

use http::Method;
use serde_json::Value;
use tower_dpop::testing::{Defect, TestClient, TestIssuer, TestRequest};
use tower_dpop::{NonceSecret, ProofRules, PublicUrl, StatelessNonces};

use crate::{Folder, Run, head};

/// A service, its issuer and a client.
struct Scene {
    folder: Folder,
    client: TestClient,
    issuer: TestIssuer,
}

const API: &str = "https://api.example.com";

impl Scene {
    fn new(name: &str) -> Self {
        let issuer = TestIssuer::new("https://as.example.com", API);
        let folder = Folder::new(name);
        folder.write("jwks.json", &issuer.jwks());
        let rules = ProofRules::new(API.parse::<PublicUrl>().unwrap())
            .with_nonces(StatelessNonces::new(NonceSecret::generate()));
        Self {
            client: TestClient::new(&issuer).with_nonces_of(&rules),
            issuer,
            folder,
        }
    }

    fn request(&self) -> TestRequest {
        self.client.request(Method::GET, &format!("{API}/orders"))
    }

    /// Explains a request, as a server with all settings would see it.
    #[track_caller]
    fn explain(&self, request: &TestRequest, options: &[&str]) -> Run {
        let good = self.request();
        let at = self.issuer.clock().now().as_unix().to_string();
        let mut arguments = vec![
            "explain",
            "--request",
            "-",
            "--public-url",
            API,
            "--at",
            &at,
            "--jwks",
            "jwks.json",
            "--issuer",
            "https://as.example.com",
            "--audience",
            API,
            "--nonce",
            good.proof_claims["nonce"].as_str().unwrap(),
        ];
        arguments.extend(options);
        self.folder.dpop(&arguments, &head(&request.build()))
    }
}

#[track_caller]
fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// The checks with this result.
fn checks<'e>(explanation: &'e Value, result: &str) -> Vec<&'e Value> {
    let checks = explanation["checks"].as_array().unwrap().iter();
    checks.filter(|check| check["result"] == result).collect()
}

#[test]
fn passes_every_check_of_a_good_request() {
    let scene = Scene::new("explain-good");
    let run = scene.explain(&scene.request(), &["--json"]);
    assert_eq!(run.status, 0, "{run:?}");
    let explanation = json(&run);
    assert_eq!(explanation["decision"], "accepted");
    assert_eq!(explanation["reason"], Value::Null);
    assert!(checks(&explanation, "failed").is_empty());
    let not_checked = checks(&explanation, "not checked");
    assert_eq!(not_checked.len(), 1, "{not_checked:?}");
    assert_eq!(not_checked[0]["check"], "first use");
    let numbers = checks(&explanation, "ok")
        .into_iter()
        .filter_map(|check| check["number"].as_u64());
    let numbers: Vec<u64> = numbers.collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12]);
}

/// The check that names a defect, and what it says about it.
#[rustfmt::skip]
const NAMED: &[(Defect, &str, &str)] = &[
    (Defect::NoAuthorization, "Authorization", "no Authorization field"),
    (Defect::SeveralAuthorizations, "Authorization", "2 fields: DPoP and "),
    (Defect::MalformedAuthorization, "Authorization", "DPoP and 2 words"),
    (Defect::BearerScheme, "Authorization", "Bearer and "),
    (Defect::TokenTooLong, "Authorization", "DPoP and 44"),
    (Defect::NoProof, "one DPoP field", "there is no proof; a server that requires nonces asks for a nonce first"),
    (Defect::SeveralProofs, "one DPoP field", "2 DPoP fields"),
    (Defect::ProofTooLong, "well-formed JWT", "at most 8192 bytes"),
    (Defect::ProofNotAJwt, "well-formed JWT", "no dot"),
    (Defect::ProofHeaderNotJson, "well-formed JWT", "it has the member \"typ\" twice"),
    (Defect::ProofPayloadNotJson, "well-formed JWT", "it has the member \"jti\" twice"),
    (Defect::NoJti, "required claims", "missing: jti"),
    (Defect::NoHtm, "required claims", "missing: htm"),
    (Defect::NoHtu, "required claims", "missing: htu"),
    (Defect::NoIat, "required claims", "missing: iat"),
    (Defect::NoAth, "required claims", "missing: ath"),
    (Defect::NoJwk, "required claims", "missing: jwk (in the header)"),
    (Defect::EmptyJti, "required claims", "a jti of 0 bytes"),
    (Defect::LongJti, "required claims", "a jti of 513 bytes"),
    (Defect::WrongTyp, "typ", "JWT"),
    (Defect::CriticalExtension, "no extensions", "crit: [\"unknown\"]"),
    (Defect::AlgNone, "alg", "none"),
    (Defect::AlgHs256, "alg", "HS256"),
    (Defect::WrongSignature, "signature", "the proof was changed after it was signed, or signed with another key"),
    (Defect::PrivateJwk, "jwk", "the members crv d kty x y"),
    (Defect::JwkWithoutKty, "jwk", "the members crv x y"),
    (Defect::JwkOfUnknownType, "jwk", "kty unknown, crv P-256"),
    (Defect::JwkForEncryption, "jwk", "kty EC, crv P-256, use enc"),
    (Defect::JwkForOtherAlgorithm, "jwk", "kty EC, crv P-256, alg ES384"),
    (Defect::OtherMethod, "htm", "POST"),
    (Defect::MalformedUrl, "htu", "it is not an absolute http or https URL"),
    (Defect::OtherScheme, "htu", "the scheme differs: http instead of https"),
    (Defect::OtherHost, "htu", "the host differs: another-host.invalid instead of api.example.com"),
    (Defect::OtherPort, "htu", "the port differs: 8443 instead of 443"),
    (Defect::OtherPath, "htu", "the path differs: /orders/another instead of /orders"),
    (Defect::TooOld, "iat", "259110 s too old"),
    (Defect::FromTheFuture, "iat", "259170 s too far ahead"),
    (Defect::Expired, "exp", "expired 259200 s ago"),
    (Defect::NotYetValid, "nbf", "becomes valid in 259200 s"),
    (Defect::OtherTokensHash, "ath", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    (Defect::TokenNotAJwt, "well-formed JWT", "it does not have the three segments of a JWT"),
    (Defect::TokenTyp, "typ", "dpop+jwt"),
    (Defect::TokenAlgNone, "alg", "none"),
    (Defect::TokenIssuer, "iss", "https://another-issuer.invalid"),
    (Defect::TokenAudience, "aud", "https://another-audience.invalid"),
    (Defect::TokenExpired, "exp", "expired 259200 s ago"),
    (Defect::TokenNotYetValid, "nbf", "becomes valid in 259200 s"),
    (Defect::TokenKey, "signature", "the kid of one of the issuer's keys (1)"),
    (Defect::TokenSignature, "signature", "a signature by the key with this kid"),
    (Defect::TokenWithoutSubject, "claims", "it names neither a user nor a client (sub, client_id)"),
    (Defect::StolenToken, "cnf.jkt", "jkt in the token's cnf: "),
    (Defect::UnboundToken, "cnf.jkt", "cnf of the token: none"),
    (Defect::UnconfirmableToken, "cnf.jkt", "cnf of the token: {\"x5t#S256\":\"AAAA"),
    (Defect::NoNonce, "nonce", "none"),
    (Defect::ForeignNonce, "nonce", "the nonce of the DPoP proof was not issued by this server"),
    (Defect::StaleNonce, "nonce", "issued 259200 s ago"),
    (Defect::NonceFromTheFuture, "nonce", "issued in 259200 s"),
];

#[test]
fn names_each_defect() {
    let scene = Scene::new("explain-defects");
    let request = scene.request();
    let all: Vec<Defect> = request.defects().collect();
    assert_eq!(all, Defect::ALL);
    assert_eq!(all, NAMED.iter().map(|row| row.0).collect::<Vec<_>>());
    for (defect, name, text) in NAMED {
        let run = scene.explain(&request.again().with_defect(*defect), &["--json"]);
        assert_eq!(run.status, 1, "{defect}: {run:?}");
        let explanation = json(&run);
        let [failed] = checks(&explanation, "failed")[..] else {
            panic!("{defect}: not one failed check: {run:?}");
        };
        let rejection = request.rejection_of(*defect);
        assert_eq!(failed["check"], *name, "{defect}");
        assert_eq!(failed["reason"], rejection.reason(), "{defect}");
        assert_eq!(failed["description"], rejection.to_string(), "{defect}");
        let says = ["description", "detail", "found", "expected"];
        let says = says.map(|member| failed[member].as_str().unwrap_or_default());
        assert!(
            says.iter().any(|said| said.starts_with(text)),
            "{defect}: {says:?}"
        );
        // The server's decision.
        assert_eq!(explanation["decision"], "rejected", "{defect}");
        assert_eq!(explanation["reason"], rejection.reason(), "{defect}");
        assert_eq!(
            explanation["status"],
            rejection.status().as_u16(),
            "{defect}"
        );
        assert_eq!(
            explanation["error"].as_str(),
            rejection.error_code(),
            "{defect}"
        );
    }
}

#[test]
fn names_each_defect_of_a_token_request() {
    let scene = Scene::new("explain-token-request");
    let at = scene.issuer.clock().now().as_unix().to_string();
    let request = scene.client.token_request("https://as.example.com/token");
    let nonce = request.proof_claims["nonce"].as_str().unwrap();
    let explain = |request: &TestRequest| {
        let arguments = [
            "explain",
            "--request",
            "-",
            "--token-request",
            "--public-url",
            "https://as.example.com",
            "--at",
            &at,
            "--nonce",
            nonce,
            "--json",
        ];
        scene.folder.dpop(&arguments, &head(&request.build()))
    };
    let good = explain(&request);
    assert_eq!(json(&good)["decision"], "accepted", "{good:?}");
    for defect in request.defects() {
        let explanation = json(&explain(&request.again().with_defect(defect)));
        let failed = checks(&explanation, "failed");
        assert_eq!(failed.len(), 1, "{defect}: {explanation}");
        assert_eq!(
            failed[0]["reason"],
            request.rejection_of(defect).reason(),
            "{defect}"
        );
        assert_eq!(explanation["status"], 400, "{defect}");
    }
}

/// Whatever is wrong, the decision is one of the failed checks.
#[test]
fn shows_the_reason_of_the_decision_among_several() {
    let scene = Scene::new("explain-pairs");
    let request = scene.request();
    let all = Defect::ALL;
    for distance in [7, 19] {
        for (place, one) in all.iter().enumerate() {
            let other = all[(place + distance) % all.len()];
            let request = request.again().with_defect(*one).with_defect(other);
            let explanation = json(&scene.explain(&request, &["--json"]));
            assert_eq!(explanation["decision"], "rejected", "{one}, {other}");
            let failed = checks(&explanation, "failed");
            let reasons: Vec<_> = failed.iter().map(|check| &check["reason"]).collect();
            let reason = &explanation["reason"];
            assert!(
                reasons.contains(&reason),
                "{one}, {other}: {reason}, {reasons:?}"
            );
        }
    }
}

#[test]
fn shows_all_faults_at_once() {
    let scene = Scene::new("explain-all");
    let mut request = scene.request();
    request.proof_header["typ"] = "JWT".into();
    let members = request.proof_claims.as_object_mut().unwrap();
    members.remove("jti");
    members.remove("ath");
    request.proof_claims["htm"] = "DELETE".into();
    request.proof_claims["htu"] = "https://api.example.com/v1/orders".into();
    request.proof_claims["iat"] = 1_699_999_000.into();
    request.token_claims["aud"] = "another".into();
    let run = scene.explain(&request, &[]);
    assert_eq!(run.status, 1);
    for text in [
        "              missing: jti, ath\n",
        "  FAILED   4  typ              the DPoP proof has the wrong typ\n",
        "              found     DELETE\n              expected  GET\n",
        "the path differs: /v1/orders instead of /orders: does a proxy strip or add a prefix?\n",
        "              910 s too old\n",
        "1699999000 (2023-11-14T21:56:40Z), 1000 s ago\n",
        "  FAILED      aud              the access token is for another audience\n",
        "\nrejected: proof_typ (status 401 invalid_dpop_proof)\n",
        "\n6 checks failed: a server reports one of them\n",
    ] {
        assert!(run.stdout.contains(text), "{text}\n{}", run.stdout);
    }
}

/// As `curl -v` of version 8 prints it.
#[test]
fn reads_the_output_of_curl() {
    let scene = Scene::new("explain-curl");
    let sent = head(&scene.request().build());
    let sent = sent
        .replace("HTTP/1.1\r\n", "HTTP/2\r\nHost: api.example.com\r\n")
        .trim_end()
        .replace("\r\n", "\n> ");
    let pasted = format!(
        "* Connected to api.example.com (192.0.2.1) port 443\n* using HTTP/2\n> {sent}\n> \n* Request completely sent off\n\
         < HTTP/2 401 \n< www-authenticate: DPoP error=\"invalid_dpop_proof\"\n< \n{{\"error\": true}}\n"
    );
    scene.folder.write("pasted.txt", &pasted);
    for at in [
        "1700000000",
        "2023-11-14T22:13:20Z",
        "2023-11-14T23:13:20+01:00",
        "Tue, 14 Nov 2023 22:13:20 GMT",
    ] {
        let run = scene
            .folder
            .dpop(&["explain", "--request", "pasted.txt", "--at", at], "");
        let shown = run.output();
        assert!(
            shown
                .starts_with("request  GET https://api.example.com/orders (host from the request;"),
            "{shown}"
        );
        assert!(
            shown.ends_with(
                "accepted, as far as it was checked\nif the server requires nonces: give its latest with --nonce"
            ),
            "{shown}"
        );
        assert!(
            shown.contains("no keys of the issuer were given"),
            "{shown}"
        );
    }
}

#[test]
fn takes_proof_and_token_as_arguments() {
    let scene = Scene::new("explain-arguments");
    let request = scene.request();
    let token = request.token();
    scene
        .folder
        .write("token", &format!("Authorization: DPoP {token}\n"));
    let proof = format!("DPoP: {}", request.proof(&token));
    let url = "https://api.example.com/orders?page=2";
    let good = [
        "explain",
        "--proof",
        "-",
        "--token",
        "@token",
        "--at",
        "1700000000",
        url,
    ];
    scene.folder.dpop(&good, &proof).output();
    let other = [
        "explain",
        "--proof",
        "-",
        "--token",
        "@token",
        "--at",
        "1700000000",
        "-X",
        "POST",
        url,
    ];
    let run = scene.folder.dpop(&other, &proof);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stdout.contains("rejected: proof_htm"), "{run:?}");
    // Without a token, it is a request to a token endpoint, where `ath` is not checked.
    let without = ["explain", "--proof", "-", "--at", "1700000000", url];
    scene.folder.dpop(&without, &proof).output();
}

#[test]
fn explains_tokens_that_are_no_jwts() {
    let scene = Scene::new("explain-opaque");
    let mut request = scene.request();
    request.token = Some("Kz~8mXK1EalYznwH".to_owned());
    let sent = head(&request.build());
    let jkt = request.key.thumbprint().to_string();
    let arguments = [
        "explain",
        "--request",
        "-",
        "--public-url",
        API,
        "--at",
        "1700000000",
    ];
    let unknown = scene.folder.dpop(&arguments, &sent);
    assert!(
        unknown
            .output()
            .contains("only its authorization server can read it"),
        "{unknown:?}"
    );
    let bound = scene
        .folder
        .dpop(&[&arguments[..], &["--jkt", &jkt]].concat(), &sent);
    assert!(
        bound
            .output()
            .contains(&format!("12  cnf.jkt          {jkt}")),
        "{bound:?}"
    );
    // One of 64 values in base64url begins with a hyphen.
    for other in [
        "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        "-ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
    ] {
        let stolen = scene
            .folder
            .dpop(&[&arguments[..], &["--jkt", other]].concat(), &sent);
        assert_eq!(stolen.status, 1);
        assert!(
            stolen.stdout.contains("rejected: binding_other_key"),
            "{stolen:?}"
        );
    }
}

/// Without keys, everything but the signature of the token is checked.
#[test]
fn checks_a_token_without_the_keys_of_its_issuer() {
    let scene = Scene::new("explain-no-keys");
    let explain = |request: &TestRequest| {
        let arguments = [
            "explain",
            "--request",
            "-",
            "--public-url",
            API,
            "--at",
            "1700000000",
            "--json",
        ];
        json(&scene.folder.dpop(&arguments, &head(&request.build())))
    };
    let request = scene.request();
    for (defect, reason) in [
        (Defect::TokenExpired, "token_expired"),
        (Defect::TokenTyp, "token_typ"),
        (Defect::TokenAlgNone, "token_algorithm"),
        (Defect::StolenToken, "binding_other_key"),
        (Defect::UnboundToken, "binding_unbound"),
    ] {
        let explanation = explain(&request.again().with_defect(defect));
        assert_eq!(explanation["reason"], reason, "{defect}");
        assert_eq!(
            checks(&explanation, "failed").len(),
            1,
            "{defect}: {explanation}"
        );
    }
    for defect in [
        Defect::TokenSignature,
        Defect::TokenKey,
        Defect::TokenIssuer,
        Defect::TokenAudience,
    ] {
        assert_eq!(
            explain(&request.again().with_defect(defect))["decision"],
            "accepted",
            "{defect}"
        );
    }
}

/// A proof may be a stranger's: nothing in it reaches the terminal as a control character.
#[test]
fn escapes_what_a_terminal_would_obey() {
    let scene = Scene::new("explain-hostile");
    let hostile = "\u{1b}]0;title\u{7}\u{9b}31m\r\n\u{202e}\u{7f}";
    let mut request = scene.request();
    for claim in ["htm", "htu", "iat", "nonce"] {
        request.proof_claims[claim] = hostile.into();
    }
    for member in ["typ", "alg", "crit", hostile] {
        request.proof_header[member] = hostile.into();
    }
    request.proof_header["jwk"]["kty"] = hostile.into();
    request.proof_header["jwk"][hostile] = hostile.into();
    for claim in ["iss", "aud", "sub", "exp", "cnf"] {
        request.token_claims[claim] = hostile.into();
    }
    request.token_header["kid"] = hostile.into();
    for options in [&[][..], &["--json"]] {
        let run = scene.explain(&request, options);
        assert_eq!(run.status, 1, "{run:?}");
        for text in [&run.stdout, &run.stderr] {
            assert!(
                text.chars()
                    .all(|c| c == '\n' || c == '…' || (' '..='~').contains(&c)),
                "{text:?}"
            );
        }
    }
}

#[test]
fn cuts_long_values_and_rejects_long_inputs() {
    let scene = Scene::new("explain-long");
    let mut request = scene.request();
    request.proof_claims["htm"] = "x".repeat(5000).into();
    let run = scene.explain(&request, &[]);
    assert!(
        run.stdout
            .contains(&format!("found     {}… (5000 bytes)\n", "x".repeat(200))),
        "{run:?}"
    );
    let long = "x".repeat(257 * 1024);
    scene
        .folder
        .dpop(&["explain", "--request", "-"], &long)
        .assert_fails(3, "standard input: longer than 262144 bytes");
}

#[test]
fn uses_colours_only_if_asked() {
    let scene = Scene::new("explain-colours");
    let plain = scene.explain(&scene.request(), &[]);
    assert!(!plain.output().contains('\x1b'));
    let coloured = scene.explain(&scene.request(), &["--color", "always"]);
    assert!(coloured.output().contains("\x1b[32mok"), "{coloured:?}");
    assert!(
        coloured.output().contains("\x1b[32maccepted\x1b[0m"),
        "{coloured:?}"
    );
}

#[test]
fn reports_unusable_input() {
    let scene = Scene::new("explain-usage");
    let proof = &["explain", "--proof", "a.b.c"][..];
    for (arguments, input, status, text) in [
        (&["explain"][..], "", 2, "--proof <PROOF>"),
        (proof, "", 2, "<URL>"),
        (
            &[proof, &["/orders"]].concat(),
            "",
            2,
            "the URL must be absolute",
        ),
        (
            &[proof, &["--at", "yesterday", "https://a.example"]].concat(),
            "",
            2,
            "expected Unix seconds",
        ),
        (
            &[proof, &["--at", "9223372036854775808", "https://a.example"]].concat(),
            "",
            2,
            "later than the year 9999",
        ),
        (
            &[proof, &["--max-age", "86401", "https://a.example"]].concat(),
            "",
            2,
            "86401 is not in 0..=86400",
        ),
        (
            &[
                proof,
                &["--leeway", "18446744073709551615", "https://a.example"],
            ]
            .concat(),
            "",
            2,
            "18446744073709551615 is not in 0..=86400",
        ),
        (
            &[
                proof,
                &["--token", "t", "--jwks", "none", "https://a.example"],
            ]
            .concat(),
            "",
            3,
            "none: No such file",
        ),
        (
            &["explain", "--request", "-"],
            "",
            2,
            "--request: it is empty",
        ),
        (
            &["explain", "--request", "-"],
            "hello\n",
            2,
            "the first line must be a request line",
        ),
        (
            &["explain", "--request", "-"],
            "GET / HTTP/1.1\nDPoP\n",
            2,
            "header field 1 is not of the form",
        ),
        (
            &["explain", "--request", "-"],
            "GET / HTTP/1.1\nDPoP: a.b.c\n",
            2,
            "it has no Host field",
        ),
        (
            &["explain", "--request", "-", "--public-url", "api"],
            "",
            2,
            "must be an absolute URL",
        ),
    ] {
        scene
            .folder
            .dpop(arguments, input)
            .assert_fails(status, text);
    }
}

/// As the library reads it: canonical base64url without padding, and a signature.
#[test]
fn reads_the_segments_of_a_token_strictly() {
    let scene = Scene::new("explain-segments");
    let token = (0..3)
        .map(|length| {
            let mut request = scene.request();
            request.token_claims["note"] = "x".repeat(length).into();
            request.token()
        })
        .find(|token| token.split('.').nth(1).unwrap().len() % 4 == 2)
        .unwrap();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("{token}");
    };
    let malformed = ("well-formed JWT", "token_malformed");
    let mut with_wrong_kid = scene.request();
    with_wrong_kid.token_header["kid"] = true.into();
    let stray = with_stray_bit;
    for (token, (check, reason)) in [
        (
            format!("{}.{payload}.{signature}", stray(header)),
            malformed,
        ),
        (
            format!("{header}.{}.{signature}", stray(payload)),
            malformed,
        ),
        (
            format!("{header}.{payload}.{}", stray(signature)),
            malformed,
        ),
        (with_wrong_kid.token(), malformed),
        (format!("{}.{payload}.{signature}", &header[..9]), malformed),
        (format!("{header}.{payload}.{signature}=="), malformed),
        (
            format!("{header}.{payload}."),
            ("signature", "token_signature"),
        ),
    ] {
        let mut request = scene.request();
        request.token = Some(token.clone());
        let with_keys = json(&scene.explain(&request, &["--json"]));
        let arguments = [
            "explain",
            "--request",
            "-",
            "--public-url",
            API,
            "--at",
            "1700000000",
            "--json",
        ];
        let without_keys = json(&scene.folder.dpop(&arguments, &head(&request.build())));
        for explanation in [with_keys, without_keys] {
            assert_eq!(explanation["reason"], reason, "{token}");
            let [failed] = checks(&explanation, "failed")[..] else {
                panic!("{token}: not one failed check: {explanation}");
            };
            assert_eq!(failed["check"], check, "{token}");
            assert_eq!(failed["reason"], reason, "{token}");
        }
    }
}

/// The same bytes, written with another last character.
fn with_stray_bit(segment: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = segment.split_at(segment.len() - 1);
    let place = ALPHABET.find(last).unwrap();
    format!("{start}{}", &ALPHABET[place + 1..place + 2])
}

#[test]
fn uses_the_longest_window_and_the_latest_time() {
    let scene = Scene::new("explain-limits");
    let mut request = scene.request();
    request.proof_claims["iat"] = 0.into();
    for (at, by) in [
        ("86401", "1 s too old"),
        ("253402300799", "253402214399 s too old"),
    ] {
        let options = ["--at", at, "--max-age", "86400", "--leeway", "0"];
        let arguments = ["explain", "--request", "-", "--public-url", API];
        let run = scene.folder.dpop(
            &[&arguments[..], &options].concat(),
            &head(&request.build()),
        );
        assert_eq!(run.status, 1, "{run:?}");
        assert!(run.stdout.contains(by), "{run:?}");
        let expected = "from 86400 s before to 0 s after the time of the server";
        assert!(run.stdout.contains(expected), "{run:?}");
    }
}

/// The other parts of the proof are checked all the same.
#[test]
fn checks_a_proof_for_a_request_target_that_is_malformed() {
    let scene = Scene::new("explain-target");
    let request = scene.request();
    let mut other = request.again();
    other.proof_header["typ"] = "JWT".into();
    let sent = |request: &TestRequest, line: &str| {
        let (_, fields) = head(&request.build()).split_once("\r\n").map_or_else(
            || panic!("no request line"),
            |(line, fields)| (line.to_owned(), fields.to_owned()),
        );
        format!("{line}\r\n{fields}")
    };
    for line in [
        "GET /caf\u{e9} HTTP/1.1",
        "GET * HTTP/1.1",
        "GET https://other.example/orders HTTP/1.1",
        "CONNECT api.example.com:443 HTTP/1.1",
    ] {
        for (request, faults) in [(&request, 1), (&other, 2)] {
            let arguments = [
                "explain",
                "--request",
                "-",
                "--public-url",
                API,
                "--at",
                "1700000000",
                "--json",
            ];
            let explanation = json(&scene.folder.dpop(&arguments, &sent(request, line)));
            let failed = checks(&explanation, "failed");
            assert_eq!(failed.len(), faults, "{line}: {explanation}");
            assert_eq!(failed[0]["check"], "request target", "{line}");
            assert_eq!(failed[0]["reason"], explanation["reason"], "{line}");
            let not_checked = checks(&explanation, "not checked");
            let names: Vec<_> = not_checked
                .iter()
                .filter(|check| check["detail"] == "no proof can be for this request target")
                .map(|check| &check["check"])
                .collect();
            assert_eq!(names, ["htm", "htu"], "{line}: {explanation}");
            let text = explanation.to_string();
            assert!(!text.contains("wrong type"), "{line}: {explanation}");
        }
    }
}

/// The library compares its thumbprint first.
#[test]
fn explains_a_key_that_is_no_point_of_its_curve() {
    let scene = Scene::new("explain-point");
    let mut request = scene.request();
    request.proof_header["jwk"]["x"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE".into();
    let explanation = json(&scene.explain(&request, &["--json"]));
    assert_eq!(explanation["reason"], "binding_other_key");
    let failed = checks(&explanation, "failed");
    let names: Vec<_> = failed.iter().map(|check| &check["check"]).collect();
    assert_eq!(names, ["jwk", "cnf.jkt"], "{explanation}");
}

/// Two statements about the same key could differ, and the library would read the token's.
#[test]
fn takes_no_thumbprint_for_a_token_that_names_its_key() {
    let scene = Scene::new("explain-two-keys");
    let request = scene.request();
    let own = request.key.thumbprint().to_string();
    for jkt in [&*own, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"] {
        scene
            .explain(&request, &["--jkt", jkt])
            .assert_fails(2, "--jkt is for a token that is not a JWT");
    }
}
