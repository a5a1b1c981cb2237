//! Any introspection response, plain or signed: no panic, one result, and an active token is what the response says.
//!
//! An input is the body of a response. It is also read as a response that the server signed, with its first line as the
//! header and the rest as the claims.
#![no_main]

use std::sync::LazyLock;

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_dpop::fuzzing::{introspected, read_introspection};
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::sign_text;
use tower_dpop::tokens::{
    ClientAuthentication, Confirmation, EndpointUrl, HttpClient, IntrospectionVerifier,
    SignedResponses,
};
use tower_dpop::{KeySet, Timestamp};

#[path = "shared/mod.rs"]
mod shared;

const NOW: u32 = 1_700_000_000;
const ISSUER: &str = "https://as.example.com";
const AUDIENCE: &str = "https://api.example.com";

struct Fixed {
    key: SigningKey,
    responses: SignedResponses,
    verifier: IntrospectionVerifier,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let key = shared::ed25519_key();
    let jwk = serde_json::to_string(key.public_key()).expect("a JWK");
    let keys: KeySet = jwk.parse().expect("a key");
    let endpoint: EndpointUrl = "https://as.example.com/introspect".parse().expect("a URL");
    let client = ClientAuthentication::basic("orders-api", "a secret");
    let http = HttpClient::new().expect("TLS");
    Fixed {
        key,
        responses: SignedResponses::new(ISSUER, "orders-api", keys),
        verifier: IntrospectionVerifier::new(endpoint, client, AUDIENCE, http).with_issuer(ISSUER),
    }
});

fuzz_target!(|input: &[u8]| {
    let fixed = &*FIXED;
    for status in [200, 400, 401] {
        match read(status, input, None) {
            Ok(Some(members)) => {
                assert_eq!(status, 200);
                assert_eq!(members, input);
                assert_is_what_it_says(&members);
            }
            Ok(None) => assert_ne!(status, 401),
            Err(shown) => assert!(shown.len() < 512, "{shown}"),
        }
    }
    let unsigned = read(200, input, Some(&fixed.responses));
    assert!(unsigned.is_err(), "no one has signed {unsigned:?}");

    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (header, claims) = (&input[..end], &input[end + 1..]);
    let signed = sign_text(&fixed.key, header, claims);
    match read(200, signed.as_bytes(), Some(&fixed.responses)) {
        Ok(members) => {
            assert_is_for_this_service(header, claims);
            if let Some(members) = members {
                let is_part = claims.windows(members.len()).any(|part| part == members);
                assert!(is_part, "the members are not as they were signed");
                assert_is_what_it_says(&members);
            }
        }
        Err(shown) => assert!(shown.len() < 512, "{shown}"),
    }
});

fn now() -> Timestamp {
    Timestamp::from_unix(NOW.into())
}

fn read(
    status: u16,
    body: &[u8],
    signed: Option<&SignedResponses>,
) -> Result<Option<Vec<u8>>, String> {
    let status = StatusCode::from_u16(status).expect("a status");
    let once = || shared::at_once(read_introspection(status, body, signed, now()));
    let result = once();
    assert_eq!(result, once());
    result
}

fn assert_is_for_this_service(header: &[u8], claims: &[u8]) {
    let header: Value = serde_json::from_slice(header).expect("it was read");
    let typ = header["typ"].as_str().expect("a text").to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    assert_eq!(typ, "token-introspection+jwt");
    let claims: Value = serde_json::from_slice(claims).expect("it was read");
    assert_eq!(claims["iss"], ISSUER);
    assert!(has_audience(&claims, "orders-api"));
    let now = f64::from(NOW);
    let iat = claims["iat"].as_f64().expect("a number");
    assert!((now - iat).abs() <= 300.0);
    assert!(claims["exp"].as_f64().is_none_or(|exp| now < exp + 30.0));
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf - 30.0 <= now));
}

/// The response is active, and an accepted token has its audience, issuer, binding and claims.
fn assert_is_what_it_says(members: &[u8]) {
    let value: Value = serde_json::from_slice(members).expect("it was read");
    assert_eq!(value["active"], true);
    let read = || introspected(&FIXED.verifier, members, now());
    let token = match (read(), read()) {
        (Ok(token), Ok(again)) => {
            assert_eq!(token.confirmation(), again.confirmation());
            token
        }
        (first, second) => {
            assert_eq!(first.err(), second.err());
            return;
        }
    };
    assert!(has_audience(&value, AUDIENCE));
    assert!(value["iss"].is_null() || value["iss"] == ISSUER);
    let jkt = &value["cnf"]["jkt"];
    let is_bound = match token.confirmation() {
        Confirmation::Thumbprint(thumbprint) => {
            assert_eq!(*jkt, thumbprint.to_string());
            true
        }
        Confirmation::Unbound => {
            assert!(value["cnf"].is_null());
            false
        }
        _ => {
            assert!(value["cnf"].is_object() && jkt.is_null());
            false
        }
    };
    if let Some(token_type) = value["token_type"].as_str() {
        let expected = if is_bound { "DPoP" } else { "Bearer" };
        assert!(token_type.eq_ignore_ascii_case(expected));
    }
    assert_eq!(token.expires().is_some(), value["exp"].is_number());
    assert_eq!(token.claims().subject(), value["sub"].as_str());
    assert_eq!(format!("{:?}", token.claims()), "IntrospectedClaims(..)");
}

fn has_audience(value: &Value, audience: &str) -> bool {
    match &value["aud"] {
        Value::Array(several) => several.iter().any(|one| one == audience),
        one => one == audience,
    }
}
