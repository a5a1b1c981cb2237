//! The documents of the repository: the size of the README and of the pages of the guide, the index of the guide, and links that
//! lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_markdown(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "md")
}

/// The names of the guide's pages, without its index.
fn pages() -> BTreeSet<String> {
    let files = fs::read_dir(root().join("docs/guide")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| is_markdown(name) && name != "README.md")
        .collect()
}

#[test]
fn the_readme_has_at_most_eight_kilobytes() {
    let bytes = read("README.md").len();
    assert!(bytes <= 8192, "README.md: {bytes} bytes");
}

#[test]
fn a_page_of_the_guide_has_less_than_400_lines() {
    for page in pages() {
        let lines = read(&format!("docs/guide/{page}")).lines().count();
        assert!(lines < 400, "docs/guide/{page}: {lines} lines");
    }
}

/// Modules and files, in the order of the macro `page!` in `guide.rs`.
fn modules() -> Vec<(String, String)> {
    let guide = read("src/guide.rs");
    let calls = guide.split("\npage!(").skip(1);
    calls
        .map(|call| {
            let mut arguments = call.split(',').map(str::trim);
            let module = arguments.next().unwrap().to_owned();
            let file = arguments.next().unwrap().trim_matches('"').to_owned();
            (module, file)
        })
        .collect()
}

/// Each page is a module, and the tables of pages in `guide.rs` and in the guide's `README.md` are the same.
#[test]
fn the_index_of_the_guide_lists_each_page() {
    let modules = modules();
    let files: BTreeSet<String> = modules.iter().map(|(_, file)| file.clone()).collect();
    assert_eq!(files, pages(), "the modules of guide.rs and the files");

    let guide = read("src/guide.rs");
    let mut rows: Vec<String> = guide
        .lines()
        .filter_map(|line| Some(line.strip_prefix("//! ")?.to_owned()))
        .filter(|line| line.starts_with('|'))
        .collect();
    for (module, file) in &modules {
        let (link, target) = (format!("]({module})"), format!("]({file})"));
        let row = rows.iter_mut().find(|row| row.contains(&link));
        let row = row.unwrap_or_else(|| panic!("the table of guide.rs does not list {module}"));
        *row = row.replace(&link, &target);
    }
    assert_eq!(
        rows.len(),
        modules.len() + 2,
        "rows in the table of guide.rs"
    );
    let table = rows.join("\n");
    assert!(
        read("docs/guide/README.md").contains(&table),
        "docs/guide/README.md must have this table:\n{table}"
    );
    let readme = read("README.md");
    assert!(readme.contains("](docs/guide/README.md)"), "no link to it");
}

/// All Markdown of the repository but what is built or installed, relative to its root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            let is_ours = !name.starts_with('.') && name != "target" && name != "node_modules";
            if entry.file_type().unwrap().is_dir() && is_ours {
                folders.push(path);
            } else if is_markdown(&name) {
                found.push(path);
            }
        }
    }
    found
}

/// The lines of Markdown without blocks of code.
fn prose(text: &str) -> Vec<&str> {
    let mut fence = None;
    text.lines()
        .filter(|line| {
            let start = line.trim_start();
            let marks = start.len() - start.trim_start_matches('`').len();
            match fence {
                None if marks >= 3 => fence = Some(marks),
                None => return true,
                Some(open) if marks >= open && start.trim_matches('`').is_empty() => fence = None,
                Some(_) => {}
            }
            false
        })
        .collect()
}

/// A text without its code spans.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The lines that rustdoc hides, and other readers of Markdown show, in the blocks of Rust: number and text.
fn hidden_lines(text: &str) -> Vec<(usize, &str)> {
    let mut is_rust = false;
    let mut hidden = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            is_rust = language.split(',').next() == Some("rust");
        } else if is_rust && (line == "#" || line.starts_with("# ")) {
            hidden.push((number, line));
        }
    }
    hidden
}

#[test]
fn blocks_of_rust_have_no_hidden_lines() {
    let guide = pages().into_iter().map(|page| format!("docs/guide/{page}"));
    let mut faults = Vec::new();
    for document in guide.chain(["README.md".into(), "docs/guide/README.md".into()]) {
        let text = read(&document);
        let hidden = hidden_lines(&text).into_iter();
        faults.extend(hidden.map(|(number, line)| format!("{document}:{number}: {line}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_hidden_line_is_found() {
    let text = "# A heading\n```sh\n# a comment\n```\n```rust,no_run\n#[test]\n    # let a = 1;\n#\n```\n# Another\n";
    assert_eq!(hidden_lines(text), [(7, "# let a = 1;"), (8, "#")]);
}

/// The anchors of a document, as GitHub makes them from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).into_iter().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' '))?
    });
    headings
        .map(|heading| {
            // Of a link, only its text is shown.
            let shown =
                heading
                    .split("](")
                    .enumerate()
                    .map(|(place, part)| match part.split_once(')') {
                        Some((_, after)) if place > 0 => after,
                        _ => part,
                    });
            let anchor: String = shown
                .collect::<String>()
                .trim()
                .to_lowercase()
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                    _ => None,
                })
                .collect();
            let count = seen.entry(anchor.clone()).or_default();
            *count += 1;
            match *count {
                1 => anchor,
                count => format!("{anchor}-{}", count - 1),
            }
        })
        .collect()
}

/// The targets of a document's links, and the labels that it uses and does not define.
fn links(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut targets, mut labels, mut used) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut paragraphs = String::new();
    for line in prose(text) {
        let definition = line
            .strip_prefix('[')
            .and_then(|line| line.split_once("]: "))
            .filter(|(label, _)| !label.contains(']'));
        if let Some((label, target)) = definition {
            labels.insert(label.to_lowercase());
            targets.push(target.trim().to_owned());
        } else {
            paragraphs += line;
            paragraphs.push('\n');
        }
    }
    let paragraphs: Vec<String> = paragraphs.split("\n\n").map(without_code).collect();
    for paragraph in &paragraphs {
        for after in paragraph.split("](").skip(1) {
            targets.push(after.split(')').next().unwrap().trim().to_owned());
        }
        for after in paragraph.split("][").skip(1) {
            used.extend(after.split_once(']').map(|(label, _)| label.to_lowercase()));
        }
    }
    used.retain(|label| !labels.contains(label));
    (targets, used)
}

/// A path without `.` and `..`, or nothing if it leaves the repository.
fn within(path: &Path) -> Option<PathBuf> {
    let mut within = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => within.push(part),
            Component::CurDir => {}
            Component::ParentDir if within.pop() => {}
            _ => return None,
        }
    }
    Some(within)
}

/// What is wrong with a link of a document, if anything is. Other sites are not asked.
fn fault(document: &Path, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() {
        document.to_owned()
    } else {
        match within(&document.parent().unwrap().join(path)) {
            Some(file) => file,
            None => return Some("leaves the repository".into()),
        }
    };
    if !root().join(&file).exists() {
        return Some(format!("{} does not exist", file.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let anchors = anchors(&read(file.to_str().unwrap()));
    (!anchors.contains(anchor))
        .then(|| format!("no heading makes #{anchor}; there are {anchors:?}"))
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut seen = 0;
    let mut faults = Vec::new();
    for document in &documents {
        let (targets, undefined) = links(&read(document.to_str().unwrap()));
        seen += targets.len();
        for target in targets {
            faults.extend(
                fault(document, &target)
                    .map(|fault| format!("{}: {target}: {fault}", document.display())),
            );
        }
        for label in undefined {
            faults.push(format!("{}: [{label}] is not defined", document.display()));
        }
    }
    assert!(
        documents.len() > 25 && seen > 100,
        "too little was found: {seen}"
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The reader of links finds what is wrong: a document with one fault of each kind.
#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "# A heading, `code` and [a link](x.md)\n\
        [good](#a-heading-code-and-a-link) [file](no-such.md) [anchor](README.md#no-such)\n\
        [out](../README.md) `[not](a-link.md)` [label][one] [other][two]\n\n[one]: SECURITY.md\n\
        ```md\n[not](either.md)\n```\n";
    let (targets, undefined) = links(text);
    assert_eq!(undefined, ["two"]);
    assert_eq!(
        targets,
        [
            "SECURITY.md",
            "x.md",
            "#a-heading-code-and-a-link",
            "no-such.md",
            "README.md#no-such",
            "../README.md"
        ]
    );
    assert!(anchors(text).contains("a-heading-code-and-a-link"));
    let faulty = |target: &&str| fault(Path::new("README.md"), target).is_some();
    let faulty: Vec<&str> = targets.iter().map(String::as_str).filter(faulty).collect();
    assert_eq!(
        faulty,
        [
            "x.md",
            "#a-heading-code-and-a-link",
            "no-such.md",
            "README.md#no-such",
            "../README.md"
        ]
    );
}
