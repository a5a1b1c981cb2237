//! The public half of a key, written and read as JSON.

use tower_dpop::jose::{InvalidJwk, Jwk};

use crate::jose::keys::{RFC_8037, rsa};

/// C-4: a header carries the required public members and nothing else.
#[test]
fn a_jwk_is_written_with_its_required_members_only() {
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
    let public = serde_json::to_value(rsa().public_key()).unwrap();
    let members: Vec<_> = public.as_object().unwrap().keys().collect();
    assert_eq!(members, ["e", "kty", "n"]);
}

#[test]
fn a_jwk_inside_other_json_is_read_as_strictly_as_alone() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (name, text, expected) in [
        ("private", RFC_8037.to_owned(), InvalidJwk::Private),
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
            "short",
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
            InvalidJwk::Coordinate,
        ),
        (
            "enc",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#),
            InvalidJwk::Use,
        ),
        (
            "twice",
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","x":"{x}"}}"#),
            InvalidJwk::Json,
        ),
        (
            "nested twice",
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
