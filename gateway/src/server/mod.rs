//! How does the process start, reload, and end?

mod arguments;
mod http_app;
mod listeners;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::Parser as _;

use crate::config::Document;
use crate::generation::{Current, Generation};
use crate::server::arguments::Arguments;

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let document = match Document::read(&arguments.config) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("dpop-gateway: {error}");
            return ExitCode::from(2);
        }
    };
    // pingora would choose another one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
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

async fn serve(document: Document) -> Result<(), String> {
    let generation = Generation::build(document)
        .await
        .map_err(|error| error.to_string())?;
    let current: Current = Arc::new(ArcSwap::from_pointee(generation));
    let listeners = listeners::start(&current).map_err(|error| error.to_string())?;
    signals::told_to_stop()
        .await
        .map_err(|error| error.to_string())?;
    listeners.drain().await;
    Ok(())
}
