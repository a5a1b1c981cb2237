//! axum handlers that take a token, inside the layers.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use common::{Attempt, block_on, jwt_verifier, verifier};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_dpop::resource::{
    Access, BearerError, Denied, RequireAuthenticationLayer, ScopeRequirement,
};
use tower_dpop::{
    AcceptedToken, BearerToken, BoundToken, Claims, DpopLayer, RequireScopesLayer, Verifier,
    testing,
};

use super::{
    Outcome, acrs, as_bearer, configuration_error, lacks_scope, needs_authentication, passed,
    rejected, scopes, under_dpop,
};
use crate::resource::bearer::allowing_bearer;
use crate::resource::challenge::ALGS;

fn send(app: &Router, request: Request<String>) -> (Outcome, String) {
    block_on(async {
        let request = request.map(|_| Body::empty());
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

fn preflight(path: &str) -> Request<String> {
    Request::options(path)
        .header("access-control-request-method", "GET")
        .body(String::new())
        .unwrap()
}

fn scheme_of(token: &AcceptedToken<Claims>) -> &'static str {
    match token {
        AcceptedToken::Bearer(_) => "bearer",
        AcceptedToken::Bound(_) => "bound",
    }
}

async fn accepted(token: AcceptedToken<Claims>) -> &'static str {
    scheme_of(&token)
}

async fn admins(access: Access<Claims>) -> Result<&'static str, Denied> {
    access.check(&ScopeRequirement::all_of(scopes("admin")))?;
    Ok(scheme_of(access.token()))
}

async fn bound(token: BoundToken<Claims>) -> String {
    token.claims().subject().unwrap().to_owned()
}

async fn only_bearer(token: BearerToken<Claims>) -> String {
    token.claims().subject().unwrap().to_owned()
}

async fn optional(token: Option<AcceptedToken<Claims>>) -> &'static str {
    token.as_ref().map_or("no token", scheme_of)
}

async fn optional_access(access: Option<Access<Claims>>) -> &'static str {
    access
        .as_ref()
        .map_or("no token", |access| scheme_of(access.token()))
}

async fn optional_bound(token: Option<BoundToken<Claims>>) -> &'static str {
    token.map_or("not bound", |_| "bound")
}

fn routes() -> Router {
    Router::new()
        .route("/accepted", get(accepted))
        .route("/admins", get(admins))
        .route("/bound", get(bound))
        .route("/only-bearer", get(only_bearer))
        .route("/optional", get(optional).options(optional))
        .route(
            "/optional-access",
            get(optional_access).options(optional_access),
        )
        .route("/optional-bound", get(optional_bound))
        .route(
            "/layered",
            get(accepted).layer(RequireScopesLayer::all_of(scopes("admin"))),
        )
        .route(
            "/layered-get",
            get(accepted)
                .layer(RequireAuthenticationLayer::by_acr(acrs("gold")))
                .post(accepted),
        )
}

#[test]
fn a_handler_gets_the_token_type_that_it_takes_or_is_not_called() {
    let app = routes().layer(allowing_bearer());
    let no_scope = lacks_scope("admin");
    let in_dpop = || Err(no_scope.under_dpop());
    let in_bearer = || Err(no_scope.as_bearer());
    let step_up = needs_authentication(Some("gold"), None);
    let not_bound = {
        let challenge = r#"Bearer error="invalid_token", error_description="the access token is not bound to a key""#;
        Outcome {
            challenges: vec![challenge.to_owned(), format!("DPoP {ALGS}")],
            ..rejected(401, String::new(), BearerError::Unbound.into())
        }
    };
    let rows = [
        ("/accepted", Ok("bound"), Ok("bearer")),
        ("/admins", in_dpop(), in_bearer()),
        ("/bound", Ok("alice"), Err(not_bound)),
        ("/only-bearer", Err(configuration_error()), Ok("alice")),
        ("/optional", Ok("bound"), Ok("bearer")),
        ("/optional-access", Ok("bound"), Ok("bearer")),
        ("/optional-bound", Ok("bound"), Ok("not bound")),
        ("/layered", in_dpop(), in_bearer()),
        (
            "/layered-get",
            Err(step_up.under_dpop()),
            Err(step_up.as_bearer()),
        ),
    ];
    let expected = |result: Result<&str, Outcome>| match result {
        Ok(text) => (passed(), text.to_owned()),
        Err(outcome) => (outcome, String::new()),
    };
    for (path, dpop, bearer) in rows {
        let (dpop, bearer) = (expected(dpop), expected(bearer));
        assert_eq!(send(&app, under_dpop(at(path))), dpop, "{path}, under DPoP");
        assert_eq!(
            send(&app, as_bearer(at(path))),
            bearer,
            "{path}, under Bearer"
        );
    }
    for (path, text) in [("/admins", "bound"), ("/layered", "bound")] {
        let request = under_dpop(|a| {
            at(path)(a);
            a.token_claims["scope"] = json!("admin");
        });
        assert_eq!(
            send(&app, request),
            (passed(), text.to_owned()),
            "{path}, with the scope"
        );
    }
    let post = under_dpop(|a| {
        at("/layered-get")(a);
        a.method = Method::POST;
        a.proof_claims["htm"] = json!("POST");
    });
    assert_eq!(
        send(&app, post),
        (passed(), "bound".to_owned()),
        "POST /layered-get"
    );
}

/// Not even a handler that takes an `Option`: it would treat every client as anonymous if the layer was forgotten.
#[test]
fn without_a_matching_layer_no_handler_is_called() {
    let app = routes();
    let with_other_claims = {
        let tokens = jwt_verifier().with_claims::<Value>();
        routes().layer(DpopLayer::new(Verifier::new(common::rules(), tokens)))
    };
    for path in [
        "/accepted",
        "/admins",
        "/bound",
        "/only-bearer",
        "/optional",
        "/optional-access",
        "/layered",
    ] {
        for (name, app) in [
            ("no layer", &app),
            ("another claims type", &with_other_claims),
        ] {
            let outcome = send(app, under_dpop(at(path)));
            assert_eq!(
                outcome,
                (configuration_error(), String::new()),
                "{path}, {name}"
            );
        }
    }
}

#[test]
fn an_optional_token_is_none_for_a_preflight() {
    let app = routes().layer(DpopLayer::new(verifier()).with_preflight_pass_through());
    for path in ["/optional", "/optional-access"] {
        let outcome = send(&app, preflight(path));
        assert_eq!(outcome, (passed(), "no token".to_owned()), "T-4: {path}");
        let outcome = send(&app, under_dpop(at(path)));
        assert_eq!(outcome, (passed(), "bound".to_owned()), "T-4: {path}");
    }
}

/// R-AT.9
#[test]
fn the_test_kit_reads_rejections_under_both_schemes() {
    let app = routes().layer(allowing_bearer());
    let outcome_of = |request: Request<String>| {
        let request = request.map(|_| Body::empty());
        testing::TestResponse::of(&block_on(app.clone().oneshot(request)).unwrap())
    };
    let error = lacks_scope("admin").error;
    let dpop = outcome_of(under_dpop(at("/layered")));
    dpop.assert_rejected("DPoP", 403, Some("insufficient_scope"));
    dpop.assert_reason("DPoP", error.clone());
    let bearer = outcome_of(as_bearer(at("/layered")));
    bearer.assert_rejected("Bearer", 403, Some("insufficient_scope"));
    bearer.assert_reason("Bearer", BearerError::Authorization(error));
    outcome_of(as_bearer(at("/bound"))).assert_reason("not bound", BearerError::Unbound);
}
