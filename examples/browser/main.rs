//! A page that logs in and calls an API with DPoP, by WebCrypto and without a build step.
//!
//! Start three servers on three origins, and open <http://127.0.0.1:3000>:
//!
//! ```sh
//! cargo run --example authorization_server -- --nonces --allow-origin http://127.0.0.1:3000
//! cargo run --example resource_server -- --issuer http://127.0.0.1:9000 --nonces --allow-origin http://127.0.0.1:3000
//! cargo run --example browser
//! ```
//!
//! `app.js` is the app. This program serves it and `index.html`, and nothing else, with a content security
//! policy that lets the page run this script only, and call these two servers only.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Uri};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

const PAGE: &str = include_str!("index.html");
const SCRIPT: &str = include_str!("app.js");

/// The values in the page.
const ISSUER: &str = "http://127.0.0.1:9000";
const RESOURCE: &str = "http://127.0.0.1:8080/protected";

const USAGE: &str = "\
usage: browser [OPTION]...

  --listen ADDRESS  where to listen (default: 127.0.0.1:3000; port 0 takes a free one)
  --issuer URL      the authorization server (default: http://127.0.0.1:9000)
  --resource URL    the API (default: http://127.0.0.1:8080/protected)
";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::parse(env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("browser: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let page = PAGE
        .replace(ISSUER, &options.issuer)
        .replace(RESOURCE, &options.resource);
    let policy = content_security_policy(&options)?;
    let fields = [
        (CONTENT_SECURITY_POLICY, policy.parse()?),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // The page's URL has a code in it after the login.
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let javascript = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];
    let app = Router::new()
        .route("/", get((fields.clone(), Html(page))))
        .route("/app.js", get((fields, javascript, SCRIPT)));

    let listener = TcpListener::bind(&options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// What the page may do: run one script, call two servers, and turn no text into markup.
fn content_security_policy(options: &Options) -> Result<String, Box<dyn Error>> {
    let style = PAGE
        .split_once("<style>")
        .and_then(|(_, rest)| rest.split_once("</style>"));
    let (style, _) = style.ok_or("the page has no style")?;
    Ok(format!(
        "default-src 'none'; script-src 'self'; style-src 'sha256-{}'; img-src data:; connect-src {} {}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        STANDARD.encode(Sha256::digest(style)),
        origin(&options.issuer)?,
        origin(&options.resource)?,
    ))
}

/// The origin of a URL that can be put into the page and the policy as it is.
fn origin(url: &str) -> Result<String, String> {
    let unusable = || format!("{url}: not a URL of letters, digits and these: -._~:/[]");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
    let uri: Uri = url.parse().map_err(|_| unusable())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) if url.chars().all(is_plain) => {
            Ok(format!("{scheme}://{authority}"))
        }
        _ => Err(unusable()),
    }
}

struct Options {
    listen: String,
    issuer: String,
    resource: String,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            listen: "127.0.0.1:3000".into(),
            issuer: ISSUER.into(),
            resource: RESOURCE.into(),
        };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--listen" => options.listen = arguments.next()?,
                "--issuer" => options.issuer = arguments.next()?,
                "--resource" => options.resource = arguments.next()?,
                _ => return None,
            }
        }
        Some(options)
    }
}
