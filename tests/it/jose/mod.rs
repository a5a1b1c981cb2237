mod engine;
#[cfg(feature = "precomputed-keys")]
mod recurring_key;
mod signing_key;
mod wycheproof;
