//! The tower layer around a [`Verifier`].

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use derive_where::derive_where;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::discard::{Discard, DiscardLimits, Unread};
use crate::proof::nonce::Nonce;
use crate::resource::bearer::AcceptedToken;
use crate::resource::facts::RequestFacts;
use crate::resource::guard::{Enforcement, Guard, ReportedRejection};
use crate::resource::rejection::Rejection;
use crate::resource::verifier::Verifier;
use crate::telemetry::Consequence;
use crate::tokens::claims::Claims;

/// Accepts a request only if its DPoP proof is valid and bound to its access token. An accepted request
/// has a [`BoundToken`](crate::BoundToken) in its extensions or, if the verifier allows Bearer, possibly a
/// [`BearerToken`](crate::BearerToken). [`Rejection`] lists the responses to rejected requests.
///
/// It wraps any `Clone` service of `http` requests. The request's body is an [`http_body::Body`], such as those of
/// hyper and axum, or a `String`: a rejected request's body
/// [is read and discarded](DpopLayer::with_discard_limits). For other requests, call [`Verifier::verify`], which
/// takes their head. The response's body is `Default`: a rejected request gets the default body, which is empty.
/// For JSON bodies, put a [`ProblemDetailsLayer`](crate::resource::ProblemDetailsLayer) outside.
///
/// # Example
///
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use axum::{Router, routing::get};
/// use tower_dpop::{BoundToken, DpopLayer, Verifier};
///
/// // With the feature `axum`. Without it, a handler takes `Extension<BoundToken>`.
/// async fn orders(token: BoundToken) -> String {
///     format!("the orders of {}", token.claims().subject().unwrap_or("a machine"))
/// }
///
/// fn app(verifier: Verifier) -> Router {
///     Router::new().route("/orders", get(orders)).route_layer(DpopLayer::new(verifier))
/// }
/// # let _ = app;
/// ```
///
/// Around any other service:
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_dpop::{BoundToken, DpopLayer, Verifier};
///
/// # fn example(verifier: Verifier) {
/// let service = ServiceBuilder::new().layer(DpopLayer::new(verifier)).service(service_fn(async |request: Request<String>| {
///     let token: &BoundToken = request.extensions().get().expect("the layer has put it there");
///     Ok::<_, std::convert::Infallible>(Response::new(format!("hello {}", token.claims().subject().unwrap_or("a machine"))))
/// }));
/// # let _ = service;
/// # }
/// ```
///
/// # With other layers
///
/// - **CORS** goes outside this layer: the CORS layer responds to preflights (`OPTIONS` without
///   `Authorization`), and must also add its header fields to responses to rejected requests.
///   [`cors_allow_headers`](crate::resource::cors_allow_headers) and
///   [`cors_expose_headers`](crate::resource::cors_expose_headers) are the lists for it, with an example.
///   If that order is not possible, [`DpopLayer::with_preflight_pass_through`] lets preflights through.
/// - **Logging and metrics** go outside, too: they find the [`Rejection`] in the response's extensions.
/// - **Authorization** goes inside: [`RequireScopesLayer`](crate::RequireScopesLayer) and similar layers
///   respond with the challenges of this one.
/// - **Inside axum's `nest`**, which shortens the path, enable the feature `axum`; for other routers, set
///   a [target resolver](crate::ProofRules::with_target_resolver). A proof names the whole path.
/// - **axum's `Router::layer`** also rejects requests for paths that do not exist. With `Router::route_layer`
///   they get the router's 404. Routes that are added later are behind neither.
/// - **One layer per request.** Clones of a layer share one replay store, so a second one inside the
///   first rejects every proof as a replay.
/// - **Long-lived requests** (WebSocket, server-sent events, streaming gRPC) are verified when opened;
///   [`BoundToken::expires`](crate::BoundToken::expires) is when to close them.
#[derive_where(Clone)]
pub struct DpopLayer<C = Claims> {
    verifier: Arc<Verifier<C>>,
    preflights: Preflights,
    enforcement: Enforcement,
    discard: DiscardLimits,
}

#[derive(Clone, Copy, Debug)]
enum Preflights {
    Verify,
    PassThrough,
}

impl<C> DpopLayer<C> {
    /// A layer that uses this verifier. Clones of the layer share it, including its replay store.
    ///
    /// Pass an `Arc` to use the verifier elsewhere, too ([`issue_nonce`](Verifier::issue_nonce)).
    pub fn new(verifier: impl Into<Arc<Verifier<C>>>) -> Self {
        Self {
            verifier: verifier.into(),
            preflights: Preflights::Verify,
            enforcement: Enforcement::Enforced,
            discard: DiscardLimits::default(),
        }
    }

    /// Lets every request through, and only reports which requests would have been rejected, while a
    /// service is being moved behind the layer. A report is a [`ReportedRejection`] in the extensions of
    /// the request and of its response, a `tracing` event, and the decision `reported` in the
    /// [metric](crate::telemetry). Valid requests have their token; a client that needs a nonce gets one.
    ///
    /// Inner layers, such as [`RequireScopesLayer`](crate::RequireScopesLayer), only report as well. In this
    /// mode a handler must take its token as an `Option`: without a token, axum's extractors respond with a
    /// plain 500.
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

    /// How much of a rejected request's body is read and discarded before the response is sent, and for how long:
    /// 16 MiB and 5 s by default. It lets a client that is still sending see the response, and the connection take
    /// another request. A longer or slower body gets a response with `Connection: close`, and its client may see the
    /// connection end first.
    ///
    /// Only HTTP/1.1 needs this. A request with `Expect: 100-continue` gets its response at once. One frame is held at
    /// a time. The time limit needs a tokio runtime with timers; without a runtime, only what has already arrived is
    /// read.
    #[must_use]
    pub fn with_discard_limits(self, max_bytes: u64, max_time: Duration) -> Self {
        Self {
            discard: DiscardLimits {
                bytes: max_bytes,
                time: max_time,
            },
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
        self.verifier.announce(self.enforcement.consequence());
        Dpop {
            inner,
            verifier: Arc::clone(&self.verifier),
            preflights: self.preflights,
            enforcement: self.enforcement,
            discard: self.discard,
        }
    }
}

impl<C> fmt::Debug for DpopLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopLayer")
            .field("verifier", &self.verifier)
            .field("preflights", &self.preflights)
            .field("enforcement", &self.enforcement)
            .field("discard", &self.discard)
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
    discard: DiscardLimits,
}

impl<S, C, B, D> Service<Request<B>> for Dpop<S, C>
where
    S: Service<Request<B>, Response = Response<D>> + Clone,
    C: Send + Sync + 'static,
    B: Body,
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
            let facts = self
                .verifier
                .policy()
                .facts(request.method(), request.extensions());
            let guard = Guard::new(&self.verifier, Enforcement::Waived, self.discard, facts);
            request.extensions_mut().insert(guard);
            return DpopFuture {
                state: State::Responding {
                    future: inner.call(request),
                    note: Note::default(),
                },
            };
        }
        let (head, body) = request.into_parts();
        let unread = Unread::of(&head, self.discard);
        let deciding = decide(
            Arc::clone(&self.verifier),
            self.enforcement,
            self.discard,
            head,
        );
        DpopFuture {
            state: State::Verifying {
                future: Box::pin(deciding),
                pending: Some((inner, body)),
                unread,
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

type Outcome = Result<(Parts, Note), (Rejection, RequestFacts)>;

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
    discard: DiscardLimits,
    mut head: Parts,
) -> Outcome {
    let mut note = Note::default();
    let mut facts = verifier.policy().facts_of(&head);
    let decision = verifier.decide(&head, &mut facts).await;
    let outer = head.extensions.get::<Guard>();
    let decided_outside = outer.is_some_and(|outer| outer.enforcement == Enforcement::Enforced);
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
        Err(rejection) if enforcement == Enforcement::Enforced => return Err((rejection, facts)),
        Err(rejection) => {
            let policy = verifier.policy();
            note.next_nonce = policy.report(&rejection, &facts, Consequence::Reported);
            let reported = ReportedRejection(rejection);
            head.extensions.insert(reported.clone());
            note.reported = Some(reported);
        }
    }
    if is_in_charge {
        head.extensions
            .insert(Guard::new(&verifier, enforcement, discard, facts));
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

const POLLED_AGAIN: &str = "a future is not polled again after it was ready";

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
            unread: Unread,
            verifier: Arc<Verifier<C>>,
            span: Span,
        },
        Rejecting {
            #[pin]
            body: Discard<B>,
            response: Option<S::Response>,
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
    B: Body,
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
                    unread,
                    verifier,
                    span,
                } => {
                    let entered = span.enter();
                    let decision = ready!(future.as_mut().poll(context));
                    // Also taken on a rejection: this ends the inner service's reservation at once.
                    let (mut inner, body) = pending.take().expect(POLLED_AGAIN);
                    match decision {
                        Ok((head, note)) => {
                            drop(entered);
                            State::Responding {
                                future: inner.call(Request::from_parts(head, body)),
                                note,
                            }
                        }
                        Err((rejection, facts)) => State::Rejecting {
                            response: Some(verifier.policy().reject(rejection, &facts)),
                            body: Discard::new(body, *unread),
                        },
                    }
                }
                StateProjection::Rejecting { body, response } => {
                    let connection = ready!(body.poll(context));
                    let mut response = response.take().expect(POLLED_AGAIN);
                    connection.write_to(&mut response);
                    return Poll::Ready(Ok(response));
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
