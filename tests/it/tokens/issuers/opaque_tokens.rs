//! Tokens that are not JWTs.

use serde_json::{Value, json};
use tower_dpop::Issuers;
use tower_dpop::tokens::{Confirmation, TokenError};

use super::{MakeToken, NO_CALLS, OPAQUE_VERIFIER, OUR_KEYS, Row, TwoIssuers, assert_rows, verify};
use common::{Key, KeyExt as _, NOW, base64url};

/// A JWT never does, not even a forged one.
#[test]
#[expect(clippy::too_many_lines, reason = "a table and its issuers")]
fn a_token_that_is_not_a_jwt_goes_to_the_verifier_of_opaque_tokens() {
    let rows: [Row; 17] = [
        (
            "opaque",
            |_| "2YotnFZFEjr1zCsicMWpAA".into(),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        ("padded", |_| "AbCd/+==".into(), Ok(()), OPAQUE_VERIFIER),
        (
            "two segments",
            |_| "ya29.a0AfH6S".into(),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "a JWE",
            |_| jwe(&json!({ "alg": "dir", "enc": "A256GCM" })),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "a JWE with an encrypted key, typ and kid",
            |_| jwe(&json!({ "typ": "at+jwt", "alg": "RSA-OAEP", "enc": "A256GCM", "kid": "1" })),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "dots everywhere",
            |_| "..a...b.".into(),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "a JSON object without an algorithm",
            |_| jwe(&json!({ "kid": "1" })),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "the beginning of a JSON object",
            |_| "eyJhbGciOiJFUzI1NiI.eyJ.A".into(),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "only the header of a JWT",
            |_| base64url(r#"{"alg":"ES256"}"#),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        (
            "revoked",
            |_| "revoked".into(),
            Err(TokenError::Invalid),
            OPAQUE_VERIFIER,
        ),
        (
            "the verifier is unreachable",
            |_| "unreachable".into(),
            Err(TokenError::Unavailable),
            OPAQUE_VERIFIER,
        ),
        (
            "three segments that are not base64url",
            |_| "v1.public.A".into(),
            Ok(()),
            OPAQUE_VERIFIER,
        ),
        ("a JWT", |w| w.our_token().to_text(), Ok(()), OUR_KEYS),
        (
            "a forged JWT",
            |w| w.our_token().signed_by(Key::es256()).to_text(),
            Err(TokenError::Signature),
            OUR_KEYS,
        ),
        (
            "a JWT that names the issuer of opaque tokens",
            |w| {
                let token = w
                    .our_token()
                    .with_claim("iss", "https://opaque.example.com");
                token.to_text()
            },
            Err(TokenError::Issuer),
            NO_CALLS,
        ),
        (
            "a JWT without a signature",
            |w| {
                let token = w.our_token().with_header("alg", "none").to_text();
                format!("{}.", token.rsplit_once('.').unwrap().0)
            },
            Err(TokenError::Algorithm),
            NO_CALLS,
        ),
        (
            "three segments of base64url",
            |_| "AAAA.AAAA.AAAA".into(),
            Err(TokenError::Malformed),
            NO_CALLS,
        ),
    ];
    assert_rows(&rows, |w| w.issuers().with_opaque_tokens(w.opaque()));
    let setup = TwoIssuers::new();
    let tokens = Issuers::new().with_opaque_tokens(setup.opaque());
    let token = verify(&tokens, "opaque").unwrap();
    assert_eq!(*token.claims(), json!({ "opaque": "opaque" }));
    assert_eq!(token.confirmation(), Confirmation::Unbound);
}

/// Five segments, of which the first is this header.
fn jwe(header: &Value) -> String {
    format!("{}..AAAA.AAAA.AAAA", base64url(header.to_string()))
}

/// The client must not be able to choose the verifier by altering a JWT: a lax introspection
/// endpoint might ignore the alteration.
#[test]
fn an_altered_jwt_is_not_an_opaque_token() {
    type Alter = fn(&str) -> String;
    let tokens: [(&str, MakeToken); 5] = [
        ("ours", |w| w.our_token().to_text()),
        ("the partner's", |w| w.partners_token().to_text()),
        ("expired", |w| {
            w.our_token().with_claim("exp", NOW - 60).to_text()
        }),
        ("of another issuer", |w| {
            let token = w.our_token();
            token
                .with_claim("iss", "https://evil.example.com")
                .to_text()
        }),
        ("without a typ", |w| {
            w.our_key.sign_text(r#"{"alg":"ES256"}"#, "{}")
        }),
    ];
    let alterations: [(&str, Alter); 12] = [
        ("padded", |token| format!("{token}=")),
        ("padded twice", |token| format!("{token}==")),
        ("an extra dot", |token| format!("{token}.")),
        ("an extra tilde", |token| format!("{token}~")),
        ("padding and a dot", |token| format!("{token}=.")),
        ("a character outside base64url", |token| format!("{token}+")),
        ("an extra segment", |token| format!("{token}.AAAA")),
        ("five segments", |token| format!("{token}.AAAA.AAAA")),
        ("white space", |token| format!("{token} ")),
        // The last character of an ES256 signature has four unused bits.
        ("unused bits of the signature", |token| {
            let (rest, last) = token.split_at(token.len() - 1);
            let last = last.bytes().next().unwrap();
            assert!(b"AQgw".contains(&last));
            format!("{rest}{}", char::from(last + 1))
        }),
        ("padded claims", |token| {
            let (signing_input, signature) = token.rsplit_once('.').unwrap();
            format!("{signing_input}=.{signature}")
        }),
        ("no signature", |token| {
            token.rsplit_once('.').unwrap().0.to_owned()
        }),
    ];
    for (whose, make) in tokens {
        for (how, alter) in alterations {
            let setup = TwoIssuers::new();
            let tokens = setup.issuers().with_opaque_tokens(setup.opaque());
            let result = verify(&tokens, &alter(&make(&setup))).map(drop);
            assert_eq!(
                (result, setup.calls()),
                (Err(TokenError::Malformed), NO_CALLS),
                "{whose}, {how}"
            );
        }
    }
}
