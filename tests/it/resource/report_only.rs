//! Report-only mode: every request passes, and what would have been rejected is said in its
//! extensions, in those of its response, and in one event; nothing of it where rejections are meant.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex};

use common::{
    Attempt, AttemptExt as _, Key, KeyExt as _, NOW, block_on, jwt_verifier, verifier, verifier_by,
};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::proof::{Claim, NonceError, ProofError, ReplayKey, ReplayStoreError, TargetError};
use tower_dpop::resource::{
    Access, AuthorizationError, BearerError, BindingError, CredentialsError, ReportedRejection,
    RequireAuthenticationLayer, RequireLayer, ScopeRequirement, Unavailable,
};
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    AcceptedToken, BearerToken, BoundToken, Claims, DpopLayer, MemoryReplayStore, NonceSecret,
    ProofRules, Rejection, ReplayStore, RequireScopesLayer, StatelessNonces, Timestamp, Verifier,
};

/// What a service behind the layer has seen, and what came back of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: StatusCode,
    challenges: usize,
    nonces: usize,
    /// In the response's extensions: what enforcing layers leave there.
    rejection: Option<Rejection>,
    /// In the response's extensions.
    reported: Option<Rejection>,
    seen: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    /// In the request's extensions.
    reported: Option<Rejection>,
    is_bound: bool,
    is_bearer: bool,
    has_access: bool,
}

fn reported(extensions: &http::Extensions) -> Option<Rejection> {
    let reported: Option<&ReportedRejection> = extensions.get();
    reported.map(|reported| reported.rejection().clone())
}

fn seen(request: &Request<()>) -> Seen {
    let extensions = request.extensions();
    let seen = Seen {
        reported: reported(extensions),
        is_bound: extensions.get::<BoundToken<Claims>>().is_some(),
        is_bearer: extensions.get::<BearerToken<Claims>>().is_some(),
        has_access: Access::<Claims>::of(extensions).is_some(),
    };
    let is_accepted = AcceptedToken::<Claims>::of(extensions).is_some();
    assert_eq!(is_accepted, seen.is_bound || seen.is_bearer);
    assert!(extensions.get::<Rejection>().is_none());
    seen
}

/// A service that answers with this status.
fn answering(
    status: StatusCode,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    service_fn(move |request: Request<()>| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response.extensions_mut().insert(seen(&request));
        ready(Ok::<_, Infallible>(response))
    })
}

fn outcome_of(
    service: impl Service<Request<()>, Response = Response<()>, Error = Infallible>,
    request: Request<()>,
) -> Outcome {
    let response = block_on(service.oneshot(request)).unwrap();
    let count = |name| response.headers().get_all(name).iter().count();
    Outcome {
        status: response.status(),
        challenges: count("www-authenticate"),
        nonces: count("dpop-nonce"),
        rejection: response.extensions().get().cloned(),
        reported: reported(response.extensions()),
        seen: response.extensions().get().cloned(),
    }
}

fn outcome<C: Send + Sync + 'static>(layer: &DpopLayer<C>, request: Request<()>) -> Outcome {
    outcome_of(layer.layer(answering(StatusCode::OK)), request)
}

/// Passed, and reported.
fn passed_although(rejection: impl Into<Rejection>) -> Outcome {
    let rejection = rejection.into();
    Outcome {
        status: StatusCode::OK,
        challenges: 0,
        nonces: 0,
        rejection: None,
        reported: Some(rejection.clone()),
        seen: Some(Seen {
            reported: Some(rejection),
            is_bound: false,
            is_bearer: false,
            has_access: false,
        }),
    }
}

/// Passed as it would have without the mode.
fn passed(is_bound: bool) -> Outcome {
    Outcome {
        reported: None,
        seen: Some(Seen {
            reported: None,
            is_bound,
            is_bearer: !is_bound,
            has_access: true,
        }),
        ..passed_although(CredentialsError::Missing)
    }
}

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::generate())
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The crate's lines while something is done.
fn logged<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    common::enable_tracing_callsites();
    let done = tracing::subscriber::with_default(subscriber, work);
    let bytes = log.0.lock().unwrap().clone();
    let lines = String::from_utf8(bytes).unwrap();
    let ours = lines.lines().filter(|line| line.contains("tower_dpop"));
    (done, ours.map(str::to_owned).collect())
}

/// One event, at `INFO` or, for a fault of ours, at `ERROR`.
#[track_caller]
fn assert_one_event(name: &str, lines: &[String], message: &str, rejection: &Rejection) {
    let [line] = lines else {
        panic!("{name}: one event, not {lines:?}");
    };
    let scheme = match rejection.scheme() {
        Some(tower_dpop::resource::Scheme::Bearer) => "bearer",
        Some(_) => "dpop",
        None => "none",
    };
    let is_ours = matches!(rejection, Rejection::Unavailable(_));
    for part in [
        if is_ours { "ERROR" } else { " INFO" },
        message,
        &format!("description={rejection}"),
        &format!(r#"reason="{}""#, rejection.reason()),
        &format!(r#"scheme="{scheme}""#),
    ] {
        assert!(line.contains(part), "{name}: {part} in {line}");
    }
}

/// Says one thing of every token.
struct Says(TokenError);

impl AccessTokenVerifier for Says {
    type Claims = Claims;

    async fn verify(
        &self,
        _: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        Err(self.0.clone())
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Cannot say.
struct BrokenStore;

impl ReplayStore for BrokenStore {
    async fn claim(
        &self,
        _: ReplayKey,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        Err(ReplayStoreError::Full)
    }
}

type Change = fn(&mut Attempt);

/// A rejection of every kind, and its reason.
fn rejections() -> Vec<(&'static str, Change, Rejection)> {
    vec![
        (
            "no credentials",
            |a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![])),
            CredentialsError::Missing.into(),
        ),
        (
            "two Authorization fields",
            |a| a.authorization = Some(vec!["DPoP x".parse().unwrap(); 2]),
            CredentialsError::Ambiguous.into(),
        ),
        (
            "a broken field",
            |a| a.authorization = Some(vec!["DPoP".parse().unwrap()]),
            CredentialsError::Malformed.into(),
        ),
        (
            "a bearer token",
            |a| a.authorization = Some(vec!["Bearer x".parse().unwrap()]),
            CredentialsError::Bearer.into(),
        ),
        (
            "a token that is too long",
            |a| a.token = Some("x".repeat(32 * 1024 + 1)),
            CredentialsError::TokenTooLong.into(),
        ),
        (
            "a target without a path",
            |a| (a.method, a.uri) = (http::Method::CONNECT, "api.example.com:443".into()),
            TargetError::Connect.into(),
        ),
        (
            "no proof",
            |a| a.dpop = Some(vec![]),
            ProofError::Missing.into(),
        ),
        (
            "another method",
            |a| a.proof_claims["htm"] = json!("POST"),
            ProofError::Method.into(),
        ),
        (
            "a wrong signature",
            |a| a.key = Key::es256(),
            ProofError::Signature.into(),
        ),
        (
            "a token that is bound to another key",
            |a| a.proof_header["jwk"] = Key::es256().public_jwk(),
            BindingError::OtherKey.into(),
        ),
        (
            "an expired token",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired.into(),
        ),
        (
            "a forged token",
            |a| a.token_key = Key::es256(),
            TokenError::Signature.into(),
        ),
        (
            "an unbound token",
            |a| drop(a.token_claims.as_object_mut().unwrap().remove("cnf")),
            BindingError::Unbound.into(),
        ),
    ]
}

/// Nothing is rejected, and everything is said.
#[test]
fn every_rejection_passes_and_is_reported() {
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    for (name, change, rejection) in rejections() {
        let request = Attempt::but(change).request();
        let (outcome, lines) = logged(|| outcome(&layer, request));
        assert_eq!(outcome, passed_although(rejection.clone()), "{name}");
        let message = "request would be rejected, and passes";
        assert_one_event(name, &lines, message, &rejection);
    }
}

/// The same requests at a layer that means it: no trace of the mode.
#[test]
fn nothing_of_it_where_rejections_are_meant() {
    let layer = DpopLayer::new(verifier());
    for (name, change, rejection) in rejections() {
        let request = Attempt::but(change).request();
        let (outcome, lines) = logged(|| outcome(&layer, request));
        let expected = Outcome {
            status: rejection.status(),
            challenges: 1,
            rejection: Some(rejection.clone()),
            reported: None,
            seen: None,
            ..passed(true)
        };
        assert_eq!(outcome, expected, "{name}");
        assert_one_event(name, &lines, "request rejected", &rejection);
        assert!(!lines[0].contains("would"), "{name}: {lines:?}");
    }
    assert_eq!(outcome(&layer, Attempt::good().request()), passed(true));
    let inside = ServiceBuilder::new()
        .layer(layer)
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .service(answering(StatusCode::OK));
    let outcome = outcome_of(inside, Attempt::good().request());
    assert_eq!((outcome.status.as_u16(), outcome.reported), (403, None));
    assert!(outcome.rejection.is_some());
}

#[test]
fn a_fault_of_ours_passes_too() {
    let no_keys = Verifier::new(common::rules(), Says(TokenError::Unavailable));
    let no_keys = DpopLayer::new(no_keys);
    let full = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(BrokenStore)));
    let message = "request would be rejected, and passes: cannot decide";

    let request = Attempt::good().request();
    let (found, lines) = logged(|| outcome(&no_keys.with_insecure_report_only(), request));
    assert_eq!(found, passed_although(Unavailable::Token));
    assert_one_event("no keys", &lines, message, &Unavailable::Token.into());

    let request = Attempt::good().request();
    let (found, lines) = logged(|| outcome(&full.with_insecure_report_only(), request));
    let rejection = Rejection::from(ReplayStoreError::Full);
    assert_eq!(found, passed_although(rejection.clone()));
    assert_one_event("a full memory", &lines, message, &rejection);
}

/// Good requests are verified as ever: they bring their token, and spend their proof.
#[test]
fn a_good_request_brings_its_token_and_spends_its_proof() {
    let memory = MemoryReplayStore::default();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(memory.clone())))
        .with_insecure_report_only();
    let request = Attempt::good().request();
    let (first, lines) = logged(|| outcome(&layer, request.clone()));
    assert_eq!(first, passed(true));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("request accepted"), "{lines:?}");
    assert_eq!(memory.usage().live, 1);
    let again = outcome(&layer, request);
    assert_eq!(
        again,
        passed_although(ProofError::Replayed),
        "R-11.1.3: again"
    );
    assert_eq!(memory.usage().live, 1);
    // What would have been rejected spends nothing.
    let rejected = Attempt::but(|a| a.proof_claims["htm"] = json!("POST"));
    outcome(&layer, rejected.request());
    assert_eq!(memory.usage().live, 1);
}

#[test]
fn bearer_tokens_where_they_are_allowed() {
    let layer = DpopLayer::new(verifier().allow_bearer()).with_insecure_report_only();
    let unbound = Attempt::good().as_bearer();
    assert_eq!(outcome(&layer, unbound.request()), passed(false));
    let bound = Attempt::but(|a| {
        let field = format!("Bearer {}", a.token()).parse().unwrap();
        a.authorization = Some(vec![field]);
    });
    let found = outcome(&layer, bound.request());
    assert_eq!(found, passed_although(BearerError::Bound), "R-7.2.1, F-10");
}

/// A client that needs a nonce is given one, whatever the service answers, and has what it needs for
/// the day on which rejections are meant.
#[test]
fn a_client_that_needs_a_nonce_is_given_one() {
    let nonces = nonces();
    let layer =
        DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces))).with_insecure_report_only();
    let rows: [(&str, Change, Rejection, usize); 5] = [
        ("no nonce", |_| {}, NonceError::Missing.into(), 1),
        (
            "a foreign one",
            |a| a.proof_claims["nonce"] = json!("x"),
            NonceError::Foreign.into(),
            1,
        ),
        (
            "no proof",
            |a| a.dpop = Some(vec![]),
            NonceError::Missing.into(),
            1,
        ),
        (
            "no token: nothing to do with nonces",
            |a| a.authorization = Some(vec![]),
            CredentialsError::Missing.into(),
            0,
        ),
        (
            "an expired token: another is needed first",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired.into(),
            0,
        ),
    ];
    for status in [200, 204, 302, 404, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        for (name, change, rejection, count) in &rows {
            let request = Attempt::but(change).request();
            let found = outcome_of(layer.layer(answering(status)), request);
            let expected = Outcome {
                status,
                nonces: *count,
                ..passed_although(rejection.clone())
            };
            assert_eq!(found, expected, "{name}, {status}");
        }
    }
    let service = layer.layer(answering(StatusCode::NOT_FOUND));
    let response = block_on(service.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store", "R-8.2.3");
    let nonce = response.headers()["dpop-nonce"]
        .to_str()
        .unwrap()
        .to_owned();
    let retry = Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce));
    assert_eq!(
        outcome(&layer, retry.request()),
        passed(true),
        "R-9.1: the retry"
    );
}

/// The layers inside report as well, each in its event; the first is what the client would have been
/// told, and stands in the extensions.
#[test]
fn requirements_inside_report_as_well() {
    type Named = fn(AuthorizationError) -> Rejection;
    let outer = || DpopLayer::new(verifier().allow_bearer()).with_insecure_report_only();
    let service = ServiceBuilder::new()
        .layer(outer())
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .layer(RequireAuthenticationLayer::by_acr("gold".parse().unwrap()))
        .service(answering(StatusCode::OK));
    let lacks = AuthorizationError::Scope {
        required: "admin".parse().unwrap(),
    };
    let step_up = AuthorizationError::Authentication {
        acr_values: Some("gold".parse().unwrap()),
        max_age: None,
    };
    let message = "request would be rejected, and passes";
    let rows: [(&str, Attempt, bool, Named); 2] = [
        ("DPoP", Attempt::good(), true, Rejection::from),
        ("Bearer", Attempt::good().as_bearer(), false, |error| {
            BearerError::Authorization(error).into()
        }),
    ];
    for (name, attempt, is_bound, named) in rows {
        let request = attempt.request();
        let (found, lines) = logged(|| outcome_of(service.clone(), request));
        let first = named(lacks.clone());
        let expected = Outcome {
            reported: Some(first.clone()),
            seen: Some(Seen {
                reported: Some(first.clone()),
                ..passed(is_bound).seen.unwrap()
            }),
            ..passed(is_bound)
        };
        assert_eq!(found, expected, "{name}");
        assert_eq!(lines.len(), 3, "{name}: {lines:?}");
        assert!(lines[0].contains("request accepted"), "{name}: {lines:?}");
        assert_one_event(name, &lines[1..2], message, &first);
        assert_one_event(name, &lines[2..], message, &named(step_up.clone()));
    }

    // One that the layer outside has reported has no token to ask about: said once.
    let request = Attempt::but(|a| a.authorization = Some(vec![])).request();
    let (found, lines) = logged(|| outcome_of(service.clone(), request));
    assert_eq!(found, passed_although(CredentialsError::Missing));
    assert_eq!(lines.len(), 1, "{lines:?}");

    let request = Attempt::but(|a| {
        a.token_claims["scope"] = json!("admin");
        a.token_claims["acr"] = json!("gold");
    });
    assert_eq!(
        outcome_of(service, request.request()),
        passed(true),
        "enough"
    );
}

/// A handler that decides for itself does not reject either.
#[test]
fn access_reports_as_well() {
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let access = Access::<Claims>::of(request.extensions()).unwrap();
        let needed = ScopeRequirement::all_of("admin".parse().unwrap());
        let is_allowed = access.check(&needed).is_ok();
        Ok::<_, Infallible>(Response::new(is_allowed))
    }));
    let request = Attempt::good().request();
    let (response, lines) = logged(|| block_on(service.oneshot(request)).unwrap());
    assert!(response.extensions().get::<Rejection>().is_none());
    assert!(response.into_body());
    let rejection = Rejection::from(AuthorizationError::Scope {
        required: "admin".parse().unwrap(),
    });
    let message = "request would be rejected, and passes";
    assert_one_event("access", &lines[1..], message, &rejection);
}

/// The mode belongs to one layer: what stands inside and means it still rejects.
#[test]
fn an_enforcing_layer_inside_still_rejects() {
    let report_only = DpopLayer::new(verifier()).with_insecure_report_only();
    let enforcing = DpopLayer::new(verifier());
    let both = ServiceBuilder::new()
        .layer(report_only)
        .layer(enforcing)
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .service(answering(StatusCode::OK));
    let no_proof = Attempt::but(|a| a.dpop = Some(vec![]));
    let found = outcome_of(both.clone(), no_proof.request());
    let missing = Some(ProofError::Missing.into());
    assert_eq!((found.status.as_u16(), found.challenges), (401, 1));
    assert_eq!(
        (found.rejection, found.reported),
        (missing.clone(), missing)
    );
    assert_eq!(found.seen, None);
    let found = outcome_of(both, Attempt::good().request());
    assert_eq!(
        (found.status.as_u16(), found.seen),
        (403, None),
        "the nearest decides"
    );
}

/// One that only reports changes nothing for the one outside that decides: neither the token that
/// the service sees, nor what becomes of those that lack something.
#[test]
fn a_layer_that_only_reports_leaves_one_outside_in_charge() {
    fn inside<V: AccessTokenVerifier>(
        tokens: V,
    ) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone {
        let other = DpopLayer::new(Verifier::new(common::rules(), tokens));
        ServiceBuilder::new()
            .layer(DpopLayer::new(verifier()))
            .layer(other.with_insecure_report_only())
            .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
            .service(service_fn(|request: Request<()>| {
                let extensions = request.extensions();
                assert!(extensions.get::<BoundToken<Value>>().is_none());
                let mut response = Response::new(());
                response.extensions_mut().insert(seen(&request));
                let token: Option<&BoundToken<Claims>> = extensions.get();
                assert_eq!(token.unwrap().claims().subject(), "alice");
                ready(Ok::<_, Infallible>(response))
            }))
    }

    #[track_caller]
    fn assert_in_charge(
        name: &str,
        service: impl Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone,
        reported: Option<&Rejection>,
    ) {
        let lacks = AuthorizationError::Scope {
            required: "admin".parse().unwrap(),
        };
        let rejected = Outcome {
            status: StatusCode::FORBIDDEN,
            challenges: 1,
            rejection: Some(lacks.into()),
            reported: reported.cloned(),
            seen: None,
            ..passed(true)
        };
        let found = outcome_of(service.clone(), Attempt::good().request());
        assert_eq!(found, rejected, "{name}: without the scope");
        let through = Outcome {
            reported: reported.cloned(),
            seen: Some(Seen {
                reported: reported.cloned(),
                ..passed(true).seen.unwrap()
            }),
            ..passed(true)
        };
        let enough = Attempt::but(|a| a.token_claims["scope"] = json!("admin"));
        let found = outcome_of(service, enough.request());
        assert_eq!(found, through, "{name}: with the scope");
    }

    let other_audience = Rejection::from(TokenError::Audience);
    let rejects = inside(Says(TokenError::Audience));
    assert_in_charge("it would reject", rejects, Some(&other_audience));
    let out_of_reach = Rejection::from(Unavailable::Token);
    let cannot_say = inside(Says(TokenError::Unavailable));
    assert_in_charge("it cannot say", cannot_say, Some(&out_of_reach));
    assert_in_charge("it would accept", inside(jwt_verifier()), None);
    let with_other_claims = inside(jwt_verifier().with_claims::<Value>());
    assert_in_charge("it reads other claims", with_other_claims, None);
}

/// Behind two that only report, what the outer one has accepted is not what the inner one has.
#[test]
fn a_token_of_a_layer_outside_is_not_passed_off_as_good() {
    let of_another_audience = Verifier::new(
        ProofRules::new(common::AUDIENCE.parse().unwrap()).with_clock(|| common::at(NOW)),
        Says(TokenError::Audience),
    );
    let both = ServiceBuilder::new()
        .layer(DpopLayer::new(verifier()).with_insecure_report_only())
        .layer(DpopLayer::new(of_another_audience).with_insecure_report_only())
        .service(answering(StatusCode::OK));
    let found = outcome_of(both, Attempt::good().request());
    assert_eq!(found, passed_although(TokenError::Audience));
}

/// The mode is the time to find out that a requirement reads other claims: it passes, and says so.
#[test]
fn a_misplaced_requirement_is_said() {
    let other = Verifier::new(common::rules(), jwt_verifier().with_claims::<Value>());
    let other = DpopLayer::new(other).with_insecure_report_only();
    let service = ServiceBuilder::new()
        .layer(other)
        .layer(RequireLayer::<_, Claims>::new(|_: &Claims| false))
        .service(answering(StatusCode::OK));
    let request = Attempt::good().request();
    let (found, lines) = logged(|| outcome_of(service.clone(), request));
    assert_eq!((found.status, found.reported), (StatusCode::OK, None));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("ERROR"), "{lines:?}");
    let request = Attempt::but(|a| a.dpop = Some(vec![])).request();
    let (found, lines) = logged(|| outcome_of(service, request));
    assert_eq!(found.reported, Some(ProofError::Missing.into()));
    assert_eq!(
        lines.len(),
        1,
        "a request without a token says nothing of it: {lines:?}"
    );
}

/// T-4: preflights are not looked at, in this mode as in the other.
#[test]
fn a_preflight_that_is_let_through_is_not_reported() {
    let preflight = || {
        Request::options("/orders")
            .header("access-control-request-method", "GET")
            .body(())
            .unwrap()
    };
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    let reported = outcome(&layer, preflight());
    assert_eq!(reported, passed_although(CredentialsError::Missing));
    let passing = layer.with_preflight_pass_through();
    let (found, lines) = logged(|| outcome(&passing, preflight()));
    assert_eq!((found.reported, lines.len()), (None, 0));
    assert_eq!(found.seen.unwrap().reported, None);
}

#[test]
fn the_layer_says_that_it_does_not_reject() {
    let layer = DpopLayer::new(verifier());
    assert!(format!("{layer:?}").contains("Enforced"));
    let layer = layer.with_insecure_report_only();
    assert!(format!("{:?}", layer.clone()).contains("ReportOnly"));
    let clone = outcome(&layer.clone(), Request::new(()));
    assert_eq!(
        clone,
        passed_although(CredentialsError::Missing),
        "a clone is of the same mode"
    );
}

/// A handler that takes an option is reached; one that takes a token is not, and nobody else either.
#[cfg(feature = "axum")]
#[test]
fn handlers_of_axum_take_an_option() {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;

    async fn token(token: Option<AcceptedToken<Claims>>) -> StatusCode {
        assert!(token.is_none());
        StatusCode::OK
    }
    async fn access(access: Option<Access<Claims>>) -> StatusCode {
        assert!(access.is_none());
        StatusCode::OK
    }
    async fn bound(token: Option<BoundToken<Claims>>) -> StatusCode {
        assert!(token.is_none());
        StatusCode::OK
    }
    async fn required(_: BoundToken<Claims>) -> StatusCode {
        StatusCode::OK
    }

    let app = Router::new()
        .route("/token", get(token))
        .route("/access", get(access))
        .route("/bound", get(bound))
        .route("/required", get(required))
        .layer(DpopLayer::new(verifier().allow_bearer()).with_insecure_report_only());
    for (path, status) in [
        ("/token", 200),
        ("/access", 200),
        ("/bound", 200),
        ("/required", 500),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = block_on(app.clone().oneshot(request)).unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert!(response.extensions().get::<Rejection>().is_none(), "{path}");
        let missing = Some(CredentialsError::Missing.into());
        assert_eq!(reported(response.extensions()), missing, "{path}");
    }
    let request = Attempt::good().as_bearer().build_with(Body::empty());
    let (mut head, body) = request.into_parts();
    head.uri = "/required".parse().unwrap();
    let response = block_on(app.oneshot(Request::from_parts(head, body))).unwrap();
    assert_eq!(response.status(), 500, "never a rejection");
    assert!(response.extensions().get::<Rejection>().is_none());
}
