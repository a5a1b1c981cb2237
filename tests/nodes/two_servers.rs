//! Two processes of the example `resource_server`, on one Redis and with one file of nonce secrets.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;
use tower_dpop::testing::{TestClient, TestClock, TestIssuer};

use crate::servers::{Folder, Redis};

const ISSUER: &str = "https://as.example.com";
const AUDIENCE: &str = "https://api.example.com";
const PATH: &str = "/protected";

/// The store's deadline, and what a loaded machine adds for 128 connections.
const LONGEST: Duration = Duration::from_millis(250 + 3_000);

/// Between two requests of one connection. Without it, the time of a request is that of the queue before a debug build.
const PAUSE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 20 });

/// Each of these tests needs all of the machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The folder of the examples, built with the feature `redis`: that in the variable `NODES_EXAMPLES`, or the one beside this
/// test.
fn examples() -> &'static PathBuf {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        if let Some(folder) = env::var_os("NODES_EXAMPLES") {
            return folder.into();
        }
        // `target/debug/deps/nodes-…`
        let own = env::current_exe().unwrap();
        let built = own.ancestors().nth(2).unwrap();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--locked", "--quiet", "--package", "tower-dpop"])
            .args(["--example", "resource_server", "--features", "redis"])
            .arg("--target-dir")
            .arg(built.parent().unwrap());
        if built.ends_with("release") {
            command.arg("--release");
        }
        assert!(command.status().unwrap().success(), "the example is built");
        built.join("examples")
    })
}

/// A process of the example, ended on drop.
struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What both servers and the client have.
struct Shared {
    folder: Folder,
    client: TestClient,
}

impl Shared {
    fn new() -> Self {
        let folder = Folder::new();
        let issuer = TestIssuer::new(ISSUER, AUDIENCE).with_clock(clock());
        std::fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
        std::fs::write(folder.path().join("secrets"), "5a".repeat(32)).unwrap();
        let client = TestClient::new(&issuer);
        // One token for all requests: only proofs are signed for each.
        let token = issuer.token_for(client.key().thumbprint()).to_text();
        Self {
            folder,
            client: client.with_token(token),
        }
    }

    #[track_caller]
    fn server(&self, redis: &Redis) -> Server {
        let file = |name: &str| self.folder.path().join(name);
        let mut process = Command::new(examples().join("resource_server"))
            .args(["--listen", "127.0.0.1:0", "--issuer", ISSUER])
            .args(["--public-url", AUDIENCE, "--redis", &redis.url()])
            .arg("--jwks")
            .arg(file("jwks.json"))
            .arg("--nonce-secret-file")
            .arg(file("secrets"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("no address: {line}"));
        Server {
            url: format!("{url}{PATH}"),
            process,
        }
    }

    /// The fields of a good request with a new proof.
    fn request(&self, nonce: &str) -> HeaderMap {
        let client = self.client.clone().with_nonce(nonce).with_clock(clock());
        let request = client.request(Method::GET, &format!("{AUDIENCE}{PATH}"));
        request.build::<()>().headers().clone()
    }
}

/// A clock that shows the present time.
fn clock() -> TestClock {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    TestClock::at(since.as_secs())
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Accepted,
    NonceRequired,
    ProofRejected,
    Unavailable,
}

struct Response {
    status: Status,
    nonce: Option<String>,
    began: Instant,
    took: Duration,
}

/// Sends a request. Any other response than those of [`Status`] is a failure.
async fn send(http: &reqwest::Client, server: &str, headers: HeaderMap) -> Response {
    let began = Instant::now();
    let response = http.get(server).headers(headers).send();
    let response = tokio::time::timeout(Duration::from_secs(10), response).await;
    let response = response.expect("the server hangs").unwrap();
    let took = began.elapsed();
    let field = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let challenge = field("www-authenticate").unwrap_or_default();
    let status = match response.status().as_u16() {
        200 => Status::Accepted,
        401 if challenge.contains(r#"error="use_dpop_nonce""#) => Status::NonceRequired,
        401 if challenge.contains(r#"error="invalid_dpop_proof""#) => Status::ProofRejected,
        503 if field("retry-after").is_some() && challenge.is_empty() => Status::Unavailable,
        _ => panic!("{response:?}"),
    };
    let nonce = field("dpop-nonce");
    // The connection is used again.
    response.bytes().await.unwrap();
    Response {
        status,
        nonce,
        began,
        took,
    }
}

/// A nonce that this server issues.
async fn nonce_of(http: &reqwest::Client, server: &str, shared: &Shared) -> String {
    let response = send(http, server, shared.request("none")).await;
    assert_eq!(response.status, Status::NonceRequired);
    response.nonce.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_exactly_one_accepts_each_proof() {
    const PROOFS: usize = 10_000;
    let _alone = ALONE.lock().await;
    let redis = Redis::start();
    let shared = Arc::new(Shared::new());
    let servers = block_in_place(|| [shared.server(&redis), shared.server(&redis)]);
    let urls = [servers[0].url.clone(), servers[1].url.clone()];
    let http = reqwest::Client::new();
    let nonce = nonce_of(&http, &urls[0], &shared).await;
    let mut tasks = JoinSet::new();
    for task in 0..32 {
        let (http, shared, nonce, urls) = (
            http.clone(),
            Arc::clone(&shared),
            nonce.clone(),
            urls.clone(),
        );
        tasks.spawn(async move {
            // By which server it was accepted, and those without a decision of both.
            let mut counts = [0; 3];
            for _ in (task..PROOFS).step_by(32) {
                let headers = shared.request(&nonce);
                let (one, other) = tokio::join!(
                    send(&http, &urls[0], headers.clone()),
                    send(&http, &urls[1], headers)
                );
                match [one.status, other.status] {
                    [Status::Accepted, Status::ProofRejected] => counts[0] += 1,
                    [Status::ProofRejected, Status::Accepted] => counts[1] += 1,
                    // A loaded machine can take longer than the deadline.
                    [Status::Unavailable, other] | [other, Status::Unavailable]
                        if other != Status::NonceRequired =>
                    {
                        counts[2] += 1;
                    }
                    other => panic!("a proof has {other:?}"),
                }
            }
            counts
        });
    }
    let counts = tasks.join_all().await;
    let [one, other, undecided] =
        [0, 1, 2].map(|part| counts.iter().map(|counts| counts[part]).sum::<usize>());
    println!("of {PROOFS} proofs, the servers accepted {one} and {other}; {undecided} had a 503");
    assert!(one > 0 && other > 0, "it was no race");
    assert!(undecided < PROOFS / 10, "{undecided}");
    if undecided == 0 {
        assert_eq!(redis.keys(), PROOFS + 1, "with the store's own key");
    }
}

/// A client of one of the servers: it takes the nonces that it gets, and sends every fourth accepted request again, to the
/// other server.
async fn use_servers(
    http: reqwest::Client,
    shared: Arc<Shared>,
    urls: [String; 2],
    ending: Arc<AtomicBool>,
) -> Vec<(Response, HeaderMap)> {
    let mut responses = Vec::new();
    let mut nonce = "none".to_owned();
    let mut number = 0;
    while !ending.load(Ordering::Relaxed) {
        number += 1;
        let headers = shared.request(&nonce);
        let response = send(&http, &urls[0], headers.clone()).await;
        assert_ne!(
            response.status,
            Status::ProofRejected,
            "a proof that is sent once"
        );
        if let Some(next) = &response.nonce {
            nonce.clone_from(next);
        }
        if response.status == Status::Accepted && number % 4 == 0 {
            let again = send(&http, &urls[1], headers.clone()).await;
            assert_ne!(
                again.status,
                Status::Accepted,
                "a replay at the other server"
            );
            responses.push((again, HeaderMap::new()));
        }
        responses.push((response, headers));
        sleep(PAUSE).await;
    }
    responses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_killed_and_restarted_no_request_hangs_and_none_is_replayed() {
    let _alone = ALONE.lock().await;
    let mut redis = Redis::start();
    let shared = Arc::new(Shared::new());
    let servers = block_in_place(|| [shared.server(&redis), shared.server(&redis)]);
    let http = reqwest::Client::new();
    let ending = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..128 {
        let urls =
            [&servers[number % 2], &servers[(number + 1) % 2]].map(|server| server.url.clone());
        let client = use_servers(http.clone(), Arc::clone(&shared), urls, Arc::clone(&ending));
        tasks.spawn(client);
    }
    sleep(Duration::from_secs(2)).await;
    let killed = Instant::now();
    redis.kill();
    sleep(Duration::from_millis(1_500)).await;
    block_in_place(|| redis.restart());
    let restarted = Instant::now();
    sleep(Duration::from_secs(2)).await;
    ending.store(true, Ordering::Relaxed);
    let responses: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();

    let count = |status| {
        let same = responses
            .iter()
            .filter(|(response, _)| response.status == status);
        same.count()
    };
    let slowest = responses
        .iter()
        .map(|(response, _)| response.took)
        .max()
        .unwrap();
    let accepted = responses
        .iter()
        .filter(|(response, _)| response.status == Status::Accepted && response.began >= restarted);
    let recovered = accepted.map(|(response, _)| response.began + response.took);
    let recovery = recovered.min().expect("it recovers") - restarted;
    println!(
        "{} accepted, {} with another nonce required, {} replays rejected, {} unavailable; slowest {slowest:?}, recovery {recovery:?}",
        count(Status::Accepted),
        count(Status::NonceRequired),
        count(Status::ProofRejected),
        count(Status::Unavailable),
    );
    assert!(slowest < LONGEST, "{slowest:?}");
    assert!(recovery < LONGEST, "{recovery:?}");
    assert!(count(Status::Unavailable) > 0, "there was an outage");
    assert!(count(Status::ProofRejected) > 0, "there were replays");

    // What was accepted before is not accepted again by a server with an empty Redis.
    let before: Vec<_> = responses
        .iter()
        .filter(|(response, headers)| {
            let ended = response.began + response.took;
            response.status == Status::Accepted && !headers.is_empty() && ended < killed
        })
        .collect();
    assert!(before.len() > 100, "{}", before.len());
    for (number, (_, headers)) in before.iter().step_by(before.len() / 100).enumerate() {
        let server = &servers[number % 2].url;
        let again = send(&http, server, headers.clone()).await;
        assert_eq!(again.status, Status::NonceRequired, "{number}");
    }
}
