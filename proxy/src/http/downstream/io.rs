//! The bytes of a client's HTTP connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::{data::stream::Stream, h1::wire::Source, net::unread::Unread};

/// How long a client that may still be sending is listened to after the last of what it gets.
pub const LINGER: Duration = Duration::from_secs(1);
/// How much is read of it.
pub const LINGER_BYTES: usize = 1024 * 1024;

/// The client's stream, after bytes that were read before.
#[derive(Debug)]
pub struct ServerIo {
    stream: Stream,
    prefix: Unread,
}

impl ServerIo {
    /// Nothing was read yet.
    pub fn new(stream: Stream) -> Self {
        Self { stream, prefix: Unread::default() }
    }

    /// Puts bytes back before everything else. Only what was just read.
    pub fn unread(&mut self, bytes: Bytes) {
        self.prefix.put(bytes);
    }

    /// As [`Stream::ends_with_next_write`].
    pub fn ends_with_next_write(&mut self) {
        self.stream.ends_with_next_write();
    }
}

impl Source for ServerIo {
    fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        self.prefix.is_empty() && self.stream.is_silent(cx)
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        this.prefix.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Says the end, and waits for the client's: what is closed with bytes unread is reset, and the client may lose what it was
/// sent last.
pub async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let unread = async {
        io.shutdown().await?;
        let mut thrown_away = 0;
        let mut bytes = vec![0; 4096];
        while thrown_away < LINGER_BYTES {
            match io.read(&mut bytes).await? {
                0 => break,
                size => thrown_away += size,
            }
        }
        io::Result::Ok(())
    };
    // Whichever way it ends, the connection is over.
    let _ = timeout(LINGER, unread).await;
}
