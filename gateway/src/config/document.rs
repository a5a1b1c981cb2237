//! The document as it is written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use tower_dpop::resource::Scopes;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// The settings of the verifier: [`tower_dpop::settings::Settings`]. Kept as a table, so that a reload sees whether they
    /// have changed.
    pub(crate) dpop: toml::Table,
    #[serde(default)]
    pub(crate) listener: Vec<Listener>,
    #[serde(default)]
    pub(crate) forward_auth: Vec<ForwardAuth>,
    #[serde(default)]
    pub(crate) upstream: BTreeMap<String, Upstream>,
    #[serde(default)]
    pub(crate) route: Vec<Route>,
    /// The header fields in which services learn of the client.
    #[serde(default)]
    pub(crate) identity: Vec<IdentityField>,
    pub(crate) cors: Option<Cors>,
    #[serde(default)]
    pub(crate) operations: Operations,
    #[serde(default)]
    pub(crate) log: Log,
    #[serde(default)]
    pub(crate) process: Process,
}

/// Where clients reach the reverse proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    /// Proxies in front, whose `X-Forwarded-*` and `Forwarded` are passed on.
    #[serde(default)]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// How long a client may take for the header of a request, may send nothing of its body and read nothing of the response,
    /// and may keep a connection without a request.
    #[serde(default = "defaults::client_timeout")]
    pub(crate) client_timeout_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// Where other proxies ask whether a request may pass.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardAuth {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    pub(crate) asked_by: AskedBy,
    /// The networks from which they ask. Others get 403.
    pub(crate) from: Vec<IpNet>,
    /// The `path_prefix` of Envoy's HTTP filter.
    pub(crate) path_prefix: Option<String>,
    /// Accepts each proof as often as it is sent, for a gate in front of services that check proofs again.
    #[serde(default)]
    pub(crate) insecure_replays: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AskedBy {
    Nginx,
    IngressNginx,
    Traefik,
    Caddy,
    /// Envoy's filter `ext_authz` with an `http_service`.
    EnvoyHttp,
    /// Envoy's filter `ext_authz` with a `grpc_service`.
    EnvoyGrpc,
}

/// A service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    /// `http://host[:port]` or `https://host[:port]`. All have the same scheme.
    pub(crate) servers: Vec<String>,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// The authorities that its certificate may be from, instead of those of the system.
    pub(crate) roots_file: Option<PathBuf>,
    /// The certificate of the gateway (mutual TLS).
    pub(crate) client_certificate: Option<Tls>,
    /// The name in its certificate, if it is not the host of the URL.
    pub(crate) server_name: Option<String>,
    pub(crate) health_check: Option<HealthCheck>,
    #[serde(default = "defaults::connect_timeout")]
    pub(crate) connect_timeout_seconds: u64,
    /// How long the service may send nothing.
    #[serde(default = "defaults::read_timeout")]
    pub(crate) read_timeout_seconds: u64,
    #[serde(default = "defaults::read_timeout")]
    pub(crate) write_timeout_seconds: u64,
    #[serde(default = "defaults::idle_timeout")]
    pub(crate) idle_timeout_seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 only: over TLS, or with prior knowledge. gRPC needs it.
    Http2,
    /// HTTP/2 if the server chooses it in the TLS handshake, else HTTP/1.1.
    Negotiated,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthCheck {
    /// A `GET` of this path must get 200. Without a path, a TCP connection must be made.
    pub(crate) path: Option<String>,
    #[serde(default = "defaults::health_interval")]
    pub(crate) interval_seconds: u64,
}

/// What a path requires, and which service it is of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// The path and all below it: `/orders` is also `/orders/1`, not `/ordersheet`.
    pub(crate) path: String,
    /// Only this path, and none below it.
    #[serde(default)]
    pub(crate) exact: bool,
    /// Empty: all.
    #[serde(default)]
    pub(crate) methods: Vec<String>,
    /// Needed by listeners, not by forward authentication.
    pub(crate) upstream: Option<String>,
    #[serde(default)]
    pub(crate) access: Access,
    /// All of these.
    pub(crate) scopes: Option<Scopes>,
    /// One of these.
    pub(crate) any_scope: Option<Scopes>,
    pub(crate) acr_values: Option<Scopes>,
    pub(crate) max_age_seconds: Option<u64>,
    /// Lets CORS preflights through to the service.
    #[serde(default)]
    pub(crate) pass_preflights: bool,
    /// Removed from the beginning of the path.
    pub(crate) strip_prefix: Option<String>,
    /// Leaves `Authorization` in the request.
    #[serde(default)]
    pub(crate) keep_authorization: bool,
    /// Passes on the client's `Host`. Otherwise the service gets its own.
    #[serde(default)]
    pub(crate) preserve_host: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    /// Only DPoP, or what `[dpop]` allows besides.
    #[default]
    Dpop,
    /// Also unbound tokens under the Bearer scheme.
    AllowBearer,
    /// Also tokens whose binding another layer checks.
    InsecureUncheckedCnf,
    /// No token is looked at.
    Public,
}

/// A claim, and the header field that carries it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityField {
    pub(crate) claim: Claim,
    pub(crate) field: String,
    #[serde(default)]
    pub(crate) encoding: Encoding,
    #[serde(default)]
    pub(crate) unrepresentable: Unrepresentable,
}

/// The name of a claim, or `jkt`, the thumbprint of the client's key.
pub(crate) type Claim = String;

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// As it is: visible ASCII, and single spaces within. Integers, `true` and `false` as JSON writes them.
    #[default]
    Plain,
    /// UTF-8, percent-encoded.
    Percent,
    /// JSON in ASCII, for any claim.
    Json,
}

/// What happens if the encoding cannot express the claim.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unrepresentable {
    /// The request is not passed on: 500.
    #[default]
    Reject,
    /// The field is left out.
    Omit,
}

/// The gateway responds to preflights, and adds CORS fields to all responses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    pub(crate) allow_origins: Vec<String>,
    pub(crate) allow_methods: Vec<String>,
    /// Besides `Authorization`, `Content-Type` and `DPoP`.
    #[serde(default)]
    pub(crate) allow_headers: Vec<String>,
    /// Besides `Date`, `DPoP-Nonce`, `Retry-After` and `WWW-Authenticate`.
    #[serde(default)]
    pub(crate) expose_headers: Vec<String>,
    pub(crate) max_age_seconds: Option<u64>,
}

/// Health and metrics, at an address of their own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operations {
    /// `None`: none.
    pub(crate) address: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    #[serde(default)]
    pub(crate) format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Process {
    /// `None`: as many as there are cores.
    pub(crate) threads: Option<usize>,
    /// How long requests may still take when the process is told to stop.
    pub(crate) drain_seconds: u64,
    /// Where a new process takes over the listening sockets.
    pub(crate) upgrade_socket: PathBuf,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            threads: None,
            drain_seconds: 60,
            upgrade_socket: PathBuf::from("/run/dpop-gateway/upgrade.sock"),
        }
    }
}

mod defaults {
    pub(super) const fn client_timeout() -> u64 {
        60
    }

    pub(super) const fn connect_timeout() -> u64 {
        5
    }

    pub(super) const fn read_timeout() -> u64 {
        60
    }

    pub(super) const fn idle_timeout() -> u64 {
        60
    }

    pub(super) const fn health_interval() -> u64 {
        5
    }
}
