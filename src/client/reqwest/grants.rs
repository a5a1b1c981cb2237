//! The requests to the authorization server: for tokens, and pushed authorization requests.

use std::sync::Arc;

use form_urlencoded::Serializer;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use reqwest::Url;
use tower_layer::Layer;

use crate::client::exchange::ClientError;
use crate::client::reqwest::any_signer::AnySigner;
use crate::client::reqwest::error::{DpopClientError, error_code};
use crate::client::reqwest::metadata::AuthorizationServer;
use crate::client::reqwest::transport::{FormCopy, Http, call};
use crate::client::token::{TokenErrorResponse, TokenResponse};
use crate::client::token_requests::{TokenClient, TokenClientLayer};
use crate::issuer::client_authentication::ClientAuthentication;
use crate::issuer::http::{FORM, IDENTITY, read};
use crate::proof::public_url::PublicUrl;
use crate::time::Clock;

/// Responses of the authorization server are not longer than this. Access tokens that list all groups of a user have tens of
/// kilobytes.
const MAX_RESPONSE: usize = 256 * 1024;

/// How often a form with a client assertion is made again for a new nonce.
const MAX_ASSERTIONS: usize = 3;

/// Who asks, for what.
#[derive(Clone)]
pub(crate) struct Applicant {
    pub(crate) client_id: String,
    /// `None` for a public client.
    pub(crate) authentication: Option<ClientAuthentication>,
    pub(crate) assertion: HasAssertion,
    pub(crate) scope: Option<String>,
    /// RFC 8707.
    pub(crate) resources: Vec<String>,
    pub(crate) parameters: Vec<(String, String)>,
}

/// Whether the client authenticates by an assertion, which is accepted once.
#[derive(Clone, Copy)]
pub(crate) enum HasAssertion {
    No,
    Yes,
}

/// The token endpoint and the endpoint for pushed requests.
#[derive(Clone)]
pub(crate) struct Grants {
    pub(crate) server: Arc<AuthorizationServer>,
    pub(crate) applicant: Arc<Applicant>,
    service: TokenClient<Http, AnySigner, FormCopy>,
    clock: Clock,
}

impl Grants {
    pub(crate) fn new(
        http: Http,
        key: AnySigner,
        applicant: Applicant,
        server: AuthorizationServer,
        clock: Clock,
    ) -> Result<Self, DpopClientError> {
        let copies = match applicant.assertion {
            HasAssertion::No => FormCopy::Always,
            HasAssertion::Yes => FormCopy::Never,
        };
        let for_layer = clock.clone();
        let mut layer = TokenClientLayer::new(key, origin(&server.token_endpoint)?)
            .with_body_copy(copies)
            .with_clock(move || for_layer.read());
        if let Some(url) = &server.pushed_requests {
            layer = layer.add_server(origin(url)?);
        }
        Ok(Self {
            service: layer.layer(http),
            server: Arc::new(server),
            applicant: Arc::new(applicant),
            clock,
        })
    }

    /// A token for the client itself (RFC 6749 section 4.4).
    pub(crate) async fn client_credentials(&self) -> Result<TokenResponse, DpopClientError> {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(
            self.applicant
                .scope
                .as_deref()
                .map(|scope| ("scope", scope)),
        );
        self.token(form).await
    }

    /// A token for a refresh token (RFC 6749 section 6). Without `scope`, the scope stays the same.
    pub(crate) async fn refresh(&self, token: &str) -> Result<TokenResponse, DpopClientError> {
        self.token(vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
        ])
        .await
    }

    /// A token for a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    pub(crate) async fn code(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<TokenResponse, DpopClientError> {
        self.token(vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ])
        .await
    }

    async fn token<'f>(
        &'f self,
        mut form: Vec<(&'f str, &'f str)>,
    ) -> Result<TokenResponse, DpopClientError> {
        form.extend(self.applicant.targets());
        let response = self.post(&self.server.token_endpoint, &form).await?;
        TokenResponse::from_json(&response).map_err(DpopClientError::TokenResponse)
    }

    /// Sends a form with the client's authentication. Returns the body of a successful response.
    pub(crate) async fn post(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<Vec<u8>, DpopClientError> {
        let mut attempts = 1;
        let response = loop {
            let sent = call(self.service.clone(), self.request(url, fields)?).await;
            match sent {
                Ok(response) => break response,
                // The layer has the nonce now.
                Err(ClientError::BodyNotCopyable) if attempts < MAX_ASSERTIONS => attempts += 1,
                Err(ClientError::Transport(error)) => return Err(unreachable(error.as_ref())),
                Err(error) => return Err(DpopClientError::of_request(error)),
            }
        };
        let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
        let understood = [StatusCode::OK, StatusCode::CREATED, StatusCode::BAD_REQUEST];
        let response = read(response, &understood, MAX_RESPONSE)
            .await
            .map_err(|error| DpopClientError::Unreachable(error.to_string()))?;
        if response.status.is_success() {
            return Ok(response.body);
        }
        Err(DpopClientError::TokenRequest {
            status: response.status,
            error: TokenErrorResponse::from_json(&response.body).map_or_else(
                || "no error code".to_owned(),
                |response| error_code(response.error()),
            ),
        })
    }

    /// With a new assertion each time, if the client authenticates by one.
    fn request(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<Request<String>, DpopClientError> {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(fields);
        let authorization = if let Some(authentication) = &self.applicant.authentication {
            authentication
                .authenticate(&mut form, self.clock.now())
                .map_err(|_| DpopClientError::Assertion)?
        } else {
            form.append_pair("client_id", &self.applicant.client_id);
            None
        };
        let mut request = Request::post(url.as_str())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(ACCEPT_ENCODING, IDENTITY)
            .header(CONTENT_TYPE, FORM)
            .body(form.finish())
            .map_err(|error| DpopClientError::Unreachable(error.to_string()))?;
        if let Some(mut field) = authorization {
            field.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, field);
        }
        Ok(request)
    }
}

impl Applicant {
    /// What authorization requests and token requests have in common: for which servers the token is.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&str, &str)> {
        let resources = self.resources.iter().map(|uri| ("resource", uri.as_str()));
        let parameters = self
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        resources.chain(parameters)
    }
}

/// The server of a URL that [`EndpointUrl`](crate::issuer::endpoint_url::EndpointUrl) has accepted.
fn origin(url: &Url) -> Result<PublicUrl, DpopClientError> {
    PublicUrl::insecure_http(&url.origin().ascii_serialization())
        .map_err(|error| DpopClientError::Unreachable(error.to_string()))
}

/// The causes, without the URL.
fn unreachable(error: &(dyn std::error::Error + 'static)) -> DpopClientError {
    let mut texts = Vec::new();
    let mut next = match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => {
            return DpopClientError::Unreachable("it took too long".to_owned());
        }
        Some(error) => std::error::Error::source(error),
        None => Some(error),
    };
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    DpopClientError::Unreachable(texts.join(": "))
}
