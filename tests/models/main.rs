//! Models that loom runs in every order of their threads' steps.
#![cfg(tower_dpop_loom)]

#[path = "../../src/tokens/introspection/in_flight.rs"]
mod in_flight;
#[path = "../../src/sync.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "`in_flight` uses a part of this file"
)]
mod sync;

mod introspection;
mod nonces;
mod replay_store;
mod token_cache;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// Runs the model in every order, and prints how many there are. They must be about as many as when it was written:
/// otherwise, threads do not meet any more.
fn explore(name: &str, at_least: usize, model: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("{name}: {orders} orders");
    assert!(orders >= at_least, "{name}: too few orders");
}

/// Polls until the future is ready, and lets other threads run in between. The waker does nothing: a waker of loom is a
/// step of its own, which must not happen inside a lock of tokio.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(result) => return result,
            Poll::Pending => loom::thread::yield_now(),
        }
    }
}
