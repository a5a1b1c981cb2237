//! What a request costs, as a ratio to one verification of its signature.
//!
//! `benches/run` builds and runs everything, and writes `benches/RESULTS.md`. The binary `measure`
//! takes the times, `allocations` counts, `report` writes what they found.
//!
//! On a shared machine the speed of one minute is not that of the next, so no time stands alone:
//! each is taken between two halves of the raw verification of the same signatures, a few
//! milliseconds apart, and medians are of the ratios ([`timing`]). Nothing under measurement is a
//! stand-in: tokens are signed and verified, proofs are remembered.

pub mod results;
pub mod raw;
pub mod timing;
pub mod parties;
pub mod requests;
pub mod rejections;
pub mod parsing;
pub mod replays;
pub mod cores;
pub mod engines;
#[cfg(feature = "peers")]
pub mod peers;
pub mod setting;
pub mod markdown;
pub mod chart;
