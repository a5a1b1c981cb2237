//! When a proof is fresh: the window of `iat`, the lifetime of a nonce, and how long a used proof
//! must be remembered, all derived from one policy.
//!
//! Other implementations configure these three separately, and more than one has accepted a replay
//! because its replay store forgot a proof within the window in which it was still accepted. Here
//! the time in the replay store is computed from the window (`Freshness::accepted_until`), and a
//! property test checks every boundary second.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::time::{Timestamp, seconds};

/// The maximum age of a proof, the maximum error of a client's clock, and the lifetime of a nonce.
///
/// A proof is accepted while `now - (max age + leeway) ≤ iat ≤ now + leeway`, both ends included
/// ([RFC 9449 section 11.1](https://www.rfc-editor.org/rfc/rfc9449#section-11.1): "seconds or
/// minutes").
///
/// The default is a maximum age of 60 s and a leeway of 30 s: FAPI 2.0 requires servers to accept
/// clocks that are 10 s ahead and to reject clocks that are more than 60 s ahead. Nonces have a
/// period of 120 s.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_dpop::Freshness;
///
/// let strict = Freshness::default().with_max_age(Duration::from_secs(20)).with_leeway(Duration::from_secs(10));
/// # let _ = strict;
/// ```
///
/// In a document it is `"fapi2"`, `"mcp"`, or a table with any of these members:
///
/// | member | value | default |
/// |---|---|---|
/// | `max_age_seconds` | 0 to 86400 | 60 |
/// | `leeway_seconds` | 0 to 86400 | 30 |
/// | `nonce_period_seconds` | 1 to 86400 | 120 |
/// | `nonce_instead_of_iat` | true or false | false |
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    max_age: u64,
    leeway: u64,
    nonce_period: u64,
    decided_by: DecidedBy,
}

/// What determines when a proof was made (RFC 9449 section 4.3, check 11: "either the iat claim or
/// a server managed timestamp via the nonce claim").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecidedBy {
    /// `iat` always, and also the nonce if nonces are required.
    Both,
    /// Only the nonce if nonces are required; `iat` otherwise.
    Nonce,
}

/// The maximum of each duration in the policy: a replay store that has to hold days of traffic is a
/// configuration error.
const LONGEST: u64 = 24 * 60 * 60;

impl Freshness {
    const DEFAULT: Self = Self {
        max_age: 60,
        leeway: 30,
        nonce_period: 120,
        decided_by: DecidedBy::Both,
    };

    /// The FAPI 2.0 Security Profile as its conformance suite tests it: the default window, and if
    /// nonces are required, they replace the check of `iat`.
    pub const fn fapi2() -> Self {
        Self {
            decided_by: DecidedBy::Nonce,
            ..Self::DEFAULT
        }
    }

    /// The Model Context Protocol (SEP-1932): `iat` within 300 s of now in either direction.
    pub const fn mcp() -> Self {
        Self {
            max_age: 0,
            leeway: 300,
            ..Self::DEFAULT
        }
    }

    /// Sets the age up to which a proof is accepted, before leeway. Whole seconds, at most a day.
    #[must_use]
    pub const fn with_max_age(self, max_age: Duration) -> Self {
        Self {
            max_age: clamp_to_a_day(max_age),
            ..self
        }
    }

    /// Sets how far a client's clock may be off, in either direction. Whole seconds, at most a day.
    #[must_use]
    pub const fn with_leeway(self, leeway: Duration) -> Self {
        Self {
            leeway: clamp_to_a_day(leeway),
            ..self
        }
    }

    /// Sets the period of nonces: a nonce is accepted in the period of its issue and in the next.
    /// Whole seconds, from one second to a day.
    #[must_use]
    pub const fn with_nonce_period(self, period: Duration) -> Self {
        let period = clamp_to_a_day(period);
        Self {
            nonce_period: if period == 0 { 1 } else { period },
            ..self
        }
    }

    /// If nonces are required, uses the nonce's issue time instead of `iat`, so that requests of
    /// clients with a wrong clock are accepted (RFC 9449 section 11.1). Used proofs are then
    /// remembered for the lifetime of the nonce.
    #[must_use]
    pub const fn with_nonce_instead_of_iat(self) -> Self {
        Self {
            decided_by: DecidedBy::Nonce,
            ..self
        }
    }

    /// Whether `iat` is checked, depending on whether nonces are required.
    pub(crate) fn decides_by_iat(&self, nonces_required: bool) -> bool {
        !nonces_required || self.decided_by == DecidedBy::Both
    }

    /// RFC 9449 section 4.3, check 11. `iat` may be fractional, negative, or beyond any calendar.
    pub(crate) fn check_iat(&self, iat: f64, now: Timestamp) -> Result<(), IatError> {
        // In integers, whatever the clock says: beyond 2^53, a rounded window would accept a proof in
        // seconds after `accepted_until`.
        let now = i128::from(now.as_unix());
        let oldest = now - i128::from(self.window());
        let newest = now + i128::from(self.leeway);
        let (floor, ceiling) = (whole(iat.floor()), whole(iat.ceil()));
        if floor < oldest {
            Err(IatError::TooOld {
                by: distance(floor, oldest),
            })
        } else if ceiling > newest {
            Err(IatError::InTheFuture {
                by: distance(newest, ceiling),
            })
        } else {
            Ok(())
        }
    }

    /// What `iat` must be, for the log.
    pub(crate) fn expected_iat(&self) -> String {
        let (window, leeway) = (self.window(), self.leeway);
        format!("iat from {window} s before to {leeway} s after the time of this server")
    }

    /// How far a client's clock may be off.
    pub(crate) const fn leeway(&self) -> Duration {
        Duration::from_secs(self.leeway)
    }

    /// The last second in which a proof is still accepted: its `jti` must be remembered until then.
    ///
    /// `issued` is when the proof's nonce was issued, if nonces are required.
    pub(crate) fn accepted_until(&self, iat: f64, issued: Option<Timestamp>) -> Timestamp {
        match issued {
            Some(issued) if self.decided_by == DecidedBy::Nonce => self.nonce_dies(issued),
            _ => Timestamp::from_numeric_date(iat.ceil()).plus(self.window()),
        }
    }

    /// The longest time for which a proof is still accepted after its arrival: a replay store must
    /// remember proofs for this long.
    pub const fn retention(&self) -> Duration {
        let by_iat = self.window() + self.leeway + 1;
        let by_nonce = 2 * self.nonce_period + self.leeway;
        Duration::from_secs(match self.decided_by {
            DecidedBy::Both => by_iat,
            DecidedBy::Nonce => {
                if by_iat > by_nonce {
                    by_iat
                } else {
                    by_nonce
                }
            }
        })
    }

    /// The issue time of nonces sent now: the start of the current period, so that every node sends
    /// the same nonce for every request of a period.
    pub(crate) const fn nonce_issue_time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_unix(now.as_unix() - now.as_unix() % self.nonce_period)
    }

    /// Checks the age of a nonce that this server issued.
    pub(crate) fn check_nonce(
        &self,
        issued: Timestamp,
        now: Timestamp,
    ) -> Result<NonceAge, NonceAgeError> {
        if issued > now.plus(self.leeway) {
            Err(NonceAgeError::InTheFuture)
        } else if now >= self.nonce_dies(issued) {
            Err(NonceAgeError::Stale)
        } else if now >= issued.plus(self.nonce_period) {
            Ok(NonceAge::NearItsEnd)
        } else {
            Ok(NonceAge::Young)
        }
    }

    const fn nonce_dies(&self, issued: Timestamp) -> Timestamp {
        issued.plus(2 * self.nonce_period)
    }

    /// The time from the oldest accepted `iat` to now, in seconds.
    const fn window(&self) -> u64 {
        self.max_age + self.leeway
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'de> Deserialize<'de> for Freshness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FreshnessVisitor)
    }
}

struct FreshnessVisitor;

impl<'de> Visitor<'de> for FreshnessVisitor {
    type Value = Freshness;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fapi2, mcp, or a table")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Freshness, E> {
        match name {
            "fapi2" => Ok(Freshness::fapi2()),
            "mcp" => Ok(Freshness::mcp()),
            _ => Err(E::custom(format_args!(
                "{name:?}: must be fapi2, mcp, or a table"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Freshness, A::Error> {
        /// As in [`Freshness`].
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a table")]
        struct Table {
            max_age_seconds: Option<UpToADay<0>>,
            leeway_seconds: Option<UpToADay<0>>,
            nonce_period_seconds: Option<UpToADay<1>>,
            #[serde(default)]
            nonce_instead_of_iat: bool,
        }

        let table = Table::deserialize(MapAccessDeserializer::new(table))?;
        let default = Freshness::DEFAULT;
        Ok(Freshness {
            max_age: table
                .max_age_seconds
                .map_or(default.max_age, |given| given.0),
            leeway: table.leeway_seconds.map_or(default.leeway, |given| given.0),
            nonce_period: table
                .nonce_period_seconds
                .map_or(default.nonce_period, |given| given.0),
            decided_by: if table.nonce_instead_of_iat {
                DecidedBy::Nonce
            } else {
                DecidedBy::Both
            },
        })
    }
}

/// Seconds in a document.
struct UpToADay<const MIN: u64>(u64);

impl<'de, const MIN: u64> Deserialize<'de> for UpToADay<MIN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        if (MIN..=LONGEST).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(D::Error::custom(format_args!(
                "{seconds}: must be {MIN} to {LONGEST} seconds"
            )))
        }
    }
}

impl fmt::Debug for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Freshness")
            .field("max_age", &Duration::from_secs(self.max_age))
            .field("leeway", &Duration::from_secs(self.leeway))
            .field("nonce_period", &Duration::from_secs(self.nonce_period))
            .field("decided_by", &self.decided_by)
            .finish()
    }
}

const fn clamp_to_a_day(span: Duration) -> u64 {
    let seconds = span.as_secs();
    if seconds > LONGEST { LONGEST } else { seconds }
}

/// A double without a fraction, as an integer. The largest ones become the largest integer.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
const fn whole(date: f64) -> i128 {
    date as i128
}

fn distance(from: i128, to: i128) -> u64 {
    u64::try_from(to.abs_diff(from)).unwrap_or(u64::MAX)
}

impl Freshness {
    /// How far `iat` is behind now, computed from the error: negative if it is ahead.
    pub(crate) fn skew(&self, error: IatError) -> f64 {
        match error {
            IatError::InTheFuture { by } => -seconds(self.leeway.saturating_add(by)),
            IatError::TooOld { by } => seconds(self.window().saturating_add(by)),
        }
    }
}

/// `iat` lies outside the window (RFC 9449 section 4.3, check 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IatError {
    /// Further in the future than the leeway allows.
    #[error("the DPoP proof was created in the future")]
    InTheFuture {
        /// Seconds beyond the end of the window.
        by: u64,
    },
    /// Older than the maximum age and the leeway allow.
    #[error("the DPoP proof is too old")]
    TooOld {
        /// Seconds beyond the end of the window.
        by: u64,
    },
}

impl IatError {
    /// By how much the window was missed, for the log.
    pub(crate) fn detail(self) -> String {
        match self {
            Self::InTheFuture { by } => format!("{by} s too far ahead"),
            Self::TooOld { by } => format!("{by} s too old"),
        }
    }
}

/// The age of a nonce within its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceAge {
    Young,
    NearItsEnd,
}

/// A nonce that this server issued, outside its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceAgeError {
    InTheFuture,
    Stale,
}

#[cfg(test)]
mod tests;
