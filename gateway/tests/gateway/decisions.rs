//! Which requests reach the service.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::testing::{Defect, TestRequest, TestResponse};
use tower_dpop::{Freshness, NonceSecret, ProofRules, StatelessNonces, Verifier};

use crate::support::{Gateway, PUBLIC_URL, Parties, Service, Started};

/// The response, as the kit reads it.
pub async fn response(gateway: &Started, request: &TestRequest) -> TestResponse {
    TestResponse::of(&http::Response::from(gateway.send(request).await))
}

fn route(access: &str) -> String {
    format!("[[route]]\npath = \"/\"\nupstream = \"service\"\naccess = \"{access}\"\n")
}

const SUBJECT: &str = "[[identity]]\nclaim = \"sub\"\nfield = \"X-Auth-Subject\"\n";

/// All defects of the kit, and a good request, which passes once.
async fn assert_defects_are_rejected(gateway: &Started, service: &Service, good: &TestRequest) {
    for defect in good.defects() {
        let response = response(gateway, &good.again().with_defect(defect)).await;
        response.assert_reason(defect.name(), good.rejection_of(defect));
    }
    assert_eq!(service.received().len(), 0);
    response(gateway, good).await.assert_passed("good");
    let replayed = response(gateway, good).await;
    replayed.assert_reason("again", ProofError::Replayed);
    let [(head, _)] = &service.received()[..] else {
        panic!("expected one request");
    };
    assert!(head.headers.contains_key("x-auth-subject"));
    assert!(!head.headers.contains_key("authorization"));
    assert!(!head.headers.contains_key("dpop"));
}

#[tokio::test]
async fn each_defect_is_rejected_where_only_dpop_is_accepted() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = service.behind(&format!("{}{SUBJECT}", route("dpop")));
    let gateway = Gateway::new(&parties, &config).start();
    let good = parties.request(Method::GET, "/orders");
    // All that do not need nonces.
    assert_eq!(good.defects().count(), Defect::ALL.len() - 4);
    assert_defects_are_rejected(&gateway, &service, &good).await;
}

#[tokio::test]
async fn each_defect_is_rejected_where_bearer_is_accepted_too() {
    for access in ["allow-bearer", "insecure-unchecked-cnf"] {
        let (mut parties, service) = (Parties::new(), Service::start().await);
        parties.client = parties.client.with_bearer_allowed();
        let config = service.behind(&format!("{}{SUBJECT}", route(access)));
        let gateway = Gateway::new(&parties, &config).start();
        let good = parties.request(Method::GET, "/orders");
        assert_defects_are_rejected(&gateway, &service, &good).await;

        let bearer = parties.request(Method::GET, "/orders").as_bearer();
        for time in ["bearer", "bearer again"] {
            response(&gateway, &bearer).await.assert_passed(time);
        }
    }
}

/// The gateway and the test have the same secret, and nonces are not bound to the records of the gateway's process.
#[tokio::test]
async fn each_defect_is_rejected_where_nonces_are_required() {
    let secret: String = "0123456789abcdef".repeat(4);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nonces");
    std::fs::write(&file, &secret).unwrap();
    let secret: NonceSecret = secret.parse().unwrap();
    let rules = ProofRules::new(PUBLIC_URL.parse().unwrap())
        .with_freshness(Freshness::default().with_nonce_period(PERIOD))
        .with_nonces(StatelessNonces::new(secret))
        .with_insecure_one_use_per_node();
    let (mut parties, service) = (Parties::new(), Service::start().await);
    let dpop = format!(
        "nonces = {{ file = {file:?} }}\ninsecure_one_use_per_node = true\nfreshness.nonce_period_seconds = 86400"
    );
    let config = service.behind(&format!("{}{SUBJECT}", route("dpop")));
    let gateway = Gateway::with_dpop(&parties, &dpop, &config).start();

    let without = parties.request(Method::GET, "/orders");
    let demand = gateway.send(&without).await;
    assert_eq!(demand.headers()["cache-control"], "no-store");
    assert_eq!(demand.headers()["content-type"], "application/problem+json");
    let demand = TestResponse::of(&http::Response::from(demand));
    demand.assert_reason("no nonce", NonceError::Missing);
    let nonce = demand.nonces[0].clone();

    let mut good = without.again();
    good.proof_claims["nonce"] = nonce.into();
    let accepted = response(&gateway, &good).await;
    accepted.assert_passed("with the nonce");
    // The next nonce comes near the end of this one's lifetime.
    assert_eq!(accepted.nonces, [""; 0]);
    assert_eq!(accepted.cache_control, None);
    let earlier = rules.clone().with_clock(|| SystemTime::now() - PERIOD);
    let earlier = Verifier::new(earlier, parties.issuer.jwt_verifier()).issue_nonce();
    let mut late = without.again();
    late.proof_claims["nonce"] = earlier.unwrap().as_str().into();
    let accepted = response(&gateway, &late).await;
    accepted.assert_passed("with a nonce near its end");
    assert_eq!(accepted.nonces.len(), 1);
    assert_eq!(accepted.cache_control.as_deref(), Some("no-store"));
    late.proof_claims["jti"] = "another".into();
    service.respond_with(StatusCode::NOT_FOUND, HeaderMap::new());
    let failed = response(&gateway, &late).await;
    assert_eq!(
        (failed.status, failed.nonces.len()),
        (StatusCode::NOT_FOUND, 0)
    );
    assert_eq!(failed.cache_control, None);

    let received = service.received().len();
    parties.client = parties.client.with_nonces_of(&rules);
    let good = parties.request(Method::GET, "/orders");
    assert_eq!(good.defects().count(), Defect::ALL.len());
    for defect in good.defects() {
        let response = response(&gateway, &good.again().with_defect(defect)).await;
        response.assert_reason(defect.name(), good.rejection_of(defect));
    }
    assert_eq!(service.received().len(), received);
}

/// Of nonces: each is accepted in the period of its issue and in the next. So long that none ends during the test.
const PERIOD: Duration = Duration::from_secs(86400);

#[tokio::test]
async fn on_a_public_route_no_token_is_looked_at() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let config = service.behind(&format!("{}{SUBJECT}", route("public")));
    let gateway = Gateway::new(&parties, &config).start();
    let good = parties.request(Method::GET, "/orders");
    let mut requests = vec![good.clone(), good.clone()];
    requests.extend(
        good.defects()
            .map(|defect| good.again().with_defect(defect)),
    );
    for request in &mut requests {
        let claimed = HeaderValue::from_static("admin");
        request.extra_headers.push(("x_auth.subject", claimed));
        response(&gateway, request).await.assert_passed("public");
    }
    let received = service.received();
    assert_eq!(received.len(), requests.len());
    let fields = |name: &str| received[0].0.headers.get_all(name).iter().count();
    // They may be for the service.
    assert_eq!((fields("authorization"), fields("dpop")), (1, 1));
    for (head, _) in &received {
        let claimed = head
            .headers
            .keys()
            .any(|name| name.as_str().contains("subject"));
        assert!(!claimed, "{:?}", head.headers);
    }
}

/// The version of HTTP decides whether the authority is one that the request names itself.
#[tokio::test]
async fn over_http2_a_request_passes_and_a_replay_does_not() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(&route("dpop"))).start();
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let (head, ()) = parties
        .request(Method::GET, "/orders")
        .build::<()>()
        .into_parts();
    for expected in [200, 401] {
        let url = format!("{}/orders", gateway.url("proxy"));
        let sent = client.get(url).headers(head.headers.clone()).send().await;
        let response = sent.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(response.status(), expected);
    }
}
