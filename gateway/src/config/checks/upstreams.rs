//! Services and their servers.

use std::net::IpAddr;

use http::Uri;
use http::uri::PathAndQuery;
use rustls::pki_types::ServerName;

use crate::config::checks::DAY;
use crate::config::document::{Document, HealthCheck, Protocol, Upstream};
use crate::config::report::Report;

pub(super) fn check(document: &Document, report: &mut Report) {
    for (name, upstream) in &document.upstream {
        let at = |member: &str| format!("upstream.{name}.{member}");
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if !name.chars().all(is_word) || name.is_empty() {
            let problem = format!(
                "{name:?}: names have letters, digits, - and _, because logs and metrics show them"
            );
            report.error("upstream", problem);
        }
        let mut routes = document.route.iter();
        if document.listener.is_empty() {
            let problem =
                "is not used without a [[listener]]: forward authentication passes nothing on";
            report.warning(format!("upstream.{name}"), problem);
        } else if !routes.any(|route| route.upstream.as_ref() == Some(name)) {
            report.warning(format!("upstream.{name}"), "no route uses it");
        }
        servers(upstream, &at, report);
        for (member, seconds) in [
            ("connect_timeout_seconds", upstream.connect_timeout_seconds),
            ("read_timeout_seconds", upstream.read_timeout_seconds),
            ("write_timeout_seconds", upstream.write_timeout_seconds),
            ("idle_timeout_seconds", upstream.idle_timeout_seconds),
        ] {
            if !(1..=DAY).contains(&seconds) {
                report.error(at(member), format!("must be 1 to {DAY} seconds"));
            }
        }
        if let Some(check) = &upstream.health_check {
            health_check(check, &at, report);
        }
    }
}

fn servers(upstream: &Upstream, at: &impl Fn(&str) -> String, report: &mut Report) {
    if upstream.servers.is_empty() {
        let problem = "must have at least one URL, such as \"http://127.0.0.1:3000\"";
        report.error(at("servers"), problem);
        return;
    }
    let mut parsed: Vec<Server> = Vec::new();
    for (number, text) in upstream.servers.iter().enumerate() {
        let setting = at(&format!("servers[{number}]"));
        match Server::parse(text) {
            // A password must not get into the logs.
            Err(problem) if text.contains('@') => report.error(setting, problem),
            Err(problem) => report.error(setting, format!("{text:?}: {problem}")),
            Ok(server) if parsed.contains(&server) => {
                report.error(setting, format!("{text:?} is listed twice"));
            }
            Ok(server) => {
                let name = upstream.server_name.as_deref().unwrap_or(&server.host);
                if server.is_tls && !is_verified(name) && upstream.server_name.is_none() {
                    let problem =
                        format!("{text:?}: no certificate has this name: set server_name");
                    report.error(setting.as_str(), problem);
                }
                if parsed
                    .first()
                    .is_some_and(|first| first.is_tls != server.is_tls)
                {
                    let problem =
                        format!("{text:?}: all servers of an upstream must have the same scheme");
                    report.error(setting, problem);
                }
                parsed.push(server);
            }
        }
    }
    let Some(first) = parsed.first() else {
        return;
    };
    if first.is_tls {
        name(upstream, at, report);
        return;
    }
    for (member, is_set) in [
        ("roots_file", upstream.roots_file.is_some()),
        ("client_certificate", upstream.client_certificate.is_some()),
        ("server_name", upstream.server_name.is_some()),
    ] {
        if is_set {
            let problem =
                "has no effect, because the servers are http: make them https, or remove it";
            report.error(at(member), problem);
        }
    }
    if upstream.protocol == Protocol::Negotiated {
        let problem = "is always HTTP/1.1 here, because the servers are http: choose \"http1\" or \"http2\", or make them https";
        report.warning(at("protocol"), problem);
    }
}

/// The name that certificates are checked for, if it is not that of the URL.
fn name(upstream: &Upstream, at: &impl Fn(&str) -> String, report: &mut Report) {
    if let Some(name) = &upstream.server_name
        && !is_verified(name)
    {
        let problem =
            format!("{name:?}: expected the DNS name or IP address that the certificate has");
        report.error(at("server_name"), problem);
    }
}

/// pingora looks for another name if this one has an underscore.
fn is_verified(name: &str) -> bool {
    !name.contains('_') && ServerName::try_from(name).is_ok()
}

fn health_check(check: &HealthCheck, at: &impl Fn(&str) -> String, report: &mut Report) {
    if let Some(path) = &check.path {
        let is_visible = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let is_target = path.starts_with('/') && is_visible && path.parse::<PathAndQuery>().is_ok();
        if !is_target {
            let problem = format!("{path:?}: must begin with /, as in the request line");
            report.error(at("health_check.path"), problem);
        }
    }
    if !(1..=DAY).contains(&check.interval_seconds) {
        let problem = format!("must be 1 to {DAY} seconds");
        report.error(at("health_check.interval_seconds"), problem);
    }
}

/// A server of an upstream.
#[derive(PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) is_tls: bool,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected http://host[:port] or https://host[:port]";
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(EXPECTED);
        };
        if authority.as_str().contains('@') {
            return Err("must have no user and no password");
        }
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(EXPECTED),
        };
        let port = authority.port_u16();
        let host = authority.host();
        let is_whole = match port {
            Some(port) => authority.as_str() == format!("{host}:{port}"),
            None => authority.as_str() == host,
        };
        if !is_whole || port == Some(0) || host.is_empty() {
            return Err(EXPECTED);
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(
                "must have a host and a port only: paths are of the requests (see strip_prefix)",
            );
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if host.starts_with('[') && bare.parse::<IpAddr>().is_err() {
            return Err(EXPECTED);
        }
        Ok(Self {
            is_tls,
            host: bare.to_ascii_lowercase(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
        })
    }

    /// `host:port`.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// What its `Host` is: without the port that is the default one.
    pub(crate) fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => self.bracketed(),
            _ => self.name(),
        }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }
}
