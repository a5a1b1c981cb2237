//! Bearer tokens beside DPoP (RFC 9449 section 7.2): what passes, as which type, and what the others
//! are told in which challenge, to the letter.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, block_on, verifier, verifier_by};
use http::{Request, Response};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::resource::{BearerError, BindingError, CredentialsError, Scheme, Unavailable};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{
    AcceptedToken, Algorithms, BearerToken, BoundToken, Claims, DpopLayer, MemoryReplayStore,
    NonceSecret, PublicUrl, Rejection, StatelessNonces, Timestamp, Verifier,
};

/// What every DPoP challenge says by default.
const ALGS: &str = r#"algs="ES256 ES384 PS256 Ed25519 EdDSA""#;

/// The types under which a service finds the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Bearer,
    Bound,
    Both,
    Nothing,
}

/// The whole of an answer.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    challenges: Vec<String>,
    nonces: usize,
    retry_after: bool,
    rejection: Option<Rejection>,
    /// What the service found, if it was reached.
    found: Option<Found>,
}

fn found(request: &Request<()>) -> Found {
    let extensions = request.extensions();
    let bearer = extensions.get::<BearerToken<Claims>>();
    let bound = extensions.get::<BoundToken<Claims>>();
    let either = AcceptedToken::<Claims>::of(extensions);
    match (bearer, bound, either) {
        (Some(token), None, Some(AcceptedToken::Bearer(same))) => {
            assert_eq!(token.claims().subject(), same.claims().subject());
            Found::Bearer
        }
        (None, Some(token), Some(AcceptedToken::Bound(same))) => {
            assert_eq!(token.thumbprint(), same.thumbprint());
            Found::Bound
        }
        (None, None, None) => Found::Nothing,
        _ => Found::Both,
    }
}

/// What a service behind the layer makes of a request.
fn outcome_by(layer: &DpopLayer, request: Request<()>) -> Outcome {
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        response.extensions_mut().insert(found(&request));
        Ok::<_, Infallible>(response)
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    Outcome {
        status: response.status().as_u16(),
        challenges: response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .map(|field| field.to_str().unwrap().to_owned())
            .collect(),
        nonces: response.headers().get_all("dpop-nonce").iter().count(),
        retry_after: response.headers().contains_key("retry-after"),
        rejection: response.extensions().get().cloned(),
        found: response.extensions().get().copied(),
    }
}

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

fn rejected(status: u16, challenges: &[String], rejection: impl Into<Rejection>) -> Outcome {
    Outcome {
        status,
        challenges: challenges.to_vec(),
        nonces: 0,
        retry_after: false,
        rejection: Some(rejection.into()),
        found: None,
    }
}

/// Rejected, and told so in the Bearer challenge alone (Figure 18).
fn rejected_as_bearer(error: BearerError) -> Outcome {
    let told = format!(r#"Bearer error="invalid_token", error_description="{error}""#);
    rejected(401, &[told, format!("DPoP {ALGS}")], error)
}

/// Rejected, and told so in the DPoP challenge alone.
fn rejected_as_dpop(error: &str, rejection: impl Into<Rejection>) -> Outcome {
    let rejection = rejection.into();
    let told = format!(r#"DPoP error="{error}", error_description="{rejection}", {ALGS}"#);
    rejected(401, &["Bearer".to_owned(), told], rejection)
}

/// Rejected, and told so in both (Figure 19).
fn bad_request(error: CredentialsError) -> Outcome {
    let told = format!(r#"error="invalid_request", error_description="{error}""#);
    let challenges = [format!("Bearer {told}"), format!("DPoP {told}, {ALGS}")];
    rejected(400, &challenges, error)
}

fn allowing() -> DpopLayer {
    DpopLayer::new(verifier().allow_bearer())
}

fn allowing_others() -> DpopLayer {
    DpopLayer::new(verifier().allow_insecure_unchecked_cnf())
}

/// `Authorization` fields, with the attempt's token for `TOKEN`.
fn present(attempt: &mut Attempt, fields: &[&str]) {
    let token = attempt.token();
    attempt.authorization = Some(
        fields
            .iter()
            .map(|field| field.replace("TOKEN", &token).parse().unwrap())
            .collect(),
    );
}

fn unbind(attempt: &mut Attempt) {
    attempt.token_claims.as_object_mut().unwrap().remove("cnf");
}

/// The good request of a client without DPoP, changed.
fn bearer(change: impl FnOnce(&mut Attempt)) -> Attempt {
    Attempt::but(|a| {
        unbind(a);
        a.dpop = Some(Vec::new());
        change(a);
        if a.authorization.is_none() {
            present(a, &["Bearer TOKEN"]);
        }
    })
}

type Change = fn(&mut Attempt);

/// The strings of the standard's figures, with its algorithms.
mod figures {
    pub(super) const FIGURE_15: [&str; 1] = [r#"DPoP algs="ES256 PS256""#];
    pub(super) const FIGURE_16: [&str; 1] = [
        r#"DPoP error="invalid_token", error_description="Invalid DPoP key binding", algs="ES256 PS256""#,
    ];
    pub(super) const FIGURE_17: [&str; 2] = ["Bearer", r#"DPoP algs="ES256 PS256""#];
    /// With descriptions of ours in place of "Invalid token".
    pub(super) const FIGURE_18: [&str; 2] = [
        r#"Bearer error="invalid_token", error_description="the access token has expired""#,
        r#"DPoP algs="ES256 PS256""#,
    ];
    /// With descriptions of ours in place of "Multiple methods used to include access token".
    pub(super) const FIGURE_19: [&str; 2] = [
        r#"Bearer error="invalid_request", error_description="several Authorization fields""#,
        r#"DPoP error="invalid_request", error_description="several Authorization fields", algs="ES256 PS256""#,
    ];
}

/// R-7.2.2, R-7.2.3, R-7.2.4, R-7.2.5: the figures of RFC 9449 sections 7.1 and 7.2, by the lists of
/// challenges that they show.
#[test]
fn the_figures_of_the_standard() {
    let algorithms: Algorithms = "ES256 PS256".parse().unwrap();
    let without = DpopLayer::new(verifier_by(|rules| rules.with_algorithms(algorithms)));
    let with =
        DpopLayer::new(verifier_by(|rules| rules.with_algorithms(algorithms)).allow_bearer());
    let nothing: Change = |a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![]));
    let other_key: Change = |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt());
    let expired: Change = |a| {
        unbind(a);
        a.token_claims["exp"] = json!(NOW - 60);
        a.dpop = Some(vec![]);
        present(a, &["Bearer TOKEN"]);
    };
    let both: Change = |a| present(a, &["Bearer TOKEN", "DPoP TOKEN"]);
    let missing = CredentialsError::Missing;
    let ambiguous = CredentialsError::Ambiguous;
    let rows: [(&str, _, Change, u16, &[&str], Rejection); 8] = [
        (
            "Figure 15",
            &without,
            nothing,
            401,
            &figures::FIGURE_15,
            missing.into(),
        ),
        (
            "Figure 16",
            &without,
            other_key,
            401,
            &figures::FIGURE_16,
            BindingError::OtherKey.into(),
        ),
        (
            "Figure 16, beside Bearer",
            &with,
            other_key,
            401,
            &["Bearer", figures::FIGURE_16[0]],
            BindingError::OtherKey.into(),
        ),
        (
            "Figure 17",
            &with,
            nothing,
            401,
            &figures::FIGURE_17,
            missing.into(),
        ),
        (
            "Figure 18",
            &with,
            expired,
            401,
            &figures::FIGURE_18,
            BearerError::Token(TokenError::Expired).into(),
        ),
        (
            "Figure 18, without Bearer",
            &without,
            expired,
            401,
            &[
                r#"DPoP error="invalid_token", error_description="the access token was presented as a bearer token", algs="ES256 PS256""#,
            ],
            CredentialsError::Bearer.into(),
        ),
        (
            "Figure 19",
            &with,
            both,
            400,
            &figures::FIGURE_19,
            ambiguous.into(),
        ),
        (
            "Figure 19, without Bearer",
            &without,
            both,
            400,
            &figures::FIGURE_19[1..],
            ambiguous.into(),
        ),
    ];
    for (name, layer, change, status, challenges, rejection) in rows {
        let challenges: Vec<String> = challenges.iter().map(|&line| line.to_owned()).collect();
        let outcome = outcome_by(layer, Attempt::but(change).request());
        assert_eq!(outcome, rejected(status, &challenges, rejection), "{name}");
    }
}

/// The lists above are those of the standard, but for the descriptions.
#[test]
fn the_figures_are_those_of_the_standard() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../vectors.json")).unwrap();
    let mut published = Vec::new();
    collect_figures(&vectors, &mut published);
    assert_eq!(published.len(), 5, "Figures 15 to 19");
    // A set of parameters per challenge: their order differs in Figure 19.
    let parameters = |challenge: &str| -> BTreeSet<String> {
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        let named = rest.split(", ").filter(|parameter| !parameter.is_empty());
        let without_description = named.map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap();
            match name {
                "error_description" | "algs" => name.to_owned(),
                _ => format!("{name}={value}"),
            }
        });
        without_description.chain([scheme.to_owned()]).collect()
    };
    let ours: [&[&str]; 5] = [
        &figures::FIGURE_15,
        &figures::FIGURE_16,
        &figures::FIGURE_17,
        &figures::FIGURE_18,
        &figures::FIGURE_19,
    ];
    for ((name, line), ours) in published.iter().zip(ours) {
        let theirs: Vec<BTreeSet<String>> = match line.split_once(", DPoP ") {
            Some((first, second)) => vec![parameters(first), parameters(&format!("DPoP {second}"))],
            None => vec![parameters(line)],
        };
        let ours: Vec<BTreeSet<String>> = ours.iter().map(|line| parameters(line)).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// The figures of the vectors, in their order.
fn collect_figures(value: &serde_json::Value, found: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                let number = name
                    .strip_prefix("fig1")
                    .and_then(|rest| rest.chars().next());
                match (number, member[0].as_str()) {
                    (Some('5'..='9'), Some(line)) => found.push((name.clone(), line.to_owned())),
                    _ => collect_figures(member, found),
                }
            }
        }
        serde_json::Value::Array(members) => {
            for member in members {
                collect_figures(member, found);
            }
        }
        _ => {}
    }
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

#[test]
fn a_bearer_token_that_is_not_good_is_told_in_the_bearer_challenge() {
    let rows: [(&str, Change, TokenError); 12] = [
        (
            "R-AT.5: expired",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired,
        ),
        (
            "R-AT.5: no exp",
            |a| a.token_claims["exp"] = json!(null),
            TokenError::Malformed,
        ),
        (
            "not yet",
            |a| a.token_claims["nbf"] = json!(NOW + 60),
            TokenError::NotYetValid,
        ),
        (
            "R-AT.2: of another issuer",
            |a| a.token_claims["iss"] = json!("https://other.example"),
            TokenError::Issuer,
        ),
        (
            "R-AT.3: for another audience",
            |a| a.token_claims["aud"] = json!("https://other.example"),
            TokenError::Audience,
        ),
        (
            "R-AT.4: of another key",
            |a| a.token_key = Key::es256(),
            TokenError::Signature,
        ),
        (
            "R-AT.4: of no key",
            |a| a.token_header["kid"] = json!("x"),
            TokenError::Key,
        ),
        (
            "R-AT.4: alg none",
            |a| a.token_header["alg"] = json!("none"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.1: an ID token",
            |a| a.token_header["typ"] = json!("JWT"),
            TokenError::Type,
        ),
        (
            "a proof",
            |a| a.token_header["typ"] = json!("dpop+jwt"),
            TokenError::Type,
        ),
        (
            "no sub",
            |a| drop(a.token_claims.as_object_mut().unwrap().remove("sub")),
            TokenError::Claims,
        ),
        (
            "opaque",
            |a| a.token = Some("opaque".into()),
            TokenError::Malformed,
        ),
    ];
    for (name, change, error) in rows {
        let outcome = outcome_by(&allowing(), bearer(change).request());
        assert_eq!(
            outcome,
            rejected_as_bearer(BearerError::Token(error)),
            "R-AT.6: {name}"
        );
    }
}

/// Says one thing of every token.
struct Says(TokenError);

impl AccessTokenVerifier for Says {
    type Claims = Claims;

    async fn verify(
        &self,
        _: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        Err(self.0.clone())
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

fn that_says(error: TokenError) -> DpopLayer {
    DpopLayer::new(Verifier::new(common::rules(), Says(error)).allow_bearer())
}

#[test]
fn keys_out_of_reach_are_our_fault() {
    let expected = Outcome {
        retry_after: true,
        ..rejected(503, &[], Unavailable::Token)
    };
    for (name, attempt) in [("Bearer", bearer(|_| {})), ("DPoP", Attempt::good())] {
        let outcome = outcome_by(&that_says(TokenError::Unavailable), attempt.request());
        assert_eq!(outcome, expected, "{name}");
    }
}

/// R-AT.9: a verifier of one's own that forbids, in the challenge of the scheme used and in no other.
#[test]
fn a_token_that_its_verifier_finds_insufficient() {
    let description = "the access token does not allow this request";
    let told = format!(r#"error="insufficient_scope", error_description="{description}""#);
    let layer = || that_says(TokenError::InsufficientScope);
    let outcome = outcome_by(&layer(), bearer(|_| {}).request());
    let error = BearerError::Token(TokenError::InsufficientScope);
    assert_eq!(outcome, rejected(403, &[format!("Bearer {told}")], error));
    let outcome = outcome_by(&layer(), Attempt::good().request());
    let error = TokenError::InsufficientScope;
    assert_eq!(
        outcome,
        rejected(403, &[format!("DPoP {told}, {ALGS}")], error)
    );
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

/// P-8, P-9: what was configured stands in both challenges.
#[test]
fn both_challenges_say_what_was_configured() {
    let configured = |verifier: Verifier| {
        verifier
            .with_realm("orders api".parse().unwrap())
            .with_scope("orders.read".parse().unwrap())
            .with_well_known_metadata()
    };
    let layer = DpopLayer::new(configured(verifier()).allow_bearer());
    let metadata =
        r#"resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    let (realm, scope) = (r#"realm="orders api""#, r#"scope="orders.read""#);
    let invalid =
        |description: &str| format!(r#"error="invalid_token", error_description="{description}""#);
    let quiet = [
        format!("Bearer {realm}, {scope}, {metadata}"),
        format!("DPoP {realm}, {scope}, {ALGS}, {metadata}"),
    ];
    let missing = Attempt::but(|a| a.authorization = Some(vec![]));
    let outcome = outcome_by(&layer, missing.request());
    assert_eq!(outcome.challenges, quiet, "P-8, P-9: no credentials");

    let outcome = outcome_by(&layer, bearer(|a| a.token_key = Key::es256()).request());
    let error = invalid("the signature of the access token does not verify");
    let bearer_challenge = format!("Bearer {realm}, {error}, {scope}, {metadata}");
    assert_eq!(
        outcome.challenges,
        [bearer_challenge, quiet[1].clone()],
        "P-8, P-9: as Bearer"
    );

    let outcome = outcome_by(
        &layer,
        Attempt::but(|a| a.token_key = Key::es256()).request(),
    );
    let dpop_challenge = format!("DPoP {realm}, {error}, {scope}, {ALGS}, {metadata}");
    assert_eq!(
        outcome.challenges,
        [quiet[0].clone(), dpop_challenge],
        "P-8, P-9: under DPoP"
    );

    let without = DpopLayer::new(configured(verifier()));
    let outcome = outcome_by(&without, missing.request());
    assert_eq!(outcome.challenges, quiet[1..], "P-8: Bearer is not spoken");
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

/// A 401 always has a challenge (RFC 9110 section 15.5.2), also for a rejection that the verifier
/// would not have come to.
#[test]
fn a_rejection_of_another_verifier_gets_a_challenge_too() {
    for error in [
        BearerError::Bound,
        BearerError::Token(TokenError::InsufficientScope),
    ] {
        let response: Response<()> = verifier().reject(error.clone().into());
        let lines = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .count();
        assert_eq!(lines, 1, "{error}");
    }
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
