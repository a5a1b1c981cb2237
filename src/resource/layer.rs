//! The tower layer around a [`Verifier`].

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use derive_where::derive_where;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::credentials::DPOP;
use crate::proof::nonce::{DPOP_NONCE, Nonce};
use crate::resource::bearer::AcceptedToken;
use crate::resource::guard::{Enforcement, Guard, ReportedRejection};
use crate::resource::rejection::Rejection;
use crate::resource::verifier::Verifier;
use crate::telemetry::Consequence;
use crate::tokens::claims::Claims;

/// The response header fields that a browser must be allowed to read (RFC 9449 sections 7.1 and 8),
/// for `Access-Control-Expose-Headers`. A wildcard does not cover requests with credentials.
pub const CORS_EXPOSE_HEADERS: [HeaderName; 2] = [WWW_AUTHENTICATE, DPOP_NONCE];

/// The request header fields that a browser must be allowed to send, for
/// `Access-Control-Allow-Headers`. A wildcard does not cover `Authorization`.
pub const CORS_ALLOW_HEADERS: [HeaderName; 2] = [AUTHORIZATION, DPOP];

/// Accepts a request only if its DPoP proof is valid and bound to its access token. An accepted request
/// has a [`BoundToken`](crate::BoundToken) in its extensions. If the verifier allows Bearer, it can be a
/// [`BearerToken`](crate::BearerToken) instead.
///
/// It wraps any service of `http` requests that can be cloned and whose response body has a
/// `Default`, the empty body of responses to rejected requests.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_dpop::{BoundToken, Claims, DpopLayer};
/// # use tower_dpop::{JwtVerifier, KeySet, Verifier};
///
/// # fn example(verifier: Verifier) {
/// let service = ServiceBuilder::new().layer(DpopLayer::new(verifier)).service(service_fn(async |request: Request<String>| {
///     let token: &BoundToken = request.extensions().get().expect("the layer has put it there");
///     Ok::<_, std::convert::Infallible>(Response::new(format!("hello {}", token.claims().subject())))
/// }));
/// # let _ = service;
/// # }
/// ```
///
/// # With other layers
///
/// - **CORS** goes outside this layer: the CORS layer responds to preflights (`OPTIONS` without
///   `Authorization`), and must also add its header fields to responses to rejected requests. Let it
///   expose [`CORS_EXPOSE_HEADERS`] and allow [`CORS_ALLOW_HEADERS`]. If that order is not possible,
///   [`DpopLayer::with_preflight_pass_through`] lets preflights through.
/// - **Logging and metrics** go outside, too: they find the
///   [`Rejection`] in the response's extensions.
/// - **Authorization** goes inside: [`RequireScopesLayer`](crate::RequireScopesLayer) and similar layers
///   respond on behalf of this one.
/// - **One layer per request.** A layer around a router and a clone of it inside share one replay
///   store: the inner one would see every proof a second time.
/// - **Long-lived requests** (WebSocket, server-sent events, streaming gRPC) are verified when they
///   are opened; [`BoundToken::expires`](crate::BoundToken::expires) says when to close
///   them.
#[derive_where(Clone)]
pub struct DpopLayer<C = Claims> {
    verifier: Arc<Verifier<C>>,
    preflights: Preflights,
    enforcement: Enforcement,
}

#[derive(Clone, Copy, Debug)]
enum Preflights {
    Verify,
    PassThrough,
}

impl<C> DpopLayer<C> {
    /// A layer that uses this verifier. Clones of the layer share it, including its replay store.
    ///
    /// Pass an `Arc` to keep using the verifier elsewhere
    /// ([`issue_nonce`](Verifier::issue_nonce)).
    pub fn new(verifier: impl Into<Arc<Verifier<C>>>) -> Self {
        Self {
            verifier: verifier.into(),
            preflights: Preflights::Verify,
            enforcement: Enforcement::Enforced,
        }
    }

    /// Lets every request through, and only reports which requests would have been rejected, while a
    /// service is being moved behind the layer. The report is a [`ReportedRejection`] in the extensions
    /// of the request and of its response, an event, and the metric's decision `reported`. Valid
    /// requests have their token as usual; a client that needs a nonce gets one.
    ///
    /// Inner layers, such as [`RequireScopesLayer`](crate::RequireScopesLayer), only report as well. A handler
    /// that takes a token as its argument must take an `Option` of it in this mode: otherwise, without a
    /// token, axum's extractors respond with a plain 500.
    ///
    /// # Security
    ///
    /// No request is rejected. The service's previous access control still decides.
    #[must_use]
    pub fn with_insecure_report_only(self) -> Self {
        Self {
            enforcement: Enforcement::ReportOnly,
            ..self
        }
    }

    /// Lets CORS preflights (`OPTIONS` with `Access-Control-Request-Method` and without
    /// `Authorization`) through without verification.
    ///
    /// # Security
    ///
    /// These requests reach the service without a token. Use it only if the service responds to
    /// preflights and does nothing else for `OPTIONS`.
    #[must_use]
    pub fn with_preflight_pass_through(self) -> Self {
        Self {
            preflights: Preflights::PassThrough,
            ..self
        }
    }
}

impl<S, C> Layer<S> for DpopLayer<C> {
    type Service = Dpop<S, C>;

    fn layer(&self, inner: S) -> Dpop<S, C> {
        Dpop {
            inner,
            verifier: Arc::clone(&self.verifier),
            preflights: self.preflights,
            enforcement: self.enforcement,
        }
    }
}

impl<C> fmt::Debug for DpopLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopLayer")
            .field("verifier", &self.verifier)
            .field("preflights", &self.preflights)
            .field("enforcement", &self.enforcement)
            .finish()
    }
}

/// The service that [`DpopLayer`] makes.
#[derive_where(Clone; S)]
pub struct Dpop<S, C = Claims> {
    inner: S,
    verifier: Arc<Verifier<C>>,
    preflights: Preflights,
    enforcement: Enforcement,
}

impl<S, C, B, D> Service<Request<B>> for Dpop<S, C>
where
    S: Service<Request<B>, Response = Response<D>> + Clone,
    C: Send + Sync + 'static,
    D: Default,
{
    type Response = Response<D>;
    type Error = S::Error;
    type Future = DpopFuture<S, B, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was polled ready must be the one that is called; the remaining clone
        // has not been polled yet.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        if let (Preflights::PassThrough, true) = (self.preflights, is_preflight(&request)) {
            AcceptedToken::<C>::remove_from(request.extensions_mut());
            request.extensions_mut().insert(Guard {
                policy: Arc::clone(self.verifier.policy()),
                enforcement: Enforcement::Waived,
            });
            return DpopFuture {
                state: State::Responding {
                    future: inner.call(request),
                    note: Note::default(),
                },
            };
        }
        let (head, body) = request.into_parts();
        let deciding = decide(Arc::clone(&self.verifier), self.enforcement, head);
        DpopFuture {
            state: State::Verifying {
                future: Box::pin(deciding),
                pending: Some((inner, body)),
                verifier: Arc::clone(&self.verifier),
                span: tracing::debug_span!(target: "tower_dpop", "dpop"),
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

type Outcome = Result<(Parts, Note), Rejection>;

/// What remains to be added to the response to a request that was let through.
#[derive(Default)]
struct Note {
    next_nonce: Option<Nonce>,
    reported: Option<ReportedRejection>,
}

/// Takes the head of a request and returns it, so that no part of it is copied, with the extensions
/// that the inner services look for.
async fn decide<C: Send + Sync + 'static>(
    verifier: Arc<Verifier<C>>,
    enforcement: Enforcement,
    mut head: Parts,
) -> Outcome {
    let mut note = Note::default();
    let decision = verifier.verify_either(&head).await;
    let guard = head.extensions.get::<Guard>();
    let decided_outside = guard.is_some_and(|guard| guard.enforcement == Enforcement::Enforced);
    // The services behind this layer must only find a token that it accepted. But a report-only layer
    // must not change anything for an outer layer that enforces its decisions.
    let is_in_charge = enforcement == Enforcement::Enforced || !decided_outside;
    if is_in_charge {
        AcceptedToken::<C>::remove_from(&mut head.extensions);
    }
    match decision {
        Ok(verified) => {
            if is_in_charge {
                verified.token.insert_into(&mut head.extensions);
            }
            note.next_nonce = verified.next_nonce;
        }
        Err(rejection) if enforcement == Enforcement::Enforced => return Err(rejection),
        Err(rejection) => {
            note.next_nonce = verifier.policy().report(&rejection, Consequence::Reported);
            let reported = ReportedRejection(rejection);
            head.extensions.insert(reported.clone());
            note.reported = Some(reported);
        }
    }
    if is_in_charge {
        head.extensions.insert(Guard {
            policy: Arc::clone(verifier.policy()),
            enforcement,
        });
    }
    Ok((head, note))
}

impl Note {
    fn write_to<D>(self, response: &mut Response<D>) {
        let succeeded =
            response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(nonce) = self
            .next_nonce
            .filter(|_| succeeded || self.reported.is_some())
        {
            nonce.write_to(response.headers_mut());
        }
        if let Some(reported) = self.reported {
            response.extensions_mut().insert(reported);
        }
    }
}

impl<S, C> fmt::Debug for Dpop<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dpop")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`Dpop`]: first the verification, then the inner service's own future.
    pub struct DpopFuture<S, B, C>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, C>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, C>
    where
        S: Service<Request<B>>,
    {
        Verifying {
            // Boxed, because the future of an async function has no name that could be written here.
            // The inner service's future has one.
            future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
            pending: Option<(S, B)>,
            verifier: Arc<Verifier<C>>,
            span: Span,
        },
        Responding {
            #[pin]
            future: S::Future,
            note: Note,
        },
    }
}

impl<S, B, D, C> Future for DpopFuture<S, B, C>
where
    S: Service<Request<B>, Response = Response<D>>,
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
                    span,
                } => {
                    let entered = span.enter();
                    let decision = ready!(future.as_mut().poll(context));
                    // Also taken on a rejection: this ends the inner service's reservation at once.
                    let (mut inner, body) = pending
                        .take()
                        .expect("a future is not polled again after it was ready");
                    let (head, note) = match decision {
                        Ok(passed) => passed,
                        Err(rejection) => return Poll::Ready(Ok(verifier.reject(rejection))),
                    };
                    drop(entered);
                    State::Responding {
                        future: inner.call(Request::from_parts(head, body)),
                        note,
                    }
                }
                StateProjection::Responding { future, note } => {
                    let mut response = ready!(future.poll(context))?;
                    mem::take(note).write_to(&mut response);
                    return Poll::Ready(Ok(response));
                }
            };
            projected.state.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B, C> fmt::Debug for DpopFuture<S, B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DpopFuture(..)")
    }
}
