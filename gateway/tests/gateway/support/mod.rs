//! What the tests start.

mod gateway;
mod parties;
mod service;

pub use gateway::{Gateway, Started};
pub use parties::{PUBLIC_URL, Parties};
pub use service::Service;

/// Waits until there is a value. Panics if there is none for half a minute: what is waited for takes milliseconds.
pub async fn until<T>(what: &str, mut value: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(value) = value().await {
            return value;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}: not within half a minute");
}
