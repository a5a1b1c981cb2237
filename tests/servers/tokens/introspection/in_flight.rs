//! Concurrent requests with one token (`src/tokens/introspection/in_flight.rs`).

use super::*;

/// Takes the future to where it has to wait, and no further.
async fn begin(mut future: Pin<&mut impl Future>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// Requests through one layer, which count themselves when they begin: the same turn of the
/// executor takes them to the question.
struct Crowd<C: Send + Sync + 'static> {
    layer: Arc<DpopLayer<C>>,
    begun: Arc<AtomicUsize>,
    requests: JoinSet<Outcome<C>>,
}

/// Waits until the futures that were spawned have gone as far as they can.
async fn until(condition: impl Fn() -> bool) {
    let turns = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), turns)
        .await
        .expect("the condition came true");
}

impl<C: Send + Sync + serde::de::DeserializeOwned + 'static> Crowd<C> {
    fn new(tokens: IntrospectionVerifier<C>) -> Self {
        Self {
            layer: Arc::new(layer(tokens)),
            begun: Arc::default(),
            requests: JoinSet::new(),
        }
    }

    fn send(&mut self, token: impl Into<String>) -> tokio::task::AbortHandle {
        let (layer, begun, token) = (self.layer.clone(), self.begun.clone(), token.into());
        self.requests.spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            ask(&layer, &token).await
        })
    }

    async fn until_begun(&self, requests: usize) {
        until(|| self.begun.load(Ordering::SeqCst) == requests).await;
    }

    async fn answers(&mut self) -> Vec<Outcome<C>> {
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.requests.join_next().await {
            outcomes.extend(outcome.ok());
        }
        outcomes
    }
}

/// Sixty-four requests, one question; its answer is everyone's, be it good or not, and a fault is
/// not remembered.
#[test]
fn requests_with_one_token_at_one_time_share_one_question() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier().with_cache_lifetime(Duration::ZERO));
        let rows: [(&str, StatusCode, Value, Result<(), Rejection>); 3] = [
            (
                "a fault",
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({}),
                Err(Unavailable::Token.into()),
            ),
            (
                "inactive",
                StatusCode::OK,
                json!({ "active": false }),
                Err(TokenError::Invalid.into()),
            ),
            ("good", StatusCode::OK, good(), Ok(())),
        ];
        for (before, (name, status, body, expected)) in rows.into_iter().enumerate() {
            server.replies(status, body.to_string());
            server.hold_answers();
            for _ in 0..64 {
                crowd.send(TOKEN);
            }
            crowd.until_begun(64 * (before + 1)).await;
            server.until_asked(before + 1).await;
            server.release_answers();
            let outcomes = crowd.answers().await;
            assert_eq!(outcomes.len(), 64, "{name}");
            for outcome in outcomes {
                assert_eq!(outcome.kit.rejection, expected.clone().err(), "{name}");
            }
            assert_eq!(server.questions(), before + 1, "{name}");
        }
        ask(&crowd.layer, TOKEN).await.assert_passed("later");
        assert_eq!(server.questions(), 4, "nothing was remembered");
    });
}

#[test]
fn requests_with_other_tokens_ask_their_own_questions() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier());
        server.hold_answers();
        for i in 0..8 {
            crowd.send(format!("token-{i}"));
        }
        server.until_asked(8).await;
        server.release_answers();
        for outcome in crowd.answers().await {
            outcome.assert_passed("each");
        }
        assert_eq!(server.questions(), 8);
    });
}

/// R-AT.5: whoever asked, each request judges the answer by its own clock.
#[test]
fn a_shared_answer_is_judged_by_each_requests_own_clock() {
    let server = Server::with_basic();
    server.answers(&but(|a| {
        a["nbf"] = json!(NOW);
        a["exp"] = json!(NOW + 60);
    }));
    let tokens = server.verifier();
    let at = |second| tokens.verify(PresentedToken::new(TOKEN), Timestamp::from_unix(second));
    block_on(async {
        server.hold_answers();
        let (asker, early, late, fine, ()) = tokio::join!(
            biased;
            at(NOW),
            at(NOW - 31),
            at(NOW + 90),
            at(NOW + 89),
            async {
                server.until_asked(1).await;
                server.release_answers();
            },
        );
        assert!(asker.is_ok() && fine.is_ok());
        assert_eq!(early.unwrap_err(), TokenError::NotYetValid);
        assert_eq!(late.unwrap_err(), TokenError::Expired);
        assert_eq!(server.questions(), 1);
    });
}

/// A fault lasts for those who waited for it, however slow they are to hear of it: who comes after
/// the answer asks again.
#[test]
fn nobody_joins_a_question_that_is_answered() {
    let server = Server::with_basic();
    let tokens = server.verifier().with_cache_lifetime(Duration::ZERO);
    let verify = || tokens.verify(PresentedToken::new(TOKEN), Timestamp::from_unix(NOW));
    block_on(async {
        server.replies(StatusCode::INTERNAL_SERVER_ERROR, "");
        server.hold_answers();
        let (mut asker, mut waiting) = (pin!(verify()), pin!(verify()));
        begin(asker.as_mut()).await;
        begin(waiting.as_mut()).await;
        server.release_answers();
        assert_eq!(asker.await.unwrap_err(), TokenError::Unavailable);

        server.answers(&good());
        server.hold_answers();
        let (mut later, mut with_it) = (pin!(verify()), pin!(verify()));
        begin(later.as_mut()).await;
        assert_eq!(waiting.await.unwrap_err(), TokenError::Unavailable);
        begin(with_it.as_mut()).await;
        server.release_answers();
        assert!(later.await.is_ok() && with_it.await.is_ok());
        assert_eq!(server.questions(), 2);
    });
}

/// A client that hangs up takes its question with it, and nobody else's request.
#[test]
fn a_dropped_request_harms_nobody_who_waits_with_it() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier());
        server.hold_answers();
        let mut askers = vec![crowd.send(TOKEN)];
        server.until_asked(1).await;
        for _ in 0..10 {
            askers.push(crowd.send(TOKEN));
        }
        crowd.until_begun(11).await;
        assert_eq!(server.questions(), 1);
        for (gone, asker) in askers[..10].iter().enumerate() {
            asker.abort();
            server.until_asked(gone + 2).await;
        }
        crowd.send(TOKEN);
        crowd.until_begun(12).await;
        server.release_answers();
        let outcomes = crowd.answers().await;
        assert_eq!(outcomes.len(), 2, "one has stayed, and one has joined it");
        for outcome in outcomes {
            outcome.assert_passed("each of them");
        }
        assert_eq!(server.questions(), 11);
        ask(&crowd.layer, TOKEN).await.assert_passed("afterwards");
        assert_eq!(server.questions(), 11, "and its answer is remembered");
    });
}

#[test]
fn a_token_whose_only_request_was_dropped_is_asked_about_again() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier().with_concurrency(1));
        server.hold_answers();
        let asker = crowd.send(TOKEN);
        server.until_asked(1).await;
        asker.abort();
        assert_eq!(crowd.answers().await.len(), 0);
        server.release_answers();
        ask(&crowd.layer, TOKEN)
            .await
            .assert_passed("its place is free, too");
        assert_eq!(server.questions(), 2);
    });
}

#[test]
fn no_more_questions_are_under_way_than_was_said() {
    let server = Server::with_basic();
    block_on(async {
        for (most, said) in [(3, 3), (1, 1), (1, 0)] {
            server.known.most_under_way.store(0, Ordering::SeqCst);
            let before = server.questions();
            let mut crowd = Crowd::new(server.verifier().with_concurrency(said));
            server.hold_answers();
            for i in 0..9 {
                crowd.send(format!("token-{i}"));
            }
            crowd.until_begun(9).await;
            server.until_asked(before + most).await;
            server.release_answers();
            for outcome in crowd.answers().await {
                outcome.assert_passed("each in its turn");
            }
            assert_eq!(server.questions() - before, 9);
            let most_under_way = server.known.most_under_way.load(Ordering::SeqCst);
            assert_eq!(most_under_way, most, "{said}");
        }
        drop(server.verifier().with_concurrency(usize::MAX));
    });
}

/// D13: a place that does not come free is waited for as long as an answer is. The second request
/// has the place of the first when that gives up, so the third never gets one.
#[test]
fn a_request_that_finds_no_place_is_answered_503() {
    let server = Server::with_basic();
    server.hold_answers();
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
        let mut crowd = Crowd::new(tokens.with_concurrency(1));
        for token in ["first", "second", "third"] {
            crowd.send(token);
        }
        let outcomes = crowd.answers().await;
        assert_eq!(outcomes.len(), 3);
        for outcome in outcomes {
            outcome.assert_unavailable("each");
        }
        let form = server.known.form.lock().unwrap().clone();
        assert_ne!(form[0].1, "third");
        assert!(server.questions() <= 2);
    });
}
