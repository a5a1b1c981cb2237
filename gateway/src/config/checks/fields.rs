//! The header fields in which services learn of the client.

use http::HeaderName;

use crate::config::document::Document;
use crate::config::report::Report;

/// Fields that say where a message ends and who sent it, that are of one connection, or that the gateway sets itself.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "cookie",
    "date",
    "dpop",
    "dpop-nonce",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
];

/// The same, by how they begin.
const RESERVED_PREFIXES: &[&str] = &[
    "access-control-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "x-forwarded-",
];

pub(super) fn check(document: &Document, report: &mut Report) {
    let mut known: Vec<(String, &str)> = Vec::new();
    for (number, identity) in document.identity.iter().enumerate() {
        let setting = format!("identity[{number}].field");
        let field = identity.field.as_str();
        if field.parse::<HeaderName>().is_err() {
            report.error(
                setting,
                format!("{field:?}: is not the name of a header field"),
            );
            continue;
        }
        let folded = folded(field);
        let is_reserved = RESERVED.iter().any(|name| self::folded(name) == folded)
            || RESERVED_PREFIXES
                .iter()
                .any(|name| folded.starts_with(&self::folded(name)));
        if is_reserved {
            let problem = format!(
                "{field:?}: must be a name that has no other meaning, such as X-Auth-Subject"
            );
            report.error(setting, problem);
        } else if let Some((_, other)) = known.iter().find(|(known, _)| *known == folded) {
            let problem = if other.eq_ignore_ascii_case(field) {
                format!("{field:?}: is set twice")
            } else {
                format!("{field:?}: services that turn names into variables take it for {other:?}")
            };
            report.error(setting, problem);
        }
        known.push((folded, field));
    }
}

/// As CGI, WSGI, PHP and others turn names into variables.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}
