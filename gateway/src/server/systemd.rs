//! Reports the state of the process to systemd (`sd_notify`). Without `NOTIFY_SOCKET`, nothing is reported.

use sd_notify::NotifyState;

pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// To be followed by [`ready`].
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot report the reload to systemd"),
    }
}

/// From now on, the process with this id is the main one. Reported by the previous process, whose end then does not end the
/// service.
pub(crate) fn main_process(id: u32) {
    tell(&[NotifyState::MainPid(id)]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot report the state of the process to systemd (NOTIFY_SOCKET)");
    }
}
