//! What services learn of the client, in header fields.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, Parties, Service};

const ROUTE: &str = "[[route]]\npath = \"/\"\nupstream = \"service\"\naccess = \"allow-bearer\"\n";

fn field(claim: &str, encoding: &str, unrepresentable: &str) -> String {
    format!(
        "[[identity]]\nclaim = \"{claim}\"\nfield = \"X-{encoding}\"\nencoding = \"{encoding}\"\nunrepresentable = \"{unrepresentable}\"\n"
    )
}

/// `None`: the field is absent.
#[tokio::test]
async fn each_encoding_says_what_it_can_say() {
    let config: String = ["plain", "percent", "json"]
        .map(|e| field("c", e, "omit"))
        .concat();
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(&format!("{ROUTE}{config}"))).start();
    let long = "x".repeat(8 * 1024);
    let longest_json = format!("\"{}\"", &long[2..]);
    let rows: Vec<(Value, [Option<&str>; 3])> = vec![
        (json!(null), [None, None, None]),
        (
            json!("alice"),
            [Some("alice"), Some("alice"), Some(r#""alice""#)],
        ),
        (
            json!("a-b._~9"),
            [Some("a-b._~9"), Some("a-b._~9"), Some(r#""a-b._~9""#)],
        ),
        (
            json!("Ann Lee"),
            [
                Some("Ann Lee"),
                Some("Ann%20Lee"),
                Some(r#""Ann\u0020Lee""#),
            ],
        ),
        (
            json!("100%"),
            [Some("100%"), Some("100%25"), Some(r#""100%""#)],
        ),
        (
            json!("a,b;c"),
            [Some("a,b;c"), Some("a%2Cb%3Bc"), Some(r#""a,b;c""#)],
        ),
        (
            json!(r#"a"\"#),
            [Some(r#"a"\"#), Some("a%22%5C"), Some(r#""a\"\\""#)],
        ),
        (
            json!("Zoë"),
            [None, Some("Zo%C3%AB"), Some(r#""Zo\u00eb""#)],
        ),
        (
            json!("😀"),
            [None, Some("%F0%9F%98%80"), Some(r#""\ud83d\ude00""#)],
        ),
        (
            json!("a  b"),
            [None, Some("a%20%20b"), Some(r#""a\u0020\u0020b""#)],
        ),
        (json!(" a"), [None, Some("%20a"), Some(r#""\u0020a""#)]),
        (
            json!("a\r\nX-Admin: 1"),
            [
                None,
                Some("a%0D%0AX-Admin%3A%201"),
                Some(r#""a\r\nX-Admin:\u00201""#),
            ],
        ),
        (
            json!("a\tb\0\u{7f}"),
            [None, Some("a%09b%00%7F"), Some(r#""a\tb\u0000\u007f""#)],
        ),
        (json!(""), [None, Some(""), Some(r#""""#)]),
        (json!(true), [Some("true"), Some("true"), Some("true")]),
        (json!(-7), [Some("-7"), Some("-7"), Some("-7")]),
        (json!(u64::MAX), [Some("18446744073709551615"); 3]),
        (json!(0.5), [None, None, Some("0.5")]),
        // It was an integer that no 64 bits can hold, and was rounded.
        (json!(1e22), [None, None, None]),
        (json!([1, [1e22]]), [None, None, None]),
        (
            json!(["a b", {"b": null, "a": "é"}]),
            [None, None, Some(r#"["a\u0020b",{"a":"\u00e9","b":null}]"#)],
        ),
        (json!(long), [Some(&long), Some(&long), None]),
        (json!(format!("{long}x")), [None, None, None]),
        (
            json!(&long[2..]),
            [Some(&long[2..]), Some(&long[2..]), Some(&longest_json)],
        ),
    ];
    for (claim, expected) in rows {
        let mut request = parties.request(Method::GET, "/");
        request.token_claims["c"] = claim.clone();
        let status = gateway.send(&request).await.status();
        assert_eq!(status, 200, "{claim}");
        let (head, _) = service.received().pop().unwrap();
        for (name, expected) in ["x-plain", "x-percent", "x-json"].into_iter().zip(expected) {
            let sent = head.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(sent, expected, "{name}: {claim}");
        }
    }
}

#[tokio::test]
async fn a_claim_that_cannot_be_a_field_is_an_error_of_the_server_and_is_not_shown() {
    for encoding in ["plain", "percent", "json"] {
        let (parties, service) = (Parties::new(), Service::start().await);
        let config = format!("{ROUTE}{}", field("c", encoding, "reject"));
        let gateway = Gateway::new(&parties, &service.behind(&config)).start();
        let mut request = parties.request(Method::GET, "/");
        request.token_claims["c"] = json!([4711, 1e22]);
        let response = gateway.send(&request).await;
        assert_eq!(response.status(), 500, "{encoding}");
        let body = response.text().await.unwrap();
        assert!(body.contains("claim_unrepresentable"), "{body}");
        assert!(!body.contains("4711"), "{body}");
        assert_eq!(service.received().len(), 0, "{encoding}");
        // A missing claim is no error.
        assert_eq!(
            gateway
                .send(&parties.request(Method::GET, "/"))
                .await
                .status(),
            200
        );
        assert!(
            !service.received()[0]
                .0
                .headers
                .contains_key(format!("x-{encoding}"))
        );
    }
}

/// Keycloak's roles, for example.
#[tokio::test]
async fn a_json_pointer_names_a_claim_within_another() {
    let pointers = [
        ("/realm_access/roles", "roles", "json"),
        ("/https:~1~1example.com~1tenant/id", "tenant", "plain"),
        ("/list/1", "second", "plain"),
        ("/sub", "subject", "plain"),
        ("/list/9", "ninth", "plain"),
        ("/missing/x", "missing", "plain"),
        ("https://example.com/flat", "flat", "plain"),
        ("client_id", "client", "plain"),
        ("scope", "scope", "plain"),
        ("jkt", "jkt", "plain"),
    ];
    let config: String = pointers
        .map(|(claim, field, encoding)| {
            format!("[[identity]]\nclaim = \"{claim}\"\nfield = \"I-{field}\"\nencoding = \"{encoding}\"\n")
        })
        .concat();
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(&format!("{ROUTE}{config}"))).start();
    let mut request = parties.request(Method::GET, "/");
    request.token_claims["realm_access"] = json!({"roles": ["admin", "user"]});
    request.token_claims["https://example.com/tenant"] = json!({"id": 12});
    request.token_claims["list"] = json!(["a", "b"]);
    request.token_claims["https://example.com/flat"] = json!("yes");
    request.token_claims["scope"] = json!("a b");
    // Only a proof says which key the client has.
    request.token_claims["jkt"] = json!("claimed");
    assert_eq!(gateway.send(&request).await.status(), 200);
    let jkt = parties.client.key().thumbprint().to_string();
    let expected = [
        ("i-client", "test-client"),
        ("i-flat", "yes"),
        ("i-jkt", &jkt),
        ("i-roles", r#"["admin","user"]"#),
        ("i-scope", "a b"),
        ("i-second", "b"),
        ("i-subject", "alice"),
        ("i-tenant", "12"),
    ];
    let (head, _) = service.received().pop().unwrap();
    let mut sent: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("i-"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, expected);

    let bearer = request.again().as_bearer();
    assert_eq!(gateway.send(&bearer).await.status(), 200);
    let (head, _) = service.received().pop().unwrap();
    assert!(!head.headers.contains_key("i-jkt"));
    assert_eq!(head.headers["i-subject"], "alice");
}

/// Also of a field whose claim is missing, so that nothing of the gateway replaces it.
#[tokio::test]
async fn a_client_cannot_set_an_identity_field_in_any_spelling() {
    let identity = "[[identity]]\nclaim = \"sub\"\nfield = \"X-Auth-Subject\"\n[[identity]]\nclaim = \"missing\"\nfield = \"X_Role\"\n";
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(&format!("{ROUTE}{identity}"))).start();
    let spellings = [
        "x-auth-subject",
        "x_auth_subject",
        "x-auth_subject",
        "x.auth.subject",
        "x~auth!subject",
        "x|auth'subject",
        "x-role",
        "x_role",
        "x^role",
    ];
    let others = ["x-auth-subjects", "xauth-subject", "x-roles", "role"];
    let mut request = parties.request(Method::GET, "/");
    for name in spellings.into_iter().chain(others) {
        request.extra_headers.push((name, "admin".parse().unwrap()));
        request.extra_headers.push((name, "root".parse().unwrap()));
    }
    assert_eq!(gateway.send(&request).await.status(), 200);
    let (head, _) = service.received().pop().unwrap();
    for name in spellings.into_iter().skip(1) {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    let subject: Vec<_> = head.headers.get_all("x-auth-subject").iter().collect();
    assert_eq!(subject, ["alice"]);
    for name in others {
        assert!(head.headers.contains_key(name), "{name}");
    }
}
