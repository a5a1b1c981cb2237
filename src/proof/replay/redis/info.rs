//! What `INFO` says about a server.

/// The fields that the store needs. A proxy in front of Redis may leave some out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) mode: Option<String>,
    pub(crate) role: Option<String>,
    /// Another one after each start of the server.
    pub(crate) run_id: Option<String>,
    /// Another one after each promotion to primary.
    pub(crate) replication_id: Option<String>,
    pub(crate) max_memory: Option<u64>,
    pub(crate) policy: Option<String>,
    /// Keys that were removed because the memory was full, since the start of the server.
    pub(crate) evicted: u64,
}

impl Info {
    pub(crate) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim_end();
            let text = || Some(value.to_owned());
            match name {
                // Valkey calls it `server_mode`.
                "redis_mode" | "server_mode" => info.mode = text(),
                "role" => info.role = text(),
                "run_id" => info.run_id = text(),
                "master_replid" => info.replication_id = text(),
                "maxmemory" => info.max_memory = value.parse().ok(),
                "maxmemory_policy" => info.policy = text(),
                "evicted_keys" => info.evicted = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        info
    }

    /// The policy by which records are removed before their time, if there is one.
    pub(crate) fn eviction(&self) -> Eviction<'_> {
        match (self.max_memory, self.policy.as_deref()) {
            (Some(0), _) | (_, Some("noeviction")) => Eviction::None,
            (Some(_), Some(policy)) => Eviction::By(policy),
            _ => Eviction::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction<'i> {
    None,
    By(&'i str),
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::{Eviction, Info};

    #[test]
    fn eviction_needs_a_limit_and_a_policy() {
        let cases = [
            (
                "maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n",
                Eviction::None,
            ),
            (
                "maxmemory:1\r\nmaxmemory_policy:noeviction\r\n",
                Eviction::None,
            ),
            (
                "maxmemory:1\r\nmaxmemory_policy:volatile-ttl\r\n",
                Eviction::By("volatile-ttl"),
            ),
            ("maxmemory:1\r\n", Eviction::Unknown),
            ("maxmemory_policy:allkeys-lru\r\n", Eviction::Unknown),
            ("", Eviction::Unknown),
        ];
        for (text, expected) in cases {
            assert_eq!(Info::parse(text).eviction(), expected, "{text:?}");
        }
    }
}
