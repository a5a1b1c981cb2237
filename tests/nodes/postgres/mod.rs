//! `examples/postgres_replay_store`, with a real server.

mod server;
#[path = "../../../examples/postgres_replay_store/store.rs"]
mod store;

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio_postgres::config::TargetSessionAttrs;
use tower_dpop::proof::{
    Claim, Epoch, NonceError, ProofError, ReplayKey, ReplayStoreError, UsedProof, WhileUnavailable,
    replay_contract,
};
use tower_dpop::{
    DpopLayer, MemoryReplayStore, NonceSecret, ReplayStore, StatelessNonces, Timestamp,
};

use common::{Attempt, AttemptExt as _, Outcome, required_nonce, verifier_by};

use server::{Proxy, Server};
use store::{PostgresReplayStore, Table};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(server: &Server) -> PostgresReplayStore {
    let store = PostgresReplayStore::connect(server.database(), Table::Logged);
    store.await.unwrap()
}

fn key(number: u64) -> ReplayKey {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    // The first byte chooses the connection.
    bytes[0] = number.to_be_bytes()[7];
    ReplayKey::from_parts(bytes, [0; 16])
}

fn used(number: u64, epoch: Epoch) -> UsedProof {
    let now = Timestamp::from(SystemTime::now());
    UsedProof::new(key(number), now, now.plus(90), epoch)
}

async fn claim(store: &PostgresReplayStore, number: u64) -> Result<Claim, ReplayStoreError> {
    store.claim(used(number, store.epoch())).await
}

/// The first claim of a key that the store decides.
async fn decided(store: &PostgresReplayStore, number: u64) -> Claim {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match claim(store, number).await {
            Ok(claim) => return claim,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The result of this claim, after as many of this error as there are.
async fn result_after(
    store: &PostgresReplayStore,
    proof: UsedProof,
    error: ReplayStoreError,
) -> Result<Claim, ReplayStoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let claimed = store.claim(proof).await;
        if claimed != Err(error) {
            return claimed;
        }
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The outcome of a request to a node.
fn outcome(attempt: &Attempt, node: &DpopLayer) -> Outcome {
    tokio::task::block_in_place(|| attempt.outcome_by(node))
}

async fn records(client: &tokio_postgres::Client) -> i64 {
    let count = "SELECT count(*) FROM dpop_used_proofs WHERE expires < 'infinity'";
    client.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_fulfils_the_contract() {
    let server = Server::start().await;
    // Nodes that start at the same time create one table.
    let (one, other) = tokio::join!(connect(&server), connect(&server));
    replay_contract::check(&one).await;
    replay_contract::check_together(&[one.clone(), other]).await;
    replay_contract::check_lasting(&one, tokio::time::sleep).await;

    let unlogged = Server::start().await;
    let store = PostgresReplayStore::connect(unlogged.database(), Table::Unlogged);
    replay_contract::check(&store.await.unwrap()).await;
}

const RACED: u64 = 2_000;

/// One node of the race below, a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test"]
async fn one_node_of_a_race() {
    let database = env::var("RACE_DATABASE").unwrap().parse().unwrap();
    let store = PostgresReplayStore::connect(database, Table::Logged);
    let store = store.await.unwrap();
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut first = Vec::new();
                for number in (task..RACED).step_by(16) {
                    if decided(&store, number).await == Claim::First {
                        first.push(number);
                    }
                }
                first
            })
        })
        .collect();
    for task in tasks {
        for number in task.await.unwrap() {
            println!("first {number}");
        }
    }
}

#[tokio::test]
async fn of_two_processes_that_race_for_a_key_one_is_first() {
    let server = Server::start().await;
    let mut nodes: Vec<Child> = (0..2)
        .map(|_| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "--ignored", "--nocapture"])
                .arg("postgres::one_node_of_a_race")
                .env("RACE_DATABASE", server.url())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut outputs: Vec<_> = nodes
        .iter_mut()
        .map(|node| BufReader::new(node.stdout.take().unwrap()).lines())
        .collect();
    for output in &mut outputs {
        output
            .find(|line| line.as_ref().unwrap().ends_with("ready"))
            .unwrap()
            .unwrap();
    }
    for node in &mut nodes {
        drop(node.stdin.take());
    }
    let mut winners = vec![0; usize::try_from(RACED).unwrap()];
    let mut wins = [0, 0];
    for (node, output) in outputs.into_iter().enumerate() {
        for line in output {
            if let Some(number) = line.unwrap().strip_prefix("first ") {
                winners[number.parse::<usize>().unwrap()] += 1;
                wins[node] += 1;
            }
        }
    }
    for mut node in nodes {
        assert!(node.wait().unwrap().success());
    }
    assert!(winners.iter().all(|winners| *winners == 1), "{winners:?}");
    // Else they did not race.
    assert!(wins.iter().all(|wins| *wins > 0), "{wins:?}");
}

/// The record is there, and the response is not.
#[tokio::test]
async fn a_lost_response_is_not_a_replay() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port());
    let through_proxy = server::config(proxy.port, "dpop");
    let store = PostgresReplayStore::connect(through_proxy, Table::Logged);
    let (store, other) = (store.await.unwrap(), connect(&server).await);
    for (number, cuts) in (0..8).zip((0..).step_by(2)) {
        decided(&store, 100 + number).await;
        proxy.lose_the_response_to(&key(number).half());
        assert_eq!(claim(&store, number).await, Ok(Claim::First), "{number}");
        assert_eq!(proxy.cuts(), cuts + 1, "{number}");
        for store in [&store, &other] {
            assert_eq!(claim(store, number).await, Ok(Claim::Replayed), "{number}");
        }
        // A replay of which the response is lost stays one.
        proxy.lose_the_response_to(&key(100 + number).half());
        let replayed = claim(&store, 100 + number).await;
        assert_eq!(replayed, Ok(Claim::Replayed), "{number}");
        assert_eq!(proxy.cuts(), cuts + 2, "{number}");
    }
}

/// The server commits asynchronously by default: without the setting of the store, the last records would be missing.
#[tokio::test]
async fn a_restart_loses_no_record_and_keeps_the_epoch() {
    let mut server = Server::start().await;
    let store = connect(&server).await;
    let epoch = store.epoch();
    for number in 0..100 {
        assert_eq!(claim(&store, number).await, Ok(Claim::First));
    }
    server.kill();
    // The connections have ended, or end now.
    let began = Instant::now();
    let claimed = claim(&store, 100).await;
    assert_eq!(claimed, Err(ReplayStoreError::Unavailable));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    server.run().await;
    assert_eq!(decided(&store, 101).await, Claim::First);
    for number in 0..100 {
        assert_eq!(decided(&store, number).await, Claim::Replayed, "{number}");
    }
    assert_eq!(store.epoch(), epoch);
    assert_eq!(connect(&server).await.epoch(), epoch);
}

#[tokio::test]
async fn a_server_that_does_not_respond_is_slow() {
    let server = Server::start().await;
    let store = connect(&server).await;
    assert_eq!(claim(&store, 1).await, Ok(Claim::First));
    server.signal_backends("-STOP").await;
    let began = Instant::now();
    let claimed = claim(&store, 2).await;
    let waited = began.elapsed();
    server.signal_backends("-CONT").await;
    assert_eq!(claimed, Err(ReplayStoreError::Slow));
    assert!(
        waited >= Duration::from_millis(250) && waited < Duration::from_secs(2),
        "{waited:?}"
    );
    assert_eq!(decided(&store, 3).await, Claim::First);
    assert_eq!(decided(&store, 1).await, Claim::Replayed);
}

/// T-24: a node with nonces accepts no proof of before, though all records are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_table_has_another_epoch() {
    let server = Server::start().await;
    let client = server.client().await;
    for statement in ["TRUNCATE dpop_used_proofs", "DROP TABLE dpop_used_proofs"] {
        let (one, other) = (connect(&server).await, connect(&server).await);
        let node = |store: &PostgresReplayStore| {
            let secret = NonceSecret::from_bytes(&[7; 32]).unwrap();
            DpopLayer::new(verifier_by(|rules| {
                let rules = rules.with_nonces(StatelessNonces::new(secret));
                rules.with_replay_store(store.clone())
            }))
        };
        let (first, second) = (node(&one), node(&other));
        let with_nonce = |nonce: String| Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce));
        let nonce = tokio::task::block_in_place(|| required_nonce(&first));
        let mut attempt = with_nonce(nonce.unwrap());
        outcome(&attempt, &first).assert_passed(statement);
        let replayed = outcome(&attempt, &second);
        replayed.assert_reason(statement, ProofError::Replayed);

        let epoch = one.epoch();
        client.batch_execute(statement).await.unwrap();
        let mut rejected = outcome(&attempt, &first);
        rejected.assert_reason(statement, NonceError::Foreign);
        assert_ne!(one.epoch(), epoch);
        attempt.proof_claims["nonce"] = json!(rejected.nonces.pop().unwrap());
        outcome(&attempt, &first).assert_passed("a new nonce");
        let replayed = outcome(&attempt, &first);
        replayed.assert_reason("a new nonce", ProofError::Replayed);

        // The other node notices without a request.
        let deadline = Instant::now() + PATIENCE;
        while other.epoch() != one.epoch() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let replayed = outcome(&attempt, &second);
        replayed.assert_reason("the other node", ProofError::Replayed);
    }
}

/// A crash empties an `UNLOGGED` table.
#[tokio::test]
async fn an_unlogged_table_has_another_epoch_after_a_crash() {
    let mut server = Server::start().await;
    let store = PostgresReplayStore::connect(server.database(), Table::Unlogged);
    let store = store.await.unwrap();
    let before = used(1, store.epoch());
    assert_eq!(store.claim(before).await, Ok(Claim::First));
    server.kill();
    server.run().await;
    let rejected = result_after(&store, before, ReplayStoreError::Unavailable).await;
    assert_eq!(rejected, Err(ReplayStoreError::OtherStore));
    assert_ne!(store.epoch(), before.epoch);
    assert_eq!(decided(&store, 1).await, Claim::First);
}

/// A standby may lack the last records of its primary.
#[tokio::test]
async fn a_promoted_standby_has_another_epoch() {
    let mut primary = Server::start().await;
    // Table and marker are on the standbys, too.
    let epoch = connect(&primary).await.epoch();
    let mut standbys = [primary.standby(), primary.standby()];
    let ports = standbys.each_ref().map(|_| server::free_port());
    let mut config = primary.database();
    config.host("127.0.0.1").port(ports[0]);
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    let store = PostgresReplayStore::connect(config, Table::Logged);
    let store = store.await.unwrap();
    assert_eq!(store.epoch(), epoch);
    let before = used(1, epoch);
    assert_eq!(store.claim(before).await, Ok(Claim::First));
    primary.kill();
    for (standby, port) in standbys.iter_mut().zip(ports) {
        standby.run_at(port).await;
        standby.promote().await;
    }
    let rejected = result_after(&store, before, ReplayStoreError::Unavailable).await;
    assert_eq!(rejected, Err(ReplayStoreError::OtherStore));
    // The record is lost.
    assert_eq!(decided(&store, 1).await, Claim::First);
    // Both have the same timeline, and know nothing of each other.
    let [one, other] = &standbys;
    let (one, other) = (connect(one).await, connect(other).await);
    assert_eq!(one.epoch(), store.epoch());
    assert_ne!(one.epoch(), other.epoch());
    let rejected = other.claim(used(1, one.epoch())).await;
    assert_eq!(rejected, Err(ReplayStoreError::OtherStore));
}

/// T-18: `WhileUnavailable`, with a server that is down.
#[tokio::test]
async fn while_the_server_is_down_the_memory_of_the_node_can_decide() {
    let mut server = Server::start().await;
    let node = async || {
        let memory = MemoryReplayStore::default();
        WhileUnavailable::insecurely_by_node_memory(connect(&server).await, memory)
    };
    let (one, other) = (node().await, node().await);
    let proof = |number| used(number, one.epoch());
    assert_eq!(one.claim(proof(1)).await, Ok(Claim::First));
    server.kill();
    assert_eq!(one.claim(proof(1)).await, Ok(Claim::Replayed));
    for node in [&one, &other] {
        assert_eq!(node.claim(proof(2)).await, Ok(Claim::First));
        assert_eq!(node.claim(proof(2)).await, Ok(Claim::Replayed));
    }
    assert_eq!(one.claim(proof(3)).await, Ok(Claim::First));
    server.run().await;
    let witness = connect(&server).await;
    assert_eq!(decided(&witness, 4).await, Claim::First);
    // Until each connection of the nodes is back.
    let deadline = Instant::now() + PATIENCE;
    for number in 100_u64.. {
        assert!(Instant::now() < deadline);
        assert_eq!(one.claim(proof(number)).await, Ok(Claim::First));
        if claim(&witness, number).await == Ok(Claim::Replayed) && number > 110 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for number in [1, 2, 3] {
        assert_eq!(one.claim(proof(number)).await, Ok(Claim::Replayed));
    }
}

#[tokio::test]
async fn expired_records_are_deleted_in_batches() {
    let server = Server::start().await;
    let store = connect(&server).await;
    assert_eq!(claim(&store, 1).await, Ok(Claim::First));
    let epoch = store.epoch();
    let client = server.client().await;
    let expired = "INSERT INTO dpop_used_proofs
        SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 0, now() - interval '1 s'
        FROM generate_series(1, 12345) n";
    client.batch_execute(expired).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = vec![records(&client).await];
    while records(&client).await > 1 {
        seen.push(records(&client).await);
        assert!(Instant::now() < deadline, "{seen:?}");
    }
    // More than one statement deletes them. What is seen between two depends on luck, so only its form is compared.
    assert!(
        seen.iter()
            .all(|seen| (seen - 1) % 1_000 == 345 || *seen == 1),
        "{seen:?}"
    );
    assert_eq!(claim(&store, 1).await, Ok(Claim::Replayed));
    assert_eq!(store.epoch(), epoch, "the marker stays");

    // As long as the proof and half a minute more, by the clock of the server.
    let left = "SELECT extract(epoch FROM expires - clock_timestamp())::float8 FROM dpop_used_proofs WHERE key = $1";
    let left = client
        .query_one(left, &[&key(1).half().as_slice()])
        .await
        .unwrap();
    let left: f64 = left.get(0);
    assert!(
        left > 120.0 - PATIENCE.as_secs_f64() && left <= 121.0,
        "{left}"
    );
}

/// The example itself starts, and asks for a proof.
#[tokio::test]
async fn the_example_serves() {
    let server = Server::start().await;
    let built = env::current_exe().unwrap();
    let example = built.ancestors().nth(2).unwrap();
    let example = example.join("examples/postgres_replay_store");
    let mut example = Command::new(example)
        .args(["--listen", "127.0.0.1:0", "--database", &server.url()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo build -p tower-dpop-nodes --examples");
    let mut line = String::new();
    let mut output = BufReader::new(example.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on http://");
    let response = ask(address.unwrap(), "/orders");
    example.kill().unwrap();
    example.wait().unwrap();
    let response = response.to_lowercase();
    assert!(response.starts_with("http/1.1 401"), "{response}");
    assert!(
        response.contains("www-authenticate: dpop algs="),
        "{response}"
    );
}

fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}
