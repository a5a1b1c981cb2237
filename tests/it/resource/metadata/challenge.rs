//! The document in challenges.

use super::*;

/// P-1: "the same list as `algs`", and what is on it is what is accepted.
#[test]
fn document_challenge_and_verifier_name_the_same_algorithms() {
    let keys = [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("PS256"),
        Key::rsa("RS256"),
    ];
    for list in [
        "ES256",
        "EdDSA",
        "RS256 PS512",
        "ES256 ES384 PS256 Ed25519 EdDSA",
        "ES256 ES384 ES512 PS256 PS384 PS512 RS256 RS384 RS512 Ed25519 EdDSA",
    ] {
        let algorithms: Algorithms = list.parse().unwrap();
        let verifier = verifier_by(|rules| rules.with_algorithms(algorithms));
        let document = document(&ResourceMetadata::of(&verifier));
        let told: Vec<&str> = document["dpop_signing_alg_values_supported"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let layer = DpopLayer::new(verifier);
        let outcome = Attempt::but(|a| a.authorization = Some(vec![])).outcome_by(&layer);
        assert_eq!(outcome.parameter("algs"), Some(told.join(" ")), "{list}");
        for key in &keys {
            let outcome = Attempt::with_key(key.clone()).outcome_by(&layer);
            let accepted = outcome.status == StatusCode::OK;
            assert_eq!(accepted, told.contains(&key.alg()), "{list}: {}", key.alg());
        }
    }
}

/// A public URL that cannot stand in a document or in a challenge is rejected at start-up.
#[test]
fn no_public_url_breaks_a_challenge() {
    for bad in [
        "https://example.com/a\"b",
        "https://example.com/a\\b",
        "https://example.com/a b",
        "https://example.com/ä",
        "https://exa\"mple.com",
        "https://example.com/?q",
        "https://example.com/#f",
        "http://example.com",
    ] {
        assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
    }
    // Every character that a path can hold.
    let odd = at_url("https://example.com/-._~!$&'()*+,;=:@%22%5C");
    let verifier = odd.with_well_known_metadata();
    let url = ResourceMetadata::of(&verifier).url().to_owned();
    let outcome =
        Attempt::but(|a| a.authorization = Some(vec![])).outcome_by(&DpopLayer::new(verifier));
    assert_eq!(outcome.parameter("resource_metadata"), Some(url));
}

/// Keys that are never to be had.
struct Unreachable;

impl KeySource for Unreachable {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        Err(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Err(KeySourceError)
    }
}

/// Any verifier, for a table.
enum Tokens {
    Good(JwtVerifier<KeySet>),
    Unreachable(JwtVerifier<Unreachable>),
}

impl AccessTokenVerifier for Tokens {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        match self {
            Self::Good(tokens) => tokens.verify(token, now).await,
            Self::Unreachable(tokens) => tokens.verify(token, now).await,
        }
    }

    fn issuers(&self) -> Vec<&str> {
        vec![ISSUER]
    }
}

fn as_bearer(attempt: &mut Attempt) {
    attempt.authorization = Some(vec![format!("Bearer {}", attempt.token()).parse().unwrap()]);
}

fn unbound(attempt: &mut Attempt) {
    attempt
        .token_claims
        .as_object_mut()
        .unwrap()
        .remove("cnf")
        .unwrap();
    as_bearer(attempt);
}

/// P-8, P-9, R-7.2.2: every challenge of every rejection points to the document, once, in each scheme that is
/// spoken.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_challenge_points_to_the_document() {
    enum Around {
        Nothing,
        Nonces,
        NoKeys,
        Scopes,
        Authentication,
    }
    type Change = fn(&mut Attempt);
    type Schemes = &'static [&'static str];
    // The status, and the schemes of the challenges where only DPoP is spoken, and where both are.
    type Row = (&'static str, Around, Change, u16, Schemes, Schemes);
    let long: Change = |a| {
        a.authorization = Some(vec![
            format!("DPoP {}", "a".repeat(40_000)).parse().unwrap(),
        ]);
    };
    let rows: Vec<Row> = vec![
        (
            "no token",
            Around::Nothing,
            |a| a.authorization = Some(vec![]),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a broken field",
            Around::Nothing,
            |a| a.authorization = Some(vec![HeaderValue::from_static("DPoP")]),
            400,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "two fields",
            Around::Nothing,
            |a| a.authorization = Some(vec![HeaderValue::from_static("DPoP x"); 2]),
            400,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "a long token",
            Around::Nothing,
            long,
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "no proof",
            Around::Nothing,
            |a| a.dpop = Some(vec![]),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "another method",
            Around::Nothing,
            |a| a.proof_claims["htm"] = json!("POST"),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "no nonce",
            Around::Nonces,
            |_| {},
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "an expired token",
            Around::Nothing,
            |a| a.token_claims["exp"] = json!(1),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "bound elsewhere",
            Around::Nothing,
            |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()),
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "bound, as Bearer",
            Around::Nothing,
            as_bearer,
            401,
            &["DPoP"],
            &["Bearer", "DPoP"],
        ),
        (
            "no scope",
            Around::Scopes,
            |_| {},
            403,
            &["DPoP"],
            &["DPoP"],
        ),
        (
            "another login",
            Around::Authentication,
            |_| {},
            401,
            &["DPoP"],
            &["DPoP"],
        ),
        (
            "no scope, as Bearer",
            Around::Scopes,
            unbound,
            403,
            &[],
            &["Bearer"],
        ),
        (
            "another login, as Bearer",
            Around::Authentication,
            unbound,
            401,
            &[],
            &["Bearer"],
        ),
        ("our fault", Around::NoKeys, |_| {}, 503, &[], &[]),
    ];
    let parameter = format!(r#"resource_metadata="{AUDIENCE}{WELL_KNOWN}""#);
    for (name, around, change, status, dpop_only, both) in rows {
        let attempt = Attempt::but(change);
        for (bearer, expected) in [(false, dpop_only), (true, both)] {
            // An unbound token is not looked at where Bearer is not spoken.
            if !bearer && expected.is_empty() && status != 503 {
                continue;
            }
            let tokens = match around {
                Around::NoKeys => {
                    Tokens::Unreachable(JwtVerifier::new(ISSUER, AUDIENCE, Unreachable))
                }
                _ => Tokens::Good(jwt_verifier()),
            };
            let mut rules = common::rules();
            if let Around::Nonces = around {
                rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
            }
            let mut verifier = Verifier::new(rules, tokens).with_well_known_metadata();
            if bearer {
                verifier = verifier.allow_bearer();
            }
            let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
            let layer = DpopLayer::new(verifier);
            let request = attempt.again().request();
            let response = match around {
                Around::Scopes => {
                    let required = RequireScopesLayer::all_of("admin".parse().unwrap());
                    block_on(layer.layer(required.layer(inner)).oneshot(request))
                }
                Around::Authentication => {
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

/// P-8: it is the deployer's to say.
#[test]
fn challenges_point_to_nothing_where_nothing_was_configured() {
    let nothing = Attempt::but(|a| a.authorization = Some(vec![]));
    let outcome = nothing.outcome();
    assert_eq!(outcome.parameter("resource_metadata"), None);
    let elsewhere = "https://docs.example.com/resource";
    let layer = DpopLayer::new(
        verifier()
            .with_well_known_metadata()
            .with_resource_metadata(elsewhere.parse().unwrap()),
    );
    let outcome = nothing.again().outcome_by(&layer);
    assert_eq!(
        outcome.parameter("resource_metadata"),
        Some(elsewhere.into())
    );
}
