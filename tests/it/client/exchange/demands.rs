//! Demands for a nonce: which responses are one, and how often a request is sent again.

use std::collections::HashSet;

use tower::{Layer as _, ServiceExt as _};
use tower_dpop::client::DpopClientLayer;

use common::proofs::ReadProof;
use common::{AUDIENCE, NOW, block_on, field};

use crate::client::{
    Answered, KINDS, Kind, Server, answer, ask, by_hand, date, fresh, key, next, nonce_of, ok,
    token, url,
};

/// C-10, C-21, C-22: a demand is answered with another proof, and later requests heed it at once.
#[test]
fn a_demand_for_a_nonce_is_answered() {
    for kind in KINDS {
        let server = Server::with_answers([kind.demand("first")]);
        let client = kind.client(&server);
        let response = ask(&client, kind.request());
        assert_eq!(response.status(), 200, "{kind:?}");
        ask(&client, kind.request());
        let [one, two, three] = server.proofs().try_into().unwrap();
        assert_eq!(one.nonce(), None, "{kind:?}");
        assert_eq!(two.nonce(), Some("first"), "C-21: {kind:?}");
        assert_eq!(three.nonce(), Some("first"), "C-22: {kind:?}");
        assert_ne!(one.jti(), two.jti(), "C-21: {kind:?}");
        assert_ne!(one.signature, two.signature, "C-21: {kind:?}");
        for proof in [one, two, three] {
            proof.assert_signed("C-21");
            assert_eq!(proof.claim("ath").is_some(), matches!(kind, Kind::Resource));
        }
    }
}

/// C-16, C-25: however the demand is written.
#[test]
fn a_demand_in_another_form_is_answered() {
    let long = "n".repeat(2048);
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let behind_bearer = format!(r#"Bearer error="invalid_token", {challenge}"#);
    let body = r#"{"error":"use_dpop_nonce"}"#;
    let resource = |fields: &[(&str, &str)]| {
        let mut all = vec![("dpop-nonce", "n")];
        all.extend(fields);
        answer(401, &all, "")
    };
    let token = |media_type| {
        let fields = [("dpop-nonce", "n"), ("content-type", media_type)];
        answer(400, &fields, body)
    };
    let rows: Vec<(&str, Kind, Answered)> = vec![
        (
            "behind another scheme",
            Kind::Resource,
            resource(&[("www-authenticate", &behind_bearer)]),
        ),
        (
            "behind another field line",
            Kind::Resource,
            resource(&[
                ("www-authenticate", "Bearer"),
                ("www-authenticate", challenge),
            ]),
        ),
        (
            "behind another DPoP challenge",
            Kind::Resource,
            resource(&[("www-authenticate", &format!("DPoP, {challenge}"))]),
        ),
        (
            "the longest nonce that is kept",
            Kind::Resource,
            Kind::Resource.demand(&long),
        ),
        (
            "no case in the type",
            Kind::Token,
            token("Application/JSON"),
        ),
        (
            "a space behind the type",
            Kind::Token,
            token("application/json ; charset=utf-8"),
        ),
        (
            "a tab behind the type",
            Kind::Token,
            token("application/json\t;charset=utf-8"),
        ),
    ];
    for (name, kind, demand) in rows {
        let server = Server::with_answers([demand]);
        let response = ask(&kind.client(&server), kind.request());
        assert_eq!(response.status(), 200, "{kind:?}: {name}");
        assert_eq!(server.count(), 2, "{kind:?}: {name}");
    }
}

/// C-21
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn other_rejections_are_not_answered() {
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let body = r#"{"error":"use_dpop_nonce"}"#;
    let json = ("content-type", "application/json");
    let nonce = ("dpop-nonce", "fresh");
    let resource =
        |status, challenge| answer(status, &[("www-authenticate", challenge), nonce], "");
    let rows: Vec<(&str, Kind, Answered)> = vec![
        ("another status", Kind::Resource, resource(400, challenge)),
        ("a success", Kind::Resource, resource(200, challenge)),
        (
            "another scheme",
            Kind::Resource,
            resource(401, r#"Bearer error="use_dpop_nonce""#),
        ),
        (
            "another error",
            Kind::Resource,
            resource(401, r#"DPoP error="invalid_token""#),
        ),
        (
            "another case",
            Kind::Resource,
            resource(401, r#"DPoP error="USE_DPOP_NONCE""#),
        ),
        (
            "of a proxy",
            Kind::Resource,
            answer(407, &[("proxy-authenticate", challenge), nonce], ""),
        ),
        (
            "in a body",
            Kind::Resource,
            answer(401, &[json, nonce], body),
        ),
        (
            "another status",
            Kind::Token,
            answer(403, &[json, nonce], body),
        ),
        ("a success", Kind::Token, answer(200, &[json, nonce], body)),
        (
            "in a challenge",
            Kind::Token,
            answer(400, &[("www-authenticate", challenge), nonce], ""),
        ),
        ("no media type", Kind::Token, answer(400, &[nonce], body)),
        (
            "another media type",
            Kind::Token,
            answer(400, &[("content-type", "text/html"), nonce], body),
        ),
        (
            "a longer media type",
            Kind::Token,
            answer(
                400,
                &[("content-type", "application/json-seq"), nonce],
                body,
            ),
        ),
        (
            "another error",
            Kind::Token,
            answer(400, &[json, nonce], r#"{"error":"invalid_grant"}"#),
        ),
        (
            "two errors",
            Kind::Token,
            answer(
                400,
                &[json, nonce],
                r#"{"error":"x","error":"use_dpop_nonce"}"#,
            ),
        ),
        (
            "an error that is no text",
            Kind::Token,
            answer(400, &[json, nonce], r#"{"error":["use_dpop_nonce"]}"#),
        ),
        (
            "a list",
            Kind::Token,
            answer(400, &[json, nonce], r#"["use_dpop_nonce"]"#),
        ),
        (
            "no JSON",
            Kind::Token,
            answer(400, &[json, nonce], "use_dpop_nonce"),
        ),
        (
            "something behind it",
            Kind::Token,
            answer(400, &[json, nonce], &format!("{body}{body}")),
        ),
    ];
    for (name, kind, rejection) in rows {
        let status = rejection.status();
        let server = Server::with_answers([rejection]);
        let client = kind.client(&server);
        assert_eq!(
            ask(&client, kind.request()).status(),
            status,
            "{kind:?}: {name}"
        );
        assert_eq!(server.count(), 1, "{kind:?}: {name}");
        ask(&client, kind.request());
        assert_eq!(
            server.nonces(),
            [None, Some("fresh".into())],
            "C-22: {kind:?}: {name}: the nonce is kept all the same"
        );
    }
}

/// C-21: the same nonce again is no new one.
#[test]
fn a_demand_for_the_nonce_that_was_used_is_not_answered() {
    for kind in KINDS {
        let server = Server::new(move |_, _| kind.demand("same"));
        let client = kind.client(&server);
        ask(&client, kind.request());
        assert_eq!(server.count(), 2, "{kind:?}: with it, and then no more");
        ask(&client, kind.request());
        assert_eq!(server.count(), 3, "{kind:?}");
    }
}

/// C-21: bounded, and the caller gets what the server said last, all of it.
#[test]
fn a_server_that_is_never_content_is_answered_twice() {
    for kind in KINDS {
        let server = Server::new(move |number, _| {
            let mut rejection = kind.demand(&format!("nonce-{number}"));
            let number = field(number.to_string().as_bytes());
            rejection.headers_mut().insert("x-number", number);
            rejection
        });
        let client = kind.client(&server);
        let response = ask(&client, kind.request());
        assert_eq!(server.count(), 3, "{kind:?}");
        assert!(response.status().is_client_error(), "{kind:?}");
        assert_eq!(response.headers()["x-number"], "3", "{kind:?}");
        assert_eq!(response.headers()["dpop-nonce"], "nonce-3", "{kind:?}");
        let is_json = response.body().starts_with(b"{\"error\"");
        assert_eq!(is_json, !matches!(kind, Kind::Resource), "{kind:?}");
        let identifiers: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
        assert_eq!(identifiers.len(), 3, "C-2: {kind:?}");
        ask(&client, kind.request());
        assert_eq!(
            server.nonces()[3].as_deref(),
            Some("nonce-3"),
            "C-22: {kind:?}"
        );
    }
}

/// C-21: a demand that brings no nonce by itself is met by one that another response brought.
#[test]
fn a_nonce_that_another_response_brought_meets_a_demand() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
        let one = send();
        let (_, answer_one) = next(&mut calls).await;
        let two = send();
        let (_, answer_two) = next(&mut calls).await;
        answer_two.send(fresh("n")).unwrap();
        two.await.unwrap().unwrap();
        answer_one
            .send(Kind::Resource.rejection("use_dpop_nonce", &[]))
            .unwrap();
        let (head, answer_again) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("n"));
        answer_again.send(ok()).unwrap();
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    });
}

/// C-21, C-29: a nonce and the time, one after the other.
#[test]
fn a_nonce_and_the_time_may_both_be_asked_for() {
    for kind in KINDS {
        let server = Server::new(move |_, head| {
            let proof = ReadProof::in_headers(&head.headers);
            let said = date(NOW + 600);
            if proof.nonce() != Some("n") {
                let mut demand = kind.demand("n");
                demand.headers_mut().insert("date", said.parse().unwrap());
                demand
            } else if proof.iat() != NOW + 600 {
                kind.invalid_proof(&[("date", &said)])
            } else {
                answer(200, &[("date", &said)], "")
            }
        });
        let client = kind.client(&server);
        assert_eq!(ask(&client, kind.request()).status(), 200, "{kind:?}");
        assert!(server.count() <= 3, "{kind:?}: {}", server.count());
        let trips = server.count();
        assert_eq!(ask(&client, kind.request()).status(), 200, "{kind:?}");
        assert_eq!(server.count(), trips + 1, "{kind:?}");
    }
}
