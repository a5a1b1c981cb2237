//! Why there is no response, or no client.

use std::error::Error;
use std::sync::Arc;

use http::StatusCode;

use crate::client::exchange::ClientError;
use crate::client::token::{InvalidTokenResponse, TokenSourceError};
use crate::jose::key_documents::SigningKeyError;
use crate::proof::public_url::PublicUrl;

/// Why a [`DpopClient`](crate::client::DpopClient) could not be built, or has no response.
///
/// No text has a token, a proof, a key, a nonce, a client secret, or the URL of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DpopClientError {
    /// The client could not sign its assertion (`private_key_jwt`).
    #[error("no client assertion could be signed")]
    Assertion,
    /// The authorization server sent the user back with an error, for example `access_denied` ([RFC 6749 section
    /// 4.1.2.1](https://www.rfc-editor.org/rfc/rfc6749#section-4.1.2.1)). Start another login if the user wants it.
    #[error("the authorization server did not authorize the client: {0}")]
    Authorization(
        /// The error code.
        String,
    ),
    /// The callback is not one of this login. Ignore it, and keep waiting: another page or another program may have sent
    /// it.
    #[error("the callback is rejected: {0}")]
    Callback(InvalidCallback),
    /// The issuer's metadata is missing, unreachable or unusable. The source says why.
    #[error("no metadata of the authorization server {issuer:?}: {reason}")]
    Discovery {
        /// The configured issuer.
        issuer: String,
        /// The reason.
        reason: Box<dyn Error + Send + Sync>,
    },
    /// reqwest could not be set up, for example TLS.
    #[error("the HTTP client could not be set up")]
    Http(#[source] reqwest::Error),
    /// The request is invalid, for example its URL or its JSON. Nothing was sent.
    #[error("the request is invalid")]
    InvalidRequest(#[source] reqwest::Error),
    /// No key could be generated, for example because the authorization server lists no algorithm that this crate supports.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    /// The user must log in: there is no refresh token, or the authorization server no longer accepts it. Start another
    /// login ([`start_login`](crate::client::DpopClientBuilder::start_login)).
    #[error("the session has ended: the user must log in again")]
    LoginRequired,
    /// The request is for a server that may not get the token. Nothing was sent. Name it with
    /// [`add_server`](crate::client::DpopClientBuilder::add_server) if it may.
    #[error(
        "the request is for a server that was not named with add_server; named are: {}",
        list(named)
    )]
    OtherServer {
        /// The servers that may get the token.
        named: Vec<PublicUrl>,
    },
    /// The request could not be sent.
    #[error(transparent)]
    Request(ClientError),
    /// A setting is missing, or contradicts another one.
    #[error("{0}")]
    Setting(&'static str),
    /// No token could be obtained for a request, and so the request was not sent. Requests that waited for the same token share
    /// the reason.
    #[error("there is no access token")]
    Token(#[source] Arc<DpopClientError>),
    /// The authorization server rejected the request for a token, or a pushed authorization request.
    #[error("the authorization server rejected the request with {status}: {error}", status = status.as_u16())]
    TokenRequest {
        /// The status of the response.
        status: StatusCode,
        /// The error code, for example `invalid_client`, or a note that there is none. At most 64 characters.
        error: String,
    },
    /// The response of the token endpoint has no token that is bound to our key. If its `token_type` is `Bearer`, the
    /// client is not registered for DPoP, or the server does not support it.
    #[error("the response of the token endpoint is rejected: {0}")]
    TokenResponse(InvalidTokenResponse),
    /// The authorization server is unreachable, or its response is incomplete or too long.
    #[error("no response of the authorization server: {0}")]
    Unreachable(String),
}

/// Why a callback is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCallback {
    /// `iss` is not the issuer, or is missing although the server's metadata promises it ([RFC 9207 section
    /// 2.4](https://www.rfc-editor.org/rfc/rfc9207#section-2.4)).
    #[error("it does not come from the configured issuer")]
    Issuer,
    /// There is neither a code nor an error, or a parameter occurs twice.
    #[error("it has no code, or a parameter twice")]
    Malformed,
    /// Another callback of this login had a code, which is used once ([RFC 6749 section
    /// 4.1.2](https://www.rfc-editor.org/rfc/rfc6749#section-4.1.2)).
    #[error("the login has had its callback")]
    Repeated,
    /// `state` is not the one of this login ([RFC 6749 section
    /// 10.12](https://www.rfc-editor.org/rfc/rfc6749#section-10.12)).
    #[error("its state is not the one of this login")]
    State,
}

impl DpopClientError {
    /// The error of the layer for requests.
    pub(crate) fn of_resource_request(error: ClientError, named: &[PublicUrl]) -> Self {
        match error {
            ClientError::OtherServer => Self::OtherServer {
                named: named.to_vec(),
            },
            error => Self::of_request(error),
        }
    }

    /// The error of the layers. The reason why there is no token is ours.
    pub(crate) fn of_request(error: ClientError) -> Self {
        match error {
            ClientError::Token(error) => match error.into_reason().downcast::<Arc<Self>>() {
                Ok(reason) => Self::Token(*reason),
                Err(reason) => Self::Request(ClientError::Token(TokenSourceError::new(reason))),
            },
            error => Self::Request(error),
        }
    }

    /// Whether a refresh token is useless from now on.
    pub(crate) fn ends_the_session(&self) -> bool {
        matches!(self, Self::TokenRequest { error, .. } if error == "invalid_grant")
    }
}

fn list(urls: &[PublicUrl]) -> String {
    let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
    urls.join(", ")
}

/// An error code, as far as it has the characters of one ([RFC 6749 section
/// 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
pub(crate) fn error_code(text: &str) -> String {
    let is_allowed = |c: &char| matches!(c, '\x20'..='\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
    text.chars().filter(is_allowed).take(64).collect()
}
