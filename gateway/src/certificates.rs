//! The certificates of the listeners.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::{ConfigError, Document, Tls};

/// `None`: the listener has no TLS.
pub(crate) type Certificate = Option<Arc<CertifiedKey>>;

/// The certificates of a generation, in the order of its listeners.
pub(crate) struct Certificates {
    pub(crate) listeners: Vec<Certificate>,
    pub(crate) forward_auth: Vec<Certificate>,
}

impl Certificates {
    /// Reads the files.
    pub(crate) fn new(document: &Document) -> Result<Self, ConfigError> {
        let listeners = document.listener.iter();
        let forward_auth = document.forward_auth.iter();
        Ok(Self {
            listeners: listeners
                .map(|it| certificate(&format!("listener {}", it.address), it.tls.as_ref()))
                .collect::<Result<_, _>>()?,
            forward_auth: forward_auth
                .map(|it| certificate(&format!("forward_auth {}", it.address), it.tls.as_ref()))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn certificate(place: &str, tls: Option<&Tls>) -> Result<Certificate, ConfigError> {
    tls.map(|tls| read(place, tls).map(Arc::new)).transpose()
}

fn read(place: &str, tls: &Tls) -> Result<CertifiedKey, ConfigError> {
    let fault = |setting: &str, file: &Path, problem: String| ConfigError {
        place: format!("{place}: tls.{setting}"),
        problem: format!("{}: {problem}", file.display()),
    };
    let chain = CertificateDer::pem_file_iter(&tls.certificate_file).and_then(Iterator::collect);
    let chain: Vec<_> = match chain {
        Ok(chain) => chain,
        Err(error) => {
            let problem = described(&error, "certificates in PEM");
            return Err(fault("certificate_file", &tls.certificate_file, problem));
        }
    };
    if chain.is_empty() {
        let problem = "expected certificates in PEM, the server's own first".to_owned();
        return Err(fault("certificate_file", &tls.certificate_file, problem));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|error| {
        let problem = described(&error, "a private key in PEM, without a passphrase");
        fault("key_file", &tls.key_file, problem)
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "the key does not belong to the first certificate in {}",
                tls.certificate_file.display()
            ),
            error => error.to_string(),
        };
        fault("key_file", &tls.key_file, problem)
    })
}

/// Without the content of the file, which may be a key.
fn described(error: &pem::Error, expected: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        _ => format!("expected {expected}"),
    }
}

/// The same cryptography as in `tower_dpop`.
pub(crate) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}
