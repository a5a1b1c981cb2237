//! The files that a configuration refers to, and the names of its servers.

use std::fs;
use std::net::ToSocketAddrs as _;
use std::path::Path;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};

use crate::config::checks::Server;
use crate::config::document::{Document, Tls};
use crate::config::report::Report;

pub(super) fn check(document: &Document, report: &mut Report) {
    for (number, listener) in document.listener.iter().enumerate() {
        certificate(
            listener.tls.as_ref(),
            &format!("listener[{number}].tls"),
            report,
        );
    }
    for (number, forward_auth) in document.forward_auth.iter().enumerate() {
        let setting = format!("forward_auth[{number}].tls");
        certificate(forward_auth.tls.as_ref(), &setting, report);
    }
    for (name, upstream) in &document.upstream {
        let setting = format!("upstream.{name}.client_certificate");
        certificate(upstream.client_certificate.as_ref(), &setting, report);
        if let Some(path) = &upstream.roots_file
            && let Err(problem) = roots(path)
        {
            report.error(format!("upstream.{name}.roots_file"), problem);
        }
    }
}

/// Warns of names that cannot be resolved now.
pub(super) fn resolve(document: &Document, report: &mut Report) {
    for (name, upstream) in &document.upstream {
        for (number, text) in upstream.servers.iter().enumerate() {
            let Ok(server) = Server::parse(text) else {
                continue;
            };
            if let Err(error) = (server.host.as_str(), server.port).to_socket_addrs() {
                let setting = format!("upstream.{name}.servers[{number}]");
                report.warning(setting, format!("{text:?}: {error}"));
            }
        }
    }
}

fn certificate(tls: Option<&Tls>, setting: &str, report: &mut Report) {
    let Some(Err(problems)) = tls.map(Tls::read) else {
        return;
    };
    for (member, problem) in problems {
        report.error(format!("{setting}.{member}"), problem);
    }
}

/// A certificate and its key, for rustls and in DER.
pub(crate) struct Pair {
    pub(crate) certified: CertifiedKey,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Tls {
    /// Reads the files. The error has the settings that are wrong, each with its problem.
    pub(crate) fn read(&self) -> Result<Pair, Vec<(&'static str, String)>> {
        let (chain, key) = match (certificates(&self.certificate_file), key(&self.key_file)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let chain = chain.err().map(|problem| ("certificate_file", problem));
                let key = key.err().map(|problem| ("key_file", problem));
                return Err(chain.into_iter().chain(key).collect());
            }
        };
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key.clone_key(), &provider);
        let certified = certified.map_err(|error| match error {
            Error::InconsistentKeys(_) => (
                "key_file",
                "does not belong to the first certificate in certificate_file".to_owned(),
            ),
            Error::InvalidCertificate(error) => (
                "certificate_file",
                format!("the first certificate is invalid: {error}"),
            ),
            _ => (
                "key_file",
                "its key is of no kind that is supported: expected RSA, ECDSA or Ed25519"
                    .to_owned(),
            ),
        });
        match certified {
            Ok(certified) => Ok(Pair { certified, key }),
            Err(problem) => Err(vec![problem]),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path).map_err(|problem| named(path, &problem))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(named(path, "expected certificates in PEM")),
    }
}

/// The errors do not show the path, because it may be the key itself, in the wrong place.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(path)
        .map_err(|problem| format!("{problem}: expected the path of a file with the key"))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| "expected a private key in PEM, not encrypted".to_owned())
}

/// Certificates of authorities.
pub(crate) fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|error| named(path, &error.to_string()))?;
    }
    Ok(certificates)
}

/// The problem with a file, and its path, unless the "path" is the content of a file.
fn named(path: &Path, problem: &str) -> String {
    let text = path.to_string_lossy();
    if text.contains(['\n', '\r']) || text.contains("-----") {
        return "expected the path of a file, not its content".to_owned();
    }
    format!("{text:?}: {problem}")
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| error.to_string())
}
