//! HTTP/2: `:authority`, `:scheme`, `OPTIONS *` and extended CONNECT.

use common::{AttemptExt as _, block_on};
use http::Uri;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower_dpop::proof::{ProofError, TargetError, UrlMismatch};

use super::cases::cases;
use super::{ORDERS, assert_response, attempt_at, http2_client, serve, url_error, with_body};

#[test]
fn authority_and_scheme_do_not_change_the_decision_over_http2() {
    block_on(async {
        let address = serve().await;
        let mut client = http2_client(address).await;
        let origins = [
            "https://api.example.com".to_owned(),
            format!("http://{address}"),
            "http://orders.internal:8080".to_owned(),
            "https://evil.example".to_owned(),
        ];
        for (number, (name, attempt, expected)) in cases().into_iter().enumerate() {
            // H-18: gateways set `:scheme` and `:authority` to various values.
            let origin = &origins[number % origins.len()];
            let mut request = with_body(attempt.request());
            let target = format!("{origin}{}", request.uri()).parse().unwrap();
            *request.uri_mut() = target;
            let response = client.send_request(request).await.unwrap();
            assert_response(name, &response, expected);
            response.into_body().collect().await.unwrap();
        }
        for (name, authority, htu, mismatch) in [
            (
                "H-18: the :authority of another server",
                "https://evil.example",
                "https://evil.example/orders",
                UrlMismatch::Host,
            ),
            (
                "H-18: the :authority of another port",
                "https://api.example.com:8443",
                "https://api.example.com:8443/orders",
                UrlMismatch::Port,
            ),
            (
                "R-2.1: the :scheme of the connection",
                "http://api.example.com",
                "http://api.example.com/orders",
                UrlMismatch::Scheme,
            ),
        ] {
            let attempt = attempt_at("GET", &format!("{authority}/orders"), htu);
            let request = with_body(attempt.request());
            let response = client.send_request(request).await.unwrap();
            assert_response(name, &response, url_error(mismatch));
        }
    });
}

#[test]
fn options_asterisk_and_extended_connect_have_a_target_over_http2() {
    block_on(async {
        let mut client = http2_client(serve().await).await;
        let asterisk = || {
            Uri::builder()
                .scheme("https")
                .authority("orders.internal")
                .path_and_query("*")
                .build()
                .unwrap()
        };
        for (name, method, uri, htu, protocol, expected) in [
            (
                "H-21: OPTIONS *",
                "OPTIONS",
                asterisk(),
                "https://api.example.com",
                None,
                Ok(()),
            ),
            (
                "H-21: OPTIONS * with a proof for /",
                "OPTIONS",
                asterisk(),
                "https://api.example.com/",
                None,
                url_error(UrlMismatch::Path),
            ),
            (
                "H-22: CONNECT",
                "CONNECT",
                Uri::from_static("api.example.com:443"),
                "https://api.example.com:443",
                None,
                Err(TargetError::Connect.into()),
            ),
            (
                "H-22: extended CONNECT",
                "CONNECT",
                Uri::from_static("https://orders.internal/orders"),
                ORDERS,
                Some("websocket"),
                Ok(()),
            ),
            (
                "H-22: extended CONNECT to another path",
                "CONNECT",
                Uri::from_static("https://orders.internal/admin"),
                ORDERS,
                Some("websocket"),
                url_error(UrlMismatch::Path),
            ),
        ] {
            let attempt = attempt_at(method, "/", htu);
            let mut request = with_body(attempt.request());
            *request.uri_mut() = uri;
            if let Some(protocol) = protocol {
                let protocol = hyper::ext::Protocol::from_static(protocol);
                request.extensions_mut().insert(protocol);
            }
            let response = client.send_request(request).await.unwrap();
            assert_response(name, &response, expected);
        }
        let mut attempt = attempt_at("CONNECT", "/", ORDERS);
        attempt.proof_claims["htm"] = json!("GET");
        let mut request = with_body(attempt.request());
        *request.uri_mut() = Uri::from_static("https://orders.internal/orders");
        let protocol = hyper::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let response = client.send_request(request).await.unwrap();
        assert_response(
            "H-22: a GET proof for extended CONNECT",
            &response,
            Err(ProofError::Method.into()),
        );
    });
}
