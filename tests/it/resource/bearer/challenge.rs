//! What a rejected bearer token gets, to the letter.

use super::*;

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

/// The lists above are those of the standard, but for the descriptions.
#[test]
fn the_figures_are_those_of_the_standard() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../vectors.json")).unwrap();
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
