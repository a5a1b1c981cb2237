//! Responses of the gateway itself.

use bytes::Bytes;
use http::{Response, StatusCode};
use pingora::http::ResponseHeader;
use pingora::prelude::Session;

/// Sends a response that the policy has made.
pub(crate) async fn send(session: &mut Session, response: Response<String>) -> pingora::Result<()> {
    let (head, body) = response.into_parts();
    let mut header = ResponseHeader::build(head.status, Some(head.headers.len() + 1))?;
    for (name, value) in &head.headers {
        header.append_header(name, value)?;
    }
    header.insert_header("content-length", body.len())?;
    session
        .write_response_header(Box::new(header), body.is_empty())
        .await?;
    if !body.is_empty() {
        session
            .write_response_body(Some(Bytes::from(body)), true)
            .await?;
    }
    Ok(())
}

pub(crate) fn bad_request() -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
