//! Other crates for the same thing, with the same proofs and tokens.
//!
//! What they leave out is left out of their time: neither verifies the access token, nor compares
//! the key that it is bound to. Each is configured to check everything else that it can.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use dpop_verifier::{DpopError, DpopVerifier, ReplayContext, ReplayStore};
use http::request::Parts;
use tower_dpop::Algorithm;
use turbomcp_dpop::{DpopKeyManager, DpopProofGenerator, ProofContext};

use crate::parties::{Client, Parties, URL, proof, ready};
use crate::raw::{Signed, signed};
use crate::requests::warm_up;
use crate::results::{Label, Party, Rows, Section};
use crate::timing::{REQUESTS, Row, Subject, measure};
use tower_dpop::Verifier;

const LEFT_OUT: &str = "left out: the token's signature and claims, `cnf`";

/// One client's requests by each crate.
pub fn section(parties: &Parties, rounds: usize) -> Section {
    let client = parties.client(Algorithm::Es256);
    let rows = vec![
        row(
            Label::new("tower-dpop")
                .note("the whole warm request: token (in the cache) and `cnf`, too"),
            &client,
            TowerDpop::new(parties, &client),
        ),
        row(
            Label::new("tower-dpop, `precomputed-keys`").note("the same"),
            &client,
            TowerDpop::precomputing(parties, &client),
        ),
        row(
            Label::new("turbomcp-dpop")
                .note(format!(
                    "{LEFT_OUT}; it verifies the proof's signature twice"
                ))
                .charted(Party::Others),
            &client,
            Turbomcp::new(),
        ),
        row(
            Label::new("dpop-verifier")
                .note(format!(
                    "{LEFT_OUT}; its replay store here is a `HashSet`: it brings none"
                ))
                .charted(Party::Others),
            &client,
            DpopVerifierCrate::new(),
        ),
    ];
    let text = "\
        The same ES256 proofs of one client with the same token, in one run. Each checks method, \
        URL, time, `ath`, signature and replay. Built apart from the tables above: they switch on \
        features of shared dependencies.";
    Section::new(
        "Other crates",
        text,
        Rows::Micros(measure(rounds, || parties.tick_with_the_machine(), rows)),
    )
}

fn row(label: Label, client: &Client, peer: impl Peer + 'static) -> Row<'static> {
    let checking = Checking {
        peer,
        client: client.clone(),
        requests: Vec::new(),
    };
    Row::new(label, checking)
}

/// A request, and the two texts in it that the other crates want.
struct Presented {
    head: Parts,
    proof: String,
    token: String,
}

/// Something that checks requests.
trait Peer {
    fn check(&mut self, request: &Presented);
}

/// Requests of one client, checked by a peer.
struct Checking<P> {
    peer: P,
    client: Client,
    requests: Vec<Presented>,
}

impl<P: Peer> Subject for Checking<P> {
    fn prepare(&mut self) -> Vec<Signed> {
        self.requests = (0..REQUESTS)
            .map(|_| {
                let head = self.client.head();
                let credentials = head.headers["authorization"].to_str().expect("ASCII");
                let token = credentials.trim_start_matches("DPoP ").to_owned();
                Presented {
                    proof: proof(&head).to_owned(),
                    token,
                    head,
                }
            })
            .collect();
        signed(self.requests.iter().map(|request| request.proof.as_str()))
    }

    fn run(&mut self) {
        for request in &self.requests {
            self.peer.check(black_box(request));
        }
    }
}

struct TowerDpop(Verifier);

impl TowerDpop {
    fn new(parties: &Parties, client: &Client) -> Self {
        Self::knowing(parties.verifier(), client)
    }

    fn precomputing(parties: &Parties, client: &Client) -> Self {
        Self::knowing(parties.precomputing(), client)
    }

    fn knowing(verifier: Verifier, client: &Client) -> Self {
        warm_up(&verifier, std::slice::from_ref(client));
        Self(verifier)
    }
}

impl Peer for TowerDpop {
    fn check(&mut self, request: &Presented) {
        black_box(ready(self.0.verify(&request.head))).expect("the request passes");
    }
}

/// Its verifier hangs on its generator of proofs, which needs a manager of keys.
struct Turbomcp(DpopProofGenerator);

impl Turbomcp {
    fn new() -> Self {
        let keys = ready(DpopKeyManager::new_memory()).expect("keys in memory");
        Self(DpopProofGenerator::new(Arc::new(keys)))
    }
}

impl Peer for Turbomcp {
    fn check(&mut self, request: &Presented) {
        let checked = self.0.parse_and_validate_jwt(
            &request.proof,
            "GET",
            URL,
            Some(&request.token),
            ProofContext::ResourceServer,
        );
        black_box(ready(checked)).expect("the proof passes");
    }
}

struct DpopVerifierCrate {
    verifier: DpopVerifier,
    replays: Replays,
}

impl DpopVerifierCrate {
    fn new() -> Self {
        let verifier = DpopVerifier::new()
            .with_max_age_seconds(90)
            .with_future_skew_seconds(30);
        Self {
            verifier,
            replays: Replays(HashSet::new()),
        }
    }
}

impl Peer for DpopVerifierCrate {
    fn check(&mut self, request: &Presented) {
        let checked = self.verifier.verify(
            &mut self.replays,
            &request.proof,
            URL,
            "GET",
            Some(&request.token),
        );
        black_box(ready(checked)).expect("the proof passes");
    }
}

/// The memory of the crate's own tests. It never forgets.
struct Replays(HashSet<[u8; 32]>);

#[async_trait]
impl ReplayStore for Replays {
    async fn insert_once(
        &mut self,
        jti_hash: [u8; 32],
        _context: ReplayContext<'_>,
    ) -> Result<bool, DpopError> {
        Ok(self.0.insert(jti_hash))
    }
}
