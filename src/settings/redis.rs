//! The replay store of several nodes. (Feature `redis`.)

use std::fs;

use crate::proof::replay::redis::server::RedisServer;
use crate::proof::replay::redis::start_error::RedisStartError;
use crate::proof::replay::redis::store::RedisReplayStore;
use crate::settings::document::{Document, Redis};
use crate::settings::fault::Fault;
use crate::settings::lasting::RedisAccess;
use crate::settings::secrets::Secrets;

impl Redis {
    /// The server, without the password and the certificates.
    pub(crate) fn server(&self) -> Result<RedisServer, Fault> {
        let server = match (&self.url, &self.primary, self.insecure_plaintext) {
            (Some(url), _, false) => RedisServer::url(url),
            (Some(url), _, true) => RedisServer::insecure_url(url),
            (None, primary, insecure) => {
                let primary = primary.as_deref().unwrap_or_default();
                let urls = self.sentinels.iter().map(String::as_str);
                if insecure {
                    RedisServer::insecure_sentinels(urls, primary)
                } else {
                    RedisServer::sentinels(urls, primary)
                }
            }
        };
        server.map_err(|error| Fault::at(self.place(), error))
    }

    /// Reads the password and the certificates.
    pub(crate) fn access(&self, secrets: &Secrets) -> Result<RedisAccess, Fault> {
        let password = self.password.as_ref();
        let password = password.map(|reference| secrets.read("redis.password", reference));
        Ok(RedisAccess::new(self, password.transpose()?))
    }

    /// The server, as all settings describe it. Nothing is sent to it.
    pub(crate) fn server_with(&self, access: &RedisAccess) -> Result<RedisServer, Fault> {
        let mut server = self.server()?;
        if let Some(password) = access.password() {
            let user = self.user.as_deref().unwrap_or("default");
            server = server.with_credentials(user, password);
        }
        if let Some(path) = &self.roots_file {
            let named = |error: &dyn std::fmt::Display| {
                Fault::at("redis.roots_file", format!("{}: {error}", path.display()))
            };
            let pem = fs::read(path).map_err(|error| named(&error))?;
            server = server.with_tls_roots(&pem).map_err(|error| named(&error))?;
        }
        Ok(server)
    }

    /// The setting with the address.
    const fn place(&self) -> &'static str {
        match &self.url {
            Some(_) => "redis.url",
            None => "redis.sentinels",
        }
    }

    /// The setting to look at after this error.
    fn place_of(&self, error: &RedisStartError) -> &'static str {
        match error {
            RedisStartError::Rejected { code, .. } if code == "WRONGPASS" || code == "NOAUTH" => {
                "redis.password"
            }
            _ => self.place(),
        }
    }
}

impl Document {
    /// Connects, or begins to.
    pub(crate) async fn connect(
        &self,
        redis: &Redis,
        server: RedisServer,
    ) -> Result<RedisReplayStore, Fault> {
        let mut builder = RedisReplayStore::at(server);
        if let Some(prefix) = &redis.prefix {
            builder = builder.with_prefix(prefix);
        }
        if self.start_timeout().is_zero() {
            return Ok(builder.connect_lazily());
        }
        let connected = builder.connect().await;
        connected.map_err(|error| Fault::at(redis.place_of(&error), error))
    }
}
