//! reqwest as a service, for both layers, and the copies of bodies.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use tower_service::Service;

use crate::client::body::BodyCopy;

/// How long one request to the authorization server may take, the response included. A request of the caller may be waiting
/// for it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A reqwest client that follows no redirects.
#[derive(Clone)]
pub(crate) struct Http(pub(crate) reqwest::Client);

type Sent<R> = Pin<Box<dyn Future<Output = Result<http::Response<R>, reqwest::Error>> + Send>>;

/// Requests of the caller. The head of the `http` request is what the layer signs, and its body is reqwest's own request, with
/// everything that has no place in a head (the time limit, for example).
impl Service<http::Request<reqwest::Request>> for Http {
    type Response = http::Response<reqwest::Response>;
    type Error = reqwest::Error;
    type Future = Sent<reqwest::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<reqwest::Request>) -> Self::Future {
        let (head, mut request) = request.into_parts();
        let presented = head.headers.get(AUTHORIZATION).cloned().map(Presented);
        *request.headers_mut() = head.headers;
        let client = self.0.clone();
        Box::pin(async move {
            // A URL may have a secret in its query.
            let response = client.execute(request).await;
            let response = response.map_err(reqwest::Error::without_url)?;
            let mut head = http::Response::new(());
            *head.status_mut() = response.status();
            head.headers_mut().clone_from(response.headers());
            if let Some(presented) = presented {
                head.extensions_mut().insert(presented);
            }
            Ok(head.map(|()| response))
        })
    }
}

/// Requests to the authorization server.
impl Service<http::Request<String>> for Http {
    type Response = http::Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = Sent<reqwest::Body>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<String>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let mut request = reqwest::Request::try_from(request)?;
            *request.timeout_mut() = Some(TIMEOUT);
            Ok(client.execute(request).await?.into())
        })
    }
}

/// The `Authorization` field that a request was sent with, in the extensions of its response.
#[derive(Clone)]
pub(crate) struct Presented(pub(crate) HeaderValue);

/// Copies what reqwest can copy: every request except one whose body is a stream.
pub(crate) struct RequestCopy;

impl BodyCopy<reqwest::Request> for RequestCopy {
    fn copy(&self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }
}

/// Copies of the forms for the authorization server.
#[derive(Clone, Copy)]
pub(crate) enum FormCopy {
    /// A form has a client assertion, which is accepted once.
    Never,
    Always,
}

impl BodyCopy<String> for FormCopy {
    fn copy(&self, form: &String) -> Option<String> {
        matches!(self, Self::Always).then(|| form.clone())
    }
}

/// Calls a service once, when it is ready.
pub(crate) async fn call<S: Service<R>, R>(
    mut service: S,
    request: R,
) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}
