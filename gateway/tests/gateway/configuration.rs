//! What the program says about a configuration.

mod documents;
mod meaning;
mod reading;
mod requests;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::Parties;

/// Not to be shown.
const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A configuration without problems. `FOLDER` has the files that it refers to.
const GOOD: &str = r#"
[dpop]
public_url = "https://api.example.com"
nonces = { file = "FOLDER/nonces" }
[[dpop.issuer]]
url = "https://as.example.com"
jwks_file = "FOLDER/jwks.json"
[dpop.redis]
url = "rediss://127.0.0.1:1"
password = { file = "FOLDER/nonces" }
[[listener]]
address = "127.0.0.1:8080"
trusted_proxies = ["10.0.0.0/8"]
tls = { certificate_file = "FOLDER/certificate.pem", key_file = "FOLDER/key.pem" }
[[forward_auth]]
address = "[::1]:8081"
asked_by = "envoy-http"
from = ["127.0.0.0/8", "::1/128"]
path_prefix = "/check"
[upstream.orders]
servers = ["https://localhost:3000", "https://127.0.0.1:3001"]
server_name = "orders.internal"
roots_file = "FOLDER/certificate.pem"
client_certificate = { certificate_file = "FOLDER/certificate.pem", key_file = "FOLDER/key.pem" }
connect_timeout_seconds = 1
[upstream.orders.health_check]
path = "/health?full=1"
[upstream.stock]
servers = ["http://127.0.0.1"]
[[route]]
path = "/orders"
methods = ["GET", "HEAD"]
upstream = "orders"
scopes = "orders:read"
[[route]]
path = "/orders/"
methods = ["POST"]
upstream = "orders"
strip_prefix = "/orders"
[[route]]
path = "/caf%C3%A9"
upstream = "stock"
access = "public"
[[identity]]
claim = "sub"
field = "X-Auth-Subject"
[[identity]]
claim = "jkt"
field = "X-Auth-Key"
[cors]
allow_origins = ["https://app.example.com", "http://localhost:5173"]
allow_methods = ["GET"]
allow_headers = ["X-Request-Id"]
[operations]
address = "127.0.0.1:8082"
[log]
format = "json"
[process]
threads = 2
"#;

/// The folder of a configuration, and the files that it refers to.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let certificate = rcgen::generate_simple_self_signed(["api.example.com".to_owned()]);
        let certificate = certificate.unwrap();
        folder.write("certificate.pem", &certificate.cert.pem());
        folder.write("key.pem", &certificate.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().unwrap();
        folder.write("other-key.pem", &other.serialize_pem());
        folder.write("jwks.json", &Parties::new().issuer.jwks());
        folder.write("nonces", SECRET);
        folder
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join(name), content).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs the program with this configuration, in the folder.
    fn run(&self, config: &str, arguments: &[&str]) -> Output {
        let folder = self.path().to_str().unwrap();
        self.write("gateway.toml", &config.replace("FOLDER", folder));
        Command::new(env!("CARGO_BIN_EXE_dpop-gateway"))
            .args(arguments)
            .env("DPOP_GATEWAY_CONFIG", "gateway.toml")
            .current_dir(folder)
            .output()
            .unwrap()
    }

    /// The exit status and standard error of `--check`, in which the folder is `FOLDER` again.
    #[track_caller]
    fn check(&self, config: &str) -> (i32, String) {
        let output = self.run(config, &["--check"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        let errors = errors.replace(self.path().to_str().unwrap(), "FOLDER");
        let status = output.status.code();
        (status.unwrap_or_else(|| panic!("{errors}")), errors)
    }
}

/// A good configuration in which one text is another.
#[track_caller]
fn changed(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    GOOD.replace(from, to)
}

/// A text of the good configuration, the text instead of it, and the line that the program prints, without its place: that is
/// the line on which the new text ends.
type Row<'a> = (&'a str, &'a str, &'a str);

/// Each row has this problem, there, and no other error.
#[track_caller]
fn are_rejected(rows: &[Row<'_>]) {
    let folder = Folder::new();
    let mut faults = Vec::new();
    for (from, to, problem) in rows {
        let config = changed(from, to);
        let end = config.find(to).unwrap() + to.trim_end().len();
        let line = config[..end].matches('\n').count() + 1;
        let (status, mut errors) = folder.check(&config);
        errors = errors
            .split_inclusive('\n')
            .filter(|line| !line.contains(": warning: "))
            .collect();
        let start = format!("gateway.toml:{line}:");
        let is_there = errors.strip_prefix(&start).and_then(|rest| {
            let (column, rest) = rest.split_once(": ")?;
            column.parse::<usize>().ok()?;
            Some(rest == format!("{problem}\n"))
        });
        if status != 2 || is_there != Some(true) {
            faults.push(format!(
                "{to}\n  expected line {line}: {problem}\n  {status}: {errors}"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_good_configuration_is_valid() {
    let output = Folder::new().run(GOOD, &["--check"]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!(text(output.stderr), "");
    assert_eq!(
        text(output.stdout),
        "gateway.toml: valid: 1 listener, 1 forward_auth, 3 routes, 2 upstreams\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

/// Without a panic, and with a line that names the file.
#[test]
fn a_part_of_a_configuration_is_read_or_rejected() {
    let folder = Folder::new();
    // The files of a prefix are there or not: it must not hang or crash.
    let prefixes = (0..GOOD.len()).step_by(3).map(|end| GOOD[..end].to_owned());
    let lines: Vec<&str> = GOOD.lines().collect();
    let without_one = (0..lines.len()).map(|gone| {
        let (before, after) = lines.split_at(gone);
        [before, &after[1..]].concat().join("\n")
    });
    let values = [
        "1",
        "-1",
        "true",
        "\"\"",
        "\"x\"",
        "[]",
        "[[1]]",
        "{}",
        "{ a.b = 1 }",
        "1e9",
        "07:32:00",
    ];
    let settings = lines.iter().filter(|line| line.contains(" = "));
    let with_another_value = settings.flat_map(|line| {
        let (name, _) = line.split_once(" = ").unwrap();
        values.map(|value| GOOD.replacen(line, &format!("{name} = {value}"), 1))
    });
    let mut rejected = 0;
    for config in prefixes.chain(without_one).chain(with_another_value) {
        match folder.check(&config) {
            (0, _) => {}
            (2, errors) => {
                rejected += 1;
                assert!(!errors.is_empty(), "{config}");
                let is_named = |line: &str| line.starts_with("gateway.toml:");
                assert!(errors.lines().all(is_named), "{config}\n{errors}");
            }
            (status, errors) => panic!("{config}\n{status}: {errors}"),
        }
    }
    assert!(rejected > GOOD.len() / 4, "{rejected}");
}

#[test]
fn a_start_makes_the_same_checks() {
    let folder = Folder::new();
    let config = changed("upstream = \"stock\"", "upstream = \"stocks\"");
    let output = folder.run(&config, &["--config", "gateway.toml"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    let expected = "route[2].upstream: there is no [upstream.stocks], did you mean stock?\n";
    assert!(errors.ends_with(expected), "{errors}");
    assert_eq!(errors, folder.check(&config).1);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new();
    fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    for (file, expected) in [
        (
            "missing",
            "missing: No such file or directory (os error 2)\n",
        ),
        ("binary", "binary: stream did not contain valid UTF-8\n"),
        (".", ".: Is a directory (os error 21)\n"),
    ] {
        let output = folder.run(GOOD, &["--check", "--config", file]);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
        assert_eq!(output.status.code(), Some(2));
    }
}

/// The port is in use, and the issuer is at it.
#[test]
fn a_check_listens_at_no_port_and_contacts_no_server() {
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    used.set_nonblocking(true).unwrap();
    let address = used.local_addr().unwrap();
    let config = changed("127.0.0.1:8080", &address.to_string())
        .replace("https://as.example.com", &format!("http://{address}"))
        .replace("rediss://127.0.0.1:1", &format!("redis://{address}"))
        .replace("jwks_file = \"FOLDER/jwks.json\"\n", "");
    assert_eq!(Folder::new().check(&config), (0, String::new()));
    let asked = used.accept().unwrap_err();
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}
