//! The tower layer around a token endpoint.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::discard::{Discard, DiscardLimits, Unread};
use crate::token_endpoint::endpoint::TokenEndpoint;
use crate::token_endpoint::proven_key::ProvenKey;

/// Passes a token request, or a pushed authorization request, to the service only if its proof is
/// valid, with its [`ProvenKey`] in the extensions (and an `Option` of it, for services that may be
/// behind either form of the layer). Adds the next nonce to a successful response when one is due.
///
/// It wraps any service of `http` requests that can be cloned. The request's body is an
/// [`http_body::Body`]; on HTTP/1.1, up to 16 MiB of it are read and discarded, for at most 5 s, before a
/// rejection is sent. The response's body can be made from a `String`.
///
/// # Example
///
/// ```
/// use axum::{Extension, Router, routing::post};
/// use tower_dpop::token_endpoint::{ProvenKey, TOKEN_TYPE, TokenEndpoint, TokenEndpointLayer};
///
/// fn app(endpoint: TokenEndpoint) -> Router {
///     Router::new().route("/token", post(token)).route_layer(TokenEndpointLayer::new(endpoint))
/// }
///
/// // With the feature `axum`, a handler takes a `ProvenKey` itself.
/// async fn token(Extension(key): Extension<ProvenKey>) -> String {
///     let claims = serde_json::json!({ "sub": "alice", "cnf": key.cnf() });
///     let token = claims.to_string(); // signed, in production
///     serde_json::json!({ "access_token": token, "token_type": TOKEN_TYPE }).to_string()
/// }
/// # let _ = app;
/// ```
#[derive(Clone)]
pub struct TokenEndpointLayer {
    endpoint: Arc<TokenEndpoint>,
    without_proof: WithoutProof,
}

#[derive(Clone, Copy, Debug)]
enum WithoutProof {
    PassThrough,
    Reject,
}

impl TokenEndpointLayer {
    /// A layer that uses this endpoint. Clones of the layer share it, including the replay store.
    ///
    /// Pass an `Arc` if the service uses the endpoint, too ([`reject`](TokenEndpoint::reject)).
    pub fn new(endpoint: impl Into<Arc<TokenEndpoint>>) -> Self {
        Self {
            endpoint: endpoint.into(),
            without_proof: WithoutProof::Reject,
        }
    }

    /// Accepts requests without any `DPoP` field, and passes them to the service without a
    /// [`ProvenKey`]: for a server that also serves clients without DPoP.
    ///
    /// # Security
    ///
    /// As for [`TokenEndpoint::verify_if_present`]. Read an `Option<ProvenKey>` from the extensions
    /// (`Extension<Option<ProvenKey>>` in axum): every request that passed through the layer has
    /// one. Do not read a `ProvenKey` that may be missing: on a route where the layer was
    /// forgotten, every client would be treated as a client without DPoP.
    #[must_use]
    pub fn with_requests_without_proof(self) -> Self {
        Self {
            without_proof: WithoutProof::PassThrough,
            ..self
        }
    }
}

impl<S> Layer<S> for TokenEndpointLayer {
    type Service = TokenEndpointService<S>;

    fn layer(&self, inner: S) -> TokenEndpointService<S> {
        self.endpoint.announce();
        TokenEndpointService {
            inner,
            endpoint: Arc::clone(&self.endpoint),
            without_proof: self.without_proof,
        }
    }
}

impl fmt::Debug for TokenEndpointLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpointLayer")
            .field("endpoint", &self.endpoint)
            .field("without_proof", &self.without_proof)
            .finish()
    }
}

/// The service that [`TokenEndpointLayer`] makes.
#[derive(Clone)]
pub struct TokenEndpointService<S> {
    inner: S,
    endpoint: Arc<TokenEndpoint>,
    without_proof: WithoutProof,
}

impl<S, B, D> Service<Request<B>> for TokenEndpointService<S>
where
    S: Service<Request<B>, Response = Response<D>, Future: Send> + Clone + Send + 'static,
    B: Body + Send + 'static,
    D: From<String>,
{
    type Response = Response<D>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<D>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready must be the one that is called; the clone left in its
        // place has not been polled yet.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let endpoint = Arc::clone(&self.endpoint);
        let without_proof = self.without_proof;
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let unread = Unread::of(&head, DiscardLimits::default());
            let outcome = match without_proof {
                WithoutProof::PassThrough => endpoint.verify_if_present(&head).await,
                WithoutProof::Reject => endpoint.verify(&head).await.map(Some),
            };
            let key = match outcome {
                Ok(key) => key,
                Err(rejection) => {
                    let connection = Discard::new(body, unread).await;
                    let mut response = endpoint.reject(rejection);
                    connection.write_to(&mut response);
                    return Ok(response);
                }
            };
            let next_nonce = key.as_ref().and_then(ProvenKey::next_nonce).cloned();
            head.extensions.insert(key.clone());
            if let Some(key) = key {
                head.extensions.insert(key);
            }
            let mut response = inner.call(Request::from_parts(head, body)).await?;
            if let Some(nonce) = next_nonce.filter(|_| response.status().is_success()) {
                nonce.write_to(response.headers_mut());
            }
            Ok(response)
        })
    }
}

impl<S> fmt::Debug for TokenEndpointService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpointService")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
