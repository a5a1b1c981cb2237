//! The names of reasons, on which metrics and alarms rest: one for each, and none that changes
//! unnoticed.

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

fn of_credentials() -> Vec<(Rejection, &'static str)> {
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

fn of_proofs() -> Vec<(Rejection, &'static str)> {
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

fn of_tokens() -> Vec<(TokenError, &'static str)> {
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

fn of_authorization() -> Vec<(AuthorizationError, &'static str)> {
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

fn of_others() -> Vec<(Rejection, &'static str)> {
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
        (ReplayStoreError::Unavailable.into(), "unavailable_replay"),
        (Unavailable::Token.into(), "unavailable_token"),
    ]
}

/// Every reason. What is wrong with a token has one name under both schemes; the scheme is a label
/// of its own.
fn reasons() -> Vec<(Rejection, &'static str)> {
    let mut reasons = of_credentials();
    reasons.extend(of_proofs());
    reasons.extend(of_others());
    for (error, name) in of_tokens() {
        reasons.push((Rejection::Token(error.clone()), name));
    }
    for (error, name) in of_authorization() {
        reasons.push((error.into(), name));
    }
    reasons
}

#[test]
fn each_reason_has_a_name_of_its_own() {
    let mut names = BTreeMap::new();
    for (rejection, name) in reasons() {
        assert_eq!(rejection.reason(), name, "{rejection:?}");
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(!name.is_empty() && name.bytes().all(is_plain), "{name}");
        let other = names.insert(name, rejection.clone());
        assert_eq!(other, None, "{name} is the name of {rejection:?} as well");
    }
}

#[test]
fn a_reason_has_one_name_under_both_schemes() {
    for (error, name) in of_tokens() {
        let rejection = Rejection::Bearer(BearerError::Token(error));
        assert_eq!(rejection.reason(), name);
    }
    for (error, name) in of_authorization() {
        let rejection = Rejection::Bearer(BearerError::Authorization(error));
        assert_eq!(rejection.reason(), name);
    }
}

/// What holds more than a reason has the name of the reason: labels must not grow with requests.
#[test]
fn details_are_no_part_of_a_name() {
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

/// The reasons of the authorization server: those of proofs under the same names, and its own.
#[test]
fn token_requests_have_reasons_of_the_same_set() {
    let shared: [(TokenRequestRejection, &str); 4] = [
        (TargetError::Misdirected.into(), "target_misdirected"),
        (ProofError::Replayed.into(), "proof_replayed"),
        (NonceError::Missing.into(), "nonce_missing"),
        (ReplayStoreError::Full.into(), "unavailable_replay_full"),
    ];
    let own: [(TokenRequestRejection, &str); 5] = [
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
    ];
    let of_the_resource_server: BTreeSet<&str> =
        reasons().into_iter().map(|(_, name)| name).collect();
    for (rejection, name) in shared {
        assert_eq!(rejection.reason(), name);
        assert!(of_the_resource_server.contains(name), "{name}");
    }
    for (rejection, name) in own {
        assert_eq!(rejection.reason(), name);
        assert!(!of_the_resource_server.contains(name), "{name}");
    }
}

/// A name that is new in the code is missing above.
#[test]
fn every_name_of_the_code_is_known_here() {
    let families = [
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
    // What an error says of itself stands at its end.
    .filter_map(|file| file.rsplit_once("fn reason(").map(|(_, reasons)| reasons))
    .flat_map(|reasons| reasons.split('"'))
    .filter(|text| families.iter().any(|family| text.starts_with(family)))
    .collect();
    let known: BTreeSet<&str> = reasons().into_iter().map(|(_, name)| name).collect();
    assert_eq!(in_the_code, known);
}
