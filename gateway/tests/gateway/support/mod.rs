//! What the tests start.

mod frames;
mod client;
mod gateway;
mod parties;
mod raw;
mod service;
mod upstream;
mod wire;

pub use client::Client;
pub use frames::{FramedRequest, Outcome};
pub use gateway::{Gateway, Started};
pub use parties::Parties;
pub use raw::{Raw, RawRequest, Received};
pub use service::Service;
pub use upstream::{Authority, Seen, Upstream};
pub use wire::{Wire, head};

/// A configuration that sends everything to one upstream, with this in its table.
pub fn forwarding_to(upstream: &str) -> String {
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        [[route]]
        path = "/"
        upstream = "orders"
        [[identity]]
        claim = "sub"
        field = "X-Auth-Subject"
        [upstream.orders]
        {upstream}
        "#
    )
}

/// Waits until it is so, a minute at most.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let minute = std::time::Duration::from_secs(60);
    let happened = tokio::time::timeout(minute, wait).await;
    assert!(happened.is_ok(), "it did not happen: {what}");
}
