//! Whether a good token is enough: the layers inside of the DPoP layer, what they reject, and what
//! clients are told, to the letter (RFC 6750 section 3.1, RFC 9470).

mod layer;
mod requirement;

use common::{Attempt, AttemptExt as _, NOW, block_on, jwt_verifier, verifier};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{
    Access, AcrValues, AuthenticationRequirement, AuthorizationError, BearerError,
    CredentialsError, Denied, ReportedRejection, Require, RequireAuthenticationLayer,
    RequireFuture, RequireLayer, Requirement, ScopeRequirement, Scopes,
};
use tower_dpop::tokens::{HasAuthentication, HasScopes};
use tower_dpop::{Claims, DpopLayer, Rejection, RequireScopesLayer, Timestamp, Verifier};

/// What every DPoP challenge says by default.
const ALGS: &str = r#"algs="ES256 ES384 PS256 Ed25519 EdDSA""#;

fn scopes(text: &str) -> Scopes {
    text.parse().unwrap()
}

fn acrs(text: &str) -> AcrValues {
    text.parse().unwrap()
}

fn allowing_bearer() -> DpopLayer {
    DpopLayer::new(verifier().allow_bearer())
}

fn under_dpop(change: impl FnOnce(&mut Attempt)) -> Request<()> {
    Attempt::but(change).request()
}

fn as_bearer(change: impl FnOnce(&mut Attempt)) -> Request<()> {
    let mut attempt = Attempt::good().as_bearer();
    change(&mut attempt);
    attempt.request()
}

/// The whole of an answer.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    challenges: Vec<String>,
    rejection: Option<Rejection>,
    is_reported: bool,
    was_reached: bool,
}

impl Outcome {
    fn of<B>(response: &Response<B>, was_reached: bool) -> Self {
        let lines = response.headers().get_all("www-authenticate").iter();
        Self {
            status: response.status().as_u16(),
            challenges: lines
                .map(|line| line.to_str().unwrap().to_owned())
                .collect(),
            rejection: response.extensions().get().cloned(),
            is_reported: response.extensions().get::<ReportedRejection>().is_some(),
            was_reached,
        }
    }
}

/// What layers inside and outside make of a request.
fn outcome<L>(layers: &L, request: Request<()>) -> Outcome
where
    L: Layer<Counted>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let counted = Counted::default();
    let calls = Arc::clone(&counted.0);
    let response = block_on(layers.layer(counted).oneshot(request)).unwrap();
    Outcome::of(&response, calls.load(Ordering::Relaxed) == 1)
}

/// Answers 200 and counts.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Service<Request<()>> for Counted {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(())))
    }
}

fn passed() -> Outcome {
    Outcome {
        status: 200,
        challenges: Vec::new(),
        rejection: None,
        is_reported: false,
        was_reached: true,
    }
}

fn rejected(status: u16, challenge: String, rejection: Rejection) -> Outcome {
    Outcome {
        status,
        challenges: vec![challenge],
        rejection: Some(rejection),
        is_reported: false,
        was_reached: false,
    }
}

/// A plain 500: the deployer's mistake is none of the client's business.
fn misplaced() -> Outcome {
    Outcome {
        status: 500,
        was_reached: false,
        ..passed()
    }
}

/// A rejection, and what stands in the challenge besides the algorithms.
struct Told {
    status: u16,
    parameters: String,
    error: AuthorizationError,
}

fn lacks_scope(required: &str) -> Told {
    let description = "the access token lacks a scope";
    Told {
        status: 403,
        parameters: format!(
            r#"error="insufficient_scope", error_description="{description}", scope="{required}""#
        ),
        error: AuthorizationError::Scope {
            required: scopes(required),
        },
    }
}

fn needs_authentication(acr_values: Option<&str>, max_age: Option<u64>) -> Told {
    let description = "a different authentication of the user is required";
    let acr = acr_values.map(|values| format!(r#", acr_values="{values}""#));
    let age = max_age.map(|seconds| format!(r#", max_age="{seconds}""#));
    Told {
        status: 401,
        parameters: format!(
            r#"error="insufficient_user_authentication", error_description="{description}"{}{}"#,
            acr.unwrap_or_default(),
            age.unwrap_or_default()
        ),
        error: AuthorizationError::Authentication {
            acr_values: acr_values.map(acrs),
            max_age,
        },
    }
}

fn denied() -> Told {
    let description = "the access token does not allow this request";
    Told {
        status: 403,
        parameters: format!(r#"error="insufficient_scope", error_description="{description}""#),
        error: AuthorizationError::NotMet,
    }
}

/// A rule that knows the time, and says what it wants.
#[derive(Debug)]
struct AfterHours(AuthorizationError);

impl Requirement<Claims> for AfterHours {
    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), AuthorizationError> {
        assert_eq!(now, Timestamp::from_unix(NOW));
        if claims.claim("night") == Some(true) {
            Ok(())
        } else {
            Err(self.0.clone())
        }
    }
}

/// Claims of the application.
#[derive(serde::Deserialize)]
struct Tenant {
    tenant: u64,
}

impl HasScopes for Tenant {
    fn has_scope(&self, scope: &str) -> bool {
        scope == format!("tenant-{}", self.tenant)
    }
}

impl HasAuthentication for Tenant {
    fn has_acr(&self, acr: &str) -> bool {
        self.has_scope(acr)
    }

    fn auth_time(&self) -> Option<Timestamp> {
        Some(Timestamp::from_unix(NOW - 10 * self.tenant))
    }
}

#[derive(Debug, PartialEq)]
struct Broken;

/// Keeps to tower's contract, and panics where its caller does not: a clone is not ready because the
/// original is.
#[derive(Default)]
struct Strict {
    is_ready: bool,
    first: Option<Poll<Result<(), Broken>>>,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            calls: Arc::clone(&self.calls),
            ..Self::default()
        }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<String>;
    type Error = Broken;
    type Future = Ready<Result<Response<String>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let said = self.first.take().unwrap_or(Poll::Ready(Ok(())));
        self.is_ready = matches!(said, Poll::Ready(Ok(())));
        said
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.is_ready, "called without having been polled ready");
        self.is_ready = false;
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new("served".to_owned())))
    }
}

fn poll_ready<S: Service<Request<()>>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

/// A request as a service inside of the DPoP layer gets it.
fn let_through(request: Request<()>) -> Request<()> {
    let service = allowing_bearer().layer(service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(Some(request)))
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    response.into_body().unwrap()
}

fn with_scope(scope: &str) -> Request<()> {
    let_through(under_dpop(|a| a.token_claims["scope"] = json!(scope)))
}

/// In axum's routers.
#[cfg(feature = "axum")]
mod in_axum {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower_dpop::{AcceptedToken, BearerToken, BoundToken, testing};

    use super::*;

    fn send(app: &Router, request: Request<()>) -> (Outcome, String) {
        block_on(async {
            let request = request.map(|()| Body::empty());
            let response = app.clone().oneshot(request).await.unwrap();
            let outcome = Outcome::of(&response, response.status() == 200);
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (outcome, String::from_utf8(bytes.into()).unwrap())
        })
    }

    fn at(path: &'static str) -> impl Fn(&mut Attempt) {
        move |a| {
            a.uri = path.into();
            a.proof_claims["htu"] = json!(format!("https://api.example.com{path}"));
        }
    }

    fn preflight(path: &str) -> Request<()> {
        Request::options(path)
            .header("access-control-request-method", "GET")
            .body(())
            .unwrap()
    }

    fn said(token: &AcceptedToken<Claims>) -> &'static str {
        match token {
            AcceptedToken::Bearer(_) => "bearer",
            AcceptedToken::Bound(_) => "bound",
        }
    }

    async fn accepted(token: AcceptedToken<Claims>) -> &'static str {
        said(&token)
    }

    async fn admins(access: Access<Claims>) -> Result<&'static str, Denied> {
        access.check(&ScopeRequirement::all_of(scopes("admin")))?;
        Ok(said(access.token()))
    }

    async fn bound(token: BoundToken<Claims>) -> String {
        token.claims().subject().to_owned()
    }

    async fn only_bearer(token: BearerToken<Claims>) -> String {
        token.claims().subject().to_owned()
    }

    async fn perhaps(token: Option<AcceptedToken<Claims>>) -> &'static str {
        token.as_ref().map_or("nobody", said)
    }

    async fn perhaps_access(access: Option<Access<Claims>>) -> &'static str {
        access
            .as_ref()
            .map_or("nobody", |access| said(access.token()))
    }

    async fn perhaps_bound(token: Option<BoundToken<Claims>>) -> &'static str {
        token.map_or("not bound", |_| "bound")
    }

    fn routes() -> Router {
        Router::new()
            .route("/accepted", get(accepted))
            .route("/admins", get(admins))
            .route("/bound", get(bound))
            .route("/only-bearer", get(only_bearer))
            .route("/perhaps", get(perhaps).options(perhaps))
            .route(
                "/perhaps-access",
                get(perhaps_access).options(perhaps_access),
            )
            .route("/perhaps-bound", get(perhaps_bound))
            .route(
                "/layered",
                get(accepted).layer(RequireScopesLayer::all_of(scopes("admin"))),
            )
            .route(
                "/half-layered",
                get(accepted)
                    .layer(RequireAuthenticationLayer::by_acr(acrs("gold")))
                    .post(accepted),
            )
    }

    /// What each handler gets of each scheme.
    #[test]
    fn a_handler_gets_the_token_that_it_asks_for_or_is_not_reached() {
        let app = routes().layer(allowing_bearer());
        let told = lacks_scope("admin");
        let in_dpop = || {
            let challenge = format!("DPoP {}, {ALGS}", told.parameters);
            Err(rejected(403, challenge, told.error.clone().into()))
        };
        let in_bearer = || {
            let error = BearerError::Authorization(told.error.clone());
            Err(rejected(
                403,
                format!("Bearer {}", told.parameters),
                error.into(),
            ))
        };
        let step_up = needs_authentication(Some("gold"), None);
        let not_bound = {
            let told = r#"Bearer error="invalid_token", error_description="the access token is not bound to a key""#;
            Outcome {
                challenges: vec![told.to_owned(), format!("DPoP {ALGS}")],
                ..rejected(401, String::new(), BearerError::Unbound.into())
            }
        };
        let rows = [
            ("/accepted", Ok("bound"), Ok("bearer")),
            ("/admins", in_dpop(), in_bearer()),
            ("/bound", Ok("alice"), Err(not_bound)),
            ("/only-bearer", Err(misplaced()), Ok("alice")),
            ("/perhaps", Ok("bound"), Ok("bearer")),
            ("/perhaps-access", Ok("bound"), Ok("bearer")),
            ("/perhaps-bound", Ok("bound"), Ok("not bound")),
            ("/layered", in_dpop(), in_bearer()),
            (
                "/half-layered",
                Err(rejected(
                    401,
                    format!("DPoP {}, {ALGS}", step_up.parameters),
                    step_up.error.clone().into(),
                )),
                Err(rejected(
                    401,
                    format!("Bearer {}", step_up.parameters),
                    BearerError::Authorization(step_up.error.clone()).into(),
                )),
            ),
        ];
        let expected = |result: Result<&str, Outcome>| match result {
            Ok(text) => (passed(), text.to_owned()),
            Err(outcome) => (outcome, String::new()),
        };
        for (path, dpop, bearer) in rows {
            let (dpop, bearer) = (expected(dpop), expected(bearer));
            assert_eq!(send(&app, under_dpop(at(path))), dpop, "{path}, under DPoP");
            assert_eq!(send(&app, as_bearer(at(path))), bearer, "{path}, as Bearer");
        }
        for (path, text) in [("/admins", "bound"), ("/layered", "bound")] {
            let request = under_dpop(|a| {
                at(path)(a);
                a.token_claims["scope"] = json!("admin");
            });
            assert_eq!(
                send(&app, request),
                (passed(), text.to_owned()),
                "{path}, an admin"
            );
        }
        let post = under_dpop(|a| {
            at("/half-layered")(a);
            a.method = Method::POST;
            a.proof_claims["htm"] = json!("POST");
        });
        assert_eq!(
            send(&app, post),
            (passed(), "bound".to_owned()),
            "another method"
        );
    }

    /// Not even an option, where a forgotten layer would make everyone nobody.
    #[test]
    fn without_the_layer_no_handler_is_reached() {
        let app = routes();
        let behind_other_claims = {
            let tokens = jwt_verifier().with_claims::<Value>();
            routes().layer(DpopLayer::new(Verifier::new(common::rules(), tokens)))
        };
        for path in [
            "/accepted",
            "/admins",
            "/bound",
            "/only-bearer",
            "/perhaps",
            "/perhaps-access",
            "/layered",
        ] {
            for (name, app) in [("no layer", &app), ("other claims", &behind_other_claims)] {
                let outcome = send(app, under_dpop(at(path)));
                assert_eq!(outcome, (misplaced(), String::new()), "{path}, {name}");
            }
        }
    }

    #[test]
    fn an_option_is_none_for_a_preflight() {
        let app = routes().layer(DpopLayer::new(verifier()).with_preflight_pass_through());
        for path in ["/perhaps", "/perhaps-access"] {
            let outcome = send(&app, preflight(path));
            assert_eq!(outcome, (passed(), "nobody".to_owned()), "T-4: {path}");
            let outcome = send(&app, under_dpop(at(path)));
            assert_eq!(outcome, (passed(), "bound".to_owned()), "T-4: {path}");
        }
    }

    /// R-AT.9: the kit reads the rejections of either scheme.
    #[test]
    fn the_kit_reads_them() {
        let app = routes().layer(allowing_bearer());
        let outcome = |request: Request<()>| {
            let request = request.map(|()| Body::empty());
            testing::TestResponse::of(&block_on(app.clone().oneshot(request)).unwrap())
        };
        let error = lacks_scope("admin").error;
        let dpop = outcome(under_dpop(at("/layered")));
        dpop.assert_rejected("DPoP", 403, Some("insufficient_scope"));
        dpop.assert_reason("DPoP", error.clone());
        let bearer = outcome(as_bearer(at("/layered")));
        bearer.assert_rejected("Bearer", 403, Some("insufficient_scope"));
        bearer.assert_reason("Bearer", BearerError::Authorization(error));
        outcome(as_bearer(at("/bound"))).assert_reason("not bound", BearerError::Unbound);
    }
}
