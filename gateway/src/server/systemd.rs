//! What systemd is told (`Type=notify-reload`). Without `NOTIFY_SOCKET`, nothing.

use sd_notify::NotifyState;

pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// [`ready`] has to follow.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot report the reload to systemd"),
    }
}

/// From now on, the service is this process. Told by the one before, whose end then does not matter.
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
