//! The layers inside the DPoP layer: which requests they reject, and their exact responses (RFC 6750 section 3.1,
//! RFC 9470).

#[cfg(feature = "axum")]
mod axum_handlers;

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, NOW, block_on, jwt_verifier, verifier};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{
    Access, AcrValues, AuthenticationRequirement, AuthorizationError, BearerError,
    CredentialsError, ReportedRejection, Require, RequireAuthenticationLayer, RequireFuture,
    RequireLayer, Requirement, ScopeRequirement, Scopes,
};
use tower_dpop::tokens::{HasAuthentication, HasScopes};
use tower_dpop::{Claims, DpopLayer, Rejection, RequireScopesLayer, Timestamp, Verifier};

use super::bearer::allowing_bearer;
use super::challenge::ALGS;
use super::layer::{ServiceError, StrictService, poll_ready};
use super::requirement::CustomRequirement;

pub(super) fn scopes(text: &str) -> Scopes {
    text.parse().unwrap()
}

pub(super) fn acrs(text: &str) -> AcrValues {
    text.parse().unwrap()
}

pub(super) fn under_dpop(change: impl FnOnce(&mut Attempt)) -> Request<String> {
    Attempt::but(change).request()
}

pub(super) fn as_bearer(change: impl FnOnce(&mut Attempt)) -> Request<String> {
    let mut attempt = Attempt::good().as_bearer();
    change(&mut attempt);
    attempt.request()
}

/// Everything that a test checks about a response.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) challenges: Vec<String>,
    pub(super) rejection: Option<Rejection>,
    pub(super) is_reported: bool,
    pub(super) was_reached: bool,
}

impl Outcome {
    pub(super) fn of<B>(response: &Response<B>, was_reached: bool) -> Self {
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

/// Sends a request through these layers to a [`CountingService`].
pub(super) fn outcome<L>(layers: &L, request: Request<String>) -> Outcome
where
    L: Layer<CountingService>,
    L::Service: Service<Request<String>, Response = Response<()>, Error = Infallible>,
{
    let service = CountingService::default();
    let calls = Arc::clone(&service.0);
    let response = block_on(layers.layer(service).oneshot(request)).unwrap();
    Outcome::of(&response, calls.load(Ordering::Relaxed) == 1)
}

/// Counts its calls, and responds with 200.
#[derive(Clone, Default)]
pub(super) struct CountingService(Arc<AtomicUsize>);

impl Service<Request<String>> for CountingService {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(())))
    }
}

pub(super) fn passed() -> Outcome {
    Outcome {
        status: 200,
        challenges: Vec::new(),
        rejection: None,
        is_reported: false,
        was_reached: true,
    }
}

pub(super) fn rejected(status: u16, challenge: String, rejection: Rejection) -> Outcome {
    Outcome {
        status,
        challenges: vec![challenge],
        rejection: Some(rejection),
        is_reported: false,
        was_reached: false,
    }
}

/// A plain 500, because the response must not describe a configuration error to the client.
pub(super) fn configuration_error() -> Outcome {
    Outcome {
        status: 500,
        was_reached: false,
        ..passed()
    }
}

/// The rejection of an insufficient token. `parameters` are those of the challenge, without `algs`.
pub(super) struct ExpectedRejection {
    pub(super) status: u16,
    pub(super) parameters: String,
    pub(super) error: AuthorizationError,
}

impl ExpectedRejection {
    pub(super) fn under_dpop(&self) -> Outcome {
        let challenge = format!("DPoP {}, {ALGS}", self.parameters);
        rejected(self.status, challenge, self.error.clone().into())
    }

    pub(super) fn as_bearer(&self) -> Outcome {
        let error = BearerError::Authorization(self.error.clone());
        rejected(
            self.status,
            format!("Bearer {}", self.parameters),
            error.into(),
        )
    }
}

pub(super) fn lacks_scope(required: &str) -> ExpectedRejection {
    let description = "the access token lacks a scope";
    ExpectedRejection {
        status: 403,
        parameters: format!(
            r#"error="insufficient_scope", error_description="{description}", scope="{required}""#
        ),
        error: AuthorizationError::Scope {
            required: scopes(required),
        },
    }
}

pub(super) fn needs_authentication(
    acr_values: Option<&str>,
    max_age: Option<u64>,
) -> ExpectedRejection {
    let description = "a different authentication of the user is required";
    let acr = acr_values.map(|values| format!(r#", acr_values="{values}""#));
    let age = max_age.map(|seconds| format!(r#", max_age="{seconds}""#));
    ExpectedRejection {
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

/// The application's own claims type.
#[derive(serde::Deserialize)]
pub(super) struct TenantClaims {
    pub(super) tenant: u64,
}

impl HasScopes for TenantClaims {
    fn has_scope(&self, scope: &str) -> bool {
        scope == format!("tenant-{}", self.tenant)
    }
}

impl HasAuthentication for TenantClaims {
    fn has_acr(&self, acr: &str) -> bool {
        self.has_scope(acr)
    }

    fn auth_time(&self) -> Option<Timestamp> {
        Some(Timestamp::from_unix(NOW - 10 * self.tenant))
    }
}

#[test]
fn requirements_work_with_claims_of_another_type() {
    let outer = || {
        let tokens = jwt_verifier().with_claims::<TenantClaims>();
        DpopLayer::new(Verifier::new(common::rules(), tokens))
    };
    let of_tenant = |tenant: u64| under_dpop(|a| a.token_claims["tenant"] = json!(tenant));
    let statuses = |send: &dyn Fn(Request<String>) -> Outcome| {
        [7, 8].map(|tenant| {
            let outcome = send(of_tenant(tenant));
            assert_eq!(outcome.was_reached, outcome.status == 200);
            outcome.status
        })
    };
    let by_scope = (
        outer(),
        RequireScopesLayer::all_of(scopes("tenant-7")).with_claims::<TenantClaims>(),
    );
    assert_eq!(statuses(&|r| outcome(&by_scope, r)), [200, 403]);
    let by_acr = RequireAuthenticationLayer::by_acr(acrs("tenant-7")).with_claims::<TenantClaims>();
    assert_eq!(
        statuses(&|r| outcome(&(outer(), by_acr.clone()), r)),
        [200, 401]
    );
    let by_age =
        RequireAuthenticationLayer::within(Duration::from_secs(75)).with_claims::<TenantClaims>();
    assert_eq!(
        statuses(&|r| outcome(&(outer(), by_age.clone()), r)),
        [200, 401]
    );
    let by_acr_and_age = RequireAuthenticationLayer::by_acr(acrs("tenant-7"))
        .with_claims::<TenantClaims>()
        .with_max_age(Duration::from_secs(69));
    assert_eq!(
        statuses(&|r| outcome(&(outer(), by_acr_and_age.clone()), r)),
        [401, 401]
    );
    let by_closure = (
        outer(),
        RequireLayer::<_, TenantClaims>::new(|claims: &TenantClaims| claims.tenant == 7),
    );
    assert_eq!(statuses(&|r| outcome(&by_closure, r)), [200, 403]);
}

/// The outer layer is missing, is inside the requirement, or has another claims type.
#[test]
fn every_request_is_a_500_without_a_matching_outer_layer() {
    let requirement = RequireScopesLayer::all_of(scopes("orders.read"));
    let other_claims = {
        let tokens = jwt_verifier().with_claims::<Value>();
        DpopLayer::new(Verifier::new(common::rules(), tokens))
    };
    let allow_all = RequireLayer::<_, Claims>::new(|_: &Claims| true);
    for (name, request) in [
        (
            "a valid request",
            under_dpop as fn(fn(&mut Attempt)) -> Request<String>,
        ),
        ("a bearer token", as_bearer),
    ] {
        let request = || request(|_| {});
        assert_eq!(
            outcome(&requirement, request()),
            configuration_error(),
            "{name}: no layer"
        );
        assert_eq!(
            outcome(&allow_all, request()),
            configuration_error(),
            "{name}: no layer"
        );
        let wrong_order = (requirement.clone(), allowing_bearer());
        assert_eq!(
            outcome(&wrong_order, request()),
            configuration_error(),
            "{name}: the wrong order"
        );
    }
    let without_token = Request::new(String::new());
    assert_eq!(
        outcome(&requirement, without_token),
        configuration_error(),
        "a request without a token"
    );
    let layers = (other_claims, requirement.clone());
    assert_eq!(
        outcome(&layers, under_dpop(|_| {})),
        configuration_error(),
        "another claims type"
    );
    let layers = (allowing_bearer(), requirement.with_claims::<TenantClaims>());
    for request in [under_dpop(|_| {}), as_bearer(|_| {})] {
        assert_eq!(
            outcome(&layers, request),
            configuration_error(),
            "another claims type"
        );
    }
}

#[test]
fn a_request_that_the_outer_layer_rejects_does_not_reach_the_requirement() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = {
        let calls = Arc::clone(&calls);
        RequireLayer::<_, Claims>::new(move |_: &Claims| calls.fetch_add(1, Ordering::Relaxed) > 0)
    };
    let layers = (DpopLayer::new(verifier()), counting);
    let no_proof = under_dpop(|a| a.dpop = Some(vec![]));
    assert_eq!(
        outcome(&layers, no_proof).rejection,
        Some(ProofError::Missing.into())
    );
    let bearer_token = as_bearer(|_| {});
    let rejection = outcome(&layers, bearer_token).rejection;
    assert_eq!(rejection, Some(CredentialsError::Bearer.into()));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

/// The use of the proof was recorded, so the client must sign a new one for a retry.
#[test]
fn a_request_without_the_required_scope_has_used_its_proof() {
    let layers = (
        DpopLayer::new(verifier()),
        RequireScopesLayer::all_of(scopes("admin")),
    );
    let request = under_dpop(|_| {});
    assert_eq!(outcome(&layers, request.clone()).status, 403);
    let again = outcome(&layers, request);
    assert_eq!(again.rejection, Some(ProofError::Replayed.into()));
}

#[test]
fn reports_the_outermost_unmet_requirement() {
    let layers = (
        allowing_bearer(),
        RequireScopesLayer::all_of(scopes("orders.read")),
        RequireScopesLayer::all_of(scopes("admin")),
        RequireAuthenticationLayer::by_acr(acrs("gold")),
    );
    let expected = lacks_scope("admin").under_dpop();
    assert_eq!(outcome(&layers, under_dpop(|_| {})), expected);
}

/// D20: a preflight has no token.
#[test]
fn a_preflight_that_passes_through_needs_no_scope() {
    let preflight = || {
        Request::options("/orders")
            .header("access-control-request-method", "GET")
            .body(String::new())
            .unwrap()
    };
    let requirement = RequireScopesLayer::all_of(scopes("admin"));
    let outer = DpopLayer::new(verifier());
    let passing_through = (
        outer.clone().with_preflight_pass_through(),
        requirement.clone(),
    );
    assert_eq!(
        outcome(&passing_through, preflight()),
        passed(),
        "T-4: a preflight"
    );
    let expected = lacks_scope("admin").under_dpop();
    let with_token = under_dpop(|a| {
        a.method = Method::OPTIONS;
        a.proof_claims["htm"] = json!("OPTIONS");
        let field = "GET".parse().unwrap();
        a.extra_headers
            .push(("access-control-request-method", field));
    });
    assert_eq!(
        outcome(&passing_through, with_token),
        expected,
        "not a preflight, because it has a token"
    );
    assert_eq!(
        outcome(&passing_through, under_dpop(|_| {})),
        expected,
        "the request after the preflight"
    );
    let by_default = outcome(&(outer, requirement), preflight());
    assert_eq!(by_default.rejection, Some(CredentialsError::Missing.into()));
}

/// The two layers have different verifiers.
#[test]
fn the_innermost_dpop_layer_determines_the_challenge() {
    let with_realm = |realm: &str| DpopLayer::new(verifier().with_realm(realm.parse().unwrap()));
    let layers = (
        with_realm("outside"),
        with_realm("inside"),
        RequireScopesLayer::all_of(scopes("admin")),
    );
    let [challenge] = outcome(&layers, under_dpop(|_| {}))
        .challenges
        .try_into()
        .unwrap();
    assert!(
        challenge.starts_with(r#"DPoP realm="inside", "#),
        "{challenge}"
    );
}

/// The request as the DPoP layer passes it on.
fn accepted_by_dpop_layer(request: Request<String>) -> Request<String> {
    let service = allowing_bearer().layer(service_fn(async |request: Request<String>| {
        Ok::<_, Infallible>(Response::new(Some(request)))
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    response.into_body().unwrap()
}

fn with_scope(scope: &str) -> Request<String> {
    accepted_by_dpop_layer(under_dpop(|a| a.token_claims["scope"] = json!(scope)))
}

#[test]
fn is_ready_when_the_service_is() {
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(StrictService {
        scripted_readiness: [Poll::Pending, Poll::Ready(Err(ServiceError))].into(),
        ..StrictService::default()
    });
    assert_eq!(poll_ready(&mut service), Poll::Pending);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Err(ServiceError)));
    assert_eq!(poll_ready(&mut service), Poll::Ready(Ok(())));
}

#[test]
fn calls_the_same_service_that_was_polled_ready() {
    let inner = StrictService::default();
    let events = Arc::clone(&inner.events);
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(inner);
    for round in 1..=3 {
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(with_scope("a"))).unwrap();
        assert_eq!(response.body(), "served");
        assert_eq!(StrictService::calls(&events), round);
        // After a rejection, the service must be polled again.
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(with_scope("b"))).unwrap();
        assert_eq!(
            (response.status().as_u16(), response.body().as_str()),
            (403, "")
        );
        assert_eq!(StrictService::calls(&events), round);
    }
    let mut clone = service.clone();
    assert!(poll_ready(&mut clone).is_ready());
    assert_eq!(
        block_on(clone.call(with_scope("b"))).unwrap().status(),
        403,
        "a clone"
    );
    assert!(poll_ready(&mut clone).is_ready());
    assert_eq!(
        block_on(clone.call(with_scope("a"))).unwrap().body(),
        "served"
    );
}

#[test]
fn a_rejection_releases_the_reservation_at_once() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(StrictService::default(), Arc::clone(&permits));
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(limited);
    for (name, request, status) in [
        ("a missing scope", with_scope("b"), 403),
        ("no DPoP layer outside", Request::new(String::new()), 500),
    ] {
        assert!(poll_ready(&mut service).is_ready(), "{name}");
        assert_eq!(permits.available_permits(), 0, "{name}");
        let responding = service.call(request);
        assert_eq!(permits.available_permits(), 1, "{name}: at once");
        assert_eq!(block_on(responding).unwrap().status(), status, "{name}");
    }
    assert!(poll_ready(&mut service).is_ready());
    let response = block_on(service.call(with_scope("a"))).unwrap();
    assert_eq!(response.body(), "served");
    assert_eq!(permits.available_permits(), 1);
}

#[test]
fn errors_and_bodies_of_the_service_pass_through() {
    let failing =
        RequireScopesLayer::all_of(scopes("a")).layer(service_fn(async |_: Request<String>| {
            Err::<Response<()>, _>(ServiceError)
        }));
    let error = block_on(failing.clone().oneshot(with_scope("a"))).unwrap_err();
    assert_eq!(error, ServiceError);
    let rejected = block_on(failing.oneshot(with_scope("b"))).unwrap();
    assert_eq!(rejected.status(), 403);

    // A request body that is not Clone, a response body that is not Send, and a future that is not Send.
    let calls = Rc::new(Cell::new(0));
    let service = RequireScopesLayer::all_of(scopes("a")).layer(service_fn(
        async |request: Request<Full<Bytes>>| {
            tokio::task::yield_now().await;
            calls.set(calls.get() + 1);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Some(Rc::new(body))))
        },
    ));
    let request = with_scope("a").map(|_| Full::from("body"));
    let response = block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.into_body().unwrap().as_ref(), "body");
    let request = with_scope("b").map(|_| Full::from("body"));
    let response = block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.into_body(), None);
    assert_eq!(calls.get(), 1);
}

#[test]
fn the_types_are_send_and_sync_and_debug_shows_no_claims() {
    fn assert_send<T: Send + 'static>(value: T) -> T {
        value
    }
    fn assert_sync<T: Send + Sync + Debug + 'static>(value: T) -> T {
        value
    }
    struct NotDebug;
    impl Requirement<Claims> for NotDebug {
        fn check(&self, _: &Claims, _: Timestamp) -> Result<(), AuthorizationError> {
            Ok(())
        }
    }
    let layer = assert_sync(RequireScopesLayer::all_of(scopes("a")));
    assert_sync(RequireAuthenticationLayer::by_acr(acrs("gold")).with_claims::<TenantClaims>());
    assert_sync(RequireLayer::<_, Claims>::new(CustomRequirement(
        AuthorizationError::NotMet,
    )));
    let mut service: Require<StrictService, ScopeRequirement, Claims> =
        assert_sync(layer.layer(StrictService::default()));
    assert_sync(RequireLayer::<_, Claims>::new(NotDebug).layer(StrictService::default()));
    let request = with_scope("a");
    let access = assert_sync(Access::<Claims>::of(request.extensions()).unwrap());
    assert!(!format!("{access:?} {service:?}").contains("alice"));
    assert!(poll_ready(&mut service).is_ready());
    let future: RequireFuture<Ready<_>, String> = assert_send(service.call(request));
    assert_eq!(format!("{future:?}"), "RequireFuture(..)");
    let response = block_on(async { tokio::spawn(future).await.unwrap() }).unwrap();
    assert_eq!(response.body(), "served");
    let required = AuthenticationRequirement::within(Duration::from_secs(1));
    assert!(format!("{required:?}").contains("AuthenticationRequirement"));
}
