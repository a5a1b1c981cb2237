//! Introspection requests without a usable response, and how they are logged.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_dpop::Rejection;
use tower_dpop::testing::TestClock;
use tower_dpop::tokens::{ClientAuthentication, HttpClient, IntrospectionVerifier, TokenError};

use super::{
    CLIENT_ID, RegisteredClient, SECRET, Server, TOKEN, changed_response, clients, good_response,
    layer, layer_at, send,
};
use common::log::logged;
use common::proofs::assert_shows_nothing;
use common::{AUDIENCE, NOW, block_on};

/// J-12 for introspection responses: a body that two parsers could read differently is not a valid
/// response. The server is at fault, so the client gets a 503, and no challenge to get another
/// token.
#[test]
fn a_malformed_response_is_a_server_error() {
    let text = good_response().to_string();
    let padded = |length: usize| {
        let padding = " ".repeat(length - text.len());
        text.clone() + &padding
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let rows: Vec<(&str, Vec<u8>, bool)> = vec![
        ("64 KiB", padded(64 * 1024).into(), true),
        ("64 KiB and one byte", padded(64 * 1024 + 1).into(), false),
        ("1 MiB", padded(1024 * 1024).into(), false),
        ("empty", vec![], false),
        ("HTML", b"<html></html>".to_vec(), false),
        ("a JWT", b"e30.e30.e30".to_vec(), false),
        ("an array", format!("[{text}]").into(), false),
        ("true", b"true".to_vec(), false),
        ("the first half", text[..text.len() / 2].into(), false),
        ("trailing data", format!("{text}{{}}").into(), false),
        ("a byte order mark", format!("\u{feff}{text}").into(), false),
        (
            "active twice",
            text.replacen('{', r#"{"active":false,"#, 1).into(),
            false,
        ),
        (
            "active twice under an escape",
            text.replacen('{', r#"{"\u0061ctive":false,"#, 1).into(),
            false,
        ),
        (
            "cnf twice",
            text.replacen('{', r#"{"cnf":{},"#, 1).into(),
            false,
        ),
        (
            "jkt twice",
            text.replacen(r#""cnf":{"#, r#""cnf":{"jkt":"x","#, 1)
                .into(),
            false,
        ),
        (
            "a duplicate in an unknown member",
            text.replacen('{', r#"{"x":[{"y":1,"y":1}],"#, 1).into(),
            false,
        ),
        (
            "nested too deeply",
            text.replacen('{', &format!(r#"{{"x":{deep},"#), 1).into(),
            false,
        ),
        (
            "bytes that are not UTF-8",
            [b"{\"x\":\"\xff\",".as_slice(), &text.as_bytes()[1..]].concat(),
            false,
        ),
    ];
    let server = Server::with_basic();
    block_on(async {
        for (name, body, passes) in rows {
            server.set_response_with_status(StatusCode::OK, body);
            let outcome = send(&layer(server.verifier()), TOKEN).await;
            if passes {
                outcome.assert_passed(name);
            } else {
                outcome.assert_unavailable(name);
            }
        }
    });
}

/// D13: a body counts only with status 200. A 401 is about the credentials of this service, not
/// about the client's token.
#[test]
fn a_status_other_than_200_is_a_server_error() {
    let server = Server::with_basic();
    block_on(async {
        for status in [
            201, 203, 204, 300, 304, 400, 401, 403, 404, 429, 500, 502, 503,
        ] {
            server.set_response_with_status(
                StatusCode::from_u16(status).unwrap(),
                good_response().to_string(),
            );
            let outcome = send(&layer(server.verifier()), TOKEN).await;
            outcome.assert_unavailable(&status.to_string());
        }
        server.assert_no_errors("each status");

        let wrong = ClientAuthentication::basic(CLIENT_ID, "another secret");
        let outcome = send(&layer(server.verifier_as(wrong)), TOKEN).await;
        outcome.assert_unavailable("a secret that the server does not know");
        assert_eq!(server.state.errors.lock().unwrap().len(), 1);
    });
}

/// Some servers respond with this error to a kind of token that they do not introspect. It is about
/// the token; every other error is about the introspection request.
#[test]
fn an_unsupported_token_type_is_an_invalid_token() {
    let server = Server::with_basic();
    let rows = [
        (400, r#"{"error":"unsupported_token_type"}"#, true),
        (401, r#"{"error":"unsupported_token_type"}"#, false),
        (500, r#"{"error":"unsupported_token_type"}"#, false),
        (400, r#"{"error":"invalid_request"}"#, false),
        (400, r#"{"error":["unsupported_token_type"]}"#, false),
        (
            400,
            r#"{"error_description":"unsupported_token_type"}"#,
            false,
        ),
        (400, "unsupported_token_type", false),
    ];
    block_on(async {
        for (status, body, is_about_the_token) in rows {
            let name = format!("{status} {body}");
            server.set_response_with_status(StatusCode::from_u16(status).unwrap(), body);
            let outcome = send(&layer(server.verifier()), TOKEN).await;
            if is_about_the_token {
                outcome.assert_reason(&name, Rejection::Token(TokenError::Invalid));
            } else {
                outcome.assert_unavailable(&name);
            }
        }
    });
}

/// Nothing is decompressed. The request says so, and the log names the coding and the remedy.
#[test]
fn a_response_with_a_content_coding_is_a_server_error() {
    let server = Server::with_basic();
    let rows = [
        (200, "identity", true),
        (200, "gzip", false),
        (200, "identity, br", false),
        (400, "gzip", false),
    ];
    for (status, coding, passes) in rows {
        let name = format!("{status} {coding}");
        server.set_content_coding(StatusCode::from_u16(status).unwrap(), coding);
        let (outcome, log) = logged(|| block_on(send(&layer(server.verifier()), TOKEN)));
        if passes {
            outcome.assert_passed(&name);
            continue;
        }
        outcome.assert_unavailable(&name);
        let reason = format!(
            "reason=the response has the content coding {coding:?}, although the request asks for none \
             (Accept-Encoding: identity): switch compression off for this URL, at the server or at the proxy in front of it"
        );
        assert!(log.contains(&reason), "{name}: {log}");
    }
    server.assert_no_errors("each coding");
}

/// An introspection endpoint may want a bearer token instead of client authentication (RFC 7662 section 2.1). Two
/// `Authorization` fields would be malformed.
#[test]
fn the_authorization_of_the_client_goes_before_that_of_the_origin() {
    let server = Server::with_basic();
    let http = HttpClient::builder()
        .with_authorization(&server.origin.parse().unwrap(), || {
            Ok("Bearer another".to_owned())
        })
        .build()
        .unwrap();
    let verifier = |server: &Server, client, http| {
        let endpoint = format!("{}/introspect?tenant=1", server.origin);
        IntrospectionVerifier::new(endpoint.parse().unwrap(), client, AUDIENCE, http)
    };
    let basic = ClientAuthentication::basic(CLIENT_ID, SECRET);
    let tokens = verifier(&server, basic, http);
    block_on(send(&layer(tokens), TOKEN)).assert_passed("Basic");
    server.assert_no_errors("Basic");

    // This server expects no `Authorization`, and reports the one that it gets.
    let server = Server::start(RegisteredClient::Post(CLIENT_ID.into(), SECRET.into()));
    let http = HttpClient::builder().with_authorization(&server.origin.parse().unwrap(), || {
        Ok("Bearer of the origin".to_owned())
    });
    let post = ClientAuthentication::post(CLIENT_ID, SECRET);
    let tokens = verifier(&server, post, http.build().unwrap());
    block_on(send(&layer(tokens), TOKEN)).assert_unavailable("in the form");
    let errors = server.state.errors.lock().unwrap();
    assert_eq!(
        errors[..],
        [r#"Authorization is Some("Bearer of the origin")"#.to_owned()]
    );
}

/// RFC 7662 does not mention redirects. Neither the token nor the credentials may be sent to
/// another server.
#[test]
fn does_not_follow_a_redirect_to_another_server() {
    let (server, other) = (Server::with_basic(), Server::with_basic());
    block_on(async {
        for status in [301, 302, 303, 307, 308] {
            server.set_redirect(
                StatusCode::from_u16(status).unwrap(),
                format!("{}/introspect?tenant=1", other.origin),
            );
            let outcome = send(&layer(server.verifier()), TOKEN).await;
            outcome.assert_unavailable(&status.to_string());
        }
        assert_eq!((server.request_count(), other.request_count()), (5, 0));

        server.set_redirect(StatusCode::TEMPORARY_REDIRECT, "/moved");
        send(&layer(server.verifier()), TOKEN)
            .await
            .assert_passed("a redirect within one origin");
    });
}

/// D13: the request is rejected with 503.
#[test]
fn an_unreachable_or_slow_server_is_a_server_error() {
    block_on(async {
        let server = Server::with_basic();
        let stopped = layer(server.verifier());
        drop(server);
        send(&stopped, TOKEN).await.assert_unavailable("down");

        let server = Server::with_basic();
        server.hold_responses();
        let http = HttpClient::builder()
            .with_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let tokens = IntrospectionVerifier::new(
            format!("{}/introspect?tenant=1", server.origin)
                .parse()
                .unwrap(),
            ClientAuthentication::basic(CLIENT_ID, SECRET),
            AUDIENCE,
            http,
        );
        send(&layer(tokens), TOKEN).await.assert_unavailable("slow");
        server.until_requested(1).await;
    });
}

#[test]
fn an_incomplete_response_is_a_server_error() {
    let body = good_response().to_string();
    let whole = body.len();
    let rows = [
        ("no bytes", String::new()),
        ("an incomplete head", "HTTP/1.1 200 O".to_owned()),
        (
            "an incomplete body",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n{}",
                &body[..whole - 1]
            ),
        ),
        (
            "a chunked body without its last chunk",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{whole:x}\r\n{body}\r\n"),
        ),
        ("another protocol", "SSH-2.0-OpenSSH\r\n".to_owned()),
    ];
    block_on(async {
        for (name, reply) in rows {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // One read of this size gets the whole introspection request.
                    let mut bytes = vec![0; 16 * 1024];
                    let _ = stream.read(&mut bytes).await;
                    let _ = stream.write_all(reply.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
            let tokens = IntrospectionVerifier::new(
                endpoint.parse().unwrap(),
                ClientAuthentication::basic(CLIENT_ID, SECRET),
                AUDIENCE,
                HttpClient::new().unwrap(),
            );
            send(&layer(tokens), TOKEN).await.assert_unavailable(name);
        }
    });
}

/// The status and the body of the response; the level and the reason of the event, if one is
/// logged.
type LoggedRow = (u16, String, Option<(&'static str, &'static str)>);

/// D21: the log says why an introspection request failed, at `error` if the server rejects the
/// credentials of this service.
#[test]
fn logs_and_responses_contain_no_tokens_secrets_or_claims() {
    let token = "marker-token-marker.2YotnFZFEjr1zCsicMWpAA";
    let marked = |change: fn(&mut Value)| {
        let mut response = changed_response(change);
        response["sub"] = json!("marker-subject-marker");
        response.to_string()
    };
    let target = "tower_dpop::tokens::introspection";
    let rows: Vec<LoggedRow> = vec![
        (200, marked(|_| {}), None),
        (200, marked(|r| r["active"] = json!(false)), None),
        (200, marked(|r| r["cnf"] = json!("marker-cnf-marker")), None),
        (
            200,
            marked(|r| r["active"] = json!("marker-active-marker")),
            Some((" WARN", "not an introspection response")),
        ),
        (
            200,
            " ".repeat(64 * 1024) + &marked(|_| {}),
            Some((" WARN", "too long")),
        ),
        (401, marked(|_| {}), Some(("ERROR", "status 401"))),
        (403, marked(|_| {}), Some(("ERROR", "status 403"))),
        (400, marked(|_| {}), Some((" WARN", "status 400"))),
        (500, marked(|_| {}), Some((" WARN", "status 500"))),
        (307, String::new(), Some((" WARN", "redirected"))),
    ];
    for (registered, client, secrets) in clients() {
        let server = Server::start(registered);
        for (status, body, event) in &rows {
            let name = format!("{client:?}, {status}");
            if *status == 307 {
                server.set_redirect(StatusCode::TEMPORARY_REDIRECT, "http://127.0.0.1:1/");
            } else {
                server
                    .set_response_with_status(StatusCode::from_u16(*status).unwrap(), body.clone());
            }
            let layer = layer(server.verifier_as(client.clone()));
            let mut kit = None;
            let ((), log) = logged(|| {
                block_on(async { kit = Some(send(&layer, token).await.kit) });
            });
            server.assert_no_errors(&name);
            let mut hidden = secrets.clone();
            hidden.extend([token, "marker-subject-marker", "Alice L."].map(str::to_owned));
            hidden.extend(["marker-cnf-marker", "marker-active-marker"].map(str::to_owned));
            let form = server.state.form.lock().unwrap().clone();
            let assertion = form.iter().find(|(name, _)| name == "client_assertion");
            hidden.extend(assertion.map(|(_, assertion)| assertion.clone()));
            assert!(log.contains("tower_dpop") || kit.as_ref().unwrap().status == StatusCode::OK);
            assert_shows_nothing(&name, &log, &hidden);
            let kit = kit.unwrap();
            let headers = format!("{:?} {:?}", kit.challenges, kit.nonces);
            assert_shows_nothing(&name, &headers, &hidden);
            let events: Vec<&str> = log.lines().filter(|line| line.contains(target)).collect();
            match event {
                None => assert_eq!(events, [""; 0], "{name}"),
                Some((level, reason)) => {
                    assert_eq!(events.len(), 1, "{name}: {events:?}");
                    assert!(
                        events[0].contains(level) && events[0].contains(reason),
                        "{name}: {events:?}"
                    );
                }
            }
        }
    }
}

/// One line when the endpoint begins to fail, one for each further cause, and one when it has worked for some seconds.
#[test]
fn an_outage_of_the_endpoint_is_logged_once_and_so_is_its_end() {
    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let layer = layer_at(&clock, server.verifier());
    let failed = "an access token could not be introspected";
    let works = "access tokens can be introspected again";
    // Seconds, the status, and what is logged about the endpoint.
    let rows = [
        (0, 200, None),
        (1, 500, Some((" WARN", failed, "status 500"))),
        (2, 500, None),
        (2, 502, Some((" WARN", failed, "status 502"))),
        (3, 200, None),
        (4, 500, None),
        (8, 200, None),
        (9, 200, Some((" INFO", works, "seconds=8"))),
        (10, 200, None),
        (11, 500, Some((" WARN", failed, "status 500"))),
    ];
    for (seconds, status, expected) in rows {
        clock.set(NOW + seconds);
        let status = StatusCode::from_u16(status).unwrap();
        server.set_response_with_status(status, json!({ "active": false }).to_string());
        let (outcome, log) = logged(|| block_on(send(&layer, TOKEN)));
        let rejected = if status == 200 { 401 } else { 503 };
        assert_eq!(outcome.kit.status, rejected, "{seconds}");
        let target = "tower_dpop::tokens::introspection";
        let lines: Vec<_> = log.lines().filter(|line| line.contains(target)).collect();
        assert_eq!(
            lines.len(),
            usize::from(expected.is_some()),
            "{seconds}: {log}"
        );
        if let Some((level, message, detail)) = expected {
            for part in [level, message, detail] {
                assert!(lines[0].contains(part), "{seconds}: {log}");
            }
        }
    }
}
