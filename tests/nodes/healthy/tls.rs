//! TLS.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tower_dpop::proof::{Claim, InvalidTlsPem, RedisReplayStore, RedisServer, RedisStartError};

use super::{claim, key};
use crate::servers::{Redis, free_port};

/// The files of a server's certificate, and the root that issued it.
struct Certificate {
    root: String,
    folder: PathBuf,
}

impl Certificate {
    fn new(name: &str, host: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Not the subject of the other certificate, which would then count as self-signed.
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let folder = std::env::temp_dir().join(format!("tower-dpop-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(folder.join("certificate.pem"), certificate).unwrap();
        Self { root, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn trusts_only_the_given_roots_and_the_right_name() {
    let certificate = Certificate::new("tls", "localhost");
    let other = Certificate::new("tls-other", "localhost");
    let port = free_port();
    let _redis = Redis::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate.file("certificate.pem"),
        "--tls-key-file",
        &certificate.file("key.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let at = |host: &str| RedisServer::url(&format!("rediss://{host}:{port}")).unwrap();
    let trusting = |host, root: &str| at(host).with_tls_roots(root.as_bytes()).unwrap();

    let both = format!("{}{}", other.root, certificate.root);
    for roots in [&certificate.root, &both] {
        let store = RedisReplayStore::at(trusting("localhost", roots));
        let store = store.connect().await.unwrap();
        let number = u8::try_from(roots.len() % 256).unwrap();
        assert_eq!(claim(&store, key(number)).await, Ok(Claim::First));
    }

    for (name, server) in [
        ("another root", trusting("localhost", &other.root)),
        ("the system's roots", at("localhost")),
        ("another name", trusting("127.0.0.1", &certificate.root)),
    ] {
        let error = RedisReplayStore::at(server).connect().await.unwrap_err();
        assert!(
            matches!(&error, RedisStartError::Unreachable { reason, .. } if reason.contains("certificate")),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn shows_a_certificate_where_one_is_required() {
    let certificate = Certificate::new("tls-client", "localhost");
    let file = |name| certificate.file(name);
    let port = free_port();
    fs::write(file("root.pem"), &certificate.root).unwrap();
    // `--tls-auth-clients yes` is the default.
    let _redis = Redis::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("certificate.pem"),
        "--tls-key-file",
        &file("key.pem"),
        "--tls-ca-cert-file",
        &file("root.pem"),
    ]);
    let server = RedisServer::url(&format!("rediss://localhost:{port}")).unwrap();
    let server = server.with_tls_roots(certificate.root.as_bytes()).unwrap();
    let error = RedisReplayStore::at(server.clone()).connect().await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, RedisStartError::Unreachable { .. }),
        "{error}"
    );

    let [certificate, key] =
        ["certificate.pem", "key.pem"].map(|name| fs::read(file(name)).unwrap());
    let error = server
        .clone()
        .with_tls_client_certificate(&certificate, b"");
    assert_eq!(error.unwrap_err(), InvalidTlsPem::Key);
    let server = server
        .with_tls_client_certificate(&certificate, &key)
        .unwrap();
    // Each connection shows it.
    let store = RedisReplayStore::at(server).with_connections(NonZeroUsize::new(2).unwrap());
    let store = store.connect().await.unwrap();
    for number in [1, 2] {
        assert_eq!(claim(&store, super::key(number)).await, Ok(Claim::First));
    }
}

#[test]
fn roots_are_certificates() {
    let server = || RedisServer::url("rediss://redis.example.com").unwrap();
    for (pem, expected) in [
        ("", InvalidTlsPem::NoCertificate),
        ("nothing of this kind", InvalidTlsPem::NoCertificate),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            InvalidTlsPem::Certificate,
        ),
    ] {
        let error = server().with_tls_roots(pem.as_bytes()).unwrap_err();
        assert_eq!(error, expected, "{pem}");
    }
}
