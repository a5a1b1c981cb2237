//! Questions over gRPC: `envoy.service.auth.v3.Authorization`, the external authorization of Envoy.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::post_service;
use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse, DeniedHttpResponse,
    HeaderAppendAction, HeaderValue, HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::pb::google::rpc;
use http::header::{CONTENT_LENGTH, HeaderName, VARY};
use http::{HeaderMap, Response, StatusCode, Version};
use tonic::{Code, Status};

use super::{Asked, bare, end, for_response, http_question, unwanted};
use crate::config::ForwardAuth;
use crate::operations::Record;
use crate::policy::{Decision, Passed, Policy, Question};

/// Only this method is served over gRPC. The status of a gRPC error is 200, so a proxy that asks over HTTP by mistake would pass
/// its request on.
pub(super) fn router(asked: Asked) -> Router {
    let check = post_service(AuthorizationServer::new(asked.clone()));
    Router::new()
        .route("/envoy.service.auth.v3.Authorization/Check", check)
        .fallback(http_question::ask)
        .with_state(asked)
}

#[tonic::async_trait]
impl Authorization for Asked {
    /// Never an error: Envoy may be configured to let requests pass if this service fails.
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|ConnectInfo(peer)| *peer);
        let response = decide(self, peer, request.into_inner()).await;
        Ok(tonic::Response::new(response))
    }
}

async fn decide(asked: &Asked, peer: Option<SocketAddr>, request: CheckRequest) -> CheckResponse {
    let generation = asked.generation();
    let Some(settings) = generation.forward_auth(asked.number) else {
        return denied(bare(StatusCode::SERVICE_UNAVAILABLE));
    };
    let attributes = request.attributes.and_then(|all| all.request);
    let Some(question) = attributes.and_then(|all| all.http).and_then(described) else {
        return denied(bare(StatusCode::BAD_REQUEST));
    };
    let policy = generation.policy_for(settings);
    let sent = question.headers.clone();
    let mut record = Record::start("forward_auth");
    let decision = record.decide(policy, question).await;
    end(
        &mut record,
        &generation,
        peer,
        Version::HTTP_2,
        decision.status(),
    );
    match decision {
        Decision::Pass(passed) => passing(settings, &passed, policy, &sent),
        Decision::Respond(response) => denied(response),
    }
}

/// The client's request, as Envoy describes it. `None` if it cannot be a request.
fn described(http: HttpRequest) -> Option<Question> {
    // With `encode_raw_headers`, each field by itself. Otherwise Envoy has joined the fields of one name with commas, which
    // are in no token and in no proof: a second one makes the first malformed.
    let fields: Vec<(String, Vec<u8>)> = match http.header_map {
        Some(map) => map
            .headers
            .into_iter()
            .map(
                |HeaderValue {
                     key,
                     value,
                     raw_value,
                 }| {
                    let value = if raw_value.is_empty() {
                        value.into_bytes()
                    } else {
                        raw_value
                    };
                    (key, value)
                },
            )
            .collect(),
        None => http
            .headers
            .into_iter()
            .map(|(key, value)| (key, value.into_bytes()))
            .collect(),
    };
    let mut headers = HeaderMap::new();
    // `:path` and others are attributes, too.
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
        let name: HeaderName = name.parse().ok()?;
        let value = http::HeaderValue::from_bytes(value).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(Question {
        method: http.method.parse().ok()?,
        uri: http_question::origin_form(&http.path)?,
        // The version matters only for a URI with an authority, which this one never has.
        version: Version::HTTP_11,
        headers,
    })
}

fn passing(
    asked: &ForwardAuth,
    passed: &Passed,
    policy: &Policy,
    sent: &HeaderMap,
) -> CheckResponse {
    let unwanted = unwanted(asked, passed, policy, sent);
    #[allow(deprecated, reason = "`dynamic_metadata` has no default of its own")]
    let response = OkHttpResponse {
        headers: changes(&passed.identity),
        headers_to_remove: unwanted.iter().map(ToString::to_string).collect(),
        response_headers_to_add: changes(&for_response(passed)),
        ..OkHttpResponse::default()
    };
    CheckResponse {
        status: Some(rpc_status(Code::Ok)),
        http_response: Some(HttpResponse::OkResponse(response)),
        ..CheckResponse::default()
    }
}

/// Envoy sends this response to the client, whatever its status is.
fn denied(response: Response<String>) -> CheckResponse {
    let (head, body) = response.into_parts();
    let code = match head.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        _ => Code::PermissionDenied,
    };
    CheckResponse {
        status: Some(rpc_status(code)),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus {
                code: head.status.as_u16().into(),
            }),
            headers: whole(head.headers),
            body,
        })),
        ..CheckResponse::default()
    }
}

/// For an existing request or response: replaces the fields of the same names, except `Vary`, to which it adds.
fn changes(fields: &HeaderMap) -> Vec<HeaderValueOption> {
    options(fields, |name, index| index > 0 || name == VARY)
}

/// For a response that Envoy makes. Envoy uses only fields with the action to overwrite, and then keeps all of one name. It sets
/// the length itself.
fn whole(mut fields: HeaderMap) -> Vec<HeaderValueOption> {
    fields.remove(CONTENT_LENGTH);
    options(&fields, |_, _| false)
}

fn options(
    fields: &HeaderMap,
    append: impl Fn(&HeaderName, usize) -> bool,
) -> Vec<HeaderValueOption> {
    let mut options = Vec::new();
    for name in fields.keys() {
        for (index, value) in fields.get_all(name).iter().enumerate() {
            options.push(option(name, value, append(name, index)));
        }
    }
    options
}

fn option(name: &HeaderName, value: &http::HeaderValue, append: bool) -> HeaderValueOption {
    let action = if append {
        HeaderAppendAction::AppendIfExistsOrAdd
    } else {
        HeaderAppendAction::OverwriteIfExistsOrAdd
    };
    #[allow(
        deprecated,
        reason = "releases of Envoy that do not know `append_action` read `append`"
    )]
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_string(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            raw_value: Vec::new(),
        }),
        append: Some(BoolValue { value: append }),
        append_action: action.into(),
        keep_empty_value: true,
    }
}

fn rpc_status(code: Code) -> rpc::Status {
    rpc::Status {
        code: code.into(),
        ..rpc::Status::default()
    }
}
