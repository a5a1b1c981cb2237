//! One fetch of an issuer's keys, in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::issuer::endpoint_url::EndpointUrl;
use crate::outage::Outage;
use crate::sync::Mutex;
use crate::telemetry;
use crate::time::Timestamp;
use crate::tokens::jwks::documents::{Issuer, KeyLocation, RemoteKeysError, max_age, read_key_set};
use crate::tokens::jwks::schedule::{Held, Pending, State, is_within};
use crate::tokens::key_set::KeySet;

/// Waits for a fetch, at most for as long as one may take.
///
/// The fetch runs on the runtime of the request that launched it. If that runtime has become idle,
/// or is busy with something else, the fetch is abandoned, and another request may launch the next
/// one.
pub(super) async fn ended(
    mut pending: Pending,
    issuer: &Issuer,
    state: &Mutex<State>,
) -> Result<(), RemoteKeysError> {
    // Two exchanges for the metadata, and one for the keys.
    let deadline = issuer
        .http
        .timeout()
        .saturating_mul(3)
        .saturating_add(Duration::from_secs(1));
    // In a task of its own: in a runtime without timers, the request would otherwise panic, and not
    // only the fetch.
    let deadline =
        Handle::try_current().map(|runtime| runtime.spawn(async move { sleep(deadline).await }));
    let abort = deadline.as_ref().ok().map(JoinHandle::abort_handle);
    let outcome = tokio::select! {
        outcome = pending.wait_for(Option::is_some) => Some(match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(RemoteKeysError::Interrupted),
        }),
        () = end_of(deadline.ok()) => None,
    };
    if let Some(abort) = abort {
        abort.abort();
    }
    if let Some(outcome) = outcome {
        return outcome;
    }
    abandon(&pending, state);
    Err(RemoteKeysError::TimedOut)
}

/// Gives up a fetch, if it is still the current one.
pub(super) fn abandon(pending: &Pending, state: &Mutex<State>) {
    let mut state = state.lock();
    if state.is_under_way(pending) {
        state.under_way = None;
        let now = state.asked.unwrap_or(Timestamp::from_unix(0));
        state.failure = Some((RemoteKeysError::TimedOut, now));
    }
}

/// Waits for the timer; forever, if there are no timers.
async fn end_of(deadline: Option<JoinHandle<()>>) {
    let has_ended = match deadline {
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

/// One fetch. However it ends, its outcome reaches the state and the requests that wait for it.
pub(super) struct Fetch {
    pub(super) issuer: Arc<Issuer>,
    pub(super) state: Arc<Mutex<State>>,
    /// The last known URL of the keys, and since when it is known.
    pub(super) jwks_uri: Option<(Url, Timestamp)>,
    /// For how many seconds that URL is considered current.
    pub(super) max_lifetime: u64,
    pub(super) held: Option<Held>,
    pub(super) cause: Cause,
    pub(super) began: Timestamp,
    pub(super) outcome: watch::Sender<Option<Result<(), RemoteKeysError>>>,
}

/// Why keys are fetched.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// There were no keys.
    Start,
    /// The keys had reached the age at which they are renewed.
    Scheduled,
    /// The keys did not verify a token.
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
        let fetched = self.fetch_keys().await;
        self.end(fetched);
    }

    async fn fetch_keys(&self) -> Result<((Url, Timestamp), Held), RemoteKeysError> {
        let place = self.place().await?;
        let jwks_uri = &place.0;
        let response = self.issuer.get_key_set(jwks_uri).await?;
        let sha256 = Sha256::digest(&response.body).into();
        let keys = match &self.held {
            Some(held) if held.sha256 == sha256 => held.keys.clone(),
            _ => read_key_set(&response.body, self.issuer.location.url())?,
        };
        let held = Held {
            keys,
            sha256,
            fetched: self.began,
            max_age: max_age(&response.headers),
        };
        Ok((place, held))
    }

    /// The URL of the keys, and since when it is known.
    async fn place(&self) -> Result<(Url, Timestamp), RemoteKeysError> {
        match (&self.issuer.location, &self.jwks_uri) {
            (KeyLocation::Given(url), _) => Ok((url.url().clone(), self.began)),
            (_, Some((url, since))) if is_within(self.max_lifetime, Some(*since), self.began) => {
                Ok((url.clone(), *since))
            }
            (KeyLocation::Discovered { issuer, metadata }, known) => {
                let found = self.issuer.discover(issuer, metadata.as_ref()).await;
                match (found, known) {
                    (Ok(url), _) => Ok((url, self.began)),
                    // The keys may still be at the same URL.
                    (Err(reason), Some((url, _))) if reason.is_outage() => {
                        let issuer = self.issuer.location.url();
                        tracing::warn!(%issuer, %reason, "the issuer's metadata could not be fetched again");
                        Ok((url.clone(), self.began))
                    }
                    (Err(error), _) => Err(error),
                }
            }
        }
    }

    pub(super) fn end(&mut self, fetched: Result<((Url, Timestamp), Held), RemoteKeysError>) {
        let known = self.held.as_ref().map(|held| &held.keys);
        let mut state = self.state.lock();
        if !state.is_under_way(&self.outcome.subscribe()) {
            // The fetch was abandoned, and its outcome is outdated.
            self.outcome
                .send_replace(Some(Err(RemoteKeysError::TimedOut)));
            return;
        }
        state.under_way = None;
        // A slow attempt ends long after it began: the time of the last request is closer to now.
        let now = state.asked.unwrap_or(self.began);
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
                state.failure = Some((error.clone(), now));
                Err(error)
            }
        };
        drop(state);
        let result = outcome.as_ref().map(drop).map_err(Clone::clone);
        self.outcome.send_replace(Some(result));
        let outage = &self.issuer.outage;
        report(
            self.issuer.location.url(),
            self.cause,
            known,
            &outcome,
            outage,
            now,
        );
    }
}

/// The log repeats no failure for the same reason, and says how long an outage was.
fn report(
    issuer: &EndpointUrl,
    cause: Cause,
    known: Option<&KeySet>,
    outcome: &Result<KeySet, RemoteKeysError>,
    outage: &Outage,
    now: Timestamp,
) {
    let cause = cause.name();
    let result = match outcome {
        Ok(keys) => {
            let outage_seconds = outage.succeeded(0, now);
            if known.is_none() {
                tracing::info!(%issuer, cause, keys = keys.len(), outage_seconds, "the issuer's keys were fetched");
                "changed"
            } else if known.is_some_and(|known| !known.is(keys)) {
                tracing::info!(%issuer, cause, keys = keys.len(), outage_seconds, "the issuer's keys have changed");
                "changed"
            } else {
                if outage_seconds.is_some() {
                    tracing::info!(%issuer, cause, keys = keys.len(), outage_seconds, "the issuer's keys can be fetched again, and have not changed");
                }
                "unchanged"
            }
        }
        Err(reason) => {
            if outage.failed(reason.to_string(), now) {
                let known_keys = known.map_or(0, KeySet::len);
                tracing::warn!(%issuer, cause, %reason, known_keys, "the issuer's keys could not be fetched");
            }
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
