//! `--cacert`, with both servers behind TLS, certified by an authority that no system knows.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::server::TlsStream;

use crate::servers::{GRANT, Servers, with};

struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (tcp, address) = self.tcp.accept().await.unwrap();
            // A client that does not trust the certificate ends the connection.
            if let Ok(stream) = self.tls.accept(tcp).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A new root certificate (PEM), and a TLS acceptor with a certificate from it for `127.0.0.1`.
fn certified() -> (String, TlsAcceptor) {
    let mut root = CertificateParams::new([]).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let pem = root.self_signed(&root_key).unwrap().pem();
    let root = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &root).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

async fn start(name: &str) -> Servers {
    let (root, tls) = certified();
    let listen = |tcp| TlsListener {
        tcp,
        tls: tls.clone(),
    };
    let servers = Servers::start_at(name, "https", None, listen).await;
    servers.folder.write("root.pem", &root);
    servers.folder.write("other.pem", &certified().0);
    servers
}

#[tokio::test]
async fn trusts_the_authorities_of_a_file() {
    let servers = start("cacert").await;
    let key = ["--key", "key.pem"];
    for (roots, hint) in [
        (&[][..], "--cacert FILE"),
        (&["--cacert", "other.pem"], "invalid peer certificate"),
    ] {
        let arguments = [roots, &["{api}/orders"]].concat();
        let run = servers.dpop(&with("curl", &arguments), "").await;
        run.assert_fails(3, hint);
        let arguments = with("token", &[roots, &key].concat());
        let run = servers.dpop(&arguments, "").await;
        run.assert_fails(3, hint);
    }

    // The authorization server and the API.
    let roots = ["--cacert", "root.pem"];
    let arguments = [&roots[..], &["{api}/orders"]].concat();
    let run = servers.dpop(&with("curl", &arguments), "").await;
    assert!(run.output().contains("\"sub\":\"alice\""), "{run:?}");

    let token = servers
        .dpop(&with("token", &[&roots[..], &key].concat()), "")
        .await;
    servers.folder.write("token", token.output());
    let request = ["--token", "@token", "--key", "key.pem", "{api}/orders"];
    let without = servers.dpop(&[&["curl"], &request[..]].concat(), "").await;
    without.assert_fails(3, "--cacert FILE");
    let saved = ["--save-request", "request.txt"];
    let arguments = [&["curl"], &roots[..], &saved, &request].concat();
    servers.dpop(&arguments, "").await.output();

    // The issuer's keys.
    let explain = ["explain", "--request", "request.txt", GRANT[0], GRANT[1]];
    let run = servers.dpop(&explain, "").await;
    run.assert_fails(3, "--cacert FILE");
    let run = servers.dpop(&[&explain[..], &roots].concat(), "").await;
    assert!(run.output().contains("by a key of the issuer"), "{run:?}");
    let text = format!("GET {}/orders (host from the request;", servers.api);
    assert!(run.output().contains(&text), "{run:?}");
}

/// The variable takes the place of the system's roots.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_may_know_the_authority_by_a_variable() {
    let servers = start("cacert-variable").await;
    let arguments = with("curl", &["{api}/orders"]);
    for (file, status) in [("root.pem", 0), ("other.pem", 3)] {
        let variable = [("SSL_CERT_FILE", file)];
        let run = servers.dpop_with(&variable, &arguments, "").await;
        assert_eq!(run.status, status, "{run:?}");
    }
}

#[tokio::test]
async fn rejects_a_file_without_certificates() {
    let servers = start("cacert-file").await;
    for (file, text) in [
        ("secret.txt", "--cacert: the file has no certificate in PEM"),
        ("none.pem", "none.pem: No such file"),
    ] {
        let arguments = with("curl", &["--cacert", file, "{api}/orders"]);
        servers.dpop(&arguments, "").await.assert_fails(3, text);
    }
}
