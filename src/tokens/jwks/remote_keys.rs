//! A key source that fetches the keys of an issuer.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::issuer::endpoint_url::EndpointUrl;
use crate::issuer::http::HttpClient;
use crate::outage::Outage;
use crate::sync::Mutex;
use crate::time::{Clock, Timestamp};
use crate::tokens::jwks::documents::{Issuer, KeyLocation, RemoteKeysError};
use crate::tokens::jwks::fetch::{Cause, Fetch, ended, launch};
use crate::tokens::jwks::schedule::{OUTAGE, Pending, Phase, Settings, State, is_within};
use crate::tokens::key_set::{KeySet, KeySource, KeySourceError};

/// The keys of an issuer, fetched from it and kept up to date.
///
/// Pass it to a [`JwtVerifier`](crate::JwtVerifier). Clones share the keys. It needs a tokio
/// runtime with I/O and timers enabled; outside of one, keys cannot be fetched.
///
/// # Example
///
/// ```no_run
/// use tower_dpop::tokens::{EndpointUrl, HttpClient};
/// use tower_dpop::{JwtVerifier, RemoteKeys};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer: EndpointUrl = "https://as.example.com".parse()?;
/// let keys = RemoteKeys::discover(issuer.clone(), HttpClient::new()?)
///     .fetched() // an error if there are no keys
///     .await?;
/// let tokens = JwtVerifier::new(issuer.as_str(), "https://api.example.com", keys);
/// # let _ = tokens;
/// # Ok(())
/// # }
/// ```
///
/// # Starting
///
/// - [`fetched`](Self::fetched) fails if there are no keys: a wrong URL is detected at start-up.
/// - [`fetched_within`](Self::fetched_within) waits for an issuer that starts at the same time.
/// - With neither, the first requests wait for a fetch, and are rejected with 503 if it fails.
///
/// A fetch with discovery takes up to three HTTP requests, each limited by the timeout of the
/// [`HttpClient`] (5 s by default). Keep a clone for health checks ([`status`](Self::status)).
///
/// # When keys are fetched
///
/// By default the stale lifetime is two hours and the cooldown 5 s. The lifetime is below the table.
///
/// | when | what is done | a request waits |
/// |---|---|---|
/// | before three quarters of the keys' lifetime | nothing | no |
/// | in the last quarter | a fetch in the background | no |
/// | after the lifetime | a fetch | until the fetch has ended |
/// | after the lifetime, if a fetch failed less than ten cooldowns ago | one fetch per cooldown, in the background | no: it gets the stale keys |
/// | after the lifetime and the stale lifetime, or with no keys yet | one fetch; after a failure, one per cooldown | until the fetch has ended; between fetches the request is rejected at once |
/// | if no key verifies a token | one fetch per cooldown | until the fetch has ended; between fetches the token is rejected at once |
///
/// There is at most one fetch at a time, for all requests that wait. It runs in a task of its own, so
/// dropping one of them does not affect the others. Nothing runs while there are no requests.
///
/// The lifetime is taken from `Cache-Control` (`max-age` minus `Age`), and is at least one minute
/// and at most one hour. It is ten minutes if `Cache-Control` does not state one, and one minute if
/// it forbids caching. If a response is identical, byte by byte, the same [`KeySet`]
/// gets a new lifetime, and tokens that were cached with it stay valid.
///
/// # Under attack
///
/// Anyone can send tokens with invented `kid`s or signatures. However many they are, they cause at
/// most 12 fetches per minute in each process (one per cooldown). Fetches due to the keys' age are
/// neither counted nor delayed. If the issuer signs with a key that has not been fetched yet, the key
/// is known after at most 5 s plus one fetch, with or without an attack; until then, its tokens are
/// rejected. While the issuer is unreachable, there is one attempt per cooldown, whatever the cause.
/// Invented tokens are then rejected with 503, as is every token that only a new key could verify.
///
/// The metadata is read again an hour (the maximum lifetime) after it was last read, and after a
/// failure, because an issuer's keys may move.
///
/// Documents may have at most 256 KiB, and key sets at most 128 keys. An unusable document, or an
/// empty key set, counts as a failed fetch: the previous keys are kept.
///
/// # Security
///
/// Keys that the issuer withdraws are used until the end of their lifetime, and for two hours more
/// while the issuer is unreachable ([`with_stale_lifetime`](Self::with_stale_lifetime)). An attacker who
/// can keep this service from reaching the issuer can keep a withdrawn key in use for that long.
#[derive(Clone)]
pub struct RemoteKeys {
    issuer: Arc<Issuer>,
    state: Arc<Mutex<State>>,
    settings: Settings,
    clock: Clock,
}

impl RemoteKeys {
    /// The keys at the `jwks_uri` in this issuer's metadata: [RFC
    /// 8414](https://www.rfc-editor.org/rfc/rfc8414) metadata or, failing that, OpenID Connect Discovery.
    ///
    /// The `issuer` in it must be this one, character by character. The `jwks_uri` may be on another
    /// host, and must be `https` if the issuer is.
    pub fn discover(issuer: EndpointUrl, http: HttpClient) -> Self {
        Self::new(Issuer {
            location: KeyLocation::Discovered {
                issuer,
                metadata: None,
            },
            http,
            outage: Outage::new(),
        })
    }

    /// As [`discover`](Self::discover), but the metadata is at this URL and nowhere else: for an issuer whose public
    /// name is not reachable from here, such as one in the same cluster.
    ///
    /// The metadata must still name exactly this issuer. Its `jwks_uri` is used as it is, and must be `https` if
    /// `metadata_url` is. If it is not reachable either, use [`at`](Self::at) with a URL that is.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use tower_dpop::RemoteKeys;
    /// use tower_dpop::tokens::HttpClient;
    ///
    /// let keys = RemoteKeys::discover_at(
    ///     "https://login.example.com/realms/shop".parse()?, // `iss` of the tokens
    ///     "https://keycloak.auth.svc/realms/shop/.well-known/openid-configuration".parse()?,
    ///     HttpClient::new()?,
    /// );
    /// # let _ = keys;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discover_at(issuer: EndpointUrl, metadata_url: EndpointUrl, http: HttpClient) -> Self {
        Self::new(Issuer {
            location: KeyLocation::Discovered {
                issuer,
                metadata: Some(metadata_url),
            },
            http,
            outage: Outage::new(),
        })
    }

    /// The keys at this URL. No metadata is read.
    pub fn at(jwks_uri: EndpointUrl, http: HttpClient) -> Self {
        Self::new(Issuer {
            location: KeyLocation::Given(jwks_uri),
            http,
            outage: Outage::new(),
        })
    }

    fn new(issuer: Issuer) -> Self {
        Self {
            issuer: Arc::new(issuer),
            state: Arc::default(),
            settings: Settings {
                min_lifetime: 60,
                max_lifetime: 3600,
                stale_lifetime: 7200,
                cooldown: 5,
            },
            clock: Clock::default(),
        }
    }

    /// Fetches the keys now, once.
    ///
    /// # Errors
    ///
    /// The reason why there are no keys.
    pub async fn fetched(self) -> Result<Self, RemoteKeysError> {
        self.attempt().await?;
        Ok(self)
    }

    /// Fetches the keys now, and retries until there are some, for at most this long. The pauses
    /// grow from 0.25 s to 5 s.
    ///
    /// # Errors
    ///
    /// The reason why the last attempt failed. A failure that only another configuration can end is returned at once:
    /// metadata of another issuer, a `jwks_uri` that is not `https`, a compressed document, too many keys.
    ///
    /// # Panics
    ///
    /// Panics if the tokio runtime was built without timers.
    pub async fn fetched_within(self, timeout: Duration) -> Result<Self, RemoteKeysError> {
        if Handle::try_current().is_err() {
            return Err(RemoteKeysError::NoRuntime);
        }
        let attempts = async {
            let mut pause = Duration::from_millis(250);
            while let Err(error) = self.attempt().await {
                if error.is_permanent() {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Ok(())
        };
        match tokio::time::timeout(timeout, attempts).await {
            Ok(outcome) => outcome.map(|()| self),
            Err(_) => Err(self.status().failure.unwrap_or(RemoteKeysError::TimedOut)),
        }
    }

    /// The current state of the keys, for health checks. Fetches nothing.
    pub fn status(&self) -> RemoteKeysStatus {
        let state = self.state.lock();
        let held = state.held.as_ref();
        let lives_until = held.map(|held| held.fetched.plus(self.settings.lifetime(held)));
        RemoteKeysStatus {
            keys: held.map_or(0, |held| held.keys.len()),
            fetched: held.map(|held| held.fetched),
            lives_until,
            usable_until: lives_until.map(|until| until.plus(self.settings.stale_lifetime)),
            failure: state.failure.as_ref().map(|(error, _)| error.clone()),
        }
    }

    /// Sets the bounds of the lifetime of keys, in whole seconds, at least one. The defaults are one
    /// minute, so that no issuer makes every request wait, and one hour, so that a withdrawn key is not
    /// used for days.
    #[must_use]
    pub fn with_lifetime(mut self, shortest: Duration, longest: Duration) -> Self {
        self.settings.min_lifetime = shortest.as_secs().max(1);
        self.settings.max_lifetime = longest.as_secs().max(self.settings.min_lifetime);
        self
    }

    /// Sets how long keys are used beyond their lifetime while the issuer is unreachable, in whole
    /// seconds. The default is two hours: long enough to fix an outage.
    #[must_use]
    pub fn with_stale_lifetime(mut self, stale_lifetime: Duration) -> Self {
        self.settings.stale_lifetime = stale_lifetime.as_secs();
        self
    }

    /// Sets the minimum time between two fetches that tokens cause, and after a failed fetch, in whole
    /// seconds, at least one. The default is 5 s. If the issuer signs with a key that it did not publish
    /// in advance, its tokens may be rejected for as long.
    #[must_use]
    pub fn with_cooldown(mut self, cooldown: Duration) -> Self {
        self.settings.cooldown = cooldown.as_secs().max(1);
        self
    }

    /// Sets the clock that [`fetched`](Self::fetched) and [`fetched_within`](Self::fetched_within) read,
    /// for tests. For a request, the time is that of the [`Verifier`](crate::Verifier).
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(clock);
        self
    }

    /// Makes one attempt, whatever happened before, unless there are young keys.
    async fn attempt(&self) -> Result<(), RemoteKeysError> {
        let (pending, fetch) = {
            let now = self.clock.now();
            let mut state = self.state.lock();
            state.asked = Some(now);
            if self.settings.phase(&mut state, now) == Phase::Young {
                return Ok(());
            }
            let fetch = state
                .under_way
                .is_none()
                .then(|| self.fetch(&mut state, Cause::Start, now));
            (state.under_way.clone(), fetch)
        };
        launch(fetch);
        match pending {
            Some(pending) => ended(pending, &self.issuer, &self.state).await,
            None => Err(RemoteKeysError::Interrupted),
        }
    }

    /// The keys for a request, and the fetch to launch.
    fn find(&self, now: Timestamp) -> (Found, Option<Fetch>) {
        let mut state = self.state.lock();
        state.asked = Some(now);
        let phase = self.settings.phase(&mut state, now);
        let cooldown = self.settings.cooldown;
        let may_fetch = state.under_way.is_none() && !state.failed_within(cooldown, now);
        let fetch = (phase != Phase::Young && may_fetch).then(|| {
            let cause = match state.held {
                Some(_) => Cause::Scheduled,
                None => Cause::Start,
            };
            self.fetch(&mut state, cause, now)
        });
        let at_once = match phase {
            Phase::Young | Phase::Due => true,
            Phase::Stale => state.failed_within(cooldown.saturating_mul(OUTAGE), now),
            Phase::Gone => false,
        };
        let found = match (&state.held, &state.under_way) {
            (Some(held), _) if at_once => Found::Keys(held.keys.clone()),
            (_, Some(pending)) => Found::Pending(pending.clone()),
            _ => Found::Unavailable,
        };
        (found, fetch)
    }

    /// The keys for a token that no key of `known` has verified, and the fetch to launch.
    fn find_newer(&self, known: &KeySet, now: Timestamp) -> (Found, Option<Fetch>) {
        let mut state = self.state.lock();
        state.asked = Some(now);
        if let Some(newer) = state.other_than(known) {
            return (Found::Keys(newer), None);
        }
        let cooldown = self.settings.cooldown;
        let may_fetch = state.under_way.is_none()
            && !state.failed_within(cooldown, now)
            && !is_within(cooldown, state.demanded, now);
        let fetch = may_fetch.then(|| {
            state.demanded = Some(now);
            self.fetch(&mut state, Cause::Demanded, now)
        });
        let found = match (&state.under_way, &state.failure) {
            (Some(pending), _) => Found::Pending(pending.clone()),
            (None, Some(_)) => Found::Unavailable,
            (None, None) => Found::NothingNew,
        };
        (found, fetch)
    }

    /// A new fetch, which is under way from now on. Launch it only after the state is unlocked: a
    /// runtime that is shutting down ends it immediately.
    fn fetch(&self, state: &mut State, cause: Cause, now: Timestamp) -> Fetch {
        let (outcome, pending) = watch::channel(None);
        state.under_way = Some(pending);
        Fetch {
            issuer: Arc::clone(&self.issuer),
            state: Arc::clone(&self.state),
            jwks_uri: state.jwks_uri.clone(),
            max_lifetime: self.settings.max_lifetime,
            held: state.held.clone(),
            cause,
            began: now,
            outcome,
        }
    }
}

enum Found {
    Keys(KeySet),
    Pending(Pending),
    /// There was no other set a moment ago.
    NothingNew,
    /// The issuer was unreachable a moment ago.
    Unavailable,
}

impl KeySource for RemoteKeys {
    async fn key_set(&self, now: Timestamp) -> Result<KeySet, KeySourceError> {
        let (found, fetch) = self.find(now);
        launch(fetch);
        match found {
            Found::Keys(keys) => return Ok(keys),
            // A failed fetch is no reason to reject the request if stale keys may be used.
            Found::Pending(pending) => drop(ended(pending, &self.issuer, &self.state).await),
            Found::NothingNew | Found::Unavailable => return Err(KeySourceError),
        }
        let mut state = self.state.lock();
        let phase = self.settings.phase(&mut state, now);
        let held = state.held.as_ref().filter(|_| phase != Phase::Gone);
        held.map(|held| held.keys.clone()).ok_or(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        known: &KeySet,
        now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        let (found, fetch) = self.find_newer(known, now);
        launch(fetch);
        match found {
            Found::Keys(keys) => return Ok(Some(keys)),
            Found::Pending(pending) => ended(pending, &self.issuer, &self.state)
                .await
                .map_err(|_| KeySourceError)?,
            Found::NothingNew => return Ok(None),
            Found::Unavailable => return Err(KeySourceError),
        }
        Ok(self.state.lock().other_than(known))
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("issuer", self.issuer.location.url())
            .field("settings", &self.settings)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// The state of an issuer's keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteKeysStatus {
    /// The number of keys: zero until a fetch has succeeded, and then requests are rejected with 503.
    pub keys: usize,
    /// When the keys were last fetched, or found to be unchanged.
    pub fetched: Option<Timestamp>,
    /// The end of the keys' lifetime.
    pub lives_until: Option<Timestamp>,
    /// The end of the stale lifetime: with the issuer unreachable, requests are then rejected with 503.
    pub usable_until: Option<Timestamp>,
    /// Why the last attempt failed; `None` if it succeeded.
    pub failure: Option<RemoteKeysError>,
}

#[cfg(test)]
mod tests;
