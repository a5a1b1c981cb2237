//! What a client knows about its authorization server: from its metadata ([RFC 8414 section
//! 2](https://www.rfc-editor.org/rfc/rfc8414#section-2)), or from configuration.

use reqwest::Url;
use serde::Deserialize;

use crate::client::reqwest::error::DpopClientError;
use crate::client::reqwest::transport::{Http, TIMEOUT};
use crate::issuer::endpoint_url::{EndpointUrl, InvalidEndpointUrl};
use crate::issuer::http::HttpClient;
use crate::issuer::metadata::{DocumentError, discover};

/// The endpoints, and what the server supports.
#[derive(Clone)]
pub(crate) struct AuthorizationServer {
    pub(crate) issuer: Option<String>,
    pub(crate) token_endpoint: Url,
    pub(crate) authorization_endpoint: Option<Url>,
    /// RFC 9126.
    pub(crate) pushed_requests: Option<Url>,
    /// The algorithms of proofs, separated by spaces (RFC 9449 section 5.1).
    pub(crate) algorithms: Option<String>,
    pub(crate) secret_in_form: bool,
    pub(crate) challenge_methods: Option<Vec<String>>,
    /// Whether its authorization responses have `iss` (RFC 9207 section 3).
    pub(crate) names_itself: bool,
}

#[derive(Deserialize)]
struct Document {
    token_endpoint: String,
    authorization_endpoint: Option<String>,
    pushed_authorization_request_endpoint: Option<String>,
    dpop_signing_alg_values_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
}

/// Why metadata is unusable.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("an endpoint is rejected: {0}")]
    Endpoint(#[from] InvalidEndpointUrl),
}

impl AuthorizationServer {
    pub(crate) async fn discover(
        http: &Http,
        issuer: &EndpointUrl,
    ) -> Result<Self, DpopClientError> {
        let http = HttpClient::over(http.0.clone(), TIMEOUT);
        let read = |document| Self::read(issuer, document);
        discover(&http, issuer, None, read, |_, error| error.into())
            .await
            .map_err(|reason| DpopClientError::Discovery {
                issuer: issuer.as_str().to_owned(),
                reason: reason.into(),
            })
    }

    fn read(issuer: &EndpointUrl, document: Document) -> Result<Self, Unusable> {
        let endpoint = |url: Option<String>| url.map(|url| issuer.refers_to(&url)).transpose();
        let methods = document.token_endpoint_auth_methods_supported;
        let supports = |method: &str| {
            // RFC 8414 section 2: "If omitted, the default is client_secret_basic".
            methods
                .as_ref()
                .map_or(method == "client_secret_basic", |methods| {
                    methods.iter().any(|supported| supported == method)
                })
        };
        Ok(Self {
            issuer: Some(issuer.as_str().to_owned()),
            token_endpoint: issuer.refers_to(&document.token_endpoint)?,
            authorization_endpoint: endpoint(document.authorization_endpoint)?,
            pushed_requests: endpoint(document.pushed_authorization_request_endpoint)?,
            algorithms: document
                .dpop_signing_alg_values_supported
                .map(|names| names.join(" ")),
            secret_in_form: supports("client_secret_post") && !supports("client_secret_basic"),
            challenge_methods: document.code_challenge_methods_supported,
            names_itself: document.authorization_response_iss_parameter_supported == Some(true),
        })
    }

    /// A server whose endpoints are configured.
    pub(crate) fn configured(
        issuer: Option<&EndpointUrl>,
        token_endpoint: &EndpointUrl,
        authorization_endpoint: Option<&EndpointUrl>,
    ) -> Self {
        Self {
            issuer: issuer.map(|issuer| issuer.as_str().to_owned()),
            token_endpoint: token_endpoint.url().clone(),
            authorization_endpoint: authorization_endpoint.map(|url| url.url().clone()),
            pushed_requests: None,
            algorithms: None,
            secret_in_form: false,
            challenge_methods: None,
            names_itself: false,
        }
    }

    /// The audience of client assertions: the issuer, or the endpoint of a server without a known issuer.
    pub(crate) fn audience(&self) -> &str {
        self.issuer
            .as_deref()
            .unwrap_or(self.token_endpoint.as_str())
    }
}
