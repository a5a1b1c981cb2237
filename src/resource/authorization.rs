//! Layers behind [`DpopLayer`](crate::DpopLayer): whether an accepted token is sufficient for a route.

use std::any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use derive_where::derive_where;
use http::{Extensions, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::discard::{Discard, Unread};
use crate::resource::access::Access;
use crate::resource::guard::{Enforcement, Guard, ReportedRejection};
use crate::resource::requirement::{
    AcrValues, AuthenticationRequirement, Requirement, ScopeRequirement, Scopes,
};
use crate::telemetry::short_type_name;
use crate::tokens::claims::{Claims, HasAuthentication, HasScopes};

/// Accepts a request only if its access token has the required scopes. It goes inside
/// [`DpopLayer`](crate::DpopLayer), around one route or several.
///
/// A rejected request gets a response on behalf of the outer layer, for the scheme that was used:
/// `403 insufficient_scope` ([RFC 6750 section
/// 3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)) or `401
/// insufficient_user_authentication` ([RFC 9470](https://www.rfc-editor.org/rfc/rfc9470)).
///
/// ```text
/// WWW-Authenticate: DPoP error="insufficient_scope",
///     error_description="the access token lacks a scope", scope="orders.write", algs="ES256 PS256"
/// ```
///
/// The use of the proof is recorded by then, as for every request that the outer layer accepts: a
/// client that retries with another token must sign a new proof.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_dpop::{DpopLayer, RequireScopesLayer, Verifier};
///
/// fn app(verifier: Verifier) -> Result<Router, Box<dyn std::error::Error>> {
///     let reading = RequireScopesLayer::all_of("orders.read".parse()?);
///     let writing = RequireScopesLayer::all_of("orders.read orders.write".parse()?);
///     Ok(Router::new()
///         .route("/orders", get(async || "orders").layer(reading).post(async || "written").layer(writing))
///         .route_layer(DpopLayer::new(verifier))) // last, so outside
/// }
/// # let _ = app;
/// ```
#[derive_where(Clone)]
pub struct RequireScopesLayer<C = Claims>(RequireLayer<ScopeRequirement, C>);

impl RequireScopesLayer {
    /// Requires every one of these scopes.
    pub fn all_of(scopes: Scopes) -> Self {
        Self(RequireLayer::new(ScopeRequirement::all_of(scopes)))
    }

    /// Requires at least one of these scopes.
    pub fn any_of(scopes: Scopes) -> Self {
        Self(RequireLayer::new(ScopeRequirement::any_of(scopes)))
    }
}

impl<C> RequireScopesLayer<C> {
    /// For tokens whose claims have another type
    /// ([`JwtVerifier::with_claims`](crate::JwtVerifier::with_claims)).
    #[must_use]
    pub fn with_claims<D: HasScopes>(self) -> RequireScopesLayer<D> {
        RequireScopesLayer(self.0.with_claims())
    }
}

/// Accepts a request only if the user was authenticated by certain means, or recently: step-up
/// authentication ([RFC 9470](https://www.rfc-editor.org/rfc/rfc9470)).
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use tower_dpop::resource::RequireAuthenticationLayer;
/// use tower_dpop::{DpopLayer, Verifier};
///
/// fn app(verifier: Verifier) -> Result<Router, Box<dyn std::error::Error>> {
///     let recent = RequireAuthenticationLayer::by_acr("urn:bank:two-factor".parse()?)
///         .with_max_age(Duration::from_secs(300));
///     Ok(Router::new()
///         .route("/transfers", post(async || "done").layer(recent))
///         .route_layer(DpopLayer::new(verifier)))
/// }
/// # let _ = app;
/// ```
#[derive_where(Clone)]
pub struct RequireAuthenticationLayer<C = Claims>(RequireLayer<AuthenticationRequirement, C>);

impl RequireAuthenticationLayer {
    /// Requires an authentication of one of these classes (`acr`).
    pub fn by_acr(acr_values: AcrValues) -> Self {
        Self(RequireLayer::new(AuthenticationRequirement::by_acr(
            acr_values,
        )))
    }

    /// Requires an authentication at most this long ago (whole seconds).
    pub fn within(max_age: Duration) -> Self {
        Self(RequireLayer::new(AuthenticationRequirement::within(
            max_age,
        )))
    }
}

impl<C> RequireAuthenticationLayer<C> {
    /// Also requires that the authentication was at most this long ago (whole seconds).
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        let required = AuthenticationRequirement::clone(&self.0.requirement).with_max_age(max_age);
        Self(RequireLayer::new(required))
    }

    /// For tokens whose claims have another type.
    #[must_use]
    pub fn with_claims<D: HasAuthentication>(self) -> RequireAuthenticationLayer<D> {
        RequireAuthenticationLayer(self.0.with_claims())
    }
}

/// Accepts a request only if its access token meets your own requirement.
///
/// `C` is the type of the claims. With a closure, name the type:
///
/// ```
/// use tower_dpop::resource::RequireLayer;
/// use tower_dpop::Claims;
///
/// let ours = RequireLayer::<_, Claims>::new(|claims: &Claims| claims.claim("tenant") == Some(7));
/// # let _ = ours;
/// ```
#[derive_where(Clone)]
pub struct RequireLayer<Q, C = Claims> {
    requirement: Arc<Q>,
    claims: PhantomData<fn() -> C>,
}

impl<Q, C> RequireLayer<Q, C> {
    /// A layer that enforces this requirement.
    pub fn new(requirement: Q) -> Self {
        Self {
            requirement: Arc::new(requirement),
            claims: PhantomData,
        }
    }

    fn with_claims<D>(self) -> RequireLayer<Q, D> {
        RequireLayer {
            requirement: self.requirement,
            claims: PhantomData,
        }
    }
}

impl<S, Q, C> Layer<S> for RequireLayer<Q, C> {
    type Service = Require<S, Q, C>;

    fn layer(&self, inner: S) -> Require<S, Q, C> {
        Require {
            inner,
            required: self.clone(),
        }
    }
}

impl<S, C> Layer<S> for RequireScopesLayer<C> {
    type Service = Require<S, ScopeRequirement, C>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

impl<S, C> Layer<S> for RequireAuthenticationLayer<C> {
    type Service = Require<S, AuthenticationRequirement, C>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// The service that the layers in this module make.
#[derive_where(Clone; S)]
pub struct Require<S, Q, C = Claims> {
    inner: S,
    required: RequireLayer<Q, C>,
}

impl<S, Q, C, B, D> Service<Request<B>> for Require<S, Q, C>
where
    S: Service<Request<B>, Response = Response<D>> + Clone,
    Q: Requirement<C>,
    C: Send + Sync + 'static,
    B: Body,
    D: Default,
{
    type Response = Response<D>;
    type Error = S::Error;
    type Future = RequireFuture<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let state = match admit(&*self.required.requirement, &mut head.extensions) {
            Ok(reported) => State::Responding {
                future: self.inner.call(Request::from_parts(head, body)),
                reported,
            },
            Err(response) => {
                let guard = head.extensions.get::<Guard>();
                let limits = guard.map(|guard| guard.discard).unwrap_or_default();
                // A service that was polled ready but is not called may hold a reservation that another
                // request waits for. So drop it, and keep a clone that has not been polled yet.
                self.inner = self.inner.clone();
                State::Rejected {
                    body: Discard::new(body, Unread::of(&head, limits)),
                    response: Some(response),
                }
            }
        };
        RequireFuture { state }
    }
}

/// Decides whether the request is accepted. In report-only mode it always is, and the rejection is
/// returned as a report.
fn admit<Q: Requirement<C>, C: Send + Sync + 'static>(
    requirement: &Q,
    extensions: &mut Extensions,
) -> Result<Option<ReportedRejection>, Response<()>> {
    let Some(guard) = extensions.get::<Guard>() else {
        log_missing_token::<Q, C>(None);
        return Err(server_error());
    };
    let reported_before = extensions.get::<ReportedRejection>().is_some();
    let Some(access) = Access::<C>::of(extensions) else {
        // The outer layer lets requests through without a token only if it is configured to.
        return match guard.enforcement {
            Enforcement::Enforced => {
                log_missing_token::<Q, C>(Some(guard));
                Err(server_error())
            }
            Enforcement::ReportOnly => {
                if !reported_before {
                    log_missing_token::<Q, C>(Some(guard));
                }
                Ok(None)
            }
            Enforcement::Waived => Ok(None),
        };
    };
    match access.evaluate(requirement) {
        Ok(()) => Ok(None),
        Err(rejection) if guard.enforcement == Enforcement::Enforced => {
            Err(guard.reject(rejection))
        }
        Err(rejection) => {
            guard.report(&rejection);
            let reported = ReportedRejection(rejection);
            // The client would have received the first rejection.
            if !reported_before {
                extensions.insert(reported.clone());
            }
            Ok(Some(reported))
        }
    }
}

/// The response to a configuration error.
fn server_error() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// There is no outer layer, or its claims have another type: a configuration error.
fn log_missing_token<Q, C>(guard: Option<&Guard>) {
    let [requirement, claims] = [any::type_name::<Q>(), any::type_name::<C>()].map(short_type_name);
    let layer = format!("RequireLayer<{requirement}, {claims}>");
    match guard.map(|guard| guard.claims) {
        Some(claims) if claims != any::type_name::<C>() => {
            let theirs = short_type_name(claims);
            tracing::error!(
                "{layer} found no verified token: the claims of DpopLayer outside it have the type {theirs}, call with_claims on one of them"
            );
        }
        _ => tracing::error!(
            "{layer} found no verified token: add DpopLayer outside it, with the same claims type (in axum, after it)"
        ),
    }
}

pin_project! {
    /// The future of [`Require`].
    pub struct RequireFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        Responding {
            #[pin]
            future: F,
            reported: Option<ReportedRejection>,
        },
        Rejected {
            #[pin]
            body: Discard<B>,
            response: Option<Response<()>>,
        },
    }
}

impl<F, B, D, E> Future for RequireFuture<F, B>
where
    F: Future<Output = Result<Response<D>, E>>,
    B: Body,
    D: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProjection::Responding { future, reported } => {
                let mut response = ready!(future.poll(context))?;
                if let Some(reported) = reported.take() {
                    response.extensions_mut().insert(reported);
                }
                Poll::Ready(Ok(response))
            }
            StateProjection::Rejected { body, response } => {
                let connection = ready!(body.poll(context));
                let mut response = response
                    .take()
                    .expect("a future is not polled again after it was ready");
                connection.write_to(&mut response);
                Poll::Ready(Ok(response.map(|()| D::default())))
            }
        }
    }
}

impl<Q: fmt::Debug, C> fmt::Debug for RequireLayer<Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequireLayer")
            .field(&self.requirement)
            .finish()
    }
}

impl<C> fmt::Debug for RequireScopesLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C> fmt::Debug for RequireAuthenticationLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S, Q, C> fmt::Debug for Require<S, Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Require(..)")
    }
}

impl<F, B> fmt::Debug for RequireFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequireFuture(..)")
    }
}
