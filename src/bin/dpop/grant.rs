//! Gets an access token from an authorization server, for `dpop token` and `dpop curl`.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use http::Uri;
use tower_dpop::PublicUrl;
use tower_dpop::client::{DpopClient, DpopClientError, InvalidTokenResponse, TokenResponse};
use tower_dpop::jose::SigningKey;
use tower_dpop::tokens::EndpointUrl;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::input::{Roots, certificate_hint, read_file};

/// Where the token comes from.
#[derive(Args)]
pub(crate) struct Grant {
    /// The authorization server, whose metadata is fetched
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// The token endpoint, if the authorization server has no metadata
    #[arg(long, value_name = "URL", conflicts_with = "issuer")]
    token_endpoint: Option<String>,

    /// The client's name at the authorization server
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// A file with the client's secret, or `-` for standard input [default: $DPOP_CLIENT_SECRET]
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,

    /// The scopes to request, separated by spaces
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,

    /// The API that the token is for (RFC 8707)
    #[arg(long, value_name = "URI")]
    resource: Vec<String>,

    /// Accept plain http for servers on other machines
    ///
    /// Tokens and secrets can then be read on the way.
    #[arg(long)]
    insecure_http: bool,

    #[command(flatten)]
    pub(crate) roots: Roots,
}

/// The variable with the client's secret.
const SECRET: &str = "DPOP_CLIENT_SECRET";

impl Grant {
    /// Whether an authorization server was given.
    pub(crate) const fn is_given(&self) -> bool {
        self.issuer.is_some() || self.token_endpoint.is_some()
    }

    /// The scheme, host and port of a URL that gets a token.
    pub(crate) fn server_of(&self, url: &Uri) -> Result<PublicUrl, Failure> {
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(Failure::usage(
                "the URL must be absolute: https://host/path",
            ));
        };
        let origin = format!("{scheme}://{authority}");
        let server = if self.insecure_http {
            PublicUrl::insecure_http(&origin)
        } else {
            origin.parse()
        };
        server.map_err(|error| Failure::usage(with_flag(&error, &origin)))
    }

    /// Requests a token that is bound to this key, by client credentials.
    pub(crate) async fn token(&self, key: &SigningKey) -> Result<TokenResponse, Failure> {
        let builder = DpopClient::builder();
        let (builder, url) = match (&self.issuer, &self.token_endpoint) {
            (Some(issuer), _) => {
                let issuer = self.endpoint("--issuer", issuer)?;
                (builder.with_issuer(issuer.clone()), issuer)
            }
            (None, Some(endpoint)) => {
                let endpoint = self.endpoint("--token-endpoint", endpoint)?;
                (builder.with_token_endpoint(endpoint.clone()), endpoint)
            }
            (None, None) => return Err(Failure::usage("give --issuer or --token-endpoint")),
        };
        let client_id = self.client_id.as_deref();
        let client_id = client_id.ok_or_else(|| Failure::usage("give --client-id"))?;
        let url: Uri = url.as_str().parse().map_err(Failure::usage)?;
        let mut builder = builder
            .with_key(key.clone())
            .with_client_secret(client_id, self.secret()?.as_str())
            // The client sends nothing to it: it is asked for a token only.
            .add_server(self.server_of(&url)?);
        if let Some(scope) = &self.scope {
            builder = builder.with_scope(scope);
        }
        for resource in &self.resource {
            builder = builder.add_resource(resource);
        }
        let builder = builder
            .with_http(self.roots.client()?)
            .map_err(|error| failure(&error))?;
        let client = builder.build().await.map_err(|error| failure(&error))?;
        client
            .token_response()
            .await
            .map_err(|error| failure(&error))
    }

    fn endpoint(&self, name: &str, url: &str) -> Result<EndpointUrl, Failure> {
        let endpoint = if self.insecure_http {
            EndpointUrl::insecure_http(url)
        } else {
            url.parse()
        };
        endpoint.map_err(|error| Failure::usage(format_args!("{name}: {}", with_flag(&error, url))))
    }

    fn secret(&self) -> Result<Zeroizing<String>, Failure> {
        if let Some(path) = &self.client_secret_file {
            // Editors end a file with a line break. Spaces may belong to the secret.
            let text = read_file(path)?;
            let secret = text.trim_end_matches(['\r', '\n']);
            if secret.is_empty() {
                let problem = format!("{}: there is no secret in it", path.display());
                return Err(Failure::work(problem));
            }
            return Ok(Zeroizing::new(secret.to_owned()));
        }
        let secret = std::env::var(SECRET).map(Zeroizing::new);
        let secret = secret.ok().filter(|secret| !secret.is_empty());
        secret.ok_or_else(|| {
            Failure::usage(format_args!(
                "no client secret: give --client-secret-file, or set {SECRET}"
            ))
        })
    }
}

/// Names the flag that accepts plain http.
fn with_flag(error: &impl ToString, url: &str) -> String {
    let hint = if url.starts_with("http:") {
        " (--insecure-http accepts it)"
    } else {
        ""
    };
    format!("{}{hint}", error.to_string())
}

/// The error with its causes, and what to look at.
fn failure(error: &DpopClientError) -> Failure {
    let inner = match error {
        DpopClientError::Token(reason) => reason,
        error => error,
    };
    let hint = match inner {
        DpopClientError::TokenRequest { error, .. } => match error.as_str() {
            "invalid_client" | "unauthorized_client" => {
                "\nare the client's name and its secret right, and may it use client credentials?"
            }
            "invalid_scope" => "\nthe client may not have the scopes of --scope",
            "invalid_target" => "\nthe authorization server does not know the API of --resource",
            "invalid_dpop_proof" => "\nis the clock of this machine right?",
            _ => "",
        },
        DpopClientError::TokenResponse(InvalidTokenResponse::NotBound) => {
            "\nis the client registered for DPoP, and does the server support it?"
        }
        _ => "",
    };
    let text = with_causes(inner);
    let hint = if hint.is_empty() {
        certificate_hint(&text)
    } else {
        hint
    };
    Failure::work(format_args!("{text}{hint}"))
}

/// An error and its causes, without those whose text repeats.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
