//! What the response to a rejected request says, and what to look at.

use std::path::Path;
use std::time::SystemTime;

use http::header::DATE;
use reqwest::Response;
use tower_dpop::Timestamp;
use tower_dpop::client::Challenge;

use crate::terminal::shown;

/// The status, the error of the challenge, and a hint, for standard error.
pub(crate) fn describe(response: &Response, saved: Option<&Path>) -> String {
    let mut lines = vec![format!("dpop: status {}", response.status())];
    let challenges = Challenge::from_headers(response.headers());
    let dpop = challenges
        .iter()
        .find(|challenge| challenge.is_scheme("DPoP"));
    let challenge = dpop.or(challenges.first());
    let parameter = |name| challenge.and_then(|challenge| challenge.parameter(name));
    let error = parameter("error");
    for part in [error, parameter("error_description")]
        .into_iter()
        .flatten()
    {
        lines[0].push_str(": ");
        lines[0].push_str(&shown(part));
    }
    if let Some(scope) = parameter("scope") {
        lines.push(format!("scope: {}", shown(scope)));
    }
    let status = response.status().as_u16();
    lines.extend(hint(error, dpop.is_some(), status).map(ToOwned::to_owned));
    if matches!(error, Some("invalid_dpop_proof" | "invalid_token")) {
        lines.push(explained(saved, time_of(response)));
    }
    lines.join("\n")
}

/// When the server received the request: a proof is valid for a minute or two.
fn time_of(response: &Response) -> Timestamp {
    let date = response.headers().get(DATE);
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    date.unwrap_or_else(SystemTime::now).into()
}

/// How the user sees each check.
fn explained(saved: Option<&Path>, time: Timestamp) -> String {
    let Some(path) = saved else {
        return "each check: add --save-request FILE, then `dpop explain --request FILE`"
            .to_owned();
    };
    let (path, at) = (path.display().to_string(), time.as_unix());
    format!(
        "each check: `dpop explain --request {} --at {at}`",
        shown(&path)
    )
}

fn hint(error: Option<&str>, offers_dpop: bool, status: u16) -> Option<&'static str> {
    Some(match (error, status) {
        (Some("use_dpop_nonce"), _) => {
            "the server demanded a nonce again: do several nodes serve this URL, each with nonces of its own?"
        }
        (Some("invalid_dpop_proof"), _) => {
            "is this URL in the configuration of the server, and is the clock right? the log of the server has the reason"
        }
        (Some("invalid_token"), _) => {
            "is the token for this server (aud), unexpired, and bound to this key (cnf.jkt)?"
        }
        (Some("insufficient_scope"), _) => "the token lacks a scope: ask for it with --scope",
        (Some("insufficient_user_authentication"), _) => {
            "the route requires a user who logged in recently or more strongly"
        }
        (_, 401) if !offers_dpop => "the server does not offer DPoP here: it has no DPoP challenge",
        (_, 429) => "too many requests: wait for the time in Retry-After",
        (_, 503) => "the server could not decide: its log has the reason",
        _ => return None,
    })
}
