//! What responses, logs and `Debug` show of a request: nothing secret.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use serde_json::json;
use tower::Layer as _;
use tower_dpop::proof::ReplayStoreError;
use tower_dpop::token_endpoint::{
    GrantBindingError, TokenEndpointLayer, TokenRequestRejection, authorization_request_key,
    check_code_binding, check_refresh_binding,
};

use common::log::logged;
use common::proofs::assert_shows_nothing;
use common::token_endpoint::{Attempt, Outcome, Server, endpoint};
use common::{Key, KeyExt as _, NOW, TestClock, fresh_jti, keys};

use super::{Change, bad_proofs, endpoint_with_nonces, jkt, proven};

const MARKER: &str = "marker-of-the-request";

/// The parts of an attempt that no output may contain.
fn secrets_of(attempt: &Attempt) -> Vec<String> {
    let key = &attempt.key;
    let jwk = key.public_jwk();
    let mut secrets = vec![MARKER.to_owned(), key.jkt()];
    secrets.extend(["x", "y"].map(|member| jwk[member].as_str().unwrap().to_owned()));
    // An empty or tiny proof says nothing.
    for value in attempt
        .request()
        .headers()
        .values()
        .filter(|value| value.len() >= 8)
    {
        secrets.push(value.as_bytes().escape_ascii().to_string());
    }
    secrets
}

/// D19, D21: there is one event per rejection.
#[test]
fn neither_log_nor_response_repeats_request_data() {
    let marked = |change: Change| {
        Attempt::but(|a| {
            a.form = MARKER.into();
            a.claims["jti"] = json!(format!("{MARKER}{}", fresh_jti()));
            a.claims["more"] = json!(MARKER);
            change(a);
        })
    };
    let marked_changes: Vec<(&'static str, Change)> = vec![
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
        .chain(marked_changes);
    for (name, change) in rejections {
        let layer = TokenEndpointLayer::new(endpoint_with_nonces(&TestClock::at(NOW)));
        let attempt = marked(change);
        let (outcome, log) = logged(|| attempt.outcome_by(&layer, &Server::default()));
        assert!(outcome.rejection.is_some(), "{name}");
        let events = log
            .lines()
            .filter(|line| line.contains(" tower_dpop: "))
            .count();
        assert_eq!(events, 1, "{name}: expected one event: {log}");
        assert!(log.contains("token request rejected"), "{name}: {log}");
        let mut secrets = secrets_of(&attempt);
        assert_shows_nothing(name, &format!("{outcome:?}"), &secrets);
        let nonces = outcome.values("dpop-nonce");
        secrets.extend(nonces.into_iter().map(str::to_owned));
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
        let (outcome, log) = logged(|| Outcome::of_rejection(&endpoint(), rejection.clone()));
        assert_shows_nothing(
            "a grant of another key",
            &format!("{outcome:?}{log}"),
            &secrets,
        );
    }
    let good = Attempt::good();
    let ((), log) = logged(|| {
        drop(good.outcome_by(&TokenEndpointLayer::new(endpoint()), &Server::default()));
    });
    let events = log.lines().filter(|line| line.contains(" tower_dpop: "));
    assert_eq!(events.count(), 1, "an accepted request: {log}");
    assert!(log.contains("DEBUG") && log.contains("token request accepted"));
    assert_shows_nothing("an accepted request", &log, &secrets_of(&good));
    let ((), log) = logged(|| {
        drop(Outcome::of_rejection(
            &endpoint(),
            ReplayStoreError::Full.into(),
        ));
    });
    assert!(
        log.contains("ERROR") && log.contains("cannot decide"),
        "{log}"
    );
}

#[test]
fn debug_shows_no_secret() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let endpoint = Arc::new(endpoint_with_nonces(&clock));
    let nonce = endpoint.issue_nonce().unwrap();
    let text = nonce.as_header_value().to_str().unwrap().to_owned();
    clock.set(start + 120);
    let attempt = Attempt::with_nonce(&text, start + 120);
    let key = attempt.verify(&endpoint).unwrap();
    let next = key.next_nonce().unwrap().as_header_value();
    let mut secrets = secrets_of(&attempt);
    secrets.push(text);
    secrets.push(next.to_str().unwrap().to_owned());

    let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let service = layer.layer(());
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
    show(&endpoint);
    show(&layer);
    show(&layer.clone());
    show(&service);
    show(&key);
    show(&key.clone());
    show(&key.cnf());
    show(&endpoint.metadata());
    show(&attempt.verify(&endpoint));
    show(&TokenRequestRejection::from(GrantBindingError::NoProof));
    assert!(shown.contains("ProvenKey") && shown.contains("nonces_required: true"));
    assert_shows_nothing("Debug", &shown, &secrets);
}
