//! Questions under way: requests with one token at one time share one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::sync::Mutex;

/// Questions under way, by the SHA-256 of the token.
pub(crate) struct InFlight<T>(Mutex<HashMap<[u8; 32], Entry<T>>>);

struct Entry<T> {
    answer: Arc<OnceCell<T>>,
    waiters: usize,
}

impl<T: Clone> InFlight<T> {
    /// The answer to the question, or to that of another request with this token. A request may be
    /// dropped at any time; if it was the one that asked, the next in line asks again.
    pub(crate) async fn share(&self, token: &[u8; 32], question: impl Future<Output = T>) -> T {
        let ticket = self.join(*token);
        ticket.answer.get_or_init(|| question).await.clone()
    }
}

impl<T> InFlight<T> {
    fn join(&self, token: [u8; 32]) -> Ticket<'_, T> {
        let mut in_flight = self.0.lock();
        let entry = in_flight.entry(token).or_insert_with(|| Entry {
            answer: Arc::new(OnceCell::new()),
            waiters: 0,
        });
        entry.waiters += 1;
        Ticket {
            in_flight: self,
            token,
            answer: Arc::clone(&entry.answer),
        }
    }
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A request's part in a question.
struct Ticket<'f, T> {
    in_flight: &'f InFlight<T>,
    token: [u8; 32],
    answer: Arc<OnceCell<T>>,
}

impl<T> Drop for Ticket<'_, T> {
    /// The first to leave after the answer takes the entry off the list, so that nobody joins who
    /// came later: an error would otherwise last for as long as requests keep coming.
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.0.lock();
        if let Some(entry) = in_flight.get_mut(&self.token)
            && Arc::ptr_eq(&entry.answer, &self.answer)
        {
            entry.waiters -= 1;
            if entry.waiters == 0 || self.answer.initialized() {
                in_flight.remove(&self.token);
            }
        }
    }
}
