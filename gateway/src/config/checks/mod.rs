//! What the settings mean together. Files and names are not looked at here.

mod paths;
mod addresses;
mod upstreams;
mod routes;
mod fields;
mod cors;

pub(crate) use upstreams::Server;

use crate::config::document::Document;
use crate::config::report::Report;

const DAY: u64 = 24 * 60 * 60;
const MAX_THREADS: usize = 1024;

pub(super) fn check(document: &Document, report: &mut Report) {
    addresses::check(document, report);
    upstreams::check(document, report);
    routes::check(document, report);
    fields::check(document, report);
    cors::check(document, report);
    let process = &document.process;
    if process
        .threads
        .is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads))
    {
        report.error("process.threads", format!("must be 1 to {MAX_THREADS}"));
    }
    if process.drain_seconds > DAY {
        report.error("process.drain_seconds", format!("must be 0 to {DAY}"));
    }
}
