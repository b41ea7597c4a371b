//! The bytes of an upstream connection: counted, and open to a look from outside.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::net::cluster::{ClusterState, EndpointState, Permit, count};

/// A connection's place in the counts, given back when its bytes end.
#[derive(Debug)]
pub(super) struct Counted {
    _permit: Permit,
    cluster: Arc<ClusterState>,
    endpoint: Arc<EndpointState>,
}

impl Counted {
    pub(super) fn new(
        permit: Permit,
        cluster: Arc<ClusterState>,
        endpoint: Arc<EndpointState>,
    ) -> Self {
        count(&cluster.totals.upstream_cx_total);
        count(&endpoint.cx_total);
        endpoint.connections.add();
        Self { _permit: permit, cluster, endpoint }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.endpoint.connections.sub();
    }
}

/// A counted socket.
#[derive(Debug)]
pub struct Io {
    pub(super) tcp: Arc<TcpStream>,
    pub(super) counted: Counted,
}

impl Io {
    /// The socket, for looking at it while somebody else owns the connection.
    pub fn probe(&self) -> Probe {
        Probe(self.tcp.clone())
    }
}

/// Looks at a socket without reading it.
#[derive(Debug)]
pub struct Probe(Arc<TcpStream>);

/// What a socket has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing: it is idle.
    Quiet,
    /// Bytes that nobody asked for, or not yet read.
    Bytes,
    /// It was closed.
    Closed,
}

impl Probe {
    /// Looks, without waiting.
    pub fn look(&self) -> Pulse {
        let mut byte = [0_u8];
        match rustix::net::recv(&*self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => Pulse::Closed,
            Ok(_) => Pulse::Bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Pulse::Quiet,
            Err(_) => Pulse::Closed,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read_buf(buf) {
                Ok(read) => {
                    let total = &self.counted.cluster.totals.upstream_cx_rx_bytes_total;
                    total.fetch_add(read as u64, Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Io {
    fn poll_io(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match write(&self.tcp) {
                Ok(written) => {
                    let total = &self.counted.cluster.totals.upstream_cx_tx_bytes_total;
                    total.fetch_add(written as u64, Relaxed);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |tcp| tcp.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |tcp| tcp.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.tcp).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// A connection's bytes, plain or in TLS.
#[derive(Debug)]
pub enum UpstreamIo {
    Plain(Io),
    Tls(Box<TlsStream<Io>>),
}

impl UpstreamIo {
    /// Looks at the socket while somebody else owns the connection.
    pub fn probe(&self) -> Probe {
        match self {
            Self::Plain(io) => io.probe(),
            Self::Tls(stream) => stream.get_ref().0.probe(),
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
