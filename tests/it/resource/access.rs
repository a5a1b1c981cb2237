//! `Access`: a handler checks a requirement itself.

use std::convert::Infallible;

use common::{Attempt, block_on};
use http::{Request, Response, StatusCode};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::resource::{Access, Denied, ScopeRequirement};
use tower_dpop::{Claims, DpopLayer};

use super::authorization::{
    Outcome, TenantClaims, as_bearer, lacks_scope, passed, scopes, under_dpop,
};
use super::bearer::allowing_bearer;

#[test]
fn access_check_decides_as_the_layers_do() {
    let send = |layer: DpopLayer, request: Request<String>| {
        let service = layer.layer(service_fn(async |request: Request<String>| {
            let access = Access::<Claims>::of(request.extensions()).unwrap();
            assert_eq!(access.claims().subject(), Some("alice"));
            assert!(
                Access::<TenantClaims>::of(request.extensions()).is_none(),
                "another claims type"
            );
            let needed = ScopeRequirement::all_of(scopes("admin"));
            let decision: Result<(), Denied> = access.check(&needed);
            assert!(!format!("{access:?}").contains("alice"));
            Ok::<_, Infallible>(match decision {
                Ok(()) => Response::new("done"),
                Err(denied) => {
                    assert_eq!(denied.rejection().status(), StatusCode::FORBIDDEN);
                    denied.into_response()
                }
            })
        }));
        let response = block_on(service.oneshot(request)).unwrap();
        (
            Outcome::of(&response, *response.body() == "done"),
            *response.body(),
        )
    };
    let no_scope = lacks_scope("admin");
    let admin = |a: &mut Attempt| a.token_claims["scope"] = json!("admin");
    let (allowed, body) = send(allowing_bearer(), under_dpop(admin));
    assert_eq!((allowed, body), (passed(), "done"));
    let (allowed, body) = send(allowing_bearer(), as_bearer(admin));
    assert_eq!((allowed, body), (passed(), "done"));
    let (denied, body) = send(allowing_bearer(), under_dpop(|_| {}));
    assert_eq!((denied, body), (no_scope.under_dpop(), ""));
    let (denied, body) = send(allowing_bearer(), as_bearer(|_| {}));
    assert_eq!((denied, body), (no_scope.as_bearer(), ""));

    assert!(
        Access::<Claims>::of(under_dpop(|_| {}).extensions()).is_none(),
        "no DPoP layer"
    );
}
