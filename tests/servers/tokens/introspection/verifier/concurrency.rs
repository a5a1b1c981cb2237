//! The limit of introspection requests in flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tower_dpop::tokens::{ClientAuthentication, HttpClient, IntrospectionVerifier};

use crate::tokens::introspection::{CLIENT_ID, ConcurrentRequests, SECRET, Server};
use common::{AUDIENCE, block_on};

#[test]
fn no_more_introspection_requests_are_in_flight_than_configured() {
    let server = Server::with_basic();
    block_on(async {
        for (max, configured) in [(3, 3), (1, 1), (1, 0)] {
            server.state.max_in_flight.store(0, Ordering::SeqCst);
            let before = server.request_count();
            let mut requests =
                ConcurrentRequests::new(server.verifier().with_concurrency(configured));
            server.hold_responses();
            for i in 0..9 {
                requests.send(format!("token-{i}"));
            }
            requests.until_started(9).await;
            server.until_requested(before + max).await;
            server.release_responses();
            for outcome in requests.outcomes().await {
                outcome.assert_passed("each");
            }
            assert_eq!(server.request_count() - before, 9);
            let max_in_flight = server.state.max_in_flight.load(Ordering::SeqCst);
            assert_eq!(max_in_flight, max, "{configured}");
        }
        drop(server.verifier().with_concurrency(usize::MAX));
    });
}

/// D13: a request waits for a permit as long as for a response. The second request gets the permit
/// of the first when that one times out, so the third never gets one.
#[test]
fn a_request_without_a_permit_is_rejected_with_503() {
    let server = Server::with_basic();
    server.hold_responses();
    let http = HttpClient::builder()
        .with_timeout(Duration::from_millis(200))
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
    block_on(async {
        let mut requests = ConcurrentRequests::new(tokens.with_concurrency(1));
        for token in ["first", "second", "third"] {
            requests.send(token);
        }
        let outcomes = requests.outcomes().await;
        assert_eq!(outcomes.len(), 3);
        for outcome in outcomes {
            outcome.assert_unavailable("each");
        }
        let form = server.state.form.lock().unwrap().clone();
        assert_ne!(form[0].1, "third");
        assert!(server.request_count() <= 2);
    });
}
