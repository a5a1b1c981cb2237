//! What a response says: whether the token is active.

use http::StatusCode;

use crate::issuer::http::HttpResponse;
use crate::jose::json::{InvalidJson, object, read};
use crate::time::Timestamp;
use crate::tokens::introspection::failure::{Failure, is_unsupported_token_type};
use crate::tokens::introspection::signed_responses::SignedResponses;

/// The maximum length of a response, in bytes.
pub(crate) const MAX_RESPONSE: usize = 64 * 1024;

object! {
    /// The only member that every response must have (RFC 7662 section 2.2).
    struct Activity<'de> {
        active: bool = "active",
    }
}

/// Returns the members of the response if the token is active.
pub(crate) async fn read_response(
    HttpResponse { status, body, .. }: HttpResponse,
    signed: Option<&SignedResponses>,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Failure> {
    match status {
        StatusCode::OK => {}
        // Not in RFC 7662, but some servers respond this way to a token of a kind that they do not
        // introspect: a made-up JWT, for example. No error is ever signed.
        StatusCode::BAD_REQUEST if is_unsupported_token_type(&body) => return Ok(None),
        status => return Err(Failure::Status(status)),
    }
    let members = match signed {
        Some(signed) => signed.open(&body, now).await?,
        None => body,
    };
    let activity: Activity<'_> = read(&members).map_err(|InvalidJson| Failure::Malformed)?;
    let active = activity.active.ok_or(Failure::Malformed)?;
    Ok(active.then_some(members))
}
