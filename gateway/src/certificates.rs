//! The certificates of the listeners.

use std::sync::Arc;

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
    let read = tls.map(|tls| tls.read_for(&format!("{place}: tls")));
    Ok(read.transpose()?.map(|read| Arc::new(read.certified)))
}
