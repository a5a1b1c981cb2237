//! Decisions as HTTP responses: the proxy passes the request on if the status is 200.

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};

use super::{bare, for_response, unwanted};
use crate::config::{AskedBy, ForwardAuth};
use crate::policy::{Decision, Passed, Policy};

/// Envoy removes the fields that this one names from the client's request.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// `sent`: the header fields of the client's request that the proxy has passed on.
pub(super) fn of(
    asked: &ForwardAuth,
    decision: Decision,
    policy: &Policy,
    sent: &HeaderMap,
) -> Response<String> {
    match decision {
        Decision::Pass(passed) => passing(asked, passed, policy, sent),
        Decision::Respond(response) => rejection(asked.asked_by, response),
    }
}

/// 200, with the identity fields for the service, and the fields that the proxy may add to the service's response.
fn passing(
    asked: &ForwardAuth,
    passed: Passed,
    policy: &Policy,
    sent: &HeaderMap,
) -> Response<String> {
    let mut response = Response::new(String::new());
    // Envoy removes nothing by itself. nginx, Traefik and Caddy set or remove each field that their configuration names.
    if asked.asked_by == AskedBy::EnvoyHttp {
        let names = unwanted(asked, &passed, policy, sent);
        let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
        let names = HeaderValue::try_from(names.join(",")).expect("names are visible ASCII");
        response.headers_mut().insert(TO_REMOVE, names);
    }
    response.headers_mut().extend(for_response(&passed));
    response.headers_mut().extend(passed.identity);
    response
}

pub(super) fn rejection(asked_by: AskedBy, mut response: Response<String>) -> Response<String> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        // A response to a preflight. Over HTTP a proxy cannot be told to send it: it would pass the request on instead.
        response = bare(StatusCode::FORBIDDEN);
    } else if matches!(asked_by, AskedBy::IngressNginx | AskedBy::Nginx) {
        *response.status_mut() = for_nginx(status, response.headers());
        join_challenges(response.headers_mut());
    }
    // A response to HEAD has the length of a body that it does not have, and here the question need not be a HEAD.
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// nginx sends 401 (with the challenges) and 403 to the client, and 500 instead of any other status.
fn for_nginx(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    if status.is_server_error() {
        status
    } else if headers.contains_key(WWW_AUTHENTICATE) && status != StatusCode::FORBIDDEN {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::FORBIDDEN
    }
}

/// Of several fields with this name, nginx before 1.23 sends only one. One field may have all challenges (RFC 9110 section
/// 11.6.1).
fn join_challenges(headers: &mut HeaderMap) {
    let challenges: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().collect();
    if challenges.len() < 2 {
        return;
    }
    let challenges: Vec<_> = challenges.iter().map(|one| one.as_bytes()).collect();
    let joined = HeaderValue::from_bytes(&challenges.join(&b", "[..]));
    headers.insert(WWW_AUTHENTICATE, joined.expect("of values of fields"));
}
