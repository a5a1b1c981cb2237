//! Reads keys, secrets and files that arguments name.

use std::fs::File;
use std::io::{self, Read, StdinLock};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use tower_dpop::Algorithm;
use tower_dpop::jose::{SigningKey, SigningKeyError};
use tower_dpop::tokens::HttpClient;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::http_client::settings;

/// No key, token, proof or head of a request is longer.
const MAX_LENGTH: u64 = 256 * 1024;

/// The client's key.
#[derive(Args)]
pub(crate) struct KeyFile {
    /// The client's private key: a file with PKCS#8 in PEM, or a JWK
    #[arg(long = "key", value_name = "FILE")]
    path: PathBuf,

    /// The algorithm, if the file does not name the one that is meant
    ///
    /// A PEM file names none: RSA keys then sign with PS256, Ed25519 keys with the name Ed25519.
    #[arg(long, value_name = "ALG")]
    alg: Option<Algorithm>,
}

impl KeyFile {
    pub(crate) fn read(&self) -> Result<SigningKey, Failure> {
        read_key(&self.path, self.alg)
    }
}

/// The client's key, if it is to last longer than one run.
#[derive(Args)]
pub(crate) struct OptionalKey {
    /// The client's private key, to which the token is bound: PKCS#8 in PEM, or a JWK
    #[arg(long = "key", value_name = "FILE")]
    path: Option<PathBuf>,

    /// The algorithm, if the file does not name the one that is meant
    #[arg(long, value_name = "ALG", requires = "path")]
    alg: Option<Algorithm>,
}

impl OptionalKey {
    pub(crate) fn read(&self) -> Result<Option<SigningKey>, Failure> {
        let path = self.path.as_deref();
        path.map(|path| read_key(path, self.alg)).transpose()
    }
}

/// Who certifies the servers.
#[derive(Args)]
pub(crate) struct Roots {
    /// Also trust the certificate authorities in this file (PEM)
    ///
    /// They are added to those of the system.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
}

impl Roots {
    fn pem(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        self.cacert.as_deref().map(read_file).transpose()
    }

    /// A client of reqwest that trusts them.
    pub(crate) fn client(&self) -> Result<reqwest::ClientBuilder, Failure> {
        let client = settings()?;
        let Some(pem) = self.pem()? else {
            return Ok(client);
        };
        let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        let roots = roots.map_err(|error| Failure::work(format_args!("--cacert: {error}")))?;
        if roots.is_empty() {
            return Err(Failure::work(
                "--cacert: the file has no certificate in PEM",
            ));
        }
        Ok(client.tls_certs_merge(roots))
    }

    /// The library's client for the documents of issuers.
    pub(crate) fn issuer_client(&self) -> Result<HttpClient, Failure> {
        let mut client = HttpClient::builder();
        if let Some(pem) = self.pem()? {
            client = client
                .add_root_certificates_pem(pem.as_bytes())
                .map_err(|error| Failure::work(format_args!("--cacert: {error}")))?;
        }
        client.build().map_err(Failure::work)
    }
}

/// What to do if a server's certificate is not trusted.
pub(crate) fn certificate_hint(error: &str) -> &'static str {
    if error.contains("invalid peer certificate") {
        "\nif a certificate authority of your own certifies the server: --cacert FILE"
    } else {
        ""
    }
}

/// Reads a private key, in either of its formats.
fn read_key(path: &Path, alg: Option<Algorithm>) -> Result<SigningKey, Failure> {
    let text = read_file(path)?;
    warn_if_others_can_read(path);
    let key = if text.trim_start().starts_with('{') {
        SigningKey::from_jwk(&text)
    } else {
        SigningKey::from_pkcs8_pem(&text)
    };
    let key = key.and_then(|key| match alg {
        Some(alg) => key.with_algorithm(alg),
        None => Ok(key),
    });
    key.map_err(|error| {
        let hint = match error {
            SigningKeyError::Pem => "\n`openssl pkcs8 -topk8 -nocrypt` converts other PEM files",
            _ => "",
        };
        Failure::work(format_args!("{}: {error}{hint}", path.display()))
    })
}

/// As ssh does for its keys, but only with a warning.
fn warn_if_others_can_read(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let mode = path.metadata().map_or(0, |metadata| metadata.mode());
        if mode & 0o077 != 0 {
            eprintln!(
                "dpop: warning: {}: other users may read this key (mode {:o}): chmod 600",
                path.display(),
                mode & 0o777
            );
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// A secret as an argument gives it: the text itself, `@FILE`, or `-` for standard input.
pub(crate) fn secret(argument: &str) -> Result<Zeroizing<String>, Failure> {
    let text = match argument.strip_prefix('@') {
        Some(path) => read_file(Path::new(path))?,
        None if argument == "-" => read(stdin()?, "standard input")?,
        None => Zeroizing::new(argument.to_owned()),
    };
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// The text of a file, or of standard input if the path is `-`.
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    if path.as_os_str() == "-" {
        return read(stdin()?, "standard input");
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::work(format_args!("{name}: {error}")))?;
    read(file, &name)
}

/// The bytes of a file, of any length, or of standard input if the path is `-`.
pub(crate) fn read_bytes(path: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match path {
        "-" => stdin()?.read_to_end(&mut bytes),
        path => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::work(format_args!("{path}: {error}")))?;
    Ok(bytes)
}

/// Standard input, once: a second argument would find it at its end.
fn stdin() -> Result<StdinLock<'static>, Failure> {
    static IS_USED: AtomicBool = AtomicBool::new(false);

    if IS_USED.swap(true, Ordering::Relaxed) {
        return Err(Failure::usage(
            "standard input can be used for one argument only",
        ));
    }
    Ok(io::stdin().lock())
}

fn read(source: impl Read, name: &str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let length = source
        .take(MAX_LENGTH + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::work(format_args!("{name}: {error}")))?;
    if length as u64 > MAX_LENGTH {
        return Err(Failure::work(format_args!(
            "{name}: longer than {MAX_LENGTH} bytes"
        )));
    }
    Ok(text)
}

/// Runs a future to its end.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::work)?;
    Ok(runtime.block_on(future))
}
