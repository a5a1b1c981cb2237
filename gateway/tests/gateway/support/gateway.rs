//! The program.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use tower_dpop::testing::TestRequest;

use super::Parties;
use super::parties::PUBLIC_URL;

/// A configuration, and the folder of its files.
pub struct Gateway {
    pub folder: TempDir,
    config: String,
    environment: Vec<(&'static str, String)>,
}

/// The process. It is killed when it is dropped.
pub struct Started {
    pub process: Child,
    /// What its line says: names of what listens, and their URLs.
    listening: Vec<(String, String)>,
    pub folder: TempDir,
}

impl Gateway {
    /// With the issuer of these parties, and this configuration besides.
    pub fn new(parties: &Parties, config: &str) -> Self {
        Self::with_dpop(parties, "", config)
    }

    /// The same, with these settings in `[dpop]` besides.
    pub fn with_dpop(parties: &Parties, dpop: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jwks = folder.path().join("jwks.json");
        std::fs::write(&jwks, parties.issuer.jwks()).unwrap();
        let config = format!(
            "[dpop]\npublic_url = \"{PUBLIC_URL}\"\n{dpop}\n[[dpop.issuer]]\nurl = \"https://as.example.com\"\njwks_file = \"{}\"\n{config}",
            jwks.display()
        );
        Self {
            folder,
            config,
            environment: Vec::new(),
        }
    }

    /// A whole document.
    pub fn of_document(config: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            config: config.to_owned(),
            environment: Vec::new(),
        }
    }

    pub fn with_environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Writes the configuration. The command has no arguments besides it, and no `RUST_LOG`.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpop-gateway"));
        command
            .arg("--config")
            .arg(self.write())
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs the program to its end: with `--check`, or with a configuration that it rejects.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Replaces a part of the configuration.
    #[track_caller]
    pub fn edited(mut self, old: &str, new: &str) -> Self {
        assert!(
            self.config.contains(old),
            "{old:?} is not in\n{}",
            self.config
        );
        self.config = self.config.replace(old, new);
        self
    }

    /// Writes the file, and returns its path.
    pub fn write(&self) -> PathBuf {
        let path = self.folder.path().join("gateway.toml");
        std::fs::write(&path, &self.config).unwrap();
        path
    }

    pub fn start(self) -> Started {
        let mut process = self
            .command()
            .stdout(Stdio::piped())
            .stderr(File::create(self.folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        // `listening: proxy=http://127.0.0.1:1234 operations=http://127.0.0.1:1235`
        let listening = line
            .trim()
            .strip_prefix("listening: ")
            .unwrap_or_else(|| {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                panic!("the gateway did not start: {line:?} {}", log.unwrap())
            })
            .split(' ')
            .map(|one| one.split_once('=').unwrap())
            .map(|(name, url)| (name.to_owned(), url.to_owned()))
            .collect();
        Started {
            process,
            listening,
            folder: self.folder,
        }
    }
}

impl Started {
    /// The URL of the first that has this name: `proxy`, `forward_auth`, `operations`.
    pub fn url(&self, name: &str) -> &str {
        let mut named = self.listening.iter().filter(|(known, _)| known == name);
        &named.next().unwrap().1
    }

    /// The URLs of all that have this name, in the order of the configuration.
    pub fn urls(&self, name: &str) -> Vec<&str> {
        let named = self.listening.iter().filter(|(known, _)| known == name);
        named.map(|(_, url)| url.as_str()).collect()
    }

    /// What the process has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Sends a request to the reverse proxy.
    pub async fn send(&self, request: &TestRequest) -> reqwest::Response {
        let (head, ()) = request.build::<()>().into_parts();
        reqwest::Client::new()
            .request(
                head.method,
                format!(
                    "{}{}",
                    self.url("proxy"),
                    head.uri.path_and_query().unwrap()
                ),
            )
            .headers(head.headers)
            .send()
            .await
            .unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the gateway:\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
