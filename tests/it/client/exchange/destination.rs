//! Which requests get a token and a proof.

use std::collections::HashSet;

use http::Request;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_dpop::client::{ClientError, DpopClientLayer, InvalidRequestUrl, TokenClientLayer};

use common::{AUDIENCE, NOW, block_on};

use crate::client::{
    Client, MockServer, ServerKind, access_token, boxed, date, expect_error, key, ok, send, token,
    url,
};

/// C-1, C-31
#[test]
fn sends_nothing_to_servers_that_are_not_configured() {
    let layer = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"))
        .add_server(url("https://other.example.com:8443"));
    let tokens = TokenClientLayer::new(key(), url("https://api.example.com/v1"))
        .add_server(url("https://other.example.com:8443"));
    let rows = [
        ("below the prefix", "https://api.example.com/v1/x", true),
        ("the prefix itself", "https://api.example.com/v1", true),
        ("with a query", "https://api.example.com/v1?x", true),
        (
            "the second server",
            "https://other.example.com:8443/x",
            true,
        ),
        (
            "not normalised",
            "HTTPS://API.example.com:443/%76%31/x",
            true,
        ),
        ("another host", "https://evil.example.com/v1/x", false),
        (
            "a longer host",
            "https://api.example.com.evil.com/v1/x",
            false,
        ),
        (
            "a dot after the host",
            "https://api.example.com./v1/x",
            false,
        ),
        ("another port", "https://api.example.com:8443/v1/x", false),
        ("the port of http", "https://api.example.com:80/v1/x", false),
        ("C-1: http", "http://api.example.com/v1/x", false),
        (
            "C-1: http at the same port",
            "http://api.example.com:443/v1/x",
            false,
        ),
        ("above the prefix", "https://api.example.com/", false),
        ("a longer segment", "https://api.example.com/v10", false),
        (
            "dot segments that leave the prefix",
            "https://api.example.com/v1/../x",
            false,
        ),
        (
            "encoded dot segments that leave the prefix",
            "https://api.example.com/v1/%2e%2E/x",
            false,
        ),
        ("an encoded slash", "https://api.example.com/v1%2Fx", false),
        (
            "a path in upper case",
            "https://api.example.com/V1/x",
            false,
        ),
        ("an empty segment", "https://api.example.com//v1/x", false),
        (
            "the second server at another port",
            "https://other.example.com/x",
            false,
        ),
    ];
    for (name, uri, is_configured) in rows {
        let server = MockServer::new(|_, _| ok());
        let request = || Request::get(uri).body(String::new()).unwrap();
        let resource = block_on(layer.layer(server.clone()).oneshot(request())).map(|_| ());
        let token = block_on(tokens.layer(server.clone()).oneshot(request())).map(|_| ());
        if is_configured {
            assert!(resource.is_ok() && token.is_ok(), "{name}");
            assert_eq!(server.proofs().len(), 2, "{name}");
        } else {
            for result in [resource, token] {
                let error = result.unwrap_err();
                assert!(
                    matches!(error, ClientError::OtherServer),
                    "{name}: {error:?}"
                );
            }
            assert_eq!(server.request_count(), 0, "{name}: sent");
        }
    }
}

/// C-31: servers interpret these paths in different ways, so a layer for a path prefix does not
/// sign them. A layer for the whole origin does.
#[test]
fn an_ambiguous_path_is_not_below_a_path_prefix() {
    for path in [
        "/evil/../v1/x",
        "/evil/%2e%2E/v1/x",
        "/v1/./x",
        "/v1/..%2fevil",
        "/v1/..%5Cevil",
        "/v1/%2Fevil",
        "/v1/..;/evil",
        "/v1/..%3Bx/evil",
        "/v1/%252e%252e/evil",
        "/v1/..%25252fevil",
        "/v1/..%25%32%66evil",
        "/v1/%25%32%65%25%32%65/evil",
        "/v1/..%00/evil",
        "/v1/a%2Fb",
    ] {
        let request = || {
            Request::get(format!("https://api.example.com{path}"))
                .body(String::new())
                .unwrap()
        };
        let server = MockServer::new(|_, _| ok());
        let prefix = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"));
        let error = block_on(prefix.layer(server.clone()).oneshot(request())).unwrap_err();
        assert!(
            matches!(error, ClientError::AmbiguousPath),
            "{path}: {error:?}"
        );
        assert_eq!(
            error.to_string(),
            "the path of the request may be outside the configured URL: avoid dot segments and encoded slashes in it, or configure the origin without a path"
        );
        assert_eq!(server.request_count(), 0, "{path}");
        let origin = DpopClientLayer::new(key(), token(), url(AUDIENCE));
        block_on(origin.layer(server.clone()).oneshot(request())).unwrap();
        assert_eq!(server.request_count(), 1, "{path}");
    }
}

/// C-31: a `Host` field copied from another request could send the token to another server.
#[test]
fn the_host_field_must_match_the_url() {
    type Hosts = &'static [&'static str];
    let rows: [(&str, Hosts, bool); 8] = [
        ("no field", &[], true),
        ("the same host", &["api.example.com"], true),
        ("upper case", &["API.example.com"], true),
        ("with the default port", &["api.example.com:443"], true),
        ("another host", &["evil.example.com"], false),
        ("another port", &["api.example.com:8443"], false),
        (
            "two fields",
            &["api.example.com", "evil.example.com"],
            false,
        ),
        ("not a host", &["not a host"], false),
    ];
    for (name, hosts, passes) in rows {
        let server = MockServer::new(|_, _| ok());
        let clients: [Client; 2] = [
            boxed(DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server.clone())),
            boxed(TokenClientLayer::new(key(), url(AUDIENCE)).layer(server.clone())),
        ];
        for client in clients {
            let mut request = Request::get("https://api.example.com/orders")
                .body(String::new())
                .unwrap();
            for host in hosts {
                request.headers_mut().append("host", host.parse().unwrap());
            }
            match block_on(client.oneshot(request)) {
                Ok(_) => assert!(passes, "{name}"),
                Err(error) => {
                    assert!(matches!(error, ClientError::OtherHost), "{name}: {error:?}");
                    assert!(!passes, "{name}");
                }
            }
        }
        assert_eq!(server.request_count(), if passes { 2 } else { 0 }, "{name}");
    }
}

/// C-7
#[test]
fn sends_nothing_if_no_proof_can_be_made_for_the_url() {
    use InvalidRequestUrl::{NotHttp, Path};
    for (uri, expected) in [
        ("/orders", NotHttp),
        ("https://joe@api.example.com/orders", NotHttp),
        ("wss://api.example.com/orders", NotHttp),
        ("https://api.example.com/a|b", Path),
    ] {
        for kind in [ServerKind::Resource, ServerKind::Token] {
            let server = MockServer::new(|_, _| ok());
            let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE));
            let unsigned = layer.clone().with_other_servers_unsigned();
            let tokens = TokenClientLayer::new(key(), url(AUDIENCE));
            let clients: [Client; 2] = match kind {
                ServerKind::Resource => [
                    boxed(layer.layer(server.clone())),
                    boxed(unsigned.layer(server.clone())),
                ],
                _ => [
                    boxed(tokens.layer(server.clone())),
                    boxed(tokens.with_other_servers_unsigned().layer(server.clone())),
                ],
            };
            for client in clients {
                let request = Request::get(uri).body(String::new()).unwrap();
                let error = expect_error(block_on(client.oneshot(request)));
                assert!(
                    matches!(error, ClientError::Url(reason) if reason == expected),
                    "{uri}: {error:?}"
                );
            }
            assert_eq!(server.request_count(), 0, "{uri}: sent");
        }
    }
}

/// C-31
#[test]
fn passes_requests_to_other_servers_unchanged_if_enabled() {
    let resource = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"))
        .with_other_servers_unsigned();
    let tokens = TokenClientLayer::new(key(), url("https://api.example.com/v1"))
        .with_other_servers_unsigned();
    let server = MockServer::new(|_, _| {
        let mut demand = ServerKind::Resource.nonce_demand("n");
        demand
            .headers_mut()
            .insert("date", date(NOW + 600).parse().unwrap());
        demand
    });
    let clients: [Client; 2] = [
        boxed(resource.layer(server.clone())),
        boxed(tokens.layer(server.clone())),
    ];
    for client in clients {
        for uri in [
            "https://evil.example.com/v1/x",
            "https://api.example.com/x",
            "https://evil.example.com/a|b",
        ] {
            let request = Request::get(uri)
                .header("dpop", "the caller's")
                .header("authorization", "DPoP the-caller's")
                .header("authorization", "Basic YTpi")
                .header("x-other", "unchanged")
                .body(String::new())
                .unwrap();
            let before = server.request_count();
            assert_eq!(
                send(&client, request).status(),
                401,
                "{uri}: the response is unchanged"
            );
            let requests = server.requests();
            assert_eq!(requests.len(), before + 1, "{uri}: sent once");
            let headers = &requests[before].headers;
            let fields: HashSet<_> = headers.keys().map(http::HeaderName::as_str).collect();
            let expected = HashSet::from(["authorization", "dpop", "x-other"]);
            assert_eq!(fields, expected, "{uri}");
            assert_eq!(headers["dpop"], "the caller's", "{uri}");
            let kept: Vec<_> = headers.get_all("authorization").iter().collect();
            assert_eq!(kept, ["DPoP the-caller's", "Basic YTpi"], "{uri}");
        }
    }
}

/// C-31: each layer signs for its own server, and leaves requests that the other layer signed
/// unchanged.
#[test]
fn layers_for_two_servers_can_be_nested() {
    let server = MockServer::new(|_, _| ok());
    let (one, two) = (
        url("https://one.example.com"),
        url("https://two.example.com"),
    );
    let token_for = |name: &str| access_token(&format!("token-{name}"));
    let service = ServiceBuilder::new()
        .layer(DpopClientLayer::new(key(), token_for("one"), one).with_other_servers_unsigned())
        .layer(DpopClientLayer::new(key(), token_for("two"), two).with_other_servers_unsigned())
        .service(server.clone());
    for name in ["one", "two", "three"] {
        let request = Request::get(format!("https://{name}.example.com/"))
            .body(String::new())
            .unwrap();
        block_on(service.clone().oneshot(request)).unwrap();
    }
    let sent: Vec<Option<String>> = server
        .requests()
        .iter()
        .map(|head| {
            let field = head.headers.get("authorization")?;
            assert_eq!(head.headers.get_all("dpop").iter().count(), 1);
            Some(field.to_str().unwrap().to_owned())
        })
        .collect();
    let expected = [Some("DPoP token-one"), Some("DPoP token-two"), None];
    assert_eq!(
        sent.iter().map(Option::as_deref).collect::<Vec<_>>(),
        expected
    );
}
