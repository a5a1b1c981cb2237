//! Clock correction: when a request is sent again with the server's time, and when the time is
//! stored.

use std::collections::HashSet;

use http::Request;
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::client::{ClientError, DpopClientLayer, TokenClientLayer};

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, NOW, TestClock, at, block_on};

use crate::client::{
    KINDS, MockResponse, MockServer, ServerKind, TOKEN_URL, boxed, date, expect_error, key,
    manual_server, next_request, ok, response_with, send, server_with_clock, token, url,
};

/// C-21: a retry has its own `iat`.
#[test]
fn reads_the_clock_for_each_proof() {
    for kind in KINDS {
        let clock = TestClock::at(NOW);
        let shared_clock = clock.clone();
        let server = MockServer::new(move |number, _| {
            shared_clock.set(NOW + 3);
            if number == 1 {
                kind.nonce_demand("n")
            } else {
                ok()
            }
        });
        send(&kind.client_at(&server, &clock), kind.request());
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW + 3], "{kind:?}");
    }
}

/// C-29: the request is sent again with the server's time. Later requests use it at once.
#[test]
fn retries_with_the_servers_time_if_our_clock_is_wrong() {
    for kind in KINDS {
        for offset in [600, -600, 31, -31, 6, -6] {
            let (server, server_clock) = server_with_clock(kind, offset, || None);
            let our_clock = TestClock::at(NOW);
            let client = kind.client_at(&server, &our_clock);
            let server_time = NOW.checked_add_signed(offset).unwrap();
            assert_eq!(
                send(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(
                send(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
            assert_eq!(
                times,
                [NOW, server_time, server_time],
                "C-29: {kind:?}: {offset}"
            );
            let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
            assert_eq!(jtis.len(), 3, "C-2: {kind:?}");

            // Our clock is set to the correct time.
            our_clock.set(server_time);
            assert_eq!(
                send(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(
                send(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            let last = server.proofs().pop().unwrap().iat();
            assert_eq!(last, server_time, "C-29: {kind:?}: {offset}: no correction");
            let count = server.request_count();
            assert!(count <= 6, "{kind:?}: {offset}: {count}");

            // Time passes for both.
            our_clock.set(server_time + 60);
            server_clock.set(server_time + 60);
            assert_eq!(
                send(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(server.request_count(), count + 1, "{kind:?}: {offset}");
        }
    }
}

/// C-29: even if each response has another `Date`.
#[test]
fn corrects_the_clock_once_per_request() {
    for kind in KINDS {
        let server = MockServer::new(move |number, _| {
            let number = u64::try_from(number).unwrap();
            kind.invalid_proof(&[("date", &date(NOW + 600 * number))])
        });
        let response = send(&kind.client(&server), kind.request());
        assert!(response.status().is_client_error(), "{kind:?}");
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW + 600], "{kind:?}");
    }
}

/// C-29: if a server accepts proofs with our time, its `Date` does not matter.
#[test]
fn a_wrong_date_does_no_harm() {
    for kind in KINDS {
        for date_field in [
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "0",
        ] {
            let (server, _) = server_with_clock(kind, 0, move || Some(date_field.to_owned()));
            let client = kind.client(&server);
            for _ in 0..3 {
                let status = send(&client, kind.request()).status();
                assert_eq!(status, 200, "C-29: {kind:?}: {date_field}");
            }
            assert_eq!(server.request_count(), 3, "{kind:?}: {date_field}");

            // Nor after a proof was rejected for another reason.
            let rejections = MockServer::new(move |number, head| {
                let iat = ReadProof::in_headers(&head.headers).iat();
                if iat == NOW && number > 1 {
                    response_with(200, &[("date", date_field)], "")
                } else {
                    kind.invalid_proof(&[("date", date_field)])
                }
            });
            let client = kind.client(&rejections);
            assert!(send(&client, kind.request()).status().is_client_error());
            let status = send(&client, kind.request()).status();
            assert_eq!(
                status, 200,
                "C-29: {kind:?}: {date_field}: after a rejection"
            );
        }
    }
}

/// C-29: the client has stored the server's clock, ten minutes ahead. The rows give the next
/// responses, and the `iat` of each later proof.
#[test]
fn keeps_a_corrected_clock_while_proofs_are_accepted() {
    type NextResponses = fn(ServerKind) -> Vec<MockResponse>;
    let ten_minutes = NOW + 600;
    let rows: [(&str, NextResponses, &[u64]); 14] = [
        ("a success", |_| vec![ok()], &[ten_minutes, ten_minutes]),
        (
            "a success with an invalid Date",
            |_| vec![response_with(200, &[("date", "now")], "")],
            &[ten_minutes, ten_minutes],
        ),
        (
            "a success with a Date that equals our clock",
            |_| vec![response_with(200, &[("date", &date(NOW))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "a success with a Date 5 seconds ahead of our clock",
            |_| vec![response_with(200, &[("date", &date(NOW + 5))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "a success with a Date 5 seconds behind our clock",
            |_| vec![response_with(200, &[("date", &date(NOW - 5))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "a rejection without a Date",
            |kind| vec![kind.invalid_proof(&[])],
            &[ten_minutes, NOW],
        ),
        (
            "a rejection with a Date 5 seconds ahead of the stored clock",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 605))])],
            &[ten_minutes, ten_minutes],
        ),
        (
            "a rejection with a Date 5 seconds behind the stored clock",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 595))])],
            &[ten_minutes, ten_minutes],
        ),
        (
            "a rejection with a Date 6 seconds ahead of the stored clock",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 606))])],
            &[ten_minutes, NOW + 606, NOW + 606],
        ),
        (
            "a rejection with a Date behind our clock",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW - 600))])],
            &[ten_minutes, NOW - 600, NOW - 600],
        ),
        (
            "two rejections with the same new Date",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 3000))]); 2],
            &[ten_minutes, NOW + 3000, NOW],
        ),
        (
            "a rejection with a new Date, then one with the stored clock",
            |kind| {
                let rejection = |seconds| kind.invalid_proof(&[("date", &date(seconds))]);
                vec![rejection(NOW + 3000), rejection(NOW + 600)]
            },
            &[ten_minutes, NOW + 3000, NOW],
        ),
        (
            "a rejection with a new Date, then a gateway error",
            |kind| {
                let rejection = kind.invalid_proof(&[("date", &date(NOW + 3000))]);
                vec![rejection, response_with(502, &[], "")]
            },
            &[ten_minutes, NOW + 3000, ten_minutes],
        ),
        (
            "a rejection with a new Date, then a nonce demand without a nonce",
            |kind| {
                vec![
                    kind.invalid_proof(&[("date", &date(NOW + 3000))]),
                    kind.rejection("use_dpop_nonce", &[]),
                ]
            },
            &[ten_minutes, NOW + 3000, ten_minutes],
        ),
    ];
    for kind in KINDS {
        for (name, next_responses, expected) in rows {
            let first_rejection = kind.invalid_proof(&[("date", &date(ten_minutes))]);
            let server = MockServer::with_responses(
                [first_rejection, ok()]
                    .into_iter()
                    .chain(next_responses(kind)),
            );
            let client = kind.client(&server);
            for _ in 0..3 {
                send(&client, kind.request());
            }
            let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
            assert_eq!(times[..2], [NOW, ten_minutes], "C-29: {kind:?}: {name}");
            assert_eq!(times[2..], *expected, "C-29: {kind:?}: {name}");
        }
    }
}

/// C-29: each row gives the server's responses, and how many seconds ahead of our clock each `iat`
/// is.
#[test]
fn stores_a_corrected_clock_only_after_a_success() {
    use Reply::{Rejected, Status};

    #[derive(Clone, Copy)]
    enum Reply {
        /// `invalid_dpop_proof`, with a `Date` this many seconds ahead of our clock.
        Rejected(u64),
        Status(u16),
    }

    type Row = (&'static str, &'static [(Reply, u64)]);
    let rows: [Row; 5] = [
        (
            "a success stores the clock",
            &[(Rejected(600), 0), (Status(200), 600), (Status(200), 600)],
        ),
        (
            "a gateway error does not",
            &[(Rejected(600), 0), (Status(503), 600), (Status(200), 0)],
        ),
        (
            "429 does not",
            &[(Rejected(600), 0), (Status(429), 600), (Status(200), 0)],
        ),
        (
            "a rejection with another Date discards the stored clock",
            &[
                (Rejected(600), 0),
                (Status(200), 600),
                (Rejected(1200), 600),
                (Rejected(1200), 1200),
                (Status(200), 0),
            ],
        ),
        (
            "a rejection with the same Date does not discard it",
            &[
                (Rejected(600), 0),
                (Status(200), 600),
                (Rejected(600), 600),
                (Status(200), 600),
            ],
        ),
    ];
    for kind in KINDS {
        for (name, row) in rows {
            let server = MockServer::new(move |number, _| match row[number - 1].0 {
                Rejected(seconds) => kind.invalid_proof(&[("date", &date(NOW + seconds))]),
                Status(status) => response_with(status, &[], ""),
            });
            let client = kind.client(&server);
            while server.request_count() < row.len() {
                send(&client, kind.request());
            }
            let offsets: Vec<_> = server.proofs().iter().map(|p| p.iat() - NOW).collect();
            let expected: Vec<_> = row.iter().map(|(_, seconds)| *seconds).collect();
            assert_eq!(offsets, expected, "{kind:?}: {name}");
        }
    }
}

/// C-29: a body that cannot be copied prevents the retry, so the next request tries the clock.
#[test]
fn the_next_request_tries_an_untried_clock_once() {
    let server = MockServer::new(move |number, _| match number {
        1 => ServerKind::Resource.invalid_proof(&[("date", &date(NOW + 600))]),
        2 => response_with(503, &[], ""),
        _ => ok(),
    });
    let client = boxed(
        DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .with_body_copy(|_: &String| None)
            .layer(server.clone()),
    );
    let error = expect_error(block_on(
        client.clone().oneshot(ServerKind::Resource.request()),
    ));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    for status in [503, 200] {
        assert_eq!(
            send(&client, ServerKind::Resource.request()).status(),
            status
        );
    }
    let offsets: Vec<_> = server.proofs().iter().map(|p| p.iat() - NOW).collect();
    assert_eq!(offsets, [0, 600, 0]);
}

/// C-29, C-31: the next request uses the server's time at once.
#[test]
fn corrects_the_clock_even_if_the_body_cannot_be_copied() {
    let (server, _) = server_with_clock(ServerKind::Token, 600, || None);
    let service = TokenClientLayer::new(key(), url(ISSUER))
        .with_clock(|| at(NOW))
        .with_body_copy(|_: &String| None)
        .layer(server.clone());
    let request = || Request::post(TOKEN_URL).body(String::new()).unwrap();
    let error = expect_error(block_on(service.clone().oneshot(request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    assert_eq!(block_on(service.oneshot(request())).unwrap().status(), 200);
    assert_eq!(server.request_count(), 2);
}

/// C-29: each rejected request is sent again, not only the first one.
#[test]
fn corrects_the_clock_for_all_concurrent_requests() {
    block_on(async {
        let (server, mut requests) = manual_server();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .layer(server);
        let later = date(NOW + 600);
        let tasks: Vec<_> = (0..8)
            .map(|_| tokio::spawn(client.clone().oneshot(ServerKind::Resource.request())))
            .collect();
        let mut pending = Vec::new();
        for _ in 0..8 {
            pending.push(next_request(&mut requests).await);
        }
        for (_, response) in pending {
            response
                .send(ServerKind::Resource.invalid_proof(&[("date", &later)]))
                .unwrap();
        }
        for _ in 0..8 {
            let (head, response) = next_request(&mut requests).await;
            let iat = ReadProof::in_headers(&head.headers).iat();
            assert_eq!(iat, NOW + 600, "C-29");
            response
                .send(response_with(200, &[("date", &later)], ""))
                .unwrap();
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().status(), 200, "C-29");
        }
    });
}

/// C-29: a late response without a `Date` does not discard the clock from another response.
#[test]
fn a_late_response_does_not_restore_a_wrong_clock() {
    block_on(async {
        let (server, mut requests) = manual_server();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .layer(server);
        let spawn_request = || tokio::spawn(client.clone().oneshot(ServerKind::Resource.request()));
        let later = date(NOW + 600);
        for late in [
            ok(),
            response_with(500, &[], ""),
            ServerKind::Resource.invalid_proof(&[]),
            ServerKind::Resource.rejection("use_dpop_nonce", &[]),
        ] {
            let old = spawn_request();
            let (_, respond_to_old) = next_request(&mut requests).await;
            let one = spawn_request();
            let (_, reject_one) = next_request(&mut requests).await;
            let rejection = ServerKind::Resource.invalid_proof(&[("date", &later)]);
            reject_one.send(rejection).unwrap();
            let (_, respond_to_one) = next_request(&mut requests).await;
            respond_to_one.send(ok()).unwrap();
            one.await.unwrap().unwrap();
            respond_to_old.send(late).unwrap();
            old.await.unwrap().unwrap();
            let last = spawn_request();
            let (head, respond_to_last) = next_request(&mut requests).await;
            let iat = ReadProof::in_headers(&head.headers).iat();
            assert_eq!(iat, NOW + 600, "C-29");
            // Reset the stored clock: this `Date` equals our clock.
            respond_to_last
                .send(response_with(200, &[("date", &date(NOW))], ""))
                .unwrap();
            last.await.unwrap().unwrap();
        }
    });
}
