//! The log: one line per request, with what operators need, and nothing that is secret.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use http::Method;
use serde_json::Value;
use tower_dpop::testing::{Defect, TestRequest};

use crate::support::{Gateway, Parties, Service, Started, first_column, until};

/// Routes of each kind. Nothing listens at the discard port.
fn config(service: &Service, log: &str) -> String {
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        [upstream.orders]
        servers = ["{}"]
        [upstream.nowhere]
        servers = ["http://127.0.0.1:9"]
        [[route]]
        path = "/orders"
        upstream = "orders"
        methods = ["GET"]
        [[route]]
        path = "/public"
        upstream = "orders"
        access = "public"
        [[route]]
        path = "/down"
        upstream = "nowhere"
        [log]
        {log}
        "#,
        service.url
    )
}

/// The lines about requests, once there are as many as this.
async fn lines(gateway: &Started, count: usize) -> Vec<Value> {
    let lines = until("lines of the log", async || {
        let lines: Vec<Value> = gateway
            .log()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}")))
            .filter(|line: &Value| line["target"] == "dpop_gateway::request")
            .collect();
        (lines.len() >= count).then_some(lines)
    });
    lines.await
}

#[tokio::test]
async fn each_request_is_one_line() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = config(&service, r#"format = "json""#);
    let gateway = Gateway::new(&parties, &config).start();
    let good = |path: &str| parties.request(Method::GET, path);

    let rejected = good("/orders/2");
    let (used, stale) = (good("/orders/1"), Defect::TooOld);
    // Name, request, and members of the line.
    let cases = [
        (
            "accepted",
            used.again(),
            r#"{"decision":"accepted","path":"/orders/1","route":"/orders","status":200,"upstream":"orders","sent":4,"scheme":"dpop"}"#,
        ),
        (
            "rejected",
            rejected.with_defect(stale),
            r#"{"decision":"rejected","path":"/orders/2","route":"/orders","status":401,"reason":"proof_iat_too_old","level":"INFO","upstream":"orders","server":null}"#,
        ),
        (
            "public",
            good("/public"),
            r#"{"decision":"public","status":200,"scheme":null}"#,
        ),
        (
            "no route",
            good("/other"),
            r#"{"decision":"not_found","status":404,"route":null}"#,
        ),
        (
            "no route for the method",
            parties.request(Method::POST, "/orders"),
            r#"{"decision":"method_not_allowed","status":405,"method":"POST"}"#,
        ),
        (
            "an unreachable service",
            good("/down"),
            r#"{"decision":"accepted","level":"ERROR","status":502,"upstream":"nowhere","server":"127.0.0.1:9"}"#,
        ),
    ];
    for (number, (name, request, expected)) in cases.iter().enumerate() {
        gateway.send(request).await;
        let lines = lines(&gateway, number + 1).await;
        assert_eq!(lines.len(), number + 1, "{name}");
        let line = &lines[number];
        let expected: Value = serde_json::from_str(expected).unwrap();
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{name}: {field} of {line}");
        }
        assert_eq!(line["listener"], "proxy", "{name}");
        assert_eq!(line["protocol"], "HTTP/1.1", "{name}");
        assert!(
            line["peer"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{name}"
        );
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{name}");
    }
    let lines = lines(&gateway, cases.len()).await;
    assert!(
        lines[1]["expected"].as_str().unwrap().contains("iat from"),
        "{}",
        lines[1]
    );
    assert!(lines[1]["description"].is_string());
    assert!(
        lines[5]["error"]
            .as_str()
            .unwrap()
            .contains("ConnectRefused"),
        "{}",
        lines[5]
    );
}

/// What the crate says about one request is not in the line of another.
#[tokio::test]
async fn requests_at_the_same_time_do_not_mix() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = config(&service, r#"format = "json""#);
    let gateway = Gateway::new(&parties, &config).start();
    let client = reqwest::Client::new();
    let reasons = [
        None,
        Some((Defect::TooOld, "proof_iat_too_old")),
        Some((Defect::NoProof, "proof_missing")),
    ];
    let mut sent = tokio::task::JoinSet::new();
    for number in 0..60 {
        let mut request = parties.request(Method::GET, &format!("/orders/{number}"));
        if let Some((defect, _)) = reasons[number % 3] {
            request = request.with_defect(defect);
        }
        let (head, ()) = request.build::<()>().into_parts();
        let url = format!("{}{}", gateway.url("proxy"), head.uri.path());
        sent.spawn(client.get(url).headers(head.headers).send());
    }
    sent.join_all().await;
    for line in lines(&gateway, 60).await {
        let number: usize = line["path"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let reason = reasons[number % 3].map(|(_, reason)| reason);
        assert_eq!(line["reason"].as_str(), reason, "{line}");
    }
}

/// A proof that is used again names its client by the thumbprint of its key.
#[tokio::test]
async fn a_replay_has_the_thumbprint() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = config(&service, r#"format = "json""#);
    let gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::GET, "/orders");
    gateway.send(&request).await;
    gateway.send(&request).await;
    let lines = lines(&gateway, 2).await;
    assert_eq!(lines[1]["reason"], "proof_replayed");
    assert_eq!(lines[1]["jkt"], request.token_claims["cnf"]["jkt"]);
}

/// Clients choose paths and methods: long ones are cut, and nothing in them can end the line or move the cursor of a terminal.
#[tokio::test]
async fn paths_are_bounded_and_printable() {
    let (parties, service) = (Parties::new(), Service::start().await);
    for format in ["text", "json"] {
        let config = config(&service, &format!("format = {format:?}"));
        let gateway = Gateway::new(&parties, &config).start();
        let head = [
            b"GET /caf\xC3\xA9\xE2\x80\xAE/".as_slice(),
            [b'a'; 2000].as_slice(),
            b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ];
        send_bytes(&gateway, &head.concat());
        let line = until("the line", async || {
            let log = gateway.log();
            log.lines()
                .find(|line| line.contains("dpop_gateway::request"))
                .map(str::to_owned)
        });
        let line = line.await;
        assert!(line.contains("/caf%C3%A9%E2%80%AE/aaa"), "{line}");
        assert!(line.contains("aaa...\""), "{line}");
        assert!(line.is_ascii() && line.len() < 1000, "{line}");
    }
}

/// Sends bytes to the reverse proxy, and reads what comes until it closes the connection.
fn send_bytes(gateway: &Started, bytes: &[u8]) {
    let address = gateway.url("proxy").strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(bytes).unwrap();
    connection.read_to_end(&mut Vec::new()).unwrap();
}

/// Sends a request with a query and a field, and adds what must not be in the log to the set.
async fn send_with_secrets(
    gateway: &Started,
    request: &TestRequest,
    secrets: &mut BTreeSet<String>,
) -> reqwest::Response {
    let (head, ()) = request.build::<()>().into_parts();
    for name in ["authorization", "dpop"] {
        let value = head.headers[name].to_str().unwrap();
        secrets.insert(value.replace("DPoP ", ""));
    }
    let url = format!(
        "{}{}?query-of-client",
        gateway.url("proxy"),
        head.uri.path()
    );
    reqwest::Client::new()
        .get(url)
        .headers(head.headers)
        .header("X-Field", "value-of-client")
        .send()
        .await
        .unwrap()
}

/// Neither at the usual level nor at any other.
#[tokio::test]
async fn no_line_has_what_is_secret() {
    let (parties, service) = (Parties::new(), Service::start().await);
    for level in ["info", "trace"] {
        let config = config(&service, r#"format = "text""#);
        let gateway = Gateway::with_dpop(&parties, r#"nonces = "generated""#, &config)
            .with_environment("RUST_LOG", level)
            .start();
        let mut secrets = BTreeSet::new();
        for path in ["/orders", "/down", "/other"] {
            let mut request = parties.request(Method::GET, path);
            let response = send_with_secrets(&gateway, &request, &mut secrets).await;
            let Some(nonce) = response.headers().get("dpop-nonce") else {
                continue;
            };
            secrets.insert(nonce.to_str().unwrap().to_owned());
            request.proof_claims["nonce"] = nonce.to_str().unwrap().into();
            send_with_secrets(&gateway, &request, &mut secrets).await;
        }
        // The engine itself responds to what it cannot read.
        let malformed = b"POST /orders?query-of-client HTTP/1.1\r\nHost: a\r\nContent-Length: value-of-client\r\nConnection: close\r\n\r\n";
        send_bytes(&gateway, malformed);
        let last = parties.request(Method::GET, "/last");
        gateway.send(&last).await;
        until("the last line", async || {
            gateway.log().contains("path=\"/last\"").then_some(())
        })
        .await;
        let log = gateway.log();
        assert!(secrets.len() > 4, "{secrets:?}");
        secrets.extend(["query-of-client", "value-of-client"].map(str::to_owned));
        for secret in &secrets {
            assert!(!log.contains(secret.as_str()), "{level}: {secret}");
            // No part of a signed object either.
            for part in secret.split('.').filter(|part| part.len() > 40) {
                assert!(!log.contains(part), "{level}: {part}");
            }
        }
    }
}

/// What operators choose, and which of an accepted request, a rejected one, and one with an unreachable service get a line.
#[tokio::test]
async fn operators_choose_which_requests_get_a_line() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let cases = [
        (
            "all",
            "info",
            &["accepted 200", "rejected 401", "accepted 502"][..],
        ),
        ("rejected", "info", &["rejected 401", "accepted 502"]),
        ("all", "warn", &["accepted 502"]),
        ("all", "dpop_gateway::request=off", &[]),
    ];
    for (requests, level, expected) in cases {
        let config = config(
            &service,
            &format!("format = \"json\"\nrequests = {requests:?}"),
        );
        let gateway = Gateway::new(&parties, &config)
            .with_environment("RUST_LOG", level)
            .start();
        let request = parties.request(Method::GET, "/orders");
        gateway.send(&request).await;
        gateway.send(&request).await;
        gateway.send(&parties.request(Method::GET, "/down")).await;
        let lines = lines(&gateway, expected.len()).await;
        let lines = lines
            .iter()
            .map(|line| format!("{} {}", line["decision"].as_str().unwrap(), line["status"]));
        assert_eq!(lines.collect::<Vec<_>>(), expected, "{requests} {level}");
    }
}

#[tokio::test]
async fn a_level_that_does_not_exist_is_an_error_at_the_start() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &config(&service, ""));
    let output = gateway
        .with_environment("RUST_LOG", "dpop_gateway=loud")
        .output(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("RUST_LOG"), "{said}");
}

#[tokio::test]
async fn the_page_lists_all_fields() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = config(&service, r#"format = "json""#);
    let gateway = Gateway::new(&parties, &config).start();
    let good = parties.request(Method::GET, "/orders");
    // The path of the proof has another prefix, as if a proxy had removed it.
    let mut stripped = good.again();
    stripped.proof_claims["htu"] = "https://api.example.com/api/orders".into();
    let down = parties.request(Method::GET, "/down");
    for request in [&good, &good, &stripped, &down] {
        gateway.send(request).await;
    }
    let lines = lines(&gateway, 4).await;
    let members = lines
        .iter()
        .flat_map(|line| line.as_object().unwrap().keys().cloned());
    assert_eq!(members.collect::<BTreeSet<_>>(), first_column("The log"));
}
