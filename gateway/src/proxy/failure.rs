//! Requests that end with an error: whose fault it is, and what is reported to the client and in the log.

use http::StatusCode;
use http::header::EXPECT;
use pingora::prelude::Session;
use pingora::{Error, ErrorSource, ErrorType};

use crate::operations::Failed;

pub(super) struct Failure {
    pub(super) fault: Fault,
    /// `None`: the client is gone, and no one would read a response.
    pub(super) status: Option<StatusCode>,
    /// A name from a fixed set.
    pub(super) reason: &'static str,
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
                "no_healthy_server",
                "no server of the service is available",
            );
        }
        match error.esource() {
            ErrorSource::Upstream => Self::of_service(error.etype(), upload),
            ErrorSource::Downstream => Self::of_client(error.etype()),
            ErrorSource::Internal | ErrorSource::Unset => Self::new(
                Fault::Gateway,
                StatusCode::INTERNAL_SERVER_ERROR,
                "gateway_failed",
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
                "service_timeout",
                "the service did not respond in time",
            ),
            _ => Self::new(
                Fault::Service,
                StatusCode::BAD_GATEWAY,
                "service_failed",
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
                reason: "client_gone",
                detail: "the client is gone",
            },
            _ => Self::new(
                Fault::Client,
                StatusCode::BAD_REQUEST,
                "request_malformed",
                "the request is malformed",
            ),
        }
    }

    pub(super) fn for_the_log(&self, error: &Error) -> Failed {
        Failed {
            description: describe(error),
            cause: match self.fault {
                Fault::Client => None,
                Fault::Gateway => Some("gateway"),
                Fault::Service => Some(cause(error.etype())),
            },
        }
    }

    const fn slow_client() -> Self {
        Self::new(
            Fault::Client,
            StatusCode::REQUEST_TIMEOUT,
            "client_timeout",
            "the body of the request did not arrive in time",
        )
    }

    const fn new(
        fault: Fault,
        status: StatusCode,
        reason: &'static str,
        detail: &'static str,
    ) -> Self {
        Self {
            fault,
            status: Some(status),
            reason,
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

/// Groups pingora's types of errors, for a label.
fn cause(error: &ErrorType) -> &'static str {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, H1Error,
        H2Downgrade, H2Error, HTTPStatus, HandshakeError, InvalidCert, InvalidH2,
        InvalidHTTPHeader, ReadError, ReadTimedout, SocketError, TLSHandshakeFailure,
        TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    match error {
        ConnectTimedout | TLSHandshakeTimedout => "connect_timeout",
        ConnectError | ConnectNoRoute | ConnectRefused | SocketError => "connect",
        HandshakeError | InvalidCert | TLSHandshakeFailure => "tls",
        ReadTimedout | WriteTimedout => "timeout",
        ConnectionClosed | ReadError | WriteError => "closed",
        H1Error | H2Downgrade | H2Error | InvalidH2 | InvalidHTTPHeader => "protocol",
        HTTPStatus(503) => "no_healthy_server",
        _ => "other",
    }
}

/// The text of an error for the log. Texts of other types may contain parts of requests and responses, so they are left out.
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
