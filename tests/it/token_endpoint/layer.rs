//! The layer around a service (`src/token_endpoint/layer.rs`).

use super::*;

/// A-6, A-8: with and without clients that do not know DPoP.
#[test]
fn requests_without_a_proof_pass_only_where_that_is_said() {
    let strict = TokenEndpointLayer::new(endpoint());
    let open = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
    let open_with_nonces =
        TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW))).with_requests_without_proof();
    let server = Server::default();

    Attempt::without_proof()
        .outcome_by(&strict, &server)
        .assert_rejected("A-8", ProofError::Missing, Some("invalid_dpop_proof"));
    assert_eq!(server.called(), 0);
    for layer in [&open, &open_with_nonces] {
        let outcome = Attempt::without_proof().outcome_by(layer, &server);
        assert_eq!(outcome.body, r#"{"token_type":"Bearer"}"#, "A-6");
        assert_eq!(outcome.all("dpop-nonce"), [""; 0], "A-6");
    }
    Attempt::good()
        .outcome_by(&open, &server)
        .assert_bound("with a proof", &keys::client());
    Attempt::good()
        .outcome_by(&open_with_nonces, &server)
        .assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));

    let endpoint = endpoint();
    let absent = block_on(endpoint.verify_if_present(&Attempt::without_proof().head()));
    assert!(absent.unwrap().is_none(), "A-6");
    let present = block_on(endpoint.verify_if_present(&Attempt::good().head()));
    assert_eq!(present.unwrap().unwrap().thumbprint(), jkt(&keys::client()));
}

/// A-6, A-8: a server may clone the service for every connection.
#[test]
fn a_clone_lets_through_what_the_service_does() {
    let layer = TokenEndpointLayer::new(endpoint());
    let open = layer.clone().with_requests_without_proof();
    for (layer, expected) in [
        (
            layer,
            Some(TokenRequestRejection::Proof(ProofError::Missing)),
        ),
        (open, None),
    ] {
        let server = Server::default();
        let service = layer
            .clone()
            .layer(service_fn(move |request: Request<String>| {
                ready(Ok::<_, Infallible>(server.answer(&request)))
            }));
        let request = Attempt::without_proof().request();
        let outcome = Outcome::of(block_on(service.clone().oneshot(request)).unwrap());
        assert_eq!(outcome.rejection, expected);
    }
}

/// A-6: whoever sends a `DPoP` field is held to it.
#[test]
fn a_bad_proof_is_never_taken_for_none() {
    for (name, change, reason) in bad_proofs() {
        if reason == ProofError::Missing {
            continue;
        }
        let open = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
        let server = Server::default();
        let outcome = Attempt::but(change).outcome_by(&open, &server);
        outcome.assert_rejected(name, reason, Some("invalid_dpop_proof"));
        assert_eq!(server.called(), 0, "{name}");
    }
}

/// The contract of tower: the service that was polled ready is the one that is called.
#[test]
fn the_service_that_was_polled_ready_is_called() {
    #[derive(Default)]
    struct Strict {
        ready: bool,
    }

    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    impl Service<Request<String>> for Strict {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<String>) -> Self::Future {
            assert!(self.ready, "called without having been polled ready");
            self.ready = false;
            ready(Ok(Response::new(String::new())))
        }
    }

    let mut service = TokenEndpointLayer::new(endpoint()).layer(Strict::default());
    block_on(async {
        for _ in 0..3 {
            let service = service.ready().await.unwrap();
            let response = service.call(Attempt::good().request()).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        let mut clone = service.clone();
        let response = clone.ready().await.unwrap();
        assert!(response.call(Attempt::good().request()).await.is_ok());
    });
}

#[test]
fn an_error_of_the_service_is_handed_on() {
    #[derive(Debug, PartialEq)]
    struct Broken;

    let service =
        TokenEndpointLayer::new(endpoint()).layer(service_fn(async |_: Request<String>| {
            Err::<Response<String>, _>(Broken)
        }));
    let outcome = block_on(service.oneshot(Attempt::good().request()));
    assert_eq!(outcome.unwrap_err(), Broken);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged while the requests are made, at every level, from every crate.
fn logged(requests: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    common::enable_tracing_callsites();
    tracing::subscriber::with_default(subscriber, requests);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// D19, D21: one event for each rejection, and neither it nor the response repeats anything.
#[test]
fn neither_log_nor_response_repeats_anything_of_a_request() {
    let marked = |change: Change| {
        Attempt::but(|a| {
            a.form = MARKER.into();
            a.claims["jti"] = json!(format!("{MARKER}{}", fresh_jti()));
            a.claims["more"] = json!(MARKER);
            change(a);
        })
    };
    let marks: Vec<(&'static str, Change)> = vec![
        ("a foreign nonce", |a| a.claims["nonce"] = json!(MARKER)),
        ("another method", |a| a.claims["htm"] = json!(MARKER)),
        ("another path", |a| {
            a.claims["htu"] = json!(format!("https://as.example.com/{MARKER}"));
        }),
        ("another alg", |a| a.header["alg"] = json!(MARKER)),
        ("another typ", |a| a.header["typ"] = json!(MARKER)),
        ("another host", |a| {
            a.uri = format!("https://{MARKER}.example/token");
        }),
    ];
    let rejections = bad_proofs()
        .into_iter()
        .map(|(name, change, _)| (name, change))
        .chain(marks);
    for (name, change) in rejections {
        let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
        let attempt = marked(change);
        let mut outcome = None;
        let log = logged(|| outcome = Some(attempt.outcome_by(&layer, &Server::default())));
        let outcome = outcome.unwrap();
        assert!(outcome.rejection.is_some(), "{name}");
        let events = log
            .lines()
            .filter(|line| line.contains("tower_dpop"))
            .count();
        assert_eq!(events, 1, "{name}: one event, not {log}");
        assert!(log.contains("token request rejected"), "{name}: {log}");
        let mut secrets = secrets_of(&attempt);
        assert_shows_nothing(name, &format!("{outcome:?}"), &secrets);
        let given = outcome.all("dpop-nonce");
        secrets.extend(given.into_iter().map(str::to_owned));
        assert_shows_nothing(name, &log, &secrets);
    }

    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let secrets = [key.jkt(), other.jkt(), MARKER.to_owned()];
    let (code, refresh) = (check_code_binding, check_refresh_binding);
    let contradictory = authorization_request_key(Some(&proof), Some(&other.jkt()));
    let malformed = authorization_request_key(None, Some(MARKER));
    let bindings: [TokenRequestRejection; 4] = [
        code(Some(&proof), Some(jkt(&other))).unwrap_err().into(),
        refresh(Some(&proof), Some(jkt(&other))).unwrap_err().into(),
        contradictory.unwrap_err().into(),
        malformed.unwrap_err().into(),
    ];
    for rejection in bindings {
        let mut outcome = None;
        let log = logged(|| outcome = Some(Outcome::rejection(&endpoint(), rejection.clone())));
        assert_shows_nothing(
            "a binding",
            &format!("{:?}{log}", outcome.unwrap()),
            &secrets,
        );
    }
    let good = Attempt::good();
    let log = logged(|| {
        drop(good.outcome_by(&TokenEndpointLayer::new(endpoint()), &Server::default()));
    });
    let events = log.lines().filter(|line| line.contains("tower_dpop"));
    assert_eq!(events.count(), 1, "a request that passes: {log}");
    assert!(log.contains("DEBUG") && log.contains("token request accepted"));
    assert_shows_nothing("a request that passes", &log, &secrets_of(&good));
    let log = logged(|| {
        drop(Outcome::rejection(
            &endpoint(),
            ReplayStoreError::Full.into(),
        ));
    });
    assert!(
        log.contains("ERROR") && log.contains("cannot decide"),
        "{log}"
    );
}
