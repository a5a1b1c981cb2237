//! Public JWKs in `serde`.

use common::{Key, KeyExt as _};
use tower_dpop::jose::{InvalidJwk, Jwk};

use crate::jose::keys::RFC_8037;

/// C-4: a header contains the required public members only.
#[test]
fn serializes_the_required_members_only() {
    for (name, text, written) in [
        (
            "EC",
            r#"{"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","kid":"1","use":"sig","alg":"ES256","crv":"P-256","kty":"EC"}"#,
            r#"{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        ),
        (
            "OKP",
            r#"{"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP","crv":"Ed25519","key_ops":["verify"]}"#,
            r#"{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        ),
    ] {
        let jwk: Jwk = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&jwk).unwrap(), written, "{name}");
        let again: Jwk = serde_json::from_str(written).unwrap();
        assert_eq!(again.thumbprint(), jwk.thumbprint(), "{name}");
        let from_value: Jwk = serde_json::from_value(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(from_value.thumbprint(), jwk.thumbprint(), "{name}");
    }
    let public = serde_json::to_value(Key::rsa("PS256").public_key()).unwrap();
    let members: Vec<_> = public.as_object().unwrap().keys().collect();
    assert_eq!(members, ["e", "kty", "n"]);
}

#[test]
fn deserializes_a_nested_jwk_as_strictly_as_from_str() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (name, text, expected) in [
        ("a private key", RFC_8037.to_owned(), InvalidJwk::Private),
        (
            "no kty",
            format!(r#"{{"crv":"Ed25519","x":"{x}"}}"#),
            InvalidJwk::Missing,
        ),
        (
            "X25519",
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{x}"}}"#),
            InvalidJwk::KeyType,
        ),
        (
            "x is too short",
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
            InvalidJwk::Coordinate,
        ),
        (
            "use is enc",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#),
            InvalidJwk::Use,
        ),
        (
            "a duplicate member",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","x":"{x}"}}"#),
            InvalidJwk::Json,
        ),
        (
            "a duplicate member in a nested object",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","a":{{"b":1,"b":1}}}}"#),
            InvalidJwk::Json,
        ),
        ("a string", format!("\"{x}\""), InvalidJwk::Json),
        ("null", "null".to_owned(), InvalidJwk::Json),
    ] {
        assert_eq!(text.parse::<Jwk>().unwrap_err(), expected, "{name}");
        let inside = serde_json::from_str::<Vec<Jwk>>(&format!("[{text}]")).unwrap_err();
        if expected != InvalidJwk::Json {
            let message = inside.to_string();
            assert!(
                message.starts_with(&expected.to_string()),
                "{name}: {message}"
            );
        }
    }
}
