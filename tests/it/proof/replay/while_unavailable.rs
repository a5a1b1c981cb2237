//! While a shared store is unreachable, the memory of each node decides.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use serde_json::json;
use tower_dpop::proof::{
    Claim, Epoch, NonceError, ProofError, ReplayKey, ReplayStoreError, UsedProof, WhileUnavailable,
    replay_contract,
};
use tower_dpop::resource::Unavailable;
use tower_dpop::telemetry::REPLAY_CLAIMS_BY_NODE_MEMORY;
use tower_dpop::{
    DpopLayer, MemoryReplayStore, NonceSecret, ReplayStore, StatelessNonces, Timestamp,
};

use common::log::logged;
use common::metrics::recorded;
use common::{Attempt, AttemptExt as _, NOW, TestClock, block_on, required_nonce, verifier_by};

/// A store over a network, whose outage the test switches.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

struct State {
    records: MemoryReplayStore,
    epoch: Epoch,
    reply: Reply,
}

#[derive(Clone, Copy, PartialEq)]
enum Reply {
    Error(ReplayStoreError),
    /// Records the proof, and does not respond in time.
    Lost,
    /// Never responds.
    Never,
    Sent,
    /// Records the proof, and responds when it is asked a second time.
    Waits,
}

impl Shared {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            records: MemoryReplayStore::default(),
            epoch: Epoch::of(b"first"),
            reply: Reply::Sent,
        })))
    }

    fn replies(&self, reply: Reply) {
        self.0.lock().unwrap().reply = reply;
    }

    fn fails(&self, error: ReplayStoreError) {
        self.replies(Reply::Error(error));
    }

    /// Another primary, which knows nothing.
    fn fail_over(&self) {
        let mut state = self.0.lock().unwrap();
        (state.records, state.epoch) = (MemoryReplayStore::default(), Epoch::of(b"second"));
    }
}

impl ReplayStore for Shared {
    async fn claim(&self, mut proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        let (records, epoch, reply) = {
            let state = self.0.lock().unwrap();
            (state.records.clone(), state.epoch, state.reply)
        };
        match reply {
            Reply::Error(error) => return Err(error),
            Reply::Never => pending().await,
            Reply::Lost | Reply::Sent | Reply::Waits => {}
        }
        if proof.epoch != epoch {
            return Err(ReplayStoreError::OtherStore);
        }
        proof.epoch = records.epoch();
        let claim = records.claim(proof).await;
        match reply {
            Reply::Lost => Err(ReplayStoreError::Slow),
            Reply::Waits => {
                tokio::task::yield_now().await;
                claim
            }
            _ => claim,
        }
    }

    fn epoch(&self) -> Epoch {
        self.0.lock().unwrap().epoch
    }
}

fn store(shared: &Shared) -> WhileUnavailable<Shared> {
    WhileUnavailable::insecurely_by_node_memory(shared.clone(), MemoryReplayStore::default())
}

/// A node with a memory of its own, and the nonce secret of all nodes.
fn node(shared: &Shared) -> DpopLayer {
    let secret = NonceSecret::from_bytes(&[7; 32]).unwrap();
    DpopLayer::new(verifier_by(|rules| {
        let nonces = StatelessNonces::new(secret);
        rules.with_nonces(nonces).with_replay_store(store(shared))
    }))
}

fn with_nonce_of(node: &DpopLayer) -> Attempt {
    let nonce = required_nonce(node).unwrap();
    Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce))
}

#[track_caller]
fn assert_replayed(name: &str, attempt: &Attempt, node: &DpopLayer) {
    let outcome = attempt.outcome_by(node);
    outcome.assert_reason(name, ProofError::Replayed);
}

/// The claim of this proof, of the store's epoch.
fn used(store: &impl ReplayStore, number: u8) -> UsedProof {
    let key = ReplayKey::from_parts([number; 32], [0; 16]);
    let now = Timestamp::from_unix(NOW);
    UsedProof::new(key, now, now.plus(90), store.epoch())
}

fn claim(store: &impl ReplayStore, number: u8) -> Result<Claim, ReplayStoreError> {
    block_on(store.claim(used(store, number)))
}

const OUTAGES: [Reply; 3] = [
    Reply::Error(ReplayStoreError::Unavailable),
    Reply::Error(ReplayStoreError::Slow),
    Reply::Lost,
];

#[test]
fn it_fulfils_the_contract_with_and_without_the_shared_store() {
    let shared = Shared::new();
    block_on(replay_contract::check_together(&[
        store(&shared),
        store(&shared),
    ]));
    for reply in [Reply::Sent].into_iter().chain(OUTAGES) {
        let shared = Shared::new();
        shared.replies(reply);
        let node = Arc::new(store(&shared));
        block_on(async {
            replay_contract::check(&node).await;
            replay_contract::check_together(&[node.clone(), node.clone()]).await;
            // Neither store has a clock of its own.
            replay_contract::check_lasting(&node, async |_| {}).await;
        });
    }
}

/// T-18, and what the name says: *insecurely*.
#[test]
fn during_an_outage_a_proof_passes_once_on_each_node() {
    for reply in OUTAGES {
        let shared = Shared::new();
        let (one, other) = (node(&shared), node(&shared));
        let [before, during, after] = [(); 3].map(|()| with_nonce_of(&one));
        before.outcome_by(&one).assert_passed("before the outage");
        assert_replayed("before, on the other node", &before, &other);

        shared.replies(reply);
        assert_replayed("used before, on the same node", &before, &one);
        for node in [&one, &other] {
            during.outcome_by(node).assert_passed("the first use");
            assert_replayed("the second use", &during, node);
        }
        let elsewhere = with_nonce_of(&one);
        elsewhere.outcome_by(&one).assert_passed("on one node");

        shared.replies(Reply::Sent);
        assert_replayed("used during the outage", &during, &one);
        assert_replayed("used during the outage, on the other", &during, &other);
        if reply == Reply::Lost {
            assert_replayed("the shared store recorded it", &elsewhere, &other);
        } else {
            let outcome = elsewhere.outcome_by(&other);
            outcome.assert_passed("not known to the shared store");
        }
        assert_replayed("everywhere", &elsewhere, &other);
        assert_replayed("everywhere", &elsewhere, &one);
        after.outcome_by(&one).assert_passed("after the outage");
        assert_replayed("after, on the other node", &after, &other);
    }
}

/// The shared store learns from a replay which proof the node accepted on its own.
#[test]
fn a_replay_after_the_outage_is_recorded_in_the_shared_store() {
    let shared = Shared::new();
    let (one, other) = (store(&shared), store(&shared));
    shared.fails(ReplayStoreError::Unavailable);
    assert_eq!(claim(&one, 1), Ok(Claim::First));
    shared.replies(Reply::Sent);
    assert_eq!(claim(&one, 1), Ok(Claim::Replayed));
    assert_eq!(claim(&other, 1), Ok(Claim::Replayed));
}

/// T-24
#[test]
fn a_shared_store_of_another_epoch_ends_all_nonces_of_before() {
    let shared = Shared::new();
    let (one, other) = (node(&shared), node(&shared));
    shared.fails(ReplayStoreError::Unavailable);
    let (during, unused) = (with_nonce_of(&one), with_nonce_of(&one));
    // The epoch of the shared store stays, so nonces are accepted by all nodes.
    during.outcome_by(&one).assert_passed("during the outage");
    with_nonce_of(&one)
        .outcome_by(&other)
        .assert_passed("a nonce of the other node");

    shared.replies(Reply::Sent);
    shared.fail_over();
    for (name, attempt) in [("used", &during), ("unused", &unused)] {
        for node in [&one, &other] {
            let outcome = attempt.outcome_by(node);
            outcome.assert_reason(name, NonceError::Foreign);
        }
    }
    with_nonce_of(&one)
        .outcome_by(&other)
        .assert_passed("a new nonce");
}

/// The nonce was checked for the epoch of before.
#[test]
fn an_epoch_that_changes_during_an_outage_is_another_store() {
    for reply in OUTAGES {
        let shared = Shared::new();
        let node = store(&shared);
        let proof = used(&node, 1);
        shared.fail_over();
        shared.replies(reply);
        let claimed = block_on(node.claim(proof));
        assert_eq!(claimed, Err(ReplayStoreError::OtherStore));
        assert_eq!(claim(&node, 1), Ok(Claim::First), "it was not recorded");
    }
}

/// Only a store that is silent or unreachable is replaced.
#[test]
fn other_errors_of_the_shared_store_stay_errors() {
    for error in [ReplayStoreError::Full, ReplayStoreError::OtherStore] {
        let shared = Shared::new();
        let node = store(&shared);
        shared.fails(error);
        assert_eq!(claim(&node, 1), Err(error));
        shared.replies(Reply::Sent);
        assert_eq!(claim(&node, 1), Ok(Claim::First), "it was not recorded");
    }
    let shared = Shared::new();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(store(&shared))));
    shared.fails(ReplayStoreError::Full);
    let outcome = Attempt::good().outcome_by(&layer);
    outcome.assert_reason("T-18", Unavailable::Replay(ReplayStoreError::Full));
}

/// Else a proof that was used on this node could be used on it again during the next outage.
#[test]
fn a_full_memory_is_an_error_also_while_the_shared_store_works() {
    for reply in [Reply::Sent, Reply::Error(ReplayStoreError::Unavailable)] {
        let shared = Shared::new();
        shared.replies(reply);
        let memory = MemoryReplayStore::with_limit(1);
        let node = WhileUnavailable::insecurely_by_node_memory(shared, memory.clone());
        assert_eq!(claim(&node, 1), Ok(Claim::First));
        assert_eq!(claim(&node, 2), Err(ReplayStoreError::Full));
        assert_eq!(memory.usage().live, 1);
    }
}

/// A proof that the shared store knows takes no room in the memory.
#[test]
fn a_replay_on_another_node_is_not_recorded_in_the_memory() {
    let shared = Shared::new();
    assert_eq!(claim(&store(&shared), 1), Ok(Claim::First));
    let memory = MemoryReplayStore::default();
    let node = WhileUnavailable::insecurely_by_node_memory(shared, memory.clone());
    assert_eq!(claim(&node, 1), Ok(Claim::Replayed));
    assert_eq!(memory.usage().live, 0);
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A request that ended while it waited was not accepted, and the memory has not recorded its proof.
#[test]
fn a_dropped_claim_is_not_recorded_in_the_memory() {
    for reply in [Reply::Never, Reply::Waits] {
        let shared = Shared::new();
        let node = store(&shared);
        shared.replies(reply);
        {
            let waiting = pin!(node.claim(used(&node, 1)));
            assert!(poll(waiting).is_pending());
        }
        shared.fails(ReplayStoreError::Unavailable);
        assert_eq!(claim(&node, 1), Ok(Claim::First));
        assert_eq!(claim(&node, 1), Ok(Claim::Replayed));
    }
}

/// The shared store accepts the proof, and before its response arrives, the memory accepts it, too.
#[test]
fn of_a_claim_under_way_and_one_in_an_outage_one_is_first() {
    let shared = Shared::new();
    let node = store(&shared);
    shared.replies(Reply::Waits);
    let mut waiting = pin!(node.claim(used(&node, 1)));
    assert!(poll(waiting.as_mut()).is_pending());
    shared.fails(ReplayStoreError::Unavailable);
    assert_eq!(claim(&node, 1), Ok(Claim::First));
    assert_eq!(poll(waiting), Poll::Ready(Ok(Claim::Replayed)));
}

#[test]
fn an_outage_and_its_end_are_logged_once() {
    let (shared, clock) = (Shared::new(), TestClock::at(NOW));
    let read = clock.read();
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_clock(read).with_replay_store(store(&shared))
    }));
    let began = r#"until it responds, the memory of this node decides, so a proof can be used once on each node reason="unavailable_replay"#;
    let ended = "the shared replay store decides again seconds=8";
    // What the store does, seconds, and what is logged besides the decision.
    for (row, (reply, seconds, expected)) in [
        (Reply::Sent, 0, None),
        (OUTAGES[1], 1, Some((" WARN ", began))),
        (OUTAGES[0], 1, None),
        (OUTAGES[0], 2, None),
        // One success among failures is not the end.
        (Reply::Sent, 3, None),
        (OUTAGES[2], 4, None),
        (Reply::Sent, 9, Some((" INFO ", ended))),
        (Reply::Sent, 10, None),
        (OUTAGES[0], 11, Some((" WARN ", began))),
    ]
    .into_iter()
    .enumerate()
    {
        shared.replies(reply);
        clock.set(NOW + seconds);
        let (outcome, log) = logged(|| Attempt::good().outcome_by(&layer));
        outcome.assert_passed("the memory decides");
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains("tower_dpop::proof"))
            .collect();
        assert_eq!(lines.len(), usize::from(expected.is_some()), "{row}: {log}");
        if let Some((level, text)) = expected {
            assert!(lines[0].contains(level) && lines[0].contains(text), "{log}");
        }
    }
}

#[test]
fn decisions_of_the_memory_alone_are_counted() {
    let shared = Shared::new();
    let node = store(&shared);
    let counted = |action: &dyn Fn()| {
        let ((), lines) = recorded(action);
        lines
            .into_iter()
            .find(|line| line.starts_with(REPLAY_CLAIMS_BY_NODE_MEMORY))
    };
    let claims = || {
        for number in [1, 1, 2] {
            let _ = claim(&node, number);
        }
    };
    assert_eq!(counted(&claims), None);
    shared.fails(ReplayStoreError::Unavailable);
    let expected = format!("{REPLAY_CLAIMS_BY_NODE_MEMORY}{{}} 3");
    assert_eq!(counted(&claims), Some(expected));
}

#[test]
fn it_says_what_it_weakens() {
    struct Evicting(MemoryReplayStore);

    impl ReplayStore for Evicting {
        async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
            self.0.claim(proof).await
        }

        fn epoch(&self) -> Epoch {
            self.0.epoch()
        }

        fn weakness(&self) -> Option<String> {
            Some("it evicts records".to_owned())
        }
    }

    let memory = MemoryReplayStore::default;
    assert_eq!(memory().weakness(), None);
    let own = store(&Shared::new()).weakness().unwrap();
    assert!(own.contains("WhileUnavailable::insecurely_by_node_memory"));
    let inner = Arc::new(Evicting(memory()));
    let both = WhileUnavailable::insecurely_by_node_memory(inner, memory()).weakness();
    assert_eq!(both, Some(format!("{own}; it evicts records")));
    let shown = format!("{:?}", store(&Shared::new()));
    assert!(
        shown.starts_with("WhileUnavailable { memory: MemoryReplayStore"),
        "{shown}"
    );
}
