//! The service under measurement, its issuer, and its clients.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{Method, Request};
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{Claim, Epoch, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::testing::{TestClient, TestClock, TestIssuer, TestRequest};
use tower_dpop::{Algorithm, MemoryReplayStore, ProofRules, ReplayStore, Timestamp, Verifier};

use crate::timing::REQUESTS;

/// The URL of every request, as clients write it.
pub const URL: &str = "https://api.example.com/orders";

const ISSUER: &str = "https://as.example.com";
const AUDIENCE: &str = "https://api.example.com";

/// So long is a proof remembered whose clock is right, by the default freshness.
const REMEMBERED_SECONDS: u64 = 90;

/// One issuer, one clock, and the services and clients that go by them.
pub struct Parties {
    issuer: TestIssuer,
}

/// A replay store that remembers nothing, to measure what remembering costs.
pub struct Forgetful;

impl ReplayStore for Forgetful {
    async fn claim(&self, _: UsedProof) -> Result<Claim, ReplayStoreError> {
        Ok(Claim::First)
    }

    fn epoch(&self) -> Epoch {
        Epoch::UNKNOWN
    }
}

impl Parties {
    /// Parties whose clock shows the machine's time, and stands still.
    pub fn new() -> Self {
        let clock = TestClock::from(SystemTime::now());
        Self {
            issuer: TestIssuer::new(ISSUER, AUDIENCE).with_clock(clock),
        }
    }

    /// What the clock shows.
    pub fn now(&self) -> Timestamp {
        self.issuer.clock().now()
    }

    /// Moves the clock on by a second: one round's proofs are older than the next one's, and those
    /// of a while ago leave the replay stores as new ones enter.
    pub fn tick(&self) {
        self.issuer.clock().advance(Duration::from_secs(1));
    }

    /// Sets the clock by the machine's, for whom another clock cannot be given.
    pub fn tick_with_the_machine(&self) {
        let now = Timestamp::from(SystemTime::now());
        self.issuer.clock().set(now.as_unix());
    }

    /// A verifier with every default that has served for a while: its replay store holds what so many
    /// requests per second leave behind, and loses a record for each that enters. The engine verifies.
    pub fn verifier(&self) -> Verifier {
        self.verifier_by(|rules| rules)
    }

    /// The same by other rules.
    pub fn verifier_by(&self, change: impl FnOnce(ProofRules) -> ProofRules) -> Verifier {
        let rules = change(self.rules(MemoryReplayStore::default()));
        self.by_the_engine(rules)
    }

    /// The same with another replay store.
    pub fn verifier_with(&self, replays: impl ReplayStore) -> Verifier {
        self.by_the_engine(self.rules(replays))
    }

    /// The same as [`verifier`](Self::verifier) with precomputed keys, clients' and the issuer's.
    pub fn precomputing(&self) -> Verifier {
        self.precomputing_with(MemoryReplayStore::default())
    }

    /// The same with another replay store.
    pub fn precomputing_with(&self, replays: impl ReplayStore) -> Verifier {
        Verifier::new(self.rules(replays), self.issuer.jwt_verifier())
    }

    fn by_the_engine(&self, rules: ProofRules) -> Verifier {
        let tokens = self.issuer.jwt_verifier().without_precomputed_keys();
        Verifier::new(rules, tokens).without_precomputed_keys()
    }

    fn rules(&self, replays: impl ReplayStore) -> ProofRules {
        for second in 0..REMEMBERED_SECONDS {
            for _ in 0..REQUESTS {
                let (now, expires) = (self.now(), self.now().plus(second));
                let proof = UsedProof::new(random_key(), now, expires, replays.epoch());
                assert_eq!(
                    ready(replays.claim(proof)),
                    Ok(Claim::First),
                    "the store has room"
                );
            }
        }
        ProofRules::new(AUDIENCE.parse().expect("a URL"))
            .with_clock(self.issuer.clock().read())
            .with_replay_store(replays)
    }

    /// A client with a new key and a token that is bound to it.
    pub fn client(&self, algorithm: Algorithm) -> Client {
        let key = SigningKey::generate_for(algorithm).expect("the system gives randomness");
        self.client_with(key)
    }

    /// A client with this key and a new token that is bound to it.
    pub fn client_with(&self, key: SigningKey) -> Client {
        let client = TestClient::new(&self.issuer)
            .with_key(key)
            .with_claim("exp", self.now().plus(24 * 60 * 60).as_unix())
            .with_claim("scope", "orders.read orders.write");
        let token = client.request(Method::GET, URL).token();
        Client(client.with_token(token))
    }
}

impl Default for Parties {
    fn default() -> Self {
        Self::new()
    }
}

/// A client with a key, and one token for all its requests.
#[derive(Clone)]
pub struct Client(pub TestClient);

impl Client {
    /// A request with a proof of its own, to be changed.
    pub fn unsigned(&self) -> TestRequest {
        self.0.request(Method::GET, URL)
    }

    /// A request with a proof of its own.
    pub fn request(&self) -> Request<String> {
        self.unsigned().build()
    }

    /// The head of such a request.
    pub fn head(&self) -> Parts {
        self.request().into_parts().0
    }
}

/// The proof that a request carries.
pub fn proof(head: &Parts) -> &str {
    head.headers["dpop"].to_str().expect("a proof is ASCII")
}

/// The result of a future that does not wait.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing that is measured waits"),
    }
}

/// A key that no proof has.
pub fn random_key() -> ReplayKey {
    let (mut bytes, mut client) = ([0; 32], [0; 16]);
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives randomness");
    aws_lc_rs::rand::fill(&mut client).expect("the system gives randomness");
    ReplayKey::from_parts(bytes, client)
}
