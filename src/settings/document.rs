//! The settings as a document has them.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::deserialize::SecretReference;
use crate::jose::algorithm::Algorithms;
use crate::proof::freshness::Freshness;
use crate::proof::public_url::{InvalidPublicUrl, PublicUrl};
use crate::resource::quoted_text::QuotedText;
use crate::resource::requirement::Scopes;
use crate::settings::fault::Fault;
use crate::tokens::profile::Profile;

/// `docs/guide/configuration.md` has a table of all members.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
pub(crate) struct Document {
    pub(crate) public_url: Vec<String>,
    pub(crate) insecure_http: bool,
    pub(crate) audience: Vec<String>,
    pub(crate) issuer: Vec<Issuer>,
    pub(crate) introspection: Option<Introspection>,
    pub(crate) http: Http,
    pub(crate) start_timeout_seconds: Option<u64>,
    pub(crate) algorithms: Algorithms,
    pub(crate) freshness: Freshness,
    pub(crate) nonces: Nonces,
    pub(crate) insecure_one_use_per_node: bool,
    pub(crate) replay_memory_limit: Option<usize>,
    pub(crate) redis: Option<Redis>,
    pub(crate) allow_bearer: bool,
    pub(crate) insecure_unchecked_cnf: bool,
    pub(crate) realm: Option<QuotedText>,
    pub(crate) scope: Option<Scopes>,
    pub(crate) resource_metadata: Option<QuotedText>,
}

/// An issuer of signed tokens.
#[derive(Clone, Debug)]
pub(crate) struct Issuer {
    pub(crate) url: String,
    pub(crate) audience: Vec<String>,
    pub(crate) profile: Option<Profile>,
    pub(crate) lenient_typ: bool,
    pub(crate) algorithms: Option<Algorithms>,
    pub(crate) keys: KeyPlace,
    pub(crate) insecure_http: bool,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyPlace {
    Discovered,
    DiscoveredAt(String),
    File(PathBuf),
    Url(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Introspection {
    pub(crate) url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<SecretReference>,
    pub(crate) client_secret_post: bool,
    pub(crate) issuer: Option<String>,
    pub(crate) optional_audience: bool,
    pub(crate) cache_seconds: Option<u64>,
    pub(crate) insecure_http: bool,
}

/// Requests to issuers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) proxy: Option<String>,
    pub(crate) roots_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Nonces {
    #[default]
    Off,
    Generated,
    Secrets(SecretReference),
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    pub(crate) url: Option<String>,
    pub(crate) sentinels: Vec<String>,
    pub(crate) primary: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretReference>,
    pub(crate) prefix: Option<String>,
    pub(crate) roots_file: Option<PathBuf>,
    pub(crate) insecure_plaintext: bool,
    pub(crate) insecure_node_memory: bool,
}

impl Issuer {
    /// The `iss` of its tokens.
    pub(crate) fn name(&self) -> String {
        let url = self.url.clone();
        match self.profile {
            Some(profile) => profile.issuer(url),
            None => url,
        }
    }
}

impl<'de> Deserialize<'de> for Issuer {
    /// Reads a URL, for an issuer with every default, or a table.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IssuerVisitor;

        impl<'de> Visitor<'de> for IssuerVisitor {
            type Value = Issuer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the URL of an issuer, or a table")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<Issuer, E> {
                let table = IssuerTable {
                    url: url.to_owned(),
                    ..IssuerTable::default()
                };
                table.check()
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Issuer, A::Error> {
                IssuerTable::deserialize(MapAccessDeserializer::new(table))?.check()
            }
        }

        deserializer.deserialize_any(IssuerVisitor)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IssuerTable {
    url: String,
    audience: Vec<String>,
    profile: Option<Profile>,
    lenient_typ: bool,
    algorithms: Option<Algorithms>,
    metadata_url: Option<String>,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    insecure_http: bool,
}

impl IssuerTable {
    fn check<E: Error>(self) -> Result<Issuer, E> {
        if self.profile.is_some() && self.lenient_typ {
            return Err(E::custom(
                "profile and lenient_typ must not be set together",
            ));
        }
        let keys = match (self.metadata_url, self.jwks_url, self.jwks_file) {
            (None, None, None) => KeyPlace::Discovered,
            (Some(url), None, None) => KeyPlace::DiscoveredAt(url),
            (None, Some(url), None) => KeyPlace::Url(url),
            (None, None, Some(path)) => KeyPlace::File(path),
            _ => {
                return Err(E::custom(
                    "metadata_url, jwks_url and jwks_file must not be set together",
                ));
            }
        };
        Ok(Issuer {
            url: self.url,
            audience: self.audience,
            profile: self.profile,
            lenient_typ: self.lenient_typ,
            algorithms: self.algorithms,
            keys,
            insecure_http: self.insecure_http,
        })
    }
}

impl<'de> Deserialize<'de> for Nonces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NoncesVisitor;

        impl<'de> Visitor<'de> for NoncesVisitor {
            type Value = Nonces;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(NONCES)
            }

            fn visit_str<E: Error>(self, mode: &str) -> Result<Nonces, E> {
                match mode {
                    "generated" => Ok(Nonces::Generated),
                    "off" => Ok(Nonces::Off),
                    // Without the text, which may be a secret.
                    _ => Err(E::custom(format_args!("must be {NONCES}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Nonces, A::Error> {
                SecretReference::deserialize(MapAccessDeserializer::new(table)).map(Nonces::Secrets)
            }
        }

        deserializer.deserialize_any(NoncesVisitor)
    }
}

const NONCES: &str =
    "off, generated, or a reference to secrets, { file = \"/path\" } or { env = \"NAME\" }";

impl Document {
    /// Never empty.
    pub(crate) fn public_urls(&self) -> Result<Vec<PublicUrl>, Fault> {
        if self.public_url.is_empty() {
            let problem = "must be set: the URL under which clients reach the service";
            return Err(Fault::at("public_url", problem));
        }
        let urls = self.public_url.iter().map(|url| {
            let parsed: Result<_, InvalidPublicUrl> = if self.insecure_http {
                PublicUrl::insecure_http(url)
            } else {
                url.parse()
            };
            parsed.map_err(|error| Fault::of_value("public_url", url, &error))
        });
        urls.collect()
    }

    /// How long to wait for what must be reached at the start. Zero: not at all.
    #[cfg(any(feature = "jwks", feature = "redis"))]
    pub(crate) fn start_timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.start_timeout_seconds.unwrap_or(10))
    }

    /// The audiences of tokens whose issuer has no other: never empty.
    pub(crate) fn audiences(&self) -> Result<Vec<String>, Fault> {
        if self.audience.is_empty() {
            let first = self.public_urls()?.swap_remove(0);
            return Ok(vec![first.to_string()]);
        }
        Ok(self.audience.clone())
    }

    /// The path of an issuer. A single issuer has no number.
    pub(crate) fn issuer_path(&self, number: usize, member: &str) -> String {
        if self.issuer.len() > 1 {
            format!("issuer[{number}].{member}")
        } else {
            format!("issuer.{member}")
        }
    }
}
