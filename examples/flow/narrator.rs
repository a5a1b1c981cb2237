//! Prints requests, responses and tokens.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;
pub(crate) type Http = Client<HttpConnector, String>;

/// Sends requests and prints them.
pub(crate) struct Narrator {
    pub(crate) http: Http,
    verbosity: Verbosity,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// The essential parts only.
    Brief,
    /// Every header field, and every JWT decoded.
    Verbose,
}

impl Narrator {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self {
            // This client does not follow redirects.
            http: Client::builder(TokioExecutor::new()).build_http(),
            verbosity,
        }
    }

    /// Sends a request and prints it.
    pub(crate) async fn send(&self, request: Request<String>) -> Result<Response<String>> {
        line(request.method().as_str(), &request.uri().to_string());
        for field in ["authorization", "dpop"] {
            if let Some(value) = request.headers().get(field) {
                line(field, value.to_str()?);
            }
        }
        if !request.body().is_empty() {
            line("body", request.body());
        }
        self.all_of(request.headers());
        let (head, body) = self.http.request(request).await?.into_parts();
        Ok(Response::from_parts(head, text(body).await?))
    }

    /// Prints the head of a response, whose status must be this one.
    pub(crate) fn responded(&self, response: &Response<String>, expected: u16) -> Result<()> {
        line("status", response.status().as_str());
        self.all_of(response.headers());
        if response.status() == expected {
            Ok(())
        } else {
            Err(format!("not {expected}: {}", response.body()).into())
        }
    }

    /// Fetches the body of a document and prints nothing.
    pub(crate) async fn fetch(&self, url: &str) -> Result<String> {
        let response = self.http.get(url.parse()?).await?;
        text(response.into_body()).await
    }

    /// Prints the named members of a JWT and returns its claims. Nothing is verified here.
    pub(crate) fn claims(&self, jwt: &str, header: &[&str], claims: &[&str]) -> Result<Value> {
        let (all_of_header, all_claims) = decode(jwt)?;
        members(&all_of_header, header);
        members(&all_claims, claims);
        self.all_of_jwt(jwt);
        Ok(all_claims)
    }

    /// Prints each field, followed by the decoded JWT if the field contains one.
    fn all_of(&self, headers: &HeaderMap) {
        if self.verbosity == Verbosity::Brief {
            return;
        }
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            println!("       {name}: {value}");
            self.all_of_jwt(value.rsplit(' ').next().unwrap_or_default());
        }
    }

    fn all_of_jwt(&self, text: &str) {
        if let (Verbosity::Verbose, Ok((header, claims))) = (self.verbosity, decode(text)) {
            for part in [header, claims] {
                for line in format!("{part:#}").lines() {
                    println!("       | {line}");
                }
            }
        }
    }
}

pub(crate) fn step(text: &str) {
    println!("\n{text}");
}

pub(crate) fn note(text: &str) {
    println!("   {text}");
}

/// Prints one value, cut if it is too long for a line.
pub(crate) fn line(name: &str, value: &str) {
    const WIDTH: usize = 80;
    if value.chars().count() > WIDTH {
        let start: String = value.chars().take(WIDTH - 3).collect();
        println!("     {name:<14}{start}...");
    } else {
        println!("     {name:<14}{value}");
    }
}

pub(crate) fn members(object: &Value, names: &[&str]) {
    for name in names {
        match &object[name] {
            Value::String(text) => line(name, text),
            value => line(name, &value.to_string()),
        }
    }
}

async fn text(body: Incoming) -> Result<String> {
    let body = Limited::new(body, 64 * 1024).collect().await?.to_bytes();
    Ok(String::from_utf8(body.into())?)
}

fn decode(jwt: &str) -> Result<(Value, Value)> {
    let mut segments = jwt.split('.');
    let mut next = || -> Result<Value> {
        let segment = segments.next().ok_or("not a JWT")?;
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment)?)?)
    };
    Ok((next()?, next()?))
}
