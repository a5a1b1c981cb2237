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
    /// The last second in which a record is needed.
    last_second: Timestamp,
    used: u8,
    groups: [Group; MAX_GROUPS],
}

/// Records that are counted together until the last second of the last one.
#[derive(Clone, Copy)]
struct Group {
    /// The low 32 bits of the Unix time. Half of their range is 68 years.
    last_second: u32,
    records: u32,
}

/// With more of them, the two nearest become one. So a record counts for up to about a seventh longer than it
/// is kept.
const MAX_GROUPS: usize = 8;

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
        self.live += 1;
        self.last_second = self.last_second.max(kept_until);
        let last_second = low_bits(kept_until);
        let groups = &mut self.groups[..usize::from(self.used)];
        match groups
            .iter_mut()
            .find(|group| group.last_second == last_second)
        {
            Some(group) => group.records += 1,
            None => self.add_group(Group {
                last_second,
                records: 1,
            }),
        }
    }

    /// Adds a group in the order of their last seconds.
    fn add_group(&mut self, group: Group) {
        if usize::from(self.used) == MAX_GROUPS {
            self.join_nearest();
        }
        let used = usize::from(self.used);
        let groups = &self.groups[..used];
        let at = groups.partition_point(|before| is_before(before.last_second, group.last_second));
        self.groups.copy_within(at..used, at + 1);
        self.groups[at] = group;
        self.used += 1;
    }

    fn join_nearest(&mut self) {
        let gap = |at: &usize| {
            let [before, after] = [at - 1, *at].map(|at| self.groups[at].last_second);
            after.wrapping_sub(before)
        };
        if let Some(at) = (1..MAX_GROUPS).min_by_key(gap) {
            self.groups[at].records += self.groups[at - 1].records;
            self.groups.copy_within(at.., at - 1);
            self.used -= 1;
        }
    }

    /// Subtracts the records of groups that have passed.
    fn pass(&mut self, now: Timestamp) {
        let groups = &self.groups[..usize::from(self.used)];
        let passed = groups
            .iter()
            .take_while(|group| is_before(group.last_second, low_bits(now)));
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

/// Whether a second is before another one that is less than 68 years away.
const fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that makes one claim per second has at most this many records too many.
    #[test]
    fn counts_records_at_most_a_quarter_longer_than_they_are_kept() {
        for (start, kept) in [
            (0, 20),
            (1_700_000_000, 90),
            (u64::from(u32::MAX) - 500, 120),
            (1 << 40, 3_600),
        ] {
            let mut clients = Clients::default();
            let mut most = 0;
            for second in 0..5 * kept {
                let now = Timestamp::from_unix(start + second);
                let client = clients.client([1; 16], now);
                let exact = usize::try_from(second.min(kept)).unwrap();
                assert!(client.live() >= exact, "{kept}: {second}");
                most = most.max(client.live() - exact);
                client.count(now.plus(kept - 1));
            }
            assert!(most * 4 <= usize::try_from(kept).unwrap(), "{kept}: {most}");
        }
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
