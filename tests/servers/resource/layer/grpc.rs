//! `DpopLayer` around gRPC services (tonic), in process and over the loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::{Attempt, AttemptExt as _, Outcome, block_on, field, verifier, verifier_by};
use http::{Method, Response, StatusCode, Uri};
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::BoxStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::Layer as _;
use tower::util::MapResponse;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::resource::CredentialsError;
use tower_dpop::{BoundToken, Claims, DpopLayer, MemoryReplayStore, Rejection};

const CHECK: &str = "https://api.example.com/grpc.health.v1.Health/Check";
const WATCH: &str = "https://api.example.com/grpc.health.v1.Health/Watch";

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

/// A good attempt for a call of this method.
fn call_of(htu: &str) -> Attempt {
    Attempt::but(|a| {
        a.method = Method::POST;
        a.proof_claims["htm"] = json!("POST");
        a.proof_claims["htu"] = json!(htu);
    })
}

/// The message of a call, with the attempt's credentials as its metadata.
fn message(attempt: &Attempt) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest {
        service: String::new(),
    });
    for (name, value) in attempt.request().headers() {
        let value = value.to_str().unwrap().parse().unwrap();
        match name.as_str() {
            "authorization" => request.metadata_mut().append("authorization", value),
            "dpop" => request.metadata_mut().append("dpop", value),
            name => panic!("{name} is not a credential"),
        };
    }
    request
}

/// Calls that are rejected, each a good one with one change.
fn rejected_calls() -> Vec<(&'static str, Attempt, Rejection)> {
    let but = |change: fn(&mut Attempt)| {
        let mut attempt = call_of(CHECK);
        change(&mut attempt);
        attempt
    };
    vec![
        (
            "R-7.1: no credentials",
            but(|a| {
                a.authorization = Some(vec![]);
                a.dpop = Some(vec![]);
            }),
            CredentialsError::Missing.into(),
        ),
        (
            "R-7.1.2: no proof",
            but(|a| a.dpop = Some(vec![])),
            ProofError::Missing.into(),
        ),
        (
            "R-4.1: a proof without a token",
            but(|a| a.authorization = Some(vec![])),
            CredentialsError::Missing.into(),
        ),
        (
            "F-10: the token as a bearer token",
            but(|a| {
                let token = a.token();
                a.authorization = Some(vec![field(format!("Bearer {token}").as_bytes())]);
            }),
            CredentialsError::Bearer.into(),
        ),
        (
            "R-4.3.8: a GET proof for a gRPC call, which is a POST",
            but(|a| a.proof_claims["htm"] = json!("GET")),
            ProofError::Method.into(),
        ),
        (
            "R-4.3.9: a proof for another call",
            but(|a| a.proof_claims["htu"] = json!(WATCH)),
            ProofError::Url(UrlMismatch::Path).into(),
        ),
    ]
}

/// The heads of the responses to a client, with statuses and fields that tonic does not expose.
type Heads = Arc<Mutex<Vec<Outcome>>>;

/// Records the heads of a client's responses.
fn recording<S>(
    service: S,
    heads: &Heads,
) -> MapResponse<S, impl FnOnce(Response<Body>) -> Response<Body> + Clone + use<S>> {
    let heads = Arc::clone(heads);
    MapResponse::new(service, move |response| {
        heads.lock().unwrap().push(Outcome::of(&response));
        response
    })
}

#[track_caller]
fn assert_rejected(name: &str, result: Result<tonic::Response<HealthCheckResponse>, Status>) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status}");
}

#[test]
fn a_call_in_process_needs_a_valid_proof() {
    block_on(async {
        let (reporter, server) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", ServingStatus::Serving)
            .await;
        let protected = layer().layer(server);
        // H-18: without an authority, and with one that differs from the public URL.
        for origin in ["http://orders.internal:50051", "/"] {
            let heads = Heads::default();
            let mut client = HealthClient::with_origin(
                recording(protected.clone(), &heads),
                Uri::from_static(origin),
            );
            let attempt = call_of(CHECK);
            let response = client.check(message(&attempt)).await.unwrap();
            assert_eq!(response.into_inner().status, ServingStatus::Serving as i32);
            assert_rejected("R-11.1.3: a replay", client.check(message(&attempt)).await);
            let outcome = heads.lock().unwrap().pop().unwrap();
            outcome.assert_reason("R-11.1.3: a replay", ProofError::Replayed);

            for (name, attempt, reason) in rejected_calls() {
                assert_rejected(name, client.check(message(&attempt)).await);
                let outcome = heads.lock().unwrap().pop().unwrap();
                outcome.assert_reason(name, reason);
            }
        }
    });
}

/// Responds with the subject of the token.
struct SubjectService;

#[tonic::async_trait]
impl Health for SubjectService {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let token: &BoundToken<Claims> = request.extensions().get().expect("set by the layer");
        let subject = token.claims().subject().unwrap().parse().unwrap();
        let mut response = tonic::Response::new(HealthCheckResponse::default());
        response.metadata_mut().insert("x-subject", subject);
        Ok(response)
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not implemented in this test"))
    }
}

/// A server on the loopback with one layer around all of its services.
fn serve<H: Health>(service: HealthServer<H>) -> SocketAddr {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = Server::builder()
        .layer(layer())
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    address
}

async fn channel_to(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

#[test]
fn a_call_over_the_loopback_needs_a_valid_proof() {
    block_on(async {
        let (reporter, server) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", ServingStatus::Serving)
            .await;
        let address = serve(server);
        let heads = Heads::default();
        let origin = format!("http://{address}").parse().unwrap();
        let channel = recording(channel_to(address).await, &heads);
        let mut client = HealthClient::with_origin(channel, origin);

        for _ in 0..2 {
            let response = client.check(message(&call_of(CHECK))).await.unwrap();
            assert_eq!(response.into_inner().status, ServingStatus::Serving as i32);
            let outcome = heads.lock().unwrap().pop().unwrap();
            assert_eq!(outcome.challenges, [""; 0]);
        }
        for (name, attempt, reason) in rejected_calls() {
            assert_rejected(name, client.check(message(&attempt)).await);
            let outcome = heads.lock().unwrap().pop().unwrap();
            assert_eq!(outcome.status, StatusCode::UNAUTHORIZED, "{name}");
            assert_eq!(outcome.challenges.len(), 1, "{name}");
            assert!(outcome.challenges[0].starts_with("DPoP "), "{name}");
            let error = outcome.parameter("error");
            assert_eq!(error.as_deref(), reason.error_code(), "{name}");
            assert!(outcome.parameter("algs").is_some(), "{name}");
            let description = outcome.parameter("error_description");
            let expected = reason.error_code().map(|_| reason.to_string());
            assert_eq!(description, expected, "{name}");
        }
        let response = client.check(message(&call_of(CHECK))).await;
        assert!(response.is_ok(), "the connection stays usable");
    });
}

#[test]
fn rejects_a_proof_for_the_authority_of_the_connection() {
    block_on(async {
        let (_, server) = tonic_health::server::health_reporter();
        let address = serve(server);
        let mut client = HealthClient::new(channel_to(address).await);
        for (name, origin) in [
            ("H-18: :authority", format!("http://{address}")),
            ("H-18: :authority, over https", format!("https://{address}")),
        ] {
            let attempt = call_of(&format!("{origin}/grpc.health.v1.Health/Check"));
            assert_rejected(name, client.check(message(&attempt)).await);
        }
        let response = client.check(message(&call_of(CHECK))).await;
        assert!(response.is_ok(), "H-18: the public URL");
    });
}

#[test]
fn a_stream_is_verified_when_it_is_opened() {
    block_on(async {
        let (reporter, server) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", ServingStatus::Serving)
            .await;
        let mut client = HealthClient::new(channel_to(serve(server)).await);
        let response = client.watch(message(&call_of(WATCH))).await.unwrap();
        let mut stream = response.into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.status, ServingStatus::Serving as i32);
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        let second = stream.message().await.unwrap().unwrap();
        assert_eq!(second.status, ServingStatus::NotServing as i32);

        let result = client.watch(message(&call_of(CHECK))).await;
        let status = match result {
            Ok(response) => response.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::Unauthenticated, "R-4.3.9: {status}");
    });
}

#[test]
fn the_service_finds_the_token_in_the_extensions() {
    block_on(async {
        let address = serve(HealthServer::new(SubjectService));
        let mut client = HealthClient::new(channel_to(address).await);
        let response = client.check(message(&call_of(CHECK))).await.unwrap();
        assert_eq!(response.metadata().get("x-subject").unwrap(), "alice");
        assert_rejected(
            "no credentials",
            client
                .check(Request::new(HealthCheckRequest::default()))
                .await,
        );
    });
}

#[test]
fn a_server_error_has_the_code_unavailable() {
    block_on(async {
        let full = MemoryReplayStore::with_limit(0);
        let layer = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(full)));
        let (_, server) = tonic_health::server::health_reporter();
        let mut client = HealthClient::new(layer.layer(server));
        let status = client.check(message(&call_of(CHECK))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "T-18: {status}");
    });
}
