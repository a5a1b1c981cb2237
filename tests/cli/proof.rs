//! `dpop proof`.

use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{TestClient, TestClock, TestIssuer};
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::{ProofRules, PublicUrl, Verifier};

use crate::Folder;

const URL: &str = "https://api.example.com/orders?page=2";

fn rules() -> ProofRules {
    ProofRules::new("https://api.example.com".parse::<PublicUrl>().unwrap())
}

#[tokio::test]
async fn makes_a_proof_that_a_server_accepts() {
    let folder = Folder::new("proof");
    folder.dpop(&["keygen"], "").output();
    let key = SigningKey::from_pkcs8_pem(&folder.read("key.pem")).unwrap();
    let issuer = TestIssuer::new("https://as.example.com", "https://api.example.com")
        .with_clock(TestClock::from(SystemTime::now()));
    let client = TestClient::new(&issuer).with_key(key);
    let verifier = Verifier::new(rules(), issuer.jwt_verifier());

    // The token as text, in a file, and on standard input.
    let token = client.request(Method::POST, URL).token();
    folder.write("token", &format!("{token}\n"));
    for (argument, input) in [(token.as_str(), ""), ("@token", ""), ("-", token.as_str())] {
        let arguments = [
            "proof", "--key", "key.pem", "-X", "POST", "--token", argument, URL,
        ];
        let proof = folder.dpop(&arguments, input).output().to_owned();
        let mut request = client.request(Method::POST, URL);
        request.authorization = Some(vec![format!("DPoP {token}").parse().unwrap()]);
        request.dpop = Some(vec![proof.parse().unwrap()]);
        let (head, ()) = request.build::<()>().into_parts();
        verifier.verify(&head).await.unwrap();
        let used = verifier.verify(&head).await.unwrap_err();
        assert_eq!(used.reason(), "proof_replayed");
    }
}

#[tokio::test]
async fn makes_a_proof_for_a_token_endpoint_as_a_header_field() {
    let folder = Folder::new("proof-header");
    folder
        .dpop(&["keygen", "--alg", "Ed25519", "--format", "jwk"], "")
        .output();
    let arguments = [
        "proof", "--key", "key.jwk", "--header", "-X", "POST", "--nonce", "-n-1", URL,
    ];
    let field = folder.dpop(&arguments, "").output().to_owned();
    let proof: HeaderValue = field.strip_prefix("DPoP: ").unwrap().parse().unwrap();

    let client = TestClient::without_issuer(TestClock::from(SystemTime::now()));
    let mut request = client.token_request(URL);
    request.dpop = Some(vec![proof]);
    let (head, ()) = request.build::<()>().into_parts();
    assert!(!head.headers.contains_key(AUTHORIZATION));
    let proven = TokenEndpoint::new(rules()).verify(&head).await.unwrap();
    let key = SigningKey::from_jwk(&folder.read("key.jwk")).unwrap();
    assert_eq!(proven.thumbprint(), key.thumbprint());
}

#[test]
fn reports_what_is_wrong_with_its_arguments() {
    let folder = Folder::new("proof-errors");
    folder.dpop(&["keygen"], "").output();
    folder.write(
        "public.pem",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
    );
    let key = ["proof", "--key", "key.pem"];
    for (arguments, status, text) in [
        (&["--nonce", "a\"b", URL][..], 2, "not a nonce"),
        (
            &["--alg", "ES384", URL],
            3,
            "the key does not match the algorithm",
        ),
        (&["--token", "a b", URL], 2, "--token: "),
        (
            &["--token", "@missing", URL],
            3,
            "missing: No such file or directory",
        ),
        (&["/orders"], 2, "/orders: "),
        (&[], 2, "<URL>"),
    ] {
        let arguments: Vec<_> = key.iter().chain(arguments).copied().collect();
        folder.dpop(&arguments, "").assert_fails(status, text);
    }
    folder
        .dpop(&["proof", "--key", "public.pem", URL], "")
        .assert_fails(3, "openssl pkcs8 -topk8 -nocrypt");
}

#[cfg(unix)]
#[test]
fn warns_if_others_can_read_the_key() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("proof-mode");
    folder.dpop(&["keygen"], "").output();
    let arguments = ["proof", "--key", "key.pem", URL];
    assert_eq!(folder.dpop(&arguments, "").stderr, "");
    std::fs::set_permissions(folder.path("key.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    let warned = folder.dpop(&arguments, "");
    warned.output();
    assert!(
        warned
            .stderr
            .contains("other users may read this key (mode 644)")
    );
}
