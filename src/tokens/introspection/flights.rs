//! Questions under way: requests with one token at one time share one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::sync::Mutex;

/// Questions under way, by the SHA-256 of the token.
pub(crate) struct Flights<T>(Mutex<HashMap<[u8; 32], Flight<T>>>);

struct Flight<T> {
    answer: Arc<OnceCell<T>>,
    aboard: usize,
}

impl<T: Clone> Flights<T> {
    /// The answer to the question, or to that of another request with this token. A request may be
    /// dropped at any time; if it was the one that asked, the next in line asks again.
    pub(crate) async fn share(&self, token: &[u8; 32], question: impl Future<Output = T>) -> T {
        let seat = self.board(*token);
        seat.answer.get_or_init(|| question).await.clone()
    }
}

impl<T> Flights<T> {
    fn board(&self, token: [u8; 32]) -> Seat<'_, T> {
        let mut flights = self.0.lock();
        let flight = flights.entry(token).or_insert_with(|| Flight {
            answer: Arc::new(OnceCell::new()),
            aboard: 0,
        });
        flight.aboard += 1;
        Seat {
            flights: self,
            token,
            answer: Arc::clone(&flight.answer),
        }
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A request's part in a question.
struct Seat<'f, T> {
    flights: &'f Flights<T>,
    token: [u8; 32],
    answer: Arc<OnceCell<T>>,
}

impl<T> Drop for Seat<'_, T> {
    /// The first to leave after the answer takes the flight off the list, so that nobody joins who
    /// came later: an error would otherwise last for as long as requests keep coming.
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        if let Some(flight) = flights.get_mut(&self.token)
            && Arc::ptr_eq(&flight.answer, &self.answer)
        {
            flight.aboard -= 1;
            if flight.aboard == 0 || self.answer.initialized() {
                flights.remove(&self.token);
            }
        }
    }
}
