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
    /// have changed. `start_timeout_seconds` is always set.
    pub(crate) dpop: toml::Table,
    #[serde(default)]
    pub(crate) listener: Vec<Listener>,
    #[serde(default)]
    pub(crate) forward_auth: Vec<ForwardAuth>,
    #[serde(default)]
    pub(crate) upstream: BTreeMap<String, Upstream>,
    #[serde(default)]
    pub(crate) route: Vec<Route>,
    /// The header fields that tell services who the client is.
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
    /// Four limits: how long a client may take to send the header of a request, send nothing of the body, read nothing of the
    /// response, and keep a connection without a request.
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
    /// Accepts a proof more than once, and leaves the credentials in the request: for a gate in front of services that check
    /// proofs again.
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
    /// `http://host[:port]` or `https://host[:port]`. All have the same scheme. Requests are shared between all addresses of all
    /// names, which are resolved again every ten seconds.
    pub(crate) servers: Vec<String>,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// The certificate authorities that are trusted for its certificate, instead of those of the system.
    pub(crate) roots_file: Option<PathBuf>,
    /// The certificate of the gateway (mutual TLS).
    pub(crate) client_certificate: Option<Tls>,
    /// The name in its certificate, if it is not the host of the URL.
    pub(crate) server_name: Option<String>,
    pub(crate) health_check: Option<HealthCheck>,
    #[serde(default = "defaults::connect_timeout")]
    pub(crate) connect_timeout_seconds: u64,
    /// How long the service may send nothing, counted again from each part of the request that it is sent. Over WebSocket, how
    /// long both sides may send nothing.
    #[serde(default = "defaults::read_timeout")]
    pub(crate) read_timeout_seconds: u64,
    /// How long the service may read nothing of a request.
    #[serde(default = "defaults::read_timeout")]
    pub(crate) write_timeout_seconds: u64,
    /// How long an unused connection is kept. It should be shorter than at the service: a POST on a connection that the service
    /// has closed is not repeated, and its client gets 502.
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

/// What a path requires, and the service that serves it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
pub(crate) struct Route {
    /// The path and all below it: `/orders` matches `/orders/1`, but not `/ordersheet`. The longest path applies. If servers could
    /// read the path of a request in different ways that match different routes, the request gets 400.
    pub(crate) path: String,
    /// Only this path, and none below it.
    #[serde(default)]
    pub(crate) exact: bool,
    /// Empty: all. `GET` includes `HEAD`. Other methods get 405, unless another route with the same path has them.
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
    /// DPoP, and what `[dpop]` allows in addition.
    #[default]
    Dpop,
    /// Also unbound tokens under the Bearer scheme.
    AllowBearer,
    /// Also tokens that are bound to something other than a DPoP key: the service must check this binding.
    InsecureUncheckedCnf,
    /// Tokens are not checked. The service gets `Authorization` and `DPoP` as they are, and no identity fields.
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

/// The name of a claim; or a JSON pointer (RFC 6901) into the claims, such as `/realm_access/roles`; or `jkt`, the thumbprint of
/// the client's key, which only a request with a proof has.
pub(crate) type Claim = String;

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// As it is: visible ASCII, and single spaces within. Integers, `true` and `false` as JSON writes them.
    #[default]
    Plain,
    /// The same values, and any other string: UTF-8, percent-encoded but for letters, digits, `-`, `.`, `_` and `~`.
    Percent,
    /// JSON in visible ASCII without spaces: all else is within strings, and escaped (`\u0020`). For any claim without numbers
    /// that lose digits when they are read.
    Json,
}

/// What happens if the encoding cannot express the claim, or if the field would be longer than 8 KiB.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unrepresentable {
    /// The request is not passed on: 500.
    #[default]
    Reject,
    /// The field is left out.
    Omit,
}

/// The gateway responds to preflights and to all other `OPTIONS` requests, and its CORS fields replace those of services in all
/// responses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    /// `https://app.example.com`, or `*` alone.
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
    #[serde(default)]
    pub(crate) requests: LoggedRequests,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Which requests get a line in the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LoggedRequests {
    #[default]
    All,
    /// Not those whose response is from their service.
    Rejected,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Process {
    /// `None`: as many as there are cores.
    pub(crate) threads: Option<usize>,
    /// How long requests may still take when the process is told to stop.
    pub(crate) drain_seconds: u64,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            threads: None,
            drain_seconds: 60,
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
