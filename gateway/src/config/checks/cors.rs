//! Which pages of other origins may send requests.

use http::{HeaderName, Uri};

use crate::config::checks::routes::method_problem;
use crate::config::document::Document;
use crate::config::report::Report;

pub(super) fn check(document: &Document, report: &mut Report) {
    let Some(cors) = &document.cors else {
        return;
    };
    if cors.allow_origins.is_empty() {
        let problem = "must have at least one origin, such as \"https://app.example.com\"";
        report.error("cors.allow_origins", problem);
    }
    if cors.allow_methods.is_empty() {
        let problem = "must have at least one method, such as \"GET\"";
        report.error("cors.allow_methods", problem);
    }
    let any_origin = cors.allow_origins == ["*"];
    let origins = cors.allow_origins.iter().enumerate();
    for (number, origin) in origins.filter(|_| !any_origin) {
        if let Some(problem) = origin_problem(origin) {
            let setting = format!("cors.allow_origins[{number}]");
            report.error(setting, format!("{origin:?}: {problem}"));
        }
    }
    for (number, method) in cors.allow_methods.iter().enumerate() {
        if let Some(problem) = method_problem(method) {
            let setting = format!("cors.allow_methods[{number}]");
            report.error(setting, format!("{method:?}: {problem}"));
        }
    }
    for (member, names) in [
        ("allow_headers", &cors.allow_headers),
        ("expose_headers", &cors.expose_headers),
    ] {
        for (number, name) in names.iter().enumerate() {
            let setting = format!("cors.{member}[{number}]");
            if name == "*" {
                report.error(setting, "\"*\": list the header fields");
            } else if name.parse::<HeaderName>().is_err() {
                report.error(
                    setting,
                    format!("{name:?}: is not the name of a header field"),
                );
            }
        }
    }
}

/// Browsers send the origin in one form, which is compared character by character.
fn origin_problem(origin: &str) -> Option<&'static str> {
    match origin {
        "*" => return Some("is every origin, so it must be the only one"),
        "null" => {
            return Some("is the origin of any page in a sandbox: list the origins of your pages");
        }
        _ => {}
    }
    let uri: Option<Uri> = origin.parse().ok();
    let parts = uri
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
    let Some((scheme, authority)) = parts else {
        return Some("expected scheme://host[:port]");
    };
    if origin.contains('@') || *origin != format!("{scheme}://{authority}") {
        return Some("expected scheme://host[:port], without a path and without a / at the end");
    }
    if origin.contains(|c: char| c.is_ascii_uppercase()) {
        return Some("must be in lower case, as browsers send it");
    }
    match (scheme, authority.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) => {
            Some("must not have the port, which browsers leave out because it is the default")
        }
        _ => None,
    }
}
