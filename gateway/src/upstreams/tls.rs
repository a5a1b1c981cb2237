//! The roots that verify a server's certificate, and the gateway's own certificate (mutual TLS).

use std::sync::Arc;

use pingora::prelude::HttpPeer;
use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;

use crate::config::{self, ConfigError, Pair, Upstream};

pub(super) struct Trust {
    /// `None`: those of the system.
    roots: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
}

impl Trust {
    pub(super) fn read(upstream: &str, settings: &Upstream) -> Result<Self, ConfigError> {
        let place = |member: &str| format!("upstream.{upstream}.{member}");
        let roots = settings.roots_file.as_deref().map(|file| {
            config::roots(file).map_err(|problem| ConfigError {
                place: place("roots_file"),
                problem,
            })
        });
        let client = settings.client_certificate.as_ref();
        let client = client.map(|tls| tls.read_for(&place("client_certificate")));
        Ok(Self {
            roots: roots.transpose()?.map(wrapped),
            client: client.transpose()?.as_ref().map(cert_key),
        })
    }

    pub(super) fn give_to(&self, peer: &mut HttpPeer) {
        peer.options.ca.clone_from(&self.roots);
        peer.client_cert_key.clone_from(&self.client);
    }
}

/// pingora takes what it is given for certificates, so they are checked before.
fn wrapped(certificates: Vec<CertificateDer<'static>>) -> Arc<CaType> {
    let certificates = certificates.into_iter();
    certificates
        .map(|one| WrappedX509::new(one.to_vec(), parse_x509))
        .collect()
}

fn cert_key(pair: &Pair) -> Arc<CertKey> {
    let chain = pair.certified.cert.iter();
    let chain = chain.map(|one| one.to_vec()).collect();
    Arc::new(CertKey::new(chain, pair.key.secret_der().to_vec()))
}
