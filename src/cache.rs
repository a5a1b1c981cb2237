//! A bounded map for values that may be evicted at any time. Reads do not change its structure.
//!
//! Eviction uses the clock algorithm: entries are in a queue, and an entry that was read since it
//! last reached the front goes to the back again. A request does three lookups. In a profile, two
//! lookups in `moka`, which records each read for a better policy, took 5% of a verification.

use std::collections::hash_map::{Entry as Place, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::RwLock;

pub(crate) struct Cache<K, V> {
    shards: Box<[RwLock<Shard<K, V>>]>,
    hasher: RandomState,
    /// The maximum weight of one shard.
    share: u64,
}

struct Shard<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The key of every entry, exactly once.
    queue: VecDeque<K>,
    weight: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
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
            hasher: RandomState::new(),
            share: capacity / shards,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let shard = self.shard(key).read();
        let entry = shard.entries.get(key)?;
        entry.was_read.store(true, Ordering::Relaxed);
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
            queue: VecDeque::new(),
            weight: 0,
        }
    }

    /// Evicts entries until their total weight is at most this.
    fn make_room(&mut self, max: u64) {
        let mut spared = 0;
        while self.weight > max
            && let Some(key) = self.queue.pop_front()
            && let Place::Occupied(place) = self.entries.entry(key)
        {
            if spared < SPARED && place.get().was_read.swap(false, Ordering::Relaxed) {
                spared += 1;
                self.queue.push_back(key);
            } else {
                self.weight -= place.remove().weight;
            }
        }
    }

    fn add(&mut self, key: K, value: V, weight: u64) {
        let entry = Entry {
            value,
            weight,
            was_read: AtomicBool::new(false),
        };
        self.entries.insert(key, entry);
        self.queue.push_back(key);
        self.weight += weight;
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.queue.retain(|queued| queued != key);
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The total weight of all entries.
    fn held(cache: &Cache<u32, u32>) -> u64 {
        let mut held = 0;
        for shard in &cache.shards {
            let shard = shard.read();
            let weight: u64 = shard.entries.values().map(|entry| entry.weight).sum();
            assert_eq!(shard.weight, weight);
            assert_eq!(shard.queue.len(), shard.entries.len());
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
}
