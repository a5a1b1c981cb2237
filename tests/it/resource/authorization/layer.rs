//! The layers around a service (`src/resource/authorization.rs`).

use super::*;

/// A forgotten layer, one in the wrong place, and one with another claims type let nothing through.
#[test]
fn a_requirement_without_its_layer_rejects_everything() {
    let requirement = RequireScopesLayer::all_of(scopes("orders.read"));
    let other_claims = {
        let tokens = jwt_verifier().with_claims::<Value>();
        DpopLayer::new(Verifier::new(common::rules(), tokens))
    };
    let anyone = RequireLayer::<_, Claims>::new(|_: &Claims| true);
    for (name, request) in [
        (
            "a good request",
            under_dpop as fn(fn(&mut Attempt)) -> Request<()>,
        ),
        ("a bearer token", as_bearer),
    ] {
        let request = || request(|_| {});
        assert_eq!(
            outcome(&requirement, request()),
            misplaced(),
            "{name}: no layer"
        );
        assert_eq!(outcome(&anyone, request()), misplaced(), "{name}: no layer");
        let wrong_order = (requirement.clone(), allowing_bearer());
        assert_eq!(
            outcome(&wrong_order, request()),
            misplaced(),
            "{name}: outside"
        );
    }
    let nobody = Request::new(());
    assert_eq!(outcome(&requirement, nobody), misplaced(), "a bare request");
    let layers = (other_claims, requirement.clone());
    assert_eq!(
        outcome(&layers, under_dpop(|_| {})),
        misplaced(),
        "other claims"
    );
    let layers = (allowing_bearer(), requirement.with_claims::<Tenant>());
    for request in [under_dpop(|_| {}), as_bearer(|_| {})] {
        assert_eq!(outcome(&layers, request), misplaced(), "other claims");
    }
}

/// The layer outside goes first: no requirement is asked about a request that it rejects.
#[test]
fn a_rejected_request_does_not_come_to_the_requirement() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = {
        let asked = Arc::clone(&asked);
        RequireLayer::<_, Claims>::new(move |_: &Claims| asked.fetch_add(1, Ordering::Relaxed) > 0)
    };
    let layers = (DpopLayer::new(verifier()), counting);
    let no_proof = under_dpop(|a| a.dpop = Some(vec![]));
    assert_eq!(
        outcome(&layers, no_proof).rejection,
        Some(ProofError::Missing.into())
    );
    let downgraded = as_bearer(|_| {});
    let rejection = outcome(&layers, downgraded).rejection;
    assert_eq!(rejection, Some(CredentialsError::Bearer.into()));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// The proof was good and has been seen: a client that comes back signs a new one.
#[test]
fn a_request_that_is_not_allowed_has_spent_its_proof() {
    let layers = (
        DpopLayer::new(verifier()),
        RequireScopesLayer::all_of(scopes("admin")),
    );
    let request = under_dpop(|_| {});
    assert_eq!(outcome(&layers, request.clone()).status, 403);
    let again = outcome(&layers, request);
    assert_eq!(again.rejection, Some(ProofError::Replayed.into()));
}

/// The first that says no is the one that is heard.
#[test]
fn requirements_are_asked_from_the_outside() {
    let layers = (
        allowing_bearer(),
        RequireScopesLayer::all_of(scopes("orders.read")),
        RequireScopesLayer::all_of(scopes("admin")),
        RequireAuthenticationLayer::by_acr(acrs("gold")),
    );
    let told = lacks_scope("admin");
    let expected = rejected(
        403,
        format!("DPoP {}, {ALGS}", told.parameters),
        told.error.into(),
    );
    assert_eq!(outcome(&layers, under_dpop(|_| {})), expected);
}

/// D20: a preflight has no token to ask about.
#[test]
fn a_preflight_that_is_let_through_passes_requirements() {
    let preflight = || {
        Request::options("/orders")
            .header("access-control-request-method", "GET")
            .body(())
            .unwrap()
    };
    let requirement = RequireScopesLayer::all_of(scopes("admin"));
    let outer = DpopLayer::new(verifier());
    let passing = (
        outer.clone().with_preflight_pass_through(),
        requirement.clone(),
    );
    assert_eq!(outcome(&passing, preflight()), passed(), "T-4: a preflight");
    let told = lacks_scope("admin");
    let expected = rejected(
        403,
        format!("DPoP {}, {ALGS}", told.parameters),
        told.error.into(),
    );
    let with_token = under_dpop(|a| {
        a.method = Method::OPTIONS;
        a.proof_claims["htm"] = json!("OPTIONS");
        let field = "GET".parse().unwrap();
        a.extra_headers
            .push(("access-control-request-method", field));
    });
    assert_eq!(
        outcome(&passing, with_token),
        expected,
        "no preflight: it has a token"
    );
    assert_eq!(
        outcome(&passing, under_dpop(|_| {})),
        expected,
        "the request after it"
    );
    let verifying = outcome(&(outer, requirement), preflight());
    assert_eq!(verifying.rejection, Some(CredentialsError::Missing.into()));
}

/// Two layers with a verifier each: the nearer one answers.
#[test]
fn the_rejection_is_in_the_name_of_the_nearest_layer() {
    let named = |realm: &str| DpopLayer::new(verifier().with_realm(realm.parse().unwrap()));
    let layers = (
        named("outside"),
        named("inside"),
        RequireScopesLayer::all_of(scopes("admin")),
    );
    let [challenge] = outcome(&layers, under_dpop(|_| {}))
        .challenges
        .try_into()
        .unwrap();
    assert!(
        challenge.starts_with(r#"DPoP realm="inside", "#),
        "{challenge}"
    );
}

/// A handler that decides for itself.
#[test]
fn access_decides_as_the_layers_do() {
    let send = |layer: DpopLayer, request: Request<()>| {
        let service = layer.layer(service_fn(async |request: Request<()>| {
            let access = Access::<Claims>::of(request.extensions()).unwrap();
            assert_eq!(access.token().claims().subject(), "alice");
            assert!(
                Access::<Tenant>::of(request.extensions()).is_none(),
                "other claims"
            );
            let needed = ScopeRequirement::all_of(scopes("admin"));
            let denied: Result<(), Denied> = access.check(&needed);
            assert!(!format!("{access:?}").contains("alice"));
            Ok::<_, Infallible>(match denied {
                Ok(()) => Response::new("done"),
                Err(denied) => denied.into_response(),
            })
        }));
        let response = block_on(service.oneshot(request)).unwrap();
        (
            Outcome::of(&response, *response.body() == "done"),
            *response.body(),
        )
    };
    let told = lacks_scope("admin");
    let admin = |a: &mut Attempt| a.token_claims["scope"] = json!("admin");
    let (allowed, body) = send(allowing_bearer(), under_dpop(admin));
    assert_eq!((allowed, body), (passed(), "done"));
    let (allowed, body) = send(allowing_bearer(), as_bearer(admin));
    assert_eq!((allowed, body), (passed(), "done"));
    let (denied, body) = send(allowing_bearer(), under_dpop(|_| {}));
    let challenge = format!("DPoP {}, {ALGS}", told.parameters);
    let expected = rejected(403, challenge, told.error.clone().into());
    assert_eq!((denied, body), (expected, ""));
    let (denied, body) = send(allowing_bearer(), as_bearer(|_| {}));
    let error = BearerError::Authorization(told.error.clone());
    let expected = rejected(403, format!("Bearer {}", told.parameters), error.into());
    assert_eq!((denied, body), (expected, ""));

    assert!(
        Access::<Claims>::of(under_dpop(|_| {}).extensions()).is_none(),
        "no layer"
    );
}

#[test]
fn readiness_is_that_of_the_service() {
    let layer = RequireScopesLayer::all_of(scopes("a"));
    let mut pending = layer.layer(Strict {
        first: Some(Poll::Pending),
        ..Strict::default()
    });
    assert_eq!(poll_ready(&mut pending), Poll::Pending);
    assert_eq!(poll_ready(&mut pending), Poll::Ready(Ok(())));
    let mut failed = layer.layer(Strict {
        first: Some(Poll::Ready(Err(Broken))),
        ..Strict::default()
    });
    assert_eq!(poll_ready(&mut failed), Poll::Ready(Err(Broken)));
}

#[test]
fn the_very_service_that_was_polled_ready_is_called() {
    let strict = Strict::default();
    let calls = Arc::clone(&strict.calls);
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(strict);
    for round in 1..=3 {
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(with_scope("a"))).unwrap();
        assert_eq!(response.body(), "served");
        assert_eq!(calls.load(Ordering::Relaxed), round);
        // Rejected after ready: the next request polls again.
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(with_scope("b"))).unwrap();
        assert_eq!(
            (response.status().as_u16(), response.body().as_str()),
            (403, "")
        );
        assert_eq!(calls.load(Ordering::Relaxed), round);
    }
    let mut clone = service.clone();
    assert!(poll_ready(&mut clone).is_ready());
    assert_eq!(
        block_on(clone.call(with_scope("b"))).unwrap().status(),
        403,
        "a clone"
    );
    assert!(poll_ready(&mut clone).is_ready());
    assert_eq!(
        block_on(clone.call(with_scope("a"))).unwrap().body(),
        "served"
    );
}

#[test]
fn a_rejected_request_gives_its_reservation_back() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(Strict::default(), Arc::clone(&permits));
    let mut service = RequireScopesLayer::all_of(scopes("a")).layer(limited);
    for (name, request, status) in [
        ("not allowed", with_scope("b"), 403),
        ("no layer outside", Request::new(()), 500),
    ] {
        assert!(poll_ready(&mut service).is_ready(), "{name}");
        assert_eq!(permits.available_permits(), 0, "{name}");
        let answering = service.call(request);
        assert_eq!(permits.available_permits(), 1, "{name}: at once");
        assert_eq!(block_on(answering).unwrap().status(), status, "{name}");
    }
    assert!(poll_ready(&mut service).is_ready());
    let response = block_on(service.call(with_scope("a"))).unwrap();
    assert_eq!(response.body(), "served");
    assert_eq!(permits.available_permits(), 1);
}

#[test]
fn errors_and_bodies_of_the_service_pass_through() {
    let failing =
        RequireScopesLayer::all_of(scopes("a")).layer(service_fn(async |_: Request<()>| {
            Err::<Response<()>, _>(Broken)
        }));
    let outcome = block_on(failing.clone().oneshot(with_scope("a")));
    assert_eq!(outcome.unwrap_err(), Broken);
    let rejected = block_on(failing.oneshot(with_scope("b"))).unwrap();
    assert_eq!(rejected.status(), 403);

    // Bodies that are neither Clone nor Send, and a future that is not Send.
    let counter = Rc::new(Cell::new(0));
    let service = RequireScopesLayer::all_of(scopes("a")).layer(service_fn(
        async |request: Request<Rc<str>>| {
            tokio::task::yield_now().await;
            counter.set(counter.get() + 1);
            Ok::<_, Infallible>(Response::new(Some(request.into_body())))
        },
    ));
    let request = with_scope("a").map(|()| Rc::from("body"));
    let response = block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.into_body().as_deref(), Some("body"));
    let request = with_scope("b").map(|()| Rc::from("body"));
    let response = block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.into_body(), None);
    assert_eq!(counter.get(), 1);
}

#[test]
fn the_parts_are_send_sync_debug_and_show_nothing() {
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    fn is_sync<T: Send + Sync + Debug + 'static>(value: T) -> T {
        value
    }
    struct NotDebug;
    impl Requirement<Claims> for NotDebug {
        fn check(&self, _: &Claims, _: Timestamp) -> Result<(), AuthorizationError> {
            Ok(())
        }
    }
    let layer = is_sync(RequireScopesLayer::all_of(scopes("a")));
    is_sync(RequireAuthenticationLayer::by_acr(acrs("gold")).with_claims::<Tenant>());
    is_sync(RequireLayer::<_, Claims>::new(AfterHours(
        AuthorizationError::NotMet,
    )));
    let mut service: Require<Strict, ScopeRequirement, Claims> =
        is_sync(layer.layer(Strict::default()));
    is_sync(RequireLayer::<_, Claims>::new(NotDebug).layer(Strict::default()));
    let request = with_scope("a");
    let access = is_sync(Access::<Claims>::of(request.extensions()).unwrap());
    assert!(!format!("{access:?} {service:?}").contains("alice"));
    assert!(poll_ready(&mut service).is_ready());
    let future: RequireFuture<Ready<_>> = is_send(service.call(request));
    assert_eq!(format!("{future:?}"), "RequireFuture(..)");
    let response = block_on(async { tokio::spawn(future).await.unwrap() }).unwrap();
    assert_eq!(response.body(), "served");
    let required = AuthenticationRequirement::within(Duration::from_secs(1));
    assert!(format!("{required:?}").contains("AuthenticationRequirement"));
}
