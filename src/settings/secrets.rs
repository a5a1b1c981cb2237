//! The secrets that settings refer to.

use std::path::Path;

use zeroize::Zeroizing;

use crate::deserialize::SecretReference;
use crate::proof::nonce_secret::NonceSecrets;
use crate::settings::fault::Fault;

/// The values of variables that were given as a list, by name. A reference to any other variable is one of the process.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<(String, Zeroizing<String>)>);

impl Secrets {
    pub(crate) fn hold(&mut self, name: &str, value: &str) {
        let value = Zeroizing::new(value.to_owned());
        self.0.push((name.to_owned(), value));
    }

    fn held(&self, name: &str) -> Option<&Zeroizing<String>> {
        let held = self.0.iter().find(|(held, _)| held == name);
        held.map(|(_, value)| value)
    }

    /// Reads a secret other than those of nonces, without the line break at its end.
    #[cfg(any(feature = "introspection", feature = "redis"))]
    pub(crate) fn read(
        &self,
        path: &str,
        reference: &SecretReference,
    ) -> Result<Zeroizing<String>, Fault> {
        use std::env::VarError;

        let (path, secret) = match reference {
            SecretReference::Env(name) => {
                let secret = match self.held(name) {
                    Some(held) => Ok(held.clone()),
                    None => std::env::var(name).map(Zeroizing::new).map_err(|error| {
                        let reason = match error {
                            VarError::NotPresent => "not set",
                            VarError::NotUnicode(_) => "not Unicode",
                        };
                        format!("environment variable {name}: {reason}")
                    }),
                };
                (format!("{path}.env"), secret)
            }
            SecretReference::File(file) => {
                check_path(path, file)?;
                let text = std::fs::read_to_string(file).map(Zeroizing::new);
                let text = text.map_err(|error| format!("file {}: {error}", file.display()));
                (format!("{path}.file"), text)
            }
        };
        let secret = secret.map_err(|problem| Fault::at(path.as_str(), problem))?;
        match secret.trim_end_matches(['\r', '\n']) {
            "" => Err(Fault::at(path, "the secret is empty")),
            trimmed => Ok(Zeroizing::new(trimmed.to_owned())),
        }
    }

    pub(crate) fn of_nonces(
        &self,
        path: &str,
        reference: &SecretReference,
    ) -> Result<NonceSecrets, Fault> {
        let (member, secrets) = match reference {
            SecretReference::File(file) => {
                check_path(path, file)?;
                ("file", NonceSecrets::from_file(file))
            }
            SecretReference::Env(name) => {
                let secrets = match self.held(name) {
                    Some(text) => text.parse(),
                    None => NonceSecrets::from_env(name),
                };
                ("env", secrets)
            }
        };
        secrets.map_err(|error| Fault::at(format!("{path}.{member}"), error))
    }
}

/// Other errors show the path. This one may be the secret, in the wrong place.
fn check_path(setting: &str, file: &Path) -> Result<(), Fault> {
    // In base64, a secret can have a slash.
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    if file.is_absolute() || file.exists() || folder.is_some_and(Path::exists) {
        return Ok(());
    }
    let problem = "there is no such file: expected its path, not the secret itself";
    Err(Fault::at(format!("{setting}.file"), problem))
}
