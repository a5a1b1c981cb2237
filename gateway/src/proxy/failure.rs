//! Requests that end with an error: whose fault it is, and what the client and the log learn of it.

use http::StatusCode;
use http::header::EXPECT;
use pingora::prelude::Session;
use pingora::{Error, ErrorSource, ErrorType};

use crate::proxy::Context;

pub(super) struct Failure {
    pub(super) fault: Fault,
    /// `None`: the client is gone, and no one would read a response.
    pub(super) status: Option<StatusCode>,
    /// For the client.
    pub(super) detail: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Client,
    Gateway,
    Service,
}

/// Whether the whole body of the request has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    Complete,
    Incomplete,
}

impl Failure {
    pub(super) fn of(error: &Error, upload: Upload) -> Self {
        if let ErrorType::HTTPStatus(503) = error.etype() {
            return Self::new(
                Fault::Service,
                StatusCode::SERVICE_UNAVAILABLE,
                "no server of the service is available",
            );
        }
        match error.esource() {
            ErrorSource::Upstream => Self::of_service(error.etype(), upload),
            ErrorSource::Downstream => Self::of_client(error.etype()),
            ErrorSource::Internal | ErrorSource::Unset => Self::new(
                Fault::Gateway,
                StatusCode::INTERNAL_SERVER_ERROR,
                "the gateway failed",
            ),
        }
    }

    fn of_service(error: &ErrorType, upload: Upload) -> Self {
        match error {
            // The service waits for the body as well.
            ErrorType::ReadTimedout if upload == Upload::Incomplete => Self::slow_client(),
            ErrorType::ConnectTimedout
            | ErrorType::ReadTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::WriteTimedout => Self::new(
                Fault::Service,
                StatusCode::GATEWAY_TIMEOUT,
                "the service did not respond in time",
            ),
            _ => Self::new(
                Fault::Service,
                StatusCode::BAD_GATEWAY,
                "no response from the service",
            ),
        }
    }

    fn of_client(error: &ErrorType) -> Self {
        match error {
            ErrorType::ReadTimedout => Self::slow_client(),
            ErrorType::ConnectionClosed
            | ErrorType::H2Error
            | ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout => Self {
                fault: Fault::Client,
                status: None,
                detail: "the client is gone",
            },
            _ => Self::new(
                Fault::Client,
                StatusCode::BAD_REQUEST,
                "the request is malformed",
            ),
        }
    }

    /// The one log line of such a request.
    pub(super) fn log(&self, error: &Error, context: &Context) {
        let upstream = context.upstream();
        let server = context.chosen.as_ref();
        let server = server.map(|chosen| chosen.server.name.as_str());
        let status = self.status.map(|status| status.as_u16());
        let (detail, error) = (self.detail, describe(error));
        if self.fault == Fault::Client {
            tracing::debug!(upstream, server, status, error, "{detail}");
        } else {
            tracing::error!(upstream, server, status, error, "{detail}");
        }
    }

    const fn slow_client() -> Self {
        Self::new(
            Fault::Client,
            StatusCode::REQUEST_TIMEOUT,
            "the body of the request did not arrive in time",
        )
    }

    const fn new(fault: Fault, status: StatusCode, detail: &'static str) -> Self {
        Self {
            fault,
            status: Some(status),
            detail,
        }
    }
}

impl Upload {
    pub(super) fn of(session: &mut Session) -> Self {
        // A client with `Expect` sends nothing before the service says so.
        let waits = session.req_header().headers.contains_key(EXPECT);
        if waits || session.downstream_session.is_body_done() {
            Self::Complete
        } else {
            Self::Incomplete
        }
    }
}

/// What the log may say of an error. The texts of other errors may contain parts of requests and responses.
pub(super) fn describe(error: &Error) -> String {
    match error.etype() {
        ErrorType::ConnectError
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectRefused
        | ErrorType::ConnectTimedout
        | ErrorType::HTTPStatus(503)
        | ErrorType::HandshakeError
        | ErrorType::InvalidCert
        | ErrorType::SocketError
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
            if *error.esource() != ErrorSource::Downstream =>
        {
            error.to_string()
        }
        other => other.as_str().to_owned(),
    }
}
