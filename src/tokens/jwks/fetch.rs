//! One fetch of an issuer's keys, in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::sync::Mutex;
use crate::telemetry;
use crate::time::Timestamp;
use crate::tokens::http::EndpointUrl;
use crate::tokens::jwks::documents::{
    Issuer, IssuerDocument, KeyLocation, RemoteKeysError, max_age, read_key_set,
};
use crate::tokens::jwks::schedule::{Held, Pending, State, is_within};
use crate::tokens::key_set::KeySet;

/// Waits for a fetch, for as long as one may take.
///
/// It is driven by the runtime of the request that launched it, which may have fallen idle, or be busy
/// with something else. Then it is given up, and another request may launch the next one.
pub(super) async fn ended(
    mut pending: Pending,
    issuer: &Issuer,
    state: &Mutex<State>,
) -> Result<(), RemoteKeysError> {
    // Two places for metadata, and the keys.
    let patience = 3 * issuer.http.timeout() + Duration::from_secs(1);
    // In a task of its own: a runtime without timers would otherwise take the request down, and not
    // only the fetch.
    let patience =
        Handle::try_current().map(|runtime| runtime.spawn(async move { sleep(patience).await }));
    let abort = patience.as_ref().ok().map(JoinHandle::abort_handle);
    let outcome = tokio::select! {
        outcome = pending.wait_for(Option::is_some) => Some(match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(RemoteKeysError::Interrupted),
        }),
        () = end_of(patience.ok()) => None,
    };
    if let Some(abort) = abort {
        abort.abort();
    }
    if let Some(outcome) = outcome {
        return outcome;
    }
    let mut state = state.lock();
    if state.is_under_way(&pending) {
        state.under_way = None;
        let now = state.asked.unwrap_or(Timestamp::from_unix(0));
        state.failure = Some((RemoteKeysError::TimedOut, now));
    }
    Err(RemoteKeysError::TimedOut)
}

/// Never, where there are no timers.
async fn end_of(patience: Option<JoinHandle<()>>) {
    let has_ended = match patience {
        Some(timer) => timer.await.is_ok(),
        None => false,
    };
    if !has_ended {
        std::future::pending::<()>().await;
    }
}

pub(super) fn launch(fetch: Option<Fetch>) {
    match (fetch, Handle::try_current()) {
        (None, _) => {}
        (Some(fetch), Ok(runtime)) => drop(runtime.spawn(fetch.run())),
        (Some(mut fetch), Err(_)) => fetch.end(Err(RemoteKeysError::NoRuntime)),
    }
}

/// One fetch. However it ends, the state and those who wait learn of it.
pub(super) struct Fetch {
    pub(super) issuer: Arc<Issuer>,
    pub(super) state: Arc<Mutex<State>>,
    /// Where the keys were at the last look, and when that was.
    pub(super) jwks_uri: Option<(Url, Timestamp)>,
    /// For how many seconds that is taken to be so.
    pub(super) longest_life: u64,
    pub(super) held: Option<Held>,
    pub(super) cause: Cause,
    pub(super) began: Timestamp,
    pub(super) outcome: watch::Sender<Option<Result<(), RemoteKeysError>>>,
}

/// Why keys are fetched.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// There were none.
    Start,
    /// They had grown old.
    Scheduled,
    /// They did not verify a token.
    Demanded,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Scheduled => "scheduled",
            Self::Demanded => "demanded",
        }
    }
}

impl Fetch {
    async fn run(mut self) {
        let fetched = self.ask().await;
        self.end(fetched);
    }

    async fn ask(&self) -> Result<((Url, Timestamp), Held), RemoteKeysError> {
        let place = self.place().await?;
        let jwks_uri = &place.0;
        let answer = self.issuer.ask(jwks_uri, IssuerDocument::KeySet).await?;
        let sha256 = Sha256::digest(&answer.body).into();
        let keys = match &self.held {
            Some(held) if held.sha256 == sha256 => held.keys.clone(),
            _ => read_key_set(&answer.body)?,
        };
        let held = Held {
            keys,
            sha256,
            fetched: self.began,
            max_age: max_age(&answer.headers),
        };
        Ok((place, held))
    }

    /// Where the keys are, and since when that is known.
    async fn place(&self) -> Result<(Url, Timestamp), RemoteKeysError> {
        match (&self.issuer.location, &self.jwks_uri) {
            (KeyLocation::Given(url), _) => Ok((url.url().clone(), self.began)),
            (_, Some((url, since))) if is_within(self.longest_life, Some(*since), self.began) => {
                Ok((url.clone(), *since))
            }
            (KeyLocation::Discovered(issuer), known) => {
                let found = self.issuer.discover(issuer).await;
                match (found, known) {
                    (Ok(url), _) => Ok((url, self.began)),
                    // The keys may still be where they were.
                    (Err(reason), Some((url, _))) if reason.is_outage() => {
                        let issuer = self.issuer.location.url();
                        tracing::warn!(%issuer, %reason, "the issuer's metadata could not be read again");
                        Ok((url.clone(), self.began))
                    }
                    (Err(error), _) => Err(error),
                }
            }
        }
    }

    fn end(&mut self, fetched: Result<((Url, Timestamp), Held), RemoteKeysError>) {
        let known = self.held.as_ref().map(|held| &held.keys);
        let mut state = self.state.lock();
        if !state.is_under_way(&self.outcome.subscribe()) {
            // It was given up, and its outcome is of the past.
            self.outcome
                .send_replace(Some(Err(RemoteKeysError::TimedOut)));
            return;
        }
        state.under_way = None;
        let outcome = match fetched {
            Ok((jwks_uri, held)) => {
                let keys = held.keys.clone();
                state.jwks_uri = Some(jwks_uri);
                state.held = Some(held);
                state.failure = None;
                Ok(keys)
            }
            Err(error) => {
                // The keys may have moved.
                state.jwks_uri = None;
                // An attempt that took long ends later than it began: the last request tells when.
                let now = state.asked.unwrap_or(self.began);
                state.failure = Some((error.clone(), now));
                Err(error)
            }
        };
        drop(state);
        let told = outcome.as_ref().map(drop).map_err(Clone::clone);
        self.outcome.send_replace(Some(told));
        report(self.issuer.location.url(), self.cause, known, &outcome);
    }
}

fn report(
    issuer: &EndpointUrl,
    cause: Cause,
    known: Option<&KeySet>,
    outcome: &Result<KeySet, RemoteKeysError>,
) {
    let cause = cause.name();
    let result = match outcome {
        Ok(keys) if known.is_some_and(|known| known.is(keys)) => "unchanged",
        Ok(keys) => {
            tracing::info!(%issuer, cause, keys = keys.len(), "the issuer's keys have changed");
            "changed"
        }
        Err(reason) => {
            tracing::warn!(%issuer, cause, %reason, "the issuer's keys could not be fetched");
            "failed"
        }
    };
    telemetry::key_fetch(cause, result);
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            self.end(Err(RemoteKeysError::Interrupted));
        }
    }
}
