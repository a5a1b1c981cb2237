//! How a user logs in: authorization code with PKCE ([RFC 6749 section
//! 4.1](https://www.rfc-editor.org/rfc/rfc6749#section-4.1), [RFC 7636](https://www.rfc-editor.org/rfc/rfc7636)), bound to the
//! client's key ([RFC 9449 section 10](https://www.rfc-editor.org/rfc/rfc9449#section-10)).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Url;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::client::reqwest::builder::{DpopClientBuilder, Prepared};
use crate::client::reqwest::dpop_client::DpopClient;
use crate::client::reqwest::error::{DpopClientError, InvalidCallback, error_code};
use crate::client::reqwest::session::{Renewable, task_ended};
use crate::client::signer::ProofSigner;
use crate::jose::base64url;
use crate::jose::json::read_object;
use crate::jose::key_documents::SigningKeyError;

impl DpopClientBuilder {
    /// Starts the login of a user. Send the user's browser to [`url`](PendingLogin::url). It comes back to the redirect URI,
    /// which must be registered for the client.
    ///
    /// If the server has an endpoint for pushed authorization requests ([RFC
    /// 9126](https://www.rfc-editor.org/rfc/rfc9126)), the request is pushed, with a proof. In any case the code is bound
    /// to the key (`dpop_jkt`).
    ///
    /// # Example
    ///
    /// ```no_run
    /// use tower_dpop::client::DpopClient;
    /// use tower_dpop::jose::SigningKey;
    ///
    /// # async fn example(open: fn(&str), next_callback: fn() -> String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let login = DpopClient::builder()
    ///     .with_issuer("https://as.example.com".parse()?)
    ///     .with_public_client("app")
    ///     .with_key(SigningKey::generate()?)
    ///     .with_scope("orders.read")
    ///     .add_server("https://api.example.com".parse()?)
    ///     .start_login("http://127.0.0.1:51004/callback")
    ///     .await?;
    /// open(login.url());
    ///
    /// // The URL that the browser was sent to, or its path and query.
    /// let client = login.finish(&next_callback()).await?;
    /// let response = client.get("https://api.example.com/orders").send().await?;
    /// # let _ = response;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start_login(
        &self,
        redirect_uri: impl Into<String>,
    ) -> Result<PendingLogin, DpopClientError> {
        let prepared = self.prepare().await?;
        let server = &prepared.grants.server;
        let Some(authorization_endpoint) = &server.authorization_endpoint else {
            return Err(DpopClientError::Setting(
                "no authorization endpoint: the metadata have none, and with_authorization_endpoint sets none",
            ));
        };
        let methods = server.challenge_methods.as_ref();
        if methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) {
            return Err(DpopClientError::Setting(
                "the authorization server does not support PKCE with S256",
            ));
        }
        let (state, verifier) = (random_text()?, Zeroizing::new(random_text()?));
        let redirect_uri = redirect_uri.into();
        let challenge = base64url::encode(Sha256::digest(verifier.as_bytes()));
        let jkt = prepared.key.public_key().thumbprint().to_string();
        let applicant = &prepared.grants.applicant;
        let mut request = vec![
            ("response_type", "code"),
            ("redirect_uri", redirect_uri.as_str()),
            ("state", &state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("dpop_jkt", &jkt),
        ];
        request.extend(applicant.scope.as_deref().map(|scope| ("scope", scope)));
        request.extend(applicant.targets());

        let mut url = authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &applicant.client_id);
        match &server.pushed_requests {
            Some(endpoint) => {
                let request_uri = prepared.push(endpoint, &request).await?;
                url.query_pairs_mut()
                    .append_pair("request_uri", &request_uri);
            }
            None => {
                url.query_pairs_mut().extend_pairs(request);
            }
        }
        Ok(PendingLogin {
            url: url.into(),
            state,
            verifier,
            redirect_uri,
            prepared,
            has_code: AtomicBool::new(false),
        })
    }
}

impl Prepared {
    /// RFC 9126 section 2. Returns the `request_uri`.
    async fn push(
        &self,
        endpoint: &Url,
        request: &[(&str, &str)],
    ) -> Result<String, DpopClientError> {
        #[derive(Deserialize)]
        struct Pushed {
            request_uri: String,
        }

        let applicant = &self.grants.applicant;
        let mut form = request.to_vec();
        // A public client's own form has it.
        if applicant.authentication.is_some() {
            form.push(("client_id", &applicant.client_id));
        }
        let response = self.grants.post(endpoint, &form).await?;
        let pushed: Pushed = read_object(&response).ok_or_else(|| {
            DpopClientError::Unreachable("the response has no request_uri".to_owned())
        })?;
        Ok(pushed.request_uri)
    }
}

/// A login that waits for the user. (Feature `reqwest`.)
pub struct PendingLogin {
    url: String,
    state: String,
    verifier: Zeroizing<String>,
    redirect_uri: String,
    prepared: Prepared,
    /// Whether a callback had a code.
    has_code: AtomicBool,
}

impl PendingLogin {
    /// The URL to open in the user's browser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `state` of this login, to find it again if several users log in at once: the callback has the same.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Exchanges the code of a callback for the tokens of a session. `callback` is the URL that the browser was sent to, or its
    /// path and query.
    ///
    /// The exchange goes on if the returned future is dropped, so that the refresh token gets to the function of
    /// [`with_refresh_token_store`](DpopClientBuilder::with_refresh_token_store).
    ///
    /// # Errors
    ///
    /// [`DpopClientError::Callback`] for a callback that is not of this login: the login goes on. `state` and `iss` ([RFC
    /// 9207](https://www.rfc-editor.org/rfc/rfc9207)) are checked before anything is sent. A login has one code, so a second
    /// callback with a code is rejected as well. After any other error, start another login.
    pub async fn finish(&self, callback: &str) -> Result<DpopClient, DpopClientError> {
        let code = self.code(callback)?;
        // RFC 6749 section 4.1.2: if a code is used twice, the server should revoke the tokens of the first use.
        if self.has_code.swap(true, Ordering::Relaxed) {
            return Err(DpopClientError::Callback(InvalidCallback::Repeated));
        }
        let (redirect_uri, verifier) = (self.redirect_uri.clone(), self.verifier.clone());
        let prepared = self.prepared.clone();
        let exchange = tokio::spawn(async move {
            let began = prepared.clock.read();
            let grants = &prepared.grants;
            let response = grants.code(&code, &redirect_uri, &verifier).await?;
            let client = prepared.client(Renewable::Never);
            client.session.accept(&response, began);
            Ok(client)
        });
        exchange.await.unwrap_or_else(|_| Err(task_ended()))
    }

    /// RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207 section 2.4.
    fn code(&self, callback: &str) -> Result<String, DpopClientError> {
        let rejected = |reason| Err(DpopClientError::Callback(reason));
        let Some(parameters) = Parameters::read(callback) else {
            return rejected(InvalidCallback::Malformed);
        };
        if parameters.state.as_deref() != Some(self.state.as_str()) {
            return rejected(InvalidCallback::State);
        }
        let server = &self.prepared.grants.server;
        match (&parameters.iss, &server.issuer) {
            (Some(named), Some(configured)) if named != configured => {
                return rejected(InvalidCallback::Issuer);
            }
            (None, _) if server.names_itself => return rejected(InvalidCallback::Issuer),
            _ => {}
        }
        match (parameters.error, parameters.code) {
            (Some(error), _) => Err(DpopClientError::Authorization(error_code(&error))),
            (None, Some(code)) => Ok(code),
            (None, None) => rejected(InvalidCallback::Malformed),
        }
    }
}

/// The parameters of a callback.
#[derive(Default)]
struct Parameters {
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
    state: Option<String>,
}

impl Parameters {
    /// `None` if one of them occurs twice.
    fn read(callback: &str) -> Option<Self> {
        let without_fragment = callback.split('#').next().unwrap_or_default();
        let query = without_fragment
            .split_once('?')
            .map_or("", |(_, query)| query);
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "code" => &mut parameters.code,
                "error" => &mut parameters.error,
                "iss" => &mut parameters.iss,
                "state" => &mut parameters.state,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(parameters)
    }
}

/// 256 random bits: what RFC 7636 section 4.1 recommends for a `code_verifier`.
fn random_text() -> Result<String, DpopClientError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| SigningKeyError::Generation)?;
    Ok(base64url::encode(bytes.as_slice()))
}

impl fmt::Debug for PendingLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLogin")
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}
