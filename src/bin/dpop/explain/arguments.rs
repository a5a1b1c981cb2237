//! The arguments of `dpop explain`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, ColorChoice, ValueEnum, value_parser};
use http::{Method, Uri};
use tower_dpop::proof::Nonce;
use tower_dpop::tokens::{EndpointUrl, KeySource, Profile};
use tower_dpop::{Algorithms, Freshness, KeySet, PublicUrl, RemoteKeys, Thumbprint, Timestamp};

use crate::explain::probe::Rules;
use crate::explain::proof_checks::Window;
use crate::explain::request::{Received, parse_public_url};
use crate::explain::token_rules::{TokenRules, Typ};
use crate::failure::Failure;
use crate::input::{Roots, certificate_hint, read_file, secret};

/// Explain why a request is rejected: the result of each check, and by how much it fails
///
/// Give the request as it was sent (--request), or its proof, token, method and URL. The last lines are the decision of a
/// server that uses this library with these settings. The checks before them are made one by one, so that all faults
/// are shown at once.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Explain {
    /// The head of the request: a file, or `-` for standard input
    ///
    /// A request line (`GET /orders HTTP/1.1`) and header fields, one per line: the file of `dpop curl --save-request`,
    /// or the output of `curl -v` as it is.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["proof", "token", "method", "url"])]
    pub(crate) request: Option<PathBuf>,

    /// The proof: the text, @FILE, or `-` for standard input
    #[arg(long, value_name = "PROOF", required_unless_present = "request")]
    proof: Option<String>,

    /// The access token: the token, @FILE, or `-`. Without one, this is a request to a token endpoint
    ///
    /// Other users of this machine can see the arguments of a command: use @FILE or `-` where there are any.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// The method of the request
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: Method,

    /// The URL that the client requested
    #[arg(required_unless_present = "request")]
    url: Option<Uri>,

    /// With --request: how clients reach the server, as in its configuration [default: from the Host field]
    #[arg(long, value_name = "URL", value_parser = parse_public_url, conflicts_with = "url")]
    public_url: Option<PublicUrl>,

    /// With --request: the request is to a token endpoint, and has a proof and no access token
    #[arg(long, requires = "request")]
    token_request: bool,

    #[command(flatten)]
    pub(crate) server: Server,

    #[command(flatten)]
    pub(crate) tokens: Tokens,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Whether to use colours
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    pub(crate) color: ColorChoice,
}

/// What the server requires of proofs.
#[derive(Args)]
pub(crate) struct Server {
    /// When the server received the request: Unix seconds, RFC 3339, or the `Date` of its response [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,

    /// The server requires nonces; this is its latest (the value of `DPoP-Nonce` before the request)
    #[arg(long, value_name = "NONCE", allow_hyphen_values = true)]
    nonce: Option<Nonce>,

    /// The algorithms that the server accepts (`algs` in its challenges)
    #[arg(long, value_name = "ALGS", default_value_t = Algorithms::default())]
    algs: Algorithms,

    /// The age up to which the server accepts proofs, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_AGE, value_parser = value_parser!(u64).range(..=LONGEST))]
    max_age: u64,

    /// How far a client's clock may be off, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = LEEWAY, value_parser = value_parser!(u64).range(..=LONGEST))]
    leeway: u64,
}

/// What the server requires of access tokens.
#[derive(Args)]
pub(crate) struct Tokens {
    /// The public keys of the issuer: a file with a JWK Set
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,

    /// The issuer of access tokens; without --jwks, its keys are fetched
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    #[command(flatten)]
    roots: Roots,

    /// The audience of access tokens
    #[arg(long, value_name = "AUD")]
    audience: Option<String>,

    /// The product that issues the tokens
    #[arg(long, value_enum, value_name = "PRODUCT")]
    profile: Option<Product>,

    /// Also accept tokens whose typ is JWT or missing
    #[arg(long, conflicts_with = "profile")]
    lenient_typ: bool,

    /// The thumbprint of the key that the token is bound to, if the token is not a JWT
    #[arg(long, allow_hyphen_values = true)]
    jkt: Option<Thumbprint>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Product {
    Auth0,
    EntraId,
    Keycloak,
    Okta,
}

/// Those of `Freshness::default()`.
const MAX_AGE: u64 = 60;
const LEEWAY: u64 = 30;

/// The library has no longer durations.
const LONGEST: u64 = 24 * 60 * 60;

/// The end of the year 9999. Later times cannot be written as a date, and some not as a `SystemTime`.
const LATEST: u64 = 253_402_300_799;

const AFTER_HELP: &str = "\
EXAMPLES
  A request, pasted from `curl -v`, with the time from the response:
    dpop explain --request request.txt --public-url https://api.example.com \\
        --at 'Fri, 27 Nov 2026 14:00:00 GMT'

  A proof and a token, with the issuer's keys, for a script:
    dpop explain --json --proof @proof --token @token --jwks jwks.json \\
        --issuer https://as.example.com --audience https://api.example.com \\
        -X POST https://api.example.com/orders

  A proof for a token endpoint:
    dpop explain --proof @proof -X POST https://as.example.com/token

NOT CHECKED
  Whether the proof was used before, and nonces other than the given one: only the server knows.
  Whether the token was revoked, and whether its scopes allow the request.

EXIT STATUS
  0  the request is accepted, as far as it was checked
  1  it is rejected
  2  the arguments are wrong
  3  a file or the issuer's keys could not be read
";

impl Explain {
    pub(crate) fn is_token_request(&self) -> bool {
        self.token_request || self.request.is_none() && self.token.is_none()
    }

    pub(crate) fn received(&self) -> Result<Received, Failure> {
        if let Some(path) = &self.request {
            return Received::pasted(&read_file(path)?, self.public_url.clone());
        }
        let proof = self.proof.as_deref().map(secret).transpose()?;
        let proof = proof.as_deref().map(|text| without_name(text, "DPoP:"));
        let token = self.token.as_deref().map(secret).transpose()?;
        let token = token
            .as_deref()
            .map(|text| without_name(text, "Authorization:"));
        let authorization = token.map(|token| match token.split_once(' ') {
            None => format!("DPoP {token}"),
            Some(_) => token.to_owned(),
        });
        let url = self
            .url
            .as_ref()
            .ok_or_else(|| Failure::usage("a URL is required"))?;
        Received::to(url, self.method.clone(), authorization.as_deref(), proof)
    }
}

/// The value of a field that was copied with its name.
fn without_name<'t>(text: &'t str, name: &str) -> &'t str {
    match text.get(..name.len()) {
        Some(start) if start.eq_ignore_ascii_case(name) => text[name.len()..].trim(),
        _ => text,
    }
}

impl Server {
    pub(crate) fn rules(&self, public_url: PublicUrl) -> Rules {
        Rules {
            public_url,
            algorithms: self.algs,
            freshness: Freshness::default()
                .with_max_age(Duration::from_secs(self.max_age))
                .with_leeway(Duration::from_secs(self.leeway)),
            nonce: self.nonce.clone(),
            now: self.at.unwrap_or_else(|| SystemTime::now().into()),
        }
    }

    pub(crate) const fn window(&self) -> Window {
        Window {
            max_age: self.max_age,
            leeway: self.leeway,
        }
    }
}

impl Tokens {
    pub(crate) async fn rules(&self, now: Timestamp) -> Result<TokenRules, Failure> {
        let typ = match self.profile {
            Some(Product::Auth0) => Typ::Of(Profile::Auth0),
            Some(Product::EntraId) => Typ::Of(Profile::EntraId),
            Some(Product::Keycloak) => Typ::Of(Profile::Keycloak),
            Some(Product::Okta) => Typ::Of(Profile::Okta),
            None if self.lenient_typ => Typ::Lenient,
            None => Typ::AtJwt,
        };
        Ok(TokenRules {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            keys: self.keys(typ).await?,
            typ,
            jkt: self.jkt,
            now,
        })
    }

    async fn keys(&self, typ: Typ) -> Result<Option<KeySet>, Failure> {
        match (&self.jwks, &self.issuer) {
            (Some(path), _) => {
                let keys = read_file(path)?
                    .parse()
                    .map_err(|error| Failure::work(format_args!("{}: {error}", path.display())))?;
                Ok(Some(keys))
            }
            (None, Some(issuer)) => {
                let issuer = typ.issuer(issuer)?;
                let issuer: EndpointUrl = issuer
                    .parse()
                    .map_err(|error| Failure::usage(format_args!("--issuer: {error}")))?;
                let keys = RemoteKeys::discover(issuer, self.roots.issuer_client()?);
                let keys = keys.fetched().await.map_err(|error| {
                    let text = error.to_string();
                    Failure::work(format_args!("{text}{}", certificate_hint(&text)))
                })?;
                let keys = keys.key_set(SystemTime::now().into()).await;
                Ok(Some(keys.map_err(Failure::work)?))
            }
            (None, None) => Ok(None),
        }
    }
}

/// The time is given as Unix seconds, by RFC 3339, or as an HTTP date.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse() {
        return if seconds <= LATEST {
            Ok(Timestamp::from_unix(seconds))
        } else {
            Err("later than the year 9999".to_owned())
        };
    }
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Ok(date.into());
    }
    let seconds = text
        .parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_second);
    let seconds = seconds.ok().and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map(Timestamp::from_unix).ok_or_else(|| {
        "expected Unix seconds, or a time like 2026-11-27T14:00:00Z or `Fri, 27 Nov 2026 14:00:00 GMT`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let window = Freshness::default()
            .with_max_age(Duration::from_secs(MAX_AGE))
            .with_leeway(Duration::from_secs(LEEWAY));
        assert_eq!(window, Freshness::default());
        let longest = Freshness::default().with_max_age(Duration::from_secs(LONGEST));
        let longer = longest.with_max_age(Duration::from_secs(LONGEST + 1));
        assert_eq!(longest, longer);
    }
}
