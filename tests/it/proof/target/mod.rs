//! `htm` and `htu`: the expected values, which come from the configuration.

mod htu;
mod request;
mod resolver;

use serde_json::json;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::{DpopLayer, ProofRules, PublicUrl};

use common::{Attempt, AttemptExt as _, Outcome};

pub(crate) const API: &str = common::AUDIENCE;

/// A layer for a service under these public URLs.
pub(crate) fn layer_at(public_urls: &[&str]) -> DpopLayer {
    let parse = |url: &str| PublicUrl::insecure_http(url).unwrap();
    let (first, others) = public_urls.split_first().unwrap();
    let rules = ProofRules::new(parse(first)).with_clock(|| common::at(common::NOW));
    let rules = others
        .iter()
        .fold(rules, |rules, url| rules.add_public_url(parse(url)));
    DpopLayer::new(tower_dpop::Verifier::new(rules, common::jwt_verifier()))
}

pub(crate) fn outcome_for(layer: &DpopLayer, uri: &str, htu: &str) -> Outcome {
    Attempt::but(|a| {
        a.uri = uri.into();
        a.proof_claims["htu"] = json!(htu);
    })
    .outcome_by(layer)
}

/// The result of comparing `htu` with the URL of the request.
pub(crate) type Comparison = Result<(), UrlMismatch>;

pub(crate) const EQUAL: Comparison = Ok(());
pub(crate) const MALFORMED: Comparison = Err(UrlMismatch::Malformed);
pub(crate) const SCHEME: Comparison = Err(UrlMismatch::Scheme);
pub(crate) const HOST: Comparison = Err(UrlMismatch::Host);
pub(crate) const PORT: Comparison = Err(UrlMismatch::Port);
pub(crate) const PATH: Comparison = Err(UrlMismatch::Path);
pub(crate) const PREFIX: Comparison = Err(UrlMismatch::PathPrefix);

#[track_caller]
pub(crate) fn assert_comparison(name: &str, outcome: &Outcome, expected: Comparison) {
    match expected {
        Ok(()) => outcome.assert_passed(name),
        Err(mismatch) => outcome.assert_reason(name, ProofError::Url(mismatch)),
    }
}
