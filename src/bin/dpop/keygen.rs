//! `dpop keygen`: makes a private key.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tower_dpop::Algorithm;
use tower_dpop::jose::SigningKey;
use zeroize::Zeroizing;

use crate::failure::{Done, Failure};
use crate::private_file::{create, replace};

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
        let text = Zeroizing::new(format!("{}\n", text.trim_end()));
        if self.force {
            replace(path, &text).map_err(failure)
        } else {
            create(path, &text).map_err(failure)
        }
    }
}
