//! The tower layer: all the tower there is.
//!
//! # Behind other layers
//!
//! - **CORS** goes outside of this layer: a preflight (`OPTIONS` without `Authorization`) is the
//!   CORS layer's to answer, and its answer must also be on refusals. Let it expose
//!   [`CORS_EXPOSE_HEADERS`] and allow [`CORS_ALLOW_HEADERS`]. Where that order cannot be had,
//!   [`DpopLayer::with_preflight_pass_through`] lets preflights by.
//! - **Logging and metrics** go outside, too: they find the
//!   [`Rejection`] in the response's extensions.
//! - **One layer per request.** A layer around a router and a clone of it inside share one replay
//!   memory: the inner one would see every proof a second time.
//! - **Long-lived requests** (WebSocket, server-sent events, streaming gRPC) are verified when they
//!   are opened; [`BoundToken::expires`](crate::binding::BoundToken::expires) says when to end
//!   them.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::credentials::DPOP;
use crate::nonce::{DPOP_NONCE, Nonce};
use crate::rejection::Rejection;
use crate::replay::ReplayStore;
use crate::replay::memory::MemoryReplayStore;
use crate::token::AccessTokenVerifier;
use crate::verifier::{Verified, Verifier};

/// The response header fields that a browser must be allowed to read (RFC 9449 sections 7.1 and 8),
/// for `Access-Control-Expose-Headers`. A wildcard does not cover requests with credentials.
pub const CORS_EXPOSE_HEADERS: [HeaderName; 2] = [WWW_AUTHENTICATE, DPOP_NONCE];

/// The request header fields that a browser must be allowed to send, for
/// `Access-Control-Allow-Headers`. A wildcard does not cover `Authorization`.
pub const CORS_ALLOW_HEADERS: [HeaderName; 2] = [AUTHORIZATION, DPOP];

/// Lets a request through to the service only when its DPoP proof and access token hold together,
/// with a [`BoundToken`](crate::binding::BoundToken) in its extensions.
///
/// It goes around any service of `http` requests that can be cloned and whose response body has a
/// `Default`, the empty body of refusals.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_dpop::binding::BoundToken;
/// use tower_dpop::jwt::Claims;
/// use tower_dpop::layer::DpopLayer;
/// # use tower_dpop::{jwt::JwtVerifier, KeySet, Verifier};
///
/// # fn example(verifier: Verifier<JwtVerifier<KeySet>>) {
/// let service = ServiceBuilder::new().layer(DpopLayer::new(verifier)).service(service_fn(async |request: Request<String>| {
///     let token: &BoundToken<Claims> = request.extensions().get().expect("the layer has put it there");
///     Ok::<_, std::convert::Infallible>(Response::new(format!("hello {}", token.claims().subject())))
/// }));
/// # let _ = service;
/// # }
/// ```
pub struct DpopLayer<V, R = MemoryReplayStore> {
    verifier: Arc<Verifier<V, R>>,
    preflights: Preflights,
}

#[derive(Clone, Copy, Debug)]
enum Preflights {
    Verify,
    PassThrough,
}

impl<V, R> DpopLayer<V, R> {
    /// A layer that asks this verifier. Clones of the layer share it, replay memory included.
    ///
    /// Give an `Arc` to go on using the verifier elsewhere
    /// ([`issue_nonce`](Verifier::issue_nonce)).
    pub fn new(verifier: impl Into<Arc<Verifier<V, R>>>) -> Self {
        Self {
            verifier: verifier.into(),
            preflights: Preflights::Verify,
        }
    }

    /// Lets CORS preflights (`OPTIONS` with `Access-Control-Request-Method` and without
    /// `Authorization`) through unverified.
    ///
    /// # Security
    ///
    /// Such a request reaches the service without a token. Use it only where the service answers
    /// preflights and does nothing else for `OPTIONS`.
    #[must_use]
    pub fn with_preflight_pass_through(self) -> Self {
        Self {
            preflights: Preflights::PassThrough,
            ..self
        }
    }
}

impl<S, V, R> Layer<S> for DpopLayer<V, R> {
    type Service = Dpop<S, V, R>;

    fn layer(&self, inner: S) -> Dpop<S, V, R> {
        Dpop {
            inner,
            verifier: Arc::clone(&self.verifier),
            preflights: self.preflights,
        }
    }
}

impl<V, R> Clone for DpopLayer<V, R> {
    fn clone(&self) -> Self {
        Self {
            verifier: Arc::clone(&self.verifier),
            preflights: self.preflights,
        }
    }
}

impl<V, R> fmt::Debug for DpopLayer<V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopLayer")
            .field("verifier", &self.verifier)
            .field("preflights", &self.preflights)
            .finish()
    }
}

/// The service that [`DpopLayer`] makes.
pub struct Dpop<S, V, R = MemoryReplayStore> {
    inner: S,
    verifier: Arc<Verifier<V, R>>,
    preflights: Preflights,
}

impl<S, V, R, B, D> Service<Request<B>> for Dpop<S, V, R>
where
    S: Service<Request<B>, Response = Response<D>> + Clone,
    V: AccessTokenVerifier,
    R: ReplayStore,
    D: Default,
{
    type Response = Response<D>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, V, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready must be the one that is called; the clone that stays
        // has yet to be polled.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        if let (Preflights::PassThrough, true) = (self.preflights, is_preflight(&request)) {
            return ResponseFuture {
                state: State::Answering {
                    future: inner.call(request),
                    next_nonce: None,
                },
            };
        }
        let (head, body) = request.into_parts();
        let verifying = verify(Arc::clone(&self.verifier), head);
        ResponseFuture {
            state: State::Verifying {
                future: Box::pin(verifying),
                pending: Some((inner, body)),
                verifier: Arc::clone(&self.verifier),
            },
        }
    }
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && !request.headers().contains_key(AUTHORIZATION)
}

type Verification<C> = (Parts, Result<Verified<C>, Rejection>);

/// Takes the head and gives it back, so that no part of it is copied.
async fn verify<V: AccessTokenVerifier, R: ReplayStore>(
    verifier: Arc<Verifier<V, R>>,
    head: Parts,
) -> Verification<V::Claims> {
    let outcome = verifier.verify(&head).await;
    (head, outcome)
}

impl<S: Clone, V, R> Clone for Dpop<S, V, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            verifier: Arc::clone(&self.verifier),
            preflights: self.preflights,
        }
    }
}

impl<S, V, R> fmt::Debug for Dpop<S, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dpop")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`Dpop`]: first the verification, then the inner service's own future.
    pub struct ResponseFuture<S, B, V, R>
    where
        S: Service<Request<B>>,
        V: AccessTokenVerifier,
    {
        #[pin]
        state: State<S, B, V, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, V, R>
    where
        S: Service<Request<B>>,
        V: AccessTokenVerifier,
    {
        Verifying {
            // Boxed, because the future of an async function has no name that could stand here. The
            // inner service's has.
            future: Pin<Box<dyn Future<Output = Verification<V::Claims>> + Send>>,
            pending: Option<(S, B)>,
            verifier: Arc<Verifier<V, R>>,
        },
        Answering {
            #[pin]
            future: S::Future,
            next_nonce: Option<Nonce>,
        },
    }
}

impl<S, B, D, V, R> Future for ResponseFuture<S, B, V, R>
where
    S: Service<Request<B>, Response = Response<D>>,
    V: AccessTokenVerifier,
    D: Default,
{
    type Output = Result<Response<D>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut projected = self.as_mut().project();
            let next = match projected.state.as_mut().project() {
                StateProjection::Verifying {
                    future,
                    pending,
                    verifier,
                } => {
                    let (head, outcome) = ready!(future.as_mut().poll(context));
                    // Taken on a refusal too: it ends the inner service's reservation at once.
                    let (mut inner, body) = pending
                        .take()
                        .expect("a future is not polled again after it was ready");
                    let verified = match outcome {
                        Ok(verified) => verified,
                        Err(rejection) => return Poll::Ready(Ok(verifier.refuse(rejection))),
                    };
                    let mut request = Request::from_parts(head, body);
                    request.extensions_mut().insert(verified.token);
                    State::Answering {
                        future: inner.call(request),
                        next_nonce: verified.next_nonce,
                    }
                }
                StateProjection::Answering { future, next_nonce } => {
                    let mut response = ready!(future.poll(context))?;
                    let succeeded = response.status().is_success()
                        || response.status() == StatusCode::SWITCHING_PROTOCOLS;
                    if let Some(nonce) = next_nonce.take().filter(|_| succeeded) {
                        nonce.write_to(response.headers_mut());
                    }
                    return Poll::Ready(Ok(response));
                }
            };
            projected.state.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B, V: AccessTokenVerifier, R> fmt::Debug
    for ResponseFuture<S, B, V, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture(..)")
    }
}
