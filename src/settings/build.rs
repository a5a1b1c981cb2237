//! The settings, and the verifier that they give.

use std::{env, fmt};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::proof::nonce_secret::NonceSecrets;
use crate::resource::verifier::Verifier;
use crate::settings::assemble::Parts;
use crate::settings::document::{Document, Nonces};
use crate::settings::fault::{Fault, SettingsError};
use crate::settings::node::Node;
use crate::settings::secrets::Secrets;
use crate::settings::variables::{self, PREFIX};
use crate::tokens::claims::Claims;

/// The settings of a [`Verifier`], from a document or from variables.
///
/// It is read by serde from TOML, JSON, YAML or any other format that describes itself, as a document of its own or as a
/// part of yours. [`from_env`](Self::from_env) reads the same settings from `DPOP_*` variables. [The
/// guide](crate::guide::configuration#all-settings) has a table of all settings, with their variables and defaults.
///
/// A setting that is not known is an error, and so is a value of the wrong type. The error names the setting.
///
/// # Example
///
/// ```
/// use tower_dpop::settings::Settings;
///
/// let document = r#"
///     public_url = "https://api.example.com"
///     issuer = "https://as.example.com"
///     nonces = { file = "/run/secrets/nonces" }
/// "#;
/// let settings: Settings = toml::from_str(document)?;
/// # async fn build(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = settings.build().await?; // reads the file, and fetches the keys of the issuer
/// # let _ = verifier;
/// # Ok(())
/// # }
///
/// let error = toml::from_str::<Settings>(r#"public_uri = "https://api.example.com""#).unwrap_err();
/// assert_eq!(error.message(), "public_uri: unknown setting, did you mean public_url?");
/// # let _ = settings;
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// # Security
///
/// Secrets are given by reference, to a file or to a variable, and read by [`build`](Self::build). The settings have none,
/// except those of [`from_vars`](Self::from_vars): they keep the secrets that they were given, and wipe them from memory when
/// the last clone is dropped. No `Debug` output of the settings has a secret. But `Debug` of a format's own error may have the
/// whole document, as that of the crate `toml` has: show its `message()`.
///
/// Each setting that weakens a check has `insecure` in its name, or, if it only accepts more input, `lenient` or `optional`. Two
/// choices that RFC 9449 leaves to the server are named for what they do: `allow_bearer` ([section
/// 7.2](https://www.rfc-editor.org/rfc/rfc9449#section-7.2)) and `freshness.nonce_instead_of_iat` ([section 4.3, check
/// 11](https://www.rfc-editor.org/rfc/rfc9449#section-4.3)).
#[derive(Clone)]
pub struct Settings {
    document: Document,
    secrets: Secrets,
    origin: Origin,
}

/// What errors name.
#[derive(Clone, Copy)]
enum Origin {
    Document,
    Variables,
}

impl Settings {
    /// Reads the variables of this process that begin with `DPOP_`.
    ///
    /// # Errors
    ///
    /// A variable is unknown, is empty, has an invalid value, or is missing.
    pub fn from_env() -> Result<Self, SettingsError> {
        let mut given = Vec::new();
        for (name, value) in env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let value = value.into_string().map_err(|_| SettingsError {
                setting: name.to_owned(),
                problem: "is not Unicode".to_owned(),
            })?;
            given.push((name.to_owned(), value));
        }
        Self::from_vars(given)
    }

    /// Reads these variables as [`from_env`](Self::from_env) reads those of the process. Only `DPOP_*` variables are read.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_dpop::settings::Settings;
    ///
    /// let settings = Settings::from_vars([
    ///     ("DPOP_PUBLIC_URL", "https://api.example.com"),
    ///     ("DPOP_ISSUER", "https://as.example.com"),
    ///     ("DPOP_NONCES", "generated"),
    /// ]);
    /// assert!(settings.is_ok());
    ///
    /// let error = Settings::from_vars([("DPOP_ISSUER", "https://as.example.com")]).unwrap_err();
    /// assert_eq!(error.setting(), "DPOP_PUBLIC_URL");
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`from_env`](Self::from_env).
    pub fn from_vars<K, V>(vars: impl IntoIterator<Item = (K, V)>) -> Result<Self, SettingsError>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.into(), Zeroizing::new(value.into())));
        let given: Vec<(String, _)> = vars.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let (tree, secrets) = variables::read(&given)?;
        let document = read(tree).map_err(variables::named)?;
        Ok(Self {
            document,
            secrets,
            origin: Origin::Variables,
        })
    }

    /// Builds the verifier: reads files and secrets, connects to Redis, and fetches the keys of issuers.
    ///
    /// With `start_timeout_seconds = 0`, no server is contacted now: keys are fetched by the first request, and Redis is
    /// connected in the background.
    ///
    /// # Errors
    ///
    /// A file or a secret cannot be read or is invalid, or Redis or the keys of an issuer are unreachable.
    pub async fn build(&self) -> Result<Verifier, SettingsError> {
        self.build_with_claims::<Claims>().await
    }

    /// As [`build`](Self::build), for a claims type of your own
    /// ([`JwtVerifier::with_claims`](crate::JwtVerifier::with_claims)).
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub async fn build_with_claims<C>(&self) -> Result<Verifier<C>, SettingsError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        Ok(self.build_parts().await?.verifier)
    }

    /// As [`build_with_claims`](Self::build_with_claims), with handles to what the verifier uses: for health checks, and to
    /// replace secrets while the service runs.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub async fn build_parts<C>(&self) -> Result<Parts<C>, SettingsError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let parts = self.document.assemble(&self.secrets, None).await;
        parts.map_err(|fault| self.named(fault))
    }

    /// As [`build_parts`](Self::build_parts), for a service that reads its settings again while it runs: the new verifier
    /// knows the proofs that the previous one has accepted. All files and secrets are read again.
    ///
    /// These are taken over from the parts before:
    ///
    /// - the replay store in memory, if both have one, and with it the nonces of clients. It keeps its limit.
    /// - the connection to Redis, if `redis`, its password and its roots are the same.
    /// - the secret of nonces, if both times `nonces` is `generated`.
    /// - the fetched keys of each issuer with the same URLs, if `http` and its roots are the same. So an issuer that is
    ///   unreachable at this moment does not matter.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_dpop::settings::{Parts, Settings};
    ///
    /// # async fn example(document: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let settings: Settings = toml::from_str(document)?;
    /// let first: Parts = settings.build_parts().await?;
    ///
    /// // Later, when the document has changed:
    /// let settings: Settings = toml::from_str(document)?;
    /// let second = settings.build_parts_after(&first).await?;
    /// # let _ = second;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build). The previous verifier is not affected.
    ///
    /// # Security
    ///
    /// A record is kept as long as the verifier that accepted the proof would accept it again. If the new `freshness` accepts
    /// proofs for longer, a proof whose record has been dropped can be used once more ([verifiers with different
    /// freshness](crate::guide::several_nodes#verifiers-with-different-freshness)). If the replay store is another one (Redis
    /// instead of memory, or another server), it does not know the proofs of before, as after a restart: then only nonces
    /// prevent a second use.
    pub async fn build_parts_after<C>(&self, previous: &Parts<C>) -> Result<Parts<C>, SettingsError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let lasting = Some(&previous.lasting);
        let parts = self.document.assemble(&self.secrets, lasting).await;
        parts.map_err(|fault| self.named(fault))
    }

    /// Reads the files and the secrets that [`build`](Self::build) reads, and contacts no server: for a program that checks its
    /// configuration before it starts.
    ///
    /// # Errors
    ///
    /// A file or a secret cannot be read or is invalid.
    pub fn check(&self) -> Result<(), SettingsError> {
        let local = self.document.local::<Claims>(&self.secrets, None);
        local.map(drop).map_err(|fault| self.named(fault))
    }

    /// Reads the secrets of nonces again, if the settings refer to some: for
    /// [`StatelessNonces::replace_secrets`](crate::StatelessNonces::replace_secrets).
    ///
    /// # Errors
    ///
    /// The file or the variable cannot be read, or has no secrets.
    pub fn nonce_secrets(&self) -> Result<Option<NonceSecrets>, SettingsError> {
        let Nonces::Secrets(reference) = &self.document.nonces else {
            return Ok(None);
        };
        let secrets = self.secrets.of_nonces("nonces", reference);
        secrets.map(Some).map_err(|fault| self.named(fault))
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = Node::deserialize(deserializer)?;
        let document = read(tree).map_err(|fault| D::Error::custom(SettingsError::from(fault)))?;
        Ok(Self {
            document,
            secrets: Secrets::default(),
            origin: Origin::Document,
        })
    }
}

fn read(tree: Node) -> Result<Document, Fault> {
    let document = Document::deserialize(tree)?;
    document.check()?;
    Ok(document)
}

impl Settings {
    fn named(&self, fault: Fault) -> SettingsError {
        match self.origin {
            Origin::Document => fault.into(),
            Origin::Variables => variables::named(fault),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settings").field(&self.document).finish()
    }
}
