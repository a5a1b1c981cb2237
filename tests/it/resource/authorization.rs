//! Whether a good token is enough: the layers inside of the DPoP layer, what they reject, and what
//! clients are told, to the letter (RFC 6750 section 3.1, RFC 9470).

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{Attempt, AttemptExt as _, NOW, block_on, jwt_verifier, verifier};
use http::{Method, Request, Response};
use serde_json::{Value, json};
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

/// Both schemes pass, or both are rejected for this, each in its own challenge.
#[track_caller]
fn assert_decides<L>(name: &str, require: &L, change: impl Fn(&mut Attempt), error: Option<&Told>)
where
    L: Layer<Counted>,
    L::Service:
        Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone + Send + 'static,
{
    let layers = ServiceBuilder::new()
        .layer(allowing_bearer())
        .layer(require);
    let (dpop, bearer) = match error {
        None => (passed(), passed()),
        Some(Told {
            status,
            parameters,
            error,
        }) => (
            rejected(
                *status,
                format!("DPoP {parameters}, {ALGS}"),
                error.clone().into(),
            ),
            rejected(
                *status,
                format!("Bearer {parameters}"),
                BearerError::Authorization(error.clone()).into(),
            ),
        ),
    };
    assert_eq!(outcome(&layers, under_dpop(&change)), dpop, "{name}");
    assert_eq!(outcome(&layers, as_bearer(&change)), bearer, "{name}");
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

/// R-AT.9: "authorization sufficient, errors per RFC 6750 section 3.1".
#[test]
fn scopes_are_required_all_or_any() {
    let rows = [
        // held, required, all of them, any of them
        ("a", "a", true, true),
        ("a b", "a", true, true),
        ("b a", "a b", true, true),
        ("a", "a b", false, true),
        ("b", "a b", false, true),
        ("c", "a b", false, false),
        ("", "a", false, false),
        ("  ", "a", false, false),
        ("A", "a", false, false),
        ("ab", "a", false, false),
        ("a,b", "a", false, false),
        ("a\tb", "a", false, false),
        ("aa a", "a", true, true),
        ("orders", "orders:read", false, false),
        ("orders:*", "orders:read", false, false),
    ];
    for (held, required, all, any) in rows {
        let change = |a: &mut Attempt| a.token_claims["scope"] = json!(held);
        for (name, layer, enough) in [
            ("all of", RequireScopesLayer::all_of(scopes(required)), all),
            ("any of", RequireScopesLayer::any_of(scopes(required)), any),
        ] {
            let told = lacks_scope(required);
            let error = (!enough).then_some(&told);
            let name = format!("R-AT.9: {held:?} for {name} {required:?}");
            assert_decides(&name, &layer, change, error);
        }
    }
    let without = |a: &mut Attempt| drop(remove(&mut a.token_claims, "scope"));
    let layer = RequireScopesLayer::any_of(scopes("a"));
    assert_decides("no scope claim", &layer, without, Some(&lacks_scope("a")));
}

fn remove(object: &mut Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member).unwrap()
}

/// RFC 6749 section 3.3: what would break a challenge, or require nothing, is rejected at start-up.
#[test]
fn scopes_that_say_nothing_are_no_scopes() {
    for bad in [
        "", " ", "a ", " a", "a  b", "a\tb", "a\"b", "a\\b", "ä", "a\nb", "a\r\nb",
    ] {
        assert!(bad.parse::<Scopes>().is_err(), "{bad:?}");
    }
    for good in ["a", "a b", "https://api.example.com/orders:read!#$%&'()*+,"] {
        assert_eq!(scopes(good).to_string(), good);
    }
}

/// RFC 9470 section 5: "max_age" in whole seconds, both ends included; fractions of `auth_time` are
/// those of a NumericDate.
#[test]
fn an_authentication_is_required_by_its_age() {
    let rows: [(&str, Option<Value>, u64, bool); 23] = [
        ("now", Some(json!(NOW)), 300, true),
        ("the last second", Some(json!(NOW - 300)), 300, true),
        ("a second later", Some(json!(NOW - 301)), 300, false),
        (
            "a fraction, in time",
            Some(json!(1_699_999_700.5)),
            300,
            true,
        ),
        (
            "a fraction, too late",
            Some(json!(1_699_999_699.5)),
            300,
            false,
        ),
        (
            "written as a double",
            Some(json!(1_700_000_000.0)),
            300,
            true,
        ),
        ("ahead of our clock", Some(json!(NOW + 10)), 300, true),
        ("ahead by the leeway", Some(json!(NOW + 30)), 300, true),
        ("ahead by more", Some(json!(NOW + 31)), 300, false),
        (
            "ahead by more, for ever",
            Some(json!(NOW + 31)),
            u64::MAX,
            false,
        ),
        ("in milliseconds", Some(json!(NOW * 1000)), 300, false),
        (
            "in milliseconds, of long ago",
            Some(json!(1000)),
            u64::MAX,
            true,
        ),
        ("the same second for none", Some(json!(NOW)), 0, true),
        ("a second ago for none", Some(json!(NOW - 1)), 0, false),
        ("the epoch", Some(json!(0)), 300, false),
        ("before the epoch", Some(json!(-1)), 300, false),
        ("beyond any clock", Some(json!(u64::MAX)), 300, false),
        ("an age beyond any clock", Some(json!(1)), u64::MAX, true),
        ("none", None, 300, false),
        ("null", Some(json!(null)), 300, false),
        ("a text", Some(json!(NOW.to_string())), 300, false),
        ("a list", Some(json!([NOW])), 300, false),
        ("yes", Some(json!(true)), 300, false),
    ];
    for (name, auth_time, max_age, enough) in rows {
        let layer = RequireAuthenticationLayer::within(Duration::from_secs(max_age));
        let change = |a: &mut Attempt| {
            if let Some(auth_time) = &auth_time {
                a.token_claims["auth_time"] = auth_time.clone();
            }
        };
        let told = needs_authentication(None, Some(max_age));
        assert_decides(name, &layer, change, (!enough).then_some(&told));
    }
    let layer = RequireAuthenticationLayer::within(Duration::from_millis(300_999));
    let at = |time: u64| move |a: &mut Attempt| a.token_claims["auth_time"] = json!(time);
    assert_decides("whole seconds", &layer, at(NOW - 300), None);
    let told = needs_authentication(None, Some(300));
    assert_decides("whole seconds", &layer, at(NOW - 301), Some(&told));
}

#[test]
fn an_authentication_is_required_by_its_class() {
    const REQUIRED: &str = "urn:a:2 urn:a:1";
    let rows: [(&str, Option<Value>, bool); 9] = [
        ("the first", Some(json!("urn:a:2")), true),
        ("the last", Some(json!("urn:a:1")), true),
        ("another", Some(json!("urn:a:0")), false),
        ("another case", Some(json!("URN:A:2")), false),
        ("both in one", Some(json!(REQUIRED)), false),
        ("the beginning of one", Some(json!("urn:a:")), false),
        ("none", None, false),
        ("a list", Some(json!(["urn:a:2"])), false),
        ("an empty one", Some(json!("")), false),
    ];
    let layer = RequireAuthenticationLayer::by_acr(acrs(REQUIRED));
    for (name, acr, enough) in rows {
        let change = |a: &mut Attempt| {
            if let Some(acr) = &acr {
                a.token_claims["acr"] = acr.clone();
            }
        };
        let told = needs_authentication(Some(REQUIRED), None);
        assert_decides(name, &layer, change, (!enough).then_some(&told));
    }
}

/// Both are told, whichever is missing: the client asks for both at once.
#[test]
fn an_authentication_is_required_by_class_and_age() {
    let layer =
        RequireAuthenticationLayer::by_acr(acrs("gold")).with_max_age(Duration::from_secs(60));
    let rows = [
        ("both", "gold", NOW - 60, true),
        ("of another class", "silver", NOW - 60, false),
        ("too long ago", "gold", NOW - 61, false),
        ("neither", "silver", NOW - 61, false),
    ];
    for (name, acr, auth_time, enough) in rows {
        let change = |a: &mut Attempt| {
            a.token_claims["acr"] = json!(acr);
            a.token_claims["auth_time"] = json!(auth_time);
        };
        let told = needs_authentication(Some("gold"), Some(60));
        assert_decides(name, &layer, change, (!enough).then_some(&told));
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

#[test]
fn a_requirement_of_ones_own() {
    let tenant = |a: &mut Attempt| a.token_claims["tenant"] = json!(7);
    let ours = |claims: &Claims| claims.claim("tenant") == Some(7);
    let closure = RequireLayer::<_, Claims>::new(ours);
    assert_decides("a closure says yes", &closure, tenant, None);
    assert_decides("a closure says no", &closure, |_| {}, Some(&denied()));

    for told in [
        denied(),
        lacks_scope("night"),
        needs_authentication(Some("gold"), Some(1)),
        needs_authentication(None, None),
    ] {
        let layer = RequireLayer::<_, Claims>::new(AfterHours(told.error.clone()));
        let night = |a: &mut Attempt| a.token_claims["night"] = json!(true);
        assert_decides("a type says yes", &layer, night, None);
        assert_decides("a type says no", &layer, |_| {}, Some(&told));
    }
    let layer = RequireLayer::<_, Claims>::new(ScopeRequirement::all_of(scopes("orders.read")));
    assert_decides("one of ours by hand", &layer, |_| {}, None);
}

/// The scope of a requirement takes the place of the service's; everything else that was configured
/// stays.
#[test]
fn challenges_say_what_was_configured_as_well() {
    let outer = || {
        let verifier = verifier()
            .allow_bearer()
            .with_realm("orders api".parse().unwrap())
            .with_scope(scopes("orders.read"))
            .with_well_known_metadata();
        DpopLayer::new(verifier)
    };
    let metadata =
        r#"resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    let described = |error: &str, description: &str| {
        format!(r#"realm="orders api", error="{error}", error_description="{description}""#)
    };
    let scope = described("insufficient_scope", "the access token lacks a scope");
    let scope = format!(r#"{scope}, scope="admin""#);
    let denied = described(
        "insufficient_scope",
        "the access token does not allow this request",
    );
    let denied = format!(r#"{denied}, scope="orders.read""#);
    let authentication = described(
        "insufficient_user_authentication",
        "a different authentication of the user is required",
    );
    let authentication =
        format!(r#"{authentication}, acr_values="gold", max_age="5", scope="orders.read""#);
    let challenges = |layer: &dyn Fn(Request<()>) -> Outcome| {
        [under_dpop(|_| {}), as_bearer(|_| {})].map(|request| layer(request).challenges)
    };
    let expected = |parameters: &str| {
        [
            vec![format!("DPoP {parameters}, {ALGS}, {metadata}")],
            vec![format!("Bearer {parameters}, {metadata}")],
        ]
    };
    let by_scope = (outer(), RequireScopesLayer::all_of(scopes("admin")));
    assert_eq!(challenges(&|r| outcome(&by_scope, r)), expected(&scope));
    let by_rule = (outer(), RequireLayer::<_, Claims>::new(|_: &Claims| false));
    assert_eq!(challenges(&|r| outcome(&by_rule, r)), expected(&denied));
    let step_up =
        RequireAuthenticationLayer::by_acr(acrs("gold")).with_max_age(Duration::from_secs(5));
    let by_acr = (outer(), step_up);
    assert_eq!(
        challenges(&|r| outcome(&by_acr, r)),
        expected(&authentication)
    );
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

#[test]
fn claims_of_another_type() {
    let outer = || {
        let tokens = jwt_verifier().with_claims::<Tenant>();
        DpopLayer::new(Verifier::new(common::rules(), tokens))
    };
    let of_tenant = |tenant: u64| under_dpop(|a| a.token_claims["tenant"] = json!(tenant));
    let status = |required: &dyn Fn(Request<()>) -> Outcome| {
        [7, 8].map(|tenant| {
            let outcome = required(of_tenant(tenant));
            assert_eq!(outcome.was_reached, outcome.status == 200);
            outcome.status
        })
    };
    let by_scope = (
        outer(),
        RequireScopesLayer::all_of(scopes("tenant-7")).with_claims::<Tenant>(),
    );
    assert_eq!(status(&|r| outcome(&by_scope, r)), [200, 403]);
    let by_acr = RequireAuthenticationLayer::by_acr(acrs("tenant-7")).with_claims::<Tenant>();
    assert_eq!(
        status(&|r| outcome(&(outer(), by_acr.clone()), r)),
        [200, 401]
    );
    let by_age =
        RequireAuthenticationLayer::within(Duration::from_secs(75)).with_claims::<Tenant>();
    assert_eq!(
        status(&|r| outcome(&(outer(), by_age.clone()), r)),
        [200, 401]
    );
    let later = RequireAuthenticationLayer::by_acr(acrs("tenant-7"))
        .with_claims::<Tenant>()
        .with_max_age(Duration::from_secs(69));
    assert_eq!(
        status(&|r| outcome(&(outer(), later.clone()), r)),
        [401, 401]
    );
    let by_rule = (
        outer(),
        RequireLayer::<_, Tenant>::new(|claims: &Tenant| claims.tenant == 7),
    );
    assert_eq!(status(&|r| outcome(&by_rule, r)), [200, 403]);
}

/// A forgotten layer, one in the wrong place, and one with another claims type let nothing through.
#[test]
fn a_requirement_without_its_layer_rejects_everything() {
    let requirement = RequireScopesLayer::all_of(scopes("orders.read"));
    let other_claims = {
        let tokens = jwt_verifier().with_claims::<Value>();
        DpopLayer::new(Verifier::new(common::rules(), tokens))
    };
    let anyone = RequireLayer::<_, Claims>::new(|_: &Claims| true);
    for (name, request) in [
        (
            "a good request",
            under_dpop as fn(fn(&mut Attempt)) -> Request<()>,
        ),
        ("a bearer token", as_bearer),
    ] {
        let request = || request(|_| {});
        assert_eq!(
            outcome(&requirement, request()),
            misplaced(),
            "{name}: no layer"
        );
        assert_eq!(outcome(&anyone, request()), misplaced(), "{name}: no layer");
        let wrong_order = (requirement.clone(), allowing_bearer());
        assert_eq!(
            outcome(&wrong_order, request()),
            misplaced(),
            "{name}: outside"
        );
    }
    let nobody = Request::new(());
    assert_eq!(outcome(&requirement, nobody), misplaced(), "a bare request");
    let layers = (other_claims, requirement.clone());
    assert_eq!(
        outcome(&layers, under_dpop(|_| {})),
        misplaced(),
        "other claims"
    );
    let layers = (allowing_bearer(), requirement.with_claims::<Tenant>());
    for request in [under_dpop(|_| {}), as_bearer(|_| {})] {
        assert_eq!(outcome(&layers, request), misplaced(), "other claims");
    }
}

/// The layer outside goes first: no requirement is asked about a request that it rejects.
#[test]
fn a_rejected_request_does_not_come_to_the_requirement() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = {
        let asked = Arc::clone(&asked);
        RequireLayer::<_, Claims>::new(move |_: &Claims| asked.fetch_add(1, Ordering::Relaxed) > 0)
    };
    let layers = (DpopLayer::new(verifier()), counting);
    let no_proof = under_dpop(|a| a.dpop = Some(vec![]));
    assert_eq!(
        outcome(&layers, no_proof).rejection,
        Some(ProofError::Missing.into())
    );
    let downgraded = as_bearer(|_| {});
    let rejection = outcome(&layers, downgraded).rejection;
    assert_eq!(rejection, Some(CredentialsError::Bearer.into()));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// The proof was good and has been seen: a client that comes back signs a new one.
#[test]
fn a_request_that_is_not_allowed_has_spent_its_proof() {
    let layers = (
        DpopLayer::new(verifier()),
        RequireScopesLayer::all_of(scopes("admin")),
    );
    let request = under_dpop(|_| {});
    assert_eq!(outcome(&layers, request.clone()).status, 403);
    let again = outcome(&layers, request);
    assert_eq!(again.rejection, Some(ProofError::Replayed.into()));
}

/// The first that says no is the one that is heard.
#[test]
fn requirements_are_asked_from_the_outside() {
    let layers = (
        allowing_bearer(),
        RequireScopesLayer::all_of(scopes("orders.read")),
        RequireScopesLayer::all_of(scopes("admin")),
        RequireAuthenticationLayer::by_acr(acrs("gold")),
    );
    let told = lacks_scope("admin");
    let expected = rejected(
        403,
        format!("DPoP {}, {ALGS}", told.parameters),
        told.error.into(),
    );
    assert_eq!(outcome(&layers, under_dpop(|_| {})), expected);
}

/// D20: a preflight has no token to ask about.
#[test]
fn a_preflight_that_is_let_through_passes_requirements() {
    let preflight = || {
        Request::options("/orders")
            .header("access-control-request-method", "GET")
            .body(())
            .unwrap()
    };
    let requirement = RequireScopesLayer::all_of(scopes("admin"));
    let outer = DpopLayer::new(verifier());
    let passing = (
        outer.clone().with_preflight_pass_through(),
        requirement.clone(),
    );
    assert_eq!(outcome(&passing, preflight()), passed(), "T-4: a preflight");
    let told = lacks_scope("admin");
    let expected = rejected(
        403,
        format!("DPoP {}, {ALGS}", told.parameters),
        told.error.into(),
    );
    let with_token = under_dpop(|a| {
        a.method = Method::OPTIONS;
        a.proof_claims["htm"] = json!("OPTIONS");
        let field = "GET".parse().unwrap();
        a.extra_headers
            .push(("access-control-request-method", field));
    });
    assert_eq!(
        outcome(&passing, with_token),
        expected,
        "no preflight: it has a token"
    );
    assert_eq!(
        outcome(&passing, under_dpop(|_| {})),
        expected,
        "the request after it"
    );
    let verifying = outcome(&(outer, requirement), preflight());
    assert_eq!(verifying.rejection, Some(CredentialsError::Missing.into()));
}

/// Two layers with a verifier each: the nearer one answers.
#[test]
fn the_rejection_is_in_the_name_of_the_nearest_layer() {
    let named = |realm: &str| DpopLayer::new(verifier().with_realm(realm.parse().unwrap()));
    let layers = (
        named("outside"),
        named("inside"),
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

/// A handler that decides for itself.
#[test]
fn access_decides_as_the_layers_do() {
    let send = |layer: DpopLayer, request: Request<()>| {
        let service = layer.layer(service_fn(async |request: Request<()>| {
            let access = Access::<Claims>::of(request.extensions()).unwrap();
            assert_eq!(access.token().claims().subject(), "alice");
            assert!(
                Access::<Tenant>::of(request.extensions()).is_none(),
                "other claims"
            );
            let needed = ScopeRequirement::all_of(scopes("admin"));
            let denied: Result<(), Denied> = access.check(&needed);
            assert!(!format!("{access:?}").contains("alice"));
            Ok::<_, Infallible>(match denied {
                Ok(()) => Response::new("done"),
                Err(denied) => denied.into_response(),
            })
        }));
        let response = block_on(service.oneshot(request)).unwrap();
        (
            Outcome::of(&response, *response.body() == "done"),
            *response.body(),
        )
    };
    let told = lacks_scope("admin");
    let admin = |a: &mut Attempt| a.token_claims["scope"] = json!("admin");
    let (allowed, body) = send(allowing_bearer(), under_dpop(admin));
    assert_eq!((allowed, body), (passed(), "done"));
    let (allowed, body) = send(allowing_bearer(), as_bearer(admin));
    assert_eq!((allowed, body), (passed(), "done"));
    let (denied, body) = send(allowing_bearer(), under_dpop(|_| {}));
    let challenge = format!("DPoP {}, {ALGS}", told.parameters);
    let expected = rejected(403, challenge, told.error.clone().into());
    assert_eq!((denied, body), (expected, ""));
    let (denied, body) = send(allowing_bearer(), as_bearer(|_| {}));
    let error = BearerError::Authorization(told.error.clone());
    let expected = rejected(403, format!("Bearer {}", told.parameters), error.into());
    assert_eq!((denied, body), (expected, ""));

    assert!(
        Access::<Claims>::of(under_dpop(|_| {}).extensions()).is_none(),
        "no layer"
    );
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

#[test]
fn readiness_is_that_of_the_service() {
    let layer = RequireScopesLayer::all_of(scopes("a"));
    let mut pending = layer.layer(Strict {
        first: Some(Poll::Pending),
        ..Strict::default()
    });
    assert_eq!(poll_ready(&mut pending), Poll::Pending);
    assert_eq!(poll_ready(&mut pending), Poll::Ready(Ok(())));
    let mut failed = layer.layer(Strict {
        first: Some(Poll::Ready(Err(Broken))),
        ..Strict::default()
    });
    assert_eq!(poll_ready(&mut failed), Poll::Ready(Err(Broken)));
}

#[test]
fn the_very_service_that_was_polled_ready_is_called() {
    let strict = Strict::default();
    let calls = Arc::clone(&strict.calls);
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(strict);
    for round in 1..=3 {
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(with_scope("a"))).unwrap();
        assert_eq!(response.body(), "served");
        assert_eq!(calls.load(Ordering::Relaxed), round);
        // Rejected after ready: the next request polls again.
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(with_scope("b"))).unwrap();
        assert_eq!(
            (response.status().as_u16(), response.body().as_str()),
            (403, "")
        );
        assert_eq!(calls.load(Ordering::Relaxed), round);
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
fn a_rejected_request_gives_its_reservation_back() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(Strict::default(), Arc::clone(&permits));
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(limited);
    for (name, request, status) in [
        ("not allowed", with_scope("b"), 403),
        ("no layer outside", Request::new(()), 500),
    ] {
        assert!(poll_ready(&mut service).is_ready(), "{name}");
        assert_eq!(permits.available_permits(), 0, "{name}");
        let answering = service.call(request);
        assert_eq!(permits.available_permits(), 1, "{name}: at once");
        assert_eq!(block_on(answering).unwrap().status(), status, "{name}");
    }
    assert!(poll_ready(&mut service).is_ready());
    let response = block_on(service.call(with_scope("a"))).unwrap();
    assert_eq!(response.body(), "served");
    assert_eq!(permits.available_permits(), 1);
}

#[test]
fn errors_and_bodies_of_the_service_pass_through() {
    let failing =
        RequireScopesLayer::all_of(scopes("a")).layer(service_fn(async |_: Request<()>| {
            Err::<Response<()>, _>(Broken)
        }));
    let outcome = block_on(failing.clone().oneshot(with_scope("a")));
    assert_eq!(outcome.unwrap_err(), Broken);
    let rejected = block_on(failing.oneshot(with_scope("b"))).unwrap();
    assert_eq!(rejected.status(), 403);

    // Bodies that are neither Clone nor Send, and a future that is not Send.
    let counter = Rc::new(Cell::new(0));
    let service = RequireScopesLayer::all_of(scopes("a")).layer(service_fn(
        async |request: Request<Rc<str>>| {
            tokio::task::yield_now().await;
            counter.set(counter.get() + 1);
            Ok::<_, Infallible>(Response::new(Some(request.into_body())))
        },
    ));
    let request = with_scope("a").map(|()| Rc::from("body"));
    let response = block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.into_body().as_deref(), Some("body"));
    let request = with_scope("b").map(|()| Rc::from("body"));
    let response = block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.into_body(), None);
    assert_eq!(counter.get(), 1);
}

#[test]
fn the_parts_are_send_sync_debug_and_show_nothing() {
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    fn is_sync<T: Send + Sync + Debug + 'static>(value: T) -> T {
        value
    }
    struct NotDebug;
    impl Requirement<Claims> for NotDebug {
        fn check(&self, _: &Claims, _: Timestamp) -> Result<(), AuthorizationError> {
            Ok(())
        }
    }
    let layer = is_sync(RequireScopesLayer::all_of(scopes("a")));
    is_sync(RequireAuthenticationLayer::by_acr(acrs("gold")).with_claims::<Tenant>());
    is_sync(RequireLayer::<_, Claims>::new(AfterHours(
        AuthorizationError::NotMet,
    )));
    let mut service: Require<Strict, ScopeRequirement, Claims> =
        is_sync(layer.layer(Strict::default()));
    is_sync(RequireLayer::<_, Claims>::new(NotDebug).layer(Strict::default()));
    let request = with_scope("a");
    let access = is_sync(Access::<Claims>::of(request.extensions()).unwrap());
    assert!(!format!("{access:?} {service:?}").contains("alice"));
    assert!(poll_ready(&mut service).is_ready());
    let future: RequireFuture<Ready<_>> = is_send(service.call(request));
    assert_eq!(format!("{future:?}"), "RequireFuture(..)");
    let response = block_on(async { tokio::spawn(future).await.unwrap() }).unwrap();
    assert_eq!(response.body(), "served");
    let required = AuthenticationRequirement::within(Duration::from_secs(1));
    assert!(format!("{required:?}").contains("AuthenticationRequirement"));
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
