//! The client: how it gets a token that is bound to its key, and how it uses the token.

use std::collections::HashMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, Uri};
use serde_json::Value;
use tower::Layer;
use tower_dpop::Timestamp;
use tower_dpop::client::{AccessTokenText, DpopClientLayer, NewProof, TokenResponse};
use tower_dpop::jose::SigningKey;

use crate::jwt::{claims, sha256};
use crate::recorder::{Expected, Recorder, Result};
use crate::story::{Mark, Party, Route};

/// A public client that is registered with the authorization server.
pub(crate) const ID: &str = "app";
const REDIRECT_URI: &str = "http://127.0.0.1/callback";

const TO_ISSUER: Route = Route(Party::Client, Party::AuthorizationServer);
const TO_API: Route = Route(Party::Client, Party::ResourceServer);

/// From a key to a token that is bound to it.
pub(crate) async fn get_token(
    recorder: &mut Recorder,
    issuer: &str,
    key: &SigningKey,
) -> Result<AccessTokenText> {
    recorder.chapter("The client gets a token that is bound to its key");
    recorder.step("The client generates a key pair. The private key never leaves it.");
    let jkt = key.thumbprint().to_string();
    recorder.story.mark(Mark::Key, &jkt);
    recorder.story.fact("jkt, the key's thumbprint", &jkt);

    recorder.step(
        "It sends its user to the authorization server, with the thumbprint. It gets a code.",
    );
    let (state, code_verifier) = (random_text()?, random_text()?);
    let query = form(&[
        ("response_type", "code"),
        ("client_id", ID),
        ("redirect_uri", REDIRECT_URI),
        ("state", &state),
        ("code_challenge", &sha256(&code_verifier)),
        ("code_challenge_method", "S256"),
        ("dpop_jkt", &jkt),
    ]);
    let request = Request::get(format!("{issuer}/authorize?{query}")).body(String::new())?;
    let expected = Expected(303, "a code for this key");
    let response = recorder
        .send(TO_ISSUER, "dpop_jkt", request, expected)
        .await?;
    let code = code_in(header(&response, "location"), &state, issuer)?;

    recorder.step("It requests a token, with the code and a proof for this request, valid once.");
    let endpoint: Uri = format!("{issuer}/token").parse()?;
    let proof = NewProof::new(&Method::POST, &endpoint)?;
    let first = proof.sign(key, now()).await?;
    let mut request = Request::post(&endpoint)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("dpop", first.as_header_value())
        .body(form(&[
            ("grant_type", "authorization_code"),
            ("client_id", ID),
            ("redirect_uri", REDIRECT_URI),
            ("code", &code),
            ("code_verifier", &code_verifier),
        ]))?;
    let sent = request.clone();
    let expected = Expected(400, "use_dpop_nonce, with a nonce");
    let response = recorder
        .send(TO_ISSUER, "code, proof", sent, expected)
        .await?;
    let rejection: Value = serde_json::from_str(response.body())?;
    assert_eq!(rejection["error"], "use_dpop_nonce");
    let nonce = header(&response, "dpop-nonce");

    recorder.step(
        "The server requires a nonce, so the client signs a second proof. The code is still valid.",
    );
    recorder.story.mark(Mark::IssuerNonce, nonce);
    let second = proof.with_nonce(nonce.parse()?).sign(key, now()).await?;
    assert_eq!(claims(second.as_str())["nonce"], nonce);
    let field = second.as_header_value().clone();
    request.headers_mut().insert("dpop", field);
    let (about, expected) = (
        "code, proof with the nonce",
        Expected(200, "a token for this key"),
    );
    let response = recorder.send(TO_ISSUER, about, request, expected).await?;

    let granted = TokenResponse::from_json(response.body().as_bytes())?;
    let token = granted.access_token();
    assert_eq!(claims(token.as_str())["cnf"]["jkt"], jkt);
    recorder.story.mark(Mark::Token, &sha256(token.as_str()));
    Ok(token.clone())
}

/// One request with the token. Returns it as it was sent.
pub(crate) async fn use_token(
    recorder: &mut Recorder,
    api: &str,
    key: &SigningKey,
    token: &AccessTokenText,
) -> Result<Request<String>> {
    recorder.chapter("The client uses the token");
    recorder
        .step("It requests its orders, with the token and a proof that has the hash of the token.");
    let url: Uri = format!("{api}/orders").parse()?;
    let proof = NewProof::new(&Method::GET, &url)?.with_access_token(token);
    let first = proof.sign(key, now()).await?;
    assert_eq!(claims(first.as_str())["ath"], sha256(token.as_str()));
    let mut request = Request::get(&url)
        .header("authorization", token.authorization())
        .header("dpop", first.as_header_value())
        .body(String::new())?;
    let sent = request.clone();
    let expected = Expected(401, "use_dpop_nonce, with a nonce");
    let response = recorder
        .send(TO_API, "token, proof", sent, expected)
        .await?;
    assert!(header(&response, "www-authenticate").contains("use_dpop_nonce"));
    let nonce = header(&response, "dpop-nonce");

    recorder
        .step("This server requires its own nonce. With it in the proof, the request is accepted.");
    recorder.story.mark(Mark::ApiNonce, nonce);
    let second = proof.with_nonce(nonce.parse()?).sign(key, now()).await?;
    assert_eq!(claims(second.as_str())["nonce"], nonce);
    let field = second.as_header_value().clone();
    request.headers_mut().insert("dpop", field);
    let sent = request.clone();
    let (about, expected) = ("token, proof with the nonce", Expected(200, "the orders"));
    let response = recorder.send(TO_API, about, sent, expected).await?;
    assert!(response.body().starts_with("the orders of alice"));
    Ok(request)
}

/// The same with the layer of this crate, which makes proofs and keeps nonces.
pub(crate) async fn continue_as_before(
    recorder: &mut Recorder,
    api: &str,
    key: SigningKey,
    token: AccessTokenText,
) -> Result<()> {
    recorder.chapter("The client continues as before");
    recorder
        .step("Its layer (DpopClientLayer) signs the request, and again if a nonce is required.");
    let client = DpopClientLayer::new(key, token, api.parse()?).layer(recorder.http.clone());
    let request = Request::get(format!("{api}/orders")).body(String::new())?;
    let (about, expected) = ("signed by the layer", Expected(200, "the orders"));
    recorder
        .send_by(client, TO_API, about, request, expected)
        .await?;
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
pub(crate) fn header<'r>(response: &'r Response<String>, name: &str) -> &'r str {
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
