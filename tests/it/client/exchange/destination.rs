//! Which requests get a token and a proof.

use std::collections::HashSet;

use http::Request;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_dpop::client::{
    AccessTokenText, ClientError, DpopClientLayer, InvalidRequestUrl, TokenClientLayer,
};

use common::{AUDIENCE, NOW, block_on};

use crate::client::{Client, Kind, Server, ask, boxed, date, error_of, key, ok, token, url};

/// C-1, C-31: what is not for a server of the layer is not sent.
#[test]
fn nothing_is_sent_to_another_server() {
    let layer = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"))
        .add_server(url("https://other.example.com:8443"));
    let tokens = TokenClientLayer::new(key(), url("https://api.example.com/v1"))
        .add_server(url("https://other.example.com:8443"));
    let rows = [
        ("below the prefix", "https://api.example.com/v1/x", true),
        ("the prefix itself", "https://api.example.com/v1", true),
        ("with a query", "https://api.example.com/v1?x", true),
        ("the second", "https://other.example.com:8443/x", true),
        (
            "in another spelling",
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
            "a dot behind the host",
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
            "out of the prefix",
            "https://api.example.com/v1/../x",
            false,
        ),
        (
            "out of it, encoded",
            "https://api.example.com/v1/%2e%2E/x",
            false,
        ),
        ("an encoded slash", "https://api.example.com/v1%2Fx", false),
        ("another case", "https://api.example.com/V1/x", false),
        ("an empty segment", "https://api.example.com//v1/x", false),
        (
            "the second at the first's port",
            "https://other.example.com/x",
            false,
        ),
    ];
    for (name, uri, is_ours) in rows {
        let server = Server::new(|_, _| ok());
        let request = || Request::get(uri).body(String::new()).unwrap();
        let resource = block_on(layer.layer(server.clone()).oneshot(request())).map(|_| ());
        let token = block_on(tokens.layer(server.clone()).oneshot(request())).map(|_| ());
        if is_ours {
            assert!(resource.is_ok() && token.is_ok(), "{name}");
            assert_eq!(server.proofs().len(), 2, "{name}");
        } else {
            for outcome in [resource, token] {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, ClientError::OtherServer),
                    "{name}: {error:?}"
                );
            }
            assert_eq!(server.count(), 0, "{name}: sent");
        }
    }
}

/// C-31: where only what lies below a path is meant, a path that servers may read in two ways is not
/// signed. For a whole origin it makes no difference.
#[test]
fn a_path_with_two_readings_is_not_below_a_prefix() {
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
        "/v1/..%00/evil",
    ] {
        let request = || {
            Request::get(format!("https://api.example.com{path}"))
                .body(String::new())
                .unwrap()
        };
        let server = Server::new(|_, _| ok());
        let below = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"));
        let error = block_on(below.layer(server.clone()).oneshot(request())).unwrap_err();
        assert!(
            matches!(error, ClientError::OtherServer),
            "{path}: {error:?}"
        );
        assert_eq!(server.count(), 0, "{path}");
        let everywhere = DpopClientLayer::new(key(), token(), url(AUDIENCE));
        block_on(everywhere.layer(server.clone()).oneshot(request())).unwrap();
        assert_eq!(server.count(), 1, "{path}");
    }
}

/// C-31: a `Host` that was copied from another request would take the token elsewhere.
#[test]
fn a_host_field_must_name_the_server_of_the_url() {
    type Hosts = &'static [&'static str];
    let rows: [(&str, Hosts, bool); 8] = [
        ("none", &[], true),
        ("the same", &["api.example.com"], true),
        ("in upper case", &["API.example.com"], true),
        ("with the default port", &["api.example.com:443"], true),
        ("another", &["evil.example.com"], false),
        ("another port", &["api.example.com:8443"], false),
        ("two", &["api.example.com", "evil.example.com"], false),
        ("no host", &["not a host"], false),
    ];
    for (name, hosts, passes) in rows {
        let server = Server::new(|_, _| ok());
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
        assert_eq!(server.count(), if passes { 2 } else { 0 }, "{name}");
    }
}

/// C-7: where no proof can be made, nothing is sent.
#[test]
fn nothing_is_sent_where_no_proof_can_name_the_url() {
    use InvalidRequestUrl::{NotHttp, Path};
    for (uri, expected) in [
        ("/orders", NotHttp),
        ("https://joe@api.example.com/orders", NotHttp),
        ("wss://api.example.com/orders", NotHttp),
        ("https://api.example.com/a|b", Path),
    ] {
        for kind in [Kind::Resource, Kind::Token] {
            let server = Server::new(|_, _| ok());
            let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE));
            let open = layer.clone().with_other_servers_unsigned();
            let tokens = TokenClientLayer::new(key(), url(AUDIENCE));
            let clients: [Client; 2] = match kind {
                Kind::Resource => [
                    boxed(layer.layer(server.clone())),
                    boxed(open.layer(server.clone())),
                ],
                _ => [
                    boxed(tokens.layer(server.clone())),
                    boxed(tokens.with_other_servers_unsigned().layer(server.clone())),
                ],
            };
            for client in clients {
                let request = Request::get(uri).body(String::new()).unwrap();
                let error = error_of(block_on(client.oneshot(request)));
                assert!(
                    matches!(error, ClientError::Url(reason) if reason == expected),
                    "{uri}: {error:?}"
                );
            }
            assert_eq!(server.count(), 0, "{uri}: sent");
        }
    }
}

/// C-31
#[test]
fn requests_to_other_servers_can_go_out_unsigned() {
    let resource = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"))
        .with_other_servers_unsigned();
    let tokens = TokenClientLayer::new(key(), url("https://api.example.com/v1"))
        .with_other_servers_unsigned();
    let server = Server::new(|_, _| {
        let mut demand = Kind::Resource.demand("n");
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
                .header("x-other", "stays")
                .body(String::new())
                .unwrap();
            let before = server.count();
            assert_eq!(ask(&client, request).status(), 401, "{uri}: as it came");
            let seen = server.seen();
            assert_eq!(seen.len(), before + 1, "{uri}: sent once");
            let headers = &seen[before].headers;
            let fields: HashSet<_> = headers.keys().map(http::HeaderName::as_str).collect();
            let expected = HashSet::from(["authorization", "dpop", "x-other"]);
            assert_eq!(fields, expected, "{uri}");
            assert_eq!(headers["dpop"], "the caller's", "{uri}");
            let kept: Vec<_> = headers.get_all("authorization").iter().collect();
            assert_eq!(kept, ["DPoP the-caller's", "Basic YTpi"], "{uri}");
        }
    }
}

/// C-31: a layer for each API, one around the other. Each signs for its own and leaves what the other
/// has signed.
#[test]
fn layers_for_two_servers_stand_around_each_other() {
    let server = Server::new(|_, _| ok());
    let (one, two) = (
        url("https://one.example.com"),
        url("https://two.example.com"),
    );
    let text = |name: &str| -> AccessTokenText { format!("token-{name}").parse().unwrap() };
    let service = ServiceBuilder::new()
        .layer(DpopClientLayer::new(key(), text("one"), one).with_other_servers_unsigned())
        .layer(DpopClientLayer::new(key(), text("two"), two).with_other_servers_unsigned())
        .service(server.clone());
    for name in ["one", "two", "three"] {
        let request = Request::get(format!("https://{name}.example.com/"))
            .body(String::new())
            .unwrap();
        block_on(service.clone().oneshot(request)).unwrap();
    }
    let sent: Vec<Option<String>> = server
        .seen()
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
