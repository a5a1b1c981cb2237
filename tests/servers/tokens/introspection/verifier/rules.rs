//! Which introspection responses make a token valid.

use serde_json::json;
use tower_dpop::resource::{BindingError, Unavailable};
use tower_dpop::tokens::{
    AccessTokenVerifier as _, IntrospectedClaims, PresentedToken, TokenError,
};
use tower_dpop::{Issuers, Rejection, Timestamp};

use crate::tokens::introspection::{Change, Server, TOKEN, changed_response, layer, send};
use common::remove;
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, NOW, block_on};

/// A name, one change to a good response, and the result of the request.
type Row = (&'static str, Change, Result<(), Rejection>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    fn rejected(reason: impl Into<Rejection>) -> Result<(), Rejection> {
        Err(reason.into())
    }
    vec![
        ("a good token", |_| {}, Ok(())),
        (
            "R-6.2.4: inactive",
            |r| r["active"] = json!(false),
            rejected(TokenError::Invalid),
        ),
        (
            "R-6.2.4: inactive, and nothing else",
            |r| *r = json!({ "active": false }),
            rejected(TokenError::Invalid),
        ),
        (
            "R-6.2.4: inactive, with members that are malformed",
            |r| *r = json!({ "active": false, "cnf": null, "exp": "never" }),
            rejected(TokenError::Invalid),
        ),
        (
            "active as a string",
            |r| r["active"] = json!("true"),
            rejected(Unavailable::Token),
        ),
        (
            "active as a number",
            |r| r["active"] = json!(1),
            rejected(Unavailable::Token),
        ),
        (
            "active is null",
            |r| r["active"] = json!(null),
            rejected(Unavailable::Token),
        ),
        (
            "no active",
            |r| remove(r, "active"),
            rejected(Unavailable::Token),
        ),
        (
            "active in another case",
            |r| {
                remove(r, "active");
                r["Active"] = json!(true);
            },
            rejected(Unavailable::Token),
        ),
        (
            "R-AT.5: expired beyond the leeway",
            |r| r["exp"] = json!(NOW - 30),
            rejected(TokenError::Expired),
        ),
        (
            "R-AT.5: expired within the leeway",
            |r| r["exp"] = json!(NOW - 29),
            Ok(()),
        ),
        (
            "R-AT.5: exp with a fraction",
            |r| r["exp"] = json!(1_700_000_000.5),
            Ok(()),
        ),
        ("no exp", |r| remove(r, "exp"), Ok(())),
        (
            "R-AT.5: exp of another type",
            |r| r["exp"] = json!("never"),
            rejected(TokenError::Malformed),
        ),
        ("R-AT.5: exp is null", |r| r["exp"] = json!(null), Ok(())),
        (
            "R-AT.5: exp below the range of times",
            |r| r["exp"] = json!(-1e300),
            rejected(TokenError::Expired),
        ),
        (
            "R-AT.5: exp above the range of times",
            |r| r["exp"] = json!(1e300),
            Ok(()),
        ),
        (
            "not valid yet",
            |r| r["nbf"] = json!(NOW + 31),
            rejected(TokenError::NotYetValid),
        ),
        (
            "not valid yet within the leeway",
            |r| r["nbf"] = json!(NOW + 30),
            Ok(()),
        ),
        ("no nbf", |r| remove(r, "nbf"), Ok(())),
        (
            "nbf of another type",
            |r| r["nbf"] = json!([]),
            rejected(TokenError::Malformed),
        ),
        (
            "R-AT.2: another issuer",
            |r| r["iss"] = json!("https://evil.example.com"),
            rejected(TokenError::Issuer),
        ),
        (
            "R-AT.2: the issuer with a trailing slash",
            |r| r["iss"] = json!("https://as.example.com/"),
            rejected(TokenError::Issuer),
        ),
        (
            "R-AT.2: an array of issuers",
            |r| r["iss"] = json!([ISSUER]),
            rejected(TokenError::Malformed),
        ),
        ("no issuer", |r| remove(r, "iss"), Ok(())),
        (
            "R-AT.3: another audience",
            |r| r["aud"] = json!("https://other.example.com"),
            rejected(TokenError::Audience),
        ),
        (
            "R-AT.3: other audiences",
            |r| r["aud"] = json!(["a", "b"]),
            rejected(TokenError::Audience),
        ),
        (
            "R-AT.3: one of several audiences",
            |r| r["aud"] = json!(["a", AUDIENCE]),
            Ok(()),
        ),
        (
            "R-AT.3: aud is an empty array",
            |r| r["aud"] = json!([]),
            rejected(TokenError::Audience),
        ),
        (
            "R-AT.3: no audience",
            |r| remove(r, "aud"),
            rejected(TokenError::Audience),
        ),
        (
            "R-AT.3: aud is an object",
            |r| r["aud"] = json!({ "a": AUDIENCE }),
            rejected(TokenError::Malformed),
        ),
        (
            "R-AT.3: aud is null",
            |r| r["aud"] = json!(null),
            rejected(TokenError::Audience),
        ),
        (
            "R-6.2: bound to another key",
            |r| r["cnf"]["jkt"] = json!(common::base64url([7; 32])),
            rejected(BindingError::OtherKey),
        ),
        (
            "F-12: no cnf, token_type Bearer",
            |r| {
                remove(r, "cnf");
                r["token_type"] = json!("Bearer");
            },
            rejected(BindingError::Unbound),
        ),
        (
            "F-12: no cnf, no token_type",
            |r| {
                remove(r, "cnf");
                remove(r, "token_type");
            },
            rejected(BindingError::Unbound),
        ),
        (
            "F-12: no cnf, token_type N_A",
            |r| {
                remove(r, "cnf");
                r["token_type"] = json!("N_A");
            },
            rejected(TokenError::TokenType),
        ),
        (
            "R-6.2.2: no cnf, token_type DPoP",
            |r| remove(r, "cnf"),
            rejected(TokenError::TokenType),
        ),
        (
            "R-6.2.2: token_type Bearer",
            |r| r["token_type"] = json!("Bearer"),
            rejected(TokenError::TokenType),
        ),
        (
            "R-6.2.2: token_type N_A",
            |r| r["token_type"] = json!("N_A"),
            rejected(TokenError::TokenType),
        ),
        (
            "a refresh token, by token_use",
            |r| r["token_use"] = json!("refresh_token"),
            rejected(TokenError::TokenType),
        ),
        (
            "a token_use that is not a string",
            |r| r["token_use"] = json!(true),
            rejected(TokenError::Malformed),
        ),
        (
            "a refresh token, by token_type",
            |r| {
                remove(r, "cnf");
                r["token_type"] = json!("refresh_token");
            },
            rejected(TokenError::TokenType),
        ),
        (
            "R-6.2.2: an empty token_type",
            |r| r["token_type"] = json!(""),
            rejected(TokenError::TokenType),
        ),
        (
            "R-6.2.2: a token_type that is not a string",
            |r| r["token_type"] = json!(["DPoP"]),
            rejected(TokenError::Malformed),
        ),
        (
            "R-6.2.2: token_type dpop",
            |r| r["token_type"] = json!("dpop"),
            Ok(()),
        ),
        (
            "R-6.2.2: no token_type",
            |r| remove(r, "token_type"),
            Ok(()),
        ),
        (
            "F-13: cnf with a certificate",
            |r| {
                r["cnf"] = json!({ "x5t#S256": common::base64url([7; 32]) });
                r["token_type"] = json!("Bearer");
            },
            rejected(BindingError::Unconfirmable),
        ),
        (
            "F-13: cnf with a key",
            |r| {
                r["cnf"] = json!({ "jwk": {} });
                remove(r, "token_type");
            },
            rejected(BindingError::Unconfirmable),
        ),
        (
            "F-13: an empty cnf",
            |r| {
                r["cnf"] = json!({});
                remove(r, "token_type");
            },
            rejected(BindingError::Unconfirmable),
        ),
        (
            "R-6.2.2: cnf with a certificate, token_type DPoP",
            |r| r["cnf"] = json!({ "x5t#S256": common::base64url([7; 32]) }),
            rejected(TokenError::TokenType),
        ),
        (
            "F-14: cnf with the thumbprint and a certificate",
            |r| r["cnf"]["x5t#S256"] = json!(common::base64url([7; 32])),
            Ok(()),
        ),
        (
            "F-12: cnf is null, token_type DPoP",
            |r| r["cnf"] = json!(null),
            rejected(TokenError::TokenType),
        ),
        (
            "F-12: cnf is null, no token_type",
            |r| {
                r["cnf"] = json!(null);
                remove(r, "token_type");
            },
            rejected(BindingError::Unbound),
        ),
        (
            "F-15: cnf is the thumbprint",
            |r| r["cnf"] = r["cnf"]["jkt"].clone(),
            rejected(TokenError::Malformed),
        ),
        (
            "F-15: cnf is an array",
            |r| r["cnf"] = json!([r["cnf"]]),
            rejected(TokenError::Malformed),
        ),
        (
            "F-15: cnf is false",
            |r| r["cnf"] = json!(false),
            rejected(TokenError::Malformed),
        ),
        (
            "F-13: jkt is null",
            |r| {
                r["cnf"]["jkt"] = json!(null);
                remove(r, "token_type");
            },
            rejected(BindingError::Unconfirmable),
        ),
        (
            "the optional members are null",
            |r| {
                for member in [
                    "iss",
                    "nbf",
                    "token_type",
                    "token_use",
                    "scope",
                    "sub",
                    "username",
                ] {
                    r[member] = json!(null);
                }
            },
            Ok(()),
        ),
        (
            "F-15, R-6.1.1: jkt is padded",
            |r| r["cnf"]["jkt"] = json!(format!("{}=", r["cnf"]["jkt"].as_str().unwrap())),
            rejected(TokenError::Malformed),
        ),
        (
            "F-15, R-6.1.1: jkt is hexadecimal",
            |r| r["cnf"]["jkt"] = json!("07".repeat(32)),
            rejected(TokenError::Malformed),
        ),
        (
            "F-15: jkt is empty",
            |r| r["cnf"]["jkt"] = json!(""),
            rejected(TokenError::Malformed),
        ),
        (
            "R-6.2.1: jkt outside cnf",
            |r| {
                r["jkt"] = r["cnf"]["jkt"].clone();
                remove(r, "cnf");
                remove(r, "token_type");
            },
            rejected(BindingError::Unbound),
        ),
        (
            "R-6.2.1: cnf below the top level",
            |r| {
                r["ext"] = json!({ "cnf": r["cnf"] });
                remove(r, "cnf");
                remove(r, "token_type");
            },
            rejected(BindingError::Unbound),
        ),
        (
            "a scope that is an array",
            |r| r["scope"] = json!(["orders.read"]),
            Ok(()),
        ),
        (
            "a scope that is an array of numbers",
            |r| r["scope"] = json!([1]),
            rejected(TokenError::Claims),
        ),
        (
            "a subject that is a number",
            |r| r["sub"] = json!(1),
            rejected(TokenError::Claims),
        ),
        (
            "unknown members",
            |r| r["x"] = json!({ "y": [null, 1, { "active": false }] }),
            Ok(()),
        ),
        (
            "only the required members",
            |r| *r = json!({ "active": true, "aud": AUDIENCE, "cnf": r["cnf"] }),
            Ok(()),
        ),
    ]
}

/// R-AT.2, R-AT.3, R-AT.5, R-AT.6, R-AT.9, F-12 to F-15,
/// D16: each row changes one thing in a good response, and sends a request through the whole layer.
#[test]
fn checks_each_response_by_the_rules() {
    let server = Server::with_basic();
    block_on(async {
        for (name, change, expected) in rows() {
            let before = server.request_count();
            server.set_response(&changed_response(change));
            let layer = layer(server.verifier().with_issuer(ISSUER));
            let outcome = send(&layer, TOKEN).await;
            server.assert_no_errors(name);
            assert_eq!(server.request_count(), before + 1, "{name}");
            match expected {
                Ok(()) => outcome.assert_passed(name),
                Err(Rejection::Unavailable(_)) => outcome.assert_unavailable(name),
                Err(reason) => {
                    outcome.assert_reason(name, reason);
                    let error = outcome.kit.parameter("error");
                    assert_eq!(error, Some("invalid_token"), "R-AT.6: {name}");
                }
            }
        }
    });
}

#[test]
fn accepts_further_audiences_or_a_missing_one_if_configured() {
    let server = Server::with_basic();
    block_on(async {
        let added = layer(server.verifier().add_audience("urn:orders"));
        let optional = layer(server.verifier().with_optional_audience());
        let rows: [(&str, Change, Option<TokenError>, Option<TokenError>); 4] = [
            ("the first audience", |_| {}, None, None),
            (
                "the second audience",
                |r| r["aud"] = json!("urn:orders"),
                None,
                Some(TokenError::Audience),
            ),
            (
                "no audience",
                |r| remove(r, "aud"),
                Some(TokenError::Audience),
                None,
            ),
            (
                "an empty array",
                |r| r["aud"] = json!([]),
                Some(TokenError::Audience),
                Some(TokenError::Audience),
            ),
        ];
        for (token, (name, change, with_added, with_optional)) in
            ["a", "b", "c", "d"].into_iter().zip(rows)
        {
            server.set_response(&changed_response(change));
            for (rule, layer, rejected) in [
                ("an added audience", &added, with_added),
                ("an optional audience", &optional, with_optional),
            ] {
                let outcome = send(layer, token).await;
                let rejected = rejected.map(Rejection::Token);
                assert_eq!(outcome.kit.rejection, rejected, "{name}, {rule}");
            }
        }
    });
}

#[test]
fn names_the_issuer_if_one_is_configured() {
    let server = Server::with_basic();
    assert_eq!(server.verifier().issuers(), [""; 0]);
    assert_eq!(server.verifier().with_issuer(ISSUER).issuers(), [ISSUER]);
    block_on(async {
        server.set_response(&changed_response(|r| {
            r["iss"] = json!("https://other.example.com");
        }));
        send(&layer(server.verifier()), TOKEN)
            .await
            .assert_passed("without a configured issuer, any issuer");
    });
}

/// For JWTs that can be revoked: the endpoint is asked about the JWTs of its issuer, and of no
/// other.
#[test]
fn only_the_jwts_of_the_configured_issuer_are_introspected() {
    let server = Server::with_basic();
    let named: Issuers<IntrospectedClaims> =
        Issuers::new().add_issuer(server.verifier().with_issuer(ISSUER));
    assert_eq!(named.issuers(), [ISSUER]);
    let unnamed = Issuers::new().add_issuer(server.verifier());
    assert_eq!(unnamed.issuers(), [""; 0]);
    let jwt = Attempt::good().token();
    let of_another =
        Attempt::but(|a| a.token_claims["iss"] = json!("https://other.example.com")).token();
    let rows = [
        ("the configured issuer", &named, &jwt, Ok(()), 1),
        (
            "another issuer",
            &named,
            &of_another,
            Err(TokenError::Issuer),
            0,
        ),
        (
            "not a JWT",
            &named,
            &TOKEN.to_owned(),
            Err(TokenError::Malformed),
            0,
        ),
        (
            "no configured issuer",
            &unnamed,
            &jwt,
            Err(TokenError::Issuer),
            0,
        ),
    ];
    let verify = async |tokens: &Issuers<IntrospectedClaims>, token: &str| {
        let result = tokens.verify(PresentedToken::new(token), Timestamp::from_unix(NOW));
        result.await.map(drop)
    };
    block_on(async {
        for (name, tokens, token, expected, requests) in rows {
            let before = server.request_count();
            assert_eq!(verify(tokens, token).await, expected, "{name}");
            assert_eq!(server.request_count() - before, requests, "{name}");
        }
        let form = server.state.form.lock().unwrap().clone();
        assert!(
            form.contains(&("token".into(), jwt.clone())),
            "the whole JWT is sent"
        );
        server.set_response(&json!({ "active": false }));
        let revoked = Attempt::but(|a| a.token_claims["jti"] = json!("token-2")).token();
        assert_eq!(verify(&named, &revoked).await, Err(TokenError::Invalid));
    });
    server.assert_no_errors("JWTs");
}
