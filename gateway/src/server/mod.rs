//! How does the process start, reload, and end?

mod arguments;
mod connections;
mod http_app;
mod listeners;
mod reload;
mod signals;
mod stream;
mod systemd;
mod tls;
mod upgrade;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Parser as _;

use crate::config::{Checked, Document};
use crate::generation::{Current, Generation};
use crate::operations;
use crate::server::arguments::Arguments;
use crate::server::listeners::Listeners;
use crate::server::signals::Signals;
use crate::server::upgrade::{Inherited, Predecessor, Program};

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return check(&arguments.config);
    }
    let mut inherited = Inherited::default();
    let mut predecessor = None;
    if arguments.upgrade {
        match Inherited::receive() {
            Ok((sockets, process)) => (inherited, predecessor) = (sockets, Some(process)),
            Err(error) => {
                eprintln!("dpop-gateway: {error}");
                return ExitCode::from(2);
            }
        }
    }
    let failed = |code: u8, error: String| {
        let _ = writeln!(io::stderr(), "dpop-gateway: {error}");
        if let Some(predecessor) = &predecessor {
            predecessor.respond_failure(&error);
        }
        ExitCode::from(code)
    };
    let checked = match Document::read(&arguments.config) {
        Ok(checked) => checked,
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            if let Some(predecessor) = &predecessor {
                predecessor.respond_failure(&problems.in_one_line());
            }
            return ExitCode::from(2);
        }
    };
    // pingora would choose another one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Err(error) = operations::start_log(checked.document.log.format) {
        return failed(2, error);
    }
    log_panics();
    let document = checked.logged();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = document.process.threads {
        runtime.worker_threads(threads);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(1, error.to_string()),
    };
    let path = &arguments.config;
    let served = runtime.block_on(serve(path, document, inherited, predecessor.as_ref()));
    // Requests that have not ended in time are dropped.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(1, error),
    }
}

/// A panic ends one request, not the process. Its message may have parts of the request, so the log has only its place.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic: a bug in dpop-gateway, please report it");
    }));
}

/// Says what is wrong with the configuration, or what it contains.
fn check(path: &Path) -> ExitCode {
    match Document::read_and_resolve(path) {
        Ok(Checked { document, warnings }) => {
            for warning in warnings.lines() {
                eprintln!("{warning}");
            }
            println!("{}: valid: {}", path.display(), document.summary());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(2)
        }
    }
}

async fn serve(
    path: &Path,
    document: Document,
    inherited: Inherited,
    predecessor: Option<&Predecessor>,
) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let program = Program::of_this_process().map_err(|error| error.to_string())?;
    if document.operations.address.is_some() {
        operations::metrics::install().map_err(|error| error.to_string())?;
    }
    let generation = tokio::select! {
        built = Generation::build(document, None) => built.map_err(|error| error.to_string())?,
        // Building can wait for Redis and issuers.
        () = signals.stop.told() => return Err("stopped by a signal before it could serve".to_owned()),
    };
    operations::metrics::configured();
    let current: Current = Arc::new(ArcSwap::from_pointee(generation));
    let (listeners, line) = listeners::start(&current, inherited)?;
    match predecessor {
        // The previous process tells systemd about this one, and ends.
        Some(predecessor) => predecessor.respond_ready().map_err(|_| {
            "the previous process was told to stop, so this one does not take over".to_owned()
        })?,
        None => systemd::ready(),
    }
    // Standard output may be closed.
    let _ = writeln!(io::stdout(), "{line}");
    run(path, &program, &current, listeners, signals).await;
    Ok(())
}

/// Until the process is told to stop, or another one has taken over.
async fn run(
    path: &Path,
    program: &Program,
    current: &Current,
    listeners: Listeners,
    signals: Signals,
) {
    let Signals {
        mut stop,
        mut reload,
        mut upgrade,
    } = signals;
    let reloads = async {
        while reload.recv().await.is_some() {
            systemd::reloading();
            log_reload(path, reload::reload(current, path).await);
            systemd::ready();
        }
        std::future::pending::<()>().await;
    };
    let taken_over = async {
        while upgrade.recv().await.is_some() {
            tracing::info!("upgrade: starting the new process");
            match program.start_again(listeners.sockets()).await {
                Ok(id) => return id,
                Err(error) => tracing::error!(%error, "upgrade failed: this process continues"),
            }
        }
        std::future::pending().await
    };
    let signals_to_end_at_once = tokio::select! {
        () = stop.told() => {
            operations::draining();
            systemd::stopping();
            tracing::info!("stopping: no new connections");
            1
        }
        id = taken_over => {
            systemd::main_process(id);
            listeners.leave_operations();
            log_upgrade(current, id);
            // The first one may be meant for the service as a whole: then all of its processes get it.
            2
        }
        () = reloads => unreachable!("waits for signals forever"),
    };
    let limit = Duration::from_secs(current.load().document.process.drain_seconds);
    let told_again = async {
        for _ in 0..signals_to_end_at_once {
            stop.told().await;
        }
    };
    tokio::select! {
        left = listeners.drain(limit) => log_end(left, limit),
        () = told_again => tracing::warn!("stopped at once by a second signal"),
    }
}

fn log_reload(path: &Path, reloaded: Result<Vec<String>, String>) {
    let result = if reloaded.is_ok() { "loaded" } else { "failed" };
    operations::metrics::reloads(result).increment(1);
    if reloaded.is_ok() {
        operations::metrics::configured();
    }
    match reloaded {
        Ok(unchangeable) if unchangeable.is_empty() => tracing::info!("reload: done"),
        Ok(unchangeable) => tracing::warn!(
            settings = unchangeable.join(", "),
            "reload: done, except for settings that need a restart or an upgrade (SIGUSR2)"
        ),
        Err(error) => tracing::error!(
            file = %path.display(),
            %error,
            "reload failed: the previous configuration stays in use"
        ),
    }
}

fn log_end(left: usize, limit: Duration) {
    if left == 0 {
        tracing::info!("stopped: all requests have ended");
    } else {
        tracing::warn!(
            left,
            drain_seconds = limit.as_secs(),
            "stopped: closing connections that have not ended in time"
        );
    }
}

fn log_upgrade(current: &Current, id: u32) {
    tracing::info!(
        process = id,
        "upgrade: the new process serves, and this one stops"
    );
    let parts = &current.load().parts;
    if parts.redis.is_none() && parts.nonces.is_none() {
        tracing::warn!(
            "upgrade: the new process does not know which proofs this one has accepted, so each can be used once more until it \
             expires. Record them in Redis (dpop.redis), or require nonces (dpop.nonces)"
        );
    }
}
