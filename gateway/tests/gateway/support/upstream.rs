//! Services behind the gateway: with TLS or without, which can be stopped, and which a test scripts byte by byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Ends with its connections when it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    scheme: &'static str,
    task: JoinHandle<()>,
}

impl Upstream {
    pub async fn serve(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start(listener, app, None)
    }

    /// At an address that another one had.
    pub async fn serve_at(address: SocketAddr, app: Router) -> Self {
        Self::start(TcpListener::bind(address).await.unwrap(), app, None)
    }

    pub async fn serve_tls(app: Router, tls: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start(listener, app, Some(TlsAcceptor::from(Arc::new(tls))))
    }

    /// Calls this for each connection, with its number.
    pub async fn script<F>(connection: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut number = 0;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.spawn(connection(stream, number));
                number += 1;
            }
        });
        Self {
            address,
            scheme: "http",
            task,
        }
    }

    fn start(listener: TcpListener, app: Router, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (app, tls) = (app.clone(), tls.clone());
                connections.spawn(async move {
                    let service = TowerToHyperService::new(app);
                    let server = auto::Builder::new(TokioExecutor::new());
                    // The gateway may close a connection at any time.
                    if let Some(tls) = tls {
                        if let Ok(stream) = tls.accept(stream).await {
                            let stream = TokioIo::new(stream);
                            let _ = server.serve_connection_with_upgrades(stream, service).await;
                        }
                    } else {
                        let stream = TokioIo::new(stream);
                        let _ = server.serve_connection_with_upgrades(stream, service).await;
                    }
                });
            }
        });
        Self {
            address,
            scheme,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// For TLS: by this name instead of its address.
    pub fn url_as(&self, host: &str) -> String {
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// Its port accepts no connection afterwards.
    pub async fn stop(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What services have seen.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<SeenRequest>>>);

/// Its head, its body, and its trailers.
type SeenRequest = (Parts, Vec<u8>, Option<HeaderMap>);

impl Seen {
    pub fn requests(&self) -> Vec<Parts> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|(head, _, _)| head.clone()).collect()
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|(_, body, _)| body.clone()).collect()
    }

    pub fn trailers(&self) -> Vec<Option<HeaderMap>> {
        let seen = self.0.lock().unwrap();
        seen.iter()
            .map(|(_, _, trailers)| trailers.clone())
            .collect()
    }

    /// Responds with the body of the request, and with the version of HTTP in `x-version`.
    pub fn echo(&self) -> Router {
        let seen = self.clone();
        Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let collected = http_body_util::BodyExt::collect(body).await.unwrap();
            let trailers = collected.trailers().cloned();
            let body = collected.to_bytes();
            let version = if head.version == Version::HTTP_2 {
                "2"
            } else {
                "1.1"
            };
            seen.0.lock().unwrap().push((head, body.to_vec(), trailers));
            Response::builder()
                .header("x-version", version)
                .body(Body::from(body))
                .unwrap()
        })
    }
}

/// A certificate authority, and the certificates it issues.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key in PEM, changed by `change` before it is signed.
    pub fn issue(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The configuration of a server with such a certificate. With `clients`, it requires a certificate from that authority.
    pub fn server(
        (certificate, key): &(String, String),
        alpn: &[&str],
        clients: Option<&Self>,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        config
    }
}
