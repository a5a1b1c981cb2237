//! A PostgreSQL server of a test, in a temporary folder, and a proxy in front of one.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls};

/// Ended, and its folder removed, when it is dropped.
pub struct Server {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Server {
    /// A new server with a role `dpop`, which owns a database and has no other right.
    pub async fn start() -> Self {
        let mut server = Self::in_new_folder();
        let made = run_as_user("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "-D"])
            .arg(&server.folder)
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb");
        server.run().await;
        let root = server.root().await;
        for statement in ["CREATE ROLE dpop LOGIN", "CREATE DATABASE dpop OWNER dpop"] {
            root.batch_execute(statement).await.unwrap();
        }
        server
    }

    fn in_new_folder() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-dpop-postgres-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        if let Some(user) = unprivileged_user() {
            chown(&folder, Some(user), None).unwrap();
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        Self {
            folder,
            port: 0,
            process: None,
        }
    }

    /// A standby of this server, as of now. It does not run yet.
    pub fn standby(&self) -> Self {
        let standby = Self::in_new_folder();
        let copied = run_as_user("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--host=127.0.0.1", "--username=postgres", "--port"])
            .arg(self.port.to_string())
            .arg("-D")
            .arg(&standby.folder)
            .status();
        assert!(copied.unwrap().success(), "pg_basebackup");
        standby
    }

    /// Makes the standby a primary.
    pub async fn promote(&self) {
        let promote = "SELECT pg_promote()";
        let root = self.root().await;
        assert!(
            root.query_one(promote, &[])
                .await
                .unwrap()
                .get::<_, bool>(0)
        );
    }

    /// Starts the process, after [`kill`](Self::kill) at the same address.
    pub async fn run(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.port == 0 {
                self.port = free_port();
            }
            let mut process = run_as_user("postgres")
                .arg("-D")
                .arg(&self.folder)
                .args(["-p", &self.port.to_string()])
                .args(["-c", "listen_addresses=127.0.0.1"])
                .args(["-c", "unix_socket_directories="])
                // What many databases have; the store sets it for its connections.
                .args(["-c", "synchronous_commit=off"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while process.try_wait().unwrap().is_none() {
                if self.config("postgres").connect(NoTls).await.is_ok() {
                    self.process = Some(process);
                    return;
                }
                assert!(Instant::now() < deadline, "the server does not start");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Another process took the port, or the port of before is still in use.
            assert!(Instant::now() < deadline, "the server ends at once");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The same for the first time, at this port.
    pub async fn run_at(&mut self, port: u16) {
        self.port = port;
        self.run().await;
    }

    /// A crash.
    pub fn kill(&mut self) {
        self.end("-QUIT");
    }

    /// Stops or continues the processes that serve connections.
    pub async fn signal_backends(&self, signal: &str) {
        let root = self.root().await;
        let rows = root
            .query(
                "SELECT pid FROM pg_stat_activity WHERE usename = 'dpop'",
                &[],
            )
            .await
            .unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            send(signal, u32::try_from(row.get::<_, i32>(0)).unwrap());
        }
    }

    fn end(&mut self, signal: &str) {
        if let Some(mut process) = self.process.take() {
            send(signal, process.id());
            process.wait().unwrap();
        }
    }

    fn config(&self, user: &str) -> Config {
        config(self.port, user)
    }

    /// For the store.
    pub fn database(&self) -> Config {
        self.config("dpop")
    }

    pub fn url(&self) -> String {
        format!("postgres://dpop@127.0.0.1:{}/dpop", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    async fn root(&self) -> Client {
        client(&self.config("postgres")).await
    }

    /// Another client of the store's database.
    pub async fn client(&self) -> Client {
        client(&self.database()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("-QUIT");
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// User and database have the same name.
pub fn config(port: u16, user: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).dbname(user);
    config
}

async fn client(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn send(signal: &str, process: u32) {
    let sent = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(sent.unwrap().success(), "kill {signal} {process}");
}

/// The server refuses to run as root.
fn unprivileged_user() -> Option<u32> {
    let own = fs::metadata("/proc/self").unwrap().uid();
    (own == 0).then(|| {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let user = users.lines().find(|user| user.starts_with("postgres:"));
        let id = user.unwrap().split(':').nth(2).unwrap();
        id.parse().unwrap()
    })
}

/// A program of PostgreSQL, in this process's name or, if that is root, in the name of `postgres`.
fn run_as_user(program: &str) -> Command {
    let newest = fs::read_dir("/usr/lib/postgresql").map(|versions| {
        let versions = versions.map(|version| version.unwrap().path().join("bin"));
        versions.max().unwrap()
    });
    let program = newest.map_or_else(|_| program.into(), |folder| folder.join(program));
    if unprivileged_user().is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command.arg(Path::new(&program)).current_dir("/");
    command
}

/// Passes connections on, and loses responses.
pub struct Proxy {
    pub port: u16,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// The connection that sends these bytes is cut when the response to them arrives.
    lost: Mutex<Option<Vec<u8>>>,
    cuts: AtomicUsize,
}

impl Proxy {
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let proxy = Self {
            port,
            faults: Arc::clone(&faults),
        };
        // It ends with the process of the test.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, faults) = (client.unwrap(), Arc::clone(&faults));
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                    pass_on(client, server, faults);
                }
            }
        });
        proxy
    }

    /// Loses the next response to these bytes.
    pub fn lose_the_response_to(&self, bytes: &[u8]) {
        *self.faults.lost.lock().unwrap() = Some(bytes.to_owned());
    }

    pub fn cuts(&self) -> usize {
        self.faults.cuts.load(Ordering::Relaxed)
    }
}

fn pass_on(mut client: TcpStream, mut server: TcpStream, faults: Arc<Faults>) {
    let is_lost = Arc::new(Mutex::new(false));
    let (mut to_client, mut from_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let will_be_lost = Arc::clone(&is_lost);
    let counted = Arc::clone(&faults);
    thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            let mut lost = faults.lost.lock().unwrap();
            if let Some(wanted) = lost.as_ref()
                && bytes[..length]
                    .windows(wanted.len())
                    .any(|part| part == wanted)
            {
                *lost = None;
                *will_be_lost.lock().unwrap() = true;
            }
            drop(lost);
            if server.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while let Ok(length @ 1..) = from_server.read(&mut bytes) {
            if *is_lost.lock().unwrap() {
                counted.cuts.fetch_add(1, Ordering::Relaxed);
                break;
            }
            if to_client.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
}
