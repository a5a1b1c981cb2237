//! The tower layer for requests to resource servers.

use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use derive_where::derive_where;
use http::{Request, Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::client::body::{BodyCopy, CloneBody};
use crate::client::challenge::Challenge;
use crate::client::exchange::{
    ClientError, ClockCorrection, Demand, Destination, Exchange, OtherOrigins, Reads,
};
use crate::client::signer::ProofSigner;
use crate::client::token::TokenSource;
use crate::proof::public_url::PublicUrl;
use crate::time::Clock;

/// Sends a proof and the access token with every request ([RFC 9449 section
/// 7](https://www.rfc-editor.org/rfc/rfc9449#section-7)).
///
/// - On a demand for a nonce (a 401 or 400 with `use_dpop_nonce` in a DPoP challenge), the layer sends
///   the request again with a new proof, once per new nonce and at most twice. It stores the nonce of
///   every response, successful or not, per origin.
/// - If a proof is rejected and the server's `Date` shows that our clock is wrong, by one day at
///   most, the layer tries once more, with the server's time in the proof. If that proof is accepted,
///   further proofs have the server's time, too.
/// - Token and proof are sent only to the servers configured on the layer.
/// - Concurrent requests do not wait for each other.
///
/// See the [module](crate::client) for redirects. Put timeouts and retries outside of the layer: it may
/// send a request more than once, and each attempt must have its own proof.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{Layer, ServiceExt};
/// use tower_dpop::client::{AccessTokenText, DpopClientLayer};
/// use tower_dpop::jose::SigningKey;
///
/// # async fn example(key: SigningKey, token: AccessTokenText) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// // In production, with a connector for HTTPS, for example hyper-rustls.
/// let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
/// let client = DpopClientLayer::new(key, token, "https://api.example.com".parse()?).layer(http);
/// let response = client.oneshot(Request::get("https://api.example.com/orders").body(Full::default())?).await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The service's error is [`ClientError`]. A rejection by the server is not an error: if the layer
/// cannot meet the demands, the caller gets the server's response, for example `invalid_token`. An
/// outer layer can then make the [`TokenSource`] renew the token.
///
/// # Security
///
/// The token is never sent as a bearer token, whatever the server asks for. Existing `DPoP` and
/// `Authorization` fields of the request are replaced, whatever their scheme.
///
/// Anyone who can send responses in the name of a server can make the client sign a proof for that
/// server, dated up to one day ahead, and use that proof later. If the server requires nonces ([RFC
/// 9449 section 11.2](https://www.rfc-editor.org/rfc/rfc9449#section-11.2)), it is soon useless;
/// [`without_clock_correction`](Self::without_clock_correction) prevents it.
#[derive_where(Clone)]
pub struct DpopClientLayer<K, T, P = CloneBody> {
    exchange: Exchange<K, P>,
    tokens: Arc<T>,
}

impl<K: ProofSigner, T: TokenSource> DpopClientLayer<K, T> {
    /// A layer that signs with this key, a [`SigningKey`](crate::jose::SigningKey) or [`ProofSigner`],
    /// and presents this token, an [`AccessTokenText`](crate::client::AccessTokenText) or [`TokenSource`],
    /// at the server at this URL and at no other.
    ///
    /// If the URL has a path, only requests below it are signed. Paths that servers could read in
    /// different ways are not ([`ClientError::AmbiguousPath`]): those with `.` or `..` segments, or with
    /// an encoded slash, backslash or NUL, however often encoded.
    pub fn new(key: K, tokens: T, server: PublicUrl) -> Self {
        Self {
            exchange: Exchange::new(key, server, CloneBody),
            tokens: Arc::new(tokens),
        }
    }
}

impl<K, T, P> DpopClientLayer<K, T, P> {
    /// Presents the same tokens at another server. URLs with a path follow the rule of
    /// [`new`](DpopClientLayer::new).
    #[must_use]
    pub fn add_server(mut self, server: PublicUrl) -> Self {
        self.exchange.servers.add(server);
        self
    }

    /// Sends requests to all other servers unchanged, without token and proof. By default they are
    /// an error ([`ClientError::OtherServer`]).
    #[must_use]
    pub fn with_other_servers_unsigned(mut self) -> Self {
        self.exchange.other_origins = OtherOrigins::PassUnsigned;
        self
    }

    /// Sets how a body is copied, so that a request can be sent again. The default is to
    /// [clone](CloneBody) it. For other bodies, pass a function, as for reqwest's:
    /// `|body: &reqwest::Body| body.as_bytes().map(|bytes| bytes.to_vec().into())`.
    #[must_use]
    pub fn with_body_copy<Q>(self, bodies: Q) -> DpopClientLayer<K, T, Q> {
        DpopClientLayer {
            exchange: self.exchange.with_bodies(bodies),
            tokens: self.tokens,
        }
    }

    /// Never puts the server's time into proofs, whatever its `Date` says.
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

impl<S, K, T, P> Layer<S> for DpopClientLayer<K, T, P> {
    type Service = DpopClientService<S, K, T, P>;

    fn layer(&self, inner: S) -> DpopClientService<S, K, T, P> {
        DpopClientService {
            inner,
            signing: Arc::new(self.clone()),
        }
    }
}

impl<K: ProofSigner, T, P> fmt::Debug for DpopClientLayer<K, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopClientLayer")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

/// The service that [`DpopClientLayer`] makes.
#[derive_where(Clone; S)]
pub struct DpopClientService<S, K, T, P = CloneBody> {
    inner: S,
    signing: Arc<DpopClientLayer<K, T, P>>,
}

impl<S, K, T, P, B, D> Service<Request<B>> for DpopClientService<S, K, T, P>
where
    K: ProofSigner,
    T: TokenSource,
    P: BodyCopy<B>,
    S: Service<Request<B>, Response = Response<D>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Send + 'static,
    D: Send + 'static,
{
    type Response = Response<D>;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<D>, ClientError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.inner
            .poll_ready(context)
            .map_err(ClientError::transport)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready must be the one that is called.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let signing = Arc::clone(&self.signing);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            match signing.exchange.destination(&head)? {
                Destination::OtherOrigin => inner
                    .call(Request::from_parts(head, body))
                    .await
                    .map_err(ClientError::transport),
                Destination::Server(server, htu) => {
                    let token = signing.tokens.token().await?;
                    signing
                        .exchange
                        .send::<ResourceServer, _, _, _>(
                            inner,
                            (server, htu),
                            Some(&token),
                            (head, body),
                        )
                        .await
                }
            }
        })
    }
}

impl<S, K: ProofSigner, T, P> fmt::Debug for DpopClientService<S, K, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopClientService")
            .field("exchange", &self.signing.exchange)
            .finish_non_exhaustive()
    }
}

/// A resource server states its demands in a challenge (RFC 9449 sections 7.1 and 9).
struct ResourceServer;

impl<D: Send> Reads<D> for ResourceServer {
    type Body = D;

    fn read(response: Response<D>) -> impl Future<Output = (Demand, Response<D>)> + Send {
        future::ready((demand(&response), response))
    }
}

/// The status of a demand for a nonce is 401, but some servers send 400, as at a token endpoint.
fn demand<D>(response: &Response<D>) -> Demand {
    let status = response.status();
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST) {
        return Demand::Other;
    }
    Challenge::from_headers(response.headers())
        .iter()
        .filter(|challenge| challenge.is_scheme("DPoP"))
        .find_map(|challenge| Demand::of_error(challenge.parameter("error")?))
        .filter(|demand| status == StatusCode::UNAUTHORIZED || *demand == Demand::UseNonce)
        .unwrap_or(Demand::Other)
}
