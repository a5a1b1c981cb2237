//! The address of the Redis primary, and how to log in there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use redis::ConnectionAddr;

use crate::proof::replay::redis::tls::{InvalidTlsPem, TlsSettings};
use crate::uri::without_userinfo;

/// Where the one primary is that takes all claims.
///
/// # Example
///
/// ```
/// use tower_dpop::proof::RedisServer;
///
/// let one = RedisServer::url("rediss://redis.internal:6379")?.with_credentials("dpop", "s3cret");
/// let with_failover = RedisServer::sentinels(
///     ["rediss://s1.internal:26379", "rediss://s2.internal:26379", "rediss://s3.internal:26379"],
///     "dpop-primary",
/// )?
/// .with_credentials("dpop", "s3cret");
///
/// assert!(RedisServer::url("redis://redis.internal:6379").is_err()); // no TLS
/// # let _ = (one, with_failover);
/// # Ok::<(), tower_dpop::proof::InvalidRedisUrl>(())
/// ```
#[derive(Clone)]
pub struct RedisServer {
    location: Location,
    /// Those of the primary.
    credentials: Option<RedisCredentials>,
    tls: TlsSettings,
    plaintext: Plaintext,
}

#[derive(Clone)]
pub(crate) enum Location {
    Primary(Endpoint),
    Sentinels {
        endpoints: Vec<Endpoint>,
        name: String,
    },
}

/// One server, as its URL describes it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) credentials: Option<RedisCredentials>,
    pub(crate) database: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        host: String,
        port: u16,
        security: Security,
    },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plaintext,
    Tls,
}

/// Where connections without TLS are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plaintext {
    Everywhere,
    OnLoopback,
}

#[derive(Clone)]
pub(crate) struct RedisCredentials {
    /// `None` is the user `default`.
    pub(crate) user: Option<String>,
    pub(crate) password: String,
}

impl RedisServer {
    /// The primary at this URL: `rediss://[user[:password]@]host[:port][/database]` (TLS), `unix:///path`, or
    /// `redis://…` (no TLS) if the host is `localhost`, in `127.0.0.0/8` or `[::1]`. The default port is 6379.
    ///
    /// User and password are percent-encoded in a URL; [`with_credentials`](Self::with_credentials) takes them as they are.
    ///
    /// # Errors
    ///
    /// The text is not such a URL.
    pub fn url(url: &str) -> Result<Self, InvalidRedisUrl> {
        Self::primary(url, Plaintext::OnLoopback)
    }

    /// As [`url`](Self::url), but `redis://` is accepted for any host.
    ///
    /// # Security
    ///
    /// An attacker between this service and Redis can read the password, delete records, and say that a proof was not used before,
    /// so that proofs can be used again.
    ///
    /// # Errors
    ///
    /// The text is not such a URL.
    pub fn insecure_url(url: &str) -> Result<Self, InvalidRedisUrl> {
        Self::primary(url, Plaintext::Everywhere)
    }

    /// The primary that these sentinels name. They are asked again for each new connection, one after the other, until one
    /// responds. If the primary that it names cannot be used, another one is asked first the next time.
    ///
    /// The URLs are as for [`url`](Self::url), without a database; the default port is 26379. All of them are `rediss://`, or all are
    /// `redis://`, and the primary is reached in the same way. Credentials in them are those of the sentinels;
    /// [`with_credentials`](Self::with_credentials) sets those of the primary. A sentinel needs to permit only
    /// `+sentinel|get-master-addr-by-name`.
    ///
    /// # Security
    ///
    /// A failover can lose records that were not replicated yet. If nonces are required, no proof can be used again after it.
    ///
    /// # Errors
    ///
    /// A text is not such a URL, or there is none.
    pub fn sentinels<'u>(
        urls: impl IntoIterator<Item = &'u str>,
        name: &str,
    ) -> Result<Self, InvalidRedisUrl> {
        Self::behind_sentinels(urls.into_iter(), name, Plaintext::OnLoopback)
    }

    /// As [`sentinels`](Self::sentinels), but without TLS on any host, if the URLs are `redis://`.
    ///
    /// # Security
    ///
    /// See [`insecure_url`](Self::insecure_url).
    ///
    /// # Errors
    ///
    /// A text is not such a URL, or there is none.
    pub fn insecure_sentinels<'u>(
        urls: impl IntoIterator<Item = &'u str>,
        name: &str,
    ) -> Result<Self, InvalidRedisUrl> {
        Self::behind_sentinels(urls.into_iter(), name, Plaintext::Everywhere)
    }

    /// Sets the user and the password for the primary. They replace those of its URL.
    #[must_use]
    pub fn with_credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some(RedisCredentials {
            user: Some(user.to_owned()),
            password: password.to_owned(),
        });
        self
    }

    /// Trusts only the certificates that these roots issued (PEM, one or more), not the system's roots. For the primary and
    /// for sentinels.
    ///
    /// # Errors
    ///
    /// The text has no certificate, or one that cannot be read.
    pub fn with_tls_roots(mut self, pem: &[u8]) -> Result<Self, InvalidTlsPem> {
        self.tls = self.tls.with_roots(pem)?;
        Ok(self)
    }

    /// Shows this certificate (PEM, followed by intermediate ones) to servers that require one, as Redis does by default
    /// (`tls-auth-clients yes`). For the primary and for sentinels.
    ///
    /// # Errors
    ///
    /// A text has no certificate or no private key, or one that cannot be read.
    pub fn with_tls_client_certificate(
        mut self,
        certificate_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<Self, InvalidTlsPem> {
        self.tls = self.tls.with_identity(certificate_pem, key_pem)?;
        Ok(self)
    }

    pub(crate) const fn location(&self) -> &Location {
        &self.location
    }

    pub(crate) const fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// The primary that a sentinel named, unless it is not to be reached without TLS.
    pub(crate) fn named_by_sentinel(
        &self,
        host: String,
        port: u16,
        sentinel: &Endpoint,
    ) -> Option<Endpoint> {
        let security = sentinel.address.security();
        if security == Security::Plaintext
            && self.plaintext == Plaintext::OnLoopback
            && !is_loopback(&host)
        {
            return None;
        }
        Some(Endpoint {
            address: Address::Tcp {
                host,
                port,
                security,
            },
            credentials: self.credentials.clone(),
            database: 0,
        })
    }

    /// The primary at a known address.
    pub(crate) fn endpoint(&self, endpoint: &Endpoint) -> Endpoint {
        Endpoint {
            credentials: self.credentials.clone(),
            ..endpoint.clone()
        }
    }

    fn primary(url: &str, plaintext: Plaintext) -> Result<Self, InvalidRedisUrl> {
        let endpoint = Endpoint::parse(url, plaintext, "6379")?;
        Ok(Self {
            credentials: endpoint.credentials.clone(),
            location: Location::Primary(endpoint),
            tls: TlsSettings::default(),
            plaintext,
        })
    }

    fn behind_sentinels<'u>(
        urls: impl Iterator<Item = &'u str>,
        name: &str,
        plaintext: Plaintext,
    ) -> Result<Self, InvalidRedisUrl> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for url in urls {
            let endpoint = Endpoint::parse(url, plaintext, "26379")?;
            let is_tcp = matches!(endpoint.address, Address::Tcp { .. });
            if !is_tcp || endpoint.database != 0 {
                return Err(InvalidRedisUrl::Malformed(shown(url)));
            }
            let first = endpoints.first().unwrap_or(&endpoint);
            if first.address.security() != endpoint.address.security() {
                return Err(InvalidRedisUrl::MixedSentinels(shown(url)));
            }
            endpoints.push(endpoint);
        }
        if endpoints.is_empty() {
            return Err(InvalidRedisUrl::NoSentinel);
        }
        Ok(Self {
            location: Location::Sentinels {
                endpoints,
                name: name.to_owned(),
            },
            credentials: None,
            tls: TlsSettings::default(),
            plaintext,
        })
    }
}

impl Endpoint {
    fn parse(text: &str, plaintext: Plaintext, port: &str) -> Result<Self, InvalidRedisUrl> {
        let malformed = || InvalidRedisUrl::Malformed(shown(text));
        // Deliberately not left to the library, where a fragment turns certificates off and a query has a password.
        if text.contains(|c: char| !c.is_ascii_graphic() || c == '?' || c == '#') {
            return Err(malformed());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
        let security = match scheme {
            "unix" if cfg!(unix) && rest.starts_with('/') && rest.len() > 1 => {
                return Ok(Self {
                    address: Address::Unix(rest.into()),
                    credentials: None,
                    database: 0,
                });
            }
            "rediss" => Security::Tls,
            "redis" => Security::Plaintext,
            _ => return Err(malformed()),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let host_and_port = authority.rsplit('@').next().unwrap_or_default();
        let has_port = host_and_port
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let full = if has_port {
            format!("redis://{rest}")
        } else {
            format!("redis://{authority}:{port}{}", &rest[authority.len()..])
        };
        let info: redis::ConnectionInfo = full.parse().map_err(|_| malformed())?;
        let ConnectionAddr::Tcp(host, port) = info.addr().clone() else {
            return Err(malformed());
        };
        if security == Security::Plaintext
            && plaintext == Plaintext::OnLoopback
            && !is_loopback(&host)
        {
            return Err(InvalidRedisUrl::NotTls(shown(text)));
        }
        let login = info.redis_settings();
        Ok(Self {
            address: Address::Tcp {
                host,
                port,
                security,
            },
            credentials: login.password().map(|password| RedisCredentials {
                user: login.username().map(str::to_owned),
                password: password.to_owned(),
            }),
            database: login.db(),
        })
    }
}

impl Address {
    pub(crate) const fn security(&self) -> Security {
        match self {
            Self::Tcp { security, .. } => *security,
            Self::Unix(_) => Security::Plaintext,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// A URL without what may be a secret: userinfo, a query, a fragment, and a port that is no number (which is a password if the
/// host was forgotten).
fn shown(url: &str) -> String {
    let url = without_userinfo(url);
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    // The colons of an IPv6 address are in brackets.
    let ip_end = match rest.find(']') {
        Some(at) if rest.starts_with('[') => at + 1,
        _ => 0,
    };
    match rest[ip_end..].split_once(':') {
        Some((host, port)) if port.contains(|c: char| !c.is_ascii_digit() && c != '/') => {
            format!("{scheme}://{}{host}:…", &rest[..ip_end])
        }
        _ => url.to_owned(),
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RedisServer");
        match &self.location {
            Location::Primary(endpoint) => {
                shown.field("primary", &endpoint.address);
            }
            Location::Sentinels { endpoints, name } => {
                let addresses: Vec<_> = endpoints.iter().map(|one| &one.address).collect();
                shown.field("sentinels", &addresses).field("name", name);
            }
        }
        shown.finish_non_exhaustive()
    }
}

/// Why a text is not the URL of a Redis server: a configuration error. Holds the text, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRedisUrl {
    /// Not a URL of the accepted forms.
    #[error(
        "{0:?}: must be of the form rediss://[user[:password]@]host[:port][/database] (user and password percent-encoded), or unix:///path"
    )]
    Malformed(String),
    /// Some sentinels are reached with TLS and some without.
    #[error("{0:?}: the sentinels must be all rediss:// or all redis://")]
    MixedSentinels(String),
    /// There is no URL of a sentinel.
    #[error("there must be at least one sentinel")]
    NoSentinel,
    /// The scheme is `redis`, and the host is not this machine.
    #[error("{0:?}: must be rediss:// (redis:// is accepted on loopback only)")]
    NotTls(String),
}
