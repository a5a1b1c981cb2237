//! The challenges in the figures of RFC 9449.

use std::collections::BTreeSet;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, verifier_by};
use serde_json::json;
use tower_dpop::resource::{BearerError, BindingError, CredentialsError};
use tower_dpop::tokens::TokenError;
use tower_dpop::{Algorithms, DpopLayer, Rejection};

use crate::credentials::set_authorization;
use crate::resource::bearer::{Change, outcome_by, rejected, remove_cnf};

/// The challenges of the figures, with the same algorithms.
mod standard {
    pub(super) const FIGURE_15: [&str; 1] = [r#"DPoP algs="ES256 PS256""#];
    pub(super) const FIGURE_16: [&str; 1] = [
        r#"DPoP error="invalid_token", error_description="Invalid DPoP key binding", algs="ES256 PS256""#,
    ];
    pub(super) const FIGURE_17: [&str; 2] = ["Bearer", r#"DPoP algs="ES256 PS256""#];
    /// With our descriptions instead of "Invalid token".
    pub(super) const FIGURE_18: [&str; 2] = [
        r#"Bearer error="invalid_token", error_description="the access token has expired""#,
        r#"DPoP algs="ES256 PS256""#,
    ];
    /// With our descriptions instead of "Multiple methods used to include access token".
    pub(super) const FIGURE_19: [&str; 2] = [
        r#"Bearer error="invalid_request", error_description="several Authorization fields""#,
        r#"DPoP error="invalid_request", error_description="several Authorization fields", algs="ES256 PS256""#,
    ];
}

/// R-7.2.2, R-7.2.3, R-7.2.4, R-7.2.5: RFC 9449 sections 7.1 and 7.2.
#[test]
fn challenges_match_the_figures_of_rfc_9449() {
    let algorithms: Algorithms = "ES256 PS256".parse().unwrap();
    let dpop_only = DpopLayer::new(verifier_by(|rules| rules.with_algorithms(algorithms)));
    let with_bearer =
        DpopLayer::new(verifier_by(|rules| rules.with_algorithms(algorithms)).allow_bearer());
    let no_credentials: Change = |a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![]));
    let other_key: Change = |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt());
    let expired: Change = |a| {
        remove_cnf(a);
        a.token_claims["exp"] = json!(NOW - 60);
        a.dpop = Some(vec![]);
        set_authorization(a, &["Bearer TOKEN"]);
    };
    let both: Change = |a| set_authorization(a, &["Bearer TOKEN", "DPoP TOKEN"]);
    let missing = CredentialsError::Missing;
    let ambiguous = CredentialsError::Ambiguous;
    let rows: [(&str, _, Change, u16, &[&str], Rejection); 7] = [
        (
            "Figure 15",
            &dpop_only,
            no_credentials,
            401,
            &standard::FIGURE_15,
            missing.into(),
        ),
        (
            "Figure 16",
            &dpop_only,
            other_key,
            401,
            &standard::FIGURE_16,
            BindingError::OtherKey.into(),
        ),
        (
            "Figure 16, with Bearer allowed",
            &with_bearer,
            other_key,
            401,
            &["Bearer", standard::FIGURE_16[0]],
            BindingError::OtherKey.into(),
        ),
        (
            "Figure 17",
            &with_bearer,
            no_credentials,
            401,
            &standard::FIGURE_17,
            missing.into(),
        ),
        (
            "Figure 18",
            &with_bearer,
            expired,
            401,
            &standard::FIGURE_18,
            BearerError::Token(TokenError::Expired).into(),
        ),
        (
            "Figure 19",
            &with_bearer,
            both,
            400,
            &standard::FIGURE_19,
            ambiguous.into(),
        ),
        (
            "Figure 19, without Bearer allowed",
            &dpop_only,
            both,
            400,
            &standard::FIGURE_19[1..],
            ambiguous.into(),
        ),
    ];
    for (name, layer, change, status, challenges, rejection) in rows {
        let challenges: Vec<String> = challenges.iter().map(|&line| line.to_owned()).collect();
        let outcome = outcome_by(layer, Attempt::but(change).request());
        assert_eq!(outcome, rejected(status, &challenges, rejection), "{name}");
    }
}

/// Except for the descriptions and the values of `algs`.
#[test]
fn the_expected_challenges_match_the_published_figures() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../vectors.json")).unwrap();
    // As sets, because Figure 19 has another order of parameters.
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
    let figures: [(&str, &[&str]); 5] = [
        ("fig15", &standard::FIGURE_15),
        ("fig16", &standard::FIGURE_16),
        ("fig17", &standard::FIGURE_17),
        ("fig18", &standard::FIGURE_18),
        ("fig19_status400", &standard::FIGURE_19),
    ];
    for (name, ours) in figures {
        let line = vectors["rfc9449"]["challenges"][name][0].as_str().unwrap();
        let theirs: Vec<BTreeSet<String>> = match line.split_once(", DPoP ") {
            Some((first, second)) => vec![parameters(first), parameters(&format!("DPoP {second}"))],
            None => vec![parameters(line)],
        };
        let ours: Vec<BTreeSet<String>> = ours.iter().map(|line| parameters(line)).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}
