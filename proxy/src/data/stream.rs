//! A client's byte stream, whatever it came by: a socket or a tunnel, with TLS or without, and bytes that were looked at.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use crate::{
    h1::wire::Source,
    http::downstream::ServerIo,
    http2,
    net::{
        through::{reads, writes},
        tls::ServerStream,
        unread::Unread,
    },
};

/// What carries the bytes.
#[derive(Debug)]
pub enum Transport {
    /// A connection that was accepted.
    Tcp(TcpStream),
    /// A request that became a tunnel (`CONNECT`).
    Tunnel(Tunnel),
}

/// A client's connection that a request has handed over.
#[derive(Debug)]
pub enum Tunnel {
    /// All of an HTTP/1 connection.
    Http1(Box<ServerIo>),
    /// A stream of an HTTP/2 connection.
    Http2(Box<http2::Tunnel>),
}

reads!(Tunnel { Self::Http1(io) => io, Self::Http2(io) => io });
writes!(Tunnel { Self::Http1(io) => io, Self::Http2(io) => io });

reads!(Transport { Self::Tcp(io) => io, Self::Tunnel(io) => io });
writes!(Transport { Self::Tcp(io) => io, Self::Tunnel(io) => io });

/// A transport, and bytes read from it that nobody has taken yet.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Unread,
    transport: Transport,
}

impl Prefixed {
    /// Nothing was read yet.
    pub fn new(transport: Transport) -> Self {
        Self { prefix: Unread::default(), transport }
    }

    /// Puts bytes back before everything else.
    pub fn unread(&mut self, bytes: Bytes) {
        self.prefix.put(bytes);
    }
}

impl Source for Prefixed {
    fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        match &self.transport {
            Transport::Tcp(tcp) if self.prefix.is_empty() => tcp.poll_read_ready(cx).is_pending(),
            _ => false,
        }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            this.prefix.give(buf);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.transport).poll_read(cx, buf)
    }
}

writes!(Prefixed { Self { transport: io, .. } => io });

/// A client's stream after the choice of the filter chain.
#[derive(Debug)]
pub enum Stream {
    /// As it comes.
    Plain(Prefixed),
    /// TLS, terminated.
    Tls(Box<ServerStream<Prefixed>>),
}

impl Source for Stream {
    fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Plain(plain) => plain.is_silent(cx),
            Self::Tls(tls) => tls.is_drained() && tls.get_ref().0.is_silent(cx),
        }
    }
}

reads!(Stream { Self::Plain(io) => io, Self::Tls(io) => io });
writes!(Stream { Self::Plain(io) => io, Self::Tls(io) => io });
