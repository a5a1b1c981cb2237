//! Reads the configuration again, while requests go on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Document;
use crate::generation::{Current, Generation};

/// Replaces the generation; on an error, it stays. Returns the changed settings that a running process cannot apply.
pub(crate) async fn reload(current: &Current, path: &Path) -> Result<Vec<String>, String> {
    let (previous, path) = (current.load_full(), path.to_owned());
    let runtime = Handle::current();
    // Files are read, and names are looked up: requests do not wait for this.
    let built = tokio::task::spawn_blocking(move || {
        let checked = Document::read(&path).map_err(|problems| problems.in_one_line())?;
        let mut document = checked.logged();
        let unchangeable = keep(&previous.document, &mut document);
        let generation = runtime.block_on(Generation::build(document, Some(&previous)));
        Ok((generation.map_err(|error| error.to_string())?, unchangeable))
    });
    let panicked = |_| "a panic while it was read: see the log above".to_owned();
    let (generation, unchangeable) = built.await.map_err(panicked).flatten()?;
    current.store(Arc::new(generation));
    Ok(unchangeable)
}

/// Puts back the settings that a running process keeps, and returns those that were changed. So the number of a listener never
/// changes.
fn keep(old: &Document, new: &mut Document) -> Vec<String> {
    let mut changed = Vec::new();
    new.listener = kept(
        &old.listener,
        &new.listener,
        "listener",
        &mut changed,
        |it| (it.address, it.tls.is_some()),
    );
    new.forward_auth = kept(
        &old.forward_auth,
        &new.forward_auth,
        "forward_auth",
        &mut changed,
        |it| (it.address, it.tls.is_some()),
    );
    if new.operations.address != old.operations.address {
        new.operations.address = old.operations.address;
        changed.push("operations.address".to_owned());
    }
    if new.log.format != old.log.format {
        new.log.format = old.log.format;
        changed.push("log.format".to_owned());
    }
    if new.process.threads != old.process.threads {
        new.process.threads = old.process.threads;
        changed.push("process.threads".to_owned());
    }
    changed
}

/// The old ones in their order, each with its new settings if its address and its use of TLS are still configured.
fn kept<T: Clone>(
    old: &[T],
    new: &[T],
    name: &str,
    changed: &mut Vec<String>,
    socket: impl Fn(&T) -> (SocketAddr, bool),
) -> Vec<T> {
    let mut new: Vec<&T> = new.iter().collect();
    let mut kept = Vec::new();
    let mut other = Vec::new();
    for old in old {
        if let Some(number) = new.iter().position(|new| socket(new) == socket(old)) {
            kept.push(new.remove(number).clone());
        } else {
            other.push(socket(old).0);
            kept.push(old.clone());
        }
    }
    other.extend(new.iter().map(|new| socket(new).0));
    other.sort_unstable();
    other.dedup();
    changed.extend(other.iter().map(|address| format!("{name} {address}")));
    kept
}
