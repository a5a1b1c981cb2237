//! Sends requests, and records them and their responses.

use std::error::Error;

use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceExt};

use crate::message::Message;
use crate::story::{Route, Story};

type BoxError = Box<dyn Error + Send + Sync>;
pub(crate) type Result<T, E = BoxError> = std::result::Result<T, E>;

pub(crate) struct Recorder {
    pub(crate) http: Client<HttpConnector, String>,
    pub(crate) story: Story,
}

/// The status that a response must have, and what is in it, in a few words.
pub(crate) struct Expected(pub(crate) u16, pub(crate) &'static str);

impl Default for Recorder {
    fn default() -> Self {
        Self {
            // This client does not follow redirects.
            http: Client::builder(TokioExecutor::new()).build_http(),
            story: Story::default(),
        }
    }
}

impl Recorder {
    pub(crate) fn chapter(&mut self, title: &'static str) {
        self.story.chapter(title);
    }

    pub(crate) fn step(&mut self, title: &'static str) {
        self.story.step(title);
    }

    /// Sends a request as it is. `about` says what is in it, in a few words.
    pub(crate) async fn send(
        &mut self,
        route: Route,
        about: &'static str,
        request: Request<String>,
        expected: Expected,
    ) -> Result<Response<String>> {
        let http = self.http.clone();
        self.send_by(http, route, about, request, expected).await
    }

    /// Sends a request by a client that may change it, which is not recorded.
    pub(crate) async fn send_by<S, D>(
        &mut self,
        client: S,
        route: Route,
        about: &'static str,
        request: Request<String>,
        expected: Expected,
    ) -> Result<Response<String>>
    where
        S: Service<Request<String>, Response = Response<D>, Error: Into<BoxError>>,
        D: Body<Error: Into<BoxError>>,
    {
        self.story.message(Message::request(route, about, &request));
        let response = client.oneshot(request).await.map_err(Into::into)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, 64 * 1024).collect().await?.to_bytes();
        let response = Response::from_parts(head, String::from_utf8(body.into())?);

        let Expected(status, about) = expected;
        self.story
            .message(Message::response(route, about, &response));
        if response.status() == status {
            Ok(response)
        } else {
            Err(format!("{}, not {status}", response.status()).into())
        }
    }
}
