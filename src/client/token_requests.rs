//! The tower layer for requests to the authorization server: to its token endpoint, and to its
//! endpoint for pushed authorization requests.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use derive_where::derive_where;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::client::body::{BodyCopy, CloneBody, ResponseBody};
use crate::client::exchange::{
    ClientError, ClockCorrection, Demand, Destination, Exchange, OtherOrigins, Reads,
};
use crate::client::signer::ProofSigner;
use crate::client::token::TokenErrorResponse;
use crate::proof::public_url::PublicUrl;
use crate::time::Clock;

/// Sends a proof with every request to the authorization server ([RFC 9449 section
/// 5](https://www.rfc-editor.org/rfc/rfc9449#section-5)): with every grant, `refresh_token`
/// included, and with pushed authorization requests.
///
/// Like [`DpopClientLayer`](crate::client::DpopClientLayer), it handles demands for a nonce, stores
/// nonces, and corrects the clock. There is no access token, so the proof has no `ath`. The
/// request's `Authorization` field (the client's own authentication) is kept, unless its scheme is
/// DPoP.
///
/// A demand is in the JSON body of a 400 response, so the layer reads such a body, up to 16 KiB of
/// it, before it returns the response. The caller still gets the whole body, as [`ResponseBody`].
/// Put a timeout outside of the layer for this reason.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::{BodyExt, Full};
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{Layer, ServiceExt};
/// use tower_dpop::client::{TokenClientLayer, TokenResponse};
/// use tower_dpop::jose::SigningKey;
///
/// # async fn example(key: SigningKey) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
/// let endpoint = TokenClientLayer::new(key, "https://as.example.com".parse()?).layer(http);
/// let request = Request::post("https://as.example.com/token")
///     .header("content-type", "application/x-www-form-urlencoded")
///     .body(Full::from("grant_type=client_credentials"))?; // with the client's own authentication
/// let response = endpoint.oneshot(request).await?;
/// let granted = TokenResponse::from_json(&response.into_body().collect().await?.to_bytes())?;
/// # let _ = granted;
/// # Ok(())
/// # }
/// ```
///
/// # Client assertions
///
/// A request is sent again with the same body. If the body contains a `client_assertion` ([RFC
/// 7523](https://www.rfc-editor.org/rfc/rfc7523)), which servers accept only once, declare that it
/// cannot be copied: `.with_body_copy(|_: &Body| None)`. A demand then ends in
/// [`ClientError::BodyNotCopyable`], the nonce is stored, and a request with a new assertion
/// succeeds.
///
/// # Security
///
/// The same as for [`DpopClientLayer`](crate::client::DpopClientLayer).
#[derive_where(Clone)]
pub struct TokenClientLayer<K, P = CloneBody> {
    exchange: Exchange<K, P>,
}

impl<K: ProofSigner> TokenClientLayer<K> {
    /// A layer that signs with this key, for the authorization server at this URL and no other.
    ///
    /// The URL is that of the endpoints, for example their origin. It need not be the issuer
    /// identifier. If it has a path, only requests below it are signed, by the rule of
    /// [`DpopClientLayer::new`](crate::client::DpopClientLayer::new).
    pub fn new(key: K, authorization_server: PublicUrl) -> Self {
        Self {
            exchange: Exchange::new(key, authorization_server, CloneBody),
        }
    }
}

impl<K, P> TokenClientLayer<K, P> {
    /// Adds another server with endpoints of the same authorization server. Nonces are stored
    /// separately for each.
    #[must_use]
    pub fn add_server(mut self, server: PublicUrl) -> Self {
        self.exchange.servers.add(server);
        self
    }

    /// Sends requests to all other servers unchanged, without a proof. By default they are an error
    /// ([`ClientError::OtherServer`]).
    #[must_use]
    pub fn with_other_servers_unsigned(mut self) -> Self {
        self.exchange.other_origins = OtherOrigins::PassUnsigned;
        self
    }

    /// Copies bodies in another way than by cloning them, so that a request can be sent again.
    #[must_use]
    pub fn with_body_copy<Q>(self, bodies: Q) -> TokenClientLayer<K, Q> {
        TokenClientLayer {
            exchange: self.exchange.with_bodies(bodies),
        }
    }

    /// Never corrects the clock, whatever the server's `Date` says.
    #[must_use]
    pub fn without_clock_correction(mut self) -> Self {
        self.exchange.correction = ClockCorrection::Never;
        self
    }

    /// Reads the time from this clock. For tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.exchange.clock = Clock::new(clock);
        self
    }
}

impl<S, K, P> Layer<S> for TokenClientLayer<K, P> {
    type Service = TokenClient<S, K, P>;

    fn layer(&self, inner: S) -> TokenClient<S, K, P> {
        TokenClient {
            inner,
            exchange: Arc::new(self.exchange.clone()),
        }
    }
}

impl<K: ProofSigner, P> fmt::Debug for TokenClientLayer<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClientLayer")
            .field("exchange", &self.exchange)
            .finish()
    }
}

/// The service that [`TokenClientLayer`] makes.
#[derive_where(Clone; S)]
pub struct TokenClient<S, K, P = CloneBody> {
    inner: S,
    exchange: Arc<Exchange<K, P>>,
}

impl<S, K, P, B, D> Service<Request<B>> for TokenClient<S, K, P>
where
    K: ProofSigner,
    P: BodyCopy<B>,
    S: Service<Request<B>, Response = Response<D>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Send + 'static,
    D: Body<Data = Bytes> + Send + 'static,
    D::Error: Send,
{
    type Response = Response<ResponseBody<D>>;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ClientError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.inner
            .poll_ready(context)
            .map_err(ClientError::transport)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready must be the one that is called.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let exchange = Arc::clone(&self.exchange);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            match exchange.destination(&head)? {
                Destination::OtherOrigin => inner
                    .call(Request::from_parts(head, body))
                    .await
                    .map(|response| response.map(ResponseBody::untouched))
                    .map_err(ClientError::transport),
                Destination::Server(server, htu) => {
                    exchange
                        .send::<AuthorizationServer, _, _, _>(
                            inner,
                            (server, htu),
                            None,
                            (head, body),
                        )
                        .await
                }
            }
        })
    }
}

impl<S, K: ProofSigner, P> fmt::Debug for TokenClient<S, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

/// An authorization server states its demands in a JSON body (RFC 9449 section 8, RFC 6749 section
/// 5.2).
struct AuthorizationServer;

impl<D: Body<Data = Bytes> + Send> Reads<D> for AuthorizationServer
where
    D::Error: Send,
{
    type Body = ResponseBody<D>;

    async fn read(response: Response<D>) -> (Demand, Response<ResponseBody<D>>) {
        // RFC 6749 section 5.2 uses 401 for a client that authenticated in the Authorization field.
        let rejected = matches!(
            response.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED
        );
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|field| {
            field
                .as_bytes()
                .split(|byte| b"; \t".contains(byte))
                .next()
                .is_some_and(|media_type| media_type.eq_ignore_ascii_case(JSON))
        });
        let (head, body) = response.into_parts();
        let mut body = ResponseBody::untouched(body);
        let demand = if rejected && is_json {
            let seen = body.inspect().await;
            TokenErrorResponse::from_json(&seen)
                .and_then(|response| Demand::of_error(response.error()))
        } else {
            None
        };
        (
            demand.unwrap_or(Demand::Other),
            Response::from_parts(head, body),
        )
    }
}

const JSON: &[u8] = b"application/json";
