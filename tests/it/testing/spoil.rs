//! Requests with one defect each.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{Method, Response};
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{Defect, TestClient, TestResponse};
use tower_dpop::{Algorithm, Algorithms, ProofRules, Verifier};

use common::{AUDIENCE, Key, KeyExt as _, block_on};

use super::{ORDERS, issuer, nonce_rules, verifier, verifier_by, verify};

/// Asserts that each defect is rejected for exactly its reason, and that the same request without the
/// defect is accepted, even with the same `jti`.
fn assert_one_thing_wrong(
    name: &str,
    verifier: &Verifier,
    client: &TestClient,
    method: &Method,
    url: &str,
) {
    let defects: BTreeSet<Defect> = client.request(method.clone(), url).defects().collect();
    for defect in &defects {
        let good = client.request(method.clone(), url);
        let rejected = verify(verifier, &good.clone().with_defect(*defect));
        assert_eq!(
            rejected,
            Err(good.rejection_of(*defect)),
            "{name}: {defect}"
        );
        assert_eq!(verify(verifier, &good), Ok(()), "{name}, without: {defect}");
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong() {
    let issuer = issuer();
    let rules = nonce_rules(&issuer);
    let without_nonces = verifier(&issuer);
    let with_nonces = Verifier::new(rules.clone(), issuer.jwt_verifier());
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, ORDERS).build::<()>();
    let (head, ()) = request.into_parts();
    let response: Response<String> =
        with_nonces.reject(block_on(with_nonces.verify(&head)).unwrap_err());
    let nonce = TestResponse::of(&response).nonces.pop().unwrap();
    let rows = [
        ("no nonces", &without_nonces, client.clone()),
        ("a nonce", &with_nonces, client.clone().with_nonce(nonce)),
        ("the rules", &with_nonces, client.with_nonces_of(&rules)),
    ];
    let count = |client: &TestClient| client.request(Method::GET, ORDERS).defects().count();
    assert_eq!(
        rows.each_ref().map(|(_, _, client)| count(client)),
        [4, 2, 0].map(|fewer| Defect::ALL.len() - fewer)
    );
    for (name, verifier, client) in &rows {
        assert_one_thing_wrong(name, verifier, client, &Method::GET, ORDERS);
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong_with_every_request() {
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let verifier = verifier(&issuer);
    for (method, url) in [
        ("POST", AUDIENCE),
        ("QUERY", "https://api.example.com:443/a/%7Eb/"),
    ] {
        let sent: Method = method.parse().unwrap();
        assert_one_thing_wrong(method, &verifier, &client, &sent, url);
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong_under_every_public_url() {
    let issuer = issuer();
    for url in [
        "https://example.com/prefix",
        "https://[::1]:8443",
        "http://127.0.0.1:80",
        "http://localhost:8443/a/b",
    ] {
        let public_url = url.parse().unwrap();
        let verifier = Verifier::new(
            ProofRules::new(public_url).with_clock(issuer.clock().read()),
            issuer.jwt_verifier(),
        );
        let client = TestClient::new(&issuer);
        for defect in client.request(Method::GET, url).defects() {
            let mut good = client.request(Method::GET, &format!("{url}/orders"));
            good.uri = "/orders".into(); // what a proxy sends that strips the prefix
            let rejected = verify(&verifier, &good.clone().with_defect(defect));
            assert_eq!(rejected, Err(defect.rejection()), "{url}: {defect}");
            assert_eq!(verify(&verifier, &good), Ok(()), "{url}, without: {defect}");
        }
    }
}

/// A key for the algorithm. RSA keys are slow to generate, so there is only one.
fn key_for(algorithm: Algorithm) -> SigningKey {
    if algorithm.name().starts_with(['P', 'R']) {
        Key::rsa(algorithm.name())
    } else {
        SigningKey::generate_for(algorithm).unwrap()
    }
}

#[test]
fn each_defect_is_the_only_thing_wrong_with_every_algorithm() {
    let every_algorithm: Algorithms =
        "ES256 ES384 ES512 Ed25519 EdDSA PS256 PS384 PS512 RS256 RS384 RS512"
            .parse()
            .unwrap();
    let issuer = issuer();
    let verifier = verifier_by(&issuer, |rules| rules.with_algorithms(every_algorithm));
    for algorithm in every_algorithm.iter() {
        let client = TestClient::new(&issuer).with_key(key_for(algorithm));
        assert_one_thing_wrong(algorithm.name(), &verifier, &client, &Method::GET, ORDERS);
    }
}

/// RSASSA-PSS signatures are random: `ath` must be the hash of the token that is sent.
#[test]
fn each_defect_is_the_only_thing_wrong_with_other_keys_of_the_issuer() {
    for algorithm in [Algorithm::Ps256, Algorithm::Ed25519] {
        let issuer = issuer().with_key("1", key_for(algorithm));
        let client = TestClient::new(&issuer);
        let verifier = verifier(&issuer);
        assert_one_thing_wrong(algorithm.name(), &verifier, &client, &Method::GET, ORDERS);
    }
}

#[test]
fn with_defect_panics_if_the_request_cannot_have_the_defect() {
    let client = TestClient::new(&issuer());
    let resource = client.request(Method::GET, ORDERS);
    let rows = [
        ("no nonce is known", resource.clone(), Defect::NoNonce),
        (
            "a nonce, but not its secret",
            client.clone().with_nonce("n").request(Method::GET, ORDERS),
            Defect::StaleNonce,
        ),
        (
            "no access token",
            client.token_request("https://as.example.com/token"),
            Defect::OtherTokensHash,
        ),
        (
            "a token of another issuer",
            client.with_token("opaque").request(Method::GET, ORDERS),
            Defect::TokenExpired,
        ),
    ];
    for (name, request, defect) in rows {
        let result = catch_unwind(AssertUnwindSafe(|| request.with_defect(defect)));
        assert!(result.is_err(), "{name}");
    }
}
