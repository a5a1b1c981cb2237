//! Access tokens, token responses, and token sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request};
use proptest::prelude::*;
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::client::{
    AccessTokenText, ClientError, DpopClientLayer, InvalidAccessToken, InvalidTokenResponse,
    TokenErrorResponse, TokenResponse, TokenSource, TokenSourceError,
};

use common::proofs::ReadProof;
use common::{AUDIENCE, block_on, field};

use super::{MockServer, ServerKind, TOKEN, access_token, expect_error, key, ok, token, url};

/// C-15
#[test]
fn accepts_only_tokens_that_fit_into_an_authorization_field() {
    for text in [TOKEN, "a", "abc==", "a+b/c", "-._~"] {
        let token = access_token(text);
        assert_eq!(token.as_str(), text);
        assert_eq!(token.authorization(), &format!("DPoP {text}"), "C-15");
        assert!(token.authorization().is_sensitive());
    }
    for text in [
        "",
        "=",
        "a b",
        " a",
        "a ",
        "a\r\nX: y",
        "a\0",
        "a=b",
        "a,b",
        "\"a\"",
        "ä",
        "a%20b",
    ] {
        assert_eq!(
            text.parse::<AccessTokenText>().map(|_| ()),
            Err(InvalidAccessToken),
            "{text:?}"
        );
    }
}

/// Access token, `expires_in`, `refresh_token`, `scope`.
type Granted = (
    &'static str,
    Option<Duration>,
    Option<&'static str>,
    Option<&'static str>,
);

/// C-13
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn accepts_only_bound_tokens_from_a_token_response() {
    use InvalidTokenResponse::{Malformed, NotBound};
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let bare = ("t", None, None, None);
    let rows: [(&str, &str, Result<Granted, InvalidTokenResponse>); 43] = [
        (
            "C-13: RFC 9449, Figure 6",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":2677,"refresh_token":"Q..Zkm","scope":"a b"}"#,
            Ok(("t", seconds(2677), Some("Q..Zkm"), Some("a b"))),
        ),
        (
            "C-13: lower case",
            r#"{"access_token":"t","token_type":"dpop"}"#,
            Ok(bare),
        ),
        (
            "C-13: mixed case",
            r#"{"access_token":"t","token_type":"dPOP"}"#,
            Ok(bare),
        ),
        (
            "C-13: bearer",
            r#"{"access_token":"t","token_type":"Bearer"}"#,
            Err(NotBound),
        ),
        (
            "C-13: an empty type",
            r#"{"access_token":"t","token_type":""}"#,
            Err(NotBound),
        ),
        (
            "C-13: a space after the type",
            r#"{"access_token":"t","token_type":"DPoP "}"#,
            Err(NotBound),
        ),
        (
            "C-13: a superscript p",
            r#"{"access_token":"t","token_type":"DPo\u1d56"}"#,
            Err(NotBound),
        ),
        ("no type", r#"{"access_token":"t"}"#, Err(Malformed)),
        (
            "type is null",
            r#"{"access_token":"t","token_type":null}"#,
            Err(Malformed),
        ),
        (
            "type is an array",
            r#"{"access_token":"t","token_type":["DPoP"]}"#,
            Err(Malformed),
        ),
        ("no token", r#"{"token_type":"DPoP"}"#, Err(Malformed)),
        (
            "token is null",
            r#"{"access_token":null,"token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token is a number",
            r#"{"access_token":1,"token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token is empty",
            r#"{"access_token":"","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token with a space",
            r#"{"access_token":"a b","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token with a line break",
            r#"{"access_token":"a\r\nX: y","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token is not ASCII",
            r#"{"access_token":"ä","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "token twice",
            r#"{"access_token":"a","access_token":"t","token_type":"DPoP"}"#,
            Err(Malformed),
        ),
        (
            "type twice",
            r#"{"access_token":"t","token_type":"DPoP","token_type":"Bearer"}"#,
            Err(Malformed),
        ),
        (
            "unknown members",
            r#"{"access_token":"t","token_type":"DPoP","id_token":{"a":[1]}}"#,
            Ok(bare),
        ),
        (
            "optional members are null",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":null,"refresh_token":null,"scope":null}"#,
            Ok(bare),
        ),
        (
            "expires_in is a fraction",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":1.5}"#,
            Ok(("t", Some(Duration::from_millis(1500)), None, None)),
        ),
        (
            "expires_in is zero",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":0}"#,
            Ok(("t", seconds(0), None, None)),
        ),
        (
            "expires_in is negative",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":-1}"#,
            Ok(bare),
        ),
        (
            "expires_in does not fit into a Duration",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":1e300}"#,
            Ok(bare),
        ),
        (
            "expires_in does not fit into a double",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":1e400}"#,
            Err(Malformed),
        ),
        (
            "expires_in is a string of digits",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":"300"}"#,
            Ok(("t", seconds(300), None, None)),
        ),
        (
            "expires_in is a string of digits that does not fit into a Duration",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":"99999999999999999999"}"#,
            Ok(bare),
        ),
        (
            "expires_in is an empty string",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":""}"#,
            Err(Malformed),
        ),
        (
            "expires_in is a string with a sign",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":"-300"}"#,
            Err(Malformed),
        ),
        (
            "expires_in is a string with a fraction",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":"1.5"}"#,
            Err(Malformed),
        ),
        (
            "expires_in is a string with a space",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":" 300"}"#,
            Err(Malformed),
        ),
        (
            "expires_in is infinite",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":"inf"}"#,
            Err(Malformed),
        ),
        (
            "expires_in is true",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":true}"#,
            Err(Malformed),
        ),
        (
            "expires_in is an array",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":[300]}"#,
            Err(Malformed),
        ),
        (
            "expires_in twice",
            r#"{"access_token":"t","token_type":"DPoP","expires_in":300,"expires_in":"300"}"#,
            Err(Malformed),
        ),
        (
            "refresh_token is a number",
            r#"{"access_token":"t","token_type":"DPoP","refresh_token":7}"#,
            Err(Malformed),
        ),
        ("an array", r#"["t","DPoP",300,null,null]"#, Err(Malformed)),
        (
            "an array after a space",
            "\n [\"t\",\"DPoP\",300,null,null]",
            Err(Malformed),
        ),
        ("not JSON", "access_token=t&token_type=DPoP", Err(Malformed)),
        ("empty", "", Err(Malformed)),
        (
            "truncated",
            r#"{"access_token":"t","token_type":"DPoP""#,
            Err(Malformed),
        ),
        (
            "trailing data",
            r#"{"access_token":"t","token_type":"DPoP"}{}"#,
            Err(Malformed),
        ),
    ];
    for (name, body, expected) in rows {
        let granted = TokenResponse::from_json(body.as_bytes());
        let granted = granted.as_ref().map(|granted| {
            (
                granted.access_token().as_str(),
                granted.expires_in(),
                granted.refresh_token(),
                granted.scope(),
            )
        });
        assert_eq!(granted, expected.as_ref().map(|row| *row), "{name}");
    }
    let deep = format!(
        r#"{{"access_token":"t","token_type":"DPoP","x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(
        TokenResponse::from_json(deep.as_bytes()).is_ok(),
        "an unknown member of any depth is skipped"
    );
    assert_eq!(
        TokenResponse::from_json(b"{\"access_token\":\"t\xff\",\"token_type\":\"DPoP\"}")
            .unwrap_err(),
        Malformed,
        "not UTF-8"
    );
}

proptest! {
    #[test]
    fn no_token_response_makes_the_parser_panic(body in "[{}\\[\\]\":,a-z_0-9 ]{0,80}") {
        let _ = TokenResponse::from_json(body.as_bytes());
    }
}

/// C-21: an error response is a JSON object with an `error`. `Debug` shows only this member.
#[test]
fn parses_only_valid_error_responses() {
    let parse = |json: &str| TokenErrorResponse::from_json(json.as_bytes());
    let response =
        parse(r#"{"error":"invalid_grant","error_description":"secret","x":1}"#).unwrap();
    assert_eq!(response.error(), "invalid_grant");
    assert_eq!(response.description(), Some("secret"));
    assert!(!format!("{response:?}").contains("secret"));
    assert_eq!(parse(r#"{"error":"x"}"#).unwrap().description(), None);
    for (name, json) in [
        ("empty", ""),
        ("not an object", r#"["use_dpop_nonce"]"#),
        ("no error", r#"{"error_description":"x"}"#),
        ("an error that is not a string", r#"{"error":{"a":1}}"#),
        ("two errors", r#"{"error":"a","error":"b"}"#),
        ("truncated", r#"{"error":"use_dpop_nonce""#),
        ("trailing data", r#"{"error":"use_dpop_nonce"} x"#),
    ] {
        assert!(parse(json).is_none(), "{name}");
    }
}

/// A retry uses the same token.
#[test]
fn calls_the_token_source_once_per_request() {
    let calls = Arc::new(AtomicUsize::new(0));
    let source = {
        let calls = Arc::clone(&calls);
        move || {
            let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::task::yield_now().await;
                Ok(format!("token-{number}").parse().unwrap())
            }
        }
    };
    let server = MockServer::new(|number, _| {
        if number % 2 == 1 {
            ServerKind::Resource.nonce_demand(&format!("n{number}"))
        } else {
            ok()
        }
    });
    let service = DpopClientLayer::new(key(), source, url(AUDIENCE))
        .with_other_servers_unsigned()
        .layer(server.clone());
    for _ in 0..2 {
        block_on(service.clone().oneshot(ServerKind::Resource.request())).unwrap();
    }
    let other_server = Request::get("https://evil.example.com/")
        .body(String::new())
        .unwrap();
    block_on(service.oneshot(other_server)).unwrap();
    let sent: Vec<_> = server
        .requests()
        .iter()
        .map(|head| head.headers.get("authorization").cloned())
        .collect();
    let one: HeaderValue = field(b"DPoP token-1");
    let two: HeaderValue = field(b"DPoP token-2");
    let expected = [Some(&one), Some(&one), Some(&two), Some(&two), None];
    assert_eq!(
        sent.iter().map(Option::as_ref).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    for proof in server.signed_proofs() {
        assert!(
            ["token-1", "token-2"]
                .map(common::ath)
                .contains(&proof.claim("ath").unwrap().to_owned())
        );
    }
}

impl MockServer {
    fn signed_proofs(&self) -> Vec<ReadProof> {
        self.requests()
            .iter()
            .filter(|head| head.headers.contains_key("dpop"))
            .map(|head| ReadProof::in_headers(&head.headers))
            .collect()
    }
}

#[test]
fn sends_nothing_without_a_token() {
    async fn logged_out() -> Result<AccessTokenText, TokenSourceError> {
        Err(TokenSourceError::new("logged out"))
    }
    let server = MockServer::new(|_, _| ok());
    let service = DpopClientLayer::new(key(), logged_out, url(AUDIENCE)).layer(server.clone());
    let error = expect_error(block_on(service.oneshot(ServerKind::Resource.request())));
    assert!(matches!(error, ClientError::Token(_)), "{error:?}");
    assert_eq!(error.to_string(), "there is no access token");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "logged out");
    assert_eq!(server.request_count(), 0);
    assert_eq!(
        block_on(TokenSource::token(&token())).unwrap().as_str(),
        TOKEN
    );
}
