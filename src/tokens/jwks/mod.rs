//! Keys of issuers over the network: discovery, fetching, rotation.

pub(crate) mod documents;
pub(crate) mod schedule;
pub(crate) mod fetch;
pub(crate) mod remote_keys;
