//! A thief, who has the token and one request of the client, but not its key. The test kit makes the
//! requests and knows the expected response to each.

use std::time::SystemTime;

use http::{Method, Request, Response};
use tower_dpop::Rejection;
use tower_dpop::client::AccessTokenText;
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::resource::{BindingError, CredentialsError};
use tower_dpop::testing::{Defect, TestClient, TestClock, TestIssuer, TestRequest, TestResponse};

use crate::jwt::claims;
use crate::recorder::{Expected, Recorder, Result};
use crate::servers;
use crate::story::{Party, RejectedDefect, Route};

const TO_API: Route = Route(Party::Thief, Party::ResourceServer);

pub(crate) async fn attack(
    recorder: &mut Recorder,
    api: &str,
    key: &SigningKey,
    token: &AccessTokenText,
    overheard: Request<String>,
) -> Result<()> {
    recorder.chapter("A thief has read that request");
    let proof = overheard.headers()["dpop"].to_str()?;
    // A client with its own key, the stolen token and the nonce.
    let clock = TestClock::from(SystemTime::now());
    let thief = TestClient::without_issuer(clock)
        .with_token(token.as_str())
        .with_nonce(claims(proof)["nonce"].as_str().unwrap_or_default());
    let request = |client: &TestClient, url: &str| client.request(Method::GET, url).sent_to(api);
    let url = format!("{api}/orders");

    recorder.step("The thief sends the token as a bearer token.");
    let mut bearer = request(&thief, &url).with_defect(Defect::BearerScheme);
    bearer.dpop = Some(Vec::new());
    let (about, reason) = ("token as Bearer", CredentialsError::Bearer);
    rejected(recorder, about, bearer.build(), reason).await?;

    recorder.step("The thief signs a proof with its own key, which is not the key in cnf.jkt.");
    let own_key = request(&thief, &url).build();
    let (about, reason) = ("token, proof by another key", BindingError::OtherKey);
    rejected(recorder, about, own_key, reason).await?;

    recorder.step("The thief sends the client's request once more. A proof is valid once (jti).");
    let (about, reason) = ("the request once more", ProofError::Replayed);
    rejected(recorder, about, overheard, reason).await?;

    recorder.step("The thief has a new proof of the client, but for another server (htu).");
    let elsewhere = "http://elsewhere.example:8080/orders";
    let elsewhere = request(&thief.with_key(key.clone()), elsewhere).build();
    let reason = ProofError::Url(UrlMismatch::Host);
    rejected(recorder, "proof for another URL", elsewhere, reason).await
}

async fn rejected(
    recorder: &mut Recorder,
    about: &'static str,
    request: Request<String>,
    reason: impl Into<Rejection>,
) -> Result<()> {
    let reason = reason.into();
    let error = reason.error_code().unwrap_or("no error");
    let response = recorder
        .send(TO_API, about, request, Expected(401, error))
        .await?;
    TestResponse::of(&response).assert_reason("the thief's request", reason);
    assert_eq!(response.body(), "", "nothing of the resource");
    Ok(())
}

/// A request for each check, with a defect that only this check finds. Some are in tokens, which only
/// an issuer can sign, so here the issuer is the test kit's.
pub(crate) async fn try_every_defect(recorder: &mut Recorder) -> Result<()> {
    let mut issuer = None;
    let (api, rules) = servers::start_for_test_kit(|api| {
        let clock = TestClock::from(SystemTime::now());
        let issuer =
            issuer.insert(TestIssuer::new("https://issuer.example", api).with_clock(clock));
        issuer.jwt_verifier()
    })
    .await?;
    let client = TestClient::new(&issuer.ok_or("no issuer")?).with_nonces_of(&rules);
    let url = format!("{api}/orders");
    let good = client.request(Method::GET, &url).sent_to(&api);

    send(recorder, &good)
        .await?
        .assert_passed("the request without a defect");
    for defect in good.defects() {
        let response = send(recorder, &good.again().with_defect(defect)).await?;
        response.assert_reason(defect.name(), good.rejection_of(defect));
        let parameter = |name| response.parameter(name).unwrap_or("none").to_owned();
        recorder.story.rejections.push(RejectedDefect {
            defect: defect.name(),
            status: response.status.as_u16(),
            error: parameter("error"),
            description: parameter("error_description"),
        });
    }
    assert_eq!(recorder.story.rejections.len(), Defect::ALL.len());
    Ok(())
}

async fn send(recorder: &Recorder, request: &TestRequest) -> Result<TestResponse> {
    let (head, _) = recorder.http.request(request.build()).await?.into_parts();
    Ok(TestResponse::of(&Response::from_parts(head, ())))
}
