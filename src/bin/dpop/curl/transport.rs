//! reqwest as a service under the layer that signs, which can show what is sent.

use std::error::Error;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Request, Response};
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use tower_dpop::proof::DPOP;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::grant::with_causes;
use crate::private_file::replace;
use crate::terminal::{lines, shown};

/// Sends each request as it is.
#[derive(Clone)]
pub(crate) struct Transport {
    http: reqwest::Client,
    verbose: bool,
    /// Where the head of each request is written, with its token and proof.
    saved: Option<PathBuf>,
}

impl Transport {
    pub(crate) fn new(
        http: ClientBuilder,
        verbose: bool,
        saved: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        // A redirect below the layer would send the proof on to another URL.
        let http = http.redirect(Policy::none()).build();
        Ok(Self {
            http: http.map_err(|error| Failure::work(with_causes(&error)))?,
            verbose,
            saved,
        })
    }

    /// What the user asked for before the request is sent.
    fn record(&self, request: &Request<Bytes>) -> Result<(), TransportError> {
        if self.verbose {
            show('>', &first_lines(request), request.headers());
        }
        let Some(path) = &self.saved else {
            return Ok(());
        };
        let scheme = request.uri().scheme_str().unwrap_or_default();
        // `dpop explain` reads the first line: nothing else in a request says what its scheme was.
        let mut head = Zeroizing::new(format!("* {scheme}://{}\n", authority(request)));
        head.push_str(&first_lines(request));
        for (name, value) in request.headers() {
            // The URL has it already.
            if name != HOST {
                let value = value.to_str()?;
                let _ = write!(head, "\n{name}: {value}");
            }
        }
        head.push_str("\n\n");
        replace(path, &head).map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

type TransportError = Box<dyn Error + Send + Sync>;

type Sent = Pin<Box<dyn Future<Output = Result<Response<reqwest::Body>, TransportError>> + Send>>;

impl Service<Request<Bytes>> for Transport {
    type Response = Response<reqwest::Body>;
    type Error = TransportError;
    type Future = Sent;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Sent {
        let transport = self.clone();
        Box::pin(async move {
            transport.record(&request)?;
            // The caller gave the URL; a text about it is no news.
            let response = transport.http.execute(request.try_into()?).await;
            let response = response.map_err(reqwest::Error::without_url)?;
            if transport.verbose {
                let first = format!("{:?} {}", response.version(), response.status());
                show('<', &first, response.headers());
            }
            Ok(response.into())
        })
    }
}

/// The request line, and the field that is sent for the URL's host.
fn first_lines(request: &Request<Bytes>) -> String {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let (method, version) = (request.method(), request.version());
    format!(
        "{method} {target} {version:?}\nhost: {}",
        authority(request)
    )
}

fn authority(request: &Request<Bytes>) -> &str {
    let authority = request.uri().authority();
    authority.map_or("", |authority| authority.as_str())
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
