//! Clients with keys and tokens of their own, over 128 connections, and the replays of their requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{TestClient, TestClock};

use super::counts::{Again, Counts, Permission};
use super::declared::{Cause, Disturbance, Timeline};
use super::issuer::{Issuer, Token};
use super::node::Node;
use super::{AUDIENCE, PATH};

/// Each task has one connection to each node: 128 in all.
pub(super) const TASKS: usize = 64;
pub(super) const CLIENTS_PER_TASK: usize = 8;

/// How often a request is sent at most, and how long a client waits before the next attempt.
pub(super) const ATTEMPTS: usize = 8;
const BEFORE_RETRY: Duration = Duration::from_millis(400);

/// The age at which a client takes a new token.
const TOKEN_AGE: Duration = Duration::from_secs(30);

/// A client with a younger nonce is never asked for another one: half a nonce period, less a second.
const YOUNG_NONCE: Duration = Duration::from_secs(4);

/// The proofs that are kept to be sent again: those of about a minute.
const KEPT: usize = 3_000;

pub(super) struct World {
    pub(super) nodes: [Node; 2],
    pub(super) issuer: Issuer,
    pub(super) timeline: Timeline,
    pub(super) counts: Counts,
    clock: TestClock,
    /// The test client of which all clients are variants.
    client: TestClient,
    pub(super) ending: AtomicBool,
    /// Accepted requests, the oldest first.
    used: Mutex<VecDeque<Used>>,
}

/// A request that was accepted.
#[derive(Clone)]
struct Used {
    headers: HeaderMap,
    node: usize,
    at: Instant,
}

impl World {
    pub(super) fn new(nodes: [Node; 2], issuer: Issuer, clock: TestClock) -> Self {
        Self {
            nodes,
            issuer,
            timeline: Timeline::new(),
            counts: Counts::default(),
            client: TestClient::without_issuer(clock.clone()),
            clock,
            ending: AtomicBool::new(false),
            used: Mutex::default(),
        }
    }

    /// An accepted request had neither a token of a key that was withdrawn long ago, nor a nonce of a replaced secret.
    fn assert_valid(&self, had: &Had, node: usize, response: &Response) {
        let ended_before = |disturbance, since, seconds| {
            let margin = Duration::from_secs(seconds);
            self.timeline
                .happened(disturbance, since, response.began, margin)
        };
        // Nodes fetch keys after four seconds at most, or when an outage of the issuer and a step of the clock are over.
        let withdrawn = !self.issuer.publishes_key_of(&had.token)
            && ended_before(Disturbance::KeyWithdrawn, had.token_from, 20);
        let replaced = had
            .nonce_from
            .is_some_and(|from| ended_before(Disturbance::SecretReplaced, from, 2));
        assert!(
            !withdrawn && !replaced,
            "node {node} ACCEPTED A TOKEN OF A WITHDRAWN KEY ({withdrawn}) OR A NONCE OF A REPLACED SECRET ({replaced}) {:.1?} \
            after the start; {}",
            self.timeline.began().elapsed(),
            self.timeline.recent()
        );
    }

    /// Sends proofs that were accepted before this moment again, to both nodes: the last ones, and some of all ages.
    pub(super) async fn replay_around(
        self: &Arc<Self>,
        http: &reqwest::Client,
        disturbance: Disturbance,
        before: Instant,
    ) {
        let chosen: Vec<Used> = {
            let used = self.used.lock().unwrap();
            let end = used.partition_point(|used| used.at < before);
            let last = (end.saturating_sub(16)..end).rev();
            let ages = (0..end).step_by((end / 16).max(1));
            let numbers = last.chain(ages);
            numbers.map(|number| used[number].clone()).collect()
        };
        let again = Again::Around(disturbance);
        for some in chosen.chunks(4) {
            let mut replays = JoinSet::new();
            for (used, node) in some.iter().flat_map(|used| [(used, 0), (used, 1)]) {
                let (world, http, used) = (Arc::clone(self), http.clone(), used.clone());
                replays.spawn(async move { world.replay(&http, &used, node, again).await });
            }
            // A failed assertion in one of them fails this task, too.
            replays.join_all().await;
        }
    }

    async fn replay(&self, http: &reqwest::Client, used: &Used, node: usize, again: Again) {
        let response = send(http, self.nodes[node].url(), used.headers.clone()).await;
        self.judge_replay(used, node, again, &response);
    }

    fn judge_replay(&self, used: &Used, node: usize, again: Again, response: &Response) {
        match response.result {
            Ok(()) => panic!(
                "REPLAY ACCEPTED ({again:?}) by node {node} in {:.2?}: the proof was accepted by node {} {:.2?} ago, {:.1?} \
                after the start; {}",
                response.took,
                used.node,
                used.at.elapsed(),
                self.timeline.began().elapsed(),
                self.timeline.recent()
            ),
            Err(cause) => self.counts.add_replay(again, cause),
        }
    }
}

/// Sets the clock of clients and issuer.
fn set_to_now(clock: &TestClock) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    clock.set(now.as_secs());
}

/// The token and nonce that a client had when it sent a request.
struct Had {
    nonce_from: Option<Instant>,
    token: Token,
    token_from: Instant,
}

/// One key with its token and nonce.
struct Client {
    signer: TestClient,
    token: Token,
    token_from: Instant,
    nonce: Option<(String, Instant)>,
}

impl Client {
    fn new(world: &World, key: SigningKey) -> Self {
        set_to_now(&world.clock);
        let client = world.client.clone().with_key(key);
        Self {
            token: world.issuer.token_for(client.key()),
            signer: client,
            token_from: Instant::now(),
            nonce: None,
        }
    }

    fn renew(&mut self, world: &World) {
        set_to_now(&world.clock);
        self.token = world.issuer.token_for(self.signer.key());
        self.token_from = Instant::now();
    }

    /// A request with a new proof, and the token and nonce in it.
    fn request(&mut self, world: &World) -> (HeaderMap, Had) {
        if self.token_from.elapsed() > TOKEN_AGE {
            self.renew(world);
        }
        set_to_now(&world.clock);
        let mut client = self.signer.clone().with_token(self.token.text.clone());
        if let Some((nonce, _)) = &self.nonce {
            client = client.with_nonce(nonce.clone());
        }
        let request = client.request(Method::GET, &format!("{AUDIENCE}{PATH}"));
        let had = Had {
            nonce_from: self.nonce.as_ref().map(|nonce| nonce.1),
            token: self.token.clone(),
            token_from: self.token_from,
        };
        (request.build::<()>().headers().clone(), had)
    }

    fn learn(&mut self, response: &Response) {
        if let Some(nonce) = &response.nonce {
            self.nonce = Some((nonce.clone(), Instant::now()));
        }
    }
}

pub(super) struct Response {
    result: Result<(), Cause>,
    nonce: Option<String>,
    began: Instant,
    took: Duration,
}

/// Sends a request. Any other response than those of [`Cause`] is a failure.
async fn send(http: &reqwest::Client, url: &str, headers: HeaderMap) -> Response {
    let began = Instant::now();
    let response = http.get(url).headers(headers).send();
    let response = tokio::time::timeout(Duration::from_secs(20), response).await;
    let response = response.expect("the node hangs").unwrap();
    let took = began.elapsed();
    let field = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let challenge = field("www-authenticate").unwrap_or_default();
    let has = |text: &str| challenge.contains(text);
    let result = match response.status().as_u16() {
        200 => Ok(()),
        401 if has(r#"error="use_dpop_nonce""#) => Err(Cause::Nonce),
        401 if has(r#"error="invalid_token""#) => Err(Cause::Token),
        401 if has("the DPoP proof was used before") => Err(Cause::Replayed),
        401 if has("the DPoP proof is too old") => Err(Cause::Time),
        // The clock was set ahead while the request was being checked.
        401 if has("the DPoP proof has expired") => Err(Cause::Time),
        401 if has("the DPoP proof was created in the future") => Err(Cause::Time),
        503 if field("retry-after").is_some() && challenge.is_empty() => Err(Cause::Unavailable),
        _ => panic!("{response:?}"),
    };
    let nonce = field("dpop-nonce");
    // The connection is used again.
    response.bytes().await.unwrap();
    Response {
        result,
        nonce,
        began,
        took,
    }
}

/// One of the tasks, which run until the end.
pub(super) struct Task {
    number: usize,
    world: Arc<World>,
    http: reqwest::Client,
    clients: Vec<Client>,
    /// Proofs to be sent again, and when.
    later: VecDeque<(Instant, Used)>,
}

impl Task {
    pub(super) fn new(number: usize, world: Arc<World>, keys: &[SigningKey]) -> Self {
        let keys = keys.iter();
        Self {
            number,
            http: http(),
            clients: keys.map(|key| Client::new(&world, key.clone())).collect(),
            world,
            later: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self, requests_per_second: u64) {
        let pause = Duration::from_micros(TASKS as u64 * 1_000_000 / requests_per_second);
        // The tasks do not start at the same moment.
        sleep(pause * u32::try_from(self.number).unwrap() / 64).await;
        let mut tick = interval(pause);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = self.number;
        while !self.world.ending.load(Ordering::Relaxed) {
            tick.tick().await;
            round += 1;
            // 8 clients and both nodes, in all combinations.
            let (client, node) = (round % CLIENTS_PER_TASK, round / CLIENTS_PER_TASK % 2);
            if round % 20 == 7 {
                self.race(client).await;
            } else if let Some(accepted) = self.good(client, node).await
                && round.is_multiple_of(9)
            {
                self.replay(accepted, round / 9).await;
            }
            self.replay_due(round).await;
        }
    }

    /// A valid request, with a new proof for each attempt. Returns the header fields and the node of the accepted one.
    async fn good(&mut self, client: usize, node: usize) -> Option<(HeaderMap, usize)> {
        self.world.counts.add_good();
        let mut permissions = Vec::new();
        for attempt in 0..ATTEMPTS {
            // The node alternates, as behind a load balancer.
            let node = (node + attempt) % 2;
            let (headers, had) = self.clients[client].request(&self.world);
            let url = self.world.nodes[node].url().to_owned();
            let response = send(&self.http, &url, headers.clone()).await;
            match response.result {
                Ok(()) => {
                    self.world.assert_valid(&had, node, &response);
                    self.clients[client].learn(&response);
                    self.world.counts.add_accepted(response.took);
                    return Some((headers, node));
                }
                Err(cause) => {
                    let rejected = self.rejected(client, &had, node, cause, &response);
                    permissions.push(rejected.await);
                }
            }
        }
        let declared = |permission: &Permission| {
            matches!(
                permission,
                Permission::Disturbance(_) | Permission::WithdrawnKey
            )
        };
        assert!(
            permissions.iter().any(declared),
            "A GOOD REQUEST WAS LOST {:.1?} after the start: {permissions:?}; {}",
            self.world.timeline.began().elapsed(),
            self.world.timeline.recent()
        );
        self.world.counts.add_given_up();
        None
    }

    /// Counts a permitted rejection, and reacts to it as a client does. Any other rejection is a failure.
    async fn rejected(
        &mut self,
        client: usize,
        had: &Had,
        node: usize,
        cause: Cause,
        response: &Response,
    ) -> Permission {
        let world = Arc::clone(&self.world);
        let client = &mut self.clients[client];
        let ended = response.began + response.took;
        let old_nonce = had
            .nonce_from
            .is_none_or(|from| response.began - from > YOUNG_NONCE);
        let permission = match cause {
            // 503 while the issuer has an outage: another key could verify it.
            Cause::Token | Cause::Unavailable if !world.issuer.publishes_key_of(&had.token) => {
                Permission::WithdrawnKey
            }
            _ => match world.timeline.permits(cause, response.began, ended) {
                Some(disturbance) => Permission::Disturbance(disturbance),
                None if cause == Cause::Nonce && old_nonce => Permission::NewNonce,
                None if cause == Cause::Unavailable => Permission::Busy,
                None => panic!(
                    "A GOOD REQUEST WAS REJECTED ({cause:?}) by node {node} in {:.2?}, {:.1?} after the start; nonce {:?} old, \
                    token {:.1?} old; {}",
                    response.took,
                    world.timeline.began().elapsed(),
                    had.nonce_from.map(|from| from.elapsed()),
                    client.token_from.elapsed(),
                    world.timeline.recent()
                ),
            },
        };
        world.counts.add_rejected(cause, permission);
        client.learn(response);
        match cause {
            Cause::Nonce => {}
            Cause::Token => client.renew(&world),
            Cause::Replayed | Cause::Time | Cause::Unavailable => {
                sleep(BEFORE_RETRY).await;
            }
        }
        permission
    }

    /// Sends one new proof to both nodes at once.
    async fn race(&mut self, client: usize) {
        let world = Arc::clone(&self.world);
        world.counts.add_good();
        let (headers, had) = self.clients[client].request(&world);
        let urls = [0, 1].map(|node| world.nodes[node].url());
        let (one, other) = tokio::join!(
            send(&self.http, urls[0], headers.clone()),
            send(&self.http, urls[1], headers.clone())
        );
        let winners = [&one, &other].map(|response| response.result.is_ok());
        assert_ne!(
            winners,
            [true, true],
            "BOTH NODES ACCEPTED ONE PROOF {:.1?} after the start; {}",
            world.timeline.began().elapsed(),
            world.timeline.recent()
        );
        // A record can only be that of this proof: the other node accepted it, or learnt too late that it made the
        // record.
        for (loser, other) in [(&one, &other), (&other, &one)] {
            let recorded = matches!(other.result, Ok(()) | Err(Cause::Time | Cause::Unavailable));
            assert!(
                loser.result != Err(Cause::Replayed) || recorded,
                "A NEW PROOF WAS A REPLAY {:.1?} after the start: {:?}; {}",
                world.timeline.began().elapsed(),
                other.result,
                world.timeline.recent()
            );
        }
        let count = winners.iter().filter(|&&won| won).count();
        world.counts.add_race(count);
        for (node, response) in [one, other].iter().enumerate() {
            match response.result {
                Ok(()) => {
                    world.counts.add_accepted(response.took);
                    self.clients[client].learn(response);
                    let used = self.keep(headers.clone(), node);
                    self.later_again(used, node);
                }
                // The loser of the race.
                Err(Cause::Replayed) => {}
                Err(cause) => {
                    self.rejected(client, &had, node, cause, response).await;
                }
            }
        }
    }

    /// Keeps an accepted request for [`World::replay_around`].
    fn keep(&self, headers: HeaderMap, node: usize) -> Used {
        let used = Used {
            headers,
            node,
            at: Instant::now(),
        };
        let mut kept = self.world.used.lock().unwrap();
        kept.push_back(used.clone());
        if kept.len() > KEPT {
            kept.pop_front();
        }
        used
    }

    /// Sends an accepted proof again, now or later.
    async fn replay(&mut self, (headers, node): (HeaderMap, usize), how: usize) {
        let used = self.keep(headers, node);
        let world = Arc::clone(&self.world);
        match how % 4 {
            0 => {
                let again = Again::AtOnceToTheSameNode;
                world.replay(&self.http, &used, node, again).await;
            }
            1 => {
                let again = Again::AtOnceToTheOtherNode;
                world.replay(&self.http, &used, 1 - node, again).await;
            }
            2 => {
                let again = Again::ToBothNodesTogether;
                tokio::join!(
                    world.replay(&self.http, &used, 0, again),
                    world.replay(&self.http, &used, 1, again)
                );
            }
            _ => self.later_again(used, how),
        }
    }

    fn later_again(&mut self, used: Used, number: usize) {
        // The window of `iat` is 15 s, and records are kept for up to 41 s.
        let seconds = [2, 6, 10, 13, 16, 21, 30, 45][(number + self.number) % 8];
        let due = Instant::now() + Duration::from_secs(seconds);
        self.later.push_back((due, used));
    }

    async fn replay_due(&mut self, round: usize) {
        let now = Instant::now();
        let Some(next) = self.later.iter().position(|(due, _)| *due <= now) else {
            return;
        };
        let (_, used) = self.later.remove(next).unwrap();
        let world = Arc::clone(&self.world);
        world
            .replay(&self.http, &used, round % 2, Again::Later)
            .await;
    }
}

/// A client that keeps one connection to each node.
pub(super) fn http() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    builder.pool_max_idle_per_host(1).build().unwrap()
}
