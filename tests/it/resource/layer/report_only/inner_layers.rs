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
    BoundToken, Claims, DpopLayer, ProofRules, Rejection, RequireScopesLayer, Verifier,
};

use super::super::RejectingTokens;
use super::{
    Outcome, SeenByService, assert_one_event, logged, passed, passed_but_reported, seen, send_to,
    service_with_status,
};

/// Each inner layer reports in its own event. The extensions have the first rejection, the one that the
/// client would have got.
#[test]
fn inner_requirements_only_report_too() {
    type AsRejection = fn(AuthorizationError) -> Rejection;
    let outer = || DpopLayer::new(verifier().allow_bearer()).with_insecure_report_only();
    let service = ServiceBuilder::new()
        .layer(outer())
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .layer(RequireAuthenticationLayer::by_acr("gold".parse().unwrap()))
        .service(service_with_status(StatusCode::OK));
    let missing_scope = AuthorizationError::Scope {
        required: "admin".parse().unwrap(),
    };
    let missing_authentication = AuthorizationError::Authentication {
        acr_values: Some("gold".parse().unwrap()),
        max_age: None,
    };
    let message = "request would be rejected, and passes";
    let rows: [(&str, Attempt, bool, AsRejection); 2] = [
        ("DPoP", Attempt::good(), true, Rejection::from),
        ("Bearer", Attempt::good().as_bearer(), false, |error| {
            BearerError::Authorization(error).into()
        }),
    ];
    for (name, attempt, is_bound, as_rejection) in rows {
        let request = attempt.request();
        let (outcome, lines) = logged(|| send_to(service.clone(), request));
        let first = as_rejection(missing_scope.clone());
        let expected = Outcome {
            reported: Some(first.clone()),
            seen: Some(SeenByService {
                reported: Some(first.clone()),
                ..passed(is_bound).seen.unwrap()
            }),
            ..passed(is_bound)
        };
        assert_eq!(outcome, expected, "{name}");
        assert_eq!(lines.len(), 3, "{name}: {lines:?}");
        assert!(lines[0].contains("request accepted"), "{name}: {lines:?}");
        assert_one_event(name, &lines[1..2], message, &first);
        assert_one_event(
            name,
            &lines[2..],
            message,
            &as_rejection(missing_authentication.clone()),
        );
    }

    // A request without a token is reported once, by the outer layer.
    let request = Attempt::but(|a| a.authorization = Some(vec![])).request();
    let (outcome, lines) = logged(|| send_to(service.clone(), request));
    assert_eq!(outcome, passed_but_reported(CredentialsError::Missing));
    assert_eq!(lines.len(), 1, "{lines:?}");

    let request = Attempt::but(|a| {
        a.token_claims["scope"] = json!("admin");
        a.token_claims["acr"] = json!("gold");
    });
    assert_eq!(
        send_to(service, request.request()),
        passed(true),
        "sufficient"
    );
}

#[test]
fn access_check_only_reports_too() {
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    let service = layer.layer(service_fn(async |request: Request<String>| {
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

#[test]
fn an_enforcing_inner_layer_still_rejects() {
    let report_only = DpopLayer::new(verifier()).with_insecure_report_only();
    let enforcing = DpopLayer::new(verifier());
    let both = ServiceBuilder::new()
        .layer(report_only)
        .layer(enforcing)
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .service(service_with_status(StatusCode::OK));
    let no_proof = Attempt::but(|a| a.dpop = Some(vec![]));
    let outcome = send_to(both.clone(), no_proof.request());
    let missing = Some(ProofError::Missing.into());
    assert_eq!((outcome.status.as_u16(), outcome.challenges), (401, 1));
    assert_eq!(
        (outcome.rejection, outcome.reported),
        (missing.clone(), missing)
    );
    assert_eq!(outcome.seen, None);
    let outcome = send_to(both, Attempt::good().request());
    assert_eq!(
        (outcome.status.as_u16(), outcome.seen),
        (403, None),
        "requirements follow the nearest DpopLayer"
    );
}

/// An inner report-only layer changes neither the token that the service finds nor the decisions of
/// requirements.
#[test]
fn an_enforcing_outer_layer_decides_over_an_inner_report_only_layer() {
    fn with_inner_layer<V: AccessTokenVerifier>(
        tokens: V,
    ) -> impl Service<Request<String>, Response = Response<()>, Error = Infallible> + Clone {
        let other = DpopLayer::new(Verifier::new(common::rules(), tokens));
        ServiceBuilder::new()
            .layer(DpopLayer::new(verifier()))
            .layer(other.with_insecure_report_only())
            .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
            .service(service_fn(|request: Request<String>| {
                let extensions = request.extensions();
                assert!(extensions.get::<BoundToken<Value>>().is_none());
                let mut response = Response::new(());
                response.extensions_mut().insert(seen(&request));
                let token: Option<&BoundToken<Claims>> = extensions.get();
                assert_eq!(token.unwrap().claims().subject(), Some("alice"));
                ready(Ok::<_, Infallible>(response))
            }))
    }

    #[track_caller]
    fn assert_outer_decides(
        name: &str,
        service: impl Service<Request<String>, Response = Response<()>, Error = Infallible> + Clone,
        reported: Option<&Rejection>,
    ) {
        let missing_scope = AuthorizationError::Scope {
            required: "admin".parse().unwrap(),
        };
        let rejected = Outcome {
            status: StatusCode::FORBIDDEN,
            challenges: 1,
            rejection: Some(missing_scope.into()),
            reported: reported.cloned(),
            seen: None,
            ..passed(true)
        };
        let outcome = send_to(service.clone(), Attempt::good().request());
        assert_eq!(outcome, rejected, "{name}: without the scope");
        let accepted = Outcome {
            reported: reported.cloned(),
            seen: Some(SeenByService {
                reported: reported.cloned(),
                ..passed(true).seen.unwrap()
            }),
            ..passed(true)
        };
        let sufficient = Attempt::but(|a| a.token_claims["scope"] = json!("admin"));
        let outcome = send_to(service, sufficient.request());
        assert_eq!(outcome, accepted, "{name}: with the scope");
    }

    let other_audience = Rejection::from(TokenError::Audience);
    let rejects = with_inner_layer(RejectingTokens(TokenError::Audience));
    assert_outer_decides(
        "the inner layer would reject",
        rejects,
        Some(&other_audience),
    );
    let unavailable = Rejection::from(Unavailable::Token);
    let cannot_decide = with_inner_layer(RejectingTokens(TokenError::Unavailable));
    assert_outer_decides(
        "the inner layer cannot decide",
        cannot_decide,
        Some(&unavailable),
    );
    assert_outer_decides(
        "the inner layer would accept",
        with_inner_layer(jwt_verifier()),
        None,
    );
    let with_other_claims = with_inner_layer(jwt_verifier().with_claims::<Value>());
    assert_outer_decides(
        "the inner layer reads other claims",
        with_other_claims,
        None,
    );
}

/// An inner report-only layer removes the token of an outer report-only layer if it would reject it.
#[test]
fn a_token_that_the_inner_layer_would_reject_is_removed() {
    let of_another_audience = Verifier::new(
        ProofRules::new(common::AUDIENCE.parse().unwrap()).with_clock(|| common::at(NOW)),
        RejectingTokens(TokenError::Audience),
    );
    let both = ServiceBuilder::new()
        .layer(DpopLayer::new(verifier()).with_insecure_report_only())
        .layer(DpopLayer::new(of_another_audience).with_insecure_report_only())
        .service(service_with_status(StatusCode::OK));
    let outcome = send_to(both, Attempt::good().request());
    assert_eq!(outcome, passed_but_reported(TokenError::Audience));
}

/// Report-only mode shows that a requirement reads other claims than the layer, before it rejects
/// requests for it.
#[test]
fn a_misplaced_requirement_is_logged() {
    let other = Verifier::new(common::rules(), jwt_verifier().with_claims::<Value>());
    let other = DpopLayer::new(other).with_insecure_report_only();
    let service = ServiceBuilder::new()
        .layer(other)
        .layer(RequireLayer::<_, Claims>::new(|_: &Claims| false))
        .service(service_with_status(StatusCode::OK));
    let request = Attempt::good().request();
    let (outcome, lines) = logged(|| send_to(service.clone(), request));
    assert_eq!((outcome.status, outcome.reported), (StatusCode::OK, None));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("ERROR"), "{lines:?}");
    let request = Attempt::but(|a| a.dpop = Some(vec![])).request();
    let (outcome, lines) = logged(|| send_to(service, request));
    assert_eq!(outcome.reported, Some(ProofError::Missing.into()));
    assert_eq!(
        lines.len(),
        1,
        "not logged for a request without a token: {lines:?}"
    );
}

/// Without a token, a handler that takes an `Option` is called. A handler that takes a token gets a 500.
#[cfg(feature = "axum")]
#[test]
fn an_axum_handler_must_take_an_option_of_the_token() {
    use axum::Router;
    use tower_dpop::AcceptedToken;

    use super::reported;

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
    assert_eq!(
        response.status(),
        500,
        "a Bearer token instead of a bound one: a 500, not a rejection"
    );
    assert!(response.extensions().get::<Rejection>().is_none());
}
