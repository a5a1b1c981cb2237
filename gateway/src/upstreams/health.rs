//! Is a server healthy? Checks use the same TLS settings and client certificate as requests, on connections of their own.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::lb::Backend;
use pingora::lb::health_check::HealthCheck;
use pingora::{Error, ErrorType, OrErr as _};

use crate::config::{self, ConfigError};
use crate::upstreams::{Server, server_of};

/// The time for one check, even if the interval is longer.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Check {
    upstream: String,
    /// `None`: a connection is enough.
    request: Option<RequestHeader>,
    timeout: Duration,
    transport: TransportConnector,
    http: Connector,
}

impl config::HealthCheck {
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.max(1))
    }
}

impl Check {
    pub(super) fn new(upstream: &str, settings: &config::HealthCheck) -> Result<Self, ConfigError> {
        let request = settings.path.as_ref().map(|path| {
            let request = RequestHeader::build("GET", path.as_bytes(), Some(1));
            request.map_err(|error| ConfigError {
                place: format!("upstream.{upstream}.health_check.path"),
                problem: error.to_string(),
            })
        });
        Ok(Self {
            upstream: upstream.to_owned(),
            request: request.transpose()?,
            timeout: settings.interval().min(TIMEOUT),
            transport: TransportConnector::new(None),
            http: Connector::new(None),
        })
    }

    async fn ask(&self, server: &Server, target: &Backend) -> pingora::Result<()> {
        let peer = server.peer_at(target);
        let Some(request) = &self.request else {
            return self.transport.get_stream(&peer).await.map(drop);
        };
        let mut request = request.clone();
        request.insert_header("host", server.authority.clone())?;
        // The connection is not reused: the next check must show that a new connection can be made.
        let (mut session, _) = self.http.get_http_session(&peer).await?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map(|header| header.status);
        if status == Some(StatusCode::OK) {
            return Ok(());
        }
        let status = status.map_or(0, |status| status.as_u16());
        Error::e_explain(
            ErrorType::HTTPStatus(status),
            format!("expected status 200, not {status}"),
        )
    }
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let server = server_of(target).ok_or_else(|| Error::new(ErrorType::InternalError))?;
        tokio::time::timeout(self.timeout, self.ask(&server, target))
            .await
            .or_err(ErrorType::ReadTimedout, "no response to the health check")?
    }

    fn backend_summary(&self, target: &Backend) -> String {
        let server = server_of(target).map(|server| server.name.clone());
        let (upstream, server) = (&self.upstream, server.unwrap_or_default());
        format!("upstream {upstream}: server {server} ({})", target.addr)
    }

    /// One check is enough in either direction.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
