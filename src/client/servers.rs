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
use crate::proof::public_url::PublicUrl;
use crate::sync::Mutex;
use crate::time::Timestamp;
use crate::uri::{Origin, hexadecimal_byte};

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

    /// The server that a request goes to, if it is one of these: `sent` is its path as it is sent.
    pub(crate) fn of(&self, htu: &Htu, sent: &str) -> Option<&Server> {
        let covered = self.urls.iter().any(|url| {
            url.covers(&htu.origin, &htu.path) && (url.is_origin() || !is_ambiguous(sent))
        });
        self.at(&htu.origin).filter(|_| covered)
    }

    /// Whether the normal form of the URL is below one of the configured ones.
    pub(crate) fn cover(&self, htu: &Htu) -> bool {
        self.urls
            .iter()
            .any(|url| url.covers(&htu.origin, &htu.path))
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

/// Whether servers may interpret the path in different ways: the URL's normal form is signed, but
/// the URL is sent unchanged. Some servers decode slashes, some decode twice, some first remove the
/// parameters (`;`) of a segment.
///
/// The path is decoded until nothing is left to decode, in one pass.
fn is_ambiguous(path: &str) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        // A decoded byte may complete another percent-encoding, as the `%` of `%252f` does.
        while let [before @ .., b'%', high, low] = &decoded[..]
            && let Some(byte) = hexadecimal_byte(*high, *low)
        {
            if matches!(byte, b'/' | b'\\' | b'\0') {
                return true;
            }
            decoded.truncate(before.len());
            decoded.push(byte);
        }
    }
    decoded.split(|byte| *byte == b'/').any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The same question, decoded level by level. It takes no account of encoded digits.
    fn is_ambiguous_by_levels(path: &str) -> bool {
        let mut path = path.to_ascii_lowercase();
        while path.contains("%25") {
            path = path.replace("%25", "%");
        }
        let path = path.replace("%2e", ".").replace("%3b", ";");
        ["%2f", "%5c", "%00"]
            .iter()
            .any(|encoded| path.contains(encoded))
            || path
                .split('/')
                .any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
    }

    #[test]
    fn decoding_in_one_pass_gives_the_result_of_decoding_level_by_level() {
        const PIECES: [&str; 13] = [
            "/", ".", ";", "a", "%", "%25", "25", "2e", "2F", "3b", "5C", "00", "2",
        ];
        let mut paths = vec![String::new()];
        let mut ambiguous = 0;
        for _ in 0..4 {
            paths = paths
                .iter()
                .flat_map(|path| PIECES.map(|piece| format!("{path}{piece}")))
                .collect();
            for path in &paths {
                let expected = is_ambiguous_by_levels(path);
                assert_eq!(is_ambiguous(path), expected, "{path}");
                ambiguous += usize::from(expected);
            }
        }
        assert!(ambiguous > 1_000 && ambiguous < paths.len() - 1_000);
    }
}
