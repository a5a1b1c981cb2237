//! The program as an operator meets it: its files, signals, log, and end.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tower_dpop::testing::TestRequest;

use super::Gateway;

/// The host of the public URL.
const NAME: &str = "api.example.com";
/// How long the program may take to do what a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// Tries until there is a value. `what` is awaited.
#[track_caller]
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running gateway, and the processes that take over from it.
pub struct Program {
    child: Child,
    folder: TempDir,
    log: Lines,
    output: Lines,
}

/// What was written so far.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let written = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut text = written.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        lines
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Program {
    /// Starts it, and waits until it listens.
    #[track_caller]
    pub fn start(gateway: Gateway) -> Self {
        Self::start_with(gateway, &[])
    }

    /// The same, with these variables.
    #[track_caller]
    pub fn start_with(gateway: Gateway, variables: &[(&str, &Path)]) -> Self {
        let mut program = Self::spawn(gateway, variables);
        program.await_start();
        program
    }

    /// Starts it with a configuration that it rejects. Returns its exit status, and what it says.
    #[track_caller]
    pub fn fails(gateway: Gateway) -> (Option<i32>, String) {
        let mut program = Self::spawn(gateway, &[]);
        let status = program.ended();
        let said = eventually("it says why", || {
            Some(program.log()).filter(|log| log.ends_with('\n'))
        });
        (status.code(), said)
    }

    fn spawn(gateway: Gateway, variables: &[(&str, &Path)]) -> Self {
        let path = gateway.write();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dpop-gateway"))
            .arg("--config")
            .arg(&path)
            .envs(variables.iter().copied())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            log: Lines::of(child.stderr.take().unwrap()),
            output: Lines::of(child.stdout.take().unwrap()),
            child,
            folder: gateway.folder,
        }
    }

    fn await_start(&mut self) {
        eventually("the gateway listens", || {
            let failed = self.child.try_wait().unwrap().is_some();
            assert!(!failed, "the gateway did not start:\n{}", self.log());
            self.output.text().ends_with('\n').then_some(())
        });
    }

    /// Waits for the start-up lines of so many processes.
    #[track_caller]
    pub fn await_processes(&self, number: usize) {
        eventually("another start-up line", || {
            (self.output.text().lines().count() >= number).then_some(())
        });
    }

    /// The start-up lines of all processes.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// The URL of what has this name in the first start-up line.
    pub fn url(&self, name: &str) -> String {
        let output = self.output();
        let mut words = output.lines().next().unwrap().split(' ');
        let named = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        named.unwrap().to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a part of the configuration.
    #[track_caller]
    pub fn edit(&self, old: &str, new: &str) {
        let path = self.file("gateway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{old:?} is not in\n{text}");
        std::fs::write(path, text.replace(old, new)).unwrap();
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log has this text that many times.
    #[track_caller]
    pub fn await_log(&self, text: &str, times: usize) {
        eventually(&format!("{text:?} in the log"), || {
            (self.log().matches(text).count() >= times).then_some(())
        });
    }

    pub fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }

    /// Sends SIGHUP, and waits until the configuration is read.
    #[track_caller]
    pub fn reload(&self) {
        let before = self.log().matches("reload: done").count();
        self.signal("HUP");
        self.await_log("reload: done", before + 1);
    }

    /// Waits until the first process has ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The processes that have taken over.
    pub fn successors(&self) -> Vec<u32> {
        let log = self.log();
        let ids = log.lines().filter_map(|line| line.split_once("process="));
        ids.map(|(_, id)| id.trim().parse().unwrap()).collect()
    }

    /// A client that reaches the reverse proxy under the name in the public URL, as HTTP/2 sends it.
    pub fn client(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let url = self.url("proxy");
        let (_, address) = url.split_once("://").unwrap();
        builder.resolve(NAME, address.parse().unwrap())
    }

    /// Sends a request to the reverse proxy, and waits for the head of the response. The client is a [`client`](Self::client).
    pub async fn begin(
        &self,
        client: &reqwest::Client,
        request: &TestRequest,
    ) -> reqwest::Result<reqwest::Response> {
        let (head, ()) = request.build::<()>().into_parts();
        let url = self.url("proxy");
        let (scheme, _) = url.split_once("://").unwrap();
        let url = format!("{scheme}://{NAME}{}", head.uri.path_and_query().unwrap());
        let request = client.request(head.method, url).headers(head.headers);
        request.send().await
    }

    /// The same, and reads the response.
    pub async fn send(
        &self,
        client: &reqwest::Client,
        request: &TestRequest,
    ) -> reqwest::Result<u16> {
        let response = self.begin(client, request).await?;
        let status = response.status().as_u16();
        response.bytes().await?;
        Ok(status)
    }
}

pub fn signal_to(process: u32, signal: &str) {
    let sent = Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the gateway:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for id in self.successors() {
            let mut kill = Command::new("kill");
            let _ = kill
                .args(["-s", "KILL", &id.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// A certificate of the gateway, and its key.
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

impl Certificate {
    pub fn new() -> Self {
        let generated =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), NAME.to_owned()]).unwrap();
        Self {
            pem: generated.cert.pem(),
            key: generated.signing_key.serialize_pem(),
        }
    }

    /// Writes `server.pem` and `server.key`.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("server.pem"), &self.pem).unwrap();
        std::fs::write(folder.join("server.key"), &self.key).unwrap();
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }

    pub fn trusted_by(&self, client: reqwest::ClientBuilder) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.pem.as_bytes()).unwrap();
        client.tls_certs_only([root]).build().unwrap()
    }
}
