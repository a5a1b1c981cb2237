//! What the gateway needs is unreachable: at the start, later, and while the configuration is read again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::servers::Redis;
use crate::support::{Gateway, Parties, Program, Service, until};

fn configuration(service: &str) -> String {
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        [upstream.orders]
        servers = ["{service}"]
        [[route]]
        path = "/"
        upstream = "orders"
        "#
    )
}

/// The keys of the issuer, which are there or not.
struct Issuer {
    url: String,
    works: Arc<AtomicBool>,
}

impl Issuer {
    async fn start(parties: &Parties) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let works = Arc::new(AtomicBool::new(false));
        let (jwks, state) = (parties.issuer.jwks(), Arc::clone(&works));
        let keys = get(async move || {
            if state.load(Ordering::Relaxed) {
                Ok(jwks.clone())
            } else {
                Err(StatusCode::SERVICE_UNAVAILABLE)
            }
        });
        let app = Router::new().route("/jwks", keys);
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        Self { url, works }
    }

    fn works(&self, works: bool) {
        self.works.store(works, Ordering::Relaxed);
    }
}

async fn status(parties: &Parties, program: &Program) -> u16 {
    let client = program.client(reqwest::Client::builder());
    let request = parties.request(Method::GET, "/orders");
    let client = client.build().unwrap();
    program.send(&client, &request).await.unwrap()
}

/// Sends requests until one has this status. All before have the other.
async fn becomes(parties: &Parties, program: &Program, before: u16, then: u16) {
    let began = std::time::Instant::now();
    loop {
        let status = status(parties, program).await;
        if status == then {
            return;
        }
        assert_eq!(status, before, "{}", program.log());
        assert!(
            began.elapsed().as_secs() < 60,
            "still {before}:\n{}",
            program.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_may_be_unreachable_at_the_start_and_later() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let issuer = Issuer::start(&parties).await;
    let dpop = "start_timeout_seconds = 0";
    let gateway = Gateway::with_dpop(&parties, dpop, &configuration(&service.url));
    let file = gateway.folder.path().join("jwks.json");
    let (file, url) = (format!("jwks_file = {file:?}"), &issuer.url);
    let program = Program::start(gateway.edited(
        &file,
        &format!("jwks_url = \"{url}\"\ninsecure_http = true"),
    ));
    assert_eq!(status(&parties, &program).await, 503);
    assert!(service.received().is_empty());
    issuer.works(true);
    becomes(&parties, &program, 503, 200).await;
    issuer.works(false);
    assert_eq!(status(&parties, &program).await, 200);
    // The keys are kept, whatever changes in [dpop].
    program.edit("public_url = ", "realm = \"orders\"\npublic_url = ");
    program.reload();
    assert_eq!(status(&parties, &program).await, 200);
}

/// Without a request, and without a question about readiness.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_at_the_start() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let issuer = Issuer::start(&parties).await;
    let gateway = Gateway::new(&parties, &configuration(&service.url));
    let file = gateway.folder.path().join("jwks.json");
    let program = Program::start(gateway.edited(
        &format!("jwks_file = {file:?}"),
        &format!("jwks_url = \"{}\"\ninsecure_http = true", issuer.url),
    ));
    until("the log has the outage", async || {
        let log = program.log();
        log.contains("the issuer's keys could not be fetched")
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_issuer_that_is_unreachable_does_not_stop_a_reload() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let issuer = Issuer::start(&parties).await;
    let dpop = "start_timeout_seconds = 0";
    let gateway = Gateway::with_dpop(&parties, dpop, &configuration(&service.url));
    let program = Program::start(gateway);
    let other = format!(
        "[[dpop.issuer]]\nurl = \"https://other.example.com\"\njwks_url = \"{}\"\ninsecure_http = true\n[[listener]]",
        issuer.url
    );
    program.edit("[[listener]]", &other);
    program.reload();
    assert_eq!(status(&parties, &program).await, 200);
}

/// With this Redis.
fn with_redis(parties: &Parties, service: &Service, redis: &Redis, start_timeout: u64) -> Gateway {
    let dpop = format!(
        "start_timeout_seconds = {start_timeout}\nredis = {{ url = \"{}\" }}",
        redis.url()
    );
    Gateway::with_dpop(parties, &dpop, &configuration(&service.url))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_with_one_redis_accept_a_proof_once() {
    let (parties, service, mut redis) = (Parties::new(), Service::start().await, Redis::start());
    let start = || Program::start(with_redis(&parties, &service, &redis, 30));
    let gateways = [start(), start()];
    let request = parties.request(Method::GET, "/orders");
    for (program, expected) in gateways.iter().zip([200, 401]) {
        let client = program.client(reqwest::Client::builder()).build().unwrap();
        assert_eq!(program.send(&client, &request).await.unwrap(), expected);
    }
    redis.kill();
    for program in &gateways {
        becomes(&parties, program, 200, 503).await;
    }
    redis.restart();
    for program in &gateways {
        becomes(&parties, program, 503, 200).await;
    }
}

/// The ids of the connections that Redis has, without that of the question.
fn connections(redis: &Redis) -> BTreeSet<String> {
    let list = redis.run(&["CLIENT", "LIST"]).text();
    let others = list.lines().filter(|line| !line.contains("cmd=client"));
    let ids = others.filter_map(|line| line.split(' ').next());
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_connection_to_redis() {
    let (parties, service, redis) = (Parties::new(), Service::start().await, Redis::start());
    let program = Program::start(with_redis(&parties, &service, &redis, 30));
    let client = program.client(reqwest::Client::builder()).build().unwrap();
    let request = parties.request(Method::GET, "/orders");
    assert_eq!(program.send(&client, &request).await.unwrap(), 200);
    let before = connections(&redis);
    assert!(!before.is_empty());
    program.edit("public_url = ", "realm = \"orders\"\npublic_url = ");
    program.reload();
    assert_eq!(program.send(&client, &request).await.unwrap(), 401);
    assert_eq!(status(&parties, &program).await, 200);
    let after = connections(&redis);
    assert!(before.is_subset(&after), "{before:?}, then {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_unreachable_at_the_start_if_no_start_timeout_is_set() {
    let (parties, service, mut redis) = (Parties::new(), Service::start().await, Redis::start());
    redis.kill();
    let (code, said) = Program::fails(with_redis(&parties, &service, &redis, 1));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("dpop: redis.url: "), "{said}");
    let program = Program::start(with_redis(&parties, &service, &redis, 0));
    assert_eq!(status(&parties, &program).await, 503);
    redis.restart();
    becomes(&parties, &program, 503, 200).await;
}
