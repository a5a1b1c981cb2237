//! The roots that verify a server's certificate, and the gateway's own certificate (mutual TLS).

use std::path::Path;
use std::sync::Arc;

use pingora::prelude::HttpPeer;
use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ConfigError, Tls, Upstream};

pub(super) struct Trust {
    /// `None`: those of the system.
    roots: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
}

impl Trust {
    pub(super) fn read(
        upstream: &str,
        settings: &Upstream,
        https: bool,
    ) -> Result<Self, ConfigError> {
        let place = |member: &str| format!("upstream.{upstream}.{member}");
        let roots = settings.roots_file.as_deref();
        let client = settings.client_certificate.as_ref();
        for (member, is_set) in [
            ("roots_file", roots.is_some()),
            ("client_certificate", client.is_some()),
            ("server_name", settings.server_name.is_some()),
        ] {
            if is_set && !https {
                return Err(ConfigError {
                    place: place(member),
                    problem: "expected servers with https: it has no effect without TLS".to_owned(),
                });
            }
        }
        Ok(Self {
            roots: roots
                .map(|file| roots_in(&place("roots_file"), file))
                .transpose()?,
            client: client
                .map(|files| client_certificate(&place("client_certificate"), files))
                .transpose()?,
        })
    }

    pub(super) fn give_to(&self, peer: &mut HttpPeer) {
        peer.options.ca.clone_from(&self.roots);
        peer.client_cert_key.clone_from(&self.client);
    }
}

fn roots_in(place: &str, file: &Path) -> Result<Arc<CaType>, ConfigError> {
    let certificates = certificates_in(place, file)?;
    // pingora does not check that these are certificates.
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        let added = store.add(certificate.clone());
        added.map_err(|error| fault(place, file, &error.to_string()))?;
    }
    let wrapped = certificates
        .into_iter()
        .map(|certificate| WrappedX509::new(certificate.to_vec(), parse_x509));
    Ok(wrapped.collect())
}

fn client_certificate(place: &str, files: &Tls) -> Result<Arc<CertKey>, ConfigError> {
    let chain = certificates_in(place, &files.certificate_file)?;
    let file = &files.key_file;
    let key = PrivateKeyDer::from_pem_file(file)
        .map_err(|error| fault(place, file, &unreadable(&error, "a private key")))?;
    // pingora does not check that these are a certificate and its key.
    ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(|error| fault(place, file, &error.to_string()))?;
    let chain = chain.into_iter().map(|one| one.to_vec()).collect();
    Ok(Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
}

fn certificates_in(place: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let certificates: Vec<_> =
        certificates.map_err(|error| fault(place, file, &unreadable(&error, "certificates")))?;
    if certificates.is_empty() {
        return Err(fault(place, file, "expected certificates in PEM"));
    }
    Ok(certificates)
}

fn unreadable(error: &PemError, expected: &str) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        _ => format!("expected {expected} in PEM"),
    }
}

fn fault(place: &str, file: &Path, problem: &str) -> ConfigError {
    ConfigError {
        place: place.to_owned(),
        problem: format!("{}: {problem}", file.display()),
    }
}
