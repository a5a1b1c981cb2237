//! Counts what a request allocates, and what stays allocated.

use std::env;
use std::path::PathBuf;

use http::Request;
use tower::Service as _;
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{Claim, ReplayKey, UsedProof};
use tower_dpop::{Algorithm, MemoryReplayStore, ReplayStore as _, Timestamp, Verifier};
use tower_dpop_benches::parties::{Client, Forgetful, Parties, random_key, ready};
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
    let allocations = Section::new("Allocations", text, Rows::Allocations(rows(&parties)));
    let text = "\
        What stays allocated for each of many. Not counted: what AWS-LC itself allocates for a parsed key.";
    let memory = Section::new("Memory", text, Rows::Bytes(sizes(&parties)));
    let sections = vec![allocations, memory];
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
            target(
                Label::new("warm, through the layer")
                    .note("`DpopLayer` around a service that responds at once"),
            ),
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

fn sizes(parties: &Parties) -> Vec<(Label, f64)> {
    let length = parties.client(Algorithm::Es256).unsigned().token().len();
    let key = SigningKey::generate().expect("the system gives randomness");
    let by_the_engine = || parties.verifier_with(Forgetful);
    let same_key = || parties.client_with(key.clone());
    let tokens = kept(&by_the_engine(), 5_000, 1, same_key);
    let new_key = || parties.client(Algorithm::Es256);
    let both = kept(&by_the_engine(), 5_000, 1, new_key);
    let with_table = kept(&parties.precomputing_with(Forgetful), 200, 20, new_key);
    vec![
        (
            Label::new("a record, among a million of 100 clients"),
            records(),
        ),
        (
            Label::new(format!("a token of {length} characters")),
            tokens,
        ),
        (
            Label::new("a client's key, and the header of its proofs"),
            both - tokens,
        ),
        (
            Label::new("the same with its table").note("`precomputed-keys`"),
            with_table - tokens,
        ),
    ]
}

/// Bytes that a verifier keeps for a client, by so many clients, each with so many requests.
fn kept(verifier: &Verifier, clients: u32, requests: u32, make: impl Fn() -> Client) -> f64 {
    // What is allocated once, for a verifier that has served.
    let heads = |client: &Client| -> Vec<_> { (0..requests).map(|_| client.head()).collect() };
    for _ in 0..100 {
        for head in heads(&make()) {
            ready(verifier.verify(&head)).expect("the request passes");
        }
    }
    let mut bytes = 0;
    for _ in 0..clients {
        let heads = heads(&make());
        let verify = || {
            for head in &heads {
                ready(verifier.verify(head)).expect("the request passes");
            }
        };
        bytes += allocation_counter::measure(verify).bytes_current;
    }
    f64::from(i32::try_from(bytes).expect("some megabytes")) / f64::from(clients)
}

/// Bytes that a replay store keeps for one of a million records.
fn records() -> f64 {
    const RECORDS: u32 = 1_000_000;
    let store = MemoryReplayStore::with_limit(2_000_000);
    let now = Timestamp::from_unix(1_700_000_000);
    let info = allocation_counter::measure(|| {
        for record in 0..RECORDS {
            let mut client = [0; 16];
            client[0] = u8::try_from(record % 100).expect("below 100");
            let key = ReplayKey::from_parts(*random_key().as_bytes(), client);
            let proof = UsedProof::new(key, now, now.plus(60), store.epoch());
            assert_eq!(ready(store.claim(proof)), Ok(Claim::First));
        }
    });
    f64::from(i32::try_from(info.bytes_current).expect("some megabytes")) / f64::from(RECORDS)
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
