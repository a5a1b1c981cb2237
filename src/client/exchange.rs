//! Sends one request of a client, repeatedly if needed: with a new proof each time, and only to the
//! servers it is meant for.
//!
//! ```text
//! send ─▶ rejected with use_dpop_nonce and a new nonce ─▶ send again, at most twice
//!      ─▶ rejected with invalid_dpop_proof and a Date that shows our clock is wrong ─▶ send again, once
//!      ─▶ anything else ─▶ that is the response
//! ```
//!
//! A response may arrive while the body is still being sent. A retry sends the body from its beginning.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;

use derive_where::derive_where;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tower_service::Service;

use crate::client::body::BodyCopy;
use crate::client::new_proof::{Htu, InvalidRequestUrl, NewProof, SignedProof};
use crate::client::servers::{ClockOffset, Server, Servers};
use crate::client::signer::ProofSigner;
use crate::client::token::{AccessTokenText, TokenSourceError};
use crate::credentials::DPOP;
use crate::jose::signing_key::SigningError;
use crate::proof::public_url::PublicUrl;
use crate::time::Clock;
use crate::uri::Origin;

/// How often a request is sent again with a new nonce. One demand is usual. A second one occurs if
/// the server changes its nonce in between. After that, the caller gets the response.
const MAX_NONCE_RETRIES: usize = 2;

/// The configuration and state of a layer: key, servers, body copies, clock.
#[derive_where(Clone)]
pub(crate) struct Exchange<K, P> {
    pub(crate) key: Arc<K>,
    pub(crate) servers: Servers,
    pub(crate) bodies: Arc<P>,
    pub(crate) other_origins: OtherOrigins,
    pub(crate) clock: Clock,
    pub(crate) correction: ClockCorrection,
}

/// What happens to a request for a server that is not configured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OtherOrigins {
    /// The request is sent without token and proof.
    PassUnsigned,
    Reject,
}

/// Whether a rejected proof is replaced by one with the server's time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClockCorrection {
    ByDate,
    Never,
}

/// Where a request goes.
pub(crate) enum Destination<'e> {
    OtherOrigin,
    Server(&'e Server, Htu),
}

/// What the response to a signed request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// `invalid_dpop_proof`.
    InvalidProof,
    /// `use_dpop_nonce`.
    UseNonce,
    /// Neither of the two. The caller gets the response.
    Other,
}

impl Demand {
    /// What an `error` code asks for, if it is a code of DPoP.
    pub(crate) fn of_error(code: &str) -> Option<Self> {
        match code {
            "invalid_dpop_proof" => Some(Self::InvalidProof),
            "use_dpop_nonce" => Some(Self::UseNonce),
            _ => None,
        }
    }
}

/// Reads what a response of one kind of server asks for.
pub(crate) trait Reads<D> {
    /// The body of the response after it was inspected.
    type Body;

    fn read(response: Response<D>) -> impl Future<Output = (Demand, Response<Self::Body>)> + Send;
}

impl<K, P> Exchange<K, P> {
    pub(crate) fn new(key: K, url: PublicUrl, bodies: P) -> Self {
        Self {
            key: Arc::new(key),
            servers: Servers::new(url),
            bodies: Arc::new(bodies),
            other_origins: OtherOrigins::Reject,
            clock: Clock::default(),
            correction: ClockCorrection::ByDate,
        }
    }

    pub(crate) fn with_bodies<Q>(self, bodies: Q) -> Exchange<K, Q> {
        Exchange {
            key: self.key,
            servers: self.servers,
            bodies: Arc::new(bodies),
            other_origins: self.other_origins,
            clock: self.clock,
            correction: self.correction,
        }
    }

    /// Whether the request is to be signed.
    pub(crate) fn destination(&self, head: &Parts) -> Result<Destination<'_>, ClientError> {
        let origin = Htu::origin_of(&head.uri).map_err(ClientError::Url)?;
        let mut unsigned = ClientError::OtherServer;
        // A path that no proof can name is not an error at other origins, which get no proof.
        let destination = if self.servers.at(&origin).is_some() {
            let htu = Htu::of(&head.uri).map_err(ClientError::Url)?;
            let server = self.servers.of(&htu, head.uri.path());
            if server.is_none() && self.servers.cover(&htu) {
                unsigned = ClientError::AmbiguousPath;
            }
            server.map(|server| (server, htu))
        } else {
            None
        };
        match (destination, self.other_origins) {
            (Some(_), _) if !names_only(&head.headers, &origin) => Err(ClientError::OtherHost),
            (Some((server, htu)), _) => Ok(Destination::Server(server, htu)),
            (None, OtherOrigins::PassUnsigned) => Ok(Destination::OtherOrigin),
            (None, OtherOrigins::Reject) => Err(unsigned),
        }
    }
}

impl<K: ProofSigner, P> Exchange<K, P> {
    /// Sends a request to a server, with a new proof for each attempt.
    ///
    /// `service` must have been polled ready.
    pub(crate) async fn send<R, S, B, D>(
        &self,
        mut service: S,
        (server, htu): (&Server, Htu),
        token: Option<&AccessTokenText>,
        (head, mut body): (Parts, B),
    ) -> Result<Response<R::Body>, ClientError>
    where
        R: Reads<D>,
        P: BodyCopy<B>,
        S: Service<Request<B>, Response = Response<D>>,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut proof = NewProof::at(head.method.clone(), htu);
        if let Some(token) = token {
            proof = proof.with_access_token(token);
        }
        let mut retries = Retries::at(server);
        loop {
            let used = server.latest_nonce();
            if let Some(nonce) = &used.nonce {
                proof = proof.with_nonce(nonce.clone());
            }
            let now = retries.clock().time(self.clock.read());
            let proof = proof.sign(self.key.as_ref(), now).await?;
            let copy = self.bodies.copy(&body);
            let mut request = Request::from_parts(head.clone(), body);
            present(request.headers_mut(), &proof, token);
            let response = service
                .call(request)
                .await
                .map_err(ClientError::transport)?;
            server.learn_nonce(response.headers(), &used);
            let theirs = self.clock_of_server(response.headers());
            let (demand, response) = R::read(response).await;
            // Another request's response may have brought the newer nonce.
            let newer_nonce = server.latest_nonce().nonce != used.nonce;
            if !retries.should_retry(demand, theirs, newer_nonce) {
                let outcome = Outcome::of(demand, response.status());
                retries.settle_clock(server, outcome, theirs);
                return Ok(response);
            }
            let Some(copy) = copy else {
                if let Some(clock) = retries.tried {
                    // This request cannot be sent again. Let the next one try the clock.
                    server.suggest_clock(clock);
                }
                return Err(ClientError::BodyNotCopyable);
            };
            body = copy;
            // Some services are ready only after they get their connection back.
            drop(response);
            poll_fn(|context| service.poll_ready(context))
                .await
                .map_err(ClientError::transport)?;
        }
    }

    fn clock_of_server(&self, headers: &HeaderMap) -> Option<ClockOffset> {
        match self.correction {
            ClockCorrection::ByDate => ClockOffset::of_server(headers, self.clock.read()),
            ClockCorrection::Never => None,
        }
    }
}

/// How often a request may still be sent again, and with which clock.
struct Retries {
    for_nonces: usize,
    /// The stored clock of the server at the start of the request.
    kept: ClockOffset,
    /// The clock that a `Date` gave instead. At most one is tried.
    tried: Option<ClockOffset>,
}

impl Retries {
    fn at(server: &Server) -> Self {
        let (kept, tried) = server.clock();
        Self {
            for_nonces: MAX_NONCE_RETRIES,
            kept,
            tried,
        }
    }

    fn clock(&self) -> ClockOffset {
        self.tried.unwrap_or(self.kept)
    }

    /// Whether to send the request again after this response.
    fn should_retry(
        &mut self,
        demand: Demand,
        theirs: Option<ClockOffset>,
        newer_nonce: bool,
    ) -> bool {
        match (demand, theirs) {
            (Demand::UseNonce, _) if newer_nonce && self.for_nonces > 0 => {
                self.for_nonces -= 1;
                true
            }
            (Demand::InvalidProof, Some(theirs))
                if self.tried.is_none() && theirs.differs_from(self.kept) =>
            {
                self.tried = Some(theirs);
                true
            }
            _ => false,
        }
    }

    /// Stores a clock with which a request succeeded, and discards one with which a proof was
    /// rejected: not every `Date` is correct.
    fn settle_clock(&self, server: &Server, outcome: Outcome, theirs: Option<ClockOffset>) {
        match (outcome, self.tried) {
            _ if theirs == Some(ClockOffset::Agrees) => server.keep_clock(ClockOffset::Agrees),
            // The `Date` agrees with the stored clock, so the clock was not the reason.
            (Outcome::ProofRejected, None)
                if theirs.is_some_and(|theirs| !theirs.differs_from(self.kept)) => {}
            (Outcome::ProofRejected, _) => server.forget_clock(self.kept),
            (Outcome::Success, Some(tried)) => server.keep_clock(tried),
            (Outcome::Success, None) | (Outcome::Unclear, _) => {}
        }
    }
}

/// What the last response says about the clock that the proof was made with.
#[derive(Clone, Copy)]
enum Outcome {
    ProofRejected,
    Success,
    /// The response may come from a gateway that did not check the proof.
    Unclear,
}

impl Outcome {
    fn of(demand: Demand, status: StatusCode) -> Self {
        match demand {
            Demand::InvalidProof => Self::ProofRejected,
            Demand::Other if status.is_success() => Self::Success,
            Demand::Other | Demand::UseNonce => Self::Unclear,
        }
    }
}

/// Whether the `Host` field, if present, names the same server as the URL. A field copied from
/// another request could send the request, with its token and proof, to another server.
fn names_only(headers: &HeaderMap, origin: &Origin<'_>) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => host
            .to_str()
            .is_ok_and(|host| Origin::parse(origin.scheme.as_str(), host).as_ref() == Some(origin)),
        (Some(_), Some(_)) => false,
    }
}

/// Inserts proof and token, and replaces existing ones. The client's own authentication at an
/// authorization server is kept.
fn present(headers: &mut HeaderMap, proof: &SignedProof, token: Option<&AccessTokenText>) {
    headers.insert(DPOP, proof.as_header_value().clone());
    match token {
        Some(token) => {
            headers.insert(AUTHORIZATION, token.authorization().clone());
        }
        None => remove_dpop_token(headers),
    }
}

fn remove_dpop_token(headers: &mut HeaderMap) {
    let is_dpop = |field: &HeaderValue| {
        field
            .as_bytes()
            .trim_ascii_start()
            .split(|byte| b" \t".contains(byte))
            .next()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"DPoP"))
    };
    if headers.get_all(AUTHORIZATION).iter().any(is_dpop) {
        let others: Vec<_> = headers
            .get_all(AUTHORIZATION)
            .iter()
            .filter(|field| !is_dpop(field))
            .cloned()
            .collect();
        headers.remove(AUTHORIZATION);
        for field in others {
            headers.append(AUTHORIZATION, field);
        }
    }
}

impl<K: ProofSigner, P> fmt::Debug for Exchange<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("algorithm", &self.key.algorithm())
            .field("servers", &self.servers)
            .field("other_origins", &self.other_origins)
            .finish_non_exhaustive()
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The request is for a server that is configured with a path prefix, and servers interpret its path
    /// in different ways: it has dot segments, or encoded slashes, backslashes or NULs. Nothing was sent.
    /// If the whole origin may receive the token, configure the origin without a path.
    #[error(
        "the path of the request may be outside the configured URL: avoid dot segments and encoded slashes in it, or configure the origin without a path"
    )]
    AmbiguousPath,
    /// The request must be sent again, with a nonce or with the server's time, but its body cannot
    /// be copied. Send it again yourself: the next request to that server uses the nonce or the time.
    #[error("the request must be sent again, but its body cannot be sent twice")]
    BodyNotCopyable,
    /// The `Host` field names a different server than the URL. Nothing was sent.
    #[error("the Host field of the request names a different server from its URL")]
    OtherHost,
    /// The request is for a URL that is not configured on the layer, or that servers could read in
    /// different ways. Nothing was sent.
    #[error("the request is for a URL that the layer was not configured for")]
    OtherServer,
    /// The key could not sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// There is no access token to present.
    #[error(transparent)]
    Token(#[from] TokenSourceError),
    /// The inner service failed. The request is not sent again, because the server may have acted on
    /// it.
    ///
    /// If a server rejects a request in the middle of its body and closes the connection at once, the
    /// response can be lost, and with it a nonce: a write fails before the client reads. Another attempt
    /// is likely to end in the same way. Send a request without a body first: the layer keeps the nonce
    /// of its response.
    #[error("the request could not be sent")]
    Transport(#[source] Box<dyn Error + Send + Sync>),
    /// No proof can be made for the request's URL.
    #[error(transparent)]
    Url(InvalidRequestUrl),
}

impl ClientError {
    pub(crate) fn transport(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transport(error.into())
    }
}
