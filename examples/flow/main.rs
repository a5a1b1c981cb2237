//! The whole protocol over real HTTP: a client gets a token that is bound to its key and uses it,
//! and a thief cannot use the stolen token.
//!
//! ```sh
//! cargo run --example flow               # the story
//! cargo run --example flow -- --verbose  # with every header field, and every JWT decoded
//! ```
//!
//! The authorization server is the one in `examples/authorization_server`. The example stops with
//! an error if a step has an unexpected result.

#[path = "../authorization_server/server.rs"]
mod authorization_server;
mod narrator;

use std::collections::HashMap;
use std::env;
use std::time::{Duration, SystemTime};

use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, Uri};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_dpop::client::{AccessTokenText, DpopClientLayer, NewProof, TokenResponse};
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::resource::{BindingError, CredentialsError};
use tower_dpop::testing::{Defect, TestClient, TestClock, TestResponse};
use tower_dpop::{
    Algorithms, BoundToken, Claims, DpopLayer, JwtVerifier, KeySet, PublicUrl, Rejection,
    Timestamp, Verifier,
};

use crate::narrator::{Narrator, Result, Verbosity, line, members, note, step};

/// A public client that is registered with the authorization server.
const CLIENT: &str = "app";
const REDIRECT_URI: &str = "http://127.0.0.1/callback";

#[tokio::main]
async fn main() -> Result<()> {
    let verbosity = match env::args().nth(1).as_deref() {
        None => Verbosity::Brief,
        Some("--verbose") => Verbosity::Verbose,
        Some(_) => return Err("usage: flow [--verbose]".into()),
    };
    let story = Narrator::new(verbosity);
    let issuer_listener = TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://{}", issuer_listener.local_addr()?);
    let api_listener = TcpListener::bind("127.0.0.1:0").await?;
    let api = format!("http://{}", api_listener.local_addr()?);

    serve(
        issuer_listener,
        authorization_server::router(authorization_server::Settings {
            issuer: issuer.clone(),
            audience: api.clone(),
            algorithms: Algorithms::default(),
            nonces: true,
            token_lifetime: Duration::from_secs(300),
        })?,
    );
    serve(api_listener, resource_server(&story, &api, &issuer).await?);
    println!("An authorization server, a resource server and a client:");
    line("issuer", &issuer);
    line("resource", &api);
    line("client", CLIENT);

    let key = SigningKey::generate()?;
    let token = obtain_token(&story, &issuer, &key).await?;
    let orders: Uri = format!("{api}/orders").parse()?;
    let overheard = use_token(&story, &orders, &key, &token).await?;
    attack(&story, &api, &token, &key, overheard).await?;

    println!("\nMeanwhile the client, with a new proof, is served as before:");
    let layer = DpopClientLayer::new(key, token, api.parse()?);
    let client = layer.layer(story.http.clone());
    let request = Request::get(orders).body(String::new())?;
    let response = client.oneshot(request).await?;
    line("status", response.status().as_str());
    if response.status().is_success() {
        Ok(())
    } else {
        Err("the client is not served".into())
    }
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// axum and the layer, with the authorization server's keys. The only resource is `/orders`.
async fn resource_server(story: &Narrator, api: &str, issuer: &str) -> Result<Router> {
    let keys: KeySet = story.fetch(&format!("{issuer}/jwks")).await?.parse()?;
    let verifier = Verifier::new(
        api.parse::<PublicUrl>()?,
        JwtVerifier::new(issuer, api, keys),
    );
    Ok(Router::new()
        .route("/orders", get(orders))
        .route_layer(DpopLayer::new(verifier)))
}

async fn orders(Extension(token): Extension<BoundToken<Claims>>) -> String {
    format!(
        "the orders of {}",
        token.claims().subject().unwrap_or("a machine")
    )
}

/// Steps 1 to 6: from a key to a token that is bound to it.
async fn obtain_token(story: &Narrator, issuer: &str, key: &SigningKey) -> Result<AccessTokenText> {
    step("1. The client generates a key pair.");
    let jkt = key.thumbprint().to_string();
    line("jkt", &jkt);

    note("It sends its user to the authorization server, and gets a code.");
    let (state, code_verifier) = (random_text()?, random_text()?);
    let code_challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&code_verifier));
    let query = form(&[
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", REDIRECT_URI),
        ("state", &state),
        ("code_challenge", &code_challenge),
        ("code_challenge_method", "S256"),
        ("dpop_jkt", &jkt),
    ]);
    let request = Request::get(format!("{issuer}/authorize?{query}")).body(String::new())?;
    let response = story.send(request).await?;
    story.responded(&response, 303)?;
    let code = code_in(header(&response, "location"), &state, issuer)?;
    line("code", &code);

    step("2. The client signs a proof: this key, this request, now, once.");
    let endpoint: Uri = format!("{issuer}/token").parse()?;
    let proof = NewProof::new(&Method::POST, &endpoint)?;
    let first = proof.sign(key, now()).await?;
    let claims = story.claims(
        first.as_str(),
        &["typ", "alg", "jwk"],
        &["jti", "htm", "htu", "iat"],
    )?;
    let first_jti = claims["jti"].clone();

    step("3. It asks for a token, with the code, the PKCE verifier and the proof.");
    let request = Request::post(&endpoint)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("dpop", first.as_header_value())
        .body(form(&[
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT),
            ("redirect_uri", REDIRECT_URI),
            ("code", &code),
            ("code_verifier", &code_verifier),
        ]))?;
    let response = story.send(request.clone()).await?;

    step("4. The authorization server wants a proof that was made after it was asked.");
    story.responded(&response, 400)?;
    let rejection: Value = serde_json::from_str(response.body())?;
    members(&rejection, &["error"]);
    assert_eq!(rejection["error"], "use_dpop_nonce");
    let nonce = header(&response, "dpop-nonce");
    line("dpop-nonce", nonce);

    step(
        "5. The client signs a second proof, with the nonce and another jti. The code is still good.",
    );
    let second = proof.with_nonce(nonce.parse()?).sign(key, now()).await?;
    let claims = story.claims(second.as_str(), &[], &["jti", "htm", "htu", "iat", "nonce"])?;
    assert_ne!(claims["jti"], first_jti);

    step("6. It gets a token that is bound to its key.");
    let mut request = request;
    request
        .headers_mut()
        .insert("dpop", second.as_header_value().clone());
    let response = story.send(request).await?;
    story.responded(&response, 200)?;
    let granted: Value = serde_json::from_str(response.body())?;
    members(&granted, &["token_type", "expires_in", "access_token"]);
    let granted = TokenResponse::from_json(response.body().as_bytes())?;
    note("In the token:");
    let claims = story.claims(
        granted.access_token().as_str(),
        &["typ", "alg"],
        &["iss", "aud", "sub", "client_id", "scope", "exp"],
    )?;
    members(&claims["cnf"], &["jkt"]);
    assert_eq!(claims["cnf"]["jkt"], jkt, "bound to the client's key");
    Ok(granted.access_token().clone())
}

/// Steps 7 and 8: a request with the token. Returns the request as it was sent.
async fn use_token(
    story: &Narrator,
    url: &Uri,
    key: &SigningKey,
    token: &AccessTokenText,
) -> Result<Request<String>> {
    step("7. The client asks for its orders, with the token and a proof that names it (ath).");
    let proof = NewProof::new(&Method::GET, url)?.with_access_token(token);
    let proof = proof.sign(key, now()).await?;
    let members = ["jti", "htm", "htu", "iat", "ath"];
    story.claims(proof.as_str(), &[], &members)?;
    let request = Request::get(url)
        .header("authorization", token.authorization())
        .header("dpop", proof.as_header_value())
        .body(String::new())?;
    let response = story.send(request.clone()).await?;

    step("8. The resource server lets it through.");
    story.responded(&response, 200)?;
    line("body", response.body());
    assert_eq!(response.body(), "the orders of alice");
    Ok(request)
}

/// The attacks of a thief who has the token and one request of the client, but not its key. The
/// test kit makes the requests and knows the expected response to each.
async fn attack(
    story: &Narrator,
    api: &str,
    token: &AccessTokenText,
    key: &SigningKey,
    overheard: Request<String>,
) -> Result<()> {
    println!("\nA thief has read that request. Five attacks:");
    let url = format!("{api}/orders");
    // A client with its own key and the stolen token.
    let clock = TestClock::from(SystemTime::now());
    let thief = TestClient::without_issuer(clock).with_token(token.as_str());
    let request = |client: &TestClient, url: &str| client.request(Method::GET, url).sent_to(api);

    step("a. The token as a bearer token.");
    let bearer = request(&thief, &url).with_defect(Defect::BearerScheme);
    rejected(story, bearer.build(), CredentialsError::Bearer).await?;

    step("b. The token, and a proof by the thief's own key.");
    let own_key = request(&thief, &url);
    rejected(story, own_key.build(), BindingError::OtherKey).await?;

    step("c. The request once more, as the client sent it.");
    rejected(story, overheard, ProofError::Replayed).await?;

    step("d. A new proof by the client, which it made for another server.");
    let client = thief.with_key(key.clone());
    let elsewhere = request(&client, "http://elsewhere.example:8080/orders");
    rejected(story, elsewhere.build(), ProofError::Url(UrlMismatch::Host)).await?;

    step("e. Whatever else can be wrong with a request, one thing at a time:");
    let good = request(&client, &url);
    let mut names = Vec::new();
    for defect in good.defects() {
        let request = good.again().with_defect(defect).build();
        let (head, _) = story.http.request(request).await?.into_parts();
        let response = TestResponse::of(&Response::from_parts(head, ()));
        response.assert_reason(defect.name(), good.rejection_of(defect));
        names.push(defect.name());
    }
    for name in &names {
        println!("     rejected: {name}");
    }
    Ok(())
}

async fn rejected(
    story: &Narrator,
    request: Request<String>,
    reason: impl Into<Rejection>,
) -> Result<()> {
    let response = story.send(request).await?;
    story.responded(&response, 401)?;
    println!("     {}", header(&response, "www-authenticate"));
    TestResponse::of(&response).assert_reason("the thief's request", reason);
    assert_eq!(response.body(), "", "nothing of the resource");
    Ok(())
}

/// The code in the redirect for this request (RFC 6749 section 4.1.2, RFC 9207).
fn code_in(location: &str, state: &str, issuer: &str) -> Result<String> {
    let query = location
        .strip_prefix(REDIRECT_URI)
        .and_then(|rest| rest.strip_prefix('?'))
        .ok_or("the redirect leads elsewhere")?;
    let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
    let is = |name: &str, value: &str| parameters.get(name).is_some_and(|found| found == value);
    if is("state", state) && is("iss", issuer) {
        let code = parameters.get("code").ok_or("there is no code")?;
        Ok(code.clone().into_owned())
    } else {
        Err("the redirect belongs to another request".into())
    }
}

fn form(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

/// A header field, or an empty string if there is none.
fn header<'r>(response: &'r Response<String>, name: &str) -> &'r str {
    let field = response.headers().get(name);
    field.and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// 43 characters from 256 random bits, enough for a `code_verifier` (RFC 7636 section 4.1).
fn random_text() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
