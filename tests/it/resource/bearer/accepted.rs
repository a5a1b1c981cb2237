//! Which bearer tokens are accepted, and as which type.

use super::*;

fn passed_with(found: Found) -> Outcome {
    Outcome {
        status: 200,
        challenges: Vec::new(),
        nonces: 0,
        retry_after: false,
        rejection: None,
        found: Some(found),
    }
}

fn allowing_others() -> DpopLayer {
    DpopLayer::new(verifier().allow_insecure_unchecked_cnf())
}

/// R-7.2.1, F-10: the downgrade. A valid proof beside it changes nothing.
#[test]
fn a_bound_token_is_never_a_bearer_token() {
    let rows: [(&str, Change); 8] = [
        ("F-10: beside a valid proof", |_| {}),
        ("F-10: without a proof", |a| a.dpop = Some(vec![])),
        ("F-10: beside garbage", |a| {
            a.dpop = Some(vec!["garbage".parse().unwrap()]);
        }),
        ("F-10: beside a thief's proof", |a| {
            a.key = Key::es256();
            a.proof_header["jwk"] = a.key.public_jwk();
        }),
        ("F-10: in lower case", |a| present(a, &["bearer TOKEN"])),
        ("F-10: in upper case", |a| present(a, &["BEARER TOKEN"])),
        ("F-10: behind two blanks", |a| {
            present(a, &["Bearer  TOKEN"]);
        }),
        ("F-14: bound to a certificate as well", |a| {
            a.token_claims["cnf"]["x5t#S256"] = json!("A".repeat(43));
        }),
    ];
    for (mode, layer) in [("unbound", allowing()), ("others too", allowing_others())] {
        for (name, change) in &rows {
            let mut attempt = Attempt::but(change);
            if attempt.authorization.is_none() {
                present(&mut attempt, &["Bearer TOKEN"]);
            }
            let outcome = outcome_by(&layer, attempt.request());
            let expected = rejected_as_bearer(BearerError::Bound);
            assert_eq!(outcome, expected, "R-7.2.1: {name}, {mode}");
        }
        // The same token and proof under the right scheme: nothing was spent on the way.
        let attempt = Attempt::good();
        let mut downgraded = attempt.clone();
        present(&mut downgraded, &["Bearer TOKEN"]);
        let outcome = outcome_by(&layer, downgraded.request());
        assert_eq!(outcome, rejected_as_bearer(BearerError::Bound), "{mode}");
        let outcome = outcome_by(&layer, attempt.request());
        assert_eq!(outcome, passed_with(Found::Bound), "{mode}");
    }
    let expected = r#"Bearer error="invalid_token", error_description="the access token is bound to a key and needs a DPoP proof""#;
    let outcome = rejected_as_bearer(BearerError::Bound);
    assert_eq!(
        outcome.challenges,
        [expected.to_owned(), format!("DPoP {ALGS}")]
    );
}

/// F-11: what else stands in a `DPoP` field is ignored; clients attach proofs blindly.
#[test]
fn an_unbound_token_passes_as_a_bearer_token_and_as_nothing_more() {
    let rows: [(&str, Change); 8] = [
        ("F-11: without a proof", |_| {}),
        ("F-11: beside garbage", |a| {
            a.dpop = Some(vec!["garbage".parse().unwrap()]);
        }),
        ("F-11: beside a proof that is good for it", |a| {
            a.dpop = None;
        }),
        ("F-11: beside two proofs", |a| {
            a.dpop = Some(vec!["a.b.c".parse().unwrap(), "a.b.c".parse().unwrap()]);
        }),
        ("in lower case", |a| present(a, &["bearer TOKEN"])),
        ("in mixed case", |a| present(a, &["bEaReR TOKEN"])),
        ("behind two blanks", |a| present(a, &["Bearer  TOKEN"])),
        ("with a query", |a| a.uri = "/orders?page=2".into()),
    ];
    for layer in [allowing(), allowing_others()] {
        for (name, change) in &rows {
            let request = bearer(change).request();
            for time in ["once", "twice"] {
                let outcome = outcome_by(&layer, request.clone());
                assert_eq!(outcome, passed_with(Found::Bearer), "{name}, {time}");
            }
        }
        let outcome = outcome_by(&layer, Attempt::good().request());
        assert_eq!(outcome, passed_with(Found::Bound), "R-7.1: under DPoP");
    }
}

/// Rejected, and told so in the DPoP challenge alone.
fn rejected_as_dpop(error: &str, rejection: impl Into<Rejection>) -> Outcome {
    let rejection = rejection.into();
    let told = format!(r#"DPoP error="{error}", error_description="{rejection}", {ALGS}"#);
    rejected(401, &["Bearer".to_owned(), told], rejection)
}

/// F-12: a token that is bound to nothing proves nothing, whatever stands beside it.
#[test]
fn an_unbound_token_does_not_pass_under_dpop() {
    for layer in [allowing(), allowing_others()] {
        let outcome = outcome_by(&layer, Attempt::but(unbind).request());
        let expected = rejected_as_dpop("invalid_token", BindingError::Unbound);
        assert_eq!(outcome, expected, "F-12: with a proof");
        let without_proof = Attempt::but(|a| {
            unbind(a);
            a.dpop = Some(vec![]);
        });
        let outcome = outcome_by(&layer, without_proof.request());
        let expected = rejected_as_dpop("invalid_dpop_proof", ProofError::Missing);
        assert_eq!(outcome, expected, "F-12: without");
    }
}

/// F-13: what we cannot confirm is not unbound, unless somebody else confirms it. F-14, F-15: what
/// names a key, well or badly, is never let through.
#[test]
fn every_confirmation_under_the_bearer_scheme() {
    enum Verdict {
        Always,
        Elsewhere,
        Bound,
        Malformed,
    }
    use Verdict::{Always, Bound, Elsewhere, Malformed};
    let jkt = Attempt::good().key.jkt();
    let x5t = "A".repeat(43);
    let rows = [
        ("F-13: x5t#S256", json!({ "x5t#S256": x5t }), Elsewhere),
        ("F-13: jwk", json!({ "jwk": { "kty": "oct" } }), Elsewhere),
        ("F-13: kid", json!({ "kid": "1" }), Elsewhere),
        (
            "F-13: a method that nobody knows",
            json!({ "new": 1 }),
            Elsewhere,
        ),
        ("F-13: nothing at all", json!({}), Elsewhere),
        ("F-13: another case", json!({ "JKT": jkt }), Elsewhere),
        ("F-14: both", json!({ "x5t#S256": x5t, "jkt": jkt }), Bound),
        ("F-10: jkt", json!({ "jkt": jkt }), Bound),
        (
            "F-10: of a stranger",
            json!({ "jkt": Key::es256().jkt() }),
            Bound,
        ),
        ("F-15: null", json!(null), Malformed),
        ("F-15: a text", json!(jkt), Malformed),
        ("F-15: no", json!(false), Malformed),
        ("F-15: a list", json!([]), Malformed),
        ("F-15: a list of jkt", json!([jkt]), Malformed),
        ("F-15: jkt is null", json!({ "jkt": null }), Malformed),
        ("F-15: jkt is empty", json!({ "jkt": "" }), Malformed),
        ("F-15: jkt is a number", json!({ "jkt": 1 }), Malformed),
        ("F-15: jkt is a list", json!({ "jkt": [jkt] }), Malformed),
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
            "F-15: jkt is broken beside a certificate",
            json!({ "x5t#S256": x5t, "jkt": "x" }),
            Malformed,
        ),
    ];
    let claims_without_cnf = bearer(|_| {});
    let mut rows: Vec<_> = rows
        .map(|(name, cnf, verdict)| (name, bearer(|a| a.token_claims["cnf"] = cnf), verdict))
        .into();
    rows.push(("F-11: no cnf", claims_without_cnf, Always));
    for (name, attempt, verdict) in rows {
        let unconfirmable = rejected_as_bearer(BearerError::Unconfirmable);
        let malformed = || rejected_as_bearer(BearerError::Token(TokenError::Malformed));
        let bound = || rejected_as_bearer(BearerError::Bound);
        let (by_default, elsewhere) = match verdict {
            Always => (passed_with(Found::Bearer), passed_with(Found::Bearer)),
            Elsewhere => (unconfirmable, passed_with(Found::Bearer)),
            Bound => (bound(), bound()),
            Malformed => (malformed(), malformed()),
        };
        let request = attempt.request();
        assert_eq!(
            outcome_by(&allowing(), request.clone()),
            by_default,
            "{name}"
        );
        assert_eq!(
            outcome_by(&allowing_others(), request),
            elsewhere,
            "{name}, elsewhere"
        );
    }
}

/// The weaker mode is the one that was said last.
#[test]
fn allowing_bearer_again_takes_the_opt_out_back() {
    let layer = DpopLayer::new(verifier().allow_insecure_unchecked_cnf().allow_bearer());
    let attempt = bearer(|a| a.token_claims["cnf"] = json!({ "x5t#S256": "A".repeat(43) }));
    assert_eq!(
        outcome_by(&layer, attempt.request()),
        rejected_as_bearer(BearerError::Unconfirmable)
    );
}

#[test]
fn the_service_sees_what_the_token_is_bound_to() {
    let confirmation_of = |layer: DpopLayer, attempt: Attempt| {
        let service = layer.layer(service_fn(async |request: Request<()>| {
            let token: &BearerToken<Claims> = request.extensions().get().unwrap();
            assert_eq!(token.claims().subject(), "alice");
            assert_eq!(token.expires(), Some(Timestamp::from_unix(NOW + 600)));
            let shown = format!("{token:?} {:?}", AcceptedToken::Bearer(token.clone()));
            assert!(!shown.contains("alice"), "{shown}");
            Ok::<_, Infallible>(Response::new(Some(token.confirmation())))
        }));
        let response = block_on(service.oneshot(attempt.request())).unwrap();
        response.into_body().unwrap()
    };
    let unbound = confirmation_of(allowing(), bearer(|_| {}));
    assert_eq!(unbound, Confirmation::Unbound);
    let certified = bearer(|a| a.token_claims["cnf"] = json!({ "x5t#S256": "A".repeat(43) }));
    let elsewhere = confirmation_of(allowing_others(), certified);
    assert_eq!(elsewhere, Confirmation::Unconfirmable);
}

/// F-16: only the header field counts; what stands elsewhere neither grants nor spoils.
#[test]
fn a_token_in_the_query_or_a_form_is_not_read() {
    let send = |attempt: Attempt, form: bool| {
        let token = attempt.token();
        let layer = allowing();
        let service = layer.layer(service_fn(async |request: Request<String>| {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        }));
        let body = format!("access_token={token}");
        let mut request = attempt.build_with(body.clone());
        if form {
            let form = "application/x-www-form-urlencoded".parse().unwrap();
            request.headers_mut().insert("content-type", form);
        }
        let response = block_on(service.oneshot(request)).unwrap();
        let rejection = response.extensions().get::<Rejection>().cloned();
        assert_eq!(rejection.is_none(), *response.body() == body);
        rejection
    };
    let in_query: Change = |a| a.uri = format!("/orders?access_token={}", a.token());
    let missing = || Some(CredentialsError::Missing.into());
    let rows: [(&str, Change, Option<Rejection>); 4] = [
        ("F-16: an unbound token in query and header", in_query, None),
        (
            "F-16: an unbound token in the query alone",
            |a| {
                a.uri = format!("/orders?access_token={}", a.token());
                a.authorization = Some(vec![]);
            },
            missing(),
        ),
        ("F-16: in the header", |_| {}, None),
        (
            "F-16: nowhere but in the body",
            |a| a.authorization = Some(vec![]),
            missing(),
        ),
    ];
    for (name, change, expected) in rows {
        for form in [false, true] {
            let rejection = send(bearer(change), form);
            assert_eq!(rejection, expected, "R-7.2.1: {name}, form: {form}");
        }
    }
}

/// Rejected, and told so in both (Figure 19).
fn bad_request(error: CredentialsError) -> Outcome {
    let told = format!(r#"error="invalid_request", error_description="{error}""#);
    let challenges = [format!("Bearer {told}"), format!("DPoP {told}, {ALGS}")];
    rejected(400, &challenges, error)
}

#[test]
fn the_grammar_of_the_authorization_field() {
    let missing = || {
        let challenges = ["Bearer".to_owned(), format!("DPoP {ALGS}")];
        rejected(401, &challenges, CredentialsError::Missing)
    };
    let malformed = || bad_request(CredentialsError::Malformed);
    let ambiguous = || bad_request(CredentialsError::Ambiguous);
    let rows: [(&str, &[&str], Outcome); 18] = [
        ("F-7: Bearer alone", &["Bearer"], malformed()),
        ("F-7: Bearer and a blank", &["Bearer "], malformed()),
        ("F-7: a tab", &["Bearer\tTOKEN"], malformed()),
        ("F-7: two tokens", &["Bearer TOKEN TOKEN"], malformed()),
        ("F-7: a comma", &["Bearer TOKEN,TOKEN"], malformed()),
        ("F-7: a parameter", &["Bearer token=\"TOKEN\""], malformed()),
        ("F-7: a blank at the end", &["Bearer TOKEN "], malformed()),
        ("F-7: nothing but padding", &["Bearer =="], malformed()),
        ("F-7: quotes", &["Bearer \"TOKEN\""], malformed()),
        ("F-7: no scheme", &[" TOKEN"], malformed()),
        ("F-7: an empty field", &[""], malformed()),
        (
            "F-4: two fields",
            &["Bearer TOKEN", "Bearer TOKEN"],
            ambiguous(),
        ),
        (
            "F-4: Bearer first",
            &["Bearer TOKEN", "DPoP TOKEN"],
            ambiguous(),
        ),
        (
            "F-4: DPoP first",
            &["DPoP TOKEN", "Bearer TOKEN"],
            ambiguous(),
        ),
        (
            "F-4: a foreign scheme beside it",
            &["Basic YTpi", "Bearer TOKEN"],
            ambiguous(),
        ),
        ("R-7.1.1: a foreign scheme", &["Basic YTpi"], missing()),
        ("R-7.1.1: nearly Bearer", &["BearerX TOKEN"], missing()),
        ("R-7.1.1: no field", &[], missing()),
    ];
    for (name, fields, expected) in rows {
        let outcome = outcome_by(&allowing(), bearer(|a| present(a, fields)).request());
        assert_eq!(outcome, expected, "{name}");
    }
    let through_a_proxy = bearer(|a| {
        a.authorization = Some(vec![]);
        let field = format!("Bearer {}", a.token()).parse().unwrap();
        a.extra_headers.push(("proxy-authorization", field));
    });
    let outcome = outcome_by(&allowing(), through_a_proxy.request());
    assert_eq!(outcome, missing(), "F-19: Proxy-Authorization");
}

/// Passes every token and is asked by a client.
struct Anything(Arc<AtomicUsize>);

impl AccessTokenVerifier for Anything {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        assert!(token.as_str().len() <= 32 * 1024);
        let claims = serde_json::from_value(json!({ "sub": "alice" })).unwrap();
        Ok(AccessToken::new(Confirmation::Unbound, claims))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// F-18: the limit of tokens holds under either scheme, and nobody looks at what exceeds it.
#[test]
fn a_token_of_more_than_32_kib_is_not_looked_at() {
    let asked = Arc::new(AtomicUsize::new(0));
    let tokens = Anything(Arc::clone(&asked));
    let layer = DpopLayer::new(
        Verifier::new(common::AUDIENCE.parse::<PublicUrl>().unwrap(), tokens).allow_bearer(),
    );
    let rows = [
        (32 * 1024, passed_with(Found::Bearer)),
        (32 * 1024 + 1, rejected_as_bearer(BearerError::TooLong)),
        (1 << 20, rejected_as_bearer(BearerError::TooLong)),
    ];
    for (length, expected) in rows {
        let attempt = bearer(|a| a.token = Some("x".repeat(length)));
        assert_eq!(outcome_by(&layer, attempt.request()), expected, "{length}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let under_dpop = Attempt::but(|a| a.token = Some("x".repeat(32 * 1024 + 1)));
    let expected = rejected_as_dpop("invalid_token", CredentialsError::TokenTooLong);
    assert_eq!(outcome_by(&layer, under_dpop.request()), expected);
}

/// A bearer token needs no proof, so it spends none and needs no nonce; under DPoP both still are.
#[test]
fn a_bearer_token_spends_no_proof_and_needs_no_nonce() {
    let memory = MemoryReplayStore::default();
    let nonces = StatelessNonces::new(NonceSecret::generate());
    let layer = DpopLayer::new(
        verifier_by(|rules| rules.with_nonces(nonces).with_replay_store(memory.clone()))
            .allow_bearer(),
    );
    for (name, dpop) in [("without a proof", Some(vec![])), ("with one", None)] {
        let outcome = outcome_by(&layer, bearer(|a| a.dpop = dpop).request());
        assert_eq!(outcome, passed_with(Found::Bearer), "{name}");
    }
    let mut bound = Attempt::good();
    present(&mut bound, &["Bearer TOKEN"]);
    let outcome = outcome_by(&layer, bound.request());
    assert_eq!(
        outcome,
        rejected_as_bearer(BearerError::Bound),
        "R-8.2: no nonce either"
    );
    assert_eq!(memory.usage().live, 0);

    let description = "Resource server requires nonce in DPoP proof";
    let told = format!(r#"DPoP error="use_dpop_nonce", error_description="{description}", {ALGS}"#);
    let outcome = outcome_by(&layer, Attempt::good().request());
    let expected = Outcome {
        nonces: 1,
        ..rejected(401, &["Bearer".to_owned(), told], NonceError::Missing)
    };
    assert_eq!(outcome, expected, "R-9.1, R-11.3.1: under DPoP");
}

/// F-10, F-11, F-13: nothing of all this where Bearer was not allowed. The token is not looked at.
#[test]
fn without_bearer_every_bearer_token_is_rejected_unseen() {
    let asked = Arc::new(AtomicUsize::new(0));
    let tokens = Anything(Arc::clone(&asked));
    let layer = DpopLayer::new(Verifier::new(
        common::AUDIENCE.parse::<PublicUrl>().unwrap(),
        tokens,
    ));
    let error = CredentialsError::Bearer;
    let told = format!(r#"DPoP error="invalid_token", error_description="{error}", {ALGS}"#);
    let expected = rejected(401, &[told], error);
    let rows: [(&str, Change); 4] = [
        ("unbound", |_| {}),
        ("unbound, beside a proof", |a| a.dpop = None),
        ("bound elsewhere", |a| {
            a.token_claims["cnf"] = json!({ "x5t#S256": "x" });
        }),
        ("too long", |a| a.token = Some("x".repeat(1 << 20))),
    ];
    for (name, change) in rows {
        assert_eq!(
            outcome_by(&layer, bearer(change).request()),
            expected,
            "{name}"
        );
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// `verify` keeps to DPoP where the verifier allows both, for routes that need a bound token; the
/// rejection still says which scheme was used.
#[test]
fn verify_is_for_dpop_alone() {
    let verifier = verifier().allow_bearer();
    let (head, ()) = bearer(|_| {}).request().into_parts();
    let rejection = block_on(verifier.verify(&head)).unwrap_err();
    assert_eq!(rejection, CredentialsError::Bearer.into());
    assert_eq!(rejection.scheme(), Some(Scheme::Bearer));
    let response: Response<()> = verifier.reject(rejection);
    let challenges: Vec<_> = response
        .headers()
        .get_all("www-authenticate")
        .iter()
        .collect();
    let told = r#"Bearer error="invalid_token", error_description="the access token was presented as a bearer token""#;
    assert_eq!(challenges, [told, &format!("DPoP {ALGS}")]);

    let accepted = block_on(verifier.verify_either(&head)).unwrap();
    assert!(matches!(accepted.token, AcceptedToken::Bearer(_)));
    assert!(accepted.next_nonce.is_none());
    let (head, ()) = Attempt::good().request().into_parts();
    let accepted = block_on(verifier.verify_either(&head)).unwrap();
    assert!(matches!(accepted.token, AcceptedToken::Bound(_)));
    assert_eq!(accepted.token.claims().subject(), "alice");
    assert_eq!(
        accepted.token.expires(),
        Some(Timestamp::from_unix(NOW + 600))
    );
}

/// A token that another layer has accepted is not found behind one that has accepted another.
#[test]
fn a_token_of_a_layer_outside_is_not_mistaken_for_that_of_this_one() {
    let inner = allowing().layer(service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(Some(found(&request))))
    }));
    // What a gateway does that exchanges tokens.
    let exchange = service_fn(move |mut request: Request<()>| {
        let other = bearer(|a| a.token_claims["sub"] = json!("service")).request();
        *request.headers_mut() = other.headers().clone();
        inner.clone().oneshot(request)
    });
    let outer = DpopLayer::new(verifier()).layer(exchange);
    let response = block_on(outer.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.into_body(), Some(Found::Bearer));
}
