//! The replay store of several nodes: one Redis or Valkey primary.
//!
//! A claim is one command, `SET <key> <own value> NX GET PX <ms>`. Its reply decides: nothing is a first use, the own
//! value is a first use whose reply was lost, and another value is a replay. How connections are opened, watched
//! and replaced is code of this crate: connection managers were seen to make claims wait for seconds in an outage, and to repeat a
//! command without telling, which makes a first use look like a replay.

pub(crate) mod start_error;
pub(crate) mod tls;
pub(crate) mod server;
pub(crate) mod settings;
pub(crate) mod dial;
pub(crate) mod info;
pub(crate) mod line;
pub(crate) mod probe;
pub(crate) mod health;
pub(crate) mod supervisor;
pub(crate) mod store;
pub(crate) mod builder;
