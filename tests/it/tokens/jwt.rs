//! Access tokens by RFC 9068, and the keys of their issuer.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tower_dpop::tokens::{InvalidKeySet, TokenError};
use tower_dpop::{
    Algorithm, Algorithms, DpopLayer, JwtVerifier, KeySet, ProofRules, Rejection, Verifier,
};

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, ISSUER_KEY, Key, KeyExt as _, NOW, Outcome, at,
    jwt_verifier, verifier_by,
};

fn answer_of(tokens: JwtVerifier<KeySet>, attempt: &Attempt) -> Outcome {
    attempt.outcome_by(&DpopLayer::new(Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW)),
        tokens,
    )))
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

/// A row per rule of RFC 9068 section 4, R-AT.6 for all of them.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn rejects_a_token_that_breaks_a_rule() {
    type Change = fn(&mut Attempt);
    let rows: Vec<(&str, Change, TokenError)> = vec![
        (
            "R-AT.1: typ JWT",
            |a| a.token_header["typ"] = json!("JWT"),
            TokenError::Type,
        ),
        (
            "R-AT.1: no typ",
            |a| remove(&mut a.token_header, "typ"),
            TokenError::Type,
        ),
        (
            "R-AT.1: a proof's typ",
            |a| a.token_header["typ"] = json!("dpop+jwt"),
            TokenError::Type,
        ),
        (
            "R-AT.1: typ of another type",
            |a| a.token_header["typ"] = json!(1),
            TokenError::Malformed,
        ),
        (
            "R-AT.2: another issuer",
            |a| a.token_claims["iss"] = json!("https://evil.example.com"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: a trailing slash",
            |a| a.token_claims["iss"] = json!("https://as.example.com/"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: another case",
            |a| a.token_claims["iss"] = json!("https://AS.example.com"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: no issuer",
            |a| remove(&mut a.token_claims, "iss"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: an array of issuers",
            |a| a.token_claims["iss"] = json!([ISSUER]),
            TokenError::Malformed,
        ),
        (
            "R-AT.3: another audience",
            |a| a.token_claims["aud"] = json!("https://other.example.com"),
            TokenError::Audience,
        ),
        (
            "R-AT.3: other audiences",
            |a| a.token_claims["aud"] = json!(["a", "b"]),
            TokenError::Audience,
        ),
        (
            "R-AT.3: no audience",
            |a| remove(&mut a.token_claims, "aud"),
            TokenError::Audience,
        ),
        (
            "R-AT.3: an empty array",
            |a| a.token_claims["aud"] = json!([]),
            TokenError::Audience,
        ),
        (
            "R-AT.3: an object",
            |a| a.token_claims["aud"] = json!({ "a": AUDIENCE }),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: signed by another key",
            |a| a.token_key = Key::es256(),
            TokenError::Signature,
        ),
        (
            "R-AT.4: none",
            |a| a.token_header["alg"] = json!("none"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: a MAC",
            |a| a.token_header["alg"] = json!("HS256"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: no alg",
            |a| remove(&mut a.token_header, "alg"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: another algorithm than the key's",
            |a| a.token_header["alg"] = json!("RS256"),
            TokenError::Key,
        ),
        (
            "R-AT.4: an unknown kid",
            |a| a.token_header["kid"] = json!("other"),
            TokenError::Key,
        ),
        (
            "R-AT.4: a kid of another type",
            |a| a.token_header["kid"] = json!(1),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: crit",
            |a| a.token_header["crit"] = json!(["exp"]),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: b64",
            |a| a.token_header["b64"] = json!(false),
            TokenError::Malformed,
        ),
        (
            "R-AT.5: expired beyond the leeway",
            |a| a.token_claims["exp"] = json!(NOW - 30),
            TokenError::Expired,
        ),
        (
            "R-AT.5: no exp",
            |a| remove(&mut a.token_claims, "exp"),
            TokenError::Expired,
        ),
        (
            "R-AT.5: exp of another type",
            |a| a.token_claims["exp"] = json!("never"),
            TokenError::Malformed,
        ),
        (
            "R-AT.5: not valid yet",
            |a| a.token_claims["nbf"] = json!(NOW + 31),
            TokenError::NotYetValid,
        ),
        (
            "no sub",
            |a| remove(&mut a.token_claims, "sub"),
            TokenError::Claims,
        ),
        (
            "not a JWT",
            |a| a.token = Some("opaque".into()),
            TokenError::Malformed,
        ),
        (
            "two segments",
            |a| a.token = Some("e30.e30".into()),
            TokenError::Malformed,
        ),
        (
            "five segments",
            |a| a.token = Some("e30.e30.e30.e30.e30".into()),
            TokenError::Malformed,
        ),
        (
            "padded",
            |a| a.token = Some(a.token() + "="),
            TokenError::Malformed,
        ),
    ];
    for (name, change, reason) in rows {
        let outcome = Attempt::but(change).outcome();
        outcome.assert_reason(name, Rejection::Token(reason));
        assert_eq!(
            outcome.parameter("error").as_deref(),
            Some("invalid_token"),
            "R-AT.6: {name}"
        );
    }
}

#[test]
fn lets_a_token_pass_that_keeps_the_rules() {
    type Change = fn(&mut Attempt);
    let rows: Vec<(&str, Change)> = vec![
        ("R-AT.1: the long form", |a| {
            a.token_header["typ"] = json!("application/at+jwt");
        }),
        ("R-AT.3: one of several audiences", |a| {
            a.token_claims["aud"] = json!(["other", AUDIENCE]);
        }),
        ("R-AT.5: expired within the leeway", |a| {
            a.token_claims["exp"] = json!(NOW - 29);
        }),
        ("R-AT.5: not valid yet within the leeway", |a| {
            a.token_claims["nbf"] = json!(NOW + 30);
        }),
        ("R-AT.5: a fraction", |a| {
            a.token_claims["exp"] = json!(1_700_000_000.5);
        }),
        ("no kid", |a| remove(&mut a.token_header, "kid")),
        ("unknown members", |a| {
            a.token_header["x"] = json!({ "y": 1 });
            a.token_claims["x"] = json!([null]);
        }),
    ];
    for (name, change) in rows {
        Attempt::but(change).outcome().assert_passed(name);
    }
}

/// Keys that a token brings or points to are the token's word about itself.
#[test]
fn never_trusts_a_key_that_the_token_brings() {
    let thief = Key::es256();
    for (name, member, value) in [
        ("jwk", "jwk", thief.public_jwk()),
        ("jku", "jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", "x5u", json!("http://127.0.0.1:1/cert")),
        ("x5c", "x5c", json!(["MIIB"])),
    ] {
        let forged = Attempt::but(|a| {
            a.token_key = thief.clone();
            a.token_header[member] = value.clone();
        });
        forged
            .outcome()
            .assert_reason(name, Rejection::Token(TokenError::Signature));
        let good = Attempt::but(|a| a.token_header[member] = value);
        good.outcome().assert_passed(&format!("{name}, ignored"));
    }
}

/// J-12 for access tokens: two parsers must not read two tokens.
#[test]
fn rejects_duplicate_members_in_a_token() {
    let attempt = Attempt::good();
    let header = attempt.token_header.to_string();
    let claims = attempt.token_claims.to_string();
    for (name, header, claims) in [
        (
            "a claim twice",
            header.clone(),
            claims.replacen('{', r#"{"sub":"mallory","#, 1),
        ),
        (
            "cnf twice",
            header.clone(),
            claims.replacen('{', r#"{"cnf":{},"#, 1),
        ),
        (
            "jkt twice",
            header.clone(),
            claims.replacen(r#""cnf":{"#, r#""cnf":{"jkt":"x","#, 1),
        ),
        (
            "a header parameter twice",
            header.replacen('{', r#"{"alg":"none","#, 1),
            claims.clone(),
        ),
    ] {
        let outcome =
            Attempt::but(|a| a.token = Some(ISSUER_KEY.sign_text(header, claims))).outcome();
        outcome.assert_reason(name, Rejection::Token(TokenError::Malformed));
    }
}

#[test]
fn verifies_tokens_by_every_algorithm_an_issuer_may_use() {
    for key in [
        Key::es256(),
        Key::es384(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("RS256"),
        Key::rsa("PS256"),
    ] {
        let jwks = json!({ "keys": [key.public_jwk()] }).to_string();
        let tokens = || JwtVerifier::new(ISSUER, AUDIENCE, jwks.parse().unwrap());
        let attempt = Attempt::but(|a| {
            a.token_header["alg"] = json!(key.alg());
            a.token_key = key.clone();
        });
        answer_of(tokens(), &attempt).assert_passed(key.alg());
        let other = Algorithms::only(Algorithm::Es512);
        answer_of(tokens().with_algorithms(other), &attempt)
            .assert_reason(key.alg(), Rejection::Token(TokenError::Algorithm));
    }
}

/// D22: issuers that leave `typ` out, or say `JWT`, by a switch of their own.
#[test]
fn a_switch_accepts_issuers_without_the_typ_of_rfc_9068() {
    for (name, typ, passes) in [
        ("at+jwt", json!("at+jwt"), true),
        ("JWT", json!("JWT"), true),
        ("jwt", json!("jwt"), true),
        ("none at all", Value::Null, true),
        ("a proof's", json!("dpop+jwt"), false),
        ("a logout token's", json!("logout+jwt"), false),
    ] {
        let attempt = Attempt::but(|a| {
            if typ.is_null() {
                remove(&mut a.token_header, "typ");
            } else {
                a.token_header["typ"] = typ;
            }
        });
        let outcome = answer_of(jwt_verifier().with_lenient_typ(), &attempt);
        let rejected = (!passes).then_some(Rejection::Token(TokenError::Type));
        assert_eq!(outcome.rejection, rejected, "{name}");
    }
}

#[test]
fn several_audiences_and_a_leeway_of_ones_own() {
    let other = Attempt::but(|a| a.token_claims["aud"] = json!("urn:other"));
    answer_of(jwt_verifier().add_audience("urn:other"), &other).assert_passed("an added audience");
    answer_of(jwt_verifier().add_audience("urn:other"), &Attempt::good())
        .assert_passed("the first audience");

    let expired = Attempt::but(|a| a.token_claims["exp"] = json!(NOW));
    answer_of(jwt_verifier().with_leeway(Duration::ZERO), &expired)
        .assert_reason("no leeway", Rejection::Token(TokenError::Expired));
    let long_expired = Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 300));
    let outcome = answer_of(
        jwt_verifier().with_leeway(Duration::from_secs(86_400)),
        &long_expired,
    );
    outcome.assert_reason(
        "at most five minutes",
        Rejection::Token(TokenError::Expired),
    );
}

#[test]
fn the_claims_are_those_of_the_token() {
    let token = Attempt::good().outcome().token.unwrap();
    let claims = token.claims();
    assert_eq!(
        (claims.subject(), claims.client_id()),
        ("alice", Some("app"))
    );
    assert_eq!(
        claims.scopes().collect::<Vec<_>>(),
        ["orders.read", "orders.write"]
    );
    assert!(claims.has_scope("orders.read") && !claims.has_scope("orders"));
    assert_eq!(claims.claim::<String>("jti").as_deref(), Some("token-1"));
    assert_eq!(claims.claim::<u64>("jti"), None);
    assert_eq!(token.expires().unwrap().as_unix(), NOW + 600);
}

#[test]
fn the_claims_can_be_of_ones_own_type() {
    #[derive(Deserialize)]
    struct Tenant {
        tenant: u32,
    }

    let layer = DpopLayer::new(Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW)),
        jwt_verifier().with_claims::<Tenant>(),
    ));
    let seen = |attempt: &Attempt| {
        use tower::{Layer as _, ServiceExt as _};
        let service = layer.layer(tower::service_fn(async |request: http::Request<()>| {
            let tenant = request
                .extensions()
                .get::<tower_dpop::BoundToken<Tenant>>()
                .unwrap()
                .claims()
                .tenant;
            Ok::<_, std::convert::Infallible>(http::Response::new(tenant.to_string()))
        }));
        let response = common::block_on(service.oneshot(attempt.request())).unwrap();
        (
            response.extensions().get::<Rejection>().cloned(),
            response.into_body(),
        )
    };
    assert_eq!(
        seen(&Attempt::but(|a| a.token_claims["tenant"] = json!(7))),
        (None, "7".into())
    );
    let missing = (Some(Rejection::Token(TokenError::Claims)), String::new());
    assert_eq!(seen(&Attempt::good()), missing);
    assert_eq!(
        seen(&Attempt::but(|a| a.token_claims["tenant"] = json!("seven"))),
        missing
    );
}

/// The keys of an issuer, in every shape in which they are published.
#[test]
fn finds_the_key_among_those_of_the_issuer() {
    let other = Key::es256();
    let named = |key: &Key, kid: Option<&str>| {
        let mut jwk = key.public_jwk();
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    };
    let with = |jwk: &Value, member: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    };
    let good = named(&ISSUER_KEY, Some("issuer"));
    let set = |keys: Vec<Value>| json!({ "keys": keys });
    let unusable = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "issuer", "pub": "AA" });
    let rows: Vec<(&str, Value, Option<TokenError>)> = vec![
        ("a single key", named(&ISSUER_KEY, None), None),
        ("a single key with kid", good.clone(), None),
        (
            "the same kid twice, the other key first",
            set(vec![named(&other, Some("issuer")), good.clone()]),
            None,
        ),
        (
            "a key without kid beside one of another",
            set(vec![named(&other, Some("other")), named(&ISSUER_KEY, None)]),
            None,
        ),
        (
            "keys of unknown types beside it",
            set(vec![
                unusable,
                json!({ "kty": "EC", "crv": "secp256k1" }),
                json!(7),
                good.clone(),
            ]),
            None,
        ),
        ("use sig", set(vec![with(&good, "use", json!("sig"))]), None),
        ("alg", set(vec![with(&good, "alg", json!("ES256"))]), None),
        (
            "key_ops verify",
            set(vec![with(&good, "key_ops", json!(["verify"]))]),
            None,
        ),
        (
            "another key under its kid",
            set(vec![named(&other, Some("issuer"))]),
            Some(TokenError::Signature),
        ),
        (
            "another kid",
            set(vec![named(&ISSUER_KEY, Some("other"))]),
            Some(TokenError::Key),
        ),
        (
            "use enc",
            set(vec![
                with(&good, "use", json!("enc")),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
        (
            "another alg",
            set(vec![
                with(&good, "alg", json!("ECDH-ES")),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
        (
            "key_ops sign",
            set(vec![
                with(&good, "key_ops", json!(["sign"])),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
        (
            "a private key",
            set(vec![
                with(&good, "d", json!("AA")),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
    ];
    for (name, jwks, rejected) in rows {
        let tokens = JwtVerifier::new(ISSUER, AUDIENCE, jwks.to_string().parse().unwrap());
        let outcome = answer_of(tokens, &Attempt::good());
        assert_eq!(outcome.rejection, rejected.map(Rejection::Token), "{name}");
    }
}

/// A token without `kid` is tried with four keys, not with a hundred.
#[test]
fn a_token_without_kid_does_not_buy_a_verification_for_every_key() {
    let mut keys: Vec<Value> = (0..3).map(|_| Key::es256().public_jwk()).collect();
    let mut anonymous = Attempt::good();
    remove(&mut anonymous.token_header, "kid");
    let outcome = |keys: &[Value]| {
        let jwks = json!({ "keys": keys }).to_string();
        answer_of(
            JwtVerifier::new(ISSUER, AUDIENCE, jwks.parse().unwrap()),
            &anonymous,
        )
    };
    keys.push(ISSUER_KEY.public_jwk());
    outcome(&keys).assert_passed("the fourth key");
    keys.insert(0, Key::es256().public_jwk());
    outcome(&keys).assert_reason("the fifth key", Rejection::Token(TokenError::Signature));
}

/// A key of the token's `kid` is found behind any number of keys without one.
#[test]
fn the_key_of_the_tokens_kid_comes_first() {
    let mut keys: Vec<Value> = (0..6).map(|_| Key::es256().public_jwk()).collect();
    let mut named = ISSUER_KEY.public_jwk();
    named["kid"] = json!("issuer");
    keys.push(named);
    let set: KeySet = json!({ "keys": keys }).to_string().parse().unwrap();
    assert!(set.has_kid("issuer") && !set.has_kid("other"));
    answer_of(JwtVerifier::new(ISSUER, AUDIENCE, set), &Attempt::good()).assert_passed("the last");
}

#[test]
fn a_document_without_usable_keys_is_rejected_at_start_up() {
    let rows = [
        ("not JSON", "keys", InvalidKeySet::Malformed),
        (
            "keys is no array",
            r#"{"keys":{}}"#,
            InvalidKeySet::Malformed,
        ),
        ("an empty set", r#"{"keys":[]}"#, InvalidKeySet::NoUsableKey),
        ("an array", "[]", InvalidKeySet::NoUsableKey),
        (
            "a symmetric key",
            r#"{"kty":"oct","k":"AAAA"}"#,
            InvalidKeySet::NoUsableKey,
        ),
        (
            "a point off the curve",
            r#"{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            InvalidKeySet::NoUsableKey,
        ),
    ];
    for (name, document, error) in rows {
        assert_eq!(document.parse::<KeySet>().unwrap_err(), error, "{name}");
    }
}

/// The proof's algorithms and the token's are two lists.
#[test]
fn the_tokens_algorithms_are_not_the_proofs() {
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_algorithms(Algorithms::only(Algorithm::Ed25519))
    }));
    let attempt = Attempt::with_key(Key::ed25519("Ed25519"));
    attempt
        .outcome_by(&layer)
        .assert_passed("an ES256 token with an Ed25519 proof");
    Attempt::good().outcome_by(&layer).assert_rejected(
        "an ES256 proof",
        401,
        Some("invalid_dpop_proof"),
    );
}
