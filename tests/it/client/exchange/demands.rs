//! Demands for a nonce: how they are recognized, and how often a request is sent again.

use std::collections::HashSet;

use tower::{Layer as _, ServiceExt as _};
use tower_dpop::client::DpopClientLayer;

use common::proofs::ReadProof;
use common::{AUDIENCE, NOW, block_on, field};

use crate::client::{
    KINDS, MockResponse, MockServer, ServerKind, date, key, manual_server, next_request, nonce_in,
    ok, ok_with_nonce, response_with, send, token, url,
};

/// C-10, C-21, C-22: with a new proof. Later requests use the nonce at once.
#[test]
fn retries_with_the_demanded_nonce() {
    for kind in KINDS {
        let server = MockServer::with_responses([kind.nonce_demand("first")]);
        let client = kind.client(&server);
        let response = send(&client, kind.request());
        assert_eq!(response.status(), 200, "{kind:?}");
        send(&client, kind.request());
        let [first, retry, later] = server.proofs().try_into().unwrap();
        assert_eq!(first.nonce(), None, "{kind:?}");
        assert_eq!(retry.nonce(), Some("first"), "C-21: {kind:?}");
        assert_eq!(later.nonce(), Some("first"), "C-22: {kind:?}");
        assert_ne!(first.jti(), retry.jti(), "C-21: {kind:?}");
        assert_ne!(first.signature, retry.signature, "C-21: {kind:?}");
        for proof in [first, retry, later] {
            proof.assert_signed("C-21");
            assert_eq!(
                proof.claim("ath").is_some(),
                matches!(kind, ServerKind::Resource)
            );
        }
    }
}

/// C-16, C-25
#[test]
fn recognizes_a_demand_in_every_valid_form() {
    let long = "n".repeat(2048);
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let after_bearer = format!(r#"Bearer error="invalid_token", {challenge}"#);
    let body = r#"{"error":"use_dpop_nonce"}"#;
    let resource = |fields: &[(&str, &str)]| {
        let mut headers = vec![("dpop-nonce", "n")];
        headers.extend(fields);
        response_with(401, &headers, "")
    };
    let token = |media_type| {
        let fields = [("dpop-nonce", "n"), ("content-type", media_type)];
        response_with(400, &fields, body)
    };
    let rows: Vec<(&str, ServerKind, MockResponse)> = vec![
        (
            "after another scheme",
            ServerKind::Resource,
            resource(&[("www-authenticate", &after_bearer)]),
        ),
        (
            "in the second field line",
            ServerKind::Resource,
            resource(&[
                ("www-authenticate", "Bearer"),
                ("www-authenticate", challenge),
            ]),
        ),
        (
            "after another DPoP challenge",
            ServerKind::Resource,
            resource(&[("www-authenticate", &format!("DPoP, {challenge}"))]),
        ),
        (
            "with the status 400",
            ServerKind::Resource,
            response_with(
                400,
                &[("www-authenticate", challenge), ("dpop-nonce", "n")],
                "",
            ),
        ),
        (
            "the longest allowed nonce",
            ServerKind::Resource,
            ServerKind::Resource.nonce_demand(&long),
        ),
        (
            "a media type in mixed case",
            ServerKind::Token,
            token("Application/JSON"),
        ),
        (
            "a space after the media type",
            ServerKind::Token,
            token("application/json ; charset=utf-8"),
        ),
        (
            "a tab after the media type",
            ServerKind::Token,
            token("application/json\t;charset=utf-8"),
        ),
    ];
    for (name, kind, demand) in rows {
        let server = MockServer::with_responses([demand]);
        let response = send(&kind.client(&server), kind.request());
        assert_eq!(response.status(), 200, "{kind:?}: {name}");
        assert_eq!(server.request_count(), 2, "{kind:?}: {name}");
    }
}

/// C-21
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn does_not_retry_other_responses() {
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let body = r#"{"error":"use_dpop_nonce"}"#;
    let json = ("content-type", "application/json");
    let nonce = ("dpop-nonce", "fresh");
    let resource =
        |status, challenge| response_with(status, &[("www-authenticate", challenge), nonce], "");
    let rows: Vec<(&str, ServerKind, MockResponse)> = vec![
        (
            "another status",
            ServerKind::Resource,
            resource(403, challenge),
        ),
        (
            "another error with the status 400",
            ServerKind::Resource,
            resource(400, r#"DPoP error="invalid_dpop_proof""#),
        ),
        (
            "the status 400 and another scheme",
            ServerKind::Resource,
            resource(400, r#"Bearer error="use_dpop_nonce""#),
        ),
        ("a success", ServerKind::Resource, resource(200, challenge)),
        (
            "another scheme",
            ServerKind::Resource,
            resource(401, r#"Bearer error="use_dpop_nonce""#),
        ),
        (
            "another error",
            ServerKind::Resource,
            resource(401, r#"DPoP error="invalid_token""#),
        ),
        (
            "an error in upper case",
            ServerKind::Resource,
            resource(401, r#"DPoP error="USE_DPOP_NONCE""#),
        ),
        (
            "from a proxy",
            ServerKind::Resource,
            response_with(407, &[("proxy-authenticate", challenge), nonce], ""),
        ),
        (
            "in the body",
            ServerKind::Resource,
            response_with(401, &[json, nonce], body),
        ),
        (
            "another status",
            ServerKind::Token,
            response_with(403, &[json, nonce], body),
        ),
        (
            "a success",
            ServerKind::Token,
            response_with(200, &[json, nonce], body),
        ),
        (
            "in a challenge",
            ServerKind::Token,
            response_with(400, &[("www-authenticate", challenge), nonce], ""),
        ),
        (
            "no media type",
            ServerKind::Token,
            response_with(400, &[nonce], body),
        ),
        (
            "another media type",
            ServerKind::Token,
            response_with(400, &[("content-type", "text/html"), nonce], body),
        ),
        (
            "a longer media type",
            ServerKind::Token,
            response_with(
                400,
                &[("content-type", "application/json-seq"), nonce],
                body,
            ),
        ),
        (
            "another error",
            ServerKind::Token,
            response_with(400, &[json, nonce], r#"{"error":"invalid_grant"}"#),
        ),
        (
            "two errors",
            ServerKind::Token,
            response_with(
                400,
                &[json, nonce],
                r#"{"error":"x","error":"use_dpop_nonce"}"#,
            ),
        ),
        (
            "an error that is not a string",
            ServerKind::Token,
            response_with(400, &[json, nonce], r#"{"error":["use_dpop_nonce"]}"#),
        ),
        (
            "an array",
            ServerKind::Token,
            response_with(400, &[json, nonce], r#"["use_dpop_nonce"]"#),
        ),
        (
            "not JSON",
            ServerKind::Token,
            response_with(400, &[json, nonce], "use_dpop_nonce"),
        ),
        (
            "trailing data",
            ServerKind::Token,
            response_with(400, &[json, nonce], &format!("{body}{body}")),
        ),
    ];
    for (name, kind, rejection) in rows {
        let status = rejection.status();
        let server = MockServer::with_responses([rejection]);
        let client = kind.client(&server);
        assert_eq!(
            send(&client, kind.request()).status(),
            status,
            "{kind:?}: {name}"
        );
        assert_eq!(server.request_count(), 1, "{kind:?}: {name}");
        send(&client, kind.request());
        assert_eq!(
            server.nonces(),
            [None, Some("fresh".into())],
            "C-22: {kind:?}: {name}: the nonce is stored"
        );
    }
}

/// C-21: a demand that repeats the nonce of the rejected proof is not met.
#[test]
fn does_not_retry_with_the_same_nonce() {
    for kind in KINDS {
        let server = MockServer::new(move |_, _| kind.nonce_demand("same"));
        let client = kind.client(&server);
        send(&client, kind.request());
        assert_eq!(server.request_count(), 2, "{kind:?}: sent again only once");
        send(&client, kind.request());
        assert_eq!(server.request_count(), 3, "{kind:?}");
    }
}

/// C-21: after that, the caller gets the whole last response.
#[test]
fn retries_at_most_twice_for_a_nonce() {
    for kind in KINDS {
        let server = MockServer::new(move |number, _| {
            let mut rejection = kind.nonce_demand(&format!("nonce-{number}"));
            let number = field(number.to_string().as_bytes());
            rejection.headers_mut().insert("x-number", number);
            rejection
        });
        let client = kind.client(&server);
        let response = send(&client, kind.request());
        assert_eq!(server.request_count(), 3, "{kind:?}");
        assert!(response.status().is_client_error(), "{kind:?}");
        assert_eq!(response.headers()["x-number"], "3", "{kind:?}");
        assert_eq!(response.headers()["dpop-nonce"], "nonce-3", "{kind:?}");
        let is_json = response.body().starts_with(b"{\"error\"");
        assert_eq!(is_json, !matches!(kind, ServerKind::Resource), "{kind:?}");
        let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
        assert_eq!(jtis.len(), 3, "C-2: {kind:?}");
        send(&client, kind.request());
        assert_eq!(
            server.nonces()[3].as_deref(),
            Some("nonce-3"),
            "C-22: {kind:?}"
        );
    }
}

/// C-21: the demand has no nonce, but the response to a concurrent request has one.
#[test]
fn a_retry_can_use_the_nonce_of_another_response() {
    block_on(async {
        let (server, mut requests) = manual_server();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let spawn_request = || tokio::spawn(client.clone().oneshot(ServerKind::Resource.request()));
        let one = spawn_request();
        let (_, respond_to_one) = next_request(&mut requests).await;
        let two = spawn_request();
        let (_, respond_to_two) = next_request(&mut requests).await;
        respond_to_two.send(ok_with_nonce("n")).unwrap();
        two.await.unwrap().unwrap();
        respond_to_one
            .send(ServerKind::Resource.rejection("use_dpop_nonce", &[]))
            .unwrap();
        let (head, respond_to_retry) = next_request(&mut requests).await;
        assert_eq!(nonce_in(&head).as_deref(), Some("n"));
        respond_to_retry.send(ok()).unwrap();
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    });
}

/// C-21, C-29
#[test]
fn retries_for_a_nonce_and_for_the_clock_in_one_request() {
    for kind in KINDS {
        let server = MockServer::new(move |_, head| {
            let proof = ReadProof::in_headers(&head.headers);
            let server_date = date(NOW + 600);
            if proof.nonce() != Some("n") {
                let mut demand = kind.nonce_demand("n");
                demand
                    .headers_mut()
                    .insert("date", server_date.parse().unwrap());
                demand
            } else if proof.iat() != NOW + 600 {
                kind.invalid_proof(&[("date", &server_date)])
            } else {
                response_with(200, &[("date", &server_date)], "")
            }
        });
        let client = kind.client(&server);
        assert_eq!(send(&client, kind.request()).status(), 200, "{kind:?}");
        assert!(
            server.request_count() <= 3,
            "{kind:?}: {}",
            server.request_count()
        );
        let count = server.request_count();
        assert_eq!(send(&client, kind.request()).status(), 200, "{kind:?}");
        assert_eq!(server.request_count(), count + 1, "{kind:?}");
    }
}
