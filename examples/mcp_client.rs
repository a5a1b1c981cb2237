//! A client of the Model Context Protocol that knows a server's URL only: metadata, registration, login in a browser, then
//! messages with proofs.
//!
//! ```sh
//! BROWSER=firefox cargo run --example mcp_client -- https://mcp.example.com/mcp
//! ```
//!
//! It prints the server's name and its tools. `CLIENT_ID` is the name of a public client that is registered at the
//! authorization server; without it, the client registers itself. A real client must also
//!
//! - remember its registration, its key and its refresh token between two runs, for each authorization server (the guide's page
//!   on the client), and offer a client ID metadata document where the server prefers that to registration;
//! - ask the user which authorization server to use if there are several, and before it opens a URL that a server named;
//! - reject URLs in documents that are not `https`, or lead into a private network;
//! - log in again with more scopes after a 403 `insufficient_scope`, and read the metadata again if the authorization server
//!   changes;
//! - know which version of the protocol it speaks: this one sends `initialize`, which versions from 2026-07-28 on do not have.

use std::env;
use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;
use tower_dpop::client::{Challenge, DpopClient, DpopClientError};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const PROTOCOL: &str = "2025-11-25";
/// Longer metadata and messages are not read.
const MAX_BODY: usize = 1 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let url: Url = env::args().nth(1).ok_or("usage: mcp_client URL")?.parse()?;
    // Without redirects: the metadata say where things are, and not another server.
    let http = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    let resource = Resource::discover(&http, &url).await?;
    let client = log_in(&http, &resource, &url).await?;

    let mut session = Session::new(client, url);
    let server = session.call("initialize", initialization()).await?;
    session.notify("notifications/initialized").await?;
    println!("{}", server["serverInfo"]["name"]);
    let listed = session.call("tools/list", json!({})).await?;
    for tool in listed["tools"].as_array().into_iter().flatten() {
        println!("{}", tool["name"]);
    }
    Ok(())
}

fn initialization() -> Value {
    json!({
        "protocolVersion": PROTOCOL,
        "capabilities": {},
        "clientInfo": { "name": "mcp_client", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// What the server says about how to get a token for it (RFC 9728).
struct Resource {
    /// Its name, for the authorization server (RFC 8707).
    identifier: String,
    issuer: String,
    scope: Option<String>,
}

impl Resource {
    /// A request without a token is rejected, and its challenge says where the metadata are.
    async fn discover(http: &reqwest::Client, url: &Url) -> Result<Self> {
        let message = message(Some(0), "initialize", &initialization());
        let rejection = http.post(url.clone()).json(&message);
        let rejection = rejection.header(ACCEPT, ACCEPTED).send().await?;
        if rejection.status() != StatusCode::UNAUTHORIZED {
            return Err(format!("a request without a token got {}", rejection.status()).into());
        }
        let challenges = Challenge::from_headers(rejection.headers());
        let parameter = |name| {
            challenges
                .iter()
                .find_map(|challenge| challenge.parameter(name))
        };
        let metadata = match parameter("resource_metadata") {
            Some(named) => document(http, &[named.parse()?]).await?,
            None => document(http, &well_known(url, "oauth-protected-resource")?).await?,
        };
        let identifier = text(&metadata, "resource")?.to_owned();
        // RFC 9728 section 7.3. Without this check, a server could get tokens that are meant for another one.
        if !covers(&identifier.parse()?, url) {
            return Err(format!("the metadata are for {identifier}").into());
        }
        let issuer = metadata["authorization_servers"][0].as_str();
        Ok(Self {
            identifier,
            issuer: issuer
                .ok_or("the metadata have no authorization server")?
                .to_owned(),
            // The challenge says what this request needs.
            scope: parameter("scope")
                .map(str::to_owned)
                .or_else(|| words(&metadata["scopes_supported"])),
        })
    }
}

/// Whether a resource is the server at this URL, or has it below its path. RFC 9728 section 3.3 wants the same URL; servers that
/// name their root are widespread.
fn covers(resource: &Url, url: &Url) -> bool {
    let path = resource.path().trim_end_matches('/');
    let below = url.path().strip_prefix(path);
    resource.origin() == url.origin()
        && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The authorization code grant with PKCE, for a token that is bound to a new key.
async fn log_in(http: &reqwest::Client, resource: &Resource, url: &Url) -> Result<DpopClient> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let redirect_uri = format!("http://{}/callback", listener.local_addr()?);
    let client_id = match env::var("CLIENT_ID") {
        Ok(id) => id,
        Err(_) => register(http, &resource.issuer, &redirect_uri).await?,
    };
    let mut app = DpopClient::builder()
        .with_issuer(resource.issuer.parse()?)
        .with_public_client(client_id)
        .add_resource(&resource.identifier)
        .add_server(url.as_str().parse()?); // no other server gets the token
    if let Some(scope) = &resource.scope {
        app = app.with_scope(scope);
    }
    let login = app.start_login(redirect_uri).await?;
    open(login.url())?;
    loop {
        let (mut browser, _) = timeout(Duration::from_secs(300), listener.accept()).await??;
        // Browsers open connections that they do not use.
        let Ok(Ok(line)) = timeout(Duration::from_secs(2), first_line(&mut browser)).await else {
            continue;
        };
        let finished = login
            .finish(line.split(' ').nth(1).unwrap_or_default())
            .await;
        let page = b"HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\nYou can close this page";
        let _ = browser.write_all(page).await; // the login counts, not the page
        match finished {
            Err(DpopClientError::Callback(_)) => {} // of another program: keep waiting
            finished => return Ok(finished?),
        }
    }
}

/// `GET /callback?code=... HTTP/1.1`
async fn first_line(browser: &mut TcpStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(browser.take(8192))
        .read_line(&mut line)
        .await?;
    Ok(line)
}

/// In the program that `BROWSER` names, with its arguments, or else by the user.
fn open(url: &str) -> Result<()> {
    let browser = env::var("BROWSER").unwrap_or_default();
    let mut words = browser.split_whitespace();
    match words.next() {
        Some(program) => {
            let mut command = Command::new(program);
            command
                .args(words)
                .arg(url)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
        }
        None => eprintln!("Open {url}"),
    }
    Ok(())
}

/// Dynamic registration (RFC 7591).
async fn register(http: &reqwest::Client, issuer: &str, redirect_uri: &str) -> Result<String> {
    let places = [
        well_known(&issuer.parse()?, "oauth-authorization-server")?,
        well_known(&issuer.parse()?, "openid-configuration")?,
    ];
    let metadata = document(http, &places.concat()).await?;
    // RFC 8414 section 3.3.
    if text(&metadata, "issuer")? != issuer {
        return Err("the metadata of the authorization server are those of another one".into());
    }
    let registration = json!({
        "client_name": "mcp_client",
        "application_type": "native",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "dpop_bound_access_tokens": true,
    });
    let registered = http
        .post(text(&metadata, "registration_endpoint")?)
        .json(&registration);
    let registered = body(registered.send().await?.error_for_status()?).await?;
    Ok(text(&registered, "client_id")?.to_owned())
}

/// Where a document about a URL is: with its path, or without.
fn well_known(url: &Url, name: &str) -> Result<Vec<Url>> {
    let path = url.path().trim_end_matches('/');
    let mut places = vec![url.join(&format!("/.well-known/{name}{path}"))?];
    if name == "openid-configuration" {
        places.push(url.join(&format!("{path}/.well-known/{name}"))?);
    } else if !path.is_empty() && name == "oauth-protected-resource" {
        places.push(url.join(&format!("/.well-known/{name}"))?);
    }
    Ok(places)
}

/// The first that there is.
async fn document(http: &reqwest::Client, places: &[Url]) -> Result<Value> {
    for place in places {
        let response = http.get(place.clone()).send().await?;
        if response.status().is_success() {
            return body(response).await;
        }
    }
    Err(format!("no metadata: {places:?}").into())
}

/// One server, its session, and the number of the last message.
struct Session {
    client: DpopClient,
    url: Url,
    id: Option<HeaderValue>,
    last: u64,
}

/// The Streamable HTTP transport: a server responds with JSON, or with a stream of events that has the response.
const ACCEPTED: &str = "application/json, text/event-stream";

impl Session {
    fn new(client: DpopClient, url: Url) -> Self {
        Self {
            client,
            url,
            id: None,
            last: 0,
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let response = self
            .send(&message(Some(self.last), method, &params))
            .await?;
        let received = if response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
            event(response, self.last).await?
        } else {
            body(response).await?
        };
        match &received["error"] {
            Value::Null => Ok(received["result"].clone()),
            error => Err(format!("{method}: {error}").into()),
        }
    }

    async fn notify(&mut self, method: &str) -> Result<()> {
        self.send(&message(None, method, &json!({})))
            .await
            .map(drop)
    }

    /// Each message is a request of its own, with a proof of its own.
    async fn send(&mut self, message: &Value) -> Result<reqwest::Response> {
        let mut request = self
            .client
            .post(self.url.as_str())
            .json(message)
            .header(ACCEPT, ACCEPTED);
        if message["method"] != "initialize" {
            request = request.header("mcp-protocol-version", PROTOCOL);
        }
        if let Some(id) = &self.id {
            request = request.header("mcp-session-id", id);
        }
        let response = request.send().await?.error_for_status()?;
        if let Some(id) = response.headers().get("mcp-session-id") {
            self.id = Some(id.clone());
        }
        Ok(response)
    }
}

/// A message of JSON-RPC. A notification has no number, and gets no response.
fn message(id: Option<u64>, method: &str, params: &Value) -> Value {
    let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
    if let Some(id) = id {
        message["id"] = id.into();
    }
    message
}

fn is_stream(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"text/event-stream")
}

/// The response with this number. Other events of the stream are notifications, which are not read here.
async fn event(mut response: reqwest::Response, id: u64) -> Result<Value> {
    let mut unread = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        unread.extend_from_slice(&chunk);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            // A message is one line: JSON has no line breaks unless it is formatted for people.
            let received = line
                .strip_prefix(b"data:")
                .map(serde_json::from_slice::<Value>);
            if let Some(Ok(received)) = received
                && received["id"] == id
            {
                return Ok(received);
            }
        }
        if unread.len() > MAX_BODY {
            break;
        }
    }
    Err("the stream ends without the response".into())
}

async fn body(mut response: reqwest::Response) -> Result<Value> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return Err("the response is too long".into());
        }
    }
    Ok(serde_json::from_slice(&body)?)
}

fn text<'d>(document: &'d Value, member: &str) -> Result<&'d str> {
    Ok(document[member]
        .as_str()
        .ok_or_else(|| format!("the metadata have no {member}"))?)
}

/// The texts of an array, separated by spaces.
fn words(array: &Value) -> Option<String> {
    let words: Vec<&str> = array.as_array()?.iter().filter_map(Value::as_str).collect();
    (!words.is_empty()).then(|| words.join(" "))
}
