//! Routes, and what they require.

use http::Method;

use crate::config::checks::paths;
use crate::config::document::{Access, Document, Route};
use crate::config::names::suggestion;
use crate::config::report::Report;

pub(super) fn check(document: &Document, report: &mut Report) {
    if document.route.is_empty() {
        let problem =
            "without a [[route]], all requests would get 404: add one, such as path = \"/\"";
        report.error("route", problem);
    }
    for (number, route) in document.route.iter().enumerate() {
        let at = |member: &str| format!("route[{number}].{member}");
        if let Some(problem) = paths::problem(&route.path) {
            report.error(at("path"), format!("{:?}: {problem}", route.path));
        }
        for method in &route.methods {
            if let Some(problem) = method_problem(method) {
                report.error(at("methods"), format!("{method:?}: {problem}"));
            }
        }
        upstream(document, route, &at("upstream"), report);
        requirements(route, &at, report);
        if let Some(prefix) = &route.strip_prefix
            && let Some(problem) = prefix_problem(prefix, &route.path)
        {
            report.error(at("strip_prefix"), format!("{prefix:?}: {problem}"));
        }
        if route.pass_preflights && document.cors.is_some() {
            let problem = "must not be set together with [cors], which responds to preflights itself: remove one of them";
            report.error(at("pass_preflights"), problem);
        }
        let mut earlier = document.route[..number].iter();
        if let Some(other) = earlier.position(|other| are_same(other, route)) {
            let line = report.line_of(&format!("route[{other}].path"));
            let problem = format!(
                "{:?}: the route on line {line} has this path and method",
                route.path
            );
            report.error(at("path"), problem);
        }
    }
}

fn upstream(document: &Document, route: &Route, setting: &str, report: &mut Report) {
    let known = || document.upstream.keys().map(String::as_str);
    match &route.upstream {
        None if document.listener.is_empty() => {}
        None => {
            let problem = "must be set, because a [[listener]] passes requests on: expected the name of an [upstream.NAME]";
            report.error(setting, problem);
        }
        Some(name) if !document.upstream.contains_key(name) => {
            let problem = format!(
                "there is no [upstream.{name}], {}",
                suggestion(name, known())
            );
            report.error(setting, problem);
        }
        Some(_) => {}
    }
}

/// What no token could satisfy, and what a public route cannot require.
fn requirements(route: &Route, at: &impl Fn(&str) -> String, report: &mut Report) {
    if route.max_age_seconds == Some(0) {
        let problem = "must be at least 1 second: no token would be accepted";
        report.error(at("max_age_seconds"), problem);
    }
    if route.access != Access::Public {
        return;
    }
    for (member, is_set) in [
        ("scopes", route.scopes.is_some()),
        ("any_scope", route.any_scope.is_some()),
        ("acr_values", route.acr_values.is_some()),
        ("max_age_seconds", route.max_age_seconds.is_some()),
        ("pass_preflights", route.pass_preflights),
    ] {
        if is_set {
            let problem = "has no effect with access = \"public\", where no token is looked at: remove one of them";
            report.error(at(member), problem);
        }
    }
}

pub(super) fn method_problem(method: &str) -> Option<String> {
    let upper = method.to_ascii_uppercase();
    match method.parse::<Method>() {
        Err(_) => Some("is not a method, expected one such as GET".to_owned()),
        Ok(_) if method == "*" => Some("is not a method: list them".to_owned()),
        Ok(Method::CONNECT) => Some("requests with this method are never passed on".to_owned()),
        Ok(_) if upper == method => None,
        // Methods are case-sensitive: no client sends `get`.
        Ok(_) => Some(format!("did you mean {upper}?")),
    }
}

fn prefix_problem(prefix: &str, path: &str) -> Option<String> {
    if let Some(problem) = paths::problem(prefix) {
        return Some(problem);
    }
    let bare = prefix.trim_end_matches('/');
    if bare.is_empty() {
        return Some("removes nothing: remove the setting".to_owned());
    }
    match path.strip_prefix(bare) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => None,
        _ => Some(format!(
            "must be the beginning of the route's path {path:?}, up to a / or its end"
        )),
    }
}

fn are_same(one: &Route, other: &Route) -> bool {
    let bare = |route: &Route| route.path.trim_end_matches('/').to_owned();
    let share_a_method = match (one.methods.as_slice(), other.methods.as_slice()) {
        ([], []) => true,
        // The one with methods is preferred.
        ([], _) | (_, []) => false,
        (methods, others) => methods.iter().any(|method| others.contains(method)),
    };
    bare(one) == bare(other) && one.exact == other.exact && share_a_method
}
