//! The whole protocol over real HTTP: a client gets a token that is bound to its key, uses it, and a
//! thief who has the token can do nothing with it.
//!
//! ```sh
//! cargo run --example flow
//! ```
//!
//! The parties are `client.rs`, `authorization_server.rs` and `resource_server.rs`; this file is the
//! story, and stops with an error if a step ends in another way than told.

mod authorization_server;
mod client;
mod resource_server;
mod wire;

use axum::Router;
use http::{Method, Request};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::authorization_server::AuthorizationServer;
use crate::client::{Client, Pkce, ProofKey, resource_request};
use crate::wire::{Answer, Result, peek, random_text, send};

const CLIENT: Client = Client {
    id: "orders-app",
    redirect_uri: "https://app.example/callback",
};

#[tokio::main]
async fn main() -> Result<()> {
    let issuer_listener = TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://{}", issuer_listener.local_addr()?);
    let api_listener = TcpListener::bind("127.0.0.1:0").await?;
    let api = format!("http://{}", api_listener.local_addr()?);

    serve(
        issuer_listener,
        AuthorizationServer::new(&issuer, &api, CLIENT)?.router(),
    );
    let jwks = format!("{issuer}/jwks");
    serve(
        api_listener,
        resource_server::router(&api, &issuer, &jwks).await?,
    );
    println!("An authorization server, a resource server and a client:");
    line("issuer", &issuer);
    line("resource", &api);
    line("client", CLIENT.id);

    let key = ProofKey::generate()?;
    let token = obtain_token(&issuer, &key).await?;
    let orders = format!("{api}/orders");
    let request = use_token(&orders, &key, &token).await?;
    attack(&orders, &key, &token, request).await
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// Steps 1 to 6: from a key to a token that is bound to it.
async fn obtain_token(issuer: &str, key: &ProofKey) -> Result<String> {
    step("1. The client generates a key pair.");
    let jkt = key.thumbprint()?.to_string();
    line("jkt", &jkt);

    note("It sends its user to the authorization server, and gets a code.");
    let (state, pkce) = (random_text()?, Pkce::generate()?);
    let request = CLIENT.authorization_request(&format!("{issuer}/authorize"), &state, &pkce)?;
    sent(&request);
    let answer = send(request).await?;
    answered(&answer, 303);
    let code = answer
        .header("location")
        .strip_prefix(&format!("{}?code=", CLIENT.redirect_uri))
        .and_then(|rest| rest.strip_suffix(&format!("&state={state}")))
        .ok_or("the redirect is not an answer to this request")?;
    line("location", CLIENT.redirect_uri);
    line("code", code);
    line("state", &state);

    step("2. The client signs a proof: this key, this request, now, once.");
    let endpoint = format!("{issuer}/token");
    let proof = key.proof(&Method::POST, &endpoint, None, None)?;
    let (header, first) = peek(&proof)?;
    members(&header, &["typ", "alg", "jwk"]);
    members(&first, &["jti", "htm", "htu", "iat"]);

    step("3. It asks for a token, with the code, the PKCE verifier and the proof.");
    let request = CLIENT.token_request(&endpoint, code, &pkce, &proof)?;
    sent(&request);
    line("dpop", &proof);
    line("body", request.body());
    let answer = send(request).await?;

    step("4. The authorization server wants a proof that was made after it was asked.");
    answered(&answer, 400);
    let refusal: Value = serde_json::from_str(&answer.body)?;
    members(&refusal, &["error"]);
    assert_eq!(refusal["error"], "use_dpop_nonce");
    let nonce = answer.header("dpop-nonce");
    line("dpop-nonce", nonce);

    step(
        "5. The client signs a second proof, with the nonce and another jti. The code is still good.",
    );
    let proof = key.proof(&Method::POST, &endpoint, None, Some(nonce))?;
    let (_, second) = peek(&proof)?;
    members(&second, &["jti", "htm", "htu", "iat", "nonce"]);
    assert_ne!(first["jti"], second["jti"]);

    step("6. It gets a token that is bound to its key.");
    let answer = send(CLIENT.token_request(&endpoint, code, &pkce, &proof)?).await?;
    answered(&answer, 200);
    let granted: Value = serde_json::from_str(&answer.body)?;
    members(&granted, &["token_type", "expires_in", "access_token"]);
    assert_eq!(granted["token_type"], "DPoP");
    let token = granted["access_token"].as_str().ok_or("no token")?;
    note("In the token:");
    let (header, claims) = peek(token)?;
    members(&header, &["typ", "alg"]);
    members(&claims, &["iss", "aud", "sub", "client_id", "scope", "exp"]);
    members(&claims["cnf"], &["jkt"]);
    assert_eq!(claims["cnf"]["jkt"], jkt, "bound to the client's key");
    Ok(token.to_owned())
}

/// Steps 7 and 8: a request with the token, given back as it was sent.
async fn use_token(url: &str, key: &ProofKey, token: &str) -> Result<Request<String>> {
    step("7. The client asks for its orders, with the token and a proof that names it (ath).");
    let proof = key.proof(&Method::GET, url, Some(token), None)?;
    let request = resource_request(url, token, &proof)?;
    sent(&request);
    line("authorization", &format!("DPoP {token}"));
    line("dpop", &proof);
    members(&peek(&proof)?.1, &["jti", "htm", "htu", "iat", "ath"]);

    step("8. The resource server lets it through.");
    let answer = send(request.clone()).await?;
    answered(&answer, 200);
    line("body", &answer.body);
    assert_eq!(answer.body, "the orders of alice");
    Ok(request)
}

/// What a thief can do who has the token and a request of the client's, but not its key.
async fn attack(url: &str, key: &ProofKey, token: &str, overheard: Request<String>) -> Result<()> {
    println!("\nA thief has read that request. Four attacks:");

    step("a. The token as a bearer token.");
    let request = Request::get(url)
        .header("authorization", format!("Bearer {token}"))
        .body(String::new())?;
    refused(&send(request).await?, "invalid_token");

    step("b. The token, and a proof by the thief's own key.");
    let thief = ProofKey::generate()?;
    let proof = thief.proof(&Method::GET, url, Some(token), None)?;
    let request = resource_request(url, token, &proof)?;
    refused(&send(request).await?, "invalid_token");

    step("c. The request once more, as the client sent it.");
    refused(&send(overheard).await?, "invalid_dpop_proof");

    step("d. A new proof by the client, which it made for another server.");
    let elsewhere = "http://elsewhere.example/orders";
    let proof = key.proof(&Method::GET, elsewhere, Some(token), None)?;
    let request = resource_request(url, token, &proof)?;
    refused(&send(request).await?, "invalid_dpop_proof");

    println!("\nMeanwhile the client, with a new proof, is served as before:");
    let proof = key.proof(&Method::GET, url, Some(token), None)?;
    answered(&send(resource_request(url, token, &proof)?).await?, 200);
    Ok(())
}

#[track_caller]
fn refused(answer: &Answer, error: &str) {
    answered(answer, 401);
    let challenge = answer.header("www-authenticate");
    println!("     {challenge}");
    assert!(
        challenge.starts_with("DPoP ") && challenge.contains(&format!(r#"error="{error}""#)),
        "the challenge must say {error}"
    );
    assert_eq!(answer.body, "", "nothing of the resource");
}

#[track_caller]
fn answered(answer: &Answer, status: u16) {
    line("status", &answer.status.to_string());
    assert_eq!(answer.status, status, "{}", answer.body);
}

fn sent(request: &Request<String>) {
    line(request.method().as_str(), &request.uri().to_string());
}

fn step(text: &str) {
    println!("\n{text}");
}

fn note(text: &str) {
    println!("   {text}");
}

fn members(object: &Value, names: &[&str]) {
    for name in names {
        match &object[name] {
            Value::String(text) => line(name, text),
            value => line(name, &value.to_string()),
        }
    }
}

/// One value, cut where it gets too long for a line.
fn line(name: &str, value: &str) {
    const WIDTH: usize = 80;
    if value.chars().count() > WIDTH {
        let start: String = value.chars().take(WIDTH - 3).collect();
        println!("     {name:<14}{start}...");
    } else {
        println!("     {name:<14}{value}");
    }
}
