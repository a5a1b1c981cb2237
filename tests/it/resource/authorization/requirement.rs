//! What a route requires (`src/resource/requirement.rs`).

use super::*;

/// Both schemes pass, or both are rejected for this, each in its own challenge.
#[track_caller]
fn assert_decides<L>(name: &str, require: &L, change: impl Fn(&mut Attempt), error: Option<&Told>)
where
    L: Layer<Counted>,
    L::Service:
        Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone + Send + 'static,
{
    let layers = ServiceBuilder::new()
        .layer(allowing_bearer())
        .layer(require);
    let (dpop, bearer) = match error {
        None => (passed(), passed()),
        Some(Told {
            status,
            parameters,
            error,
        }) => (
            rejected(
                *status,
                format!("DPoP {parameters}, {ALGS}"),
                error.clone().into(),
            ),
            rejected(
                *status,
                format!("Bearer {parameters}"),
                BearerError::Authorization(error.clone()).into(),
            ),
        ),
    };
    assert_eq!(outcome(&layers, under_dpop(&change)), dpop, "{name}");
    assert_eq!(outcome(&layers, as_bearer(&change)), bearer, "{name}");
}

fn remove(object: &mut Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member).unwrap()
}

/// R-AT.9: "authorization sufficient, errors per RFC 6750 section 3.1".
#[test]
fn scopes_are_required_all_or_any() {
    let rows = [
        // held, required, all of them, any of them
        ("a", "a", true, true),
        ("a b", "a", true, true),
        ("b a", "a b", true, true),
        ("a", "a b", false, true),
        ("b", "a b", false, true),
        ("c", "a b", false, false),
        ("", "a", false, false),
        ("  ", "a", false, false),
        ("A", "a", false, false),
        ("ab", "a", false, false),
        ("a,b", "a", false, false),
        ("a\tb", "a", false, false),
        ("aa a", "a", true, true),
        ("orders", "orders:read", false, false),
        ("orders:*", "orders:read", false, false),
    ];
    for (held, required, all, any) in rows {
        let change = |a: &mut Attempt| a.token_claims["scope"] = json!(held);
        for (name, layer, enough) in [
            ("all of", RequireScopesLayer::all_of(scopes(required)), all),
            ("any of", RequireScopesLayer::any_of(scopes(required)), any),
        ] {
            let told = lacks_scope(required);
            let error = (!enough).then_some(&told);
            let name = format!("R-AT.9: {held:?} for {name} {required:?}");
            assert_decides(&name, &layer, change, error);
        }
    }
    let without = |a: &mut Attempt| drop(remove(&mut a.token_claims, "scope"));
    let layer = RequireScopesLayer::any_of(scopes("a"));
    assert_decides("no scope claim", &layer, without, Some(&lacks_scope("a")));
}

/// RFC 6749 section 3.3: what would break a challenge, or require nothing, is rejected at start-up.
#[test]
fn scopes_that_say_nothing_are_no_scopes() {
    for bad in [
        "", " ", "a ", " a", "a  b", "a\tb", "a\"b", "a\\b", "ä", "a\nb", "a\r\nb",
    ] {
        assert!(bad.parse::<Scopes>().is_err(), "{bad:?}");
    }
    for good in ["a", "a b", "https://api.example.com/orders:read!#$%&'()*+,"] {
        assert_eq!(scopes(good).to_string(), good);
    }
}

/// RFC 9470 section 5: "max_age" in whole seconds, both ends included; fractions of `auth_time` are
/// those of a NumericDate.
#[test]
fn an_authentication_is_required_by_its_age() {
    let rows: [(&str, Option<Value>, u64, bool); 23] = [
        ("now", Some(json!(NOW)), 300, true),
        ("the last second", Some(json!(NOW - 300)), 300, true),
        ("a second later", Some(json!(NOW - 301)), 300, false),
        (
            "a fraction, in time",
            Some(json!(1_699_999_700.5)),
            300,
            true,
        ),
        (
            "a fraction, too late",
            Some(json!(1_699_999_699.5)),
            300,
            false,
        ),
        (
            "written as a double",
            Some(json!(1_700_000_000.0)),
            300,
            true,
        ),
        ("ahead of our clock", Some(json!(NOW + 10)), 300, true),
        ("ahead by the leeway", Some(json!(NOW + 30)), 300, true),
        ("ahead by more", Some(json!(NOW + 31)), 300, false),
        (
            "ahead by more, for ever",
            Some(json!(NOW + 31)),
            u64::MAX,
            false,
        ),
        ("in milliseconds", Some(json!(NOW * 1000)), 300, false),
        (
            "in milliseconds, of long ago",
            Some(json!(1000)),
            u64::MAX,
            true,
        ),
        ("the same second for none", Some(json!(NOW)), 0, true),
        ("a second ago for none", Some(json!(NOW - 1)), 0, false),
        ("the epoch", Some(json!(0)), 300, false),
        ("before the epoch", Some(json!(-1)), 300, false),
        ("beyond any clock", Some(json!(u64::MAX)), 300, false),
        ("an age beyond any clock", Some(json!(1)), u64::MAX, true),
        ("none", None, 300, false),
        ("null", Some(json!(null)), 300, false),
        ("a text", Some(json!(NOW.to_string())), 300, false),
        ("a list", Some(json!([NOW])), 300, false),
        ("yes", Some(json!(true)), 300, false),
    ];
    for (name, auth_time, max_age, enough) in rows {
        let layer = RequireAuthenticationLayer::within(Duration::from_secs(max_age));
        let change = |a: &mut Attempt| {
            if let Some(auth_time) = &auth_time {
                a.token_claims["auth_time"] = auth_time.clone();
            }
        };
        let told = needs_authentication(None, Some(max_age));
        assert_decides(name, &layer, change, (!enough).then_some(&told));
    }
    let layer = RequireAuthenticationLayer::within(Duration::from_millis(300_999));
    let at = |time: u64| move |a: &mut Attempt| a.token_claims["auth_time"] = json!(time);
    assert_decides("whole seconds", &layer, at(NOW - 300), None);
    let told = needs_authentication(None, Some(300));
    assert_decides("whole seconds", &layer, at(NOW - 301), Some(&told));
}

#[test]
fn an_authentication_is_required_by_its_class() {
    const REQUIRED: &str = "urn:a:2 urn:a:1";
    let rows: [(&str, Option<Value>, bool); 9] = [
        ("the first", Some(json!("urn:a:2")), true),
        ("the last", Some(json!("urn:a:1")), true),
        ("another", Some(json!("urn:a:0")), false),
        ("another case", Some(json!("URN:A:2")), false),
        ("both in one", Some(json!(REQUIRED)), false),
        ("the beginning of one", Some(json!("urn:a:")), false),
        ("none", None, false),
        ("a list", Some(json!(["urn:a:2"])), false),
        ("an empty one", Some(json!("")), false),
    ];
    let layer = RequireAuthenticationLayer::by_acr(acrs(REQUIRED));
    for (name, acr, enough) in rows {
        let change = |a: &mut Attempt| {
            if let Some(acr) = &acr {
                a.token_claims["acr"] = acr.clone();
            }
        };
        let told = needs_authentication(Some(REQUIRED), None);
        assert_decides(name, &layer, change, (!enough).then_some(&told));
    }
}

/// Both are told, whichever is missing: the client asks for both at once.
#[test]
fn an_authentication_is_required_by_class_and_age() {
    let layer =
        RequireAuthenticationLayer::by_acr(acrs("gold")).with_max_age(Duration::from_secs(60));
    let rows = [
        ("both", "gold", NOW - 60, true),
        ("of another class", "silver", NOW - 60, false),
        ("too long ago", "gold", NOW - 61, false),
        ("neither", "silver", NOW - 61, false),
    ];
    for (name, acr, auth_time, enough) in rows {
        let change = |a: &mut Attempt| {
            a.token_claims["acr"] = json!(acr);
            a.token_claims["auth_time"] = json!(auth_time);
        };
        let told = needs_authentication(Some("gold"), Some(60));
        assert_decides(name, &layer, change, (!enough).then_some(&told));
    }
}

#[test]
fn a_requirement_of_ones_own() {
    let tenant = |a: &mut Attempt| a.token_claims["tenant"] = json!(7);
    let ours = |claims: &Claims| claims.claim("tenant") == Some(7);
    let closure = RequireLayer::<_, Claims>::new(ours);
    assert_decides("a closure says yes", &closure, tenant, None);
    assert_decides("a closure says no", &closure, |_| {}, Some(&denied()));

    for told in [
        denied(),
        lacks_scope("night"),
        needs_authentication(Some("gold"), Some(1)),
        needs_authentication(None, None),
    ] {
        let layer = RequireLayer::<_, Claims>::new(AfterHours(told.error.clone()));
        let night = |a: &mut Attempt| a.token_claims["night"] = json!(true);
        assert_decides("a type says yes", &layer, night, None);
        assert_decides("a type says no", &layer, |_| {}, Some(&told));
    }
    let layer = RequireLayer::<_, Claims>::new(ScopeRequirement::all_of(scopes("orders.read")));
    assert_decides("one of ours by hand", &layer, |_| {}, None);
}

/// The scope of a requirement takes the place of the service's; everything else that was configured
/// stays.
#[test]
fn challenges_say_what_was_configured_as_well() {
    let outer = || {
        let verifier = verifier()
            .allow_bearer()
            .with_realm("orders api".parse().unwrap())
            .with_scope(scopes("orders.read"))
            .with_well_known_metadata();
        DpopLayer::new(verifier)
    };
    let metadata =
        r#"resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    let described = |error: &str, description: &str| {
        format!(r#"realm="orders api", error="{error}", error_description="{description}""#)
    };
    let scope = described("insufficient_scope", "the access token lacks a scope");
    let scope = format!(r#"{scope}, scope="admin""#);
    let denied = described(
        "insufficient_scope",
        "the access token does not allow this request",
    );
    let denied = format!(r#"{denied}, scope="orders.read""#);
    let authentication = described(
        "insufficient_user_authentication",
        "a different authentication of the user is required",
    );
    let authentication =
        format!(r#"{authentication}, acr_values="gold", max_age="5", scope="orders.read""#);
    let challenges = |layer: &dyn Fn(Request<()>) -> Outcome| {
        [under_dpop(|_| {}), as_bearer(|_| {})].map(|request| layer(request).challenges)
    };
    let expected = |parameters: &str| {
        [
            vec![format!("DPoP {parameters}, {ALGS}, {metadata}")],
            vec![format!("Bearer {parameters}, {metadata}")],
        ]
    };
    let by_scope = (outer(), RequireScopesLayer::all_of(scopes("admin")));
    assert_eq!(challenges(&|r| outcome(&by_scope, r)), expected(&scope));
    let by_rule = (outer(), RequireLayer::<_, Claims>::new(|_: &Claims| false));
    assert_eq!(challenges(&|r| outcome(&by_rule, r)), expected(&denied));
    let step_up =
        RequireAuthenticationLayer::by_acr(acrs("gold")).with_max_age(Duration::from_secs(5));
    let by_acr = (outer(), step_up);
    assert_eq!(
        challenges(&|r| outcome(&by_acr, r)),
        expected(&authentication)
    );
}

#[test]
fn claims_of_another_type() {
    let outer = || {
        let tokens = jwt_verifier().with_claims::<Tenant>();
        DpopLayer::new(Verifier::new(common::rules(), tokens))
    };
    let of_tenant = |tenant: u64| under_dpop(|a| a.token_claims["tenant"] = json!(tenant));
    let status = |required: &dyn Fn(Request<()>) -> Outcome| {
        [7, 8].map(|tenant| {
            let outcome = required(of_tenant(tenant));
            assert_eq!(outcome.was_reached, outcome.status == 200);
            outcome.status
        })
    };
    let by_scope = (
        outer(),
        RequireScopesLayer::all_of(scopes("tenant-7")).with_claims::<Tenant>(),
    );
    assert_eq!(status(&|r| outcome(&by_scope, r)), [200, 403]);
    let by_acr = RequireAuthenticationLayer::by_acr(acrs("tenant-7")).with_claims::<Tenant>();
    assert_eq!(
        status(&|r| outcome(&(outer(), by_acr.clone()), r)),
        [200, 401]
    );
    let by_age =
        RequireAuthenticationLayer::within(Duration::from_secs(75)).with_claims::<Tenant>();
    assert_eq!(
        status(&|r| outcome(&(outer(), by_age.clone()), r)),
        [200, 401]
    );
    let later = RequireAuthenticationLayer::by_acr(acrs("tenant-7"))
        .with_claims::<Tenant>()
        .with_max_age(Duration::from_secs(69));
    assert_eq!(
        status(&|r| outcome(&(outer(), later.clone()), r)),
        [401, 401]
    );
    let by_rule = (
        outer(),
        RequireLayer::<_, Tenant>::new(|claims: &Tenant| claims.tenant == 7),
    );
    assert_eq!(status(&|r| outcome(&by_rule, r)), [200, 403]);
}
