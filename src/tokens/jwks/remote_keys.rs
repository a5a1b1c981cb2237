//! The keys of an issuer, as a source of keys.

use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::sync::Mutex;
use crate::time::{Clock, Timestamp};
use crate::tokens::http::{EndpointUrl, HttpClient};
use crate::tokens::jwks::documents::{Issuer, KeyLocation, RemoteKeysError};
use crate::tokens::jwks::fetch::{Cause, Fetch, ended, launch};
use crate::tokens::jwks::schedule::{OUTAGE, Pending, Phase, Settings, State, is_within};
use crate::tokens::key_set::{KeySet, KeySource, KeySourceError};

/// The keys of an issuer, fetched from it and kept up to date.
///
/// It is given to a [`JwtVerifier`](crate::JwtVerifier). Clones share the keys. It needs a
/// tokio runtime with everything enabled; outside of one there are no keys to be had.
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
///     .fetched() // no start without keys
///     .await?;
/// let tokens = JwtVerifier::new(issuer.as_str(), "https://api.example.com", keys);
/// # let _ = tokens;
/// # Ok(())
/// # }
/// ```
///
/// # Starting
///
/// - [`fetched`](Self::fetched) refuses to start without keys: a wrong URL is seen at once.
/// - [`fetched_within`](Self::fetched_within) waits for an issuer that starts at the same time.
/// - With neither, the first requests wait for a fetch, and are answered with 503 if it fails.
///
/// A fetch with discovery is up to three exchanges, each as long as the
/// [`HttpClient`] lets it be. Keep a clone for health checks
/// ([`status`](Self::status)).
///
/// # When keys are fetched
///
/// | when | what is done | a request waits |
/// |---|---|---|
/// | before three quarters of the keys' life | nothing | no |
/// | after them | a fetch in the background | no |
/// | past their life | a fetch | until it has ended |
/// | past their life, a fetch failed less than ten cooldowns ago | one fetch a cooldown, in the background | no: it gets the stale keys |
/// | past their life and the stale life, or no keys yet | one fetch a cooldown after a failure | until it has ended; refused at once between them |
/// | no key verifies a token | one fetch a cooldown | until it has ended; the token is refused at once between them |
///
/// There is at most one fetch at a time, and all requests wait for the same one. It runs in a task
/// of its own: a request that is dropped takes nothing from those that wait with it. Nothing runs
/// while no request comes.
///
/// The life is what `Cache-Control` says (`max-age` less `Age`), at least one minute and at most
/// one hour; ten minutes where it says nothing, one minute where it forbids to keep the answer. An
/// answer that is the same, octet by octet, renews the life of the same
/// [`KeySet`](crate::KeySet), and with it every verdict that rests on it.
///
/// # Under attack
///
/// Anyone can send tokens with invented `kid`s or signatures. With the default cooldown of 5 s they
/// cause at most 12 fetches a minute in each process, whatever their number. Fetches by the keys'
/// age do not count and are not put off. A key with which the issuer signs before it was fetched is
/// known after 5 s and one fetch at the latest, flood or not; until then its tokens are refused.
/// While the issuer is out of reach, all causes together make one attempt a cooldown, and the
/// invented tokens are answered with 503, as any would be that only a new key could verify.
///
/// The metadata are read again when the last reading is an hour old (the longest life), and after a
/// failure: an issuer's keys may move.
///
/// Documents are read up to 256 KiB, key sets up to 128 keys. One that cannot be used, an empty one
/// too, is a failed fetch: the keys that were there stay.
///
/// # Security
///
/// Keys that the issuer withdraws are used until their life is over, and while the issuer is out of
/// reach for two hours more ([`with_stale_life`](Self::with_stale_life)): whoever can keep this
/// service from reaching the issuer can keep a withdrawn key alive that long.
#[derive(Clone)]
pub struct RemoteKeys {
    issuer: Arc<Issuer>,
    state: Arc<Mutex<State>>,
    settings: Settings,
    clock: Clock,
}

impl RemoteKeys {
    /// The keys of the issuer of this identifier, wherever its metadata says they are: [RFC
    /// 8414](https://www.rfc-editor.org/rfc/rfc8414) metadata, or else that of OpenID Connect
    /// Discovery.
    ///
    /// The metadata must name this very issuer, character by character. Its `jwks_uri` may be on
    /// another host, and is `https` if the issuer is.
    pub fn discover(issuer: EndpointUrl, http: HttpClient) -> Self {
        Self::new(Issuer {
            location: KeyLocation::Discovered(issuer),
            http,
        })
    }

    /// The keys at this URL. No metadata are read.
    pub fn at(jwks_uri: EndpointUrl, http: HttpClient) -> Self {
        Self::new(Issuer {
            location: KeyLocation::Given(jwks_uri),
            http,
        })
    }

    fn new(issuer: Issuer) -> Self {
        Self {
            issuer: Arc::new(issuer),
            state: Arc::default(),
            settings: Settings {
                shortest_life: 60,
                longest_life: 3600,
                stale_life: 7200,
                cooldown: 5,
            },
            clock: Clock::default(),
        }
    }

    /// The bounds of the life that `Cache-Control` gives to keys, in whole seconds, at least one.
    /// The defaults are one minute, so that no issuer makes every request wait, and one hour, so
    /// that a withdrawn key does not live for days.
    #[must_use]
    pub fn with_life(mut self, shortest: Duration, longest: Duration) -> Self {
        self.settings.shortest_life = shortest.as_secs().max(1);
        self.settings.longest_life = longest.as_secs().max(self.settings.shortest_life);
        self
    }

    /// For how long beyond their life keys are used while the issuer is out of reach, in whole
    /// seconds. The default is two hours: long enough to mend what is broken.
    #[must_use]
    pub fn with_stale_life(mut self, stale_life: Duration) -> Self {
        self.settings.stale_life = stale_life.as_secs();
        self
    }

    /// The least time between two fetches that tokens cause, and between attempts after one that
    /// failed, in whole seconds, at least one. The default is 5 s: what a new key of an issuer that
    /// did not publish it beforehand has to wait for.
    #[must_use]
    pub fn with_cooldown(mut self, cooldown: Duration) -> Self {
        self.settings.cooldown = cooldown.as_secs().max(1);
        self
    }

    /// Asks another clock what time it is when it [starts](Self::fetched). For tests. Later, the
    /// time is that of the request.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(clock);
        self
    }

    /// Fetches the keys now, once.
    ///
    /// # Errors
    ///
    /// Why there are none.
    pub async fn fetched(self) -> Result<Self, RemoteKeysError> {
        self.attempt().await?;
        Ok(self)
    }

    /// Fetches the keys now, again and again until there are some, for this long at most. The
    /// pauses grow from a quarter of a second to five seconds.
    ///
    /// # Errors
    ///
    /// Why the last attempt failed.
    ///
    /// # Panics
    ///
    /// The tokio runtime was built without timers.
    pub async fn fetched_within(self, patience: Duration) -> Result<Self, RemoteKeysError> {
        if Handle::try_current().is_err() {
            return Err(RemoteKeysError::NoRuntime);
        }
        let attempts = async {
            let mut pause = Duration::from_millis(250);
            while self.attempt().await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        };
        match tokio::time::timeout(patience, attempts).await {
            Ok(()) => Ok(self),
            Err(_) => Err(self.status().failure.unwrap_or(RemoteKeysError::TimedOut)),
        }
    }

    /// What is known at the moment, for health checks. It fetches nothing.
    pub fn status(&self) -> RemoteKeysStatus {
        let state = self.state();
        let held = state.held.as_ref();
        let lives_until = held.map(|held| held.fetched.plus(self.settings.life(held)));
        RemoteKeysStatus {
            keys: held.map_or(0, |held| held.keys.len()),
            fetched: held.map(|held| held.fetched),
            lives_until,
            usable_until: lives_until.map(|until| until.plus(self.settings.stale_life)),
            failure: state.failure.as_ref().map(|(error, _)| error.clone()),
        }
    }

    /// One attempt, whatever came before it, unless there are young keys.
    async fn attempt(&self) -> Result<(), RemoteKeysError> {
        let (pending, fetch) = {
            let now = self.clock.now();
            let mut state = self.state();
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

    /// What there is for a request, and what is to be launched.
    fn find(&self, now: Timestamp) -> (Found, Option<Fetch>) {
        let mut state = self.state();
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

    /// What there is for a token that no key of `known` has verified, and what is to be launched.
    fn find_newer(&self, known: &KeySet, now: Timestamp) -> (Found, Option<Fetch>) {
        let mut state = self.state();
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

    /// A fetch, under way from now on. It is to be launched when the state is no longer locked: a
    /// runtime that is shutting down ends it on the spot.
    fn fetch(&self, state: &mut State, cause: Cause, now: Timestamp) -> Fetch {
        let (outcome, pending) = watch::channel(None);
        state.under_way = Some(pending);
        Fetch {
            issuer: Arc::clone(&self.issuer),
            state: Arc::clone(&self.state),
            jwks_uri: state.jwks_uri.clone(),
            longest_life: self.settings.longest_life,
            held: state.held.clone(),
            cause,
            began: now,
            outcome,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

enum Found {
    Keys(KeySet),
    Pending(Pending),
    /// There was no other set a moment ago.
    NothingNew,
    /// The issuer was out of reach a moment ago.
    Unavailable,
}

impl KeySource for RemoteKeys {
    async fn key_set(&self, now: Timestamp) -> Result<KeySet, KeySourceError> {
        let (found, fetch) = self.find(now);
        launch(fetch);
        match found {
            Found::Keys(keys) => return Ok(keys),
            // A fetch that failed is no reason to refuse, if stale keys may be used.
            Found::Pending(pending) => drop(ended(pending, &self.issuer, &self.state).await),
            Found::NothingNew | Found::Unavailable => return Err(KeySourceError),
        }
        let mut state = self.state();
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
        Ok(self.state().other_than(known))
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

/// What is known of an issuer's keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteKeysStatus {
    /// How many keys are held. With none, every request is answered with 503.
    pub keys: usize,
    /// When they were fetched, or found to be the same.
    pub fetched: Option<Timestamp>,
    /// Until when they live.
    pub lives_until: Option<Timestamp>,
    /// Until when they are used if the issuer stays out of reach. Then, too, the answer is 503.
    pub usable_until: Option<Timestamp>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<RemoteKeysError>,
}
