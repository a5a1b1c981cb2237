//! Opens connections: TCP, TLS or a Unix socket, then the login.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, Value, cmd};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

use crate::proof::replay::redis::server::{Address, Endpoint, Location, RedisServer, Security};
use crate::proof::replay::redis::start_error::RedisStartError;

/// A connection that requests of many tasks share. Dropping it closes it.
pub(crate) struct Connection {
    pub(crate) requests: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens connections to one primary.
pub(crate) struct Dialer {
    server: RedisServer,
    /// Made once: it reads the system's roots.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// The longest that a sentinel is waited for. There are others.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);
/// Data that is unacknowledged for so long ends a connection.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(2);
/// After so long without data, the operating system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl Dialer {
    pub(crate) const fn new(server: RedisServer) -> Self {
        Self {
            server,
            tls: OnceLock::new(),
        }
    }

    /// Where the primary is now. The sentinel with this number, modulo their number, is asked first.
    pub(crate) async fn locate(&self, first: usize) -> Result<Endpoint, RedisStartError> {
        let (sentinels, name) = match self.server.location() {
            Location::Primary(endpoint) => return Ok(self.server.endpoint(endpoint)),
            Location::Sentinels { endpoints, name } => (endpoints, name),
        };
        let unknown = RedisStartError::UnknownPrimary { name: name.clone() };
        let mut failure = unknown.clone();
        let (last, first) = sentinels.split_at(first % sentinels.len().max(1));
        for sentinel in first.iter().chain(last) {
            let asked = tokio::time::timeout(SENTINEL_TIMEOUT, self.ask(sentinel, name)).await;
            match asked.unwrap_or_else(|_| Err(timed_out(sentinel))) {
                Ok(Some((host, port))) => {
                    let address = format!("{host}:{port}");
                    let named = self.server.named_by_sentinel(host, port, sentinel);
                    return named.ok_or(RedisStartError::Plaintext { address });
                }
                Ok(None) => failure = unknown.clone(),
                // A sentinel that does not know the name says more than one that is down.
                Err(error) if failure == unknown => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// The address that a sentinel has for this name.
    async fn ask(
        &self,
        sentinel: &Endpoint,
        name: &str,
    ) -> Result<Option<(String, u16)>, RedisStartError> {
        let connection = self.open(sentinel, || {}).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut requests = connection.requests.clone();
        let reply = requests.send_packed_command(&question).await;
        let reply = reply.map_err(|error| failed(sentinel, &error))?;
        match reply {
            Value::Array(parts) => match &parts[..] {
                [Value::BulkString(host), Value::BulkString(port)] => {
                    let host = String::from_utf8(host.clone()).ok();
                    let port = str::from_utf8(port).ok().and_then(|port| port.parse().ok());
                    Ok(host.zip(port))
                }
                _ => Ok(None),
            },
            Value::ServerError(error) => Err(RedisStartError::Rejected {
                address: sentinel.address.to_string(),
                code: error.code().to_owned(),
            }),
            _ => Ok(None),
        }
    }

    /// A connection after the login. `ended` is called when it was cut.
    pub(crate) async fn open(
        &self,
        endpoint: &Endpoint,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Connection, RedisStartError> {
        let stream = self
            .stream(&endpoint.address)
            .await
            .map_err(|error| unreachable(endpoint, error.to_string()))?;
        // RESP2 and no `CLIENT SETINFO`: nothing is sent but `AUTH` and `SELECT`, each if needed.
        let mut login = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_db(endpoint.database);
        if let Some(credentials) = &endpoint.credentials {
            login = login.set_password(&credentials.password);
            if let Some(user) = &credentials.user {
                login = login.set_username(user);
            }
        }
        // Timeouts are the caller's.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (requests, driver) = MultiplexedConnection::new_with_config(&login, stream, config)
            .await
            .map_err(|error| failed(endpoint, &error))?;
        let driver = tokio::spawn(async move {
            driver.await;
            ended();
        });
        Ok(Connection {
            requests,
            driver: driver.abort_handle(),
        })
    }

    async fn stream(&self, address: &Address) -> io::Result<Pin<Box<dyn Stream>>> {
        let (host, port, security) = match address {
            Address::Tcp {
                host,
                port,
                security,
            } => (host.as_str(), *port, *security),
            #[cfg(unix)]
            Address::Unix(path) => {
                return Ok(Box::pin(tokio::net::UnixStream::connect(path).await?));
            }
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let options = SockRef::from(&tcp);
        options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        #[cfg(target_os = "linux")]
        options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        match security {
            Security::Plaintext => Ok(Box::pin(tcp)),
            Security::Tls => {
                let tls = TlsConnector::from(self.tls().map_err(io::Error::other)?);
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                Ok(Box::pin(tls.connect(name, tcp).await?))
            }
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.server.tls().config()?);
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A response did not come within the limit of the caller.
pub(crate) fn timed_out(endpoint: &Endpoint) -> RedisStartError {
    unreachable(endpoint, "no response in time".to_owned())
}

fn unreachable(endpoint: &Endpoint, reason: String) -> RedisStartError {
    RedisStartError::Unreachable {
        address: endpoint.address.to_string(),
        reason,
    }
}

pub(crate) fn failed(endpoint: &Endpoint, error: &redis::RedisError) -> RedisStartError {
    let code = match (error.kind(), error.code()) {
        // The library drops the code.
        (ErrorKind::AuthenticationFailed, _) => "WRONGPASS",
        (_, Some(code)) => code,
        (kind, None) => {
            let reason = match kind {
                ErrorKind::Io => error.to_string(),
                _ => "the response is not that of Redis".to_owned(),
            };
            return unreachable(endpoint, reason);
        }
    };
    RedisStartError::Rejected {
        address: endpoint.address.to_string(),
        code: code.to_owned(),
    }
}
