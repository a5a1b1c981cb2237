//! Counts what a request allocates.

use std::env;
use std::path::PathBuf;

use http::Request;
use tower::Service as _;
use tower_dpop::Algorithm;
use tower_dpop_benches::parties::{Client, Parties, ready};
use tower_dpop_benches::requests::{layered, warm_up};
use tower_dpop_benches::results::{Allocations, Label, Results, Rows, Section, median};

/// Requests that are counted of each row.
const REQUESTS: u32 = 1_000;

fn main() {
    let output: PathBuf = env::args_os()
        .nth(1)
        .expect("usage: allocations OUT")
        .into();
    let parties = Parties::new();
    let text = "\
        Calls of the allocator in one request, and the bytes asked for. Growing is counted as \
        another call.";
    let section = Section::new("Allocations", text, Rows::Allocations(rows(&parties)));
    let sections = vec![section];
    let quick = false; // A count is a count.
    Results { quick, sections }.write(&output);
}

fn rows(parties: &Parties) -> Vec<Allocations> {
    let client = parties.client(Algorithm::Es256);
    let verifier = parties.verifier();
    warm_up(&verifier, std::slice::from_ref(&client));
    let mut service = layered(parties, &client);
    let target = |label: Label| label.at_most(12.0, "allocations of a warm request");
    vec![
        count(
            parties,
            target(Label::new("warm").note("`Verifier::verify`; known key, known token")),
            || client.request(),
            |request| {
                let (head, _) = request.into_parts();
                ready(verifier.verify(&head)).expect("the request passes");
            },
        ),
        count(
            parties,
            Label::new("warm, through the layer")
                .note("`DpopLayer` around a service that responses at once"),
            || client.request(),
            |request| {
                let Ok(response) = ready(service.call(request));
                assert!(response.status().is_success(), "the request passes");
            },
        ),
        count(
            parties,
            Label::new("cold").note("`Verifier::verify`; a new key and a new token"),
            || parties.client(Algorithm::Es256).request(),
            |request| {
                let (head, _) = request.into_parts();
                ready(verifier.verify(&head)).expect("the request passes");
            },
        ),
        count(
            parties,
            Label::new("rejected for its method").note("`Verifier::verify`"),
            || other_method(&client),
            |request| {
                let (head, _) = request.into_parts();
                ready(verifier.verify(&head)).expect_err("the request is rejected");
            },
        ),
    ]
}

fn other_method(client: &Client) -> Request<String> {
    let mut request = client.unsigned();
    request.proof_claims["htm"] = "POST".into();
    request.build()
}

/// Counts what the work allocates with each request, the request itself left out.
fn count(
    parties: &Parties,
    label: Label,
    make: impl Fn() -> Request<String>,
    mut work: impl FnMut(Request<String>),
) -> Allocations {
    let (mut counts, mut bytes) = (Vec::new(), Vec::new());
    for request in 0..REQUESTS {
        if request % 50 == 0 {
            parties.tick();
        }
        let request = make();
        let info = allocation_counter::measure(|| work(request));
        counts.push(info.count_total);
        bytes.push(info.bytes_total);
    }
    let total = u32::try_from(counts.iter().sum::<u64>()).expect("the counts are small");
    Allocations {
        label,
        mean: f64::from(total) / f64::from(REQUESTS),
        median: median(counts),
        bytes: median(bytes),
    }
}
