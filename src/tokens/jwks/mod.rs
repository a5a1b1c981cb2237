//! Keys of issuers over the network: discovery, fetching, rotation.
//!
//! # When keys are fetched
//!
//! | when | what is done | a request waits |
//! |---|---|---|
//! | before three quarters of the keys' life | nothing | no |
//! | after them | a fetch in the background | no |
//! | past their life | a fetch | until it has ended |
//! | past their life, a fetch failed less than ten cooldowns ago | one fetch a cooldown, in the background | no: it gets the stale keys |
//! | past their life and the stale life, or no keys yet | one fetch a cooldown after a failure | until it has ended; refused at once between them |
//! | no key verifies a token | one fetch a cooldown | until it has ended; the token is refused at once between them |
//!
//! There is at most one fetch at a time, and all requests wait for the same one. It runs in a task
//! of its own: a request that is dropped takes nothing from those that wait with it. Nothing runs
//! while no request comes.
//!
//! The life is what `Cache-Control` says (`max-age` less `Age`), at least one minute and at most
//! one hour; ten minutes where it says nothing, one minute where it forbids to keep the answer. An
//! answer that is the same, octet by octet, renews the life of the same
//! [`KeySet`](crate::tokens::key_set::KeySet), and with it every verdict that rests on it.
//!
//! # Under attack
//!
//! Anyone can send tokens with invented `kid`s or signatures. With the default cooldown of 5 s they
//! cause at most 12 fetches a minute in each process, whatever their number. Fetches by the keys'
//! age do not count and are not put off. A key with which the issuer signs before it was fetched is
//! known after 5 s and one fetch at the latest, flood or not; until then its tokens are refused.
//! While the issuer is out of reach, all causes together make one attempt a cooldown, and the
//! invented tokens are answered with 503, as any would be that only a new key could verify.
//!
//! The metadata are read again when the last reading is an hour old (the longest life), and after a
//! failure: an issuer's keys may move.
//!
//! Documents are read up to 256 KiB, key sets up to 128 keys. One that cannot be used, an empty one
//! too, is a failed fetch: the keys that were there stay.

pub(crate) mod documents;
pub(crate) mod schedule;
pub(crate) mod fetch;
pub(crate) mod remote_keys;
