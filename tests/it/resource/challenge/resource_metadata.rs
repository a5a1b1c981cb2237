//! `resource_metadata` in challenges (RFC 9728 section 5.1).

use std::convert::Infallible;

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, block_on, jwt_verifier, verifier,
};
use http::{HeaderValue, Request, Response};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::resource::{QuotedText, RequireAuthenticationLayer};
use tower_dpop::testing::TestResponse;
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    Claims, DpopLayer, JwtVerifier, KeySet, NonceSecret, RequireScopesLayer, StatelessNonces,
    Timestamp, Verifier,
};

use super::{UnreachableKeys, with_metadata};
use crate::credentials::set_authorization;
use crate::resource::bearer::remove_cnf;

enum EitherKeys {
    Reachable(JwtVerifier<KeySet>),
    Unreachable(JwtVerifier<UnreachableKeys>),
}

impl AccessTokenVerifier for EitherKeys {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        match self {
            Self::Reachable(tokens) => tokens.verify(token, now).await,
            Self::Unreachable(tokens) => tokens.verify(token, now).await,
        }
    }

    fn issuers(&self) -> Vec<&str> {
        vec![ISSUER]
    }
}

fn under_bearer(attempt: &mut Attempt) {
    set_authorization(attempt, &["Bearer TOKEN"]);
}

fn unbound_under_bearer(attempt: &mut Attempt) {
    remove_cnf(attempt);
    under_bearer(attempt);
}

/// P-8, P-9, R-7.2.2: exactly once, whatever the reason of the rejection.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_challenge_contains_the_metadata_url() {
    enum Setup {
        Default,
        Nonces,
        NoKeys,
        Scopes,
        Authentication,
    }
    type Change = fn(&mut Attempt);
    type Schemes = &'static [&'static str];
    // The status, and the schemes of the challenges: if only DPoP is allowed, and if Bearer is too.
    type Row = (&'static str, Setup, Change, u16, Schemes, Schemes);
    let long: Change = |a| {
        a.authorization = Some(vec![
            format!("DPoP {}", "a".repeat(40_000)).parse().unwrap(),
        ]);
    };
    let rows: Vec<Row> = vec![
        (
            "no token",
            Setup::Default,
            |a| a.authorization = Some(vec![]),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a malformed field",
            Setup::Default,
            |a| a.authorization = Some(vec![HeaderValue::from_static("DPoP")]),
            400,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "two Authorization fields",
            Setup::Default,
            |a| a.authorization = Some(vec![HeaderValue::from_static("DPoP x"); 2]),
            400,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a token that is too long",
            Setup::Default,
            long,
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "no proof",
            Setup::Default,
            |a| a.dpop = Some(vec![]),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a proof for another method",
            Setup::Default,
            |a| a.proof_claims["htm"] = json!("POST"),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "no nonce",
            Setup::Nonces,
            |_| {},
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "an expired token",
            Setup::Default,
            |a| a.token_claims["exp"] = json!(1),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "bound to another key",
            Setup::Default,
            |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a bound token under Bearer",
            Setup::Default,
            under_bearer,
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a missing scope",
            Setup::Scopes,
            |_| {},
            403,
            &["DPoP"],
            &["DPoP"],
        ),
        (
            "another authentication required",
            Setup::Authentication,
            |_| {},
            401,
            &["DPoP"],
            &["DPoP"],
        ),
        (
            "a missing scope, under Bearer",
            Setup::Scopes,
            unbound_under_bearer,
            403,
            &[],
            &["Bearer"],
        ),
        (
            "another authentication required, under Bearer",
            Setup::Authentication,
            unbound_under_bearer,
            401,
            &[],
            &["Bearer"],
        ),
        ("a server error", Setup::NoKeys, |_| {}, 503, &[], &[]),
    ];
    let parameter =
        format!(r#"resource_metadata="{AUDIENCE}/.well-known/oauth-protected-resource""#);
    for (name, setup, change, status, dpop_only, both) in rows {
        let attempt = Attempt::but(change);
        for (bearer, expected) in [(false, dpop_only), (true, both)] {
            // Unless Bearer is allowed, a bearer token is rejected before these checks.
            if !bearer && expected.is_empty() && status != 503 {
                continue;
            }
            let tokens = match setup {
                Setup::NoKeys => {
                    EitherKeys::Unreachable(JwtVerifier::new(ISSUER, AUDIENCE, UnreachableKeys))
                }
                _ => EitherKeys::Reachable(jwt_verifier()),
            };
            let mut rules = common::rules();
            if let Setup::Nonces = setup {
                rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
            }
            let mut verifier = with_metadata(Verifier::new(rules, tokens));
            if bearer {
                verifier = verifier.allow_bearer();
            }
            let inner =
                service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(())));
            let layer = DpopLayer::new(verifier);
            let request = attempt.again().request();
            let response = match setup {
                Setup::Scopes => {
                    let required = RequireScopesLayer::all_of("admin".parse().unwrap());
                    block_on(layer.layer(required.layer(inner)).oneshot(request))
                }
                Setup::Authentication => {
                    let required = RequireAuthenticationLayer::by_acr("gold".parse().unwrap());
                    block_on(layer.layer(required.layer(inner)).oneshot(request))
                }
                _ => block_on(layer.layer(inner).oneshot(request)),
            };
            let outcome = TestResponse::of(&response.unwrap());
            assert_eq!(outcome.status.as_u16(), status, "{name}");
            let schemes: Vec<&str> = outcome
                .challenges
                .iter()
                .map(|challenge| challenge.split(' ').next().unwrap())
                .collect();
            assert_eq!(schemes, expected, "{name}: {:?}", outcome.challenges);
            for challenge in &outcome.challenges {
                let count = challenge.matches("resource_metadata=").count();
                assert_eq!(count, 1, "{name}: {challenge}");
                assert!(challenge.ends_with(&parameter), "{name}: {challenge}");
            }
        }
    }
}

/// P-8
#[test]
fn challenges_contain_a_metadata_url_only_if_configured() {
    let no_token = Attempt::but(|a| a.authorization = Some(vec![]));
    let outcome = no_token.outcome();
    assert_eq!(outcome.parameter("resource_metadata"), None);
    let other_url = "https://docs.example.com/resource";
    let in_either_order: [fn(QuotedText) -> Verifier; 2] = [
        |url| with_metadata(verifier()).with_resource_metadata(url),
        |url| with_metadata(verifier().with_resource_metadata(url)),
    ];
    for make in in_either_order {
        let layer = DpopLayer::new(make(other_url.parse().unwrap()));
        let outcome = no_token.again().outcome_by(&layer);
        assert_eq!(
            outcome.parameter("resource_metadata"),
            Some(other_url.into())
        );
    }
}
