//! The claims that the application receives.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tower_dpop::Timestamp;
use tower_dpop::resource::{AuthenticationRequirement, Requirement, ScopeRequirement};
use tower_dpop::tokens::{IntrospectedClaims, TokenError};

use super::{Change, Server, changed_response, good_response, layer, send};
use common::log::logged;
use common::remove;
use common::{AUDIENCE, NOW, block_on};

#[test]
fn the_claims_are_those_of_the_response() {
    let server = Server::with_basic();
    block_on(async {
        let layer = layer(server.verifier());
        let token = send(&layer, "full").await.token.unwrap();
        let claims = token.claims();
        assert_eq!(
            (claims.subject(), claims.client_id(), claims.username()),
            (Some("alice"), Some("app"), Some("Alice L."))
        );
        assert_eq!(
            claims.scopes().collect::<Vec<_>>(),
            ["orders.read", "orders.write"]
        );
        assert!(claims.has_scope("orders.read") && !claims.has_scope("orders"));
        assert_eq!(claims.claim::<u64>("tenant"), Some(7));
        assert_eq!(claims.claim::<String>("tenant"), None);
        assert_eq!(token.expires().unwrap().as_unix(), NOW + 600);

        let cnf = good_response()["cnf"].clone();
        server.set_response(&changed_response(|r| {
            r["sub"] = json!(null);
            r["scope"] = json!(["orders.read", "orders.write"]);
        }));
        let token = send(&layer, "spellings").await.token.unwrap();
        assert_eq!(token.claims().subject(), None);
        assert_eq!(
            token.claims().scopes().collect::<Vec<_>>(),
            ["orders.read", "orders.write"]
        );

        server.set_response(&json!({ "active": true, "aud": AUDIENCE, "cnf": cnf }));
        let token = send(&layer, "bare").await.token.unwrap();
        let claims = token.claims();
        assert_eq!(
            (claims.subject(), claims.client_id(), claims.username()),
            (None, None, None)
        );
        assert_eq!(claims.scopes().count(), 0);
        assert_eq!(token.expires(), None);
    });
}

#[test]
fn routes_can_require_scopes_and_a_login() {
    let server = Server::with_basic();
    server.set_response(&changed_response(|r| {
        r["acr"] = json!("mfa");
        r["auth_time"] = json!(NOW - 60);
    }));
    let layer = layer(server.verifier());
    block_on(async {
        let token = send(&layer, "token").await.token.unwrap();
        let claims = token.claims();
        let scopes = |text: &str| ScopeRequirement::all_of(text.parse().unwrap());
        let login = |acr: &str, seconds| {
            AuthenticationRequirement::by_acr(acr.parse().unwrap())
                .with_max_age(Duration::from_secs(seconds))
        };
        let now = Timestamp::from_unix(NOW);
        let decides = |requirement: &dyn Requirement<IntrospectedClaims>| {
            requirement.check(claims, now).is_ok()
        };
        assert!(decides(&scopes("orders.read orders.write")));
        assert!(!decides(&scopes("orders.read orders")));
        assert!(decides(&login("phr mfa", 60)));
        assert!(!decides(&login("phr", 60)), "another acr");
        assert!(!decides(&login("mfa", 59)), "too long ago");
    });
}

/// D21
#[test]
fn a_member_that_cannot_be_read_is_named_in_the_log() {
    let server = Server::with_basic();
    let layer = layer(server.verifier());
    let rows: [(&str, Change, &str, TokenError); 4] = [
        (
            "sub",
            |r| r["sub"] = json!(7_654_321),
            r#"claim "sub": expected a string"#,
            TokenError::Claims,
        ),
        (
            "scope",
            |r| r["scope"] = json!({ "x": 7_654_321 }),
            r#"claim "scope": expected a string or an array of strings"#,
            TokenError::Claims,
        ),
        (
            "exp",
            |r| r["exp"] = json!("7654321"),
            r#"claim "exp": expected f64"#,
            TokenError::Malformed,
        ),
        (
            "token_type",
            |r| r["token_type"] = json!(7_654_321),
            r#"claim "token_type": expected a string"#,
            TokenError::Malformed,
        ),
    ];
    for (token, change, line, reason) in rows {
        server.set_response(&changed_response(change));
        let (outcome, log) = logged(|| block_on(send(&layer, token)));
        outcome.assert_reason(token, reason);
        assert!(log.contains(line), "{token}: {log}");
        assert!(!log.contains("7654321"), "{token}: {log}");
    }
}

#[test]
fn the_application_can_choose_the_type_of_the_claims() {
    #[derive(Deserialize)]
    struct CustomClaims {
        tenant: u32,
    }

    let server = Server::with_basic();
    let layer = layer(server.verifier().with_claims::<CustomClaims>());
    block_on(async {
        let token = send(&layer, "a").await.token.unwrap();
        assert_eq!(token.claims().tenant, 7);
        for (token, change) in [
            ("b", (|r| remove(r, "tenant")) as Change),
            ("c", |r| r["tenant"] = json!("seven")),
        ] {
            server.set_response(&changed_response(change));
            send(&layer, token)
                .await
                .assert_reason(token, TokenError::Claims);
        }
    });
}
