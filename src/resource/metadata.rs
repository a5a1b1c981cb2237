//! Protected resource metadata: what a client must know about this service before it requests a token
//! ([RFC 9728](https://www.rfc-editor.org/rfc/rfc9728)).

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use serde_json::{Map, Value, json};
use tower_layer::Layer;
use tower_service::Service;

use crate::resource::verifier::{Verifier, WELL_KNOWN};

/// The metadata of a service, and where it is served.
///
/// The document is made from the [`Verifier`], so the schemes and algorithms in it are those that are
/// checked. (It does not say that a layer [only reports](crate::DpopLayer::with_insecure_report_only):
/// publish it once the layer enforces its decisions, or let the verifier allow Bearer.) It is served at
/// its well-known path, outside the [`DpopLayer`](crate::DpopLayer): a client that has no token yet must
/// be able to read it.
///
/// # Example
///
/// ```
/// use tower_dpop::resource::{MetadataLayer, ResourceMetadata};
/// use tower_dpop::{DpopLayer, JwtVerifier, KeySet, Verifier};
///
/// # fn example(mut verifier: Verifier) {
/// // It says what the verifier checks, and from now on the verifier's challenges point to it.
/// let metadata = ResourceMetadata::of(&mut verifier).with_name("Orders");
/// assert_eq!(metadata.path(), "/.well-known/oauth-protected-resource");
///
/// // Outermost, so that it can be read without a token.
/// let layers = tower::ServiceBuilder::new()
///     .layer(MetadataLayer::new(&metadata))
///     .layer(DpopLayer::new(verifier));
/// # let _ = layers;
/// # }
/// ```
///
/// # Behind a proxy
///
/// The well-known path starts at the host: for `https://example.com/orders-api` it is
/// `/.well-known/oauth-protected-resource/orders-api`. A proxy that forwards only `/orders-api` must
/// also forward that path, unchanged. For browsers to read the document, add a CORS layer outside.
#[derive(Clone, Debug)]
pub struct ResourceMetadata {
    path: String,
    url: String,
    members: Map<String, Value>,
}

impl ResourceMetadata {
    /// What this verifier checks, and the issuers that it knows. The `resource` is its first public
    /// URL.
    ///
    /// The verifier's challenges point to the document from now on ([RFC 9728 section
    /// 5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)), unless
    /// [`with_resource_metadata`](Verifier::with_resource_metadata) names another one. So call it last, when
    /// the verifier is complete.
    #[expect(clippy::missing_panics_doc, reason = "a URL by RFC 3986 can be quoted")]
    pub fn of<C>(verifier: &mut Verifier<C>) -> Self {
        let resource = verifier.policy().rules.public_url();
        let path = resource.well_known_path(WELL_KNOWN);
        let url = format!("{}{path}", resource.origin());
        let quoted = url
            .parse()
            .expect("a URL by RFC 3986 holds no quotes and no backslashes");
        verifier.name_metadata(quoted);
        let policy = verifier.policy();
        let resource = policy.rules.public_url();
        let mut members = Map::new();
        members.insert("resource".into(), json!(resource.to_string()));
        // RFC 9728 section 2: an empty list says that no bearer method is supported.
        let bearer_methods: &[&str] = if policy.allows_bearer() {
            &["header"]
        } else {
            &[]
        };
        members.insert("bearer_methods_supported".into(), json!(bearer_methods));
        let algorithms = policy.rules.algorithms().to_string();
        let algorithms: Vec<_> = algorithms.split(' ').collect();
        members.insert(
            "dpop_signing_alg_values_supported".into(),
            json!(algorithms),
        );
        // RFC 9728 section 2: false is the value of a member that is omitted.
        if !policy.allows_bearer() {
            members.insert("dpop_bound_access_tokens_required".into(), json!(true));
        }
        if let Some(scopes) = &policy.challenges.scope {
            members.insert("scopes_supported".into(), json!(scopes.list()));
        }
        let mut metadata = Self { path, url, members };
        for issuer in verifier.issuers() {
            metadata = metadata.add_authorization_server(issuer);
        }
        metadata
    }

    /// Adds another authorization server whose tokens are accepted.
    #[must_use]
    pub fn add_authorization_server(mut self, issuer: impl Into<String>) -> Self {
        let servers = self
            .members
            .entry("authorization_servers")
            .or_insert_with(|| json!([]));
        if let Value::Array(servers) = servers {
            servers.push(issuer.into().into());
        }
        self
    }

    /// A human-readable name (`resource_name`).
    #[must_use]
    pub fn with_name(self, name: &str) -> Self {
        self.with("resource_name", name)
    }

    /// A page for developers (`resource_documentation`).
    #[must_use]
    pub fn with_documentation(self, url: &str) -> Self {
        self.with("resource_documentation", url)
    }

    /// A page about how data is used (`resource_policy_uri`).
    #[must_use]
    pub fn with_policy(self, url: &str) -> Self {
        self.with("resource_policy_uri", url)
    }

    /// The terms of service (`resource_tos_uri`).
    #[must_use]
    pub fn with_terms_of_service(self, url: &str) -> Self {
        self.with("resource_tos_uri", url)
    }

    /// The URL of the document, for clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The path at which the document is served: that of [`url`](Self::url).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The document, as JSON.
    pub fn to_json(&self) -> String {
        Value::Object(self.members.clone()).to_string()
    }

    /// A service for a router that responds with the document: to `GET` and `HEAD`, on any path.
    pub fn service(&self) -> MetadataService {
        MetadataService(Document::of(self))
    }

    fn with(mut self, member: &str, value: &str) -> Self {
        self.members.insert(member.into(), value.into());
        self
    }
}

/// Responds to requests for the metadata itself, and forwards all others to the inner service. It goes
/// outside the [`DpopLayer`](crate::DpopLayer).
///
/// Only the path is compared, as received. The response body of the inner service must implement
/// `From<String>`; if it does not, serve [`ResourceMetadata::to_json`] yourself, or use
/// `route_service(metadata.path(), metadata.service())` in axum. Of several public URLs, only the first
/// has a document.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_dpop::resource::{MetadataLayer, ResourceMetadata};
/// use tower_dpop::{DpopLayer, Verifier};
///
/// fn app(mut verifier: Verifier) -> Router {
///     let metadata = ResourceMetadata::of(&mut verifier);
///     Router::new()
///         .route("/orders", get(async || "orders"))
///         .route_layer(DpopLayer::new(verifier))
///         .route_service(metadata.path(), metadata.service()) // added last, so it needs no token
/// }
/// # let _ = app;
///
/// // Around a service that is no router:
/// fn layers(mut verifier: Verifier) -> (MetadataLayer, DpopLayer) {
///     let metadata = ResourceMetadata::of(&mut verifier);
///     (MetadataLayer::new(&metadata), DpopLayer::new(verifier)) // the first is the outer one
/// }
/// # let _ = layers;
/// ```
#[derive(Clone, Debug)]
pub struct MetadataLayer {
    path: Arc<str>,
    document: Document,
}

impl MetadataLayer {
    /// A layer for this document.
    pub fn new(metadata: &ResourceMetadata) -> Self {
        Self {
            path: metadata.path().into(),
            document: Document::of(metadata),
        }
    }
}

impl<S> Layer<S> for MetadataLayer {
    type Service = Metadata<S>;

    fn layer(&self, inner: S) -> Metadata<S> {
        Metadata {
            inner,
            metadata: self.clone(),
        }
    }
}

/// The service that [`MetadataLayer`] makes.
#[derive(Clone)]
pub struct Metadata<S> {
    inner: S,
    metadata: MetadataLayer,
}

impl<S, B, D> Service<Request<B>> for Metadata<S>
where
    S: Service<Request<B>, Response = Response<D>>,
    D: From<String>,
{
    type Response = Response<D>;
    type Error = S::Error;
    type Future = MetadataFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = if request.uri().path() == &*self.metadata.path {
            State::Ours {
                response: Some(self.metadata.document.respond_to(request.method())),
            }
        } else {
            State::Theirs {
                future: self.inner.call(request),
            }
        };
        MetadataFuture { state }
    }
}

impl<S> fmt::Debug for Metadata<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// A service that responds to every `GET` and `HEAD` request with the metadata.
#[derive(Clone, Debug)]
pub struct MetadataService(Document);

impl<B> Service<Request<B>> for MetadataService {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.0.respond_to(request.method())))
    }
}

/// The document, serialised once.
#[derive(Clone, Debug)]
struct Document(Arc<str>);

impl Document {
    fn of(metadata: &ResourceMetadata) -> Self {
        Self(metadata.to_json().into())
    }

    fn respond_to(&self, method: &Method) -> Response<String> {
        let body = match *method {
            Method::GET => self.0.to_string(),
            Method::HEAD => String::new(),
            _ => return not_allowed(),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // RFC 9728 section 7.10. The document changes only with the configuration, so with a restart.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
        response
    }
}

fn not_allowed() -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

pin_project! {
    /// The future of [`Metadata`].
    pub struct MetadataFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Ours { response: Option<Response<String>> },
        Theirs { #[pin] future: F },
    }
}

impl<F, D, E> Future for MetadataFuture<F>
where
    F: Future<Output = Result<Response<D>, E>>,
    D: From<String>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProjection::Ours { response } => {
                let response = response
                    .take()
                    .expect("a future is not polled again after it was ready");
                Poll::Ready(Ok(response.map(D::from)))
            }
            StateProjection::Theirs { future } => future.poll(context),
        }
    }
}

impl<F> fmt::Debug for MetadataFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetadataFuture(..)")
    }
}
