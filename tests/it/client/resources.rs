//! The layer for resource servers. The rules that it shares with the layer for the authorization
//! server are tested in `exchange`.

use std::collections::HashSet;
use std::fmt::Debug;

use http::{Request, Version};
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::client::{
    ClientError, CloneBody, DpopClientLayer, TokenClientLayer, TokenSourceError,
};
use tower_dpop::jose::SigningError;

use common::proofs::{ReadProof, assert_shows_nothing};
use common::{AUDIENCE, ISSUER, NOW, block_on, field};

use super::{
    MockServer, ORDERS, ServerKind, TOKEN, expect_error, key, ok, ok_with_nonce, response_with,
    send, token, url,
};

/// C-3, C-15, C-17: they replace existing ones, and the rest of the request is unchanged.
#[test]
fn sends_the_token_and_exactly_one_proof() {
    let server = MockServer::new(|_, _| ok());
    let mut request = Request::builder()
        .method("PATCH")
        .uri("https://api.example.com/a/../orders?page=2")
        .version(Version::HTTP_2)
        .header("dpop", "one")
        .header("dpop", "two")
        .header("authorization", "Bearer stale")
        .header("authorization", "DPoP stale")
        .header("cookie", "a=b")
        .body("body".to_owned())
        .unwrap();
    request.extensions_mut().insert(7_u8);
    send(&ServerKind::Resource.client(&server), request);
    let [head] = server.requests().try_into().unwrap();
    let proof = ReadProof::in_headers(&head.headers);
    proof.assert_signed("C-3");
    assert_eq!(proof.claim("htm"), Some("PATCH"));
    assert_eq!(proof.claim("htu"), Some(ORDERS));
    assert_eq!(proof.claim("ath"), Some(common::ath(TOKEN).as_str()));
    assert_eq!(proof.iat(), NOW);
    let authorizations: Vec<_> = head.headers.get_all("authorization").iter().collect();
    let [authorization] = authorizations.as_slice() else {
        panic!("C-15: {} Authorization fields", authorizations.len());
    };
    assert_eq!(*authorization, &format!("DPoP {TOKEN}"), "C-15");
    assert!(authorization.is_sensitive());
    let fields: HashSet<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(
        fields,
        HashSet::from(["authorization", "cookie", "dpop"]),
        "C-17: no Proxy-Authorization"
    );
    assert_eq!(head.uri, "https://api.example.com/a/../orders?page=2");
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.extensions.get(), Some(&7_u8));
}

/// C-19: not even to a server that asks for one.
#[test]
fn never_sends_the_token_as_a_bearer_token() {
    let server = MockServer::new(|_, _| {
        response_with(
            401,
            &[("www-authenticate", r#"Bearer error="invalid_token""#)],
            "",
        )
    });
    let client = ServerKind::Resource.client(&server);
    for _ in 0..3 {
        let mut request = ServerKind::Resource.request();
        let bearer = field(format!("Bearer {TOKEN}").as_bytes());
        request.headers_mut().insert("authorization", bearer);
        assert_eq!(send(&client, request).status(), 401);
    }
    assert_eq!(server.request_count(), 3);
    for head in server.requests() {
        assert_eq!(head.headers["authorization"], format!("DPoP {TOKEN}"));
    }
}

/// Of both layers.
#[test]
fn debug_and_errors_show_no_secret() {
    let nonce = "nonce-of-the-server-1234";
    let key = key();
    let server = MockServer::new(move |_, _| ok_with_nonce(nonce));
    let resource = DpopClientLayer::new(key.clone(), token(), url(AUDIENCE));
    let tokens = TokenClientLayer::new(key.clone(), url(ISSUER));
    let (client, token_client) = (resource.layer(server.clone()), tokens.layer(server.clone()));
    block_on(client.clone().oneshot(ServerKind::Resource.request())).unwrap();
    let response = block_on(token_client.clone().oneshot(ServerKind::Token.request())).unwrap();
    let other_server = Request::get("https://evil.example.com/")
        .body(String::new())
        .unwrap();
    let error = expect_error(block_on(client.clone().oneshot(other_server)));
    let private: serde_json::Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let proofs = server.proofs();
    let (ath, jkt) = (common::ath(TOKEN), key.thumbprint().to_string());
    let mut secrets = vec![TOKEN, nonce, &ath, &jkt];
    secrets.extend(["d", "x", "y"].map(|member| private[member].as_str().unwrap()));
    secrets.extend(proofs.iter().flat_map(|proof| proof.text.split('.')));
    let shown: [(&str, &dyn Debug); 9] = [
        ("DpopClientLayer", &resource),
        ("DpopClientService", &client),
        ("TokenClientLayer", &tokens),
        ("TokenClient", &token_client),
        ("ResponseBody", response.body()),
        ("CloneBody", &CloneBody),
        ("OtherServer", &error),
        (
            "Token",
            &ClientError::Token(TokenSourceError::new("logged out")),
        ),
        (
            "Signing",
            &ClientError::Signing(SigningError::new("timeout")),
        ),
    ];
    for (name, value) in shown {
        assert_shows_nothing(name, &format!("{value:?} {value:#?}"), &secrets);
    }
    let debug = format!("{client:?}");
    assert!(
        debug.contains(AUDIENCE),
        "the servers are not shown: {debug}"
    );
    for head in server.requests() {
        assert_shows_nothing("the request", &format!("{:?}", head.headers), &secrets);
    }
}
