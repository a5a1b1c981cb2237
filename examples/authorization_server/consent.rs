//! The page that asks the user for consent.

use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use sha2::{Digest, Sha256};

const STYLE: &str = "\
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 30rem; margin: 12vh auto; padding: 0 1rem }
h1 { font-size: 1.5rem; line-height: 1.2 }
button { font: inherit; padding: .5rem 1.5rem; margin: .5rem .5rem 0 0 }
";

/// `ticket` names the authorization request that is waiting for the decision. It is known to this page
/// only, so another site cannot decide for the user.
pub(crate) fn page(client_id: &str, scope: &str, ticket: &str) -> Response {
    let [client_id, scope, ticket] = [client_id, scope, ticket].map(escaped);
    let page = format!(
        "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Authorization server</title>
<link rel=\"icon\" href=\"data:,\">
<style>{STYLE}</style>
<h1>Allow access?</h1>
<p>You are logged in as <b>alice</b>. The application <b>{client_id}</b> requests access to your data:
<b>{scope}</b>.</p>
<form method=\"post\" action=\"/consent\">
<input type=\"hidden\" name=\"ticket\" value=\"{ticket}\">
<button name=\"decision\" value=\"allow\">Allow</button>
<button name=\"decision\" value=\"deny\">Deny</button>
</form>
</html>
"
    );
    // No frame may show it, so that a click is meant for it. There is no `form-action`: browsers apply it to the
    // redirect back to the application, too.
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy.as_str()),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(page)).into_response()
}

/// As text or as the value of an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
