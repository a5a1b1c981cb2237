//! TLS at the listeners.

use std::fmt;
use std::sync::Arc;

use pingora::listeners::tls::Acceptor;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};

use crate::certificates::{Certificate, Certificates};
use crate::generation::Current;

/// Makes the TLS handshake with the certificate of the current generation: a reload replaces it for new connections, and does
/// not affect the others.
pub(crate) fn acceptor(
    current: &Current,
    choose: impl Fn(&Certificates) -> Certificate + Send + Sync + 'static,
) -> Result<Acceptor, rustls::Error> {
    let resolver = Resolver {
        current: Arc::clone(current),
        choose: Box::new(choose),
    };
    // The cryptography of `tower_dpop`, too.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Acceptor::from_server_config(Arc::new(config)))
}

struct Resolver {
    current: Current,
    choose: Box<dyn Fn(&Certificates) -> Certificate + Send + Sync>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Certificate {
        (self.choose)(&self.current.load().certificates)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver(..)")
    }
}
