//! What a second core gives.

use std::hint::black_box;
use std::slice;
use std::thread;

use http::request::Parts;
use tower_dpop::{Algorithm, Verifier};

use crate::parties::{Client, Parties, proof, ready};
use crate::raw::{Signed, signed};
use crate::requests::warm_up;
use crate::results::{Label, Rows, Section, Spread, Time};
use crate::timing::{REQUESTS, on_threads, wall_time};

/// Requests on two threads at once, beside the same requests on one thread alone.
pub fn section(parties: &Parties, rounds: usize) -> Section {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut rows = Vec::new();
    if cores >= 2 {
        let clients: Vec<Client> = (0..2).map(|_| parties.client(Algorithm::Es256)).collect();
        let one = [clients[0].clone(), clients[0].clone()];
        rows.push(raw(&clients, rounds));
        for (verifier, name) in [
            (parties.verifier(), ""),
            (parties.precomputing(), ", `precomputed-keys`"),
        ] {
            for (clients, whose) in [(clients.as_slice(), "two clients"), (&one, "one client")] {
                warm_up(&verifier, clients);
                let label = Label::new(format!("warm, {whose}{name}"));
                rows.push(requests(parties, &verifier, clients, label, rounds));
            }
        }
    }
    let text = "\
        The time until a request is verified while another thread does the same, divided by the time without \
        it: 1.05 means that two cores verify 1.9 times as much as one. All rows have one issuer. Those of one client have \
        one key and one token. Time that passes, not pinned to a core; the first row is what the machine allows.";
    Section::new("A second core", text, Rows::Micros(rows))
}

/// Shares of one thread alone, and of two.
fn measured<S: Sync>(
    label: Label,
    rounds: usize,
    mut shares: impl FnMut() -> [S; 3],
    mut raw: impl FnMut() -> f64,
    work: impl Fn(&S) + Sync,
) -> Time {
    let (mut ratios, mut both, mut yardstick) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let shares = shares();
        let (alone, together) = shares.split_first().expect("there are three");
        let time = |shares: &[S]| on_threads(shares, &work) / f64::from(REQUESTS);
        let (alone, together) = if round % 2 == 0 {
            let alone = time(slice::from_ref(alone));
            (alone, time(together))
        } else {
            let together = time(together);
            (time(slice::from_ref(alone)), together)
        };
        ratios.push(together / alone);
        both.push(together);
        yardstick.push(raw());
    }
    Time {
        label,
        ratio: Spread::of(ratios),
        micros: Spread::of(both).median,
        raw_micros: Spread::of(yardstick).median,
    }
}

fn requests(
    parties: &Parties,
    verifier: &Verifier,
    clients: &[Client],
    label: Label,
    rounds: usize,
) -> Time {
    let yardstick = signatures(&clients[0]);
    let heads = |client: &Client| -> Vec<Parts> { (0..REQUESTS).map(|_| client.head()).collect() };
    measured(
        label.at_most(1.05, "a warm request while another core verifies one"),
        rounds,
        || {
            parties.tick();
            [&clients[0], &clients[0], &clients[1]].map(heads)
        },
        || verify_all(&yardstick),
        |heads| {
            for head in heads {
                black_box(ready(verifier.verify(black_box(head)))).expect("the request passes");
            }
        },
    )
}

fn raw(clients: &[Client], rounds: usize) -> Time {
    let yardstick = signatures(&clients[0]);
    measured(
        Label::new("one raw verification"),
        rounds,
        || [&clients[0], &clients[0], &clients[1]].map(signatures),
        || verify_all(&yardstick),
        |signatures| signatures.iter().for_each(Signed::verify),
    )
}

fn signatures(client: &Client) -> Vec<Signed> {
    let heads: Vec<Parts> = (0..REQUESTS).map(|_| client.head()).collect();
    signed(heads.iter().map(proof))
}

/// Microseconds of one.
fn verify_all(signatures: &[Signed]) -> f64 {
    wall_time(|| signatures.iter().for_each(Signed::verify)) / f64::from(REQUESTS)
}
