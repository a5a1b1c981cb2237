//! Tests one route with all defects, with valid requests, and with a replay.

use http::{Request, Response};

use crate::proof::checks::ProofError;
use crate::resource::rejection::Rejection;
use crate::testing::request::TestRequest;
use crate::testing::response::TestResponse;

/// Asserts that a route is protected: the request is accepted, the same request again is rejected as a
/// replay, each of its [`defects`](TestRequest::defects) is rejected for exactly its reason, and at the
/// end a new request is accepted.
///
/// `send` sends a request to the service, in this process or over the wire, and adds anything else
/// that the request needs (a body, cookies, fields). The route's handler is called twice.
///
/// Leave out the defects that your service, by its configuration, does not reject
/// ([`TestRequest::without_defects`]): [`TooOld`] and [`FromTheFuture`] if the nonce replaces `iat`
/// ([`Freshness::fapi2`]), [`TokenWithoutSubject`] if the claims type is not [`Claims`] and has no `sub`,
/// [`TokenTooLong`] if a server in front rejects such a field itself. If your service accepts bearer
/// tokens, use a client [that expects this](crate::testing::TestClient::with_bearer_allowed).
///
/// [`TooOld`]: crate::testing::Defect::TooOld
/// [`FromTheFuture`]: crate::testing::Defect::FromTheFuture
/// [`Freshness::fapi2`]: crate::proof::freshness::Freshness::fapi2
/// [`TokenWithoutSubject`]: crate::testing::Defect::TokenWithoutSubject
/// [`Claims`]: crate::tokens::claims::Claims
/// [`TokenTooLong`]: crate::testing::Defect::TokenTooLong
///
/// # Example
///
/// ```
/// use axum::{Router, body::Body, extract::Request};
/// use http::Method;
/// use tower::ServiceExt as _;
/// use tower_dpop::testing::{TestClient, assert_protected};
///
/// # async fn example(app: Router, client: TestClient) {
/// let request = client.request(Method::GET, "https://api.example.com/orders");
/// assert_protected(&request, async |request: Request<Body>| {
///     app.clone().oneshot(request).await.unwrap()
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
///
/// Panics if a response is not the expected one. The message begins with the name of the defect.
pub async fn assert_protected<B: Default, D>(
    request: &TestRequest,
    send: impl AsyncFn(Request<B>) -> Response<D>,
) {
    let ask = async |request: &TestRequest| TestResponse::of(&send(request.build()).await);

    let good = request.again();
    ask(&good).await.assert_passed("a good request");
    ask(&good)
        .await
        .assert_reason("the same request again", ProofError::Replayed);
    for defect in request.defects() {
        ask(&request.again().with_defect(defect))
            .await
            .assert_reason(defect.name(), request.rejection_of(defect));
    }
    ask(&request.again())
        .await
        .assert_passed("a good request after the others");
}

/// Like [`assert_protected`], for a token endpoint or one for pushed authorization requests, with a
/// request of [`TestClient::token_request`](crate::testing::TestClient::token_request). `send` returns
/// responses with their JSON bodies.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower_dpop::testing::{TestClient, assert_token_endpoint_protected};
///
/// # async fn example(client: TestClient, send: impl AsyncFn(Request<String>) -> Response<String>) {
/// let request = client.token_request("https://as.example.com/token");
/// assert_token_endpoint_protected(&request, async |request: Request<String>| {
///     send(request.map(|_| "grant_type=client_credentials".to_owned())).await
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
///
/// Panics if a response is not the expected one. The message begins with the name of the defect.
pub async fn assert_token_endpoint_protected<B: Default, D: AsRef<[u8]>>(
    request: &TestRequest,
    send: impl AsyncFn(Request<B>) -> Response<D>,
) {
    let ask = async |request: &TestRequest| send(request.build()).await;

    let good = request.again();
    TestResponse::of(&ask(&good).await).assert_passed("a good request");
    let replayed = ask(&good).await;
    TestResponse::of(&replayed).assert_token_request_reason(
        "the same request again",
        replayed.body(),
        ProofError::Replayed,
    );
    for defect in request.defects() {
        let rejected = ask(&request.again().with_defect(defect)).await;
        let (response, name) = (TestResponse::of(&rejected), defect.name());
        let body = rejected.body();
        match request.rejection_of(defect) {
            Rejection::Proof(reason) => response.assert_token_request_reason(name, body, reason),
            Rejection::Nonce(reason) => response.assert_token_request_reason(name, body, reason),
            reason => unreachable!("{name}: a proof alone is never rejected for {reason:?}"),
        }
    }
    TestResponse::of(&ask(&request.again()).await).assert_passed("a good request after the others");
}
