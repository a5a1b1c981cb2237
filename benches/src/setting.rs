//! Where and with what the figures were taken: read from the machine and from the lock file, never
//! typed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

/// The crates whose versions are printed.
const CRATES: [&str; 9] = [
    "tower-dpop",
    "aws-lc-rs",
    "p256",
    "ring",
    "ed25519-dalek",
    "serde_json",
    "jsonwebtoken",
    "dpop-verifier",
    "turbomcp-dpop",
];

/// Where and with what.
pub struct Setting {
    /// The model of the processor.
    pub processor: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// The operating system's kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// Names and versions of the crates that were measured.
    pub crates: Vec<(String, String)>,
}

impl Setting {
    /// This machine, and what `cargo metadata` has said into this file.
    pub fn read(metadata: &Path) -> Self {
        let metadata = fs::read_to_string(metadata).expect("the metadata are there");
        let metadata = serde_json::from_str(&metadata).expect("cargo writes JSON");
        let processor = fs::read_to_string("/proc/cpuinfo").expect("this is Linux");
        let processor = processor
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("this is Linux");
        let rustc = Command::new("rustc")
            .arg("--version")
            .output()
            .expect("the compiler is there");
        Self {
            processor: processor.to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("Linux {}", kernel.trim()),
            rustc: String::from_utf8_lossy(&rustc.stdout).trim().to_owned(),
            crates: crates(&metadata),
        }
    }
}

/// The versions of [`CRATES`], and of the cryptography that they use themselves.
fn crates(metadata: &Value) -> Vec<(String, String)> {
    let root = metadata["resolve"]["root"]
        .as_str()
        .expect("one package is built");
    let direct = dependencies(metadata, root);
    CRATES
        .iter()
        .map(|name| {
            let (_, id) = direct
                .iter()
                .find(|(direct, _)| direct == name)
                .expect("each is a dependency");
            let own = match *name {
                "dpop-verifier" => Some("p256"),
                "turbomcp-dpop" => Some("jsonwebtoken"),
                _ => None,
            };
            let mut version = package(metadata, id)["version"]
                .as_str()
                .unwrap_or("")
                .to_owned();
            if let Some(own) = own {
                let used = dependencies(metadata, id);
                let (_, used) = used
                    .iter()
                    .find(|(used, _)| used == own)
                    .expect("it verifies by it");
                let used = package(metadata, used)["version"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned();
                version = format!("{version} (by {own} {used})");
            }
            ((*name).to_owned(), version)
        })
        .collect()
}

/// The names and identifiers of a package's own dependencies.
fn dependencies(metadata: &Value, id: &str) -> Vec<(String, String)> {
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a list");
    let node = nodes
        .iter()
        .find(|node| node["id"] == id)
        .expect("a node for each package");
    let ids = node["dependencies"].as_array().expect("a list");
    ids.iter()
        .filter_map(Value::as_str)
        .map(|id| {
            let name = package(metadata, id)["name"].as_str().unwrap_or("");
            (name.to_owned(), id.to_owned())
        })
        .collect()
}

fn package<'m>(metadata: &'m Value, id: &str) -> &'m Value {
    let packages = metadata["packages"].as_array().expect("a list");
    packages
        .iter()
        .find(|package| package["id"] == id)
        .expect("each identifier is of a package")
}
