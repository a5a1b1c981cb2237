//! Where the gateway listens, and who may ask there.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::checks::{DAY, paths};
use crate::config::document::{AskedBy, Document};
use crate::config::report::Report;

pub(super) fn check(document: &Document, report: &mut Report) {
    if document.listener.is_empty() && document.forward_auth.is_empty() {
        let problem = "nothing is served: add a [[listener]] for the reverse proxy, or a [[forward_auth]] for another proxy";
        report.error("", problem);
    }
    distinct(document, report);
    for (number, listener) in document.listener.iter().enumerate() {
        let setting = format!("listener[{number}].trusted_proxies");
        let consequence = "every client can set its own X-Forwarded-* fields";
        everyone(&listener.trusted_proxies, &setting, consequence, report);
        if !(1..=DAY).contains(&listener.client_timeout_seconds) {
            let setting = format!("listener[{number}].client_timeout_seconds");
            report.error(setting, format!("must be 1 to {DAY} seconds"));
        }
    }
    for (number, forward_auth) in document.forward_auth.iter().enumerate() {
        let at = |member: &str| format!("forward_auth[{number}].{member}");
        if forward_auth.from.is_empty() {
            let problem =
                "no one could ask: name the networks of the proxies, such as [\"10.0.0.0/8\"]";
            report.error(at("from"), problem);
        }
        let consequence = "anyone who reaches the address can ask";
        everyone(&forward_auth.from, &at("from"), consequence, report);
        let Some(prefix) = &forward_auth.path_prefix else {
            continue;
        };
        if forward_auth.asked_by != AskedBy::EnvoyHttp {
            let problem = "only asked_by = \"envoy-http\" has a prefix: remove it";
            report.error(at("path_prefix"), problem);
        } else if let Some(problem) = paths::problem(prefix) {
            report.error(at("path_prefix"), format!("{prefix:?}: {problem}"));
        }
    }
}

fn everyone(networks: &[IpNet], setting: &str, consequence: &str, report: &mut Report) {
    if let Some(all) = networks.iter().find(|network| network.prefix_len() == 0) {
        report.warning(setting, format!("{all} is every address: {consequence}"));
    }
}

/// No two sockets at one address.
fn distinct(document: &Document, report: &mut Report) {
    let listeners = document.listener.iter().enumerate();
    let listeners = listeners.map(|(number, one)| (format!("listener[{number}]"), one.address));
    let asked = document.forward_auth.iter().enumerate();
    let asked = asked.map(|(number, one)| (format!("forward_auth[{number}]"), one.address));
    let operations = document.operations.address;
    let operations = operations.map(|address| ("operations".to_owned(), address));
    let all: Vec<_> = listeners.chain(asked).chain(operations).collect();
    for (number, (name, address)) in all.iter().enumerate() {
        let mut earlier = all[..number].iter();
        if let Some((other, taken)) = earlier.find(|(_, taken)| overlap(*taken, *address)) {
            let problem = format!("{address} is taken by {taken} of {other}");
            report.error(format!("{name}.address"), problem);
        }
    }
}

/// Whether the second one could not be bound after the first.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // Any free port is another one each time.
    if one.port() != other.port() || one.port() == 0 {
        return false;
    }
    let takes = |one: IpAddr, other: IpAddr| {
        one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4())
    };
    takes(one.ip(), other.ip()) || takes(other.ip(), one.ip())
}
