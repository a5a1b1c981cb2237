//! A TCP connection with buffers, for pingora.
//!
//! pingora's own stream can have buffers only if pingora has accepted the connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::listeners::DEFAULT_L4_WRITE_BUFFER_SIZE;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter, ReadBuf,
};
use tokio::net::TcpStream;

/// The length of a TLS record: with less, TLS would need several system calls for each.
const READ_BUFFER: usize = 16 * 1024;
/// As in pingora: the header of a response and a short body are sent in one packet, and longer bodies are not copied.
const WRITE_BUFFER: usize = DEFAULT_L4_WRITE_BUFFER_SIZE;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(crate) struct TcpConnection {
    stream: BufReader<BufWriter<TcpStream>>,
    /// Bytes that were read to find out the protocol. They are returned again by the next reads.
    peeked: Vec<u8>,
    digest: Arc<SocketDigest>,
}

impl TcpConnection {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(peer.into()));
        let stream = BufWriter::with_capacity(WRITE_BUFFER, stream);
        Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            peeked: Vec::new(),
            digest: Arc::new(digest),
        }
    }
}

#[async_trait]
impl Peek for TcpConnection {
    /// Used to find the preface of HTTP/2. A request of HTTP/1.1 can be shorter than the preface, so this stops at the first byte
    /// that differs. The rest of the buffer is zero.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.peeked.len() < buffer.len() && HTTP2_PREFACE.starts_with(&self.peeked) {
            let missing = buffer.len() - self.peeked.len();
            let read = self.stream.read(&mut buffer[..missing]).await?;
            if read == 0 {
                break;
            }
            self.peeked.extend_from_slice(&buffer[..read]);
        }
        buffer.fill(0);
        let length = self.peeked.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.peeked[..length]);
        Ok(true)
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.peeked.is_empty() {
            // pingora flushes a response with `Content-Length` only at its end. Send what is buffered before waiting for the
            // client.
            if !self.stream.get_ref().buffer().is_empty() {
                let _ = Pin::new(&mut self.stream).poll_flush(context)?;
            }
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.peeked.len().min(buffer.remaining());
        buffer.put_slice(&self.peeked[..length]);
        self.peeked.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for TcpConnection {
    async fn shutdown(&mut self) {
        // The client may have closed it before.
        let _ = self.stream.shutdown().await;
    }
}

impl UniqueID for TcpConnection {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().get_ref().as_raw_fd()
    }
}

impl GetSocketDigest for TcpConnection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

/// Without TLS: for TLS, pingora wraps this stream in its own.
impl Ssl for TcpConnection {}

impl GetTimingDigest for TcpConnection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for TcpConnection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}
