//! The signals to the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals {
    pub(crate) stop: Stop,
    /// SIGHUP: read the configuration again.
    pub(crate) reload: Signal,
    /// SIGUSR2: let a new process take over.
    pub(crate) upgrade: Signal,
}

pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on, no signal ends the process by itself.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            stop: Stop {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            },
            reload: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

impl Stop {
    /// Completes on SIGINT or SIGTERM.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
