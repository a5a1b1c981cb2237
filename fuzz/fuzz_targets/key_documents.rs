//! Any document of an issuer's keys: no panic, one result, short errors without private members, and a token verifies
//! only with its key.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tower_dpop::fuzzing::read_key_set;
use tower_dpop::testing::sign_jws;
use tower_dpop::tokens::{AccessTokenVerifier as _, EndpointUrl, PresentedToken};
use tower_dpop::{JwtVerifier, Timestamp};

#[path = "shared/mod.rs"]
mod shared;

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://as.example.com";
const AUDIENCE: &str = "https://api.example.com";

struct Fixed {
    issuer: EndpointUrl,
    x: Vec<u8>,
    token: String,
}

/// A token of the key with the scalar 0101….
static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let key = shared::p256_key(&[1; 32]);
    let public = serde_json::to_value(key.public_key()).expect("a JWK");
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "a", "client_id": "c", "jti": "1", "iat": NOW, "exp": NOW + 60,
    });
    Fixed {
        issuer: ISSUER.parse().expect("a URL"),
        x: shared::coordinate(&public["x"]),
        token: sign_jws(
            &key,
            &json!({"typ": "at+jwt", "alg": "ES256", "kid": "1"}),
            &claims,
        ),
    }
});

fuzz_target!(|document: &[u8]| {
    let fixed = &*FIXED;
    let read = read_key_set(document, &fixed.issuer);
    let again = read_key_set(document, &fixed.issuer);
    let keys = match (read, again) {
        (Ok(keys), Ok(again)) => {
            assert_eq!(keys.len(), again.len());
            keys
        }
        (Err(error), again) => {
            assert_eq!(Some(&error), again.err().as_ref());
            let shown = error.to_string();
            assert!(shown.len() < 32 * 1024, "{} bytes", shown.len());
            assert_shows_no_private_member(document, &shown);
            return;
        }
        (Ok(_), Err(error)) => panic!("the second time: {error}"),
    };
    let value: Value = serde_json::from_slice(document).expect("it was read");
    let published = value["keys"].as_array().expect("a set");
    assert!((1..=published.len().min(128)).contains(&keys.len()));
    assert_eq!(
        format!("{keys:?}"),
        format!("KeySet {{ keys: {}, .. }}", keys.len())
    );
    let named = |kid: &str| published.iter().any(|key| key["kid"] == kid);
    assert!(!keys.has_kid("1") || named("1"));

    let tokens = JwtVerifier::new(ISSUER, AUDIENCE, keys).without_cache();
    let result = shared::at_once(
        tokens.verify(PresentedToken::new(&fixed.token), Timestamp::from_unix(NOW)),
    );
    if result.is_ok() {
        assert!(
            published
                .iter()
                .any(|key| shared::coordinate(&key["x"]) == fixed.x),
            "no such key was published"
        );
    }
});

/// A private member that occurs once in the document does not occur in an error about it.
fn assert_shows_no_private_member(document: &[u8], shown: &str) {
    let Ok(value) = serde_json::from_slice::<Value>(document) else {
        return;
    };
    let keys = value["keys"].as_array().into_iter().flatten();
    for member in keys.flat_map(|key| ["d", "p", "q", "dp", "dq", "qi", "k"].map(|name| &key[name]))
    {
        // Another text is no private member, and may be the error's own words.
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_secret = |text: &&str| text.len() >= 16 && text.bytes().all(is_base64url);
        let Some(secret) = member.as_str().filter(is_secret) else {
            continue;
        };
        let occurrences = document
            .windows(secret.len())
            .filter(|window| *window == secret.as_bytes());
        assert!(
            occurrences.count() != 1 || !shown.contains(secret),
            "{shown}"
        );
    }
}
