//! Metrics for Prometheus.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use http::Method;
use tower_dpop::testing::Defect;

use crate::support::{Gateway, Parties, Service, Started, first_column, until};

/// All kinds of routes. Nothing listens at the discard port.
fn gateway(parties: &Parties, service: &Service) -> Gateway {
    let config = format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        [operations]
        address = "127.0.0.1:0"
        [upstream.orders]
        servers = ["{url}"]
        [upstream.two-servers]
        servers = ["{url}", "http://127.0.0.1:9"]
        [upstream.nowhere]
        servers = ["http://127.0.0.1:9"]
        [[route]]
        path = "/orders"
        upstream = "orders"
        [[route]]
        path = "/down"
        upstream = "nowhere"
        "#,
        url = service.url
    );
    Gateway::new(parties, &config)
}

async fn scrape(gateway: &Started) -> String {
    let response = reqwest::get(format!("{}/metrics", gateway.url("operations")))
        .await
        .unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4"
    );
    response.text().await.unwrap()
}

/// The value of a series, which is written as Prometheus writes it.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// A request is counted after its response was sent.
async fn counted(gateway: &Started, series: &str, expected: f64) {
    until(series, async || {
        (value(&scrape(gateway).await, series) == Some(expected)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted_by_route_status_and_decision() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = gateway(&parties, &service).start();
    let request = parties.request(Method::GET, "/orders");
    gateway.send(&request).await;
    gateway.send(&request).await;
    gateway
        .send(&request.again().with_defect(Defect::TooOld))
        .await;
    gateway.send(&parties.request(Method::GET, "/down")).await;
    gateway.send(&parties.request(Method::GET, "/other")).await;
    let counts = [
        (
            r#"dpop_gateway_requests_total{route="/orders",status="2xx",decision="accepted"}"#,
            1.0,
        ),
        (
            r#"dpop_gateway_requests_total{route="/orders",status="4xx",decision="rejected"}"#,
            2.0,
        ),
        (
            r#"dpop_gateway_requests_total{route="/down",status="5xx",decision="accepted"}"#,
            1.0,
        ),
        (
            r#"dpop_gateway_requests_total{route="none",status="4xx",decision="not_found"}"#,
            1.0,
        ),
        (
            r#"dpop_gateway_request_seconds_count{route="/orders"}"#,
            3.0,
        ),
        (
            r#"dpop_gateway_request_seconds_bucket{route="/orders",le="60"}"#,
            3.0,
        ),
        (
            r#"dpop_gateway_upstream_failures_total{upstream="nowhere",reason="connect"}"#,
            1.0,
        ),
        ("dpop_gateway_requests_in_flight", 0.0),
        (
            r#"dpop_gateway_upstream_healthy_servers{upstream="orders"}"#,
            1.0,
        ),
        (
            r#"dpop_gateway_upstream_healthy_servers{upstream="two-servers"}"#,
            2.0,
        ),
        (r#"dpop_gateway_reloads_total{result="failed"}"#, 0.0),
        (
            concat!(
                "dpop_gateway_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"}"
            ),
            1.0,
        ),
        (
            r#"tower_dpop_requests_total{decision="rejected",scheme="dpop",reason="proof_replayed"}"#,
            1.0,
        ),
        (
            r#"tower_dpop_clock_skew_seconds_bucket{decision="accepted",le="3600"}"#,
            2.0,
        ),
    ];
    for (series, expected) in counts {
        counted(&gateway, series, expected).await;
    }
    let metrics = scrape(&gateway).await;
    for positive in [
        "process_start_time_seconds",
        "process_resident_memory_bytes",
        "dpop_gateway_config_loaded_timestamp_seconds",
    ] {
        assert!(
            value(&metrics, positive).is_some_and(|value| value > 1e6),
            "{positive}"
        );
    }
}

#[tokio::test]
async fn prometheus_can_read_them() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = gateway(&parties, &service).start();
    gateway.send(&parties.request(Method::GET, "/orders")).await;
    gateway.send(&parties.request(Method::GET, "/down")).await;
    counted(
        &gateway,
        r#"dpop_gateway_request_seconds_count{route="/down"}"#,
        1.0,
    )
    .await;
    let metrics = scrape(&gateway).await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: on Debian, apt-get install prometheus");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}\n{metrics}");
    assert_eq!(complaints, "");
}

/// Whatever clients send, there are as many series as before.
#[tokio::test]
async fn clients_cannot_add_series() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = gateway(&parties, &service).start();
    let series = async |count: usize| {
        let counted_requests =
            r#"dpop_gateway_requests_total{route="none",status="4xx",decision="not_found"}"#;
        #[expect(clippy::cast_precision_loss)]
        counted(&gateway, counted_requests, count as f64).await;
        let metrics = scrape(&gateway).await;
        let names = metrics
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        names
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .filter(|name| name.contains("dpop"))
            .collect::<BTreeSet<_>>()
    };
    let send = async |method: &str, path: String| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        gateway.send(&parties.request(method, &path)).await;
    };
    send("GET", "/first".to_owned()).await;
    let before = series(1).await;
    for number in 2..=20 {
        send(&format!("METHOD{number}"), format!("/path{number}")).await;
    }
    assert_eq!(series(20).await, before);
}

/// A service may respond with 500. That is its response, and not a failure of the gateway.
#[tokio::test]
async fn errors_of_a_service_are_its_own() {
    let parties = Parties::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut service = Service::default();
    service.url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(async || http::StatusCode::INTERNAL_SERVER_ERROR);
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    let gateway = gateway(&parties, &service).start();
    let response = gateway.send(&parties.request(Method::GET, "/orders")).await;
    assert_eq!(response.status(), 500);
    let series = r#"dpop_gateway_requests_total{route="/orders",status="5xx",decision="accepted"}"#;
    counted(&gateway, series, 1.0).await;
    let metrics = scrape(&gateway).await;
    assert!(!metrics.contains("upstream_failures_total{"), "{metrics}");
    let log = gateway.log();
    assert!(
        log.contains("status=500") && !log.contains("ERROR"),
        "{log}"
    );
}

#[tokio::test]
async fn a_request_is_in_flight_until_it_ends() {
    let parties = Parties::new();
    // Accepts a connection, and sends nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut service = Service::default();
    service.url = format!("http://{}", silent.local_addr().unwrap());
    let gateway = gateway(&parties, &service).start();
    let request = parties.request(Method::GET, "/orders");
    let sent = async {
        tokio::select! {
            response = gateway.send(&request) => panic!("{}", response.status()),
            () = counted(&gateway, "dpop_gateway_requests_in_flight", 1.0) => {}
        }
    };
    sent.await;
    // The client has gone, which is no fault of the service.
    counted(&gateway, "dpop_gateway_requests_in_flight", 0.0).await;
    let metrics = scrape(&gateway).await;
    assert!(!metrics.contains("upstream_failures_total{"), "{metrics}");
    drop(silent);
}

#[tokio::test]
async fn the_page_lists_all_metrics() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = gateway(&parties, &service).start();
    gateway.send(&parties.request(Method::GET, "/down")).await;
    counted(
        &gateway,
        r#"dpop_gateway_request_seconds_count{route="/down"}"#,
        1.0,
    )
    .await;
    let metrics = scrape(&gateway).await;
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.map(|line| line.split(' ').next().unwrap().to_owned());
    let own: BTreeSet<_> = names
        .filter(|name| name.starts_with("dpop_gateway_"))
        .collect();
    assert_eq!(own, first_column("Metrics"));
    // The alerts name no others.
    let alerts = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/guide/gateway-alerts.yml"
    );
    let alerts = std::fs::read_to_string(alerts).unwrap();
    let words = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("dpop_gateway_")) {
        assert!(own.contains(name), "{name}");
    }
}

#[test]
fn alerts_fire_when_they_should() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway/alerts.test.yml");
    let rules = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/guide/gateway-alerts.yml"
    );
    for arguments in [["check", "rules", rules], ["test", "rules", tests]] {
        let output = Command::new("promtool").args(arguments).output();
        let output = output.expect("promtool: on Debian, apt-get install prometheus");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
    }
}
