//! A new process takes over the listening sockets, so that no connection is lost.
//!
//! The running process starts the program again, with a socket as its standard input. Over this socket it sends the listening
//! sockets, and the new process responds when it serves, or with the reason why it cannot. This needs no file that another user
//! could open, and no fixed waiting time. pingora's `Fds` is not used: its socket is a file that every user may write to, it
//! polls once per second, and it panics on errors.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::AsyncReadExt as _;

/// The hidden argument of the new process.
const ARGUMENT: &str = "--upgrade";
/// The kernel allows no more in one message.
const MAX_SOCKETS: usize = 253;
/// For the addresses of as many sockets.
const MAX_MESSAGE: usize = 16 * 1024;
/// Of the text that the new process sends if it fails.
const MAX_RESPONSE: u64 = 16 * 1024;
const READY: &[u8] = b"ready";
/// How long the new process may take to serve. It may wait for Redis and for the keys of issuers.
const LIMIT: Duration = Duration::from_secs(120);

/// How the program was started.
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Called at the start: later, another file may be at this path, and that is the one to run.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            arguments: std::env::args_os()
                .skip(1)
                .filter(|argument| argument != ARGUMENT)
                .collect(),
        })
    }

    /// Starts the program again, and gives it these sockets. Returns the id of the process when it serves.
    pub(crate) async fn start_again<'a>(
        &self,
        sockets: impl Iterator<Item = (SocketAddr, BorrowedFd<'a>)>,
    ) -> Result<u32, String> {
        let (channel, mut child) = self.spawn(sockets).map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(LIMIT, response(channel)).await;
        let failure = match response {
            Ok(Ok(response)) if response == READY => return Ok(child.id()),
            Ok(Ok(response)) if response.is_empty() => {
                "the new process has ended without a response".to_owned()
            }
            Ok(Ok(reason)) => String::from_utf8_lossy(&reason).into_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the new process does not serve after {LIMIT:?}"),
        };
        // It must not continue with the sockets that it was given.
        let ended = tokio::task::spawn_blocking(move || {
            let _ = child.kill();
            child.wait()
        });
        let _ = ended.await;
        Err(failure)
    }

    fn spawn<'a>(
        &self,
        sockets: impl Iterator<Item = (SocketAddr, BorrowedFd<'a>)>,
    ) -> io::Result<(UnixStream, Child)> {
        let (own, other) = UnixStream::pair()?;
        give(&own, sockets)?;
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .arg(ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .spawn()
            .map_err(|error| {
                let problem = format!("{}: {error}", self.path.display());
                io::Error::new(error.kind(), problem)
            })?;
        Ok((own, child))
    }
}

fn give<'a>(
    channel: &UnixStream,
    sockets: impl Iterator<Item = (SocketAddr, BorrowedFd<'a>)>,
) -> io::Result<()> {
    let (addresses, sockets): (Vec<_>, Vec<_>) = sockets
        .map(|(address, socket)| (address.to_string(), socket))
        .unzip();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        let problem = format!("more than {MAX_SOCKETS} listening sockets");
        return Err(io::Error::other(problem));
    }
    let addresses = addresses.join(" ");
    let data = [IoSlice::new(addresses.as_bytes())];
    sendmsg(channel, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The response of the new process. Empty if it ended without one.
async fn response(channel: UnixStream) -> io::Result<Vec<u8>> {
    channel.set_nonblocking(true)?;
    let channel = tokio::net::UnixStream::from_std(channel)?;
    let mut response = Vec::new();
    let mut channel = channel.take(MAX_RESPONSE);
    channel.read_to_end(&mut response).await?;
    Ok(response)
}

/// The listening sockets of the previous process.
#[derive(Default)]
pub(crate) struct Inherited {
    sockets: Vec<(SocketAddr, TcpListener)>,
}

/// The previous process, which waits for a response.
pub(crate) struct Predecessor(UnixStream);

impl Inherited {
    /// Receives them from the process that has started this one.
    pub(crate) fn receive() -> io::Result<(Self, Predecessor)> {
        let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut data = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(
            &channel,
            &mut [IoSliceMut::new(&mut data)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let message = message.map_err(|_| {
            let problem = "--upgrade is only for processes that dpop-gateway starts itself: send SIGUSR2 to the running one";
            io::Error::other(problem)
        })?;
        let addresses = str::from_utf8(&data[..message.bytes]).unwrap_or_default();
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                sockets.extend(received);
            }
        }
        let sockets = addresses.split(' ').zip(sockets);
        let sockets = sockets
            .filter_map(|(address, socket)| {
                Some((address.parse().ok()?, TcpListener::from(socket)))
            })
            .collect();
        Ok((Self { sockets }, Predecessor(channel)))
    }

    /// The socket with this address in the configuration of the previous process. Of several (port 0), the first.
    pub(crate) fn take(&mut self, configured: SocketAddr) -> Option<TcpListener> {
        let mut sockets = self.sockets.iter();
        let number = sockets.position(|(known, _)| *known == configured)?;
        Some(self.sockets.remove(number).1)
    }
}

impl Predecessor {
    /// This process serves, so the previous one may end. An error means that the previous one was told to stop meanwhile, so that
    /// this process has to end.
    pub(crate) fn respond_ready(&self) -> io::Result<()> {
        self.respond(READY)
    }

    /// This process cannot serve. The previous one logs the reason, and continues.
    pub(crate) fn respond_failure(&self, reason: &str) {
        let _ = self.respond(reason.as_bytes());
    }

    fn respond(&self, message: &[u8]) -> io::Result<()> {
        (&self.0).write_all(message)?;
        self.0.shutdown(Shutdown::Write)
    }
}
