//! `iss` selects the verifier.

use std::sync::Arc;

use serde_json::{Value, json};
use tower_dpop::resource::BindingError;
use tower_dpop::testing::TestIssuer;
use tower_dpop::tokens::{AccessTokenVerifier as _, TokenError};
use tower_dpop::{Claims, DpopLayer, Issuers, JwtVerifier, ProofRules, Verifier};

use super::{
    MakeToken, NO_CALLS, OPAQUE_VERIFIER, OUR_ISSUER, OUR_KEYS, OpaqueVerifier, PARTNER_AUDIENCE,
    PARTNER_ISSUER, PARTNER_KEYS, Row, TwoIssuers, assert_rows, verify,
};
use common::{
    AUDIENCE, Attempt, AttemptExt as _, Key, KeyExt as _, NOW, TestClock, at, jwt_verifier,
};

/// R-AT.2: `iss` selects the verifier, and each issuer has its own audience, algorithms and rule
/// for `typ`.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_token_is_verified_by_the_rules_of_the_issuer_that_it_names() {
    let rows: [Row; 14] = [
        ("ours", |w| w.our_token().to_text(), Ok(()), OUR_KEYS),
        (
            "the partner's",
            |w| w.partners_token().to_text(),
            Ok(()),
            PARTNER_KEYS,
        ),
        (
            "ours, for the partner's audience",
            |w| {
                let token = w.our_token();
                token.with_claim("aud", PARTNER_AUDIENCE).to_text()
            },
            Err(TokenError::Audience),
            NO_CALLS,
        ),
        (
            "the partner's, for our audience",
            |w| w.partners_token().with_claim("aud", AUDIENCE).to_text(),
            Err(TokenError::Audience),
            NO_CALLS,
        ),
        (
            "ours, for both audiences",
            |w| {
                let both = [PARTNER_AUDIENCE, AUDIENCE];
                w.our_token().with_claim("aud", both).to_text()
            },
            Ok(()),
            OUR_KEYS,
        ),
        (
            "ours, with typ JWT",
            |w| w.our_token().with_header("typ", "JWT").to_text(),
            Err(TokenError::Type),
            NO_CALLS,
        ),
        (
            "the partner's, with typ JWT",
            |w| w.partners_token().with_header("typ", "JWT").to_text(),
            Ok(()),
            PARTNER_KEYS,
        ),
        (
            "ours, with an algorithm that only the partner's issuer allows",
            |w| {
                let key = Key::ed25519("Ed25519");
                let token = w.our_token().with_header("alg", "Ed25519");
                token.signed_by(key).to_text()
            },
            Err(TokenError::Algorithm),
            NO_CALLS,
        ),
        (
            "the partner's, with an algorithm that our issuer does not allow",
            |w| {
                let partners = w.partners.clone();
                let key = Key::ed25519("Ed25519");
                let token = partners.token_for(key.thumbprint());
                let token = token.with_header("alg", "Ed25519").with_header("kid", "2");
                token.signed_by(key).to_text()
            },
            Err(TokenError::Signature),
            PARTNER_KEYS,
        ),
        (
            "ours, with the partner's signature",
            |w| w.our_token().signed_by(w.partners_key.clone()).to_text(),
            Err(TokenError::Signature),
            OUR_KEYS,
        ),
        (
            "the partner's, with our signature",
            |w| w.partners_token().signed_by(w.our_key.clone()).to_text(),
            Err(TokenError::Signature),
            PARTNER_KEYS,
        ),
        (
            "the partner's, with our iss and audience",
            |w| {
                let token = w.partners_token().with_claim("aud", AUDIENCE);
                token.with_claim("iss", OUR_ISSUER).to_text()
            },
            Err(TokenError::Signature),
            OUR_KEYS,
        ),
        (
            "ours, with a kid of the partner's",
            |w| w.our_token().with_header("kid", "2").to_text(),
            Err(TokenError::Key),
            OUR_KEYS,
        ),
        (
            "ours, with JSON escapes in iss",
            |w| {
                w.signed(&format!(
                    r#"{{"iss":"https:\/\/as.ex\u0061mple.com","aud":"{AUDIENCE}","exp":{}}}"#,
                    NOW + 1
                ))
            },
            Ok(()),
            OUR_KEYS,
        ),
    ];
    assert_rows(&rows, TwoIssuers::issuers);
}

/// The same for a token that names no issuer, or several.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_token_of_an_unknown_issuer_is_rejected_before_keys_are_fetched() {
    let rows: [Row; 24] = [
        (
            "another issuer",
            |w| {
                let token = w.our_token().with_claim("iss", "https://evil.example.com");
                token.to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "a trailing slash",
            |w| {
                w.our_token()
                    .with_claim("iss", format!("{OUR_ISSUER}/"))
                    .to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "in another case",
            |w| {
                let token = w.our_token().with_claim("iss", "https://AS.example.com");
                token.to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "a longer name",
            |w| {
                let token = w
                    .our_token()
                    .with_claim("iss", format!("{OUR_ISSUER}.evil.example"));
                token.to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "leading white space",
            |w| {
                w.our_token()
                    .with_claim("iss", format!(" {OUR_ISSUER}"))
                    .to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "an empty name",
            |w| w.our_token().with_claim("iss", "").to_text(),
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "no issuer",
            |w| w.our_token().without_claim("iss").to_text(),
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "iss in the header",
            |w| {
                let token = w.our_token().without_claim("iss");
                token.with_header("iss", OUR_ISSUER).to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "a nested iss",
            |w| {
                let token = w.our_token().without_claim("iss");
                token
                    .with_claim("x", json!({ "iss": OUR_ISSUER }))
                    .to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "Iss",
            |w| {
                let token = w.our_token().without_claim("iss");
                token.with_claim("Iss", OUR_ISSUER).to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "a number",
            |w| w.our_token().with_claim("iss", 1).to_text(),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "null",
            |w| w.our_token().with_claim("iss", Value::Null).to_text(),
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "an array",
            |w| w.our_token().with_claim("iss", [OUR_ISSUER]).to_text(),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "an object",
            |w| {
                w.our_token()
                    .with_claim("iss", json!({ "a": OUR_ISSUER }))
                    .to_text()
            },
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "ours and then another",
            |w| {
                w.signed(&format!(
                    r#"{{"iss":"{OUR_ISSUER}","iss":"{PARTNER_ISSUER}"}}"#
                ))
            },
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "another and then ours",
            |w| {
                w.signed(&format!(
                    r#"{{"iss":"{PARTNER_ISSUER}","iss":"{OUR_ISSUER}"}}"#
                ))
            },
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "ours twice",
            |w| w.signed(&format!(r#"{{"iss":"{OUR_ISSUER}","iss":"{OUR_ISSUER}"}}"#)),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "ours twice, once in escapes",
            |w| {
                w.signed(&format!(
                    r#"{{"iss":"{OUR_ISSUER}","\u0069ss":"{OUR_ISSUER}"}}"#
                ))
            },
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "another member twice",
            |w| w.signed(&format!(r#"{{"iss":"{OUR_ISSUER}","x":1,"x":1}}"#)),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "claims that are not an object",
            |w| w.signed(&format!(r#"["iss","{OUR_ISSUER}"]"#)),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "claims that are not JSON",
            |w| w.signed(OUR_ISSUER),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "empty claims",
            |w| w.signed(""),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "not a JWT",
            |_| "opaque".into(),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
        (
            "ours, expired",
            |w| w.our_token().with_claim("exp", NOW - 30).to_text(),
            Err(TokenError::Expired),
            NO_CALLS,
        ),
    ];
    assert_rows(&rows, TwoIssuers::issuers);
    // A verifier of opaque tokens changes this only for the token that is not a JWT.
    let rows: Vec<Row> = rows
        .into_iter()
        .filter(|(name, ..)| *name != "not a JWT")
        .collect();
    assert_rows(&rows, |w| w.issuers().with_opaque_tokens(w.opaque()));
}

#[test]
fn a_verifier_is_used_for_every_issuer_that_it_names() {
    let of = |setup: &TwoIssuers, issuers| OpaqueVerifier {
        issuers,
        ..setup.opaque()
    };
    let ours: MakeToken = |w| w.our_token().to_text();
    let partners: MakeToken = |w| w.partners_token().to_text();
    let unknown = || Err(TokenError::Issuer);

    let both: [Row; 2] = [
        (
            "ours, by a verifier of two issuers",
            ours,
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "the partner's, by a verifier of two issuers",
            partners,
            Ok(()),
            OPAQUE_VERIFIER,
        ),
    ];
    assert_rows(&both, |w| {
        Issuers::new().add_issuer(of(w, &[OUR_ISSUER, PARTNER_ISSUER]))
    });

    let none: [Row; 3] = [
        (
            "ours, by a verifier without issuers",
            ours,
            unknown(),
            NO_CALLS,
        ),
        (
            "the partner's, by a verifier without issuers",
            partners,
            unknown(),
            NO_CALLS,
        ),
        (
            "an empty iss, by a verifier without issuers",
            |w| w.our_token().with_claim("iss", "").to_text(),
            unknown(),
            NO_CALLS,
        ),
    ];
    assert_rows(&none, |w| Issuers::new().add_issuer(of(w, &[])));

    let replaced: [Row; 2] = [
        ("ours, by the verifier added later", ours, Ok(()), OUR_KEYS),
        (
            "the partner's, by the verifier added first",
            partners,
            Ok(()),
            OPAQUE_VERIFIER,
        ),
    ];
    assert_rows(&replaced, |w| {
        Issuers::new()
            .add_issuer(of(w, &[OUR_ISSUER, PARTNER_ISSUER]))
            .add_issuer(w.our_verifier())
    });

    let nested: [Row; 2] = [
        ("ours, by nested Issuers", ours, Ok(()), OUR_KEYS),
        (
            "the partner's, by nested Issuers",
            partners,
            Ok(()),
            PARTNER_KEYS,
        ),
    ];
    assert_rows(&nested, |w| Issuers::new().add_issuer(w.issuers()));
    let setup = TwoIssuers::new();
    let tokens = Issuers::new().add_issuer(setup.issuers());
    assert_eq!(tokens.issuers(), [OUR_ISSUER, PARTNER_ISSUER]);
}

/// The others are not asked, even if they would accept the token.
#[test]
fn only_the_last_verifier_of_an_issuer_is_used() {
    let setup = TwoIssuers::new();
    let first = JwtVerifier::new(OUR_ISSUER, "first", setup.keys(&setup.ours, 1)).with_claims();
    let tokens: Issuers<Value> = Issuers::new()
        .add_issuer(first)
        .add_issuer(setup.our_verifier());
    assert_eq!(tokens.issuers(), [OUR_ISSUER]);
    let for_the_first = setup.our_token().with_claim("aud", "first").to_text();
    let rejected = verify(&tokens, &for_the_first).map(drop);
    assert_eq!(rejected, Err(TokenError::Audience));
    let token = setup.our_token().to_text();
    assert_eq!(verify(&tokens, &token).map(drop), Ok(()));
    assert_eq!(setup.calls(), OUR_KEYS);

    let other = OpaqueVerifier {
        calls: Arc::clone(&setup.calls[1]),
        issuers: &["https://first.example.com"],
    };
    let tokens = tokens
        .with_opaque_tokens(other)
        .with_opaque_tokens(setup.opaque());
    assert_eq!(verify(&tokens, "opaque").map(drop), Ok(()));
    assert_eq!(setup.calls(), [1, 0, 1]);
    assert_eq!(tokens.issuers(), [OUR_ISSUER, "https://opaque.example.com"]);
}

/// A token that is cached in one of them is unknown to another.
#[test]
fn lists_of_issuers_share_no_cached_tokens() {
    let setup = TwoIssuers::new();
    let tokens = setup.issuers();
    let (ours, partners) = (
        setup.our_token().to_text(),
        setup.partners_token().to_text(),
    );
    for _ in 0..3 {
        assert_eq!(verify(&tokens, &ours).map(drop), Ok(()));
        assert_eq!(verify(&tokens, &partners).map(drop), Ok(()));
    }
    let only_ours = Issuers::new().add_issuer(setup.our_verifier());
    assert_eq!(verify(&only_ours, &ours).map(drop), Ok(()));
    let rejected = verify(&only_ours, &partners).map(drop);
    assert_eq!(rejected, Err(TokenError::Issuer));
}

#[test]
fn without_issuers_every_token_is_rejected() {
    let setup = TwoIssuers::new();
    for tokens in [Issuers::<Value>::new(), Issuers::default()] {
        let token = setup.our_token().to_text();
        assert_eq!(verify(&tokens, &token).map(drop), Err(TokenError::Issuer));
        let rejected = verify(&tokens, "opaque").map(drop);
        assert_eq!(rejected, Err(TokenError::Malformed));
        assert_eq!(tokens.issuers(), [""; 0]);
        assert_eq!(format!("{tokens:?}"), "Issuers { issuers: [] }");
    }
}

/// Each issuer once, even if several verifiers name it.
#[test]
fn the_list_of_issuers_is_complete_and_sorted() {
    let setup = TwoIssuers::new();
    let tokens = Issuers::new()
        .add_issuer(setup.partners_verifier())
        .add_issuer(setup.our_verifier())
        .with_opaque_tokens(setup.opaque());
    let list = [OUR_ISSUER, PARTNER_ISSUER, "https://opaque.example.com"];
    assert_eq!(tokens.issuers(), list);
    let shown = format!("Issuers {{ issuers: {list:?} }}");
    assert_eq!(format!("{tokens:?}"), shown, "only the names");
    let same = OpaqueVerifier {
        issuers: &[OUR_ISSUER],
        ..setup.opaque()
    };
    let tokens = tokens.with_opaque_tokens(same);
    assert_eq!(tokens.issuers(), [OUR_ISSUER, PARTNER_ISSUER]);
}

/// R-4.3.12b: in the layer, a token of either issuer needs a proof by the key that it is bound to,
/// and the application can read its issuer.
#[test]
fn the_tokens_of_each_issuer_are_bound_to_their_keys() {
    let partners_key = Key::es256();
    let partners = TestIssuer::new(PARTNER_ISSUER, PARTNER_AUDIENCE)
        .with_key("1", partners_key)
        .with_clock(TestClock::at(NOW));
    let tokens: Issuers<Claims> = Issuers::new()
        .add_issuer(jwt_verifier())
        .add_issuer(partners.jwt_verifier());
    let layer = DpopLayer::new(Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW)),
        tokens,
    ));
    let mut subjects = Vec::new();
    for (name, token) in [
        ("ours", None),
        (
            "the partner's",
            Some(
                partners
                    .token_for(Attempt::good().key.thumbprint())
                    .to_text(),
            ),
        ),
    ] {
        let mut attempt = Attempt::good();
        attempt.token.clone_from(&token);
        let outcome = attempt.outcome_by(&layer);
        outcome.assert_passed(name);
        let claims = outcome.token.as_ref().unwrap().claims().clone();
        subjects.push((
            claims.claim::<String>("iss").unwrap(),
            claims.subject().unwrap().to_owned(),
        ));

        let mut stolen = Attempt::with_key(Key::es256());
        stolen.token = Some(token.unwrap_or_else(|| attempt.token()));
        stolen
            .outcome_by(&layer)
            .assert_reason(name, BindingError::OtherKey);
    }
    assert_eq!(
        subjects,
        [
            (OUR_ISSUER.into(), "alice".into()),
            (PARTNER_ISSUER.into(), "alice".into())
        ]
    );
}
