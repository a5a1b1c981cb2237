//! Proxies of the environment. Each test runs itself in a process whose environment names one that does not exist.

use std::env;
use std::process::Command;

use super::World;

const INNER: &str = "TOWER_DPOP_TEST_INNER";

/// Plain `http` is accepted on the loopback because it stays on this machine.
#[tokio::test]
async fn plain_http_is_not_sent_to_a_proxy_of_the_environment() {
    if env::var_os(INNER).is_none() {
        let test =
            "client::dpop_client::proxies::plain_http_is_not_sent_to_a_proxy_of_the_environment";
        let closed = "http://127.0.0.1:1";
        let inner = Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .env(INNER, "1")
            .envs(["http_proxy", "HTTP_PROXY", "ALL_PROXY"].map(|name| (name, closed)))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&inner.stdout);
        assert!(inner.status.success(), "{output}");
        assert!(output.contains("1 passed"), "{output}");
        return;
    }
    let world = World::start().await;
    let client = world.client().await;
    let response = client.get(world.orders()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    // The settings of the caller decide.
    let with = |http| world.builder().with_http(http).unwrap();
    let http = reqwest::Client::builder;
    with(http().no_proxy()).build().await.unwrap();
    let for_https = reqwest::Proxy::https("http://127.0.0.1:1").unwrap();
    with(http().proxy(for_https)).build().await.unwrap();
    assert!(with(http()).build().await.is_err(), "the proxy is named");
}
