//! The names of reasons. Metrics and alerts depend on them, so a name must not change by accident.

use std::collections::{BTreeMap, BTreeSet};

use tower_dpop::Rejection;
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::{
    IatError, NonceError, ProofError, ReplayStoreError, TargetError, UrlMismatch,
};
use tower_dpop::resource::{
    AuthorizationError, BearerError, BindingError, CredentialsError, Unavailable,
};
use tower_dpop::token_endpoint::{DpopJktError, GrantBindingError, TokenRequestRejection};
use tower_dpop::tokens::TokenError;

fn credentials_reasons() -> Vec<(Rejection, &'static str)> {
    use CredentialsError::{Ambiguous, Bearer, Malformed, Missing, TokenTooLong};
    vec![
        (Ambiguous.into(), "credentials_ambiguous"),
        (Bearer.into(), "credentials_bearer"),
        (Malformed.into(), "credentials_malformed"),
        (Missing.into(), "credentials_missing"),
        (TokenTooLong.into(), "credentials_token_too_long"),
        (TargetError::Connect.into(), "target_connect"),
        (TargetError::Misdirected.into(), "target_misdirected"),
        (TargetError::NotRfc3986.into(), "target_not_rfc3986"),
        (TargetError::Unresolved.into(), "target_unresolved"),
    ]
}

fn proof_reasons() -> Vec<(Rejection, &'static str)> {
    let in_the_future = ProofError::Iat(IatError::InTheFuture { by: 1 });
    let too_old = ProofError::Iat(IatError::TooOld { by: 1 });
    vec![
        (ProofError::Missing.into(), "proof_missing"),
        (ProofError::Several.into(), "proof_several"),
        (ProofError::TooLong.into(), "proof_too_long"),
        (ProofError::NotAJwt.into(), "proof_not_a_jwt"),
        (ProofError::HeaderNotJson.into(), "proof_header"),
        (ProofError::PayloadNotJson.into(), "proof_payload"),
        (ProofError::ClaimMissing.into(), "proof_claim_missing"),
        (ProofError::NoKey.into(), "proof_no_key"),
        (ProofError::JtiLength.into(), "proof_jti_length"),
        (ProofError::Type.into(), "proof_typ"),
        (ProofError::Extension.into(), "proof_extension"),
        (ProofError::Algorithm.into(), "proof_algorithm"),
        (ProofError::Signature.into(), "proof_signature"),
        (ProofError::Key(InvalidJwk::Private).into(), "proof_key"),
        (ProofError::Method.into(), "proof_htm"),
        (ProofError::Url(UrlMismatch::Host).into(), "proof_htu"),
        (in_the_future.into(), "proof_iat_in_the_future"),
        (too_old.into(), "proof_iat_too_old"),
        (ProofError::Expired.into(), "proof_expired"),
        (ProofError::NotYetValid.into(), "proof_not_yet_valid"),
        (ProofError::TokenHash.into(), "proof_ath"),
        (ProofError::Replayed.into(), "proof_replayed"),
        (NonceError::Foreign.into(), "nonce_foreign"),
        (NonceError::InTheFuture.into(), "nonce_in_the_future"),
        (NonceError::Missing.into(), "nonce_missing"),
        (NonceError::Stale.into(), "nonce_stale"),
    ]
}

fn token_reasons() -> Vec<(TokenError, &'static str)> {
    vec![
        (TokenError::Algorithm, "token_algorithm"),
        (TokenError::Audience, "token_audience"),
        (TokenError::Claims, "token_claims"),
        (TokenError::Expired, "token_expired"),
        (TokenError::InsufficientScope, "token_insufficient_scope"),
        (TokenError::Invalid, "token_invalid"),
        (TokenError::Issuer, "token_issuer"),
        (TokenError::Key, "token_key"),
        (TokenError::Malformed, "token_malformed"),
        (TokenError::NotYetValid, "token_not_yet_valid"),
        (TokenError::Signature, "token_signature"),
        (TokenError::TokenType, "token_type_mismatch"),
        (TokenError::Type, "token_typ"),
        (TokenError::Unavailable, "token_unavailable"),
    ]
}

fn authorization_reasons() -> Vec<(AuthorizationError, &'static str)> {
    let authentication = AuthorizationError::Authentication {
        acr_values: None,
        max_age: None,
    };
    let scope = AuthorizationError::Scope {
        required: "a".parse().unwrap(),
    };
    vec![
        (authentication, "authorization_authentication"),
        (AuthorizationError::NotMet, "authorization_denied"),
        (scope, "authorization_scope"),
    ]
}

fn other_reasons() -> Vec<(Rejection, &'static str)> {
    let full = ReplayStoreError::Full;
    vec![
        (BindingError::OtherKey.into(), "binding_other_key"),
        (BindingError::Unbound.into(), "binding_unbound"),
        (BindingError::Unconfirmable.into(), "binding_unconfirmable"),
        (BearerError::TooLong.into(), "bearer_too_long"),
        (BearerError::Bound.into(), "bearer_bound"),
        (BearerError::Unconfirmable.into(), "bearer_unconfirmable"),
        (BearerError::Unbound.into(), "bearer_unbound"),
        (full.into(), "unavailable_replay_full"),
        (
            ReplayStoreError::OtherStore.into(),
            "unavailable_replay_other_store",
        ),
        (ReplayStoreError::Slow.into(), "unavailable_replay_slow"),
        (ReplayStoreError::Unavailable.into(), "unavailable_replay"),
        (Unavailable::Token.into(), "unavailable_token"),
    ]
}

/// Every reason of the resource server. A reason has the same name under both schemes, because the scheme is another
/// label.
fn reasons() -> Vec<(Rejection, &'static str)> {
    let mut reasons = credentials_reasons();
    reasons.extend(proof_reasons());
    reasons.extend(other_reasons());
    for (error, name) in token_reasons() {
        reasons.push((Rejection::Token(error.clone()), name));
    }
    for (error, name) in authorization_reasons() {
        reasons.push((error.into(), name));
    }
    reasons
}

#[test]
fn every_reason_has_its_own_name() {
    let mut names = BTreeMap::new();
    for (rejection, name) in reasons() {
        assert_eq!(rejection.reason(), name, "{rejection:?}");
        let is_name_character =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(
            !name.is_empty() && name.bytes().all(is_name_character),
            "{name}"
        );
        let other = names.insert(name, rejection.clone());
        assert_eq!(other, None, "{name} is also the name of {rejection:?}");
    }
}

#[test]
fn a_reason_has_the_same_name_under_both_schemes() {
    for (error, name) in token_reasons() {
        let rejection = Rejection::Bearer(BearerError::Token(error));
        assert_eq!(rejection.reason(), name);
    }
    for (error, name) in authorization_reasons() {
        let rejection = Rejection::Bearer(BearerError::Authorization(error));
        assert_eq!(rejection.reason(), name);
    }
}

/// Otherwise requests could add labels to the metrics without limit.
#[test]
fn names_contain_no_details() {
    for by in [0, 1, u64::MAX] {
        let rejection = Rejection::from(ProofError::Iat(IatError::TooOld { by }));
        assert_eq!(rejection.reason(), "proof_iat_too_old");
    }
    for error in [
        InvalidJwk::Json,
        InvalidJwk::Coordinate,
        InvalidJwk::RsaSize,
    ] {
        assert_eq!(
            Rejection::from(ProofError::Key(error)).reason(),
            "proof_key"
        );
    }
    for mismatch in [UrlMismatch::Malformed, UrlMismatch::Port, UrlMismatch::Path] {
        assert_eq!(
            Rejection::from(ProofError::Url(mismatch)).reason(),
            "proof_htu"
        );
    }
}

/// The reasons that only the authorization server has.
fn reasons_of_token_requests() -> [(TokenRequestRejection, &'static str); 5] {
    [
        (DpopJktError::Contradictory.into(), "dpop_jkt_contradictory"),
        (DpopJktError::Malformed.into(), "dpop_jkt_malformed"),
        (
            GrantBindingError::CodeOfOtherKey.into(),
            "grant_code_of_other_key",
        ),
        (GrantBindingError::NoProof.into(), "grant_no_proof"),
        (
            GrantBindingError::RefreshTokenOfOtherKey.into(),
            "grant_refresh_token_of_other_key",
        ),
    ]
}

/// The authorization server has reasons of its own, too.
#[test]
fn token_requests_share_the_names_of_proof_reasons() {
    let shared: [(TokenRequestRejection, &str); 4] = [
        (TargetError::Misdirected.into(), "target_misdirected"),
        (ProofError::Replayed.into(), "proof_replayed"),
        (NonceError::Missing.into(), "nonce_missing"),
        (ReplayStoreError::Full.into(), "unavailable_replay_full"),
    ];
    let of_resource_server: BTreeSet<&str> = reasons().into_iter().map(|(_, name)| name).collect();
    for (rejection, name) in shared {
        assert_eq!(rejection.reason(), name);
        assert!(of_resource_server.contains(name), "{name}");
    }
    for (rejection, name) in reasons_of_token_requests() {
        assert_eq!(rejection.reason(), name);
        assert!(!of_resource_server.contains(name), "{name}");
    }
}

/// A name that is new in the code must be added above.
#[test]
fn the_tests_cover_every_name_in_the_code() {
    let prefixes = [
        "authorization_",
        "bearer_",
        "binding_",
        "credentials_",
        "nonce_",
        "proof_",
        "target_",
        "token_",
        "unavailable_",
    ];
    let in_the_code: BTreeSet<&str> = [
        include_str!("../../../src/credentials.rs"),
        include_str!("../../../src/proof/checks.rs"),
        include_str!("../../../src/proof/nonce.rs"),
        include_str!("../../../src/proof/replay/store.rs"),
        include_str!("../../../src/proof/target.rs"),
        include_str!("../../../src/resource/bearer.rs"),
        include_str!("../../../src/resource/bound_token.rs"),
        include_str!("../../../src/resource/rejection.rs"),
        include_str!("../../../src/resource/requirement.rs"),
        include_str!("../../../src/tokens/access_token.rs"),
    ]
    .into_iter()
    // In each file, all names are after the last `fn reason(`.
    .filter_map(|file| file.rsplit_once("fn reason(").map(|(_, reasons)| reasons))
    .flat_map(|reasons| reasons.split('"'))
    .filter(|text| prefixes.iter().any(|prefix| text.starts_with(prefix)))
    .collect();
    let known: BTreeSet<&str> = reasons().into_iter().map(|(_, name)| name).collect();
    assert_eq!(in_the_code, known);
}

/// The page has a row for each name, and no row for a name that is gone.
#[test]
fn the_guide_has_a_row_for_every_reason() {
    let page = include_str!("../../../docs/guide/troubleshooting.md");
    let rows = page.split("## All reasons").nth(1).unwrap();
    let rows = rows.split("\n## ").next().unwrap();
    let first_cells = rows.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = first_cells.flat_map(|row| {
        let cell = row.split(" |").next().unwrap();
        cell.split(", ").map(|name| name.trim_matches('`'))
    });
    let names: Vec<&str> = names.collect();
    let on_the_page: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(on_the_page.len(), names.len(), "a name has two rows");
    let of_resource_server = reasons().into_iter().map(|(_, name)| name);
    let of_token_requests = reasons_of_token_requests()
        .into_iter()
        .map(|(_, name)| name);
    let known: BTreeSet<&str> = of_resource_server
        .chain(of_token_requests)
        .chain([Rejection::TooManyRequests.reason()])
        .collect();
    assert_eq!(on_the_page, known);
}
