//! What a client knows of the servers it talks to: where they are, the latest nonce of each, and how
//! far its clock is from ours.
//!
//! A nonce is good only at the server that gave it out ([RFC 9449 section
//! 9](https://www.rfc-editor.org/rfc/rfc9449#section-9)), so there is one place for each origin, and
//! each layer has places of its own: what an authorization server hands out never goes to a
//! resource server of the same origin. The lock is held while a value is copied in or out, never
//! longer.

use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AGE, DATE};

use crate::client::new_proof::Htu;
use crate::proof::nonce::{DPOP_NONCE, Nonce};
use crate::proof::target::PublicUrl;
use crate::sync::Mutex;
use crate::time::Timestamp;
use crate::uri::Origin;

/// The servers to which requests may be signed. Clones share what is learnt.
#[derive(Clone)]
pub(crate) struct Servers {
    urls: Vec<PublicUrl>,
    servers: Vec<Arc<Server>>,
}

impl Servers {
    pub(crate) fn new(url: PublicUrl) -> Self {
        let mut servers = Self {
            urls: Vec::new(),
            servers: Vec::new(),
        };
        servers.add(url);
        servers
    }

    pub(crate) fn add(&mut self, url: PublicUrl) {
        if self.at(url.origin()).is_none() {
            self.servers.push(Arc::new(Server {
                origin: url.origin().clone(),
                known: Mutex::default(),
            }));
        }
        self.urls.push(url);
    }

    /// The server that a request goes to, if it is one of these.
    pub(crate) fn of(&self, htu: &Htu) -> Option<&Server> {
        let covered = self.urls.iter().any(|url| {
            url.covers(&htu.origin, &htu.path) && (url.is_origin() || !htu.has_two_readings)
        });
        self.at(&htu.origin).filter(|_| covered)
    }

    pub(crate) fn at(&self, origin: &Origin<'_>) -> Option<&Server> {
        self.servers
            .iter()
            .map(Arc::as_ref)
            .find(|server| server.origin == *origin)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.urls.iter().map(ToString::to_string))
            .finish()
    }
}

/// One origin.
pub(crate) struct Server {
    origin: Origin<'static>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    latest: LatestNonce,
    /// The nonce before the latest.
    superseded: Option<Nonce>,
    clock: ClockOffset,
    /// A clock that no request was tried with yet.
    suggested: Option<ClockOffset>,
}

/// The latest nonce that a server has given out, if it has.
#[derive(Clone, Default)]
pub(crate) struct LatestNonce {
    pub(crate) nonce: Option<Nonce>,
    /// How many there were.
    count: u64,
}

/// A server's clock, as seen from ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClockOffset {
    #[default]
    Agrees,
    /// Seconds ahead of us.
    Ahead(u64),
    /// Seconds behind us.
    Behind(u64),
}

/// A `Date` is a whole second old when it is read, and more on a slow line. Closer than this, our
/// own clock is the better one.
const TOLERANCE: Duration = Duration::from_secs(5);

/// A clock that is further off is nothing that a `Date` should mend: a proof from the future is a
/// proof made in advance.
const MAX_CORRECTION: Duration = Duration::from_secs(24 * 60 * 60);

/// A longer nonce is not kept: it would make proofs that no server takes.
const MAX_NONCE_LENGTH: usize = 2048;

impl Server {
    pub(crate) fn latest_nonce(&self) -> LatestNonce {
        self.known().latest.clone()
    }

    /// Keeps the nonce of a response, whatever its status ([RFC 9449 section
    /// 8.2](https://www.rfc-editor.org/rfc/rfc9449#section-8.2)).
    ///
    /// Responses arrive in another order than they were made, and what is newer must stay. So two
    /// tell nothing: one that repeats the nonce of its own request, and one to a request from before
    /// the latest nonce that brings the nonce which that one has superseded.
    pub(crate) fn learn_nonce(&self, headers: &HeaderMap, used: &LatestNonce) {
        let Some(nonce) = nonce_in(headers) else {
            return;
        };
        let mut known = self.known();
        let is_late = known.latest.count != used.count && known.superseded.as_ref() == Some(&nonce);
        let is_known = [&used.nonce, &known.latest.nonce]
            .map(Option::as_ref)
            .contains(&Some(&nonce));
        if !is_late && !is_known {
            known.superseded = known.latest.nonce.replace(nonce);
            known.latest.count += 1;
        }
    }

    /// The clock that is kept, and one to try instead, which one request gets to hear of.
    pub(crate) fn clock(&self) -> (ClockOffset, Option<ClockOffset>) {
        let mut known = self.known();
        (known.clock, known.suggested.take())
    }

    pub(crate) fn suggest_clock(&self, clock: ClockOffset) {
        self.known().suggested = Some(clock);
    }

    /// Keeps a clock by which proofs pass.
    pub(crate) fn keep_clock(&self, clock: ClockOffset) {
        self.known().clock = clock;
    }

    /// Forgets a clock by which they do not.
    pub(crate) fn forget_clock(&self, clock: ClockOffset) {
        let mut known = self.known();
        if known.clock == clock {
            known.clock = ClockOffset::Agrees;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

impl ClockOffset {
    /// The server's clock by the `Date` of a response, unless a cache has kept it.
    pub(crate) fn of_server(headers: &HeaderMap, ours: SystemTime) -> Option<Self> {
        let theirs = date_in(headers)?;
        Some(
            match (theirs.duration_since(ours), ours.duration_since(theirs)) {
                (Ok(distance), _) | (_, Ok(distance)) if distance > MAX_CORRECTION => return None,
                (Ok(ahead), _) if ahead > TOLERANCE => Self::Ahead(ahead.as_secs()),
                (_, Ok(behind)) if behind > TOLERANCE => Self::Behind(behind.as_secs()),
                _ => Self::Agrees,
            },
        )
    }

    /// What time it is at the server.
    pub(crate) fn time(self, ours: SystemTime) -> Timestamp {
        let ours = Timestamp::from(ours);
        match self {
            Self::Agrees => ours,
            Self::Ahead(seconds) => ours.plus(seconds),
            Self::Behind(seconds) => Timestamp::from_unix(ours.as_unix().saturating_sub(seconds)),
        }
    }

    /// Whether it makes a difference to a proof which of the two it is.
    pub(crate) fn differs_from(self, other: Self) -> bool {
        self.distance_to(other) > TOLERANCE.as_secs()
    }

    fn distance_to(self, other: Self) -> u64 {
        match (self, other) {
            (Self::Agrees, Self::Agrees) => 0,
            (Self::Agrees, Self::Ahead(seconds) | Self::Behind(seconds))
            | (Self::Ahead(seconds) | Self::Behind(seconds), Self::Agrees) => seconds,
            (Self::Ahead(one), Self::Ahead(other)) | (Self::Behind(one), Self::Behind(other)) => {
                one.abs_diff(other)
            }
            (Self::Ahead(one), Self::Behind(other)) | (Self::Behind(one), Self::Ahead(other)) => {
                one.saturating_add(other)
            }
        }
    }
}

/// The one nonce of a response. Of several, or of one that breaks the grammar, none is taken (RFC
/// 9449 sections 8 and 8.1).
fn nonce_in(headers: &HeaderMap) -> Option<Nonce> {
    let mut fields = headers.get_all(DPOP_NONCE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) if field.len() <= MAX_NONCE_LENGTH => field.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// A response out of a cache says when it was made, not what time it is (RFC 9111 section 5.1).
fn date_in(headers: &HeaderMap) -> Option<SystemTime> {
    if headers.contains_key(AGE) {
        return None;
    }
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}
