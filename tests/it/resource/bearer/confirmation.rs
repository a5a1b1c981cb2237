//! Bound and unbound tokens under the Bearer scheme: the `cnf` decides.

use std::convert::Infallible;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, block_on, verifier};
use http::{Request, Response};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{BearerError, BindingError};
use tower_dpop::tokens::{Confirmation, TokenError};
use tower_dpop::{AcceptedToken, BearerToken, Claims, DpopLayer, Timestamp};

use super::{
    Change, FoundToken, allowing_bearer, allowing_unchecked_cnf, bearer_attempt, outcome_by,
    passed_with, rejected_as_bearer, rejected_as_dpop, remove_cnf,
};
use crate::credentials::set_authorization;
use crate::resource::challenge::ALGS;

/// R-7.2.1, F-10: otherwise a thief could use the token without a proof. It is rejected even with a valid proof.
#[test]
fn rejects_a_bound_token_under_the_bearer_scheme() {
    let rows: [(&str, Change); 8] = [
        ("F-10: with a valid proof", |_| {}),
        ("F-10: without a proof", |a| a.dpop = Some(vec![])),
        ("F-10: with a malformed proof", |a| {
            a.dpop = Some(vec!["garbage".parse().unwrap()]);
        }),
        ("F-10: with a proof by another key", |a| {
            a.key = Key::es256();
            a.proof_header["jwk"] = a.key.public_jwk();
        }),
        ("F-10: in lower case", |a| {
            set_authorization(a, &["bearer TOKEN"]);
        }),
        ("F-10: in upper case", |a| {
            set_authorization(a, &["BEARER TOKEN"]);
        }),
        ("F-10: after two spaces", |a| {
            set_authorization(a, &["Bearer  TOKEN"]);
        }),
        ("F-14: bound to a certificate as well", |a| {
            a.token_claims["cnf"]["x5t#S256"] = json!("A".repeat(43));
        }),
    ];
    for (mode, layer) in [
        ("allow_bearer", allowing_bearer()),
        ("allow_insecure_unchecked_cnf", allowing_unchecked_cnf()),
    ] {
        for (name, change) in &rows {
            let mut attempt = Attempt::but(change);
            if attempt.authorization.is_none() {
                set_authorization(&mut attempt, &["Bearer TOKEN"]);
            }
            let outcome = outcome_by(&layer, attempt.request());
            let expected = rejected_as_bearer(BearerError::Bound);
            assert_eq!(outcome, expected, "R-7.2.1: {name}, {mode}");
        }
        // The proof was not recorded as used: under the DPoP scheme, the same request is accepted.
        let attempt = Attempt::good();
        let mut downgraded = attempt.clone();
        set_authorization(&mut downgraded, &["Bearer TOKEN"]);
        let outcome = outcome_by(&layer, downgraded.request());
        assert_eq!(outcome, rejected_as_bearer(BearerError::Bound), "{mode}");
        let outcome = outcome_by(&layer, attempt.request());
        assert_eq!(outcome, passed_with(FoundToken::Bound), "{mode}");
    }
    let expected = r#"Bearer error="invalid_token", error_description="the access token is bound to a key and needs a DPoP proof""#;
    let outcome = rejected_as_bearer(BearerError::Bound);
    assert_eq!(
        outcome.challenges,
        [expected.to_owned(), format!("DPoP {ALGS}")]
    );
}

/// F-11: the `DPoP` field is ignored, because some clients attach a proof to every request.
#[test]
fn accepts_an_unbound_token_as_a_bearer_token_only() {
    let rows: [(&str, Change); 8] = [
        ("F-11: without a proof", |_| {}),
        ("F-11: with a malformed proof", |a| {
            a.dpop = Some(vec!["garbage".parse().unwrap()]);
        }),
        ("F-11: with a valid proof", |a| {
            a.dpop = None;
        }),
        ("F-11: with two proofs", |a| {
            a.dpop = Some(vec!["a.b.c".parse().unwrap(), "a.b.c".parse().unwrap()]);
        }),
        ("in lower case", |a| set_authorization(a, &["bearer TOKEN"])),
        ("in mixed case", |a| set_authorization(a, &["bEaReR TOKEN"])),
        ("after two spaces", |a| {
            set_authorization(a, &["Bearer  TOKEN"]);
        }),
        ("with a query", |a| a.uri = "/orders?page=2".into()),
    ];
    for layer in [allowing_bearer(), allowing_unchecked_cnf()] {
        for (name, change) in &rows {
            let request = bearer_attempt(change).request();
            for time in ["once", "twice"] {
                let outcome = outcome_by(&layer, request.clone());
                assert_eq!(outcome, passed_with(FoundToken::Bearer), "{name}, {time}");
            }
        }
        let outcome = outcome_by(&layer, Attempt::good().request());
        assert_eq!(outcome, passed_with(FoundToken::Bound), "R-7.1: under DPoP");
    }
}

/// F-12: even with a valid proof.
#[test]
fn rejects_an_unbound_token_under_the_dpop_scheme() {
    for layer in [allowing_bearer(), allowing_unchecked_cnf()] {
        let outcome = outcome_by(&layer, Attempt::but(remove_cnf).request());
        let expected = rejected_as_dpop("invalid_token", BindingError::Unbound);
        assert_eq!(outcome, expected, "F-12: with a proof");
        let without_proof = Attempt::but(|a| {
            remove_cnf(a);
            a.dpop = Some(vec![]);
        });
        let outcome = outcome_by(&layer, without_proof.request());
        let expected = rejected_as_dpop("invalid_dpop_proof", ProofError::Missing);
        assert_eq!(outcome, expected, "F-12: without a proof");
    }
}

/// F-13: a binding other than `jkt` cannot be confirmed here, so these tokens are rejected unless another layer
/// confirms them. F-14, F-15: a token whose `cnf` contains a `jkt`, valid or not, is never accepted.
#[test]
fn the_cnf_decides_under_the_bearer_scheme() {
    enum Expected {
        Accepted,
        /// Accepted by `allow_insecure_unchecked_cnf` only.
        Unchecked,
        Bound,
        Malformed,
    }
    use Expected::{Accepted, Bound, Malformed, Unchecked};
    let jkt = Attempt::good().key.jkt();
    let x5t = "A".repeat(43);
    let rows = [
        ("F-13: x5t#S256", json!({ "x5t#S256": x5t }), Unchecked),
        ("F-13: jwk", json!({ "jwk": { "kty": "oct" } }), Unchecked),
        ("F-13: kid", json!({ "kid": "1" }), Unchecked),
        ("F-13: an unknown member", json!({ "new": 1 }), Unchecked),
        ("F-13: an empty object", json!({}), Unchecked),
        ("F-13: in upper case", json!({ "JKT": jkt }), Unchecked),
        (
            "F-14: x5t#S256 and jkt",
            json!({ "x5t#S256": x5t, "jkt": jkt }),
            Bound,
        ),
        ("F-10: jkt", json!({ "jkt": jkt }), Bound),
        (
            "F-10: jkt of another key",
            json!({ "jkt": Key::es256().jkt() }),
            Bound,
        ),
        ("F-11: null", json!(null), Accepted),
        ("F-15: a string", json!(jkt), Malformed),
        ("F-15: false", json!(false), Malformed),
        ("F-15: an array", json!([]), Malformed),
        ("F-15: an array with jkt", json!([jkt]), Malformed),
        ("F-13: jkt is null", json!({ "jkt": null }), Unchecked),
        ("F-15: jkt is empty", json!({ "jkt": "" }), Malformed),
        ("F-15: jkt is a number", json!({ "jkt": 1 }), Malformed),
        ("F-15: jkt is an array", json!({ "jkt": [jkt] }), Malformed),
        (
            "F-15: jkt is too short",
            json!({ "jkt": &jkt[1..] }),
            Malformed,
        ),
        (
            "F-15: jkt is too long",
            json!({ "jkt": format!("{jkt}A") }),
            Malformed,
        ),
        (
            "F-15: jkt is padded",
            json!({ "jkt": format!("{jkt}=") }),
            Malformed,
        ),
        (
            "F-15: an invalid jkt next to x5t#S256",
            json!({ "x5t#S256": x5t, "jkt": "x" }),
            Malformed,
        ),
    ];
    let mut rows: Vec<_> = rows
        .map(|(name, cnf, expected)| {
            (
                name,
                bearer_attempt(|a| a.token_claims["cnf"] = cnf),
                expected,
            )
        })
        .into();
    rows.push(("F-11: no cnf", bearer_attempt(|_| {}), Accepted));
    for (name, attempt, expected) in rows {
        let unconfirmable = rejected_as_bearer(BearerError::Unconfirmable);
        let malformed = || rejected_as_bearer(BearerError::Token(TokenError::Malformed));
        let bound = || rejected_as_bearer(BearerError::Bound);
        let (by_default, unchecked_cnf) = match expected {
            Accepted => (
                passed_with(FoundToken::Bearer),
                passed_with(FoundToken::Bearer),
            ),
            Unchecked => (unconfirmable, passed_with(FoundToken::Bearer)),
            Bound => (bound(), bound()),
            Malformed => (malformed(), malformed()),
        };
        let request = attempt.request();
        assert_eq!(
            outcome_by(&allowing_bearer(), request.clone()),
            by_default,
            "{name}"
        );
        assert_eq!(
            outcome_by(&allowing_unchecked_cnf(), request),
            unchecked_cnf,
            "{name}, allow_insecure_unchecked_cnf"
        );
    }
}

#[test]
fn the_last_configured_bearer_mode_applies() {
    let layer = DpopLayer::new(verifier().allow_insecure_unchecked_cnf().allow_bearer());
    let attempt = bearer_attempt(|a| a.token_claims["cnf"] = json!({ "x5t#S256": "A".repeat(43) }));
    assert_eq!(
        outcome_by(&layer, attempt.request()),
        rejected_as_bearer(BearerError::Unconfirmable)
    );
}

#[test]
fn the_service_can_read_the_confirmation() {
    let confirmation_of = |layer: DpopLayer, attempt: Attempt| {
        let service = layer.layer(service_fn(async |request: Request<String>| {
            let token: &BearerToken<Claims> = request.extensions().get().unwrap();
            assert_eq!(token.claims().subject(), Some("alice"));
            assert_eq!(token.expires(), Some(Timestamp::from_unix(NOW + 600)));
            let shown = format!("{token:?} {:?}", AcceptedToken::Bearer(token.clone()));
            assert!(!shown.contains("alice"), "{shown}");
            Ok::<_, Infallible>(Response::new(Some(token.confirmation())))
        }));
        let response = block_on(service.oneshot(attempt.request())).unwrap();
        response.into_body().unwrap()
    };
    let unbound = confirmation_of(allowing_bearer(), bearer_attempt(|_| {}));
    assert_eq!(unbound, Confirmation::Unbound);
    let certificate_bound =
        bearer_attempt(|a| a.token_claims["cnf"] = json!({ "x5t#S256": "A".repeat(43) }));
    let unconfirmable = confirmation_of(allowing_unchecked_cnf(), certificate_bound);
    assert_eq!(unconfirmable, Confirmation::Unconfirmable);
}
