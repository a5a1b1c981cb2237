//! reqwest as a service under the layer that signs, which can show what is sent.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use reqwest::redirect::Policy;
use tower_dpop::proof::DPOP;
use tower_service::Service;

use crate::failure::Failure;
use crate::terminal::{lines, shown};

/// Sends each request as it is.
#[derive(Clone)]
pub(crate) struct Transport {
    http: reqwest::Client,
    verbose: bool,
}

impl Transport {
    pub(crate) fn new(verbose: bool) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            // A redirect below the layer would send the proof on to another URL.
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("dpop/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Failure::work)?;
        Ok(Self { http, verbose })
    }
}

type Sent = Pin<Box<dyn Future<Output = Result<Response<reqwest::Body>, reqwest::Error>> + Send>>;

impl Service<Request<Bytes>> for Transport {
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = Sent;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Sent {
        let Self { http, verbose } = self.clone();
        Box::pin(async move {
            if verbose {
                let target = request
                    .uri()
                    .path_and_query()
                    .map_or("/", |target| target.as_str());
                let first = format!(
                    "{} {target}\nhost: {}",
                    request.method(),
                    authority(&request)
                );
                show('>', &first, request.headers());
            }
            // The caller gave the URL; a text about it is no news.
            let response = http.execute(request.try_into()?).await;
            let response = response.map_err(reqwest::Error::without_url)?;
            if verbose {
                let first = format!("{:?} {}", response.version(), response.status());
                show('<', &first, response.headers());
            }
            Ok(response.into())
        })
    }
}

fn authority(request: &Request<Bytes>) -> &str {
    request
        .uri()
        .authority()
        .map_or("", |authority| authority.as_str())
}

/// The head of a request or a response on standard error, as `curl -v` shows it.
fn show(mark: char, first: &str, headers: &HeaderMap) {
    let mut text = String::new();
    for line in first.lines() {
        let _ = writeln!(text, "{mark} {}", shown(line));
    }
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if name == AUTHORIZATION || name == DPOP {
            shortened(&value)
        } else {
            shown(&value)
        };
        let _ = writeln!(text, "{mark} {name}: {value}");
    }
    eprintln!("{text}{mark}");
}

/// A token or a proof, from which nothing can be used.
fn shortened(value: &str) -> String {
    let (scheme, secret) = value.split_once(' ').unwrap_or(("", value));
    let start: String = secret.chars().take(8).collect();
    let scheme = if scheme.is_empty() {
        String::new()
    } else {
        format!("{scheme} ")
    };
    format!("{scheme}{}… ({} bytes)", shown(&start), secret.len())
}

/// The status and the header fields of a response, for standard output.
pub(crate) fn head(response: &reqwest::Response) -> String {
    let mut head = format!("{:?} {}\n", response.version(), response.status());
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = writeln!(head, "{name}: {}", lines(&value));
    }
    head + "\n"
}

/// Calls a service once, when it is ready.
pub(crate) async fn call<S: Service<R>, R>(
    mut service: S,
    request: R,
) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}
