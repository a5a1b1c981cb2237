//! `dpop keygen`: makes a private key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tower_dpop::Algorithm;
use tower_dpop::jose::SigningKey;

use crate::failure::{Done, Failure};

/// Make a private key, and print its thumbprint (jkt)
///
/// The file is created with mode 600: only its owner can read it.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Keygen {
    /// The algorithm: ES256, ES384, ES512, Ed25519, EdDSA, PS256, RS256, ...
    #[arg(long, value_name = "ALG", default_value = "ES256")]
    alg: Algorithm,

    /// Where to write the key; `-` is standard output [default: key.pem or key.jwk]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// How to write the key
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,

    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// PKCS#8 in PEM
    Pem,
    /// A JWK, which names its algorithm
    Jwk,
}

const AFTER_HELP: &str = "\
EXAMPLES
  dpop keygen
  dpop keygen --alg Ed25519 --format jwk --out client.jwk

The thumbprint is printed on standard output, or on standard error if the key is. Tokens are bound to
it: it is the `jkt` in the `cnf` of an access token.
";

impl Keygen {
    pub(crate) fn run(self) -> Done {
        let key = SigningKey::generate_for(self.alg).map_err(Failure::work)?;
        let text = match self.format {
            Format::Pem => key.to_pkcs8_pem(),
            Format::Jwk => key.to_jwk(),
        };
        let text = text.map_err(Failure::work)?;
        let path = self.out.clone().unwrap_or_else(|| match self.format {
            Format::Pem => "key.pem".into(),
            Format::Jwk => "key.jwk".into(),
        });
        let mut stdout = io::stdout().lock();
        if path.as_os_str() == "-" {
            writeln!(stdout, "{}", text.as_str().trim_end())
                .map_err(|error| Failure::output(&error))?;
            eprintln!("{}", key.thumbprint());
        } else {
            self.write(&path, text.as_str())?;
            writeln!(stdout, "{}", key.thumbprint()).map_err(|error| Failure::output(&error))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let failure = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::work(format_args!(
                "{}: exists already; --force replaces it",
                path.display()
            )),
            _ => Failure::work(format_args!("{}: {error}", path.display())),
        };
        if self.force {
            replace(path, text).map_err(failure)
        } else {
            create(path, text).map_err(failure)
        }
    }
}

/// Creates a file that only its owner can read, and fails if there is one.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // Created so: between a creation and a later `chmod`, others could open the file.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    let written = file
        .write_all(text.trim_end().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is of no use, and would be in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    written
}

/// Puts a new file in the place of an old one, which may have been readable by others.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    create(&new, text)?;
    fs::rename(&new, path).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}
