//! A TCP proxy in front of a Redis server, with faults that are switched while it runs.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

use crate::resp::first_message;

/// What a proxy does with messages until it is told something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Requests do not arrive. They are held, as TCP would send them again, and arrive when the fault ends.
    HoldRequests,
    /// Requests arrive, their replies do not.
    HoldReplies,
    HoldBoth,
    /// New connections are closed at once, others go on.
    RejectConnections,
    /// New connections are held, others go on.
    HoldConnections,
    /// Replies arrive with one byte per second.
    Slow,
    /// Each reply is replaced by these bytes.
    ReplaceReplies(&'static [u8]),
    /// The same, if it is the reply to a SET.
    ReplaceReplyToSet(&'static [u8]),
    /// Replies are replaced by a bulk string of 1 GiB, which arrives as fast as it is read.
    HugeReplies,
}

/// How connections are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In order, in both directions.
    Close,
    /// With RST to the client.
    Reset,
    /// The client is not told: it can write, and gets no reply.
    HalfOpen,
}

/// What happens to one SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The connection is closed before the request is forwarded.
    Request,
    /// The connection is closed once the server has sent the reply, which is not forwarded.
    Reply,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    /// Dropped, it ends the thread.
    _end: oneshot::Sender<()>,
}

struct Shared {
    upstream: AtomicU16,
    kind: Kind,
    fault: watch::Sender<Fault>,
    /// How the connections up to this number end.
    cut: watch::Sender<(u64, Cut)>,
    losses: Mutex<VecDeque<(Loss, Fault)>>,
    lost: watch::Sender<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Commands and replies, which are told apart.
    Messages,
    /// Any bytes.
    Bytes,
}

impl Proxy {
    /// A proxy in front of the server at this port of 127.0.0.1. It has a thread of its own.
    pub fn to(upstream: u16) -> Self {
        Self::of(upstream, Kind::Messages)
    }

    /// The same for a connection that carries more than commands and replies, as that of a replica. Replies cannot
    /// be replaced, and no single SET can be lost.
    pub fn for_replication(upstream: u16) -> Self {
        Self::of(upstream, Kind::Bytes)
    }

    fn of(upstream: u16, kind: Kind) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            kind,
            fault: watch::Sender::new(Fault::None),
            cut: watch::Sender::new((0, Cut::Close)),
            losses: Mutex::default(),
            lost: watch::Sender::new(0),
        });
        let (end, ended) = oneshot::channel::<()>();
        let accepting = accept(listener, Arc::clone(&shared));
        std::thread::spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            // The sender is dropped with the proxy, and all connections with the runtime.
            let run = async {
                tokio::select! { () = accepting => {}, _ = ended => {} }
            };
            runtime.block_on(run);
        });
        Self {
            port,
            shared,
            _end: end,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// New connections go to the server at this port, as those to a virtual address do after a failover.
    pub fn redirect(&self, upstream: u16) {
        self.shared.upstream.store(upstream, Ordering::Relaxed);
    }

    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Ends all present connections. New ones are forwarded.
    pub fn cut(&self, how: Cut) {
        self.shared.cut.send_modify(|cut| *cut = (cut.0 + 1, how));
    }

    /// The next SET, or, if this is called several times, the one after those before, is lost, and the fault begins
    /// in the same moment.
    pub fn lose_next(&self, loss: Loss, then: Fault) {
        self.shared.losses.lock().unwrap().push_back((loss, then));
    }

    /// Waits until this many SETs were lost in all.
    pub async fn wait_until_lost(&self, count: usize) {
        let mut lost = self.shared.lost.subscribe();
        let enough = lost.wait_for(|&lost| lost >= count);
        let enough = tokio::time::timeout(Duration::from_secs(20), enough).await;
        enough.expect("no SET came").unwrap();
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let generation = shared.cut.borrow().0;
        tokio::spawn(serve(client, generation, Arc::clone(&shared)));
    }
}

/// One connection, until one side ends it or it is cut.
async fn serve(client: TcpStream, generation: u64, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    // An error, or a side that has ended, ends the connection.
    let how = tokio::select! {
        // Nothing that was sent after the cut is forwarded.
        biased;
        how = async { cut.wait_for(|cut| cut.0 > generation).await.map(|cut| cut.1) } => how.ok(),
        _ = forward(&client, &shared) => Some(Cut::Close),
    };
    match how {
        Some(Cut::Reset) => {
            let _ = client.set_zero_linger();
        }
        Some(Cut::HalfOpen) => {
            let mut ignored = vec![0; 65_536];
            let mut client = client;
            while client.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
        }
        _ => {}
    }
}

async fn forward(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut fault = shared.fault.subscribe();
    let forwarding = fault.wait_for(|fault| *fault != Fault::HoldConnections);
    if *forwarding.await.map_err(io::Error::other)? == Fault::RejectConnections {
        return Ok(());
    }
    client.set_nodelay(true)?;
    let server = TcpStream::connect(("127.0.0.1", shared.upstream.load(Ordering::Relaxed))).await?;
    server.set_nodelay(true)?;
    let pending = Mutex::new(VecDeque::new());
    tokio::select! {
        ended = requests(client, &server, &pending, shared) => ended,
        ended = replies(&server, client, &pending, shared) => ended,
    }
}

/// A request whose reply has not come.
struct Pending {
    is_set: bool,
    loses_reply: Option<Fault>,
}

async fn requests(
    client: &TcpStream,
    server: &TcpStream,
    pending: &Mutex<VecDeque<Pending>>,
    shared: &Shared,
) -> io::Result<()> {
    let mut fault = shared.fault.subscribe();
    let mut messages = Messages::from(client, shared.kind);
    while let Some(message) = messages.next().await? {
        let passes = |fault: &Fault| !matches!(fault, Fault::HoldRequests | Fault::HoldBoth);
        fault.wait_for(passes).await.map_err(io::Error::other)?;
        let is_set = is_set(&message);
        let mut loses_reply = None;
        if is_set {
            match shared.losses.lock().unwrap().pop_front() {
                Some((Loss::Request, then)) => {
                    shared.report_loss(then);
                    return Ok(());
                }
                Some((Loss::Reply, then)) => loses_reply = Some(then),
                None => {}
            }
        }
        if shared.kind == Kind::Messages {
            let request = Pending {
                is_set,
                loses_reply,
            };
            pending.lock().unwrap().push_back(request);
        }
        write(server, &message).await?;
    }
    Ok(())
}

async fn replies(
    server: &TcpStream,
    client: &TcpStream,
    pending: &Mutex<VecDeque<Pending>>,
    shared: &Shared,
) -> io::Result<()> {
    let mut fault = shared.fault.subscribe();
    let mut messages = Messages::from(server, shared.kind);
    while let Some(message) = messages.next().await? {
        // Pushes of RESP3 are no replies.
        let request = match message[0] {
            b'>' => None,
            _ => pending.lock().unwrap().pop_front(),
        };
        let is_set = request.as_ref().is_some_and(|request| request.is_set);
        if let Some(then) = request.and_then(|request| request.loses_reply) {
            shared.report_loss(then);
            return Ok(());
        }
        let passes = |fault: &Fault| !matches!(fault, Fault::HoldReplies | Fault::HoldBoth);
        let now = *fault.wait_for(passes).await.map_err(io::Error::other)?;
        match now {
            Fault::Slow => {
                for byte in message {
                    write(client, &[byte]).await?;
                    let other = fault.wait_for(|fault| *fault != Fault::Slow);
                    let _ = tokio::time::timeout(Duration::from_secs(1), other).await;
                }
            }
            Fault::ReplaceReplies(other) => write(client, other).await?,
            Fault::ReplaceReplyToSet(other) if is_set => write(client, other).await?,
            Fault::HugeReplies => {
                write(client, b"$1073741824\r\n").await?;
                let part = vec![b'x'; 65_536];
                for _ in 0..16_384 {
                    write(client, &part).await?;
                }
                write(client, b"\r\n").await?;
            }
            _ => write(client, &message).await?,
        }
    }
    Ok(())
}

impl Shared {
    fn report_loss(&self, then: Fault) {
        self.fault.send_replace(then);
        self.lost.send_modify(|lost| *lost += 1);
    }
}

/// `*7 SET key value NX GET PX 121000`
fn is_set(message: &[u8]) -> bool {
    let mut lines = message.split(|&byte| byte == b'\n').skip(2);
    lines
        .next()
        .is_some_and(|line| line.eq_ignore_ascii_case(b"SET\r"))
}

/// The messages of one direction of a connection.
struct Messages<'c> {
    from: &'c TcpStream,
    kind: Kind,
    read: Vec<u8>,
    /// How much of `read` was taken.
    taken: usize,
}

impl<'c> Messages<'c> {
    fn from(from: &'c TcpStream, kind: Kind) -> Self {
        Self {
            from,
            kind,
            read: Vec::new(),
            taken: 0,
        }
    }

    /// `None` at the end of the stream.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let rest = &self.read[self.taken..];
            let length = match self.kind {
                Kind::Messages => first_message(rest),
                Kind::Bytes => Some(rest.len()).filter(|&length| length > 0),
            };
            if let Some(length) = length {
                let message = rest[..length].to_vec();
                self.taken += length;
                return Ok(Some(message));
            }
            self.read.drain(..self.taken);
            self.taken = 0;
            self.from.readable().await?;
            match self.from.try_read_buf(&mut self.read) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
