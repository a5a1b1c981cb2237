//! The program.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tower_dpop::testing::TestRequest;

use super::Parties;
use super::parties::PUBLIC_URL;

/// A configuration, and the folder of its files.
pub struct Gateway {
    pub folder: TempDir,
    config: String,
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
            "[dpop]\npublic_url = \"{PUBLIC_URL}\"\n{dpop}\n[[dpop.issuer]]\nurl = \"https://as.example.com\"\njwks_file = {jwks:?}\n{config}",
        );
        Self { folder, config }
    }

    pub fn start(self) -> Started {
        self.start_with(Stdio::inherit())
    }

    /// With its log in a file.
    pub fn start_logging(self) -> (Started, PathBuf) {
        let log = self.folder.path().join("gateway.log");
        let file = std::fs::File::create(&log).unwrap();
        (self.start_with(file.into()), log)
    }

    fn start_with(self, log: Stdio) -> Started {
        let path = self.folder.path().join("gateway.toml");
        std::fs::write(&path, &self.config).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_dpop-gateway"))
            .arg("--config")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(log)
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
            .unwrap_or_else(|| panic!("the gateway did not start: {line:?}"))
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
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
