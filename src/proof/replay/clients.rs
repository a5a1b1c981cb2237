//! How many live records each client has.

use crate::time::Timestamp;

/// The clients of one shard: few, so they are searched one by one.
#[derive(Default)]
pub(crate) struct Clients {
    clients: Vec<Client>,
    /// The period in which clients without live records were last dropped.
    period: u64,
}

/// The live records of one client, in a fixed size: with a place for each second, finding a client would be
/// faster than finding its seconds.
pub(crate) struct Client {
    /// [`ReplayKey::client`](crate::proof::ReplayKey::client).
    key: [u8; 16],
    live: u32,
    /// The last second in which a record is needed, if there is a live one.
    last_second: Timestamp,
    used: u8,
    /// The last seconds of groups are rounded up to steps of `1 << step_bits` seconds.
    step_bits: u8,
    groups: [Group; MAX_GROUPS],
}

/// Records that are counted together until the last second of the last one.
#[derive(Clone, Copy)]
struct Group {
    /// The low 32 bits of the Unix time. The rest follows from that of the client, which is at most 136 years later.
    last_second: u32,
    records: u32,
}

/// Beyond it, the step is doubled. So a record counts for less than 30% longer than it is kept. Steps begin at fixed times:
/// groups that were joined with the next one instead would be delayed again and again, and a client that never
/// pauses would be counted without end.
const MAX_GROUPS: usize = 8;

/// Half a year, which only a clock that is set needs.
const MAX_STEP_BITS: u8 = 24;

/// How often clients without live records are dropped, in seconds.
const PERIOD: u64 = 16;

impl Clients {
    /// The client with this key, which is added if it is not there.
    pub(crate) fn client(&mut self, key: [u8; 16], now: Timestamp) -> &mut Client {
        self.drop_idle(now);
        let at = match self.clients.iter().position(|client| client.key == key) {
            Some(at) => at,
            None => self.add(key),
        };
        let client = &mut self.clients[at];
        client.pass(now);
        client
    }

    fn add(&mut self, key: [u8; 16]) -> usize {
        let at = self.clients.len();
        if at == self.clients.capacity() {
            self.clients.reserve_exact(1 + at / 4);
        }
        self.clients.push(Client::new(key));
        at
    }

    fn drop_idle(&mut self, now: Timestamp) {
        let period = now.as_unix() / PERIOD;
        if self.period != period {
            self.period = period;
            self.clients.retain(|client| client.last_second >= now);
            self.clients.shrink_to(2 * self.clients.len());
        }
    }
}

impl Client {
    const fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            live: 0,
            last_second: Timestamp::from_unix(0),
            used: 0,
            step_bits: 0,
            groups: [Group {
                last_second: 0,
                records: 0,
            }; MAX_GROUPS],
        }
    }

    pub(crate) const fn live(&self) -> usize {
        self.live as usize
    }

    /// The last second in which a record is needed, if there is one.
    pub(crate) fn last_second(&self) -> Option<Timestamp> {
        (self.live > 0).then_some(self.last_second)
    }

    /// Counts a record that is needed until this second.
    pub(crate) fn count(&mut self, kept_until: Timestamp) {
        // Without live records, it may be one of the future, from before the clock was set back.
        self.last_second = self.last_second().unwrap_or(kept_until).max(kept_until);
        self.live += 1;
        if usize::from(self.used) <= MAX_GROUPS / 2 {
            self.step_bits = 0;
        }
        loop {
            let end = self.round_up(kept_until);
            let used = usize::from(self.used);
            let at = self.groups[..used].partition_point(|group| self.end(*group) < end);
            if at < used && (self.end(self.groups[at]) == end || self.step_bits == MAX_STEP_BITS) {
                self.groups[at].records += 1;
                return;
            }
            if used < MAX_GROUPS {
                self.groups.copy_within(at..used, at + 1);
                self.groups[at] = Group {
                    last_second: low_bits(end),
                    records: 1,
                };
                self.used += 1;
                return;
            }
            if self.step_bits == MAX_STEP_BITS {
                self.groups[used - 1].records += 1;
                return;
            }
            self.double_step();
        }
    }

    /// Makes fewer groups of those that there are.
    fn double_step(&mut self) {
        self.step_bits += 1;
        let mut used = 0;
        for at in 0..usize::from(self.used) {
            let Group { records, .. } = self.groups[at];
            let last_second = low_bits(self.round_up(self.end(self.groups[at])));
            if used > 0 && self.groups[used - 1].last_second == last_second {
                self.groups[used - 1].records += records;
            } else {
                self.groups[used] = Group {
                    last_second,
                    records,
                };
                used += 1;
            }
        }
        self.used = u8::try_from(used).unwrap_or(self.used);
    }

    /// This second, or the end of the step that it is in.
    const fn round_up(&self, second: Timestamp) -> Timestamp {
        let within = (1 << self.step_bits) - 1;
        Timestamp::from_unix(second.as_unix().saturating_add(within) & !within)
    }

    /// The last second of this group: at most a step after that of the client.
    const fn end(&self, group: Group) -> Timestamp {
        let latest = self.last_second.plus(1 << MAX_STEP_BITS);
        let earlier = low_bits(latest).wrapping_sub(group.last_second);
        Timestamp::from_unix(latest.as_unix().saturating_sub(earlier as u64))
    }

    /// Forgets all records.
    pub(crate) const fn clear(&mut self) {
        (self.live, self.used) = (0, 0);
    }

    /// Subtracts the records of groups that have passed.
    fn pass(&mut self, now: Timestamp) {
        let groups = &self.groups[..usize::from(self.used)];
        let passed = groups.iter().take_while(|group| self.end(**group) < now);
        let (mut count, mut records) = (0, 0);
        for group in passed {
            count += 1;
            records += group.records;
        }
        if count > 0 {
            self.live -= records;
            self.groups.copy_within(count.., 0);
            self.used -= u8::try_from(count).unwrap_or(self.used);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
const fn low_bits(second: Timestamp) -> u32 {
    second.as_unix() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that a client has too many, if it makes one claim per second for records that are kept for so long, or for up to so
    /// many seconds less.
    fn most_too_many(start: u64, kept: u64, spread: u64) -> u64 {
        let mut clients = Clients::default();
        let mut ends: Vec<u64> = Vec::new();
        let mut most = 0;
        for second in 0..5 * kept {
            let now = start + second;
            ends.retain(|end| *end >= now);
            let client = clients.client([1; 16], Timestamp::from_unix(now));
            let too_many = client.live().checked_sub(ends.len());
            most = most.max(too_many.expect("never too few"));
            let end = now + kept - 1 - second * 7 % (spread + 1);
            client.count(Timestamp::from_unix(end));
            ends.push(end);
        }
        u64::try_from(most).unwrap()
    }

    #[test]
    fn counts_records_less_than_a_third_longer_than_they_are_kept() {
        for (start, kept) in [
            (0, 20),
            (1_700_000_000, 90),
            (u64::from(u32::MAX) - 500, 120),
            (1 << 40, 3_600),
        ] {
            for spread in [0, 5, 10] {
                let most = most_too_many(start, kept, spread);
                assert!(most * 3 <= kept, "{kept}, {spread}: {most}");
            }
        }
    }

    /// A client whose records were far apart is counted as precisely as others, though it never pauses.
    #[test]
    fn steps_become_short_again() {
        let mut clients = Clients::default();
        let start = Timestamp::from_unix(1_700_000_000);
        let client = clients.client([1; 16], start);
        // The ninth is one more than there are groups.
        for i in 0..9 {
            client.count(start.plus(1_000 * i));
        }
        // Of those, one is left.
        for second in 7_500..30_000 {
            let now = start.plus(second);
            clients.client([1; 16], now).count(now.plus(19));
        }
        let now = start.plus(30_000);
        // Nineteen, and less than a third more.
        let live = clients.client([1; 16], now).live();
        assert!((19..26).contains(&live), "{live}");
    }

    /// The clock is set by decades.
    #[test]
    fn counts_each_record_once_when_the_clock_is_set() {
        let year = 365 * 24 * 60 * 60;
        let mut clients = Clients::default();
        for (live, years) in [(0, 56), (0, 130), (1, 56), (2, 0), (1, 70)] {
            let now = Timestamp::from_unix(years * year);
            let client = clients.client([1; 16], now);
            assert_eq!(client.live(), live, "{years}");
            client.count(now.plus(90));
        }
    }

    /// Only a clock that is set needs groups so far apart.
    #[test]
    fn counts_records_that_are_years_apart() {
        let step = 2 << MAX_STEP_BITS;
        let mut clients = Clients::default();
        let client = clients.client([1; 16], Timestamp::from_unix(0));
        // The last one is within the groups, not after them.
        for at in (0..20).map(|steps| steps * step).chain([step + 1]) {
            client.count(Timestamp::from_unix(at));
        }
        assert_eq!(client.live(), 21);
        assert_eq!(usize::from(client.used), MAX_GROUPS);
        // Those that had no group of their own were counted in the last one, so not for ever.
        let last = clients.client([1; 16], Timestamp::from_unix(19 * step));
        assert_eq!(last.live(), 0);
    }

    /// Records that expire in any order are counted until all have expired, and then the client is dropped.
    #[test]
    fn counts_no_record_after_all_have_expired() {
        let mut clients = Clients::default();
        let mut random = 1_u64;
        for round in 0..50 {
            let now = Timestamp::from_unix(1_000 * round);
            for _ in 0..100 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let client = clients.client([1; 16], now);
                client.count(now.plus((random >> 33) % 500));
                assert!(client.last_second() >= Some(now));
            }
            assert_eq!(clients.client([1; 16], now).live(), 100);
            let later = now.plus(501);
            let client = clients.client([1; 16], later);
            assert_eq!((client.live(), client.last_second()), (0, None));
            clients.client([2; 16], later.plus(PERIOD));
            assert_eq!(clients.clients.len(), 1, "the first was dropped");
        }
    }
}
