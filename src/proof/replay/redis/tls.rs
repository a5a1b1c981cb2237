//! What TLS to Redis trusts, and how this node shows who it is.

use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs as aws_lc};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Certificates and keys from the configuration. Without any, the system's roots are trusted.
#[derive(Clone, Default)]
pub(crate) struct TlsSettings {
    roots: Option<Arc<RootCertStore>>,
    identity: Option<Arc<TlsIdentity>>,
}

struct TlsIdentity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsSettings {
    pub(crate) fn with_roots(mut self, pem: &[u8]) -> Result<Self, InvalidTlsPem> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots
                .add(certificate)
                .map_err(|_| InvalidTlsPem::Certificate)?;
        }
        self.roots = Some(Arc::new(roots));
        Ok(self)
    }

    pub(crate) fn with_identity(
        mut self,
        certificate_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<Self, InvalidTlsPem> {
        self.identity = Some(Arc::new(TlsIdentity {
            certificates: certificates(certificate_pem)?,
            key: PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| InvalidTlsPem::Key)?,
        }));
        Ok(self)
    }

    /// The cryptography is the process's, or AWS-LC if none was chosen.
    pub(crate) fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(aws_lc::default_provider()));
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = match &self.roots {
            Some(roots) => config.with_root_certificates(Arc::clone(roots)),
            None => config.with_platform_verifier()?,
        };
        match self.identity.as_deref() {
            Some(TlsIdentity { certificates, key }) => {
                config.with_client_auth_cert(certificates.clone(), key.clone_key())
            }
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidTlsPem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|_| InvalidTlsPem::Certificate)?;
    if certificates.is_empty() {
        return Err(InvalidTlsPem::NoCertificate);
    }
    Ok(certificates)
}

/// Why a text has no certificates or no private key in PEM: a configuration error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTlsPem {
    /// A certificate cannot be read.
    #[error("a certificate in the PEM text cannot be read")]
    Certificate,
    /// The private key is missing or cannot be read.
    #[error("there is no private key in the PEM text that can be read (PKCS#8, PKCS#1 or SEC1)")]
    Key,
    /// There is no certificate.
    #[error("there is no certificate in the PEM text")]
    NoCertificate,
}
