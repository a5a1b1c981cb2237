//! The order of the house: the modules in `lib.rs` stand in the order in which a request meets
//! them, and each uses only those above it.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules that a file declares, in its order, and the file of each; tests apart.
fn modules(file: &Path) -> Vec<(String, PathBuf)> {
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "mod") => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .filter(|line| *line != "mod tests;")
        .filter_map(|line| {
            let line = line
                .strip_prefix("pub(crate) ")
                .or(line.strip_prefix("pub "))
                .unwrap_or(line);
            let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
            let file = folder.join(format!("{name}.rs"));
            Some((
                name.to_owned(),
                if file.exists() {
                    file
                } else {
                    folder.join(name).join("mod.rs")
                },
            ))
        })
        .collect()
}

fn files_below(file: &Path) -> Vec<PathBuf> {
    let mut files = vec![file.to_owned()];
    for (_, module) in modules(file) {
        files.extend(files_below(&module));
    }
    files
}

/// The first names behind `crate::` in the code, without comments and the tests at a file's foot.
fn uses(file: &Path, prefix: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| {
            line.match_indices(prefix)
                .map(|(at, _)| &line[at + prefix.len()..])
                .collect::<Vec<_>>()
        })
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

/// Every use of a module of `parent` inside another points up the list.
fn assert_order(parent: &Path, prefix: &str) -> usize {
    let list = modules(parent);
    let place = |name: &str| list.iter().position(|(module, _)| module == name);
    let mut seen = 0;
    for (here, (name, file)) in list.iter().enumerate() {
        for file in files_below(file) {
            for used in uses(&file, prefix) {
                let there = place(&used).unwrap_or_else(|| {
                    panic!(
                        "{}: `{prefix}{used}` is imported from where it is not defined",
                        file.display()
                    )
                });
                assert!(
                    there <= here,
                    "{}: {name} uses {used}, which stands below it",
                    file.display()
                );
                seen += 1;
            }
        }
    }
    seen
}

#[test]
fn no_import_runs_back() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(
        assert_order(&src.join("lib.rs"), "crate::") > 50,
        "the imports were found"
    );
    assert!(assert_order(&src.join("jose/mod.rs"), "crate::jose::") > 5);
    assert!(assert_order(&src.join("jose/p256_table/mod.rs"), "super::") > 5);
    assert!(
        assert_order(
            &src.join("token_endpoint/mod.rs"),
            "crate::token_endpoint::"
        ) > 3
    );
    assert!(assert_order(&src.join("client/mod.rs"), "crate::client::") > 5);
    assert!(assert_order(&src.join("jwks/mod.rs"), "crate::jwks::") > 5);
    assert!(assert_order(&src.join("testing/mod.rs"), "crate::testing::") > 5);
}

#[test]
fn few_files_name_the_cryptography_and_one_of_each_party_the_clock() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let naming = |words: &[&str]| -> Vec<String> {
        files_below(&src.join("lib.rs"))
            .iter()
            .filter(|file| {
                let text = fs::read_to_string(file).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                code.lines()
                    .filter(|line| !line.trim_start().starts_with("//"))
                    .any(|line| words.iter().any(|word| line.contains(word)))
            })
            .map(|file| {
                file.strip_prefix(&src)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/")
            })
            .collect()
    };
    let engines = [
        "aws_lc_rs::",
        "p256::",
        "p384::",
        "p521::",
        "ed25519_dalek::",
        "rsa::",
    ];
    assert_eq!(naming(&engines), ["jose/engine.rs", "jose/signing.rs"]);
    assert_eq!(
        naming(&["fiat_crypto::", "ruint::"]),
        ["jose/p256_table/field.rs", "jose/p256_table/scalar.rs"]
    );
    assert_eq!(
        naming(&["pkcs1::", "pkcs8::"]),
        ["jose/signing.rs", "jose/private_key.rs"]
    );
    // The contract of stores is a test, and asks for the time as a test does.
    assert_eq!(
        naming(&["SystemTime::now", "Instant::now"]),
        [
            "jwks/remote_keys.rs",
            "replay/contract.rs",
            "verifier.rs",
            "token_endpoint/endpoint.rs",
            "client/exchange.rs"
        ]
    );
}

#[test]
fn the_way_of_a_request_fits_on_a_screen() {
    let tables_of_contents = [
        ("pub async fn verify(", include_str!("../src/verifier.rs")),
        (
            "pub fn check(",
            include_str!("../src/token_endpoint/endpoint.rs"),
        ),
    ];
    for (name, file) in tables_of_contents {
        let body = file
            .split(name)
            .nth(1)
            .unwrap()
            .split("\n    }\n")
            .next()
            .unwrap();
        let lines = body.lines().count();
        assert!((8..=24).contains(&lines), "{name}…) has {lines} lines");
    }
}
