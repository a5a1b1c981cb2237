//! Whole requests, from header fields to a bound token.

use std::convert::Infallible;
use std::future;
use std::hint::black_box;
use std::mem;

use http::request::Parts;
use http::{Request, Response};
use tower::{Layer as _, Service, service_fn};
use tower_dpop::jose::SigningKey;
use tower_dpop::{Algorithm, Algorithms, DpopLayer, Verifier};

use crate::parties::{Client, Forgetful, Parties, proof, ready};
use crate::raw::{Signed, signed};
use crate::results::{Label, Party, Rows, Section};
use crate::timing::{REQUESTS, Row, Subject, measure};

/// Requests of each client that have passed before a verifier counts as warm.
const WARM_UP: usize = 24;

/// The verifier's engine, chosen when this was built.
pub const ENGINE: &str = if cfg!(feature = "aws-lc-rs") {
    "aws-lc-rs"
} else {
    "rust-crypto"
};

/// Whole requests by the engine `aws-lc-rs`.
pub fn by_aws_lc_rs(parties: &Parties, rounds: usize) -> Section {
    let warm = |verifier, clients| Passing::warm(verifier, es256(parties, clients));
    let rows = vec![
        Row::new(
            Label::new("warm")
                .note("known key, known token")
                .at_most(1.06, "warm request")
                .charted(Party::Ours),
            warm(parties.verifier(), 1),
        ),
        Row::new(
            Label::new("warm, through the layer")
                .note("`DpopLayer` around a service that responds at once")
                .at_most(1.08, "warm request through the layer")
                .charted(Party::Ours),
            Layered::warm(parties, &parties.client(Algorithm::Es256)),
        ),
        Row::new(
            Label::new("warm, 1,000 keys in turn")
                .note("known keys and tokens")
                .charted(Party::Ours),
            warm(parties.verifier(), 1_000),
        ),
        Row::new(
            Label::new("warm, nothing remembered")
                .note("known key, known token; a store that finds no replay"),
            Passing::warm(parties.verifier_with(Forgetful), es256(parties, 1)),
        ),
        Row::new(
            Label::new("a token renewed with each request")
                .note("known key; the token's signature is verified, too"),
            Passing::renewing(parties),
        ),
        Row::new(
            Label::new("cold")
                .note("a new key and a new token: two signatures, and the key of one is parsed")
                .at_most(2.10, "cold request")
                .charted(Party::Ours),
            Passing::cold(parties, parties.verifier()),
        ),
        Row::new(
            Label::new("warm, `precomputed-keys`")
                .note("known key, known token")
                .at_most(0.50, "warm request with `precomputed-keys`")
                .charted(Party::Ours),
            warm(parties.precomputing(), 1),
        ),
        Row::new(
            Label::new("warm, 1,000 keys in turn, `precomputed-keys`")
                .note("known keys and tokens"),
            warm(parties.precomputing(), 1_000),
        ),
        Row::new(
            Label::new("cold, `precomputed-keys`").note("the issuer's key recurs"),
            Passing::cold(parties, parties.precomputing()),
        ),
    ];
    let text = "\
        `Verifier::verify` by the engine `aws-lc-rs`: ES256 proofs, signed ES256 tokens, a \
        `MemoryReplayStore` that has served for a while. A new key comes with a new token, for \
        tokens are bound to keys.";
    Section::new(
        "Whole requests",
        text,
        Rows::Micros(measure(rounds, || parties.tick(), rows)),
    )
}

/// Whole requests by the engine `rust-crypto`.
pub fn by_rust_crypto(parties: &Parties, rounds: usize) -> Section {
    let warm = |verifier| Passing::warm(verifier, es256(parties, 1));
    let rows = vec![
        Row::new(
            Label::new("warm")
                .note("known key, known token")
                .charted(Party::Ours),
            warm(parties.verifier()),
        ),
        Row::new(
            Label::new("cold").note("a new key and a new token with each request"),
            Passing::cold(parties, parties.verifier()),
        ),
        Row::new(
            Label::new("warm, `precomputed-keys`")
                .note("known key, known token")
                .at_most(
                    0.60,
                    "warm request by `rust-crypto` with `precomputed-keys`",
                )
                .charted(Party::Ours),
            warm(parties.precomputing()),
        ),
        Row::new(
            Label::new("cold, `precomputed-keys`").note("the issuer's key recurs"),
            Passing::cold(parties, parties.precomputing()),
        ),
    ];
    let text = "\
        The same by the engine `rust-crypto`. The yardstick is still the raw verification by \
        AWS-LC, in the same run.";
    Section::new(
        "Whole requests without C code",
        text,
        Rows::Micros(measure(rounds, || parties.tick(), rows)),
    )
}

/// Warm requests by every algorithm that is accepted by default, and RS256.
pub fn by_algorithm(parties: &Parties, rounds: usize) -> Section {
    let algorithms = Algorithms::default().add(Algorithm::Rs256);
    let rows = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Ps256,
        Algorithm::Ed25519,
        Algorithm::EdDsa,
        Algorithm::Rs256,
    ];
    let rows = rows
        .into_iter()
        .map(|algorithm| {
            let verifier = parties.verifier_by(|rules| rules.with_algorithms(algorithms));
            let clients = vec![parties.client(algorithm)];
            let note = match algorithm {
                Algorithm::Ps256 | Algorithm::Rs256 => "2048 bits",
                Algorithm::EdDsa => "Ed25519 by its older name",
                _ => "",
            };
            Row::new(
                Label::new(algorithm.name()).note(note),
                Passing::warm(verifier, clients),
            )
        })
        .collect();
    let text = "\
        Warm requests by the engine `aws-lc-rs`, each held against the raw verification of the \
        same algorithm: those of `Algorithms::default()`, and RS256.";
    Section::new(
        "Algorithms",
        text,
        Rows::Micros(measure(rounds, || parties.tick(), rows)),
    )
}

fn es256(parties: &Parties, clients: usize) -> Vec<Client> {
    (0..clients)
        .map(|_| parties.client(Algorithm::Es256))
        .collect()
}

/// Requests that pass.
struct Passing<'p> {
    verifier: Verifier,
    /// Whose request is the next.
    next: Box<dyn FnMut() -> Client + 'p>,
    heads: Vec<Parts>,
}

impl<'p> Passing<'p> {
    /// Of clients in turn, whose keys and tokens the verifier knows well.
    fn warm(verifier: Verifier, clients: Vec<Client>) -> Self {
        warm_up(&verifier, &clients);
        let mut turns = clients.into_iter().cycle();
        Self::new(verifier, move || turns.next().expect("there are clients"))
    }

    fn new(verifier: Verifier, next: impl FnMut() -> Client + 'p) -> Self {
        Self {
            verifier,
            next: Box::new(next),
            heads: Vec::new(),
        }
    }
}

impl<'p> Passing<'p> {
    /// Each of a client that was never seen.
    fn cold(parties: &'p Parties, verifier: Verifier) -> Self {
        Self::new(verifier, || parties.client(Algorithm::Es256))
    }

    /// Of a client that is known, each with a token that was never seen.
    fn renewing(parties: &'p Parties) -> Self {
        let verifier = parties.verifier();
        let key = SigningKey::generate().expect("the system gives randomness");
        warm_up(&verifier, &[parties.client_with(key.clone())]);
        Self::new(verifier, move || parties.client_with(key.clone()))
    }
}

impl Subject for Passing<'_> {
    fn prepare(&mut self) -> Vec<Signed> {
        self.heads = (0..REQUESTS).map(|_| (self.next)().head()).collect();
        signed(self.heads.iter().map(proof))
    }

    fn run(&mut self) {
        for head in &self.heads {
            black_box(ready(self.verifier.verify(black_box(head)))).expect("the request passes");
        }
    }
}

/// Makes the verifier know these clients.
pub fn warm_up(verifier: &Verifier, clients: &[Client]) {
    for _ in 0..WARM_UP {
        for client in clients {
            ready(verifier.verify(&client.head())).expect("the request passes");
        }
    }
}

/// A layer that knows this client, around a service that responds at once.
pub fn layered(
    parties: &Parties,
    client: &Client,
) -> impl Service<Request<String>, Response = Response<()>, Error = Infallible> + use<> {
    let verifier = parties.verifier();
    warm_up(&verifier, std::slice::from_ref(client));
    DpopLayer::new(verifier).layer(service_fn(|_: Request<String>| {
        future::ready(Ok::<_, Infallible>(Response::new(())))
    }))
}

/// Requests of one client through the layer.
struct Layered<S> {
    service: S,
    client: Client,
    requests: Vec<Request<String>>,
}

impl Layered<()> {
    fn warm(parties: &Parties, client: &Client) -> impl Subject + use<> {
        Layered {
            service: layered(parties, client),
            client: client.clone(),
            requests: Vec::new(),
        }
    }
}

impl<S> Subject for Layered<S>
where
    S: Service<Request<String>, Response = Response<()>, Error = Infallible>,
{
    fn prepare(&mut self) -> Vec<Signed> {
        self.requests = (0..REQUESTS).map(|_| self.client.request()).collect();
        signed(self.requests.iter().map(|request| {
            let field = &request.headers()["dpop"];
            field.to_str().expect("a proof is ASCII")
        }))
    }

    fn run(&mut self) {
        for request in mem::take(&mut self.requests) {
            let Ok(response) = ready(self.service.call(black_box(request)));
            assert!(response.status().is_success(), "the request passes");
        }
    }
}
