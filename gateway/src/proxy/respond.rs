//! Responses of the gateway itself.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{Method, Response, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::Session;
use tokio::time::timeout;

use crate::proxy::request::content_length;

/// How much of a rejected request's body is read, and for how long: as in the layers of `tower_dpop`.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Sends a response of the gateway instead of one from a service.
///
/// A client in the middle of an upload would not see the response if the connection were closed with unread data, so the rest of
/// the body is read first. If a part remains, pingora closes the connection, and announces this (`Connection: close`).
pub(crate) async fn send(session: &mut Session, response: Response<String>) -> pingora::Result<()> {
    discard_body(session).await;
    let (mut head, mut body) = response.into_parts();
    if is_grpc(session.req_header()) {
        // Its clients would read JSON as a message. Without a body, they take the status for that of the call.
        head.headers.remove(CONTENT_TYPE);
        body.clear();
    }
    let mut header = ResponseHeader::build(head.status, Some(head.headers.len() + 1))?;
    for (name, value) in &head.headers {
        header.append_header(name, value)?;
    }
    if head.status != StatusCode::NO_CONTENT {
        header.insert_header(CONTENT_LENGTH, body.len())?;
    }
    let without_body = body.is_empty() || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(header), without_body)
        .await?;
    if !without_body {
        session
            .write_response_body(Some(Bytes::from(body)), true)
            .await?;
    }
    Ok(())
}

fn is_grpc(request: &RequestHeader) -> bool {
    let content_type = request.headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

async fn discard_body(session: &mut Session) {
    // A stream of HTTP/2 ends without its connection. A client that waits for an interim response sends no body.
    if session.is_http2() || session.req_header().headers.contains_key(EXPECT) {
        return;
    }
    let announced = content_length(session.req_header());
    if announced.is_some_and(|length| length > MAX_DISCARDED) {
        return;
    }
    let read = async {
        let mut discarded = 0;
        while let Ok(Some(part)) = session.downstream_session.read_request_body().await {
            discarded += part.len();
            if discarded > MAX_DISCARDED {
                break;
            }
        }
    };
    let _ = timeout(DISCARD_TIME, read).await;
}
