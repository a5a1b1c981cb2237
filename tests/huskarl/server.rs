//! Our client at huskarl's resource server, and what that server accepts.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{Method, Request};
use tower_dpop::client::DpopClient;
use tower_dpop::testing::{Defect, TestClient, TestClock, TestIssuer, TestRequest};

use crate::servers::{
    AUDIENCE, Nonces, Replays, document, http, huskarl_resource_server, our_authorization_server,
    outcome,
};

const ISSUER: &str = "https://as.example.com";

/// Tokens of our authorization server.
#[tokio::test]
async fn accepts_our_client() {
    for nonces in [Nonces::None, Nonces::Required] {
        let issuer = our_authorization_server(nonces).await;
        let api = huskarl_resource_server(
            &issuer,
            &format!("{issuer}/jwks"),
            nonces,
            Replays::Detected,
        )
        .await;
        let client = DpopClient::builder()
            .with_issuer(issuer.parse().unwrap())
            .with_client_secret("service", "service-secret")
            .add_server(api.parse().unwrap())
            .build()
            .await
            .unwrap();
        for round in 1..=3 {
            let response = client.get(format!("{api}/orders?page=1")).send().await;
            let response = response.unwrap().error_for_status().unwrap();
            assert_eq!(
                response.text().await.unwrap(),
                "the orders",
                "{nonces:?} {round}"
            );
        }
    }
}

/// Defects that huskarl's server accepts and ours rejects. The list does not judge which is right: it shows what
/// changes with a new version.
const ACCEPTED: [Defect; 3] = [
    // Limits of length are rules of ours, not of the standard.
    Defect::TokenTooLong,
    Defect::ProofTooLong,
    // Accepted once.
    Defect::EmptyJti,
];

/// The same without detection of replays, which is huskarl's default. RFC 9449 section 4.3 requires the claim `jti`.
const ACCEPTED_BY_DEFAULT: [Defect; 4] = [
    Defect::TokenTooLong,
    Defect::ProofTooLong,
    Defect::NoJti,
    Defect::EmptyJti,
];

/// Requests of our kit with one defect each. The request before and the request after each of them pass.
#[tokio::test]
async fn rejects_what_we_reject() {
    for (nonces, replays, expected) in [
        (Nonces::None, Replays::Detected, ACCEPTED.as_slice()),
        (Nonces::Required, Replays::Detected, &ACCEPTED),
        (Nonces::None, Replays::Default, &ACCEPTED_BY_DEFAULT),
    ] {
        let name = format!("nonces {nonces:?}, replays {replays:?}");
        let (client, api) = kit(nonces, replays).await;
        let request = request_to(&client, &api);
        let mut accepted = Vec::new();
        for defect in request.defects() {
            assert_eq!(
                sent(&request.again()).await,
                "200",
                "{name}: before {defect}"
            );
            let outcome = sent(&request.again().with_defect(defect)).await;
            println!("{name}: {defect:?}: {outcome}");
            if outcome == "200" {
                accepted.push(defect);
            } else {
                assert!(outcome.starts_with("40"), "{name}: {defect}: {outcome}");
            }
            assert_eq!(
                sent(&request.again()).await,
                "200",
                "{name}: after {defect}"
            );
        }
        assert_eq!(accepted, expected, "{name}");
    }
}

/// A request of our kit that another party sends again.
#[tokio::test]
async fn rejects_our_requests_in_other_hands() {
    for nonces in [Nonces::None, Nonces::Required] {
        let (client, api) = kit(nonces, Replays::Detected).await;
        let request = request_to(&client, &api);
        let token = request.token();
        let proof = request.proof(&token);
        let send = async |scheme: &str| {
            let request = http().get(format!("{api}/orders"));
            let request = request.header("authorization", format!("{scheme} {token}"));
            outcome(request.header("dpop", &proof).send().await.unwrap()).await
        };
        assert_eq!(send("DPoP").await, "200", "{nonces:?}");
        assert_eq!(
            send("DPoP").await,
            "401 invalid_dpop_proof",
            "{nonces:?}: a replay"
        );
        let bearer = send("Bearer").await;
        assert!(bearer.starts_with("401"), "{nonces:?}: Bearer: {bearer}");
    }
}

/// A client of the kit, with a nonce if one is required, and the URL of huskarl's server, which accepts its tokens.
async fn kit(nonces: Nonces, replays: Replays) -> (TestClient, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let issuer = TestIssuer::new(ISSUER, AUDIENCE).with_clock(TestClock::at(now.as_secs()));
    let jwks = document(issuer.jwks()).await;
    let api = huskarl_resource_server(ISSUER, &jwks, nonces, replays).await;
    let client = TestClient::new(&issuer);
    let nonce = demanded_nonce(&request_to(&client, &api)).await;
    assert_eq!(nonce.is_some(), nonces == Nonces::Required);
    let client = match nonce {
        Some(nonce) => client.with_nonce(nonce),
        None => client,
    };
    (client, api)
}

fn request_to(client: &TestClient, api: &str) -> TestRequest {
    let request = client.request(Method::GET, &format!("{api}/orders"));
    request.sent_to(api)
}

async fn demanded_nonce(request: &TestRequest) -> Option<String> {
    let response = http().execute(request_of(request)).await.unwrap();
    let nonce = response.headers().get("dpop-nonce")?;
    Some(nonce.to_str().unwrap().to_owned())
}

async fn sent(request: &TestRequest) -> String {
    outcome(http().execute(request_of(request)).await.unwrap()).await
}

fn request_of(request: &TestRequest) -> reqwest::Request {
    let request: Request<String> = request.build();
    request.try_into().unwrap()
}
