//! The next nonce in responses of the inner service.

use std::convert::Infallible;
use std::sync::Arc;

use common::{Attempt, AttemptExt as _, NOW, TestClock, block_on, verifier_by};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::{DpopLayer, NonceSecret, Rejection, StatelessNonces, Verifier};

use super::{ServiceError, layer};

/// A layer that requires nonces, and a nonce that it issued. In the second period of this nonce, it sends the
/// next one.
struct NonceServer {
    layer: DpopLayer,
    verifier: Arc<Verifier>,
    clock: TestClock,
    /// Issued at [`NOW`].
    nonce: String,
}

/// The start of the nonce period after the one of [`NOW`].
const NEXT_PERIOD: u64 = NOW - NOW % 120 + 120;

impl NonceServer {
    fn new() -> Self {
        let clock = TestClock::at(NOW);
        let nonces = StatelessNonces::new(NonceSecret::from_bytes(&[7; 32]).unwrap());
        let verifier = verifier_by(|rules| rules.with_nonces(nonces).with_clock(clock.read()));
        let verifier = Arc::new(verifier);
        let nonce = nonce_text(&verifier.issue_nonce().unwrap());
        Self {
            layer: DpopLayer::new(Arc::clone(&verifier)),
            verifier,
            clock,
            nonce,
        }
    }

    fn attempt(&self, now: u64) -> Attempt {
        self.clock.set(now);
        Attempt::but(|a| {
            a.proof_claims["iat"] = json!(now);
            a.proof_claims["nonce"] = json!(self.nonce);
        })
    }

    fn response_to(
        &self,
        attempt: &Attempt,
        inner: fn(StatusCode) -> Response<String>,
        status: u16,
    ) -> Response<String> {
        let status = StatusCode::from_u16(status).unwrap();
        let service = self.layer.layer(service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(inner(status))
        }));
        block_on(service.oneshot(attempt.request())).unwrap()
    }
}

fn nonce_text(nonce: &tower_dpop::proof::Nonce) -> String {
    let mut headers = HeaderMap::new();
    nonce.write_to(&mut headers);
    headers["dpop-nonce"].to_str().unwrap().to_owned()
}

#[derive(Clone, Debug, PartialEq)]
struct Marker;

/// A response of the service with its own nonces and its own cache policy.
fn inner_response(status: StatusCode) -> Response<String> {
    Response::builder()
        .status(status)
        .version(Version::HTTP_2)
        .header("cache-control", "public")
        .header("cache-control", "max-age=60")
        .header("dpop-nonce", "inner-1")
        .header("dpop-nonce", "inner-2")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("www-authenticate", "Basic")
        .extension(Marker)
        .body("served".to_owned())
        .unwrap()
}

#[test]
fn only_a_successful_response_has_the_next_nonce() {
    let server = NonceServer::new();
    server.clock.set(NEXT_PERIOD);
    let next = nonce_text(&server.verifier.issue_nonce().unwrap());
    assert_ne!(next, server.nonce);
    for (name, status, is_success) in [
        ("R-8.2.2: OK", 200, true),
        ("R-8.2.2: Created", 201, true),
        ("R-8.2.2: No Content", 204, true),
        ("R-8.2.2: the last 2xx status", 299, true),
        ("R-8.2.2: Switching Protocols", 101, true),
        ("R-8.2.2: Continue", 100, false),
        ("R-8.2.2: Processing", 102, false),
        ("R-8.2.2: Multiple Choices", 300, false),
        ("R-8.2.2: Not Modified", 304, false),
        ("R-8.2.2: Bad Request", 400, false),
        ("R-8.2.2: Unauthorized by the service", 401, false),
        ("R-8.2.2: Internal Server Error", 500, false),
    ] {
        let response = server.response_to(&server.attempt(NEXT_PERIOD), inner_response, status);
        let untouched = inner_response(StatusCode::from_u16(status).unwrap());
        let mut expected = untouched.headers().clone();
        if is_success {
            // T-23, X-3: one nonce and `no-store` replace those of the service.
            expected.insert("dpop-nonce", next.parse().unwrap());
            expected.insert("cache-control", HeaderValue::from_static("no-store"));
        }
        assert_eq!(response.headers(), &expected, "{name}");
        assert_eq!(response.status(), untouched.status(), "{name}");
        assert_eq!(response.version(), untouched.version(), "{name}");
        assert_eq!(response.body(), untouched.body(), "{name}");
        assert_eq!(response.extensions().get(), Some(&Marker), "{name}");
        assert_eq!(response.extensions().get::<Rejection>(), None, "{name}");
    }
}

#[test]
fn does_not_change_the_response_in_the_first_period_of_the_nonce_or_without_nonces() {
    let server = NonceServer::new();
    for (name, now) in [
        ("T-23: just issued", NOW),
        ("T-23: the last second of its first period", NEXT_PERIOD - 1),
    ] {
        let response = server.response_to(&server.attempt(now), inner_response, 200);
        let untouched = inner_response(StatusCode::OK);
        assert_eq!(response.headers(), untouched.headers(), "{name}");
    }

    let service = layer().layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(inner_response(StatusCode::OK))
    }));
    let response = block_on(service.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.headers(), inner_response(StatusCode::OK).headers());
    assert_eq!(response.extensions().get(), Some(&Marker));
}

#[test]
fn an_error_of_the_service_passes_through_without_the_next_nonce() {
    let server = NonceServer::new();
    let service = server.layer.layer(service_fn(async |_: Request<String>| {
        Err::<Response<()>, _>(ServiceError)
    }));
    let attempt = server.attempt(NEXT_PERIOD);
    assert_eq!(
        block_on(service.oneshot(attempt.request())).unwrap_err(),
        ServiceError
    );
}
