//! How a client is configured.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use reqwest::redirect::Policy;
use tower_layer::Layer;
use zeroize::Zeroizing;

use crate::client::reqwest::any_signer::AnySigner;
use crate::client::reqwest::dpop_client::DpopClient;
use crate::client::reqwest::error::DpopClientError;
use crate::client::reqwest::grants::{Applicant, Grants, HasAssertion};
use crate::client::reqwest::metadata::AuthorizationServer;
use crate::client::reqwest::refresh_token::RefreshToken;
use crate::client::reqwest::session::{Keep, Renewable, Session};
use crate::client::reqwest::transport::{Http, RequestCopy};
use crate::client::resources::DpopClientLayer;
use crate::client::signer::ProofSigner;
use crate::issuer::client_authentication::ClientAuthentication;
use crate::issuer::endpoint_url::EndpointUrl;
use crate::jose::signing_key::SigningKey;
use crate::proof::public_url::PublicUrl;
use crate::time::Clock;

/// The settings of a [`DpopClient`]. (Feature `reqwest`.)
///
/// Required are an issuer (or a token endpoint), a client, and at least one server that may get the token. Then choose the
/// grant:
///
/// | grant | method |
/// |---|---|
/// | client credentials: the client acts for itself | [`build`](Self::build) |
/// | authorization code with PKCE: a user logs in | [`start_login`](Self::start_login) |
/// | refresh token: a user logged in during an earlier run | [`resume`](Self::resume) |
///
/// # Example
///
/// A service that authenticates with a key, signs proofs with another one, and requests two scopes:
///
/// ```no_run
/// use tower_dpop::client::DpopClient;
/// use tower_dpop::jose::SigningKey;
///
/// # async fn example(pem: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let client = DpopClient::builder()
///     .with_issuer("https://as.example.com".parse()?)
///     .with_client_key("orders-batch", SigningKey::from_pkcs8_pem(pem)?.with_key_id("2026-11"))
///     .with_key(SigningKey::generate()?)
///     .with_scope("orders.read orders.write")
///     .add_server("https://api.example.com".parse()?)
///     .build()
///     .await?;
/// # let _ = client;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DpopClientBuilder {
    http: Option<Http>,
    key: Option<AnySigner>,
    issuer: Option<EndpointUrl>,
    token_endpoint: Option<EndpointUrl>,
    authorization_endpoint: Option<EndpointUrl>,
    identity: Option<(String, Credentials)>,
    scope: Option<String>,
    resources: Vec<String>,
    parameters: Vec<(String, String)>,
    servers: Vec<PublicUrl>,
    keep: Option<Keep>,
    clock: Clock,
}

/// Some firewalls reject requests without one.
const USER_AGENT: &str = concat!("tower-dpop/", env!("CARGO_PKG_VERSION"));

/// What the client authenticates with.
#[derive(Clone)]
enum Credentials {
    None,
    Key(SigningKey),
    /// As the server's metadata says.
    Secret(Zeroizing<String>),
    SecretInForm(Zeroizing<String>),
}

impl DpopClient {
    /// A builder without settings.
    pub fn builder() -> DpopClientBuilder {
        DpopClientBuilder {
            http: None,
            key: None,
            issuer: None,
            token_endpoint: None,
            authorization_endpoint: None,
            identity: None,
            scope: None,
            resources: Vec::new(),
            parameters: Vec::new(),
            servers: Vec::new(),
            keep: None,
            clock: Clock::default(),
        }
    }
}

impl DpopClientBuilder {
    /// Sets the authorization server. Its metadata is fetched when the client is built: from the well-known URL of [RFC
    /// 8414](https://www.rfc-editor.org/rfc/rfc8414), or of OpenID Connect Discovery if there is none. Its `issuer` must be
    /// exactly this one.
    #[must_use]
    pub fn with_issuer(self, issuer: EndpointUrl) -> Self {
        Self {
            issuer: Some(issuer),
            ..self
        }
    }

    /// Sets the token endpoint of a server without metadata: nothing is fetched.
    #[must_use]
    pub fn with_token_endpoint(self, url: EndpointUrl) -> Self {
        Self {
            token_endpoint: Some(url),
            ..self
        }
    }

    /// Sets the authorization endpoint of a server without metadata, for [`start_login`](Self::start_login).
    #[must_use]
    pub fn with_authorization_endpoint(self, url: EndpointUrl) -> Self {
        Self {
            authorization_endpoint: Some(url),
            ..self
        }
    }

    /// Sets a client without credentials, for example a native app.
    #[must_use]
    pub fn with_public_client(self, id: impl Into<String>) -> Self {
        self.with_identity(id, Credentials::None)
    }

    /// Sets a client with a secret. It is sent in the `Authorization` field (`client_secret_basic`), or in the form
    /// (`client_secret_post`) if the server's metadata lists only that.
    #[must_use]
    pub fn with_client_secret(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.with_identity(id, Credentials::Secret(Zeroizing::new(secret.into())))
    }

    /// Sets a client whose secret is sent in the form (`client_secret_post`), whatever the metadata says.
    #[must_use]
    pub fn with_client_secret_post(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.with_identity(id, Credentials::SecretInForm(Zeroizing::new(secret.into())))
    }

    /// Sets a client that signs an assertion for each request to the authorization server (`private_key_jwt`, [RFC 7523
    /// section 2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2)). The assertion's audience is the issuer, or the token
    /// endpoint if no issuer is set. Do not sign proofs with the same key.
    #[must_use]
    pub fn with_client_key(self, id: impl Into<String>, key: SigningKey) -> Self {
        self.with_identity(id, Credentials::Key(key))
    }

    fn with_identity(self, id: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            identity: Some((id.into(), credentials)),
            ..self
        }
    }

    /// Sets the key that signs proofs: a [`SigningKey`], or any [`ProofSigner`]. By default, a key is generated for an algorithm
    /// that the authorization server lists, and lost with the client.
    #[must_use]
    pub fn with_key(self, key: impl ProofSigner) -> Self {
        Self {
            key: Some(AnySigner::new(key)),
            ..self
        }
    }

    /// Sets the scopes to request, separated by spaces. By default, the server chooses.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        Self {
            scope: Some(scope.into()),
            ..self
        }
    }

    /// Adds a resource indicator: the API that the token is for ([RFC 8707](https://www.rfc-editor.org/rfc/rfc8707)). It does
    /// not name a server that may get the token: see [`add_server`](Self::add_server).
    #[must_use]
    pub fn add_resource(mut self, uri: impl Into<String>) -> Self {
        self.resources.push(uri.into());
        self
    }

    /// Adds a parameter to authorization requests and token requests, for example `audience` at Auth0.
    #[must_use]
    pub fn add_parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Adds a server that may get the token: an origin, or a URL with a path, below which all requests may have it. No other
    /// server gets it, and requests to other servers are not sent.
    #[must_use]
    pub fn add_server(mut self, server: PublicUrl) -> Self {
        self.servers.push(server);
        self
    }

    /// Calls this function with each new refresh token, before the new access token is used. Many servers accept a refresh
    /// token only once: store the latest one, or the user must log in again.
    ///
    /// The function should return quickly, or hand the token to a task. It should not panic: the access token is then lost, and
    /// the next request uses the new refresh token. Before the program ends, call
    /// [`wait_for_renewal`](DpopClient::wait_for_renewal).
    #[must_use]
    pub fn with_refresh_token_store(
        self,
        keep: impl Fn(&RefreshToken) + Send + Sync + 'static,
    ) -> Self {
        Self {
            keep: Some(Arc::new(keep)),
            ..self
        }
    }

    /// Uses a reqwest client with these settings (certificates, proxies, timeouts) for all requests, to the authorization server
    /// as well. Redirects are switched off: reqwest would send the proof to another URL. By default, there is no proxy: those of
    /// environment variables are not used.
    ///
    /// # Security
    ///
    /// Without [`no_proxy`](reqwest::ClientBuilder::no_proxy), or a proxy of your own, reqwest uses the proxies of the
    /// environment, for plain `http` as well, even to this machine: secret, token and proof then leave it in clear. Set a
    /// proxy with [`Proxy::https`](reqwest::Proxy::https), which is not used for plain `http`.
    ///
    /// # Errors
    ///
    /// [`DpopClientError::Http`], as reqwest's own `build`.
    pub fn with_http(self, http: reqwest::ClientBuilder) -> Result<Self, DpopClientError> {
        Ok(Self {
            http: Some(without_redirects(http)?),
            ..self
        })
    }

    /// Reads the time from this clock. For tests.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            clock: Clock::new(clock),
            ..self
        }
    }

    /// Builds a client that acts for itself, by client credentials ([RFC 6749 section
    /// 4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4)).
    ///
    /// The metadata is fetched now. The first token is requested for the first request.
    pub async fn build(&self) -> Result<DpopClient, DpopClientError> {
        if let Some((_, Credentials::None)) = self.identity {
            return Err(DpopClientError::Setting(
                "a public client has no credentials: use start_login or resume instead of build",
            ));
        }
        Ok(self.prepare().await?.client(Renewable::ByClientCredentials))
    }

    /// Builds a client for a user who logged in during an earlier run.
    ///
    /// The key must be set. The refresh token of a public client is bound to it ([RFC 9449 section
    /// 5](https://www.rfc-editor.org/rfc/rfc9449#section-5)).
    pub async fn resume(&self, token: RefreshToken) -> Result<DpopClient, DpopClientError> {
        if self.key.is_none() {
            return Err(DpopClientError::Setting(
                "a refresh token works only with its key: set it with with_key",
            ));
        }
        let renewable = Renewable::ByRefreshToken(token);
        Ok(self.prepare().await?.client(renewable))
    }

    /// Fetches the metadata, and generates the key if none is set.
    pub(crate) async fn prepare(&self) -> Result<Prepared, DpopClientError> {
        const NO_SERVER: &str = "no server may get the token: name one with add_server";
        const NO_CLIENT: &str =
            "no client: set it with with_client_secret, with_client_key or with_public_client";

        let [server, others @ ..] = &self.servers[..] else {
            return Err(DpopClientError::Setting(NO_SERVER));
        };
        let http = match &self.http {
            Some(http) => http.clone(),
            None => without_redirects(default_http())?,
        };
        let identity = self.identity.as_ref();
        let identity = identity.ok_or(DpopClientError::Setting(NO_CLIENT))?;
        let authorization_server = self.authorization_server(&http).await?;
        let key = match (&self.key, &authorization_server.algorithms) {
            (Some(key), _) => key.clone(),
            // RFC 9449 section 5.1: one of the algorithms that the server lists.
            (None, Some(names)) => AnySigner::new(SigningKey::generate_for_one_of(names)?),
            (None, None) => AnySigner::new(SigningKey::generate()?),
        };
        let grants = Grants::new(
            http.clone(),
            key.clone(),
            self.applicant(identity, &authorization_server),
            authorization_server,
            self.clock.clone(),
        )?;
        Ok(Prepared {
            http,
            key,
            grants,
            servers: (server.clone(), others.to_vec()),
            keep: self.keep.clone(),
            clock: self.clock.clone(),
        })
    }

    fn applicant(
        &self,
        (client_id, credentials): &(String, Credentials),
        server: &AuthorizationServer,
    ) -> Applicant {
        Applicant {
            client_id: client_id.clone(),
            authentication: credentials.authentication(client_id, server),
            assertion: match credentials {
                Credentials::Key(_) => HasAssertion::Yes,
                Credentials::None | Credentials::Secret(_) | Credentials::SecretInForm(_) => {
                    HasAssertion::No
                }
            },
            scope: self.scope.clone(),
            resources: self.resources.clone(),
            parameters: self.parameters.clone(),
        }
    }

    async fn authorization_server(
        &self,
        http: &Http,
    ) -> Result<AuthorizationServer, DpopClientError> {
        match (&self.token_endpoint, &self.issuer) {
            (Some(token_endpoint), issuer) => Ok(AuthorizationServer::configured(
                issuer.as_ref(),
                token_endpoint,
                self.authorization_endpoint.as_ref(),
            )),
            (None, Some(issuer)) => AuthorizationServer::discover(http, issuer).await,
            (None, None) => Err(DpopClientError::Setting(
                "no authorization server: set it with with_issuer or with_token_endpoint",
            )),
        }
    }
}

/// Plain `http` is accepted on this machine only, and a proxy would send it elsewhere.
fn default_http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().user_agent(USER_AGENT)
}

fn without_redirects(http: reqwest::ClientBuilder) -> Result<Http, DpopClientError> {
    let http = http.redirect(Policy::none()).build();
    http.map(Http).map_err(DpopClientError::Http)
}

impl Credentials {
    fn authentication(
        &self,
        client_id: &str,
        server: &AuthorizationServer,
    ) -> Option<ClientAuthentication> {
        let text = |secret: &Zeroizing<String>| String::clone(secret);
        Some(match self {
            Self::None => return None,
            Self::Key(key) => {
                ClientAuthentication::private_key_jwt(client_id, key.clone(), server.audience())
            }
            Self::Secret(secret) if server.secret_in_form => {
                ClientAuthentication::post(client_id, text(secret))
            }
            Self::Secret(secret) => ClientAuthentication::basic(client_id, text(secret)),
            Self::SecretInForm(secret) => ClientAuthentication::post(client_id, text(secret)),
        })
    }
}

/// Everything that a client needs except its grant.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) key: AnySigner,
    pub(crate) grants: Grants,
    pub(crate) clock: Clock,
    http: Http,
    servers: (PublicUrl, Vec<PublicUrl>),
    keep: Option<Keep>,
}

impl Prepared {
    pub(crate) fn client(self, renewable: Renewable) -> DpopClient {
        let session = Session::new(self.grants, self.keep, self.clock.clone(), renewable);
        let (server, others) = self.servers;
        let servers = std::iter::once(&server).chain(&others).cloned().collect();
        let layer = DpopClientLayer::new(self.key.clone(), session.clone(), server)
            .with_body_copy(RequestCopy)
            .with_clock(move || self.clock.read());
        let layer = others.into_iter().fold(layer, DpopClientLayer::add_server);
        DpopClient {
            resources: Arc::new(layer.layer(self.http.clone())),
            http: self.http,
            key: self.key,
            session,
            servers,
        }
    }
}

impl fmt::Debug for DpopClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopClientBuilder")
            .field("issuer", &self.issuer)
            .field("token_endpoint", &self.token_endpoint)
            .field("client_id", &self.identity.as_ref().map(|(id, _)| id))
            .field("scope", &self.scope)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}
