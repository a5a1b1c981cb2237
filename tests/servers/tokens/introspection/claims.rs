//! What a token must say, and what the claims are (`src/tokens/introspection/claims.rs`).

use super::*;

/// R-6.1, R-6.2, R-6.2.1, R-6.2.2, R-6.2.4, R-AT.2, R-AT.3, R-AT.5, R-AT.6, R-AT.9, F-12 to F-15,
/// D16: each row is a good answer with one change, before the whole layer.
#[test]
fn judges_each_answer_by_the_rules() {
    let server = Server::with_basic();
    block_on(async {
        for (name, change, expected) in rows() {
            let before = server.questions();
            server.answers(&but(change));
            let layer = layer(server.verifier().with_issuer(ISSUER));
            let outcome = ask(&layer, TOKEN).await;
            server.assert_no_complaints(name);
            assert_eq!(server.questions(), before + 1, "{name}");
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

/// Some servers answer a token of a kind that they do not introspect with an error. That is a word
/// about the token; every other error is one about the question.
#[test]
fn a_token_of_another_type_is_not_valid() {
    let server = Server::with_basic();
    let rows = [
        (400, r#"{"error":"unsupported_token_type"}"#, true),
        (401, r#"{"error":"unsupported_token_type"}"#, false),
        (500, r#"{"error":"unsupported_token_type"}"#, false),
        (400, r#"{"error":"invalid_request"}"#, false),
        (400, r#"{"error":["unsupported_token_type"]}"#, false),
        (
            400,
            r#"{"error_description":"unsupported_token_type"}"#,
            false,
        ),
        (400, "unsupported_token_type", false),
    ];
    block_on(async {
        for (status, body, is_about_the_token) in rows {
            let name = format!("{status} {body}");
            server.replies(StatusCode::from_u16(status).unwrap(), body);
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            if is_about_the_token {
                outcome.assert_reason(&name, Rejection::Token(TokenError::Invalid));
            } else {
                outcome.assert_unavailable(&name);
            }
        }
    });
}

#[test]
fn several_audiences_or_none() {
    let server = Server::with_basic();
    block_on(async {
        let added = layer(server.verifier().add_audience("urn:orders"));
        let optional = layer(server.verifier().with_optional_audience());
        let rows: [(&str, Change, Option<TokenError>, Option<TokenError>); 4] = [
            ("the first", |_| {}, None, None),
            (
                "the second",
                |a| a["aud"] = json!("urn:orders"),
                None,
                Some(TokenError::Audience),
            ),
            (
                "none",
                |a| remove(a, "aud"),
                Some(TokenError::Audience),
                None,
            ),
            (
                "an empty array",
                |a| a["aud"] = json!([]),
                Some(TokenError::Audience),
                Some(TokenError::Audience),
            ),
        ];
        for (token, (name, change, with_added, with_optional)) in
            ["a", "b", "c", "d"].into_iter().zip(rows)
        {
            server.answers(&but(change));
            for (rule, layer, rejected) in [
                ("added", &added, with_added),
                ("optional", &optional, with_optional),
            ] {
                let outcome = ask(layer, token).await;
                let rejected = rejected.map(Rejection::Token);
                assert_eq!(outcome.kit.rejection, rejected, "{name}, {rule}");
            }
        }
    });
}

#[test]
fn the_issuer_is_named_where_it_is_known() {
    let server = Server::with_basic();
    assert_eq!(server.verifier().issuers(), [""; 0]);
    assert_eq!(server.verifier().with_issuer(ISSUER).issuers(), [ISSUER]);
    block_on(async {
        server.answers(&but(|a| a["iss"] = json!("https://other.example.com")));
        ask(&layer(server.verifier()), TOKEN)
            .await
            .assert_passed("any issuer that the server answers for");
    });
}

#[test]
fn the_claims_are_those_of_the_answer() {
    let server = Server::with_basic();
    block_on(async {
        let layer = layer(server.verifier());
        let token = ask(&layer, "full").await.token.unwrap();
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

        let cnf = good()["cnf"].clone();
        server.answers(&json!({ "active": true, "aud": AUDIENCE, "cnf": cnf }));
        let token = ask(&layer, "bare").await.token.unwrap();
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
fn the_claims_can_be_of_ones_own_type() {
    #[derive(Deserialize)]
    struct Tenant {
        tenant: u32,
    }

    let server = Server::with_basic();
    let layer = layer(server.verifier().with_claims::<Tenant>());
    block_on(async {
        let token = ask(&layer, "a").await.token.unwrap();
        assert_eq!(token.claims().tenant, 7);
        for (token, change) in [
            ("b", (|a| remove(a, "tenant")) as Change),
            ("c", |a| a["tenant"] = json!("seven")),
        ] {
            server.answers(&but(change));
            ask(&layer, token)
                .await
                .assert_reason(token, TokenError::Claims);
        }
    });
}
