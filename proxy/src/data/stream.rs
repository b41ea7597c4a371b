//! A client's byte stream, whatever it came by: a socket or a tunnel, with TLS or without, and bytes that were looked at.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
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

impl Transport {
    /// Writes what the end follows in the same turn: it goes into the same packet.
    fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tunnel(tunnel) => return Pin::new(tunnel).poll_write_vectored(cx, parts),
        };
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let send = || Ok(sendmsg(&*tcp, parts, &mut SendAncillaryBuffer::default(), flags)?);
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

reads!(Transport { Self::Tcp(io) => io, Self::Tunnel(io) => io });
writes!(Transport { Self::Tcp(io) => io, Self::Tunnel(io) => io });

/// A transport, and bytes read from it that nobody has taken yet.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Unread,
    transport: Transport,
    /// What is written is the last.
    ending: bool,
}

impl Prefixed {
    /// Nothing was read yet.
    pub fn new(transport: Transport) -> Self {
        Self { prefix: Unread::default(), transport, ending: false }
    }

    /// Puts bytes back before everything else.
    pub fn unread(&mut self, bytes: Bytes) {
        self.prefix.put(bytes);
    }

    /// What is written from now on is the last, and whoever writes it shuts down in the same turn: the kernel may wait for
    /// that, so that the end shares a packet with it.
    pub fn end_with_writes(&mut self) {
        self.ending = true;
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

impl AsyncWrite for Prefixed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ending {
            return this.transport.poll_write_last(cx, &[IoSlice::new(bytes)]);
        }
        Pin::new(&mut this.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ending {
            return this.transport.poll_write_last(cx, parts);
        }
        Pin::new(&mut this.transport).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

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

impl Stream {
    /// What is written next is all that there is to write; whoever writes it shuts down as soon as it is taken.
    pub fn ends_with_next_write(&mut self) {
        match self {
            Self::Plain(plain) => plain.end_with_writes(),
            Self::Tls(tls) => {
                tls.ends_with_next_write();
                tls.get_mut().end_with_writes();
            }
        }
    }
}

reads!(Stream { Self::Plain(io) => io, Self::Tls(io) => io });
writes!(Stream { Self::Plain(io) => io, Self::Tls(io) => io });

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connected() -> (TcpStream, Prefixed) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.set_nodelay(true).unwrap();
        (client, Prefixed::new(Transport::Tcp(server)))
    }

    #[tokio::test]
    async fn what_is_written_last_arrives_whole() {
        for size in [0, 1, 1_000, 4 * 1024 * 1024] {
            let (mut client, mut server) = connected().await;
            let sent = vec![b'x'; size];
            let sending = async move {
                server.end_with_writes();
                let (head, rest) = sent.split_at(size / 3);
                // In parts, of which not all need be taken at once.
                let written = match size {
                    0 => 0,
                    _ => server.write_vectored(&[head, rest].map(IoSlice::new)).await.unwrap(),
                };
                server.write_all(&sent[written..]).await.unwrap();
                server.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (_, read) = tokio::join!(sending, client.read_to_end(&mut heard));
            assert_eq!(read.unwrap(), size);
        }
    }

    #[tokio::test]
    async fn what_is_written_last_arrives_although_nobody_read_what_the_client_sent() {
        let (mut client, mut server) = connected().await;
        client.write_all(b"unread").await.unwrap();
        server.end_with_writes();
        server.write_all(&[b'x'; 1_000]).await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        let mut heard = vec![0; 1_000];
        client.read_exact(&mut heard).await.unwrap();
    }
}
