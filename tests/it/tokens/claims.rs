//! The claims of an access token, as RFC 9068 and products write them.

use std::convert::Infallible;

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::tokens::TokenError;
use tower_dpop::{Claims, DpopLayer, RequireScopesLayer, Verifier};

use common::log::logged;
use common::{
    Attempt, AttemptExt as _, KeyExt as _, NOW, block_on, jwt_verifier, remove, rules, verifier,
};

#[test]
fn the_claims_are_read_from_the_token() {
    let token = Attempt::good().outcome().token.unwrap();
    let claims = token.claims();
    assert_eq!(
        (claims.subject(), claims.client_id()),
        (Some("alice"), Some("app"))
    );
    assert_eq!(
        claims.scopes().collect::<Vec<_>>(),
        ["orders.read", "orders.write"]
    );
    assert!(claims.has_scope("orders.read") && !claims.has_scope("orders"));
    assert_eq!(claims.claim::<String>("jti").as_deref(), Some("token-1"));
    assert_eq!(claims.claim::<u64>("jti"), None);
    assert_eq!(token.expires().unwrap().as_unix(), NOW + 600);
}

/// A good attempt whose token has these claims instead of its subject, client and scope.
fn attempt_with(claims: &Value) -> Attempt {
    Attempt::but(|a| {
        for claim in ["sub", "client_id", "scope"] {
            remove(&mut a.token_claims, claim);
        }
        let members = a.token_claims.as_object_mut().unwrap();
        members.extend(claims.as_object().unwrap().clone());
    })
}

/// D22
#[test]
fn the_subject_and_the_client_are_read_in_every_spelling() {
    type Expected = (Option<&'static str>, Option<&'static str>);
    let rows: Vec<(&str, Value, Expected)> = vec![
        (
            "RFC 9068",
            json!({ "sub": "alice", "client_id": "app" }),
            (Some("alice"), Some("app")),
        ),
        (
            "only a subject",
            json!({ "sub": "alice" }),
            (Some("alice"), None),
        ),
        (
            "client_id",
            json!({ "client_id": "app" }),
            (None, Some("app")),
        ),
        ("azp", json!({ "azp": "app" }), (None, Some("app"))),
        ("appid", json!({ "appid": "app" }), (None, Some("app"))),
        ("cid", json!({ "cid": "app" }), (None, Some("app"))),
        (
            "client_id comes first",
            json!({ "cid": "c", "appid": "b", "azp": "a", "client_id": "app" }),
            (None, Some("app")),
        ),
        (
            "null is absent",
            json!({ "sub": null, "client_id": null, "azp": null, "appid": null, "cid": "app" }),
            (None, Some("app")),
        ),
        ("an empty subject", json!({ "sub": "" }), (Some(""), None)),
    ];
    for (name, claims, expected) in rows {
        let outcome = attempt_with(&claims).outcome();
        outcome.assert_passed(name);
        let token = outcome.token.unwrap();
        assert_eq!(
            (token.claims().subject(), token.claims().client_id()),
            expected,
            "{name}"
        );
    }
}

/// D22
#[test]
fn the_scopes_are_read_in_every_spelling() {
    let rows: Vec<(&str, Value, &[&str])> = vec![
        ("none", json!({}), &[]),
        ("a string", json!({ "scope": "a b" }), &["a", "b"]),
        ("an array", json!({ "scope": ["a", "b"] }), &["a", "b"]),
        ("scp, a string", json!({ "scp": "a b" }), &["a", "b"]),
        ("scp, an array", json!({ "scp": ["a", "b"] }), &["a", "b"]),
        (
            "scope comes first",
            json!({ "scope": "a", "scp": ["b"] }),
            &["a"],
        ),
        (
            "an empty scope comes first",
            json!({ "scope": "", "scp": "b" }),
            &[],
        ),
        (
            "null is absent",
            json!({ "scope": null, "scp": ["b"] }),
            &["b"],
        ),
        ("both are null", json!({ "scope": null, "scp": null }), &[]),
        (
            "spaces at the ends",
            json!({ "scope": "  a  b " }),
            &["a", "b"],
        ),
        ("an empty array", json!({ "scope": [] }), &[]),
        ("an empty string in an array", json!({ "scope": [""] }), &[]),
        (
            "no string of an array is split",
            json!({ "scope": ["a b"] }),
            &["a b"],
        ),
        ("escapes", json!({ "scope": "\u{e9}" }), &["\u{e9}"]),
    ];
    for (name, mut claims, expected) in rows {
        claims["sub"] = json!("alice");
        let outcome = attempt_with(&claims).outcome();
        outcome.assert_passed(name);
        let token = outcome.token.unwrap();
        let scopes: Vec<_> = token.claims().scopes().collect();
        assert_eq!(scopes, expected, "{name}");
        assert!(!token.claims().has_scope(""), "{name}");
        assert!(
            !token.claims().has_scope("a b") || expected == ["a b"],
            "{name}"
        );
    }
}

#[test]
fn a_route_can_require_scopes_in_every_spelling() {
    for (name, claims, allowed) in [
        ("a string", json!({ "scope": "orders.read x" }), true),
        ("an array", json!({ "scope": ["x", "orders.read"] }), true),
        ("scp, a string", json!({ "scp": "x orders.read" }), true),
        ("scp, an array", json!({ "scp": ["orders.read"] }), true),
        ("another scope", json!({ "scp": ["orders"] }), false),
        (
            "one string of two",
            json!({ "scope": ["orders.read x"] }),
            false,
        ),
        (
            "both in one claim",
            json!({ "scope": "x", "scp": "orders.read" }),
            false,
        ),
    ] {
        let mut claims = claims;
        claims["cid"] = json!("app");
        let inner = RequireScopesLayer::all_of("orders.read".parse().unwrap()).layer(
            tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new()))),
        );
        let service = DpopLayer::new(verifier()).layer(inner);
        let response = block_on(service.oneshot(attempt_with(&claims).request())).unwrap();
        let expected = if allowed {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(response.status(), expected, "{name}");
    }
}

/// What a product writes under its own name can still be read as it is.
#[test]
fn any_claim_can_be_read_under_its_own_name() {
    let claims = json!({
        "client_id": "app", "azp": "a", "appid": "b", "cid": "c", "scp": ["s"],
        "roles": ["r"], "nothing": null,
    });
    let token = attempt_with(&claims).outcome().token.unwrap();
    let claim = |name| token.claims().claim::<Value>(name);
    for name in ["azp", "appid", "cid", "scp", "roles"] {
        assert_eq!(claim(name).as_ref(), Some(&claims[name]), "{name}");
    }
    assert_eq!(token.claims().claim::<String>("nothing"), None);
    let joined = attempt_with(&json!({ "client_id": "app", "scp": "s t" }));
    let token = joined.outcome().token.unwrap();
    assert_eq!(
        token.claims().claim::<String>("scp").as_deref(),
        Some("s t")
    );
}

/// As a verifier of the application may read them. A token with two of one claim is rejected before.
#[test]
fn a_claim_that_decides_who_calls_occurs_once() {
    let read = |json: &str| serde_json::from_str::<Claims>(json);
    for name in ["sub", "client_id", "azp", "appid", "cid", "scope", "scp"] {
        let subject = if name == "sub" { "" } else { r#""sub":"s","# };
        assert!(read(&format!(r#"{{{subject}"{name}":"a"}}"#)).is_ok());
        let twice = format!(r#"{{{subject}"{name}":"a","{name}":"b"}}"#);
        assert!(read(&twice).is_err(), "{name}");
    }
    for other in ["[]", "null", r#""alice""#] {
        assert!(read(other).is_err(), "{other}");
    }
    let last = read(r#"{"sub":"s","department":"a","department":"b"}"#).unwrap();
    assert_eq!(last.claim("department"), Some("b".to_owned()));
}

const SECRET: &str = "a-person's-secret";

/// D21: the log names the claim and what was expected, and never the value.
#[test]
fn a_claim_that_cannot_be_read_is_named_in_the_log() {
    let string = "expected a string";
    let scopes = "expected a string or an array of strings";
    for (claim, value, expected) in [
        ("sub", json!(7_654_321), string),
        ("sub", json!([SECRET]), string),
        ("sub", json!({ SECRET: SECRET }), string),
        ("sub", json!(true), string),
        ("client_id", json!(7_654_321), string),
        ("azp", json!([SECRET]), string),
        ("appid", json!(false), string),
        ("cid", json!({ "x": SECRET }), string),
        ("scope", json!(7_654_321), scopes),
        ("scope", json!({ "x": SECRET }), scopes),
        ("scope", json!([SECRET, 7_654_321]), string),
        ("scp", json!([SECRET, null]), string),
        ("scp", json!([[SECRET]]), string),
    ] {
        let attempt = Attempt::but(|a| a.token_claims[claim] = value.clone());
        let (outcome, log) = logged(|| attempt.outcome());
        let name = format!("{claim}: {value}");
        outcome.assert_reason(&name, TokenError::Claims);
        let line = format!(
            r#"the claims of an access token cannot be read detail=claim "{claim}": {expected}"#
        );
        assert!(log.contains(&line), "{name}: {log}");
        assert!(
            !log.contains(SECRET) && !log.contains("7654321"),
            "{name}: {log}"
        );
    }
    let (outcome, log) = logged(|| attempt_with(&json!({ "scope": SECRET })).outcome());
    outcome.assert_reason("no subject and no client", TokenError::Claims);
    assert!(log.contains(r#"detail=claim "sub": missing"#), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

/// The claims that decide about a token are read before its signature is verified, so that anyone may have written
/// them.
#[test]
fn a_registered_claim_that_cannot_be_read_is_named_in_the_log() {
    for (claim, value, line) in [
        ("iss", json!([SECRET]), r#"claim "iss": expected a string"#),
        (
            "aud",
            json!({ "x": SECRET }),
            r#"claim "aud": expected a string or an array of strings"#,
        ),
        ("aud", json!([7]), r#"claim "aud": expected a string"#),
        ("exp", json!(SECRET), r#"claim "exp": expected f64"#),
        ("nbf", json!([SECRET]), r#"claim "nbf": expected f64"#),
        ("cnf", json!(SECRET), r#"claim "cnf": expected an object"#),
        (
            "cnf",
            json!({ "jkt": 7 }),
            r#"claim "cnf.jkt": expected a string"#,
        ),
    ] {
        let attempt = Attempt::but(|a| a.token_claims[claim] = value.clone());
        let (outcome, log) = logged(|| attempt.outcome());
        outcome.assert_reason(line, TokenError::Malformed);
        assert!(log.contains(line), "{line}: {log}");
        assert!(!log.contains(SECRET), "{line}: {log}");
    }
    // A duplicate within an unknown member: its name is the presenter's.
    let attempt = Attempt::good();
    let claims = attempt.token_claims.to_string();
    let claims = claims.replacen('{', &format!(r#"{{"{SECRET}":{{"a":1,"a":2}},"#), 1);
    let header = attempt.token_header.to_string();
    let attempt = Attempt::but(|a| {
        a.token = Some(common::ISSUER_KEY.sign_text(header, claims));
    });
    let (outcome, log) = logged(|| attempt.outcome());
    outcome.assert_reason("a duplicate", TokenError::Malformed);
    assert!(!log.contains(SECRET), "{log}");
}

/// The same for a type of the application, whatever it is made of.
#[test]
fn a_claim_of_the_applications_type_is_named_in_the_log() {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        Low,
        High,
    }
    #[derive(Deserialize)]
    struct Id(#[expect(dead_code, reason = "only read")] u64);
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Address {
        #[expect(dead_code, reason = "only read")]
        street: String,
    }
    #[expect(dead_code, reason = "only read")]
    #[derive(Deserialize)]
    struct OrderClaims {
        tenant: u64,
        level: Option<Level>,
        id: Option<Id>,
        address: Option<Address>,
        pair: Option<(u8, u8)>,
        at: Option<std::net::IpAddr>,
    }

    let tokens = jwt_verifier().with_claims::<OrderClaims>();
    let layer = DpopLayer::new(Verifier::new(rules(), tokens));
    for (line, change) in [
        (r#"claim "tenant": missing"#, json!({})),
        (
            r#"claim "tenant": expected u64"#,
            json!({ "tenant": SECRET }),
        ),
        (r#"claim "tenant": expected u64"#, json!({ "tenant": -1 })),
        (
            r#"claim "level": expected one of low, high"#,
            json!({ "tenant": 1, "level": SECRET }),
        ),
        (
            r#"claim "level": expected a string or an object"#,
            json!({ "tenant": 1, "level": 7 }),
        ),
        (
            r#"claim "level": expected one of low, high"#,
            json!({ "tenant": 1, "level": { SECRET: SECRET } }),
        ),
        (
            r#"claim "address.zip": not a member of the claims type"#,
            json!({ "tenant": 1, "address": { "street": "A", "zip": SECRET } }),
        ),
        (
            r#"claim "id": expected u64"#,
            json!({ "tenant": 1, "id": SECRET }),
        ),
        (
            r#"claim "address.street": missing"#,
            json!({ "tenant": 1, "address": {} }),
        ),
        (
            r#"claim "address.street": expected a string"#,
            json!({ "tenant": 1, "address": { "street": 1 } }),
        ),
        (
            r#"claim "pair": expected u8"#,
            json!({ "tenant": 1, "pair": [1, SECRET] }),
        ),
        (
            r#"claim "pair": expected a tuple of size 2"#,
            json!({ "tenant": 1, "pair": [1] }),
        ),
        (
            r#"claim "at": rejected by the claims type"#,
            json!({ "tenant": 1, "at": SECRET }),
        ),
    ] {
        let attempt = Attempt::but(|a| {
            let claims = a.token_claims.as_object_mut().unwrap();
            claims.extend(change.as_object().unwrap().clone());
        });
        let (outcome, log) = logged(|| attempt.outcome_by(&layer));
        outcome.assert_reason(line, TokenError::Claims);
        assert!(log.contains(&format!("detail={line}")), "{line}: {log}");
        assert!(!log.contains(SECRET), "{line}: {log}");
    }
    let good = Attempt::but(|a| {
        a.token_claims["tenant"] = json!(1);
        a.token_claims["level"] = json!("high");
        a.token_claims["pair"] = json!([1, 2]);
    });
    let (outcome, log) = logged(|| good.outcome_by(&layer));
    assert_eq!(outcome.rejection, None);
    assert!(!log.contains("cannot be read"), "{log}");
}

/// The reason of the application's type may quote the value.
#[test]
fn claims_that_are_rejected_as_a_whole_are_not_in_the_log() {
    #[derive(Deserialize)]
    #[serde(try_from = "Value")]
    struct Checked;

    impl TryFrom<Value> for Checked {
        type Error = String;

        fn try_from(claims: Value) -> Result<Self, String> {
            match &claims["tenant"] {
                Value::Null => Ok(Self),
                tenant => Err(format!("no tenant {tenant}")),
            }
        }
    }

    let tokens = jwt_verifier().with_claims::<Checked>();
    let layer = DpopLayer::new(Verifier::new(rules(), tokens));
    assert_eq!(Attempt::good().outcome_by(&layer).rejection, None);
    let attempt = Attempt::but(|a| a.token_claims["tenant"] = json!(SECRET));
    let (outcome, log) = logged(|| attempt.outcome_by(&layer));
    outcome.assert_reason("as a whole", TokenError::Claims);
    assert!(log.contains("detail=rejected by the claims type"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn claims_are_not_shown() {
    let token = Attempt::good().outcome().token.unwrap();
    let claims: &Claims = token.claims();
    assert_eq!(format!("{claims:?}"), "Claims(..)");
}
