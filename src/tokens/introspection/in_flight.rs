//! Introspection requests in flight: simultaneous requests with the same token share one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::sync::Mutex;

/// Introspection requests in flight, by the SHA-256 of the token.
pub(crate) struct InFlight<T>(Mutex<HashMap<[u8; 32], Entry<T>>>);

struct Entry<T> {
    response: Arc<OnceCell<T>>,
    waiters: usize,
}

impl<T: Clone> InFlight<T> {
    /// The response to this introspection request, or to another one in flight with the same token.
    /// A request may be dropped at any time; if it was the one that asked, the next waiter asks
    /// again.
    pub(crate) async fn share(&self, token: &[u8; 32], request: impl Future<Output = T>) -> T {
        let ticket = self.join(*token);
        ticket.response.get_or_init(|| request).await.clone()
    }
}

impl<T> InFlight<T> {
    fn join(&self, token: [u8; 32]) -> Ticket<'_, T> {
        let mut in_flight = self.0.lock();
        let entry = in_flight.entry(token).or_insert_with(|| Entry {
            response: Arc::new(OnceCell::new()),
            waiters: 0,
        });
        entry.waiters += 1;
        Ticket {
            in_flight: self,
            token,
            response: Arc::clone(&entry.response),
        }
    }
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A request that waits for the response.
struct Ticket<'f, T> {
    in_flight: &'f InFlight<T>,
    token: [u8; 32],
    response: Arc<OnceCell<T>>,
}

impl<T> Drop for Ticket<'_, T> {
    /// The first waiter to leave after the response removes the entry, so that later requests ask
    /// again: an error would otherwise last for as long as requests keep coming.
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.0.lock();
        if let Some(entry) = in_flight.get_mut(&self.token)
            && Arc::ptr_eq(&entry.response, &self.response)
        {
            entry.waiters -= 1;
            if entry.waiters == 0 || self.response.initialized() {
                in_flight.remove(&self.token);
            }
        }
    }
}
