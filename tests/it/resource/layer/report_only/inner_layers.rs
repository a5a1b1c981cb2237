//! Layers and handlers inside a report-only layer, and report-only layers inside others.

use std::convert::Infallible;
use std::future::ready;

use common::{Attempt, AttemptExt as _, NOW, block_on, jwt_verifier, verifier};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{
    Access, AuthorizationError, BearerError, CredentialsError, RequireAuthenticationLayer,
    RequireLayer, ScopeRequirement, Unavailable,
};
use tower_dpop::tokens::{AccessTokenVerifier, TokenError};
use tower_dpop::{
    AcceptedToken, BoundToken, Claims, DpopLayer, ProofRules, Rejection, RequireScopesLayer,
    Verifier,
};

use super::super::Says;
use super::{
    Outcome, Seen, answering, assert_one_event, logged, outcome_of, passed, passed_although,
    reported, seen,
};

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
