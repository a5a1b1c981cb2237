//! What the client stores per server: the latest nonce, and the offset of its clock.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tokio::sync::Barrier;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::client::{DpopClientLayer, TokenClientLayer};
use tower_dpop::{DpopLayer, NonceSecret, PublicUrl, StatelessNonces};

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, NOW, TestClock, at, block_on, verifier_by};

use super::{
    Answered, Client, KINDS, Kind, ORDERS, Server, answer, ask, bound_to, boxed, by_hand, date,
    fresh, key, next, nonce_of, ok, server_with_clock, token, url,
};

/// C-22
#[test]
fn nonces_are_kept_from_every_response() {
    for kind in KINDS {
        for status in [
            200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 429, 500, 503,
        ] {
            let nonce = format!("nonce-{status}");
            let server = Server::with_answers([answer(status, &[("dpop-nonce", &nonce)], "")]);
            let client = kind.client(&server);
            assert_eq!(ask(&client, kind.request()).status(), status, "{kind:?}");
            ask(&client, kind.request());
            ask(&client, kind.request());
            assert_eq!(
                server.nonces(),
                [None, Some(nonce.clone()), Some(nonce)],
                "C-22: {kind:?}: {status}"
            );
        }
    }
}

/// C-21, C-25: what is no demand, or demands nothing that can be met, is the caller's to see.
#[test]
fn a_demand_that_cannot_be_met_is_not_answered() {
    let long = "n".repeat(2049);
    let rows: [(&str, &[&str]); 10] = [
        ("no nonce", &[]),
        ("C-25: two nonces", &["one", "two"]),
        ("C-25: the same nonce twice", &["one", "one"]),
        ("C-25: empty", &[""]),
        ("C-25: a space", &["a b"]),
        ("C-25: a list", &["one, two"]),
        ("C-25: a quote", &["a\"b"]),
        ("C-25: a backslash", &["a\\b"]),
        ("C-25: beyond ASCII", &["\u{e4}"]),
        ("C-25: longer than a proof may be", &[&long]),
    ];
    for kind in KINDS {
        for (name, nonces) in rows {
            let fields: Vec<_> = nonces.iter().map(|nonce| ("dpop-nonce", *nonce)).collect();
            let server = {
                let fields: Vec<(&'static str, String)> =
                    fields.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
                Server::new(move |_, _| {
                    let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
                    kind.rejection("use_dpop_nonce", &fields)
                })
            };
            let client = kind.client(&server);
            for attempt in 1..3 {
                let status = ask(&client, kind.request()).status();
                assert!(status.is_client_error(), "{kind:?}: {name}");
                assert_eq!(server.count(), attempt, "{kind:?}: {name}");
            }
            assert_eq!(server.nonces(), [None, None], "{kind:?}: {name}");
        }
    }
}

/// C-23, C-24: a nonce goes back to where it came from, and nowhere else.
#[test]
fn a_nonce_goes_only_to_its_own_server() {
    let server = Server::new(|_, head| {
        let nonce = format!(
            "of-{}",
            head.uri.authority().unwrap().as_str().replace(':', "-")
        );
        answer(200, &[("dpop-nonce", &nonce)], "")
    });
    let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .add_server(url("https://api.example.com:8443"))
        .add_server(url("https://other.example.com/v1"))
        .add_server(url("https://other.example.com/v2"))
        .add_server(PublicUrl::insecure_http("http://api.example.com").unwrap())
        .with_clock(|| at(NOW));
    let rows = [
        (ORDERS, None),
        ("https://api.example.com:8443/", None),
        ("http://api.example.com/", None),
        ("https://other.example.com/v1", None),
        ("https://other.example.com/v2", Some("of-other.example.com")),
        ("https://api.example.com:443/", Some("of-api.example.com")),
        (
            "https://api.example.com:8443/",
            Some("of-api.example.com-8443"),
        ),
        ("http://api.example.com/", Some("of-api.example.com")),
    ];
    for (uri, expected) in rows {
        // Clones of the layer share what is learnt.
        let service = layer.clone().layer(server.clone());
        block_on(service.oneshot(Request::get(uri).body(()).unwrap())).unwrap();
        assert_eq!(
            server.nonces().pop().unwrap().as_deref(),
            expected,
            "C-23: {uri}"
        );
    }
    // The authorization server's layer has a memory of its own, at the same origin as well.
    let tokens = TokenClientLayer::new(key(), url(AUDIENCE)).layer(server.clone());
    block_on(tokens.oneshot(Request::post(ORDERS).body(()).unwrap())).unwrap();
    assert_eq!(server.nonces().pop().unwrap(), None, "C-24");
}

/// C-24: the nonces of the authorization server and of the resource server do not mix, on one
/// machine either.
#[test]
fn layers_of_one_key_keep_their_nonces_apart() {
    let (key, server) = (
        key(),
        Server::new(|_, head| {
            let kind = if head.headers.contains_key("authorization") {
                "rs"
            } else {
                "as"
            };
            answer(200, &[("dpop-nonce", kind)], "")
        }),
    );
    let resource = DpopClientLayer::new(key.clone(), token(), url(AUDIENCE)).layer(server.clone());
    let tokens = TokenClientLayer::new(key, url(AUDIENCE)).layer(server.clone());
    for _ in 0..2 {
        block_on(tokens.clone().oneshot(Kind::Resource.request())).unwrap();
        block_on(resource.clone().oneshot(Kind::Resource.request())).unwrap();
    }
    let expected = [None, None, Some("as".to_owned()), Some("rs".to_owned())];
    assert_eq!(server.nonces(), expected, "C-24");
}

/// C-22: responses arrive in any order; the newest nonce stays.
#[test]
fn a_late_response_does_not_bring_an_old_nonce_back() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));

        // Sent before there was any nonce, answered when the first is old.
        let oldest = send();
        let (_, answer_oldest) = next(&mut calls).await;

        let one = send();
        let (_, answer_one) = next(&mut calls).await;
        answer_one.send(fresh("first")).unwrap();
        one.await.unwrap().unwrap();

        // Sent with the first, answered when it is old, by a server that repeats it.
        let old = send();
        let (head, answer_old) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("first"));

        let two = send();
        let (_, answer_two) = next(&mut calls).await;
        answer_two.send(fresh("second")).unwrap();
        two.await.unwrap().unwrap();

        answer_old.send(fresh("first")).unwrap();
        old.await.unwrap().unwrap();
        answer_oldest.send(fresh("first")).unwrap();
        oldest.await.unwrap().unwrap();

        let last = send();
        let (head, answer_last) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("second"), "C-22");

        // Several nodes without a common secret: now the first is the latest again.
        answer_last.send(Kind::Resource.demand("first")).unwrap();
        let (head, answer_again) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("first"), "C-21");
        answer_again.send(ok()).unwrap();
        assert_eq!(last.await.unwrap().unwrap().status(), 200);
    });
}

/// C-22: which nonce is the latest, when several requests were under way.
#[test]
fn the_latest_nonce_is_the_one_that_was_not_there_before() {
    /// A request goes out, or the one of this number is answered with this nonce.
    #[derive(Clone, Copy)]
    enum Step {
        Send,
        Answered(usize, &'static str),
    }
    use Step::{Answered, Send};
    let rows: [(&str, &[Step], &str); 4] = [
        (
            "a late response with a new one",
            &[Send, Send, Answered(1, "a"), Answered(0, "b")],
            "b",
        ),
        (
            "a late response with the latest",
            &[Send, Send, Answered(1, "a"), Answered(0, "a")],
            "a",
        ),
        (
            "a response that repeats its own, two later",
            &[
                Send,
                Answered(0, "a"),
                Send,
                Send,
                Answered(2, "b"),
                Send,
                Answered(3, "c"),
                Answered(1, "a"),
            ],
            "c",
        ),
        (
            "the superseded one, when the latest came twice",
            &[
                Send,
                Send,
                Answered(1, "a"),
                Send,
                Send,
                Answered(2, "b"),
                Answered(3, "b"),
                Answered(0, "a"),
            ],
            "b",
        ),
    ];
    block_on(async {
        for (name, steps, expected) in rows {
            let (server, mut calls) = by_hand();
            let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
            let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
            let mut sent = Vec::new();
            for step in steps {
                match step {
                    Send => {
                        let request = send();
                        let (_, outcome) = next(&mut calls).await;
                        sent.push(Some((request, outcome)));
                    }
                    Answered(number, nonce) => {
                        let (request, outcome) = sent[*number].take().unwrap();
                        outcome.send(fresh(nonce)).unwrap();
                        request.await.unwrap().unwrap();
                    }
                }
            }
            let _last = send();
            let (head, _unanswered) = next(&mut calls).await;
            assert_eq!(nonce_of(&head).as_deref(), Some(expected), "C-22: {name}");
        }
    });
}

/// A server that takes only its current nonce, and decides on nothing before a round of requests is
/// there. What comes later in the round are retries.
struct Rotating {
    current: Mutex<String>,
    round: Barrier,
    trips: AtomicUsize,
}

const CONCURRENT: usize = 64;

/// Runs a future whose tasks run on two threads.
fn in_parallel<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
        .block_on(future)
}

impl Rotating {
    async fn answer(&self, request: Request<String>) -> Answered {
        if self.trips.fetch_add(1, Ordering::SeqCst) < CONCURRENT {
            self.round.wait().await;
        }
        let current = self.current.lock().unwrap().clone();
        if ReadProof::in_headers(request.headers()).nonce() == Some(current.as_str()) {
            fresh(&current)
        } else {
            Kind::Resource.demand(&current)
        }
    }
}

/// C-22, C-31: with a nonce that is known every request is one round trip; when it changes, every
/// request is two at most; afterwards it is one again.
#[test]
fn concurrent_requests_share_the_newest_nonce() {
    in_parallel(async {
        let server = Arc::new(Rotating {
            current: Mutex::new("nonce-0".into()),
            round: Barrier::new(CONCURRENT + 1),
            trips: AtomicUsize::new(CONCURRENT),
        });
        let inner = {
            let server = Arc::clone(&server);
            service_fn(move |request: Request<String>| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            })
        };
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(inner);
        let first = client.clone().oneshot(Kind::Resource.request()).await;
        assert_eq!(first.unwrap().status(), 200);

        for (round, rotates) in [false, true, false, true, true, false]
            .into_iter()
            .enumerate()
        {
            server.trips.store(0, Ordering::SeqCst);
            let tasks: Vec<_> = (0..CONCURRENT)
                .map(|_| tokio::spawn(client.clone().oneshot(Kind::Resource.request())))
                .collect();
            // All of them have been sent; none is decided.
            while server.trips.load(Ordering::SeqCst) < CONCURRENT {
                tokio::task::yield_now().await;
            }
            if rotates {
                *server.current.lock().unwrap() = format!("nonce-{}", round + 1);
            }
            server.round.wait().await;
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().status(), 200, "round {round}");
            }
            let expected = if rotates { 2 * CONCURRENT } else { CONCURRENT };
            assert_eq!(
                server.trips.load(Ordering::SeqCst),
                expected,
                "round {round}"
            );
        }
    });
}

/// C-15, C-21, C-22: against our own resource server, across the ends of its nonce periods.
#[test]
fn our_own_server_is_content_across_nonce_periods() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let trips = Arc::new(AtomicUsize::new(0));
    let secret = NonceSecret::from_bytes(&[7; 32]).unwrap();
    let server = DpopLayer::new(verifier_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_nonces(StatelessNonces::new(secret))
    }))
    .layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let counted = {
        let trips = Arc::clone(&trips);
        server.map_request(move |request: Request<String>| {
            trips.fetch_add(1, Ordering::SeqCst);
            request
        })
    };
    let key = key();
    let token = bound_to(&key);
    let client = DpopClientLayer::new(key, token, url(AUDIENCE))
        .with_clock(clock.read())
        .layer(counted);
    // (seconds since the start, round trips of 64 requests at once)
    let rows = [
        ("the first demand", 0, 128),
        ("known", 1, 64),
        ("the end of the period", 119, 64),
        (
            "the next period: accepted, and the next nonce comes along",
            120,
            64,
        ),
        ("with the new one", 121, 64),
        ("two periods later: stale", 400, 128),
        ("known", 401, 64),
    ];
    for (name, seconds, expected) in rows {
        clock.set(start + seconds);
        trips.store(0, Ordering::SeqCst);
        in_parallel(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| tokio::spawn(client.clone().oneshot(Kind::Resource.request())))
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().status(), 200, "{name}");
            }
        });
        let trips = trips.load(Ordering::SeqCst);
        assert!((64..=expected).contains(&trips), "{name}: {trips}");
    }
}

/// C-29: a `Date` that agrees explains nothing, and neither does none.
#[test]
fn a_rejection_that_the_clock_does_not_explain_is_not_answered() {
    let later = date(NOW + 600);
    let now = date(NOW);
    let near = date(NOW + 5);
    let nearly_past = date(NOW - 5);
    let tomorrow = "Wed, 15 Nov 2023 22:13:21 GMT";
    let yesterday = "Mon, 13 Nov 2023 22:13:19 GMT";
    let rows: [(&str, &[(&str, &str)]); 12] = [
        ("more than a day ahead", &[("date", tomorrow)]),
        ("more than a day behind", &[("date", yesterday)]),
        ("no Date", &[]),
        ("a Date that agrees", &[("date", &now)]),
        ("a Date near enough", &[("date", &near)]),
        ("a Date near enough behind", &[("date", &nearly_past)]),
        ("out of a cache", &[("date", &later), ("age", "0")]),
        ("an Age that is none", &[("date", &later), ("age", "x")]),
        ("garbage", &[("date", "yesterday")]),
        ("an empty Date", &[("date", "")]),
        (
            "beyond the calendar",
            &[("date", "Tue, 99 Nov 2023 22:13:20 GMT")],
        ),
        ("beyond ASCII", &[("date", "\u{e4}")]),
    ];
    for kind in KINDS {
        for (name, headers) in rows {
            let server = Server::with_answers([kind.invalid_proof(headers)]);
            let client = kind.client(&server);
            assert!(
                ask(&client, kind.request()).status().is_client_error(),
                "{kind:?}: {name}"
            );
            assert_eq!(server.count(), 1, "{kind:?}: {name}");
            ask(&client, kind.request());
            assert_eq!(server.proofs()[1].iat(), NOW, "{kind:?}: {name}");
        }
    }
}

/// C-29: up to a day, and only where that is wanted.
#[test]
fn a_clock_is_corrected_by_a_day_at_most_and_not_at_all_where_that_is_said() {
    let (server, _) = server_with_clock(Kind::Resource, 86_400, || {
        Some("Wed, 15 Nov 2023 22:13:20 GMT".into())
    });
    let client = Kind::Resource.client(&server);
    assert_eq!(ask(&client, Kind::Resource.request()).status(), 200);

    let resources = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .with_clock(|| at(NOW))
        .without_clock_correction();
    let tokens = TokenClientLayer::new(key(), url(ISSUER))
        .with_clock(|| at(NOW))
        .without_clock_correction();
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, 600, || None);
        let client: Client = match kind {
            Kind::Resource => boxed(resources.layer(server.clone())),
            Kind::Token | Kind::TokenUnauthorized => boxed(tokens.layer(server.clone())),
        };
        for _ in 0..2 {
            let status = ask(&client, kind.request()).status();
            assert!(status.is_client_error(), "{kind:?}");
        }
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW], "{kind:?}");
    }
}

/// C-29: a clock that is set to before the server's offset from 1970.
#[test]
fn there_is_no_time_before_1970() {
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, -600, || None);
        let clock = TestClock::at(NOW);
        let client = kind.client_at(&server, &clock);
        assert_eq!(ask(&client, kind.request()).status(), 200, "{kind:?}");
        clock.set(100);
        ask(&client, kind.request());
        let last = server.proofs().pop().unwrap().iat();
        assert_eq!(last, 0, "{kind:?}");
    }
}
