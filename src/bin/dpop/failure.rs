//! Why a command could not do its work, and the exit status.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::terminal;

/// The result of a command: its exit status.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments are wrong.
    Usage(String),
    /// A file, the network or a server.
    Work(String),
    /// Standard output was closed: a pipe to `head`, for example. This is no error.
    Closed,
}

impl Failure {
    pub(crate) fn usage(what: impl Display) -> Self {
        Self::Usage(what.to_string())
    }

    pub(crate) fn work(what: impl Display) -> Self {
        Self::Work(what.to_string())
    }

    /// A failure of writing to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Work(format!("standard output: {error}"))
        }
    }

    /// Writes the reason to standard error.
    pub(crate) fn report(self) -> ExitCode {
        let (what, status) = match self {
            Self::Usage(what) => (what, 2),
            Self::Work(what) => (what, 3),
            Self::Closed => return ExitCode::SUCCESS,
        };
        // The text may quote a server.
        eprintln!("dpop: {}", terminal::lines(&what));
        ExitCode::from(status)
    }
}
