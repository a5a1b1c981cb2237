//! The client: what is sent, and what is tried again.

use std::fmt;
use std::sync::Arc;

use http::{Response, StatusCode, Uri};
use reqwest::Request;

use crate::client::challenge::Challenge;
use crate::client::exchange::ClientError;
use crate::client::new_proof::InvalidRequestUrl;
use crate::client::reqwest::any_signer::AnySigner;
use crate::client::reqwest::error::DpopClientError;
use crate::client::reqwest::session::Session;
use crate::client::reqwest::transport::{Http, Presented, RequestCopy, call};
use crate::client::resources::DpopClientService;
use crate::client::signer::ProofSigner;
use crate::client::token::TokenResponse;
use crate::jose::algorithm::Algorithm;
use crate::jose::thumbprint::Thumbprint;
use crate::proof::public_url::PublicUrl;

/// The layer for resources, over reqwest.
pub(crate) type Resources = DpopClientService<Http, AnySigner, Session, RequestCopy>;

/// A client for resource servers that gets its tokens itself. (Feature `reqwest`.)
///
/// - It requests a token when it needs the first one, and renews it in the background, before it expires: one request is in flight
///   for all, and requests go on with the valid token meanwhile.
/// - It signs each request, and repeats it if a nonce is required, as
///   [`DpopClientLayer`](crate::client::DpopClientLayer) does.
/// - If a server rejects the token (`invalid_token`), the client gets another one and repeats the request, once. If it gets
///   none, the caller gets the response.
/// - The token goes only to the servers that were named with
///   [`add_server`](crate::client::DpopClientBuilder::add_server).
///
/// Clones share the token and the connections. Build one client, and clone it.
///
/// # Example
///
/// ```no_run
/// use tower_dpop::client::DpopClient;
///
/// # async fn example(secret: String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let client = DpopClient::builder()
///     .with_issuer("https://as.example.com".parse()?)
///     .with_client_secret("orders-batch", secret)
///     .add_server("https://api.example.com".parse()?)
///     .build()
///     .await?;
///
/// let response = client.get("https://api.example.com/orders").send().await?;
/// println!("{}", response.error_for_status()?.text().await?);
///
/// // The token is for api.example.com, so nothing is sent to another server.
/// assert!(client.get("https://other.example.com/").send().await.is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Redirects
///
/// Redirects are not followed: the caller gets the response 3xx. A request to its `Location` is another request, with
/// another proof, and only to a server that may get the token.
///
/// # Errors
///
/// A rejection by a server is not an error: the caller gets the response, as with reqwest. [`DpopClientError`] says why there
/// is no response.
#[derive(Clone)]
pub struct DpopClient {
    pub(crate) http: Http,
    pub(crate) key: AnySigner,
    pub(crate) session: Session,
    pub(crate) resources: Arc<Resources>,
    /// The servers that may get the token.
    pub(crate) servers: Arc<[PublicUrl]>,
}

impl DpopClient {
    /// Sends a request. Its `Authorization` and `DPoP` fields are replaced.
    ///
    /// If it must be sent again and its body is a stream, the error is [`ClientError::BodyNotCopyable`]: the next request to
    /// that server has the nonce, or the new token. A [timeout](Request::timeout_mut) is that of each attempt.
    pub async fn execute(&self, request: Request) -> Result<reqwest::Response, DpopClientError> {
        let again = request.try_clone();
        let response = self.send(request).await?;
        let (true, Some(Presented(token))) = (
            rejects_the_token(&response),
            response.extensions().get::<Presented>(),
        ) else {
            return Ok(response.into_body());
        };
        if !self.session.replace(token).await {
            return Ok(response.into_body());
        }
        let again = again.ok_or(DpopClientError::Request(ClientError::BodyNotCopyable))?;
        Ok(self.send(again).await?.into_body())
    }

    /// The response with the current access token, which is requested or renewed as for a request. For requests that this
    /// client cannot send (gRPC, WebSocket): each needs a proof by the same key ([`NewProof`](crate::client::NewProof)).
    pub async fn token_response(&self) -> Result<TokenResponse, DpopClientError> {
        self.session
            .response()
            .await
            .map_err(DpopClientError::Token)
    }

    /// Waits until the renewal in progress has ended, if there is one. Call it at the end of a program that keeps its refresh
    /// token, after the last request: the end of the runtime stops a renewal, and the new refresh token is lost. It takes at
    /// most one minute.
    pub async fn wait_for_renewal(&self) {
        self.session.wait_for_renewal().await;
    }

    /// The thumbprint of the public key (`jkt`), to which the tokens are bound. It is no secret.
    pub fn thumbprint(&self) -> Thumbprint {
        self.key.public_key().thumbprint()
    }

    /// The algorithm of the proofs.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    async fn send(&self, request: Request) -> Result<Response<reqwest::Response>, DpopClientError> {
        let mut signed = http::Request::new(());
        *signed.method_mut() = request.method().clone();
        // reqwest sends to the same URL.
        *signed.uri_mut() =
            request.url().as_str().parse::<Uri>().map_err(|_| {
                DpopClientError::Request(ClientError::Url(InvalidRequestUrl::NotHttp))
            })?;
        signed.headers_mut().clone_from(request.headers());
        call(self.resources.as_ref().clone(), signed.map(|()| request))
            .await
            .map_err(|error| DpopClientError::of_resource_request(error, &self.servers))
    }
}

/// Whether a server rejects the token itself, and not the proof (RFC 9449 section 7.1).
fn rejects_the_token<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && Challenge::from_headers(response.headers())
            .iter()
            .any(|challenge| {
                challenge.is_scheme("DPoP") && challenge.parameter("error") == Some("invalid_token")
            })
}

impl fmt::Debug for DpopClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopClient")
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}
