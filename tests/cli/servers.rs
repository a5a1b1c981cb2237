//! `dpop token` and `dpop curl`, with both servers on the loopback. Both require nonces.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use axum::serve::Listener;
use axum::{Extension, Json, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_dpop::jose::SigningKey;
use tower_dpop::resource::Scopes;
use tower_dpop::testing::{TestClock, TestIssuer};
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::{
    BoundToken, DpopLayer, NonceSecret, ProofRules, RequireScopesLayer, StatelessNonces, Verifier,
};

use crate::guide::output_of;
use crate::{Folder, Run};

/// Both servers, and a folder with a key and the client's secret.
pub(crate) struct Servers {
    pub(crate) folder: Folder,
    issuer: String,
    pub(crate) api: String,
}

struct AuthorizationServer {
    issuer: TestIssuer,
    endpoint: TokenEndpoint,
}

/// The credentials `service:service-secret` in `Authorization: Basic`.
const BASIC: &str = "Basic c2VydmljZTpzZXJ2aWNlLXNlY3JldA==";

impl Servers {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, "http", None, |tcp| tcp).await
    }

    /// The public URL of the API is another one than clients use.
    pub(crate) async fn start_behind(name: &str, public_url: &str) -> Self {
        Self::start_at(name, "http", Some(public_url), |tcp| tcp).await
    }

    pub(crate) async fn start_at<L>(
        name: &str,
        scheme: &str,
        public_url: Option<&str>,
        listen: impl Fn(TcpListener) -> L,
    ) -> Self
    where
        L: Listener,
        L::Addr: Debug,
    {
        let folder = Folder::new(name);
        folder.write("secret.txt", "service-secret\n");
        folder.dpop(&["keygen"], "").output();

        let (to_issuer, to_api) = (listener().await, listener().await);
        let (issuer, api) = (url(scheme, &to_issuer), url(scheme, &to_api));
        let test_issuer =
            TestIssuer::new(&issuer, "urn:orders").with_clock(TestClock::from(SystemTime::now()));
        let verifier = Verifier::new(
            rules(public_url.unwrap_or(&api)),
            test_issuer.jwt_verifier(),
        );
        folder.write("jwks.json", &test_issuer.jwks());

        let app = authorization_server(&issuer, test_issuer);
        let to_issuer = listen(to_issuer);
        tokio::spawn(async move { axum::serve(to_issuer, app).await });
        let app = resource_server(verifier);
        let to_api = listen(to_api);
        tokio::spawn(async move { axum::serve(to_api, app).await });
        Self {
            folder,
            issuer,
            api,
        }
    }

    /// Runs the tool next to the servers.
    pub(crate) async fn dpop(&self, arguments: &[&str], input: &str) -> Run {
        self.dpop_with(&[], arguments, input).await
    }

    pub(crate) async fn dpop_with(
        &self,
        variables: &[(&'static str, &'static str)],
        arguments: &[&str],
        input: &str,
    ) -> Run {
        let variables = variables.to_vec();
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| {
                argument
                    .replace("{api}", &self.api)
                    .replace("{issuer}", &self.issuer)
            })
            .collect();
        let (folder, input) = (Folder(self.folder.0.clone()), input.to_owned());
        let run = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let run = folder.dpop_with(&variables, &arguments, &input);
            // The folder is that of the servers.
            std::mem::forget(folder);
            run
        });
        run.await.unwrap()
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn url(scheme: &str, listener: &TcpListener) -> String {
    format!("{scheme}://{}", listener.local_addr().unwrap())
}

fn rules(url: &str) -> ProofRules {
    ProofRules::new(url.parse().unwrap()).with_nonces(StatelessNonces::new(NonceSecret::generate()))
}

fn authorization_server(url: &str, issuer: TestIssuer) -> Router {
    let metadata = json!({
        "issuer": url,
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "dpop_signing_alg_values_supported": ["ES256"],
    });
    let jwks = issuer.jwks();
    let state = Arc::new(AuthorizationServer {
        endpoint: TokenEndpoint::new(rules(url)),
        issuer,
    });
    Router::new()
        .route("/token", post(token))
        .with_state(state)
        .route(
            "/.well-known/oauth-authorization-server",
            get(|| async { Json(metadata) }),
        )
        .route("/jwks", get(|| async { jwks }))
}

/// Client credentials, for one client.
async fn token(
    State(server): State<Arc<AuthorizationServer>>,
    head: Parts,
    form: String,
) -> Response {
    let proven = match server.endpoint.verify(&head).await {
        Ok(proven) => proven,
        Err(rejection) => return server.endpoint.reject::<Body>(rejection),
    };
    if head
        .headers
        .get(AUTHORIZATION)
        .is_none_or(|field| field != BASIC)
    {
        let error = json!({ "error": "invalid_client" });
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    assert!(form.contains("grant_type=client_credentials"), "{form}");
    let scope = if form.contains("scope=orders.write") {
        "orders.write"
    } else {
        "orders.read"
    };
    let token = server.issuer.token_for(proven.thumbprint());
    Json(json!({
        "access_token": token.with_claim("scope", scope).to_text(),
        "token_type": "DPoP",
        "expires_in": 300,
        "scope": scope,
    }))
    .into_response()
}

fn resource_server(verifier: Verifier) -> Router {
    let scope: Scopes = "orders.write".parse().unwrap();
    Router::new()
        .route("/orders", any(orders))
        .route("/moved", get(|| async { Redirect::to("/orders") }))
        .route(
            "/new",
            post(orders).layer(RequireScopesLayer::<tower_dpop::Claims>::all_of(scope)),
        )
        .route_layer(DpopLayer::new(verifier))
}

async fn orders(
    Extension(token): Extension<BoundToken>,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    Json(json!({
        "sub": token.claims().subject(),
        "jkt": token.thumbprint(),
        "body": String::from_utf8_lossy(&body),
        "content_type": text(CONTENT_TYPE.as_str()),
        "note": text("x-note"),
    }))
}

pub(crate) const GRANT: [&str; 6] = [
    "--issuer",
    "{issuer}",
    "--client-id",
    "service",
    "--client-secret-file",
    "secret.txt",
];

pub(crate) fn with<'a>(command: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&[command], &GRANT[..], arguments].concat()
}

#[tokio::test]
async fn gets_a_token_that_is_bound_to_the_key() {
    let servers = Servers::start("token").await;
    let jkt = SigningKey::from_pkcs8_pem(&servers.folder.read("key.pem"))
        .unwrap()
        .thumbprint();
    let run = servers
        .dpop(&with("token", &["--key", "key.pem", "--json"]), "")
        .await;
    let json: Value = serde_json::from_str(run.output()).unwrap();
    assert_eq!(json["token_type"], "DPoP");
    assert_eq!(json["expires_in"], 300);
    assert_eq!(json["scope"], "orders.read");
    assert_eq!(json["jkt"], jkt.to_string());
    assert_eq!(run.stderr, "");

    let scope = ["--key", "key.pem", "--scope", "orders.write"];
    let token = servers.dpop(&with("token", &scope), "").await;
    servers.folder.write("token", token.output());
    let arguments = [
        "curl",
        "--token",
        "@token",
        "--key",
        "key.pem",
        "{api}/orders",
    ];
    let body: Value = serde_json::from_str(servers.dpop(&arguments, "").await.output()).unwrap();
    assert_eq!(body["jkt"], jkt.to_string());

    // The same token is explained as accepted; its keys are those that the issuer publishes.
    let proof = servers
        .dpop(
            &[
                "proof",
                "--key",
                "key.pem",
                "--token",
                "@token",
                "{api}/orders",
            ],
            "",
        )
        .await;
    servers.folder.write("proof", proof.output());
    let arguments = [
        "explain",
        "--proof",
        "@proof",
        "--token",
        "@token",
        "--issuer",
        "{issuer}",
        "--audience",
        "urn:orders",
        "{api}/orders",
    ];
    let explained = servers.dpop(&arguments, "").await;
    assert!(
        explained.output().contains("by a key of the issuer"),
        "{explained:?}"
    );
    // Keycloak writes its name without the slash.
    let mut with_profile = arguments.to_vec();
    with_profile[6] = "{issuer}/";
    with_profile.extend(["--profile", "keycloak"]);
    servers.dpop(&with_profile, "").await.output();

    let lost = servers.dpop(&with("token", &[]), "").await;
    lost.output();
    assert!(
        lost.stderr.contains("a key that is lost after this run"),
        "{lost:?}"
    );
}

#[tokio::test]
async fn sends_a_request_with_the_nonces_of_both_servers() {
    let servers = Servers::start("curl").await;
    let run = servers.dpop(&with("curl", &["{api}/orders"]), "").await;
    let body: Value = serde_json::from_str(run.output()).unwrap();
    assert_eq!((&body["sub"], &body["body"]), (&json!("alice"), &json!("")));
    assert_eq!(run.stderr, "");

    servers.folder.write("order.json", "{\"one\": 1}\n");
    let headers = ["-H", "content-type: application/json", "-H", "x-note: a: b"];
    for (data, input) in [("@order.json", ""), ("@-", "{\"one\": 1}\n")] {
        let arguments = [
            &headers[..],
            &["-i", "-X", "PUT", "-d", data, "{api}/orders"],
        ]
        .concat();
        let run = servers.dpop(&with("curl", &arguments), input).await;
        let (head, body) = run.output().split_once("\n\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\n"), "{head}");
        assert!(head.contains("\ncontent-type: application/json"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["body"], "{\"one\": 1}\n");
        assert_eq!(body["content_type"], "application/json");
        assert_eq!(body["note"], "a: b");
    }
    let run = servers
        .dpop(&with("curl", &["-d", "a=b", "{api}/orders"]), "")
        .await;
    let body: Value = serde_json::from_str(run.output()).unwrap();
    assert_eq!(body["content_type"], "application/x-www-form-urlencoded");
}

#[tokio::test]
async fn shows_what_is_sent_without_what_could_be_used() {
    let servers = Servers::start("curl-verbose").await;
    let token = servers
        .dpop(&with("token", &["--key", "key.pem"]), "")
        .await;
    let token = token.output().to_owned();
    servers.folder.write("token", &token);
    let arguments = [
        "curl",
        "-v",
        "--token",
        "@token",
        "--key",
        "key.pem",
        "{api}/orders?page=2",
    ];
    let run = servers.dpop(&arguments, "").await;
    run.output();
    let shown = &run.stderr;
    assert_eq!(
        shown
            .matches("> GET /orders?page=2 HTTP/1.1\n> host: 127.0.0.1:")
            .count(),
        2,
        "{shown}"
    );
    assert_eq!(
        shown.matches("\n> authorization: DPoP eyJ").count(),
        2,
        "{shown}"
    );
    assert_eq!(shown.matches("\n> dpop: eyJ").count(), 2, "{shown}");
    assert!(shown.contains("< HTTP/1.1 401 Unauthorized\n"), "{shown}");
    assert!(shown.contains("\n< HTTP/1.1 200 OK\n"), "{shown}");
    let longest = shown
        .split_whitespace()
        .filter(|word| word.starts_with("eyJ"))
        .map(str::len);
    assert!(longest.max().unwrap() < 20, "{shown}");
    assert!(!shown.contains(token.rsplit('.').next().unwrap()));
}

#[tokio::test]
async fn reports_a_rejection_with_status_22() {
    let servers = Servers::start("curl-rejected").await;
    servers
        .folder
        .dpop(&["keygen", "--out", "other.pem"], "")
        .output();
    let token = servers
        .dpop(&with("token", &["--key", "key.pem"]), "")
        .await;
    servers.folder.write("token", token.output());

    let arguments = [
        "curl",
        "--token",
        "@token",
        "--key",
        "other.pem",
        "{api}/orders",
    ];
    let rejected = servers.dpop(&arguments, "").await;
    rejected.assert_fails(22, "dpop: status 401 Unauthorized: invalid_token");
    let command = "dpop curl --token @token --key other.pem https://api.example.com/orders";
    assert_eq!(rejected.stderr, output_of(command));

    servers
        .dpop(&with("curl", &["-X", "POST", "{api}/new"]), "")
        .await
        .assert_fails(22, "insufficient_scope");
    servers
        .dpop(
            &with(
                "curl",
                &["--scope", "orders.write", "-X", "POST", "{api}/new"],
            ),
            "",
        )
        .await
        .output();
    servers
        .dpop(&with("curl", &["{api}/none"]), "")
        .await
        .assert_fails(22, "dpop: status 404 Not Found");
    let moved = servers.dpop(&with("curl", &["{api}/moved"]), "").await;
    assert_eq!(moved.status, 0, "{moved:?}");
    assert!(
        moved.stderr.contains("redirects are not followed"),
        "{moved:?}"
    );
}

#[tokio::test]
async fn reports_why_there_is_no_token_or_no_response() {
    let servers = Servers::start("curl-errors").await;
    servers.folder.write("wrong.txt", "wrong");
    let wrong = [
        "--issuer",
        "{issuer}",
        "--client-id",
        "service",
        "--client-secret-file",
        "wrong.txt",
    ];
    let cases: [(Vec<&str>, i32, &str); 9] = [
        (
            [&["curl"], &wrong[..], &["{api}/orders"]].concat(),
            3,
            "rejected the request with 401: invalid_client",
        ),
        (
            [&["token"], &wrong[..]].concat(),
            3,
            "are the client's name and its secret right",
        ),
        (
            vec!["token", "--issuer", "{issuer}", "--client-id", "service"],
            2,
            "or set DPOP_CLIENT_SECRET",
        ),
        (
            with("curl", &["http://api.example.com/orders"]),
            2,
            "--insecure-http accepts it",
        ),
        (
            vec![
                "token",
                "--issuer",
                "http://as.example.com",
                "--client-id",
                "a",
            ],
            2,
            "--issuer: ",
        ),
        (vec!["curl", "{api}/orders"], 2, "give --issuer or --token"),
        (
            vec!["curl", "--token", "t", "{api}/orders"],
            2,
            "--key <FILE>",
        ),
        (
            with("curl", &["-H", "DPoP: x", "{api}/orders"]),
            2,
            "this field is set by the tool",
        ),
        (
            vec![
                "curl",
                "--token",
                "t",
                "--key",
                "key.pem",
                "http://127.0.0.1:1/",
            ],
            3,
            "Connection refused",
        ),
    ];
    for (arguments, status, text) in cases {
        servers
            .dpop(&arguments, "")
            .await
            .assert_fails(status, text);
    }
    let twice = ["--client-secret-file", "-", "-d", "@-", "{api}/orders"];
    servers
        .dpop(&[&["curl"], &wrong[..4], &twice].concat(), "service-secret")
        .await
        .assert_fails(2, "standard input can be used for one argument only");
    let elsewhere = [
        "token",
        "--issuer",
        "{api}",
        "--client-id",
        "a",
        "--client-secret-file",
        "-",
    ];
    servers
        .dpop(&elsewhere, "secret")
        .await
        .assert_fails(3, "no metadata of the authorization server");
}

#[tokio::test]
async fn takes_a_secret_as_it_is_without_the_line_break() {
    let servers = Servers::start("secrets").await;
    let command = ["token", "--issuer", "{issuer}", "--client-id", "service"];
    let from_stdin = [&command[..], &["--client-secret-file", "-"]].concat();
    for secret in ["service-secret\r\n", "service-secret\n\n", "service-secret"] {
        servers.dpop(&from_stdin, secret).await.output();
    }
    for secret in [" service-secret\n", "service-secret \n"] {
        servers
            .dpop(&from_stdin, secret)
            .await
            .assert_fails(3, "rejected the request with 401: invalid_client");
    }
    for none in ["", "\n"] {
        servers
            .dpop(&from_stdin, none)
            .await
            .assert_fails(3, "-: there is no secret in it");
    }
    let issuer = servers.issuer.clone();
    for (secret, status) in [("service-secret", 0), ("", 2)] {
        let (folder, issuer) = (servers.folder.0.clone(), issuer.clone());
        let run = tokio::task::spawn_blocking(move || {
            std::process::Command::new(env!("CARGO_BIN_EXE_dpop"))
                .args(["token", "--client-id", "service", "--issuer", &issuer])
                .current_dir(folder)
                .env("DPOP_CLIENT_SECRET", secret)
                .output()
                .unwrap()
        });
        let run = Run::of(&run.await.unwrap());
        assert_eq!(run.status, status, "{run:?}");
        assert_eq!(
            status == 2,
            run.stderr.contains("no client secret"),
            "{run:?}"
        );
    }
}

/// A proxy for `https` sees the host, and nothing else.
#[test]
fn https_goes_through_the_proxy_of_the_environment() {
    use std::io::{BufRead, BufReader, Write};

    let folder = Folder::new("proxy");
    folder.dpop(&["keygen"], "").output();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap().to_string();
    let seen = std::thread::spawn(move || {
        let (mut tool, _) = listener.accept().unwrap();
        let lines = BufReader::new(&tool).lines().map(Result::unwrap);
        let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        tool.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap();
        lines
    });
    let curl = [
        "curl",
        "--token",
        "marker-token",
        "--key",
        "key.pem",
        "https://api.example.com/orders",
    ];
    folder
        .dpop_with(&[("https_proxy", &proxy)], &curl, "")
        .assert_fails(3, "dpop: ");
    let seen = seen.join().unwrap();
    assert_eq!(seen[0], "CONNECT api.example.com:443 HTTP/1.1");
    assert!(!seen.concat().contains("marker-token"), "{seen:?}");

    for url in ["socks5://user:marker-password@127.0.0.1:1", "http://"] {
        let run = folder.dpop_with(&[("https_proxy", url)], &curl, "");
        run.assert_fails(2, "https_proxy is not the URL of an HTTP proxy");
        assert!(!run.stderr.contains("marker-password"));
    }
}
