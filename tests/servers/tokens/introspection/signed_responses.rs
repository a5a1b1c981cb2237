//! Responses that the authorization server signs (RFC 9701).

use std::sync::Mutex;

use http::StatusCode;
use serde_json::{Value, json};
use tower_dpop::testing::{TestClock, sign_jws, sign_text};
use tower_dpop::tokens::{
    AccessTokenVerifier as _, IntrospectionVerifier, KeySource, KeySourceError, PresentedToken,
    SignedResponses, TokenError,
};
use tower_dpop::{Algorithm, Algorithms, DpopLayer, KeySet, Timestamp, Verifier};

use super::{
    CLIENT_ID, RegisteredClient, SECRET, Server, TOKEN, changed_response, good_response, layer,
    layer_at, send,
};
use common::log::logged;
use common::proofs::assert_shows_nothing;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, ISSUER_KEY, Key, KeyExt as _, NOW, base64url,
    block_on, issuer_jwks, jwt_verifier, remove, rules,
};

/// A response before it is signed. A good one is used; a test makes one change to it.
struct Signed {
    header: Value,
    claims: Value,
    key: Key,
    edit: fn(String) -> String,
}

impl Signed {
    fn good() -> Self {
        Self {
            header: json!({ "typ": "token-introspection+jwt", "alg": "ES256", "kid": "issuer" }),
            claims: json!({
                "iss": ISSUER,
                "aud": CLIENT_ID,
                "iat": NOW,
                "token_introspection": good_response(),
            }),
            key: ISSUER_KEY.clone(),
            edit: |jws| jws,
        }
    }

    fn but(change: impl FnOnce(&mut Self)) -> String {
        let mut signed = Self::good();
        change(&mut signed);
        signed.text()
    }

    fn text(&self) -> String {
        (self.edit)(sign_jws(&self.key, &self.header, &self.claims))
    }
}

fn server() -> Server {
    let client = RegisteredClient::Basic(CLIENT_ID.into(), SECRET.into());
    Server::start_for(client, "application/token-introspection+jwt")
}

fn keys() -> KeySet {
    issuer_jwks().parse().unwrap()
}

fn signed_by(server: &Server, keys: impl KeySource) -> IntrospectionVerifier {
    let responses = SignedResponses::new(ISSUER, CLIENT_ID, keys);
    server.verifier().with_signed_responses(responses)
}

type Change = fn(&mut Signed);

/// RFC 9701 sections 4 and 5. The request asks for a signed response, and the response is cached as usual.
#[test]
fn a_signed_response_is_used_like_an_unsigned_one() {
    let rows: [(&str, Change); 10] = [
        ("good", |_| {}),
        ("the whole media type", |s| {
            s.header["typ"] = json!("application/token-introspection+jwt");
        }),
        ("typ in another case", |s| {
            s.header["typ"] = json!("Token-Introspection+JWT");
        }),
        ("several audiences", |s| {
            s.claims["aud"] = json!(["another", CLIENT_ID]);
        }),
        ("five minutes old", |s| s.claims["iat"] = json!(NOW - 300)),
        ("five minutes ahead", |s| s.claims["iat"] = json!(NOW + 300)),
        ("not expired", |s| s.claims["exp"] = json!(NOW + 1)),
        ("unknown members", |s| {
            s.header["x"] = json!([1]);
            s.claims["jti"] = json!("1");
        }),
        ("no kid", |s| remove(&mut s.header, "kid")),
        ("a newline at the end", |s| s.edit = |jws| jws + "\n"),
    ];
    let server = server();
    block_on(async {
        for (name, change) in rows {
            server.set_response_with_status(StatusCode::OK, Signed::but(change));
            let before = server.request_count();
            let layer = layer(signed_by(&server, keys()));
            for _ in 0..2 {
                let outcome = send(&layer, TOKEN).await;
                outcome.assert_passed(name);
                let token = outcome.token.unwrap();
                assert_eq!(token.claims().subject(), Some("alice"), "{name}");
                assert_eq!(token.claims().claim("tenant"), Some(7), "{name}");
            }
            assert_eq!(server.request_count() - before, 1, "{name}: cached");
        }
    });
    server.assert_no_errors("signed responses");
}

/// Five segments, as in a JWE.
fn encrypted(_: String) -> String {
    let header = base64url(r#"{"alg":"RSA-OAEP-256","enc":"A256GCM","cty":"JWT"}"#);
    let segment = base64url("marker-ciphertext-marker");
    format!("{header}.{segment}.{segment}.{segment}.{segment}")
}

fn wrong_headers() -> Vec<(&'static str, Change, &'static str)> {
    vec![
        (
            "no typ",
            |s| remove(&mut s.header, "typ"),
            "wrong typ: expected token-introspection+jwt",
        ),
        (
            "the typ of an access token",
            |s| s.header["typ"] = json!("at+jwt"),
            "wrong typ: expected token-introspection+jwt",
        ),
        (
            "a general typ",
            |s| s.header["typ"] = json!("JWT"),
            "wrong typ: expected token-introspection+jwt",
        ),
        (
            "another algorithm",
            |s| s.header["alg"] = json!("ES512"),
            "algorithm of the response is not accepted: expected one of ES256 ",
        ),
        (
            "no algorithm",
            |s| s.header["alg"] = json!("none"),
            "algorithm of the response is not accepted",
        ),
        (
            "a MAC",
            |s| s.header["alg"] = json!("HS256"),
            "algorithm of the response is not accepted",
        ),
        (
            "an unknown kid",
            |s| s.header["kid"] = json!("another"),
            "no key that could have signed the response",
        ),
        (
            "an extension",
            |s| s.header["crit"] = json!(["b64"]),
            "the signed response is malformed",
        ),
        (
            "a header with enc",
            |s| s.header["enc"] = json!("A256GCM"),
            "register this client without introspection_encrypted_response_alg",
        ),
        (
            "an encrypted response",
            |s| s.edit = encrypted,
            "register this client without introspection_encrypted_response_alg",
        ),
    ]
}

/// A signed response in which this member is there twice.
fn repeated(member: &str) -> String {
    let Signed {
        header,
        claims,
        key,
        ..
    } = Signed::good();
    let claims = claims.to_string();
    let (before, from) = claims.split_at(claims.find(member).unwrap());
    let end = from.find(',').unwrap() + 1;
    let twice = format!("{before}{}{from}", &from[..end]);
    sign_text(&key, header.to_string(), twice)
}

fn wrong_claims() -> Vec<(&'static str, Change, &'static str)> {
    vec![
        (
            "another issuer",
            |s| s.claims["iss"] = json!("https://marker-issuer-marker"),
            r#"from another server: expected the iss "https://as.example.com""#,
        ),
        (
            "no issuer",
            |s| remove(&mut s.claims, "iss"),
            r#"from another server: expected the iss "https://as.example.com""#,
        ),
        (
            "another service",
            |s| s.claims["aud"] = json!("marker-aud-marker"),
            r#"for another service: expected the aud "orders:api"#,
        ),
        (
            "the audience of the token only",
            |s| s.claims["aud"] = json!(AUDIENCE),
            "for another service: expected the aud",
        ),
        (
            "no audience",
            |s| remove(&mut s.claims, "aud"),
            "for another service: expected the aud",
        ),
        (
            "no iat",
            |s| remove(&mut s.claims, "iat"),
            "the signed response has no iat",
        ),
        (
            "too old",
            |s| s.claims["iat"] = json!(NOW - 301),
            "more than 5 minutes off",
        ),
        (
            "in the future",
            |s| s.claims["iat"] = json!(NOW + 301),
            "more than 5 minutes off",
        ),
        (
            "iat as text",
            |s| s.claims["iat"] = json!("now"),
            "the signed response is malformed",
        ),
        (
            "expired",
            |s| s.claims["exp"] = json!(NOW - 30),
            "the signed response has expired",
        ),
        (
            "not valid yet",
            |s| s.claims["nbf"] = json!(NOW + 31),
            "the signed response is not valid yet",
        ),
        (
            "no token_introspection",
            |s| remove(&mut s.claims, "token_introspection"),
            "no member token_introspection",
        ),
        (
            "the members at the top level",
            |s| {
                let members = s.claims["token_introspection"].take();
                let claims = s.claims.as_object_mut().unwrap();
                claims.remove("token_introspection");
                claims.extend(members.as_object().unwrap().clone());
                s.claims["aud"] = json!([CLIENT_ID, AUDIENCE]);
                remove(&mut s.claims, "exp");
                s.claims["iat"] = json!(NOW);
            },
            "no member token_introspection",
        ),
        (
            "a text in token_introspection",
            |s| s.claims["token_introspection"] = json!(good_response().to_string()),
            "not an introspection response",
        ),
        (
            "a claim twice",
            |s| s.edit = |_| repeated(r#""iat":"#),
            "the signed response is malformed",
        ),
        (
            "active twice",
            |s| s.edit = |_| repeated(r#""active":"#),
            "not an introspection response",
        ),
        (
            "no active",
            |s| remove(&mut s.claims["token_introspection"], "active"),
            "not an introspection response",
        ),
    ]
}

fn wrong_signatures() -> Vec<(&'static str, Change, &'static str)> {
    vec![
        (
            "another key",
            |s| s.key = Key::es256(),
            "the signature of the response does not verify",
        ),
        (
            "changed claims",
            |s| {
                s.edit = |jws| {
                    let mut others = Signed::good();
                    others.claims["token_introspection"]["tenant"] = json!(8);
                    let others = others.text();
                    let (signed, signature) = jws.rsplit_once('.').unwrap();
                    let header = signed.split_once('.').unwrap().0;
                    let claims = others.split('.').nth(1).unwrap();
                    format!("{header}.{claims}.{signature}")
                };
            },
            "the signature of the response does not verify",
        ),
        (
            "no signature",
            |s| s.edit = |jws| jws.rsplit_once('.').unwrap().0.to_owned() + ".",
            "the signature of the response does not verify",
        ),
        (
            "two segments",
            |s| s.edit = |jws| jws.rsplit_once('.').unwrap().0.to_owned(),
            "not signed: expected application/token-introspection+jwt",
        ),
        (
            "unsigned JSON",
            |s| s.edit = |_| good_response().to_string(),
            "not signed: expected application/token-introspection+jwt",
        ),
        (
            "a JSON string",
            |s| s.edit = |jws| json!(jws).to_string(),
            "not signed: expected application/token-introspection+jwt",
        ),
        (
            "nothing",
            |s| s.edit = |_| String::new(),
            "not signed: expected application/token-introspection+jwt",
        ),
    ]
}

/// D13, D21: the client gets a 503 without a challenge, and the log says what was expected and nothing that the
/// response says.
#[test]
fn any_other_response_is_a_server_error() {
    let server = server();
    let rows = [wrong_headers(), wrong_claims(), wrong_signatures()].concat();
    for (name, change, reason) in rows {
        let mut signed = Signed::good();
        signed.claims["token_introspection"]["sub"] = json!("marker-subject-marker");
        change(&mut signed);
        let body = signed.text();
        server.set_response_with_status(StatusCode::OK, body.clone());
        let layer = layer(signed_by(&server, keys()));
        let mut outcome = None;
        let ((), log) = logged(|| block_on(async { outcome = Some(send(&layer, TOKEN).await) }));
        outcome.unwrap().assert_unavailable(name);
        let target = "tower_dpop::tokens::introspection";
        let events: Vec<&str> = log.lines().filter(|line| line.contains(target)).collect();
        assert_eq!(events.len(), 1, "{name}: {log}");
        assert!(
            events[0].contains(" WARN") && events[0].contains(reason),
            "{name}: {events:?}"
        );
        let mut hidden = vec![
            TOKEN,
            SECRET,
            "marker-subject-marker",
            "marker-issuer-marker",
        ];
        hidden.extend(["marker-aud-marker", "marker-ciphertext-marker"]);
        // The segments of a JWT.
        hidden.extend(body.split('.').filter(|segment| {
            segment.len() >= 40
                && !segment.contains(|c: char| c.is_ascii_punctuation() && !"-_".contains(c))
        }));
        assert_shows_nothing(name, &log, &hidden);
    }
    server.assert_no_errors("rejected responses");
}

/// What is inside is checked like an unsigned response.
#[test]
fn the_rules_for_tokens_are_the_same() {
    let server = server();
    let inside = |response: Value| Signed::but(|s| s.claims["token_introspection"] = response);
    let rows = [
        ("inactive", json!({ "active": false }), TokenError::Invalid),
        (
            "another audience",
            changed_response(|r| r["aud"] = json!("https://another.example")),
            TokenError::Audience,
        ),
        (
            "expired",
            changed_response(|r| r["exp"] = json!(NOW - 30)),
            TokenError::Expired,
        ),
        ("null", Value::Null, TokenError::Unavailable),
    ];
    block_on(async {
        for (name, response, error) in rows {
            let layer = layer(signed_by(&server, keys()));
            server.set_response_with_status(StatusCode::OK, inside(response));
            let outcome = send(&layer, TOKEN).await;
            outcome.assert_reason(name, error);
            // Only valid tokens are cached.
            server.set_response_with_status(StatusCode::OK, Signed::good().text());
            send(&layer, TOKEN).await.assert_passed(name);
        }
        let error = r#"{"error":"unsupported_token_type"}"#;
        server.set_response_with_status(StatusCode::BAD_REQUEST, error);
        let outcome = send(&layer(signed_by(&server, keys())), TOKEN).await;
        outcome.assert_reason("an unsigned error", TokenError::Invalid);
    });
}

/// RFC 9701 section 8.1: members beside `token_introspection` say nothing about the token.
#[test]
fn the_claims_of_the_response_are_not_those_of_the_token() {
    let server = server();
    let text = Signed::but(|s| {
        s.claims["sub"] = json!("mallory");
        s.claims["scope"] = json!("admin");
        s.claims["active"] = json!(false);
        s.claims["cnf"] = json!({ "jkt": Key::es256().jkt() });
        s.claims["exp"] = json!(NOW + 5);
        remove(&mut s.claims["token_introspection"], "exp");
    });
    server.set_response_with_status(StatusCode::OK, text);
    block_on(async {
        let clock = TestClock::at(NOW);
        let layer = layer_at(&clock, signed_by(&server, keys()));
        let outcome = send(&layer, TOKEN).await;
        outcome.assert_passed("other claims");
        let token = outcome.token.unwrap();
        assert_eq!(token.claims().subject(), Some("alice"));
        assert!(!token.claims().has_scope("admin"));
        assert_eq!(token.expires(), None);
    });
}

/// RFC 9701 section 8.1: a client that got hold of a response cannot use it as an access token.
#[test]
fn a_signed_response_is_not_an_access_token() {
    let response = Signed::but(|s| {
        s.claims["aud"] = json!(AUDIENCE);
        s.claims["exp"] = json!(NOW + 600);
        s.claims["cnf"] = json!({ "jkt": common::keys::client().jkt() });
    });
    let layer = DpopLayer::new(Verifier::new(rules(), jwt_verifier().with_lenient_typ()));
    let attempt = Attempt::but(|a| a.token = Some(response));
    attempt
        .outcome_by(&layer)
        .assert_reason("a response", TokenError::Type);
}

/// A source with another set after the first.
struct Rotated(Mutex<Vec<Option<KeySet>>>);

impl KeySource for Rotated {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        let keys = self.0.lock().unwrap().first().cloned();
        keys.flatten().ok_or(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        self.0.lock().unwrap().remove(0);
        self.key_set(now).await.map(Some)
    }
}

#[test]
fn the_keys_are_those_of_the_source() {
    let old: KeySet = Key::es256().public_jwk().to_string().parse().unwrap();
    let server = server();
    server.set_response_with_status(StatusCode::OK, Signed::good().text());
    let rows = [
        (
            "after a rotation",
            vec![Some(old.clone()), Some(keys())],
            true,
        ),
        (
            "before a rotation",
            vec![Some(old.clone()), Some(old.clone())],
            false,
        ),
        ("unreachable", vec![None], false),
        ("unreachable after a rotation", vec![Some(old), None], false),
    ];
    for (name, sets, passes) in rows {
        let reachable = sets.iter().all(Option::is_some);
        let layer = layer(signed_by(&server, Rotated(Mutex::new(sets))));
        let mut outcome = None;
        let ((), log) = logged(|| block_on(async { outcome = Some(send(&layer, TOKEN).await) }));
        if passes {
            outcome.unwrap().assert_passed(name);
        } else {
            outcome.unwrap().assert_unavailable(name);
            let is_about_keys = log.contains("keys of the authorization server are not available");
            assert_eq!(is_about_keys, !reachable, "{name}: {log}");
        }
    }
}

#[test]
fn the_algorithms_can_be_chosen() {
    let server = server();
    server.set_response_with_status(StatusCode::OK, Signed::good().text());
    block_on(async {
        for (algorithm, passes) in [(Algorithm::Es256, true), (Algorithm::Ps256, false)] {
            let responses = SignedResponses::new(ISSUER, CLIENT_ID, keys())
                .with_algorithms(Algorithms::only(algorithm));
            let tokens = server.verifier().with_signed_responses(responses);
            let outcome = send(&layer(tokens), TOKEN).await;
            if passes {
                outcome.assert_passed("ES256");
            } else {
                outcome.assert_unavailable("PS256");
            }
        }
    });
}

/// What was cached from unsigned responses is not used.
#[test]
fn requiring_signed_responses_empties_the_cache() {
    let (unsigned, now) = (Server::with_basic(), Timestamp::from_unix(NOW));
    let responses = SignedResponses::new(ISSUER, CLIENT_ID, keys());
    block_on(async {
        let tokens = unsigned.verifier();
        let token = || PresentedToken::new(TOKEN);
        assert!(tokens.verify(token(), now).await.is_ok());
        let tokens = tokens.with_signed_responses(responses);
        let outcome = tokens.verify(token(), now).await;
        assert_eq!(outcome.unwrap_err(), TokenError::Unavailable);
        assert_eq!(unsigned.request_count(), 2);
    });
}
