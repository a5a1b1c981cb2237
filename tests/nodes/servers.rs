//! Real Redis servers and sentinels: processes on free ports of 127.0.0.1, ended on drop.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::resp::{self, Reply};

/// How long a server may take to do what a test waits for.
const LIMIT: Duration = Duration::from_secs(30);

/// Tries until there is a value. `what` is awaited.
#[track_caller]
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program of servers and sentinels: `redis-server`, or the one at the absolute path in the environment variable
/// `REDIS_SERVER`.
fn program() -> Command {
    Command::new(env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
}

/// A redis-server without persistence.
pub struct Redis {
    port: u16,
    arguments: Vec<String>,
    // Dropped before its folder.
    process: Process,
    folder: Folder,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with further arguments: `["--maxmemory", "3mb"]`.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let arguments: Vec<String> = arguments.iter().map(|&one| one.into()).collect();
        // Another process may take a port between the search and the start.
        for _ in 0..10 {
            let port = free_port();
            if let Ok(process) = start(port, &folder, &arguments) {
                return Self {
                    port,
                    arguments,
                    process,
                    folder,
                };
            }
        }
        panic!("redis-server does not start:\n{}", folder.log());
    }

    /// A replica of another server, once it has that server's data.
    #[track_caller]
    pub fn replica_of(primary: &Self) -> Self {
        Self::replica_through(primary.port)
    }

    /// A replica that reaches its primary at this port: that of a [`Proxy`](crate::proxy::Proxy).
    #[track_caller]
    pub fn replica_through(port: u16) -> Self {
        let replica = Self::start();
        replica.run(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        wait_for("the replica has the primary's data", || {
            (replica.info("master_link_status") == "up").then_some(())
        });
        replica
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The reply to a command.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Reply {
        let reply = resp::command(self.port, words);
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.folder.log()))
    }

    /// A field of INFO. A server that changes its role closes connections, so it is asked up to five times.
    #[track_caller]
    pub fn info(&self, field: &str) -> String {
        let words = ["INFO", "everything"];
        let info = (1..5).find_map(|_| resp::command(self.port, &words).ok());
        let info = info.unwrap_or_else(|| self.run(&words)).text();
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value
            .unwrap_or_else(|| panic!("INFO has no {field}"))
            .to_owned()
    }

    /// The number of keys.
    #[track_caller]
    pub fn keys(&self) -> usize {
        usize::try_from(self.run(&["DBSIZE"]).integer()).unwrap()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: connections stay, and nothing is done. SIGCONT: [`resume`](Self::resume).
    pub fn stop(&self) {
        self.process.signal("STOP");
    }

    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Starts the killed server again, empty, on its port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.process = start(self.port, &self.folder, &self.arguments)
            .unwrap_or_else(|error| panic!("{error}:\n{}", self.folder.log()));
    }
}

fn start(port: u16, folder: &Folder, arguments: &[String]) -> io::Result<Process> {
    let mut command = program();
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        // A replica waits five seconds for others by default.
        .args(["--repl-diskless-sync-delay", "0"])
        .args(["--logfile", "log", "--dir"])
        .arg(folder.path())
        .args(arguments)
        .current_dir(folder.path());
    let mut process = Process::spawn(&mut command)?;
    let own = format!("process_id:{}\r", process.0.id());
    let began = Instant::now();
    // Our process, and not another one that took the port.
    while began.elapsed() < LIMIT && process.0.try_wait()?.is_none() {
        match resp::command(port, &["INFO", "server"]) {
            Ok(Reply::Text(info)) if info.contains(&own) => return Ok(process),
            // It wants a password, so the test has given one.
            Ok(Reply::Error(error)) if error.starts_with("NOAUTH") => return Ok(process),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(io::Error::other("it ended, or is silent"))
}

/// Three sentinels that watch one primary. They take it for dead after a second of silence.
pub struct Sentinels {
    ports: Vec<u16>,
    // Dropped before their folders.
    processes: Vec<Process>,
    folders: Vec<Folder>,
}

impl Sentinels {
    /// The name of the primary at the sentinels.
    pub const NAME: &str = "replays";

    /// Sentinels that know each other and the primary's `replicas`. `failover_timeout` in milliseconds:
    /// twice as long, no second failover is tried; and after this time, a replica that is not connected
    /// to its primary directly is.
    #[track_caller]
    pub fn watching(primary: &Redis, replicas: usize, failover_timeout: u32) -> Self {
        let (name, port) = (Self::NAME, primary.port());
        let mut sentinels = Self {
            ports: Vec::new(),
            processes: Vec::new(),
            folders: Vec::new(),
        };
        while sentinels.ports.len() < 3 {
            let (own, folder) = (free_port(), Folder::new());
            let file = folder.path().join("sentinel.conf");
            let settings = format!(
                "port {own}\nbind 127.0.0.1\ndir {folder}\nlogfile log\n\
                sentinel monitor {name} 127.0.0.1 {port} 2\n\
                sentinel down-after-milliseconds {name} 1000\n\
                sentinel failover-timeout {name} {failover_timeout}\n\
                sentinel parallel-syncs {name} 2\n",
                folder = folder.path().display()
            );
            fs::write(&file, settings).unwrap();
            let process = Process::spawn(program().arg(&file).arg("--sentinel")).unwrap();
            sentinels.ports.push(own);
            sentinels.processes.push(process);
            sentinels.folders.push(folder);
        }
        for &own in &sentinels.ports {
            wait_for("the sentinels know each other and the replicas", || {
                let state = resp::command(own, &["SENTINEL", "MASTER", name]).ok()?;
                let known = fields(state).ok()?;
                let number =
                    |field: &str| known.iter().find(|(name, _)| name == field)?.1.parse().ok();
                let complete = number("num-other-sentinels") == Some(2usize)
                    && number("num-slaves") == Some(replicas);
                complete.then_some(())
            });
        }
        sentinels
    }

    pub fn urls(&self) -> Vec<String> {
        let ports = self.ports.iter();
        ports
            .map(|port| format!("redis://127.0.0.1:{port}"))
            .collect()
    }

    /// The port of the present primary, as the first sentinel says that responds.
    #[track_caller]
    pub fn primary(&self) -> u16 {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME];
        let mut replies = self
            .ports
            .iter()
            .map(|&port| resp::command(port, &question));
        match replies.find_map(Result::ok) {
            Some(Reply::Array(address)) => address[1].clone().text().parse().unwrap(),
            other => panic!("no sentinel names a primary: {other:?}"),
        }
    }

    /// Waits until all sentinels name another primary than this one. Returns its port.
    #[track_caller]
    pub fn wait_for_failover_from(&self, primary: &Redis) -> u16 {
        wait_for("another primary", || self.next_after(primary))
    }

    /// Makes a replica the primary, while the primary is healthy. Returns its port. The earlier primary takes writes for some
    /// more seconds.
    #[track_caller]
    pub fn fail_over_from(&self, primary: &Redis) -> u16 {
        let request = ["SENTINEL", "FAILOVER", Self::NAME];
        wait_for("a failover", || {
            // Rejected while another one goes on, or before the replica is known as one. Sometimes begun and given up.
            let _ = resp::command(self.ports[0], &request);
            std::thread::sleep(Duration::from_millis(100));
            self.next_after(primary)
        })
    }

    /// The primary that all sentinels name, if it is another one than this.
    fn next_after(&self, primary: &Redis) -> Option<u16> {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME];
        let mut next = None;
        for &port in &self.ports {
            let Ok(Reply::Array(address)) = resp::command(port, &question) else {
                return None;
            };
            let named: u16 = address[1].clone().text().parse().unwrap();
            if named == primary.port() || next.is_some_and(|next| next != named) {
                return None;
            }
            next = Some(named);
        }
        next
    }

    /// `kill -9`, all three.
    pub fn kill(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }

    /// What they logged.
    pub fn log(&self) -> String {
        self.folders.iter().map(Folder::log).collect()
    }
}

/// The names and values of a flat array.
fn fields(reply: Reply) -> Result<Vec<(String, String)>, Reply> {
    let Reply::Array(flat) = reply else {
        return Err(reply);
    };
    let pairs = flat.chunks(2);
    Ok(pairs
        .map(|pair| (pair[0].clone().text(), pair[1].clone().text()))
        .collect())
}

/// A process that ends with this value.
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        quiet.spawn().map(Self).map_err(|error| {
            let name = command.get_program().display();
            io::Error::new(error.kind(), format!("{name}: {error}"))
        })
    }

    fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    #[track_caller]
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success(), "SIG{name} to {pid}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A new directory, which is removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("tower-dpop-nodes-{process}-{number}"));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that nothing listens on. It is not one of those that the system gives to outgoing connections: one of these
/// could have it while a server is down, even a connection to the port itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes that test at the same time begin at different ports.
        let offset = std::process::id().wrapping_mul(101).wrapping_add(next) % 20_000;
        let port = 10_000 + u16::try_from(offset).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
