//! The state that the client stores per server: the latest nonce, and the offset of its clock.

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
    Client, KINDS, MockResponse, MockServer, ORDERS, ServerKind, boxed, date, key, manual_server,
    next_request, nonce_in, ok, ok_with_nonce, response_with, send, server_with_clock, token,
    token_bound_to, url,
};

/// C-22
#[test]
fn stores_the_nonce_of_every_response() {
    for kind in KINDS {
        for status in [
            200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 429, 500, 503,
        ] {
            let nonce = format!("nonce-{status}");
            let server =
                MockServer::with_responses([response_with(status, &[("dpop-nonce", &nonce)], "")]);
            let client = kind.client(&server);
            assert_eq!(send(&client, kind.request()).status(), status, "{kind:?}");
            send(&client, kind.request());
            send(&client, kind.request());
            assert_eq!(
                server.nonces(),
                [None, Some(nonce.clone()), Some(nonce)],
                "C-22: {kind:?}: {status}"
            );
        }
    }
}

/// C-21, C-25: the caller gets a demand that cannot be met.
#[test]
fn does_not_retry_without_exactly_one_valid_nonce() {
    let long = "n".repeat(2049);
    let rows: [(&str, &[&str]); 10] = [
        ("no nonce", &[]),
        ("C-25: two nonces", &["one", "two"]),
        ("C-25: the same nonce twice", &["one", "one"]),
        ("C-25: an empty nonce", &[""]),
        ("C-25: a space", &["a b"]),
        ("C-25: a list", &["one, two"]),
        ("C-25: a quote", &["a\"b"]),
        ("C-25: a backslash", &["a\\b"]),
        ("C-25: not ASCII", &["\u{e4}"]),
        ("C-25: too long", &[&long]),
    ];
    for kind in KINDS {
        for (name, nonces) in rows {
            let fields: Vec<_> = nonces.iter().map(|nonce| ("dpop-nonce", *nonce)).collect();
            let server = {
                let fields: Vec<(&'static str, String)> =
                    fields.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
                MockServer::new(move |_, _| {
                    let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
                    kind.rejection("use_dpop_nonce", &fields)
                })
            };
            let client = kind.client(&server);
            for attempt in 1..3 {
                let status = send(&client, kind.request()).status();
                assert!(status.is_client_error(), "{kind:?}: {name}");
                assert_eq!(server.request_count(), attempt, "{kind:?}: {name}");
            }
            assert_eq!(server.nonces(), [None, None], "{kind:?}: {name}");
        }
    }
}

/// C-23, C-24
#[test]
fn sends_a_nonce_only_to_the_server_that_issued_it() {
    let server = MockServer::new(|_, head| {
        let nonce = format!(
            "of-{}",
            head.uri.authority().unwrap().as_str().replace(':', "-")
        );
        response_with(200, &[("dpop-nonce", &nonce)], "")
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
        // Clones of the layer share the stored nonces.
        let service = layer.clone().layer(server.clone());
        block_on(service.oneshot(Request::get(uri).body(()).unwrap())).unwrap();
        assert_eq!(
            server.nonces().pop().unwrap().as_deref(),
            expected,
            "C-23: {uri}"
        );
    }
    // Another layer for the same origin stores its own nonces.
    let tokens = TokenClientLayer::new(key(), url(AUDIENCE)).layer(server.clone());
    block_on(tokens.oneshot(Request::post(ORDERS).body(()).unwrap())).unwrap();
    assert_eq!(server.nonces().pop().unwrap(), None, "C-24");
}

/// C-24: the authorization server and the resource server have separate nonces, even at the same
/// origin.
#[test]
fn layers_with_the_same_key_do_not_share_nonces() {
    let (key, server) = (
        key(),
        MockServer::new(|_, head| {
            let nonce = if head.headers.contains_key("authorization") {
                "resource"
            } else {
                "authorization"
            };
            ok_with_nonce(nonce)
        }),
    );
    let resource = DpopClientLayer::new(key.clone(), token(), url(AUDIENCE)).layer(server.clone());
    let tokens = TokenClientLayer::new(key, url(AUDIENCE)).layer(server.clone());
    for _ in 0..2 {
        block_on(tokens.clone().oneshot(ServerKind::Resource.request())).unwrap();
        block_on(resource.clone().oneshot(ServerKind::Resource.request())).unwrap();
    }
    let expected =
        [None, None, Some("authorization"), Some("resource")].map(|nonce| nonce.map(str::to_owned));
    assert_eq!(server.nonces(), expected, "C-24");
}

/// C-22: responses can arrive in any order. The newest nonce is kept.
#[test]
fn a_late_response_does_not_restore_an_old_nonce() {
    block_on(async {
        let (server, mut requests) = manual_server();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let spawn_request = || tokio::spawn(client.clone().oneshot(ServerKind::Resource.request()));

        // Sent before there is any nonce. Its response comes when the first nonce is old.
        let oldest = spawn_request();
        let (_, respond_to_oldest) = next_request(&mut requests).await;

        let one = spawn_request();
        let (_, respond_to_one) = next_request(&mut requests).await;
        respond_to_one.send(ok_with_nonce("first")).unwrap();
        one.await.unwrap().unwrap();

        // Sent with the first nonce. Its response repeats this nonce when it is old.
        let old = spawn_request();
        let (head, respond_to_old) = next_request(&mut requests).await;
        assert_eq!(nonce_in(&head).as_deref(), Some("first"));

        let two = spawn_request();
        let (_, respond_to_two) = next_request(&mut requests).await;
        respond_to_two.send(ok_with_nonce("second")).unwrap();
        two.await.unwrap().unwrap();

        respond_to_old.send(ok_with_nonce("first")).unwrap();
        old.await.unwrap().unwrap();
        respond_to_oldest.send(ok_with_nonce("first")).unwrap();
        oldest.await.unwrap().unwrap();

        let last = spawn_request();
        let (head, respond_to_last) = next_request(&mut requests).await;
        assert_eq!(nonce_in(&head).as_deref(), Some("second"), "C-22");

        // Nodes without a shared secret can demand the first nonce again.
        respond_to_last
            .send(ServerKind::Resource.nonce_demand("first"))
            .unwrap();
        let (head, respond_to_retry) = next_request(&mut requests).await;
        assert_eq!(nonce_in(&head).as_deref(), Some("first"), "C-21");
        respond_to_retry.send(ok()).unwrap();
        assert_eq!(last.await.unwrap().unwrap().status(), 200);
    });
}

/// C-22: several requests are in flight.
#[test]
fn out_of_order_responses_keep_the_newest_nonce() {
    /// Send a request, or respond to the request of this number with this nonce.
    #[derive(Clone, Copy)]
    enum Step {
        Send,
        Respond(usize, &'static str),
    }
    use Step::{Respond, Send};
    let rows: [(&str, &[Step], &str); 4] = [
        (
            "a late response with a new nonce",
            &[Send, Send, Respond(1, "a"), Respond(0, "b")],
            "b",
        ),
        (
            "a late response with the latest nonce",
            &[Send, Send, Respond(1, "a"), Respond(0, "a")],
            "a",
        ),
        (
            "a response that repeats the nonce of its request, two nonces later",
            &[
                Send,
                Respond(0, "a"),
                Send,
                Send,
                Respond(2, "b"),
                Send,
                Respond(3, "c"),
                Respond(1, "a"),
            ],
            "c",
        ),
        (
            "the superseded nonce, after two responses with the latest",
            &[
                Send,
                Send,
                Respond(1, "a"),
                Send,
                Send,
                Respond(2, "b"),
                Respond(3, "b"),
                Respond(0, "a"),
            ],
            "b",
        ),
    ];
    block_on(async {
        for (name, steps, expected) in rows {
            let (server, mut requests) = manual_server();
            let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
            let spawn_request =
                || tokio::spawn(client.clone().oneshot(ServerKind::Resource.request()));
            let mut sent = Vec::new();
            for step in steps {
                match step {
                    Send => {
                        let request = spawn_request();
                        let (_, response) = next_request(&mut requests).await;
                        sent.push(Some((request, response)));
                    }
                    Respond(number, nonce) => {
                        let (request, response) = sent[*number].take().unwrap();
                        response.send(ok_with_nonce(nonce)).unwrap();
                        request.await.unwrap().unwrap();
                    }
                }
            }
            let _last = spawn_request();
            let (head, _pending) = next_request(&mut requests).await;
            assert_eq!(nonce_in(&head).as_deref(), Some(expected), "C-22: {name}");
        }
    });
}

/// A server that accepts only its current nonce. It responds when all requests of a round have
/// arrived. Later requests of the round are retries.
struct RotatingNonceServer {
    current: Mutex<String>,
    round: Barrier,
    trips: AtomicUsize,
}

const CONCURRENT: usize = 64;

/// Runs a future on a runtime with two threads.
fn in_parallel<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
        .block_on(future)
}

impl RotatingNonceServer {
    async fn respond(&self, request: Request<String>) -> MockResponse {
        if self.trips.fetch_add(1, Ordering::SeqCst) < CONCURRENT {
            self.round.wait().await;
        }
        let current = self.current.lock().unwrap().clone();
        if ReadProof::in_headers(request.headers()).nonce() == Some(current.as_str()) {
            ok_with_nonce(&current)
        } else {
            ServerKind::Resource.nonce_demand(&current)
        }
    }
}

/// C-22, C-31: a request with a valid stored nonce needs one round trip. When the nonce changes,
/// each request needs two, and later requests need one again.
#[test]
fn concurrent_requests_share_the_newest_nonce() {
    in_parallel(async {
        let server = Arc::new(RotatingNonceServer {
            current: Mutex::new("nonce-0".into()),
            round: Barrier::new(CONCURRENT + 1),
            trips: AtomicUsize::new(CONCURRENT),
        });
        let inner = {
            let server = Arc::clone(&server);
            service_fn(move |request: Request<String>| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.respond(request).await) }
            })
        };
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(inner);
        let first = client.clone().oneshot(ServerKind::Resource.request()).await;
        assert_eq!(first.unwrap().status(), 200);

        for (round, nonce_changes) in [false, true, false, true, true, false]
            .into_iter()
            .enumerate()
        {
            server.trips.store(0, Ordering::SeqCst);
            let tasks: Vec<_> = (0..CONCURRENT)
                .map(|_| tokio::spawn(client.clone().oneshot(ServerKind::Resource.request())))
                .collect();
            // All requests have arrived, and none has a response yet.
            while server.trips.load(Ordering::SeqCst) < CONCURRENT {
                tokio::task::yield_now().await;
            }
            if nonce_changes {
                *server.current.lock().unwrap() = format!("nonce-{}", round + 1);
            }
            server.round.wait().await;
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().status(), 200, "round {round}");
            }
            let expected = if nonce_changes {
                2 * CONCURRENT
            } else {
                CONCURRENT
            };
            assert_eq!(
                server.trips.load(Ordering::SeqCst),
                expected,
                "round {round}"
            );
        }
    });
}

/// C-15, C-21, C-22: with our own resource server.
#[test]
fn our_server_accepts_requests_across_nonce_periods() {
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
    let counting = {
        let trips = Arc::clone(&trips);
        server.map_request(move |request: Request<String>| {
            trips.fetch_add(1, Ordering::SeqCst);
            request
        })
    };
    let key = key();
    let token = token_bound_to(&key);
    let client = DpopClientLayer::new(key, token, url(AUDIENCE))
        .with_clock(clock.read())
        .layer(counting);
    // Seconds since the start, and the maximum of round trips for 64 concurrent requests.
    let rows = [
        ("the first demand", 0, 128),
        ("the nonce is known", 1, 64),
        ("the end of the period", 119, 64),
        (
            "the next period: accepted, and the response has the next nonce",
            120,
            64,
        ),
        ("with the next nonce", 121, 64),
        ("two periods later: stale", 400, 128),
        ("the nonce is known", 401, 64),
    ];
    for (name, seconds, expected) in rows {
        clock.set(start + seconds);
        trips.store(0, Ordering::SeqCst);
        in_parallel(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| tokio::spawn(client.clone().oneshot(ServerKind::Resource.request())))
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().status(), 200, "{name}");
            }
        });
        let trips = trips.load(Ordering::SeqCst);
        assert!((64..=expected).contains(&trips), "{name}: {trips}");
    }
}

/// C-29: a `Date` that agrees with our clock does not explain the rejection.
#[test]
fn does_not_retry_unless_the_date_shows_a_wrong_clock() {
    let later = date(NOW + 600);
    let now = date(NOW);
    let ahead = date(NOW + 5);
    let behind = date(NOW - 5);
    let tomorrow = "Wed, 15 Nov 2023 22:13:21 GMT";
    let yesterday = "Mon, 13 Nov 2023 22:13:19 GMT";
    let rows: [(&str, &[(&str, &str)]); 12] = [
        ("more than a day ahead", &[("date", tomorrow)]),
        ("more than a day behind", &[("date", yesterday)]),
        ("no Date", &[]),
        ("a Date that equals our clock", &[("date", &now)]),
        ("a Date 5 seconds ahead", &[("date", &ahead)]),
        ("a Date 5 seconds behind", &[("date", &behind)]),
        ("a response from a cache", &[("date", &later), ("age", "0")]),
        ("an invalid Age", &[("date", &later), ("age", "x")]),
        ("not a date", &[("date", "yesterday")]),
        ("an empty Date", &[("date", "")]),
        (
            "a day that does not exist",
            &[("date", "Tue, 99 Nov 2023 22:13:20 GMT")],
        ),
        ("not ASCII", &[("date", "\u{e4}")]),
    ];
    for kind in KINDS {
        for (name, headers) in rows {
            let server = MockServer::with_responses([kind.invalid_proof(headers)]);
            let client = kind.client(&server);
            assert!(
                send(&client, kind.request()).status().is_client_error(),
                "{kind:?}: {name}"
            );
            assert_eq!(server.request_count(), 1, "{kind:?}: {name}");
            send(&client, kind.request());
            assert_eq!(server.proofs()[1].iat(), NOW, "{kind:?}: {name}");
        }
    }
}

/// C-29
#[test]
fn corrects_the_clock_by_one_day_at_most_and_only_if_enabled() {
    let (server, _) = server_with_clock(ServerKind::Resource, 86_400, || {
        Some("Wed, 15 Nov 2023 22:13:20 GMT".into())
    });
    let client = ServerKind::Resource.client(&server);
    assert_eq!(send(&client, ServerKind::Resource.request()).status(), 200);

    let resources = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .with_clock(|| at(NOW))
        .without_clock_correction();
    let tokens = TokenClientLayer::new(key(), url(ISSUER))
        .with_clock(|| at(NOW))
        .without_clock_correction();
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, 600, || None);
        let client: Client = match kind {
            ServerKind::Resource => boxed(resources.layer(server.clone())),
            ServerKind::Token | ServerKind::TokenUnauthorized => {
                boxed(tokens.layer(server.clone()))
            }
        };
        for _ in 0..2 {
            let status = send(&client, kind.request()).status();
            assert!(status.is_client_error(), "{kind:?}");
        }
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW], "{kind:?}");
    }
}

/// C-29: our clock is set back, so that the corrected time would be negative.
#[test]
fn a_corrected_time_is_never_before_1970() {
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, -600, || None);
        let clock = TestClock::at(NOW);
        let client = kind.client_at(&server, &clock);
        assert_eq!(send(&client, kind.request()).status(), 200, "{kind:?}");
        clock.set(100);
        send(&client, kind.request());
        let last = server.proofs().pop().unwrap().iat();
        assert_eq!(last, 0, "{kind:?}");
    }
}
