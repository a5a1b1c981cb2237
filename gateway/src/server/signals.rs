//! What the process is told.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Completes on SIGINT or SIGTERM.
pub(crate) async fn told_to_stop() -> io::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}
