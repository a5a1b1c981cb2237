//! The Dockerfile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::Table;

use super::{package, read, values};

#[test]
fn the_dockerfile_copies_all_that_its_command_needs() {
    let dockerfile = read("deploy/Dockerfile");
    let root = package().parent().unwrap();
    let context = tempfile::tempdir().unwrap();
    let mut copied = BTreeSet::new();
    for copy in values(&dockerfile, "COPY ")
        .into_iter()
        .filter(|copy| !copy.starts_with("--from"))
    {
        let words: Vec<_> = copy.split(' ').collect();
        let (target, sources) = words.split_last().unwrap();
        for source in sources {
            copied.insert((*source).to_owned());
            let target = if sources.len() > 1 || target.ends_with('/') {
                Path::new(target).join(Path::new(source).file_name().unwrap())
            } else {
                PathBuf::from(target)
            };
            copy_all(&root.join(source), &context.path().join(target));
        }
    }
    let ignored = read("deploy/Dockerfile.dockerignore");
    let allowed: BTreeSet<_> = values(&ignored, "!")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(allowed, copied, "Dockerfile.dockerignore");

    // The command, as far as cargo goes without compiling: it reads all manifests, and the lock file fits them.
    let command = values(&dockerfile, "RUN cargo ")[0];
    let words: Vec<_> = command.split(' ').collect();
    let expected = "build --release --locked --manifest-path gateway/Cargo.toml --bin dpop-gateway";
    assert_eq!(command, expected);
    let fetched = Command::new(env!("CARGO"))
        .args(["fetch", "--offline", "--target", "x86_64-unknown-linux-gnu"])
        .args(&words[2..5])
        .current_dir(context.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "{said}");
    let built =
        "--from=build /source/gateway/target/release/dpop-gateway /usr/local/bin/dpop-gateway";
    assert!(values(&dockerfile, "COPY ").contains(&built));
    assert!(values(&dockerfile, "WORKDIR ").contains(&"/source"));
    // The documents that the sources include.
    let guide = std::fs::read_to_string(context.path().join("src/guide.rs")).unwrap();
    assert!(
        guide.contains("../docs/guide/") && context.path().join("docs/guide/README.md").exists()
    );
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    for entry in
        std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()))
    {
        let entry = entry.unwrap();
        copy_all(&entry.path(), &to.join(entry.file_name()));
    }
}

#[test]
fn the_dockerfile_has_a_compiler_that_is_new_enough() {
    let dockerfile = read("deploy/Dockerfile");
    let image = values(&dockerfile, "FROM rust:")[0];
    let of_image = version(image.split('-').next().unwrap());
    for manifest in ["Cargo.toml", "../Cargo.toml"] {
        let manifest: Table = read(manifest).parse().unwrap();
        let needed = version(manifest["package"]["rust-version"].as_str().unwrap());
        assert!(of_image >= needed, "{image}");
    }
    // Both images are of the same Debian, so that the C library is the same.
    assert!(image.contains("bookworm") && dockerfile.contains("cc-debian12"));
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap()).collect()
}
