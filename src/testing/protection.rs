//! The whole table against one route: what passes, what does not, and nothing twice.

use http::{Request, Response};

use crate::proof::checks::ProofError;
use crate::resource::rejection::Rejection;
use crate::testing::answer::Answer;
use crate::testing::request::TestRequest;

/// Holds a route of a service to all of its checks: the request passes, the same request again is
/// a replay, each of its [`defects`](TestRequest::defects) is refused for exactly its reason, and
/// in the end a new request passes as the first one did.
///
/// The service is reached by `send`, in this process or over the wire; whatever else a request
/// needs (a body, cookies, fields) is for `send` to add. The route's handler is called twice.
///
/// What your service does not refuse by its configuration is to be left out
/// ([`TestRequest::without_defects`]): [`TooOld`] and [`FromTheFuture`] where the nonce stands in for
/// `iat` ([`Freshness::fapi2`]), [`TokenWithoutSubject`] where the claims are of another type than
/// [`Claims`], [`TokenTooLong`] where a server in front refuses such a field itself. A service that
/// takes bearer tokens is held to refusing bound ones by a client [that knows of
/// it](crate::testing::TestClient::with_bearer_allowed).
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
/// An answer is not the one expected; the message begins with the name of the defect.
pub async fn assert_protected<B: Default, D>(
    request: &TestRequest,
    send: impl AsyncFn(Request<B>) -> Response<D>,
) {
    let ask = async |request: &TestRequest| Answer::of(&send(request.build()).await);

    let good = request.anew();
    ask(&good).await.assert_passed("a good request");
    ask(&good)
        .await
        .assert_reason("the same request again", ProofError::Replayed);
    for defect in request.defects() {
        ask(&request.anew().with_defect(defect))
            .await
            .assert_reason(defect.name(), request.rejection_of(defect));
    }
    ask(&request.anew())
        .await
        .assert_passed("a good request after the others");
}

/// The same for a token endpoint, or an endpoint of pushed authorization requests, and a request of
/// [`TestClient::token_request`](crate::testing::TestClient::token_request). The service's answers
/// are JSON, so `send` returns them with their bodies.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower_dpop::testing::{TestClient, assert_token_endpoint_protected};
///
/// # async fn example(client: TestClient, answer: impl AsyncFn(Request<String>) -> Response<String>) {
/// let request = client.token_request("https://as.example.com/token");
/// assert_token_endpoint_protected(&request, async |request: Request<String>| {
///     answer(request.map(|_| "grant_type=client_credentials".to_owned())).await
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
///
/// An answer is not the one expected; the message begins with the name of the defect.
pub async fn assert_token_endpoint_protected<B: Default, D: AsRef<[u8]>>(
    request: &TestRequest,
    send: impl AsyncFn(Request<B>) -> Response<D>,
) {
    let ask = async |request: &TestRequest| send(request.build()).await;

    let good = request.anew();
    Answer::of(&ask(&good).await).assert_passed("a good request");
    let replayed = ask(&good).await;
    Answer::of(&replayed).assert_token_request_reason(
        "the same request again",
        replayed.body(),
        ProofError::Replayed,
    );
    for defect in request.defects() {
        let refused = ask(&request.anew().with_defect(defect)).await;
        let (answer, name) = (Answer::of(&refused), defect.name());
        let body = refused.body();
        match request.rejection_of(defect) {
            Rejection::Proof(reason) => answer.assert_token_request_reason(name, body, reason),
            Rejection::Nonce(reason) => answer.assert_token_request_reason(name, body, reason),
            reason => unreachable!("{name}: a proof alone is never refused for {reason:?}"),
        }
    }
    Answer::of(&ask(&request.anew()).await).assert_passed("a good request after the others");
}
