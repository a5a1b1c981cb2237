//! What is fetched: the keys of issuers, and introspection responses. (Features `jwks` and `introspection`.)

use std::fs;
use std::time::Duration;

use crate::issuer::endpoint_url::{EndpointUrl, InvalidEndpointUrl};
use crate::issuer::http::HttpClient;
use crate::settings::document::{Document, Http};
use crate::settings::fault::Fault;

/// The URL of an issuer or of an endpoint.
pub(crate) fn endpoint(path: &str, url: &str, insecure_http: bool) -> Result<EndpointUrl, Fault> {
    let parsed: Result<_, InvalidEndpointUrl> = if insecure_http {
        EndpointUrl::insecure_http(url)
    } else {
        url.parse()
    };
    parsed.map_err(|error| Fault::of_value(path, url, &error))
}

impl Http {
    pub(crate) fn client(&self) -> Result<HttpClient, Fault> {
        let mut builder = HttpClient::builder();
        if let Some(seconds) = self.timeout_seconds {
            builder = builder.with_timeout(Duration::from_secs(seconds));
        }
        if let Some(proxy) = &self.proxy {
            let with_proxy = builder.with_proxy(proxy);
            builder = with_proxy.map_err(|error| Fault::of_value("http.proxy", proxy, &error))?;
        }
        if let Some(path) = &self.roots_file {
            let named = |error: &dyn std::fmt::Display| {
                Fault::at("http.roots_file", format!("{}: {error}", path.display()))
            };
            let pem = fs::read(path).map_err(|error| named(&error))?;
            let with_roots = builder.add_root_certificates_pem(&pem);
            builder = with_roots.map_err(|error| named(&error))?;
        }
        builder.build().map_err(|error| Fault::at("http", error))
    }
}

#[cfg(feature = "jwks")]
mod keys {
    use tokio::runtime::Handle;
    use tokio::task::JoinSet;

    use super::{Document, Fault, HttpClient, endpoint};
    use crate::settings::document::{Issuer, KeyPlace};
    use crate::tokens::jwks::documents::RemoteKeysError;
    use crate::tokens::jwks::remote_keys::RemoteKeys;

    impl Document {
        /// The keys of this issuer, not fetched yet.
        pub(crate) fn remote_keys(
            &self,
            number: usize,
            issuer: &Issuer,
            http: HttpClient,
        ) -> Result<RemoteKeys, Fault> {
            let endpoint = |member, url: &str| {
                let path = self.issuer_path(number, member);
                endpoint(&path, url, issuer.insecure_http)
            };
            Ok(match &issuer.keys {
                KeyPlace::Url(url) => RemoteKeys::at(endpoint("jwks_url", url)?, http),
                KeyPlace::DiscoveredAt(url) => RemoteKeys::discover_at(
                    endpoint("url", &issuer.name())?,
                    endpoint("metadata_url", url)?,
                    http,
                ),
                KeyPlace::Discovered | KeyPlace::File(_) => {
                    RemoteKeys::discover(endpoint("url", &issuer.name())?, http)
                }
            })
        }

        /// Fetches the keys of all these issuers, at the same time.
        pub(crate) async fn fetch(&self, keys: &[(usize, RemoteKeys)]) -> Result<(), Fault> {
            let timeout = self.start_timeout();
            if timeout.is_zero() || keys.is_empty() {
                return Ok(());
            }
            let failed = |number: usize, error: &RemoteKeysError| {
                let issuer = &self.issuer[number];
                let (member, url) = match &issuer.keys {
                    KeyPlace::Url(url) => ("jwks_url", url),
                    KeyPlace::DiscoveredAt(url) => ("metadata_url", url),
                    KeyPlace::Discovered | KeyPlace::File(_) => ("url", &issuer.url),
                };
                let path = self.issuer_path(number, member);
                Fault::of_value(path, url, error)
            };
            if Handle::try_current().is_err() {
                return Err(failed(keys[0].0, &RemoteKeysError::NoRuntime));
            }
            let mut fetches = JoinSet::new();
            for (number, keys) in keys {
                let (number, keys) = (*number, keys.clone());
                fetches.spawn(async move {
                    let fetched = keys.fetched_within(timeout).await;
                    fetched.map(drop).map_err(|error| (number, error))
                });
            }
            while let Some(fetched) = fetches.join_next().await {
                match fetched {
                    Ok(Ok(())) => {}
                    Ok(Err((number, error))) => return Err(failed(number, &error)),
                    // Its task has panicked, or the runtime has ended.
                    Err(_) => return Err(Fault::at("issuer", RemoteKeysError::Interrupted)),
                }
            }
            Ok(())
        }
    }
}

#[cfg(feature = "introspection")]
mod introspection {
    use serde::de::DeserializeOwned;

    use super::{Document, Duration, Fault, HttpClient, endpoint};
    use crate::issuer::client_authentication::ClientAuthentication;
    use crate::settings::document::Introspection;
    use crate::tokens::introspection::verifier::IntrospectionVerifier;

    impl Document {
        pub(crate) fn introspection_verifier<C: DeserializeOwned + Send + Sync + 'static>(
            &self,
            introspection: &Introspection,
            secret: &str,
            http: HttpClient,
        ) -> Result<IntrospectionVerifier<C>, Fault> {
            let Introspection { url, client_id, .. } = introspection;
            let client = if introspection.client_secret_post {
                ClientAuthentication::post(client_id, secret)
            } else {
                ClientAuthentication::basic(client_id, secret)
            };
            let endpoint = endpoint("introspection.url", url, introspection.insecure_http)?;
            let mut audiences = self.audiences()?.into_iter();
            let first = audiences.next().unwrap_or_default();
            let tokens = IntrospectionVerifier::new(endpoint, client, first, http);
            let mut tokens = audiences.fold(tokens, IntrospectionVerifier::add_audience);
            if introspection.optional_audience {
                tokens = tokens.with_optional_audience();
            }
            if let Some(issuer) = &introspection.issuer {
                tokens = tokens.with_issuer(issuer);
            }
            if let Some(seconds) = introspection.cache_seconds {
                tokens = tokens.with_cache_lifetime(Duration::from_secs(seconds));
            }
            Ok(tokens.with_claims())
        }
    }
}
