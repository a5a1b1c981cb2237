//! A bounded map for values that may be evicted at any time. Reads do not change its structure.
//!
//! Eviction uses the clock algorithm: a hand goes around the entries, and spares an entry that was
//! read since the last round. A request does three lookups. In a profile, two lookups in `moka`,
//! which records each read for a better policy, took 5% of a verification.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::{RandomState, RwLock};

pub(crate) struct Cache<K, V> {
    shards: Box<[RwLock<Shard<K, V>>]>,
    hasher: RandomState,
    /// The maximum weight of one shard.
    share: u64,
}

struct Shard<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The key of every entry, exactly once. The last one takes the place of a removed one, so that a
    /// removal costs the same however many there are.
    ring: Vec<K>,
    /// The next place in the ring to look for an entry to evict. May be past the end.
    hand: usize,
    weight: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
    /// The place of the key in the ring.
    place: usize,
    was_read: AtomicBool,
}

/// The maximum number of shards, each with its own lock. A small map has fewer shards, so that each
/// has room for more than a few entries.
const MAX_SHARDS: u64 = 16;
const MIN_ENTRIES_PER_SHARD: u64 = 16;

/// How many entries one insertion may keep because they were read. The limit prevents a request from
/// waiting for a long scan.
const SPARED: usize = 16;

impl<K: Copy + Hash + Eq, V: Clone> Cache<K, V> {
    /// A map of at most this total weight. The typical weight of an entry determines the number of
    /// shards, and nothing else.
    pub(crate) fn new(capacity: u64, typical_weight: u64) -> Self {
        let entries = capacity / typical_weight.max(1);
        let shards = (entries / MIN_ENTRIES_PER_SHARD).clamp(1, MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| RwLock::new(Shard::new())).collect(),
            hasher: RandomState::default(),
            share: capacity / shards,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let shard = self.shard(key).read();
        let entry = shard.entries.get(key)?;
        // Written once a round: otherwise each core that reads it would take the cache line from the others.
        if !entry.was_read.load(Ordering::Relaxed) {
            entry.was_read.store(true, Ordering::Relaxed);
        }
        Some(entry.value.clone())
    }

    /// Stores a value, unless its weight exceeds the maximum of one shard.
    pub(crate) fn insert(&self, key: K, value: V, weight: u64) {
        let mut shard = self.shard(&key).write();
        shard.remove(&key);
        if weight <= self.share {
            shard.make_room(self.share - weight);
            shard.add(key, value, weight);
        }
    }

    pub(crate) fn remove(&self, key: &K) {
        self.shard(key).write().remove(key);
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *shard.write() = Shard::new();
        }
    }

    fn shard(&self, key: &K) -> &RwLock<Shard<K, V>> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any part of a hash is a hash"
        )]
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % self.shards.len()]
    }
}

impl<K: Copy + Hash + Eq, V> Shard<K, V> {
    fn new() -> Self {
        Self {
            entries: HashMap::new(),
            ring: Vec::new(),
            hand: 0,
            weight: 0,
        }
    }

    /// Evicts entries until their total weight is at most this.
    fn make_room(&mut self, max: u64) {
        let mut spared = 0;
        while self.weight > max {
            let Some(key) = self.ring.get(self.hand).or_else(|| self.ring.first()) else {
                return;
            };
            let key = *key;
            let Some(entry) = self.entries.get(&key) else {
                return;
            };
            // The entry that takes the place of an evicted one is the newest, so the hand passes it.
            self.hand = entry.place + 1;
            if spared < SPARED && entry.was_read.swap(false, Ordering::Relaxed) {
                spared += 1;
            } else {
                self.remove(&key);
            }
        }
    }

    fn add(&mut self, key: K, value: V, weight: u64) {
        let entry = Entry {
            value,
            weight,
            place: self.ring.len(),
            was_read: AtomicBool::new(false),
        };
        self.entries.insert(key, entry);
        self.ring.push(key);
        self.weight += weight;
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.ring.swap_remove(entry.place);
            if let Some(moved) = self.ring.get(entry.place)
                && let Some(moved) = self.entries.get_mut(moved)
            {
                moved.place = entry.place;
            }
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;

    /// The total weight of all entries.
    fn held(cache: &Cache<u32, u32>) -> u64 {
        let mut held = 0;
        for shard in &cache.shards {
            let shard = shard.read();
            let weight: u64 = shard.entries.values().map(|entry| entry.weight).sum();
            assert_eq!(shard.weight, weight);
            assert_eq!(shard.ring.len(), shard.entries.len());
            for (place, key) in shard.ring.iter().enumerate() {
                assert_eq!(shard.entries[key].place, place);
            }
            held += weight;
        }
        held
    }

    #[test]
    fn never_holds_more_than_its_capacity_and_keeps_what_is_in_use() {
        for (capacity, typical) in [(0, 1), (1, 1), (7, 1), (100, 1), (1_000, 1), (10_000, 100)] {
            let cache = Cache::new(capacity, typical);
            for i in 0..3_000_u32 {
                cache.insert(i, i + 1, typical + u64::from(i % 3));
                assert!(held(&cache) <= capacity, "{capacity}");
                if capacity >= 100 {
                    assert_eq!(cache.get(&0), Some(1), "{capacity}: in use after {i}");
                }
            }
            if capacity >= 100 {
                // A full shard has no room for the heaviest entry.
                let least = cache.share - (typical + 2);
                let shards = u64::try_from(cache.shards.len()).unwrap();
                assert!(held(&cache) > shards * least, "{capacity}: it is full");
            }
        }
    }

    #[test]
    fn makes_room_though_all_is_in_use() {
        let cache = Cache::new(100, 1);
        for i in 0..3_000_u32 {
            cache.insert(i, i, 1);
            assert_eq!(cache.get(&i), Some(i));
        }
    }

    #[test]
    fn removes_and_clears_entries() {
        let cache = Cache::new(4, 1);
        for i in 1..=3 {
            cache.insert(i, 10 * i, 1);
        }
        assert_eq!((cache.get(&1), cache.get(&3)), (Some(10), Some(30)));
        cache.insert(1, 11, 1);
        assert_eq!(cache.get(&1), Some(11), "the newer value");
        cache.remove(&1);
        cache.remove(&3);
        assert_eq!(
            (cache.get(&1), cache.get(&2), cache.get(&3)),
            (None, Some(20), None)
        );
        cache.insert(2, 21, 5);
        assert_eq!(cache.get(&2), None, "heavier than the capacity");
        cache.insert(4, 40, 1);
        assert_eq!(held(&cache), 1);
        cache.clear();
        assert_eq!(held(&cache), 0);
    }

    #[test]
    fn evicts_the_oldest_entries_that_were_not_read() {
        let cache = Cache::new(8, 1);
        for i in 0..8 {
            cache.insert(i, i, 1);
        }
        cache.remove(&5);
        assert_eq!(cache.get(&1), Some(1));
        for i in 8..12 {
            cache.insert(i, i, 1);
            assert!(held(&cache) <= 8);
        }
        let left: Vec<u32> = (0..12).filter(|i| cache.get(i).is_some()).collect();
        assert_eq!(left, [1, 4, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn holds_nothing_of_entries_that_were_removed() {
        let cache = Cache::new(1_000, 1_000);
        for i in 0..100_000_u32 {
            cache.insert(i, i, 1);
            cache.remove(&i);
        }
        assert_eq!(held(&cache), 0);
        let shard = cache.shards[0].read();
        assert!(shard.ring.capacity() <= 16 && shard.entries.capacity() <= 16);
    }

    thread_local! {
        static COMPARISONS: Cell<usize> = const { Cell::new(0) };
    }

    /// A key that counts how often it is compared.
    #[derive(Clone, Copy, Eq)]
    struct Counting(u32);

    impl PartialEq for Counting {
        fn eq(&self, other: &Self) -> bool {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0 == other.0
        }
    }

    impl Hash for Counting {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[test]
    fn a_removal_does_not_depend_on_the_number_of_entries() {
        let cache = Cache::new(10_000, 10_000);
        for i in 0..10_000 {
            cache.insert(Counting(i), (), 1);
        }
        for i in [0, 5_000, 9_999] {
            COMPARISONS.set(0);
            cache.remove(&Counting(i));
            let comparisons = COMPARISONS.get();
            assert!(comparisons < 100, "{i}: {comparisons} comparisons");
            cache.insert(Counting(i), (), 1);
        }
    }
}
