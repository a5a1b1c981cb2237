//! The three ways to authenticate to the introspection endpoint, and that no secret is shown.

use std::fmt::{Debug, Write as _};
use std::time::Duration;

use serde_json::Value;
use tower_dpop::KeySet;
use tower_dpop::jose::{SigningKey, SigningKeyError};
use tower_dpop::tokens::{ClientAuthentication, IntrospectedClaims, SignedResponses};

use super::{CLIENT_ID, RegisteredClient, SECRET, Server, TOKEN, clients, layer, send};
use common::proofs::assert_shows_nothing;
use common::{AUDIENCE, ISSUER, Key, KeyExt as _, block_on, issuer_jwks};

/// [`EndpointState::check`](super::EndpointState::check) rejects a `DPoP` field, and form
/// members other than the token, the hint and the credentials.
#[test]
fn authenticates_in_each_of_three_ways() {
    fn assertion_key(key: &Key) -> SigningKey {
        SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap()
    }
    fn by_key(key: &Key, kid: Option<&'static str>) -> RegisteredClient {
        RegisteredClient::Key(CLIENT_ID.into(), key.public_key().clone(), kid)
    }
    let secrets = [
        ("plain", "s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw"),
        ("special", CLIENT_ID, SECRET),
        ("a colon in each", "a:b", "c:d"),
        ("already encoded", "a%3Ab", "c%2Bd+e"),
        ("an empty secret", "id", ""),
        ("control characters", "a\nb", "c\0d\r\n"),
    ];
    let mut rows: Vec<(String, RegisteredClient, ClientAuthentication)> = Vec::new();
    for (name, id, secret) in secrets {
        rows.push((
            format!("client_secret_basic, {name}"),
            RegisteredClient::Basic(id.into(), secret.into()),
            ClientAuthentication::basic(id, secret),
        ));
        rows.push((
            format!("client_secret_post, {name}"),
            RegisteredClient::Post(id.into(), secret.into()),
            ClientAuthentication::post(id, secret),
        ));
    }
    for key in [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("PS256"),
        Key::rsa("RS256"),
    ] {
        let signing_key = assertion_key(&key).with_algorithm(key.algorithm()).unwrap();
        rows.push((
            format!("private_key_jwt, {}", key.alg()),
            by_key(&key, None),
            ClientAuthentication::private_key_jwt(CLIENT_ID, signing_key, ISSUER),
        ));
    }
    let key = Key::es256();
    let der = SigningKey::from_pkcs8_der(key.to_pkcs8_der().unwrap().as_bytes());
    let jwk = SigningKey::from_jwk(key.to_jwk().unwrap().as_str());
    for (name, signing_key, kid) in [
        ("from PEM", assertion_key(&key), None),
        ("from DER", der.unwrap(), None),
        ("from a JWK", jwk.unwrap(), None),
        (
            "with a kid",
            assertion_key(&key).with_key_id("2025-11"),
            Some("2025-11"),
        ),
    ] {
        rows.push((
            format!("private_key_jwt, {name}"),
            by_key(&key, kid),
            ClientAuthentication::private_key_jwt(CLIENT_ID, signing_key, ISSUER),
        ));
    }
    block_on(async {
        for (name, registered, client) in rows {
            let server = Server::start(registered);
            let layer = layer(
                server
                    .verifier_as(client)
                    .with_cache_lifetime(Duration::ZERO),
            );
            for _ in 0..2 {
                let outcome = send(&layer, TOKEN).await;
                server.assert_no_errors(&name);
                outcome.assert_passed(&name);
            }
            assert_eq!(server.request_count(), 2, "{name}");
            let form = server.state.form.lock().unwrap().clone();
            assert_eq!(form[0], ("token".to_owned(), TOKEN.to_owned()), "{name}");
        }
    });
}

/// Shows that the checks of the test server are effective.
#[test]
fn the_test_server_rejects_other_assertions() {
    let key = Key::es256();
    let signing_key =
        |key: &Key| SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
    let server = Server::start(RegisteredClient::Key(
        "id".into(),
        key.public_key().clone(),
        None,
    ));
    block_on(async {
        for (name, client) in [
            (
                "another key",
                ClientAuthentication::private_key_jwt("id", signing_key(&Key::es256()), ISSUER),
            ),
            (
                "another audience",
                ClientAuthentication::private_key_jwt("id", signing_key(&key), AUDIENCE),
            ),
            (
                "another client",
                ClientAuthentication::private_key_jwt("other", signing_key(&key), ISSUER),
            ),
        ] {
            let outcome = send(&layer(server.verifier_as(client)), TOKEN).await;
            outcome.assert_unavailable(name);
        }
        assert_eq!(server.state.errors.lock().unwrap().len(), 3);
    });
}

#[test]
fn debug_shows_no_secrets_and_no_personal_data() {
    let server = Server::with_basic();
    let claims = block_on(async {
        let outcome = send(&layer(server.verifier()), TOKEN).await;
        let token = outcome.token.unwrap();
        let claims: IntrospectedClaims = token.claims().clone();
        claims
    });
    let keys: KeySet = issuer_jwks().parse().unwrap();
    for (_, client, mut secrets) in clients() {
        let mut shown = String::new();
        let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
        show(&client);
        show(&server.verifier_as(client.clone()));
        show(&layer(server.verifier_as(client.clone())));
        let responses = SignedResponses::new(ISSUER, CLIENT_ID, keys.clone());
        show(&server.verifier_as(client).with_signed_responses(responses));
        show(&claims);
        show(&SigningKeyError::Mismatch);
        assert!(shown.contains("IntrospectionVerifier"), "{shown}");
        assert!(shown.contains("SignedResponses"), "{shown}");
        secrets.extend(["Alice L.", "orders.read"].map(str::to_owned));
        assert_shows_nothing("Debug", &shown, &secrets);
    }
    let key = Key::es256();
    let signing_key = SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
    let shown = format!("{:?}", signing_key.with_key_id("2025-11"));
    let private: Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let secrets = ["d", "x", "y"].map(|member| private[member].as_str().unwrap().to_owned());
    assert!(
        shown.contains("Es256") && shown.contains("2025-11"),
        "{shown}"
    );
    assert_shows_nothing("Debug of a key", &shown, &secrets);
}
