//! Every metric, recorded by requests to a real server, and scraped by a real Prometheus.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::{Json, Router, routing::get, routing::post};
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_dpop::proof::{RedisReplayStore, RedisServer, WhileUnavailable};
use tower_dpop::testing::{TestClient, TestClock, TestIssuer};
use tower_dpop::token_endpoint::{TokenEndpoint, TokenEndpointLayer};
use tower_dpop::tokens::{ClientAuthentication, HttpClient, IntrospectionVerifier};
use tower_dpop::{DpopLayer, JwtVerifier, MemoryReplayStore, ProofRules, RemoteKeys, Verifier};

use super::pages::{dashboard_expressions, of_the_crate, read};
use super::recipe::metrics;
use crate::servers::{Folder, Process, Redis, free_port};

const ISSUER: &str = "https://as.example.com";
const URL: &str = "https://api.example.com";
/// Prometheus needs two scrapes for a rate, and starts slowly on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// Serves a router, and returns its URL.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    url
}

fn clock() -> TestClock {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    TestClock::at(since.unwrap().as_secs())
}

fn rules() -> ProofRules {
    ProofRules::new(URL.parse().unwrap())
}

/// The issuer's keys, and its introspection endpoint.
async fn authorization_server(issuer: &TestIssuer, client: &TestClient) -> String {
    let keys = issuer.jwks();
    let introspected = json!({
        "active": true, "aud": URL, "iss": ISSUER, "cnf": { "jkt": client.key().thumbprint().to_string() },
    });
    serve(
        Router::new()
            .route("/jwks", get(async move || keys))
            .route("/introspect", post(async move || Json(introspected))),
    )
    .await
}

/// A service with every kind of store and verifier.
async fn service(authorization_server: &str, redis: &Redis, gone: Redis) -> String {
    let store = |redis: &Redis| {
        let server = RedisServer::url(&redis.url()).unwrap();
        RedisReplayStore::at(server).with_deadline(Duration::from_secs(5))
    };
    let keys = RemoteKeys::at(
        format!("{authorization_server}/jwks").parse().unwrap(),
        HttpClient::new().unwrap(),
    );
    let jwts = || JwtVerifier::new(ISSUER, URL, keys.clone());
    let layer = |rules, tokens| DpopLayer::new(Verifier::new(rules, tokens));
    let shared = rules().with_replay_store(store(redis).connect().await.unwrap());
    let memory = MemoryReplayStore::with_limit(100);
    let unavailable =
        WhileUnavailable::insecurely_by_node_memory(store(&gone).connect_lazily(), memory);
    drop(gone);
    let introspected = IntrospectionVerifier::new(
        format!("{authorization_server}/introspect")
            .parse()
            .unwrap(),
        ClientAuthentication::basic("orders", "secret"),
        URL,
        HttpClient::new().unwrap(),
    );
    let opaque = DpopLayer::new(Verifier::new(rules(), introspected));
    let token_endpoint = TokenEndpointLayer::new(TokenEndpoint::new(rules()));
    let orders = || get(async || "orders");
    serve(
        Router::new()
            .route("/orders", orders().layer(layer(shared, jwts())))
            .route(
                "/outage",
                orders().layer(layer(rules().with_replay_store(unavailable), jwts())),
            )
            .route("/opaque", orders().layer(opaque))
            .route("/token", post(async || "token").layer(token_endpoint)),
    )
    .await
}

struct Requests {
    http: reqwest::Client,
    service: String,
    client: TestClient,
}

impl Requests {
    async fn send(&self, method: Method, path: &str, headers: HeaderMap) -> u16 {
        let request = self.http.request(method, format!("{}{path}", self.service));
        request
            .headers(headers)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    /// One of each kind, and its replay.
    async fn all(&self) {
        let client = self.client.clone().with_clock(clock());
        for (client, path) in [
            (client.clone(), "/orders"),
            (client.clone(), "/outage"),
            (client.clone().with_token("opaque"), "/opaque"),
        ] {
            let request = client.request(Method::GET, &format!("{URL}{path}"));
            let headers = request.build::<()>().headers().clone();
            for expected in [200, 401] {
                let status = self.send(Method::GET, path, headers.clone()).await;
                assert_eq!(status, expected, "{path}");
            }
        }
        let request = client.token_request(&format!("{URL}/token"));
        let headers = request.build::<()>().headers().clone();
        for expected in [200, 400] {
            assert_eq!(
                self.send(Method::POST, "/token", headers.clone()).await,
                expected
            );
        }
    }
}

/// A Prometheus that scrapes `target` each second, with the alerts of the guide. It ends with its process.
struct Prometheus {
    url: String,
    http: reqwest::Client,
    _process: Process,
    _folder: Folder,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let folder = Folder::new();
        let file = |name: &str| folder.path().join(name);
        let target = target.strip_prefix("http://").unwrap();
        std::fs::write(file("alerts.yml"), read("docs/guide/alerts.yml")).unwrap();
        let settings = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{ "job_name": "orders", "static_configs": [{ "targets": [target] }] }],
        });
        std::fs::write(file("prometheus.json"), settings.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                file("prometheus.json").display()
            ))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path());
        Self {
            url: format!("http://{address}"),
            http: reqwest::Client::new(),
            _process: Process::spawn(&mut command).unwrap(),
            _folder: folder,
        }
    }

    /// The series that an expression gives, or `None` while Prometheus does not respond.
    async fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let request = self.http.post(format!("{}/api/v1/query", self.url));
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", expression)
            .finish();
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let text = request.send().await.ok()?.text().await.ok()?;
        let response: Value = serde_json::from_str(&text).ok()?;
        assert_eq!(response["status"], "success", "{expression}: {response}");
        Some(response["data"]["result"].as_array().unwrap().clone())
    }

    /// The alerts, and how their evaluation went.
    async fn rules(&self) -> Vec<Value> {
        let response = self.http.get(format!("{}/api/v1/rules", self.url)).send();
        let text = response.await.unwrap().text().await.unwrap();
        let response: Value = serde_json::from_str(&text).unwrap();
        response["data"]["groups"][0]["rules"]
            .as_array()
            .unwrap()
            .clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_scraped_and_every_panel_has_data() {
    let metrics = serve(metrics().unwrap()).await;
    let redis = Redis::start();
    let issuer = TestIssuer::new(ISSUER, URL).with_clock(clock());
    let client = TestClient::new(&issuer);
    let authorization_server = authorization_server(&issuer, &client).await;
    let service = service(&authorization_server, &redis, Redis::start()).await;
    let requests = Requests {
        http: reqwest::Client::new(),
        service,
        client,
    };
    requests.all().await;

    let scrape = requests
        .http
        .get(format!("{metrics}/metrics"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        scrape.headers()["content-type"],
        "text/plain; version=0.0.4"
    );
    let scrape = scrape.text().await.unwrap();
    let described: BTreeSet<_> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let recorded: BTreeSet<_> = described
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    for name in of_the_crate() {
        assert!(
            recorded.contains(name.as_str()),
            "{name} is not in\n{scrape}"
        );
        assert!(
            scrape.contains(&format!("# HELP {name} ")),
            "{name} is not described"
        );
    }
    for histogram in [
        "tower_dpop_clock_skew_seconds",
        "tower_dpop_replay_claim_seconds",
    ] {
        assert!(
            described.contains(format!("{histogram} histogram").as_str()),
            "{histogram}"
        );
    }

    // Prometheus scrapes while requests arrive, until each panel shows something.
    let prometheus = Prometheus::start(&metrics);
    let began = Instant::now();
    let mut missing = dashboard_expressions();
    while !missing.is_empty() {
        assert!(began.elapsed() < LIMIT, "without data: {missing:?}");
        requests.all().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut still_missing = Vec::new();
        for (title, expression) in missing {
            let series = prometheus.query(&expression).await.unwrap_or_default();
            let has_data = series.iter().any(|one| one["value"][1] != "NaN");
            if !has_data {
                still_missing.push((title, expression));
            }
        }
        missing = still_missing;
    }
    // The alerts are evaluated without an error.
    let began = Instant::now();
    let is_ok = |rule: &Value| rule["health"] == "ok";
    loop {
        let rules = prometheus.rules().await;
        if rules.len() == 4 && rules.iter().all(is_ok) {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{rules:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
