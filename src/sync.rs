//! Locks without poisoning, a counter, and keyed hashes. Built with `--cfg tower_dpop_loom`, locks and counter are those of
//! loom, for the models in `tests/models`.
//!
//! Only this file decides what happens after a panic under a lock.
//!
//! Code in this crate does not panic while it holds one of these locks, unless an allocation fails.
//! The guarded value is consistent between any two statements under the lock; otherwise, a comment
//! at the use of the lock says what is lost. So a lock is granted even if a previous holder panicked.

use std::sync::PoisonError;

#[cfg(tower_dpop_loom)]
use loom::sync::{self, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(tower_dpop_loom))]
use std::sync::{self, MutexGuard, RwLockReadGuard, RwLockWriteGuard};

#[cfg(tower_dpop_loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(tower_dpop_loom))]
pub(crate) use std::sync::atomic::AtomicU64;

/// A keyed hash with a secret. In models it has none, because each run of a model must be the same.
#[cfg(tower_dpop_loom)]
pub(crate) type RandomState = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;
#[cfg(not(tower_dpop_loom))]
pub(crate) use std::collections::hash_map::RandomState;

#[derive(Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
