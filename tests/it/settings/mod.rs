//! `Settings` from documents and from variables.

mod build;
mod document;
mod secrets;
mod table;
mod variables;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, process};

use serde_json::{Value, json};
use tower_dpop::settings::{Settings, SettingsError};

use common::{AUDIENCE, ISSUER};

/// A secret of nonces, in hexadecimal digits.
const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A document that is accepted in every build.
fn good() -> Value {
    json!({ "public_url": AUDIENCE, "issuer": { "url": ISSUER, "jwks_file": "/keys.json" } })
}

/// A document that is accepted, with this setting. The path has at most two parts.
fn with(path: &str, value: Value) -> Value {
    let mut document = good();
    *at(&mut document, path) = value;
    document
}

fn at<'d>(document: &'d mut Value, path: &str) -> &'d mut Value {
    let mut place = document;
    for step in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[step];
    }
    place
}

fn read(document: &Value) -> Result<Settings, String> {
    serde_json::from_value(document.clone()).map_err(|error| error.to_string())
}

fn vars(vars: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::from_vars(vars.iter().copied())
}

/// Writes a file, and returns its path. Other tests may read the file at the same time.
fn file(name: &str, content: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("settings-{name}"));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let new = PathBuf::from(format!("{}.{}-{number}", path.display(), process::id()));
    fs::write(&new, content).unwrap();
    fs::rename(new, &path).unwrap();
    path.to_str().unwrap().to_owned()
}
