//! How many records the store in memory has, in total and by client, and whether there is room for another.

use std::collections::BTreeMap;

use crate::proof::replay::clients::Client;
use crate::proof::replay::forgotten::Forgotten;
use crate::proof::replay::store::ReplayStoreError;
use crate::time::Timestamp;

/// The maximum numbers of live records.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    pub(crate) records_per_client: usize,
}

/// Counts live records by the last second in which they are needed. When a second has passed, its records
/// are subtracted at once, before they are dropped from memory.
pub(crate) struct Ledger {
    pub(crate) live: usize,
    /// Clients with live records.
    pub(crate) clients: usize,
    pub(crate) rejected: u64,
    seconds: BTreeMap<Timestamp, Second>,
    forgotten: Forgotten,
}

#[derive(Default)]
struct Second {
    records: usize,
    /// Clients of which no record lasts longer.
    clients: usize,
}

/// A record that is to be counted.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) now: Timestamp,
    /// The last second of the proof.
    pub(crate) expires: Timestamp,
    /// The last second of the record: the same, or later.
    pub(crate) kept_until: Timestamp,
    /// How long a record is kept at least, in seconds.
    pub(crate) retention_floor: u64,
}

/// A record that was counted.
pub(crate) struct Entered {
    /// The last second of the record.
    pub(crate) kept_until: Timestamp,
    /// Which records may be dropped from memory.
    pub(crate) forgotten: Forgotten,
}

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self {
            live: 0,
            clients: 0,
            rejected: 0,
            seconds: BTreeMap::new(),
            forgotten: Forgotten::NOTHING,
        }
    }

    /// Counts a record, if there is room for it.
    pub(crate) fn enter(
        &mut self,
        client: &mut Client,
        entry: Entry,
        limits: Limits,
    ) -> Result<Entered, ReplayStoreError> {
        self.pass(entry.now, entry.retention_floor);
        if self.forgotten.contains(entry.expires) {
            // The clock was set back, or another thread has read a later second.
            return Err(ReplayStoreError::Unavailable);
        }
        let last_second = client.last_second();
        let last_second = last_second.filter(|second| self.seconds.contains_key(second));
        if last_second.is_none() {
            // They were subtracted here, perhaps while the clock was ahead.
            client.clear();
        }
        self.check_room(client.live(), limits)
            .inspect_err(|_| self.rejected += 1)?;

        // A record whose last second is forgotten would be dropped at once. It need not last into the range: no
        // proof that expires there is accepted. And it lasts as long as its proof, which expires before the range.
        let kept_until = self.forgotten.last_outside(entry.kept_until);
        self.count_client(last_second, kept_until);
        self.live += 1;
        self.seconds.entry(kept_until).or_default().records += 1;
        client.count(kept_until);
        Ok(Entered {
            kept_until,
            forgotten: self.forgotten,
        })
    }

    /// Subtracts the records of all seconds that have passed.
    fn pass(&mut self, now: Timestamp, retention_floor: u64) {
        while let Some(oldest) = self.seconds.first_entry()
            && *oldest.key() < now
        {
            let (end, second) = oldest.remove_entry();
            self.live -= second.records;
            self.clients -= second.clients;
            // The floor is at least the time for which any verifier accepts a proof. The claim was up to one floor before
            // `end`, and the proof was made up to one floor before its claim: with another verifier it may expire then.
            let floors = retention_floor.saturating_mul(2);
            let start = Timestamp::from_unix(end.as_unix().saturating_sub(floors));
            self.forgotten.add(start, end);
        }
    }

    /// Max-min fairness. While the store is filling up, a client that has more than an equal share gets
    /// nothing more, and what it leaves is for the others. A client that is alone has all of it.
    fn check_room(&self, held: usize, limits: Limits) -> Result<(), ReplayStoreError> {
        let fills_up = self.live >= limits.records / 5 * 4;
        // Its own count may be too high, by records that have just expired.
        let held = held.min(self.live);
        let equal_share = limits.records / self.clients.max(1);
        if held >= limits.records_per_client || (fills_up && held > equal_share) {
            Err(ReplayStoreError::ClientLimit)
        } else if self.live >= limits.records {
            Err(ReplayStoreError::Full)
        } else {
            Ok(())
        }
    }

    /// Counts a client in the last second of its records.
    fn count_client(&mut self, before: Option<Timestamp>, kept_until: Timestamp) {
        if before.is_some_and(|before| before >= kept_until) {
            return;
        }
        match before.and_then(|before| self.seconds.get_mut(&before)) {
            Some(second) => second.clients -= 1,
            None => self.clients += 1,
        }
        self.seconds.entry(kept_until).or_default().clients += 1;
    }
}
