//! The verifier: its rules, its cache, and the limit of introspection requests in flight.

mod cached_tokens;
mod concurrency;
mod rules;
