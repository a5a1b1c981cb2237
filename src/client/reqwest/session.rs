//! The current access token: which one it is, and when it is renewed.
//!
//! ```text
//!  obtained            renewed early: one task asks,          expired: all
//!     │                requests go on with this token         requests wait
//!     ├──────────────────────────┬────────────────────────────────┬─────▶
//!                          80% of the lifetime,                expires_in
//!                    or 60 seconds before its end
//! ```
//!
//! Nothing happens between requests: there are no timers. Each renewal runs in a task of its own, because a request may be
//! dropped at any time, and a new refresh token must not be lost with it. All requests that need a token wait for the same task.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::sync::watch;
use tokio::time;

use crate::client::reqwest::error::DpopClientError;
use crate::client::reqwest::grants::Grants;
use crate::client::reqwest::refresh_token::RefreshToken;
use crate::client::token::{AccessTokenText, TokenResponse, TokenSource, TokenSourceError};
use crate::sync::Mutex;
use crate::time::Clock;

/// A token is renewed this long before it expires, or when a fifth of its lifetime is left, whichever is later.
const MAX_LEAD: Duration = Duration::from_secs(60);

/// After a failed renewal, requests go on with the current token, and the next attempt is made after this time.
const PAUSE: Duration = Duration::from_secs(10);

/// The same without a valid token. Until then, requests fail with the error of the last attempt: each attempt presents the
/// refresh token, which a server that received it before takes for a stolen one.
const PAUSE_WITHOUT_TOKEN: Duration = Duration::from_secs(1);

/// A token that a server rejects sooner than this is not replaced: the next one would be rejected, too.
const MIN_AGE: Duration = Duration::from_secs(10);

/// How long a renewal may take, including the signatures of a remote key.
const MAX_RENEWAL: Duration = Duration::from_secs(60);

/// Is called with each new refresh token.
pub(crate) type Keep = Arc<dyn Fn(&RefreshToken) + Send + Sync>;

/// What the next token is requested with.
pub(crate) enum Renewable {
    ByClientCredentials,
    ByRefreshToken(RefreshToken),
    Never,
}

/// Clones share the token.
#[derive(Clone)]
pub(crate) struct Session(Arc<Shared>);

struct Shared {
    grants: Grants,
    keep: Option<Keep>,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    renewable: Renewable,
    held: Option<Held>,
    /// The outcome of the renewal in progress.
    renewal: Option<watch::Receiver<Option<Outcome>>>,
    /// Of the last renewal.
    failure: Option<Failure>,
}

struct Failure {
    reason: Arc<DpopClientError>,
    at: SystemTime,
}

impl State {
    /// Why the last renewal failed, if that was less than this time ago.
    fn failed_within(&self, pause: Duration, now: SystemTime) -> Option<&Arc<DpopClientError>> {
        let failure = self.failure.as_ref()?;
        // If the clock was set back, the pause is over.
        let age = now.duration_since(failure.at).ok()?;
        (age < pause).then_some(&failure.reason)
    }
}

type Outcome = Result<AccessTokenText, Arc<DpopClientError>>;

struct Held {
    response: TokenResponse,
    obtained: SystemTime,
}

impl Held {
    fn token(&self) -> &AccessTokenText {
        self.response.access_token()
    }

    /// `None` for a token whose lifetime is not known: it is used until a server rejects it.
    fn lifetime(&self) -> Option<Duration> {
        self.response.expires_in()
    }

    fn has_expired(&self, now: SystemTime) -> bool {
        self.lifetime()
            .is_some_and(|lifetime| self.age(now) >= lifetime)
    }

    fn is_due(&self, now: SystemTime) -> bool {
        self.lifetime().is_some_and(|lifetime| {
            let lead = MAX_LEAD.min(lifetime / 5);
            self.age(now) >= lifetime.saturating_sub(lead)
        })
    }

    /// Zero if the clock was set back.
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.obtained).unwrap_or_default()
    }
}

impl Session {
    pub(crate) fn new(
        grants: Grants,
        keep: Option<Keep>,
        clock: Clock,
        renewable: Renewable,
    ) -> Self {
        Self(Arc::new(Shared {
            grants,
            keep,
            clock,
            state: Mutex::new(State {
                renewable,
                held: None,
                renewal: None,
                failure: None,
            }),
        }))
    }

    /// The token to present now. Requests a new one if there is none, or if it has expired.
    async fn current(&self) -> Outcome {
        let now = self.0.clock.read();
        let renewal = {
            let mut state = self.0.state.lock();
            match &state.held {
                Some(held) if !held.has_expired(now) => {
                    let (token, is_due) = (held.token().clone(), held.is_due(now));
                    if is_due && state.failed_within(PAUSE, now).is_none() {
                        self.start(&mut state);
                    }
                    return Ok(token);
                }
                _ => match state.failed_within(PAUSE_WITHOUT_TOKEN, now) {
                    Some(reason) => return Err(Arc::clone(reason)),
                    None => self.start(&mut state),
                },
            }
        };
        outcome_of(renewal).await
    }

    /// The response that the token to present now came with.
    pub(crate) async fn response(&self) -> Result<TokenResponse, Arc<DpopClientError>> {
        self.current().await?;
        let state = self.0.state.lock();
        let held = state.held.as_ref();
        Ok(held.ok_or(DpopClientError::LoginRequired)?.response.clone())
    }

    /// Replaces a token that a server has rejected, unless this has already happened. Returns whether there is another one.
    pub(crate) async fn replace(&self, rejected: &HeaderValue) -> bool {
        let now = self.0.clock.read();
        let (renewal, refreshes) = {
            let mut state = self.0.state.lock();
            match &state.held {
                Some(held) if held.token().authorization() != rejected => return true,
                Some(held) if held.age(now) < MIN_AGE => return false,
                _ if state.failed_within(PAUSE, now).is_some() => return false,
                _ => {}
            }
            let refreshes = matches!(state.renewable, Renewable::ByRefreshToken(_));
            (self.start(&mut state), refreshes)
        };
        match outcome_of(renewal).await {
            Ok(_) => true,
            Err(reason) => {
                // Both servers have ended the session. The next request gets this error.
                if refreshes && matches!(*reason, DpopClientError::LoginRequired) {
                    self.0.state.lock().held = None;
                }
                false
            }
        }
    }

    /// Waits for the end of the renewal in progress.
    pub(crate) async fn wait_for_renewal(&self) {
        let renewal = self.0.state.lock().renewal.clone();
        if let Some(renewal) = renewal {
            let _: Outcome = outcome_of(renewal).await;
        }
    }

    /// Starts a renewal, unless one is in progress.
    fn start(&self, state: &mut State) -> watch::Receiver<Option<Outcome>> {
        // The sender is gone if the runtime of the task has ended.
        if let Some(renewal) = &state.renewal
            && renewal.has_changed().is_ok()
        {
            return renewal.clone();
        }
        let (sender, renewal) = watch::channel(None);
        state.renewal = Some(renewal.clone());
        tokio::spawn(self.clone().renew(sender));
        renewal
    }

    async fn renew(self, sender: watch::Sender<Option<Outcome>>) {
        // Before the request: a lifetime begins when the token is issued.
        let began = self.0.clock.read();
        let response = time::timeout(MAX_RENEWAL, self.request())
            .await
            .unwrap_or_else(|_| Err(DpopClientError::Unreachable("it took too long".to_owned())));
        let outcome = match response {
            Ok(response) => Ok(self.accept(&response, began)),
            Err(error) => Err(self.fail(error)),
        };
        self.0.state.lock().renewal = None;
        sender.send_replace(Some(outcome));
    }

    async fn request(&self) -> Result<TokenResponse, DpopClientError> {
        let refresh_token = match &self.0.state.lock().renewable {
            Renewable::ByClientCredentials => None,
            Renewable::ByRefreshToken(token) => Some(token.clone()),
            Renewable::Never => return Err(DpopClientError::LoginRequired),
        };
        match refresh_token {
            None => self.0.grants.client_credentials().await,
            Some(token) => self.0.grants.refresh(token.as_str()).await,
        }
    }

    /// Begins to use a token whose request was sent at this time.
    pub(crate) fn accept(&self, response: &TokenResponse, obtained: SystemTime) -> AccessTokenText {
        let token = response.access_token().clone();
        let new = response.refresh_token().map(RefreshToken::new);
        if let Some(new) = &new {
            // First, because the caller's function may panic: the old refresh token may be useless now.
            let mut state = self.0.state.lock();
            if !matches!(state.renewable, Renewable::ByClientCredentials) {
                state.renewable = Renewable::ByRefreshToken(new.clone());
            }
        }
        // Before a request can use the access token.
        if let (Some(new), Some(keep)) = (&new, &self.0.keep) {
            keep(new);
        }
        let mut state = self.0.state.lock();
        state.failure = None;
        state.held = Some(Held {
            response: response.clone(),
            obtained,
        });
        token
    }

    fn fail(&self, mut error: DpopClientError) -> Arc<DpopClientError> {
        let at = self.0.clock.read();
        let mut state = self.0.state.lock();
        if error.ends_the_session() && matches!(state.renewable, Renewable::ByRefreshToken(_)) {
            state.renewable = Renewable::Never;
            error = DpopClientError::LoginRequired;
        }
        let reason = Arc::new(error);
        state.failure = Some(Failure {
            reason: Arc::clone(&reason),
            at,
        });
        reason
    }
}

/// The task of a token request has neither a token nor an error.
pub(crate) fn task_ended() -> DpopClientError {
    DpopClientError::Unreachable(
        "the runtime has shut down, or the function of with_refresh_token_store has panicked"
            .to_owned(),
    )
}

async fn outcome_of(mut renewal: watch::Receiver<Option<Outcome>>) -> Outcome {
    match renewal.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(outcome)) => outcome.clone(),
        _ => Err(Arc::new(task_ended())),
    }
}

impl TokenSource for Session {
    async fn token(&self) -> Result<AccessTokenText, TokenSourceError> {
        self.current().await.map_err(TokenSourceError::new)
    }
}
