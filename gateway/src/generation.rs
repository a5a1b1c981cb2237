//! What is built from a configuration. A reload replaces all of it at once.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tower_dpop::settings::{Parts, Settings};
use tower_dpop::tokens::KeySource as _;

use crate::certificates::Certificates;
use crate::config::{ConfigError, Document};
use crate::policy::Policy;
use crate::upstreams::Upstreams;

/// The current generation. A request takes it once, and keeps it until the request ends.
pub(crate) type Current = Arc<ArcSwap<Generation>>;

pub(crate) struct Generation {
    pub(crate) document: Document,
    pub(crate) parts: Arc<Parts>,
    pub(crate) policy: Policy,
    /// The same policy, but each `jti` can be used again. For each `[[forward_auth]]` with `insecure_replays`.
    pub(crate) replays_policy: Option<Policy>,
    pub(crate) upstreams: Upstreams,
    pub(crate) certificates: Certificates,
}

impl Generation {
    /// The new verifier takes over the replay store of the previous one, so a used proof stays used.
    pub(crate) async fn build(
        document: Document,
        previous: Option<&Self>,
    ) -> Result<Self, ConfigError> {
        let at_dpop = |problem: String| ConfigError {
            place: "dpop".to_owned(),
            problem,
        };
        let settings: Settings = document
            .dpop
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| at_dpop(error.message().to_owned()))?;
        let certificates = Certificates::new(&document)?;
        let parts = match previous {
            Some(previous) => settings.build_parts_after(&previous.parts).await,
            None => settings.build_parts().await,
        };
        let parts = parts.map_err(|error| at_dpop(error.to_string()))?;
        let insecure_replays = document
            .forward_auth
            .iter()
            .any(|asked| asked.insecure_replays);
        let replays_policy = if insecure_replays {
            tracing::warn!(
                "insecure_replays: a `[[forward_auth]]` accepts each proof as often as it is sent, so the services must check proofs again"
            );
            let verifier = parts.verifier.clone().allow_insecure_replays();
            Some(Policy::new(&document, &verifier)?)
        } else {
            None
        };
        let generation = Self {
            certificates,
            replays_policy,
            policy: Policy::new(&document, &parts.verifier)?,
            upstreams: Upstreams::new(&document).await?,
            parts: Arc::new(parts),
            document,
        };
        generation.fetch_keys();
        Ok(generation)
    }

    /// The keys of issuers that are not there yet. Otherwise the first requests would wait for them, and the log would not say
    /// before that an issuer is unreachable.
    fn fetch_keys(&self) {
        let now = SystemTime::now().into();
        for keys in &self.parts.keys {
            if keys.status().keys == 0 {
                let keys = keys.clone();
                tokio::spawn(async move { keys.key_set(now).await });
            }
        }
    }
}
