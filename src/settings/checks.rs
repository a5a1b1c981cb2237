//! The checks of settings that need no file and no network.

use crate::settings::document::{Document, Introspection, Issuer, KeyPlace, Nonces, Redis};
use crate::settings::fault::Fault;

/// No service waits longer for one response.
const MAX_TIMEOUT_SECONDS: u64 = 3600;

impl Document {
    /// All checks that need no file and no network.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.public_urls()?;
        if self.audience.iter().any(String::is_empty) {
            return Err(Fault::at("audience", "must not be empty"));
        }
        if self.issuer.is_empty() && self.introspection.is_none() {
            return Err(Fault::at("issuer", "must be set, or introspection"));
        }
        for (number, issuer) in self.issuer.iter().enumerate() {
            self.check_issuer(number, issuer)?;
        }
        if let Some(introspection) = &self.introspection {
            introspection.check()?;
        }
        for (path, seconds, min) in [
            ("http.timeout_seconds", self.http.timeout_seconds, 1),
            ("start_timeout_seconds", self.start_timeout_seconds, 0),
        ] {
            if seconds.is_some_and(|seconds| !(min..=MAX_TIMEOUT_SECONDS).contains(&seconds)) {
                let problem = format!("must be {min} to {MAX_TIMEOUT_SECONDS} seconds");
                return Err(Fault::at(path, problem));
            }
        }
        if self
            .http
            .proxy
            .as_ref()
            .is_some_and(|url| url.contains('@'))
        {
            return Err(Fault::at("http.proxy", "must have no user and no password"));
        }
        if self.replay_memory_limit == Some(0) {
            return Err(Fault::at("replay_memory_limit", "must not be 0"));
        }
        let Some(redis) = &self.redis else {
            return Ok(());
        };
        redis.check()?;
        if let Nonces::Generated = self.nonces {
            let problem = "\"generated\": must not be set together with redis, because each process would generate another secret: set { file = \"/path\" } or { env = \"NAME\" }, with the same secret on all nodes (variables: DPOP_NONCE_SECRETS_FILE or DPOP_NONCE_SECRETS)";
            return Err(Fault::at("nonces", problem));
        }
        if self.replay_memory_limit.is_some() && !redis.insecure_node_memory {
            let problem = "has no effect with redis, unless redis.insecure_node_memory is set";
            return Err(Fault::at("replay_memory_limit", problem));
        }
        Ok(())
    }

    fn check_issuer(&self, number: usize, issuer: &Issuer) -> Result<(), Fault> {
        let path = |member| self.issuer_path(number, member);
        if issuer.url.is_empty() {
            return Err(Fault::at(path("url"), "must be set"));
        }
        if issuer.audience.iter().any(String::is_empty) {
            return Err(Fault::at(path("audience"), "must not be empty"));
        }
        let earlier = &self.issuer[..number];
        if earlier.iter().any(|other| other.name() == issuer.name()) {
            return Err(Fault::of_value(path("url"), &issuer.url, &"is set twice"));
        }
        let (member, url) = match &issuer.keys {
            KeyPlace::File(_) => return Ok(()),
            KeyPlace::Discovered => ("url", &issuer.url),
            KeyPlace::DiscoveredAt(url) => {
                check_endpoint(&path("url"), &issuer.url, issuer.insecure_http)?;
                ("metadata_url", url)
            }
            KeyPlace::Url(url) => ("jwks_url", url),
        };
        if cfg!(not(feature = "jwks")) {
            let problem =
                "must be set: keys are fetched only in builds of tower-dpop with the feature jwks";
            return Err(Fault::at(path("jwks_file"), problem));
        }
        check_endpoint(&path(member), url, issuer.insecure_http)
    }
}

impl Introspection {
    fn check(&self) -> Result<(), Fault> {
        if cfg!(not(feature = "introspection")) {
            let problem = "needs a build of tower-dpop with the feature introspection";
            return Err(Fault::at("introspection", problem));
        }
        let is_set = |path: &str, value: &str| match value {
            "" => Err(Fault::at(path, "must be set")),
            _ => Ok(()),
        };
        is_set("introspection.url", &self.url)?;
        is_set("introspection.client_id", &self.client_id)?;
        if self.client_secret.is_none() {
            return Err(Fault::at("introspection.client_secret", "must be set"));
        }
        check_endpoint("introspection.url", &self.url, self.insecure_http)
    }
}

impl Redis {
    fn check(&self) -> Result<(), Fault> {
        if cfg!(not(feature = "redis")) {
            let problem = "needs a build of tower-dpop with the feature redis";
            return Err(Fault::at("redis", problem));
        }
        for (path, urls) in [
            ("redis.url", self.url.as_slice()),
            ("redis.sentinels", &self.sentinels),
        ] {
            // A password in a URL would be a secret in the document.
            if urls.iter().any(|url| url.contains('@')) {
                let problem =
                    "must have no user and no password: use redis.user and redis.password";
                return Err(Fault::at(path, problem));
            }
        }
        match (&self.url, self.sentinels.is_empty(), &self.primary) {
            (Some(_), true, None) | (None, false, Some(_)) => {}
            (Some(_), _, _) => {
                let problem = "must not be set together with redis.sentinels and redis.primary";
                return Err(Fault::at("redis.url", problem));
            }
            (None, true, _) => {
                let problem = "must be set, or redis.sentinels and redis.primary";
                return Err(Fault::at("redis.url", problem));
            }
            (None, false, None) => {
                let problem = "must be set: the name of the primary at the sentinels";
                return Err(Fault::at("redis.primary", problem));
            }
        }
        if self.user.is_some() && self.password.is_none() {
            return Err(Fault::at("redis.password", "must be set, with redis.user"));
        }
        #[cfg(feature = "redis")]
        self.server().map(drop)?;
        Ok(())
    }
}

#[cfg(any(feature = "jwks", feature = "introspection"))]
fn check_endpoint(path: &str, url: &str, insecure_http: bool) -> Result<(), Fault> {
    crate::settings::remote::endpoint(path, url, insecure_http).map(drop)
}

/// Without the features that fetch, nothing is fetched.
#[cfg(not(any(feature = "jwks", feature = "introspection")))]
#[expect(clippy::unnecessary_wraps, reason = "as with the features")]
fn check_endpoint(_path: &str, _url: &str, _insecure_http: bool) -> Result<(), Fault> {
    Ok(())
}
