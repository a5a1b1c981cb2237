//! Clock correction: when a request is sent again with the server's time, and when the time is
//! stored.

use std::collections::HashSet;
use std::sync::Arc;

use http::Request;
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::client::{ClientError, DpopClientLayer, TokenClientLayer};

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, NOW, TestClock, at, block_on};

use crate::client::{
    Answered, KINDS, Kind, Server, TOKEN_URL, answer, ask, boxed, by_hand, date, error_of, key,
    next, ok, server_with_clock, token, url,
};

/// C-21: `iat` is taken again, too.
#[test]
fn the_time_is_asked_for_each_proof() {
    for kind in KINDS {
        let clock = TestClock::at(NOW);
        let (server, during) = (Server::new(|_, _| ok()), clock.clone());
        let server = Server {
            outcome: Arc::new(move |number, _| {
                during.set(NOW + 3);
                if number == 1 { kind.demand("n") } else { ok() }
            }),
            ..server
        };
        ask(&kind.client_at(&server, &clock), kind.request());
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW + 3], "{kind:?}");
    }
}

/// C-29: one more try with the server's time, which later requests have from the start.
#[test]
fn a_clock_that_is_wrong_is_corrected_by_the_servers() {
    for kind in KINDS {
        for offset in [600, -600, 31, -31, 6, -6] {
            let (server, theirs) = server_with_clock(kind, offset, || None);
            let ours = TestClock::at(NOW);
            let client = kind.client_at(&server, &ours);
            let right = NOW.checked_add_signed(offset).unwrap();
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
            assert_eq!(times, [NOW, right, right], "C-29: {kind:?}: {offset}");
            let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
            assert_eq!(jtis.len(), 3, "C-2: {kind:?}");

            // Somebody sets our clock.
            ours.set(right);
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            let last = server.proofs().pop().unwrap().iat();
            assert_eq!(last, right, "C-29: {kind:?}: {offset}: back again");
            let trips = server.count();
            assert!(trips <= 6, "{kind:?}: {offset}: {trips}");

            // And time goes on for both.
            ours.set(right + 60);
            theirs.set(right + 60);
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(server.count(), trips + 1, "{kind:?}: {offset}");
        }
    }
}

/// C-29: once, even if the server's clock runs.
#[test]
fn a_clock_is_corrected_once_for_a_request() {
    for kind in KINDS {
        let server = Server::new(move |number, _| {
            let number = u64::try_from(number).unwrap();
            kind.invalid_proof(&[("date", &date(NOW + 600 * number))])
        });
        let response = ask(&kind.client(&server), kind.request());
        assert!(response.status().is_client_error(), "{kind:?}");
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW + 600], "{kind:?}");
    }
}

/// C-29: a server whose proofs pass by our clock may say what it likes in `Date`.
#[test]
fn a_date_that_is_not_the_time_does_no_harm() {
    for kind in KINDS {
        for said in [
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "0",
        ] {
            let (server, _) = server_with_clock(kind, 0, move || Some(said.to_owned()));
            let client = kind.client(&server);
            for _ in 0..3 {
                let status = ask(&client, kind.request()).status();
                assert_eq!(status, 200, "C-29: {kind:?}: {said}");
            }
            assert_eq!(server.count(), 3, "{kind:?}: {said}");

            // Nor does it where a proof was rejected for another reason.
            let rejections = Server::new(move |number, head| {
                let iat = ReadProof::in_headers(&head.headers).iat();
                if iat == NOW && number > 1 {
                    answer(200, &[("date", said)], "")
                } else {
                    kind.invalid_proof(&[("date", said)])
                }
            });
            let client = kind.client(&rejections);
            assert!(ask(&client, kind.request()).status().is_client_error());
            let status = ask(&client, kind.request()).status();
            assert_eq!(status, 200, "C-29: {kind:?}: {said}: after a rejection");
        }
    }
}

/// C-29: what becomes of a clock that was kept, by what the server says next.
#[test]
fn a_clock_is_kept_as_long_as_proofs_pass_by_it() {
    type Next = fn(Kind) -> Vec<Answered>;
    let ten_minutes = NOW + 600;
    let rows: [(&str, Next, &[u64]); 14] = [
        ("a success", |_| vec![ok()], &[ten_minutes, ten_minutes]),
        (
            "a success with a Date that is none",
            |_| vec![answer(200, &[("date", "now")], "")],
            &[ten_minutes, ten_minutes],
        ),
        (
            "a Date by which our clock is right",
            |_| vec![answer(200, &[("date", &date(NOW))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "one by which it is near enough",
            |_| vec![answer(200, &[("date", &date(NOW + 5))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "one by which it is near enough behind",
            |_| vec![answer(200, &[("date", &date(NOW - 5))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "a rejection that it does not explain",
            |kind| vec![kind.invalid_proof(&[])],
            &[ten_minutes, NOW],
        ),
        (
            "one with a Date that is near enough",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 605))])],
            &[ten_minutes, ten_minutes],
        ),
        (
            "one with a Date that is near enough behind",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 595))])],
            &[ten_minutes, ten_minutes],
        ),
        (
            "one with a Date that is not",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 606))])],
            &[ten_minutes, NOW + 606, NOW + 606],
        ),
        (
            "one with a Date on the other side",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW - 600))])],
            &[ten_minutes, NOW - 600, NOW - 600],
        ),
        (
            "one with a Date that does not help",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 3000))]); 2],
            &[ten_minutes, NOW + 3000, NOW],
        ),
        (
            "one with a Date, and then a Date that agrees with the clock before",
            |kind| {
                let said = |seconds| kind.invalid_proof(&[("date", &date(seconds))]);
                vec![said(NOW + 3000), said(NOW + 600)]
            },
            &[ten_minutes, NOW + 3000, NOW],
        ),
        (
            "one with a Date, and then a gateway's answer",
            |kind| {
                let rejection = kind.invalid_proof(&[("date", &date(NOW + 3000))]);
                vec![rejection, answer(502, &[], "")]
            },
            &[ten_minutes, NOW + 3000, ten_minutes],
        ),
        (
            "one with a Date, and then a demand that cannot be met",
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
        for (name, next, expected) in rows {
            let learns = kind.invalid_proof(&[("date", &date(ten_minutes))]);
            let server = Server::with_answers([learns, ok()].into_iter().chain(next(kind)));
            let client = kind.client(&server);
            for _ in 0..3 {
                ask(&client, kind.request());
            }
            let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
            assert_eq!(times[..2], [NOW, ten_minutes], "C-29: {kind:?}: {name}");
            assert_eq!(times[2..], *expected, "C-29: {kind:?}: {name}");
        }
    }
}

/// C-29: by what clocks the requests of a client are signed, one after the other, whose proofs the
/// server answers as the row says: with a rejection at that many seconds from our clock, or a status.
#[test]
fn a_clock_is_kept_only_when_a_request_has_succeeded_by_it() {
    use Said::{Rejected, Status};

    #[derive(Clone, Copy)]
    enum Said {
        Rejected(u64),
        Status(u16),
    }

    /// Each request's answers, and the seconds by which each of its proofs is off our clock.
    type Row = (&'static str, &'static [(Said, u64)]);
    let rows: [Row; 5] = [
        (
            "a success keeps it",
            &[(Rejected(600), 0), (Status(200), 600), (Status(200), 600)],
        ),
        (
            "a gateway's answer does not",
            &[(Rejected(600), 0), (Status(503), 600), (Status(200), 0)],
        ),
        (
            "too many requests do not",
            &[(Rejected(600), 0), (Status(429), 600), (Status(200), 0)],
        ),
        (
            "another rejection forgets the one that was kept",
            &[
                (Rejected(600), 0),
                (Status(200), 600),
                (Rejected(1200), 600),
                (Rejected(1200), 1200),
                (Status(200), 0),
            ],
        ),
        (
            "a rejection for another reason does not",
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
            let server = Server::new(move |number, _| match row[number - 1].0 {
                Rejected(seconds) => kind.invalid_proof(&[("date", &date(NOW + seconds))]),
                Status(status) => answer(status, &[], ""),
            });
            let client = kind.client(&server);
            while server.count() < row.len() {
                ask(&client, kind.request());
            }
            let signed: Vec<_> = server.proofs().iter().map(|p| p.iat() - NOW).collect();
            let expected: Vec<_> = row.iter().map(|(_, seconds)| *seconds).collect();
            assert_eq!(signed, expected, "{kind:?}: {name}");
        }
    }
}

/// C-29: a time that one request could not try is tried by one other.
#[test]
fn a_clock_that_was_not_tried_is_tried_once() {
    let server = Server::new(move |number, _| match number {
        1 => Kind::Resource.invalid_proof(&[("date", &date(NOW + 600))]),
        2 => answer(503, &[], ""),
        _ => ok(),
    });
    let client = boxed(
        DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .with_body_copy(|_: &String| None)
            .layer(server.clone()),
    );
    let error = error_of(block_on(client.clone().oneshot(Kind::Resource.request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    for status in [503, 200] {
        assert_eq!(ask(&client, Kind::Resource.request()).status(), status);
    }
    let signed: Vec<_> = server.proofs().iter().map(|p| p.iat() - NOW).collect();
    assert_eq!(signed, [0, 600, 0]);
}

/// C-29, C-31: the same for the server's time.
#[test]
fn a_body_that_cannot_be_copied_does_not_keep_the_clock_wrong() {
    let (server, _) = server_with_clock(Kind::Token, 600, || None);
    let service = TokenClientLayer::new(key(), url(ISSUER))
        .with_clock(|| at(NOW))
        .with_body_copy(|_: &String| None)
        .layer(server.clone());
    let request = || Request::post(TOKEN_URL).body(String::new()).unwrap();
    let error = error_of(block_on(service.clone().oneshot(request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    assert_eq!(block_on(service.oneshot(request())).unwrap().status(), 200);
    assert_eq!(server.count(), 2);
}

/// C-29: all that were rejected for a wrong clock are sent again, not only the first to hear of it.
#[test]
fn concurrent_requests_are_all_corrected() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .layer(server);
        let later = date(NOW + 600);
        let tasks: Vec<_> = (0..8)
            .map(|_| tokio::spawn(client.clone().oneshot(Kind::Resource.request())))
            .collect();
        let mut first = Vec::new();
        for _ in 0..8 {
            first.push(next(&mut calls).await);
        }
        for (_, outcome) in first {
            outcome
                .send(Kind::Resource.invalid_proof(&[("date", &later)]))
                .unwrap();
        }
        for _ in 0..8 {
            let (head, answered) = next(&mut calls).await;
            let iat = ReadProof::in_headers(&head.headers).iat();
            assert_eq!(iat, NOW + 600, "C-29");
            answered.send(answer(200, &[("date", &later)], "")).unwrap();
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().status(), 200, "C-29");
        }
    });
}

/// C-29: a response that tells nothing of the time does not undo what another one has told.
#[test]
fn a_late_response_does_not_bring_a_wrong_clock_back() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
        let later = date(NOW + 600);
        for late in [
            ok(),
            answer(500, &[], ""),
            Kind::Resource.invalid_proof(&[]),
            Kind::Resource.rejection("use_dpop_nonce", &[]),
        ] {
            let old = send();
            let (_, answer_old) = next(&mut calls).await;
            let one = send();
            let (_, reject_one) = next(&mut calls).await;
            let rejection = Kind::Resource.invalid_proof(&[("date", &later)]);
            reject_one.send(rejection).unwrap();
            let (_, answer_one) = next(&mut calls).await;
            answer_one.send(ok()).unwrap();
            one.await.unwrap().unwrap();
            answer_old.send(late).unwrap();
            old.await.unwrap().unwrap();
            let last = send();
            let (head, answer_last) = next(&mut calls).await;
            let iat = ReadProof::in_headers(&head.headers).iat();
            assert_eq!(iat, NOW + 600, "C-29");
            // As new: the clock by which our own is right.
            answer_last
                .send(answer(200, &[("date", &date(NOW))], ""))
                .unwrap();
            last.await.unwrap().unwrap();
        }
    });
}
