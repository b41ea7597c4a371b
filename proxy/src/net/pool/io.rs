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

use crate::{
    h1::wire::Source,
    net::{
        cluster::{ClusterState, EndpointState, Permit, count},
        through::{reads, writes},
        tls::ClientStream,
    },
};

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
    pub(super) tcp: TcpStream,
    pub(super) counted: Counted,
}

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

impl Io {
    /// Looks at the socket without reading it, without waiting, and whatever the runtime knows of it.
    fn look(&self) -> Pulse {
        let mut byte = [0_u8];
        match rustix::net::recv(&self.tcp, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => Pulse::Closed,
            Ok(_) => Pulse::Bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Pulse::Quiet,
            Err(_) => Pulse::Closed,
        }
    }

    fn count_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &written {
            let total = &self.counted.cluster.totals.upstream_cx_tx_bytes_total;
            total.fetch_add(*written as u64, Relaxed);
        }
        written
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        // tokio's own read: one that fills less than there is room for is not followed by one in vain.
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        let total = &self.counted.cluster.totals.upstream_cx_rx_bytes_total;
        total.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.count_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.count_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.tcp).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// A connection's bytes, plain or in TLS.
#[derive(Debug)]
pub enum UpstreamIo {
    Plain(Io),
    Tls(Box<ClientStream<Io>>),
}

impl UpstreamIo {
    /// Looks at the socket without reading it.
    pub fn look(&self) -> Pulse {
        match self {
            Self::Plain(io) => io.look(),
            Self::Tls(stream) => stream.get_ref().0.look(),
        }
    }

    /// Whether what comes over the socket is not all for the reader.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl Source for UpstreamIo {
    fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        let io = match self {
            Self::Plain(io) => io,
            Self::Tls(stream) if stream.is_drained() => stream.get_ref().0,
            Self::Tls(_) => return false,
        };
        io.tcp.poll_read_ready(cx).is_pending()
    }
}

reads!(UpstreamIo { Self::Plain(io) => io, Self::Tls(io) => io });
writes!(UpstreamIo { Self::Plain(io) => io, Self::Tls(io) => io });
