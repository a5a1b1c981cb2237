//! The structure of `src`: the order of the modules in `lib.rs` and in each `mod.rs`, forbidden uses between modules, one
//! public path per name, and the size of files and functions. The order of the rooms of `gateway/src`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module that a file declares.
struct Module {
    name: String,
    is_public: bool,
    file: PathBuf,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
}

/// The file that lists the rooms of `dpop-gateway`.
fn gateway() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src/main.rs")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The path relative to `src`, with slashes. That of another house is whole.
fn name(file: &Path) -> String {
    let path = file.strip_prefix(src()).unwrap_or(file).to_str().unwrap();
    path.replace('\\', "/")
}

/// The code of a file, without comments and without the tests at its end.
fn code(file: &Path) -> String {
    let text = read(file);
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n")
}

/// The modules that a file declares, in their order, without `mod tests`.
fn modules(file: &Path) -> Vec<Module> {
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "main" | "mod") => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let declared = read(file);
    let declared = declared.lines().filter(|line| *line != "mod tests;");
    declared
        .filter_map(|line| {
            let is_public = line.starts_with("pub mod ");
            let line = line
                .strip_prefix("pub(crate) ")
                .or(line.strip_prefix("pub "))
                .unwrap_or(line);
            let name = line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned();
            let file = folder.join(format!("{name}.rs"));
            let file = if file.exists() {
                file
            } else {
                folder.join(&name).join("mod.rs")
            };
            Some(Module {
                name,
                is_public,
                file,
            })
        })
        .collect()
}

fn files_below(file: &Path) -> Vec<PathBuf> {
    let mut files = vec![file.to_owned()];
    for module in modules(file) {
        files.extend(files_below(&module.file));
    }
    files
}

/// Every file that lists modules (`lib.rs` and each `mod.rs`), with the path prefix of these modules.
fn module_lists() -> Vec<(PathBuf, String)> {
    let mut lists = vec![(src().join("lib.rs"), "crate::".to_owned())];
    let mut next = 0;
    while let Some((list, prefix)) = lists.get(next).cloned() {
        next += 1;
        for module in modules(&list) {
            if module.file.ends_with("mod.rs") {
                lists.push((module.file, format!("{prefix}{}::", module.name)));
            }
        }
    }
    lists
}

/// The first name after each occurrence of a prefix in the code of a file. From a group (`{…}`), the first
/// name of each path.
fn names_after(prefix: &str, file: &Path) -> Vec<String> {
    let code = code(file);
    let places = code.match_indices(prefix);
    let after = places.map(|(at, _)| &code[at + prefix.len()..]);
    let paths = after.flat_map(|rest| match rest.strip_prefix('{') {
        Some(group) => group.split('}').next().unwrap().split(',').collect(),
        None => vec![rest],
    });
    let is_name_char = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    paths
        .map(|path| path.trim_start().chars().take_while(is_name_char).collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn a_file_uses_only_what_is_listed_above_it() {
    let lists = module_lists();
    assert!(lists.len() >= 10, "too few module lists were found");
    let mut seen = 0;
    for (list, prefix) in &lists {
        let modules = modules(list);
        let place = |name: &str| modules.iter().position(|module| module.name == name);
        for (here, module) in modules.iter().enumerate() {
            for file in files_below(&module.file) {
                // Files of `p256_table` import each other with `super::`.
                let short = if prefix.contains("p256_table") {
                    "super::"
                } else {
                    prefix
                };
                for used in names_after(prefix, &file)
                    .into_iter()
                    .chain(names_after(short, &file))
                {
                    let there = place(&used).unwrap_or_else(|| {
                        panic!(
                            "{}: `{prefix}{used}` is used, but it is defined elsewhere",
                            name(&file)
                        )
                    });
                    assert!(
                        there <= here,
                        "{}: uses {used}, which is listed after {}",
                        name(&file),
                        module.name
                    );
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 300, "too few imports were found: {seen}");
}

/// Files of one room may use each other.
#[test]
fn a_room_of_the_gateway_uses_only_what_is_listed_above_it() {
    let rooms = modules(&gateway());
    let mut seen = 0;
    for (here, room) in rooms.iter().enumerate() {
        for file in files_below(&room.file) {
            for used in names_after("crate::", &file) {
                let there = rooms.iter().position(|room| room.name == used);
                assert!(
                    there.is_some_and(|there| there <= here),
                    "{}: uses {used}, which is not listed above {}",
                    name(&file),
                    room.name
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "too few imports were found: {seen}");
}

#[test]
fn only_the_resource_module_uses_both_proofs_and_tokens() {
    let forbidden = [
        ("proof", &["issuer", "tokens", "resource"][..]),
        ("tokens", &["proof", "resource"]),
        ("token_endpoint", &["issuer", "tokens", "resource"]),
        ("client", &["tokens", "resource"]),
    ];
    for (room, forbidden) in forbidden {
        let files = files_below(&src().join(room).join("mod.rs"));
        assert!(files.len() > 3, "{room}");
        for file in files {
            for used in names_after("crate::", &file) {
                assert!(
                    !forbidden.contains(&used.as_str()),
                    "{}: uses {used}",
                    name(&file)
                );
            }
        }
    }
}

/// The names that a file re-exports.
fn re_exports(file: &Path) -> Vec<String> {
    let code = code(file);
    let statements = code
        .split("\npub use ")
        .skip(1)
        .map(|rest| rest.split(';').next().unwrap());
    let leaves = statements.flat_map(|statement| statement.split(['{', '}', ',']));
    leaves
        .map(str::trim)
        .filter(|leaf| !leaf.is_empty() && !leaf.ends_with("::"))
        .map(|leaf| {
            let name = leaf.rsplit([':', ' ']).next().unwrap().to_owned();
            assert_ne!(name, "*", "{}: a glob re-export", file.display());
            name
        })
        .collect()
}

/// The public modules are those of `lib.rs`, and modules that are re-exported.
#[test]
fn each_public_name_has_one_path() {
    let (lib, rooms) = (src().join("lib.rs"), modules(&src().join("lib.rs")));
    // `guide` has no names: its modules are pages.
    let public: Vec<&Module> = rooms
        .iter()
        .filter(|room| room.is_public && !["fuzzing", "guide"].contains(&room.name.as_str()))
        .collect();
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in re_exports(&lib) {
        paths.entry(name).or_default().push("crate".to_owned());
    }
    let mut re_exported_modules = 0;
    for room in &public {
        let inner: Vec<String> = modules(&room.file)
            .into_iter()
            .filter(|inner| inner.is_public)
            .map(|inner| inner.name)
            .collect();
        assert_eq!(
            inner, [""; 0],
            "{}: the files of a module must be private",
            room.name
        );
        for name in re_exports(&room.file) {
            re_exported_modules += usize::from(
                name.chars().all(|c| c.is_lowercase() || c == '_') && name.ends_with("_contract"),
            );
            paths.entry(name).or_default().push(room.name.clone());
        }
    }
    assert!(
        paths.len() > 100,
        "too few names were found: {}",
        paths.len()
    );
    for (name, paths) in &paths {
        assert_eq!(paths.len(), 1, "{name} is in {paths:?}");
    }
    let count = public.len() + re_exported_modules;
    assert!(count <= 11, "{count} public modules");
}

/// The files whose code contains one of these words.
fn files_with(words: &[&str]) -> Vec<String> {
    let files = files_below(&src().join("lib.rs"));
    let found = files.iter().filter(|file| {
        let code = code(file);
        words.iter().any(|word| code.contains(word))
    });
    found.map(|file| name(file)).collect()
}

#[test]
fn only_listed_files_use_cryptography_crates_or_read_a_clock() {
    let engines = [
        "aws_lc_rs::",
        "p256::",
        "p384::",
        "p521::",
        "ed25519_dalek::",
        "rsa::",
    ];
    assert_eq!(
        files_with(&engines),
        [
            "jose/engine.rs",
            "jose/rsa_signing.rs",
            "jose/private_key.rs"
        ]
    );
    assert_eq!(
        files_with(&["fiat_crypto::", "ruint::"]),
        [
            "jose/p256_table/limbs.rs",
            "jose/p256_table/field.rs",
            "jose/p256_table/scalar.rs"
        ]
    );
    assert_eq!(
        files_with(&["pkcs1::", "pkcs8::"]),
        [
            "jose/rsa_signing.rs",
            "jose/private_key.rs",
            "jose/sec1.rs",
            "jose/key_documents.rs"
        ]
    );
    // The contract of replay stores is a test, so it reads the clock itself.
    assert_eq!(
        files_with(&["SystemTime::now", "Instant::now"]),
        ["time.rs", "proof/replay/contract.rs"]
    );
    let mut reading = files_with(&["clock.now()", "clock.read()"]);
    reading.retain(|file| !file.starts_with("testing/"));
    assert_eq!(
        reading,
        [
            "proof/replay/redis/supervisor.rs",
            "proof/rules.rs",
            "tokens/jwks/remote_keys.rs",
            "client/exchange.rs",
            "client/reqwest/grants.rs",
            "client/reqwest/session.rs",
            "client/reqwest/builder.rs",
            "client/reqwest/login.rs"
        ]
    );
}

/// A request's credentials are parsed once, whichever schemes are allowed.
#[test]
fn only_listed_files_read_the_authorization_field() {
    assert_eq!(
        files_with(&["get_all(AUTHORIZATION)", "get(AUTHORIZATION)"]),
        [
            "credentials.rs",
            "client/exchange.rs",
            // The field that the layer has set.
            "client/reqwest/transport.rs"
        ]
    );
    assert_eq!(
        files_with(&["Presented::from_headers"]),
        ["resource/verifier.rs"]
    );
}

/// The functions in text formatted by rustfmt: name and number of lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().take(5).collect();
        let is_code = !line.trim_start().starts_with("//");
        let Some(at) = words
            .iter()
            .position(|word| *word == "fn")
            .filter(|_| is_code)
        else {
            continue;
        };
        // A function of a trait may have no body.
        let opening = lines[start..]
            .iter()
            .find(|line| line.ends_with(['{', '}', ';']));
        if opening.is_some_and(|line| line.ends_with(';')) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == end);
        if let (Some(length), Some(name)) = (length, words.get(at + 1)) {
            functions.push(((*name).to_owned(), length + 1));
        }
    }
    functions
}

#[test]
fn files_and_functions_are_short_or_give_a_reason() {
    let mut seen = 0;
    // The tool `dpop` is a house of its own: it sees only what is public here.
    let tool = files_below(&src().join("bin/dpop/main.rs"));
    assert!(tool.len() > 10, "too few files of the tool were found");
    let gateway = files_below(&gateway());
    let files = files_below(&src().join("lib.rs")).into_iter();
    for file in files.chain(tool).chain(gateway) {
        let text = read(&file);
        let lines = text.lines().count();
        let has_reason = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.starts_with("//! Longer than other files: "));
        assert!(lines <= 450 || has_reason, "{}: {lines} lines", name(&file));
        for (function, lines) in functions(&text) {
            let has_reason = text.contains("clippy::too_many_lines, reason = ");
            assert!(
                lines <= 60 || has_reason,
                "{}: {function} has {lines} lines",
                name(&file)
            );
            seen += 1;
        }
    }
    assert!(seen > 600, "too few functions were found: {seen}");
}

#[test]
fn the_functions_that_show_all_steps_of_a_check_are_short() {
    let overviews = [
        ("resource/verifier.rs", "async fn verify_dpop("),
        ("token_endpoint/endpoint.rs", "pub fn check("),
    ];
    for (file, start) in overviews {
        let text = read(&src().join(file));
        let body = text
            .split(start)
            .nth(1)
            .unwrap()
            .split("\n    }\n")
            .next()
            .unwrap();
        let lines = body.lines().count();
        assert!(
            (8..=24).contains(&lines),
            "{file}: {start}…) has {lines} lines"
        );
    }
}
