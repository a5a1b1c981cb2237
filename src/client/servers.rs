//! What a client knows about its servers: where they are, the latest nonce of each, and how far its
//! clock is from ours.
//!
//! A nonce is valid only at the server that issued it ([RFC 9449 section
//! 9](https://www.rfc-editor.org/rfc/rfc9449#section-9)), so nonces are stored per origin and per
//! layer: a nonce of an authorization server is never sent to a resource server of the same origin.
//! The lock is held only while a value is copied in or out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AGE, DATE};

use crate::client::new_proof::Htu;
use crate::proof::nonce::{DPOP_NONCE, Nonce};
use crate::proof::target::PublicUrl;
use crate::sync::Mutex;
use crate::time::Timestamp;
use crate::uri::Origin;

/// The servers to which requests may be signed. Clones share what they learn.
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
            url.covers(&htu.origin, &htu.path) && (url.is_origin() || !htu.is_ambiguous)
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
    /// The nonce before the latest one.
    superseded: Option<Nonce>,
    clock: ClockOffset,
    /// A clock that no request has tried yet.
    suggested: Option<ClockOffset>,
}

/// The latest nonce that a server has issued, if any.
#[derive(Clone, Default)]
pub(crate) struct LatestNonce {
    pub(crate) nonce: Option<Nonce>,
    /// The number of nonces so far.
    count: u64,
}

/// A server's clock, relative to ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClockOffset {
    #[default]
    Agrees,
    /// Seconds ahead of us.
    Ahead(u64),
    /// Seconds behind us.
    Behind(u64),
}

/// A `Date` can be a whole second old when it is read, and older on a slow connection. Below this
/// difference, our own clock is more accurate.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Larger differences are not corrected by a `Date`: a proof dated in the future is a proof made in
/// advance.
const MAX_CORRECTION: Duration = Duration::from_secs(24 * 60 * 60);

/// A longer nonce is not stored: it would make proofs that no server accepts.
const MAX_NONCE_LENGTH: usize = 2048;

impl Server {
    pub(crate) fn latest_nonce(&self) -> LatestNonce {
        self.known.lock().latest.clone()
    }

    /// Stores the nonce of a response, whatever its status ([RFC 9449 section
    /// 8.2](https://www.rfc-editor.org/rfc/rfc9449#section-8.2)).
    ///
    /// Responses may arrive out of order, and the newer nonce must be kept. So two kinds are
    /// ignored: a response that repeats the nonce of its own request, and a response to a request
    /// from before the latest nonce that carries the nonce superseded by the latest.
    pub(crate) fn learn_nonce(&self, headers: &HeaderMap, used: &LatestNonce) {
        let Some(nonce) = nonce_in(headers) else {
            return;
        };
        let mut known = self.known.lock();
        let is_late = known.latest.count != used.count && known.superseded.as_ref() == Some(&nonce);
        let is_known = [&used.nonce, &known.latest.nonce]
            .map(Option::as_ref)
            .contains(&Some(&nonce));
        if !is_late && !is_known {
            known.superseded = known.latest.nonce.replace(nonce);
            known.latest.count += 1;
        }
    }

    /// The stored clock, and one to try instead, which is returned to one request only.
    pub(crate) fn clock(&self) -> (ClockOffset, Option<ClockOffset>) {
        let mut known = self.known.lock();
        (known.clock, known.suggested.take())
    }

    pub(crate) fn suggest_clock(&self, clock: ClockOffset) {
        self.known.lock().suggested = Some(clock);
    }

    /// Stores a clock with which proofs are accepted.
    pub(crate) fn keep_clock(&self, clock: ClockOffset) {
        self.known.lock().clock = clock;
    }

    /// Discards a clock with which proofs are rejected.
    pub(crate) fn forget_clock(&self, clock: ClockOffset) {
        let mut known = self.known.lock();
        if known.clock == clock {
            known.clock = ClockOffset::Agrees;
        }
    }
}

impl ClockOffset {
    /// The server's clock according to the `Date` of a response, unless it comes from a cache.
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

    /// The server's time.
    pub(crate) fn time(self, ours: SystemTime) -> Timestamp {
        let ours = Timestamp::from(ours);
        match self {
            Self::Agrees => ours,
            Self::Ahead(seconds) => ours.plus(seconds),
            Self::Behind(seconds) => Timestamp::from_unix(ours.as_unix().saturating_sub(seconds)),
        }
    }

    /// Whether the two differ enough to matter for a proof.
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

/// The nonce of a response. Several nonces are ignored, and so is a nonce that violates the grammar
/// (RFC 9449 sections 8 and 8.1).
fn nonce_in(headers: &HeaderMap) -> Option<Nonce> {
    let mut fields = headers.get_all(DPOP_NONCE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) if field.len() <= MAX_NONCE_LENGTH => field.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// A response from a cache says when it was made, not what time it is (RFC 9111 section 5.1).
fn date_in(headers: &HeaderMap) -> Option<SystemTime> {
    if headers.contains_key(AGE) {
        return None;
    }
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}
