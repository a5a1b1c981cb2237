//! How does the process start, reload, and end?

mod arguments;
mod generation;
mod http_app;
mod listeners;
mod signals;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::Parser as _;

use crate::config::{Checked, Document};
use crate::operations;
use crate::server::arguments::Arguments;
pub(crate) use crate::server::generation::{Current, Generation};

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return check(&arguments.config);
    }
    let checked = match Document::read(&arguments.config) {
        Ok(checked) => checked,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(2);
        }
    };
    // pingora would choose another one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Err(error) = operations::start_log(checked.document.log.format) {
        eprintln!("dpop-gateway: {error}");
        return ExitCode::from(2);
    }
    let document = checked.logged();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = document.process.threads {
        runtime.worker_threads(threads);
    }
    let served = runtime
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(serve(document)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dpop-gateway: {error}");
            ExitCode::FAILURE
        }
    }
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

async fn serve(document: Document) -> Result<(), String> {
    if document.operations.address.is_some() {
        operations::metrics::install().map_err(|error| error.to_string())?;
    }
    let generation = Generation::build(document)
        .await
        .map_err(|error| error.to_string())?;
    operations::metrics::configured();
    let current: Current = Arc::new(ArcSwap::from_pointee(generation));
    let listeners = listeners::start(&current).map_err(|error| error.to_string())?;
    signals::told_to_stop()
        .await
        .map_err(|error| error.to_string())?;
    operations::draining();
    listeners.drain().await;
    Ok(())
}
