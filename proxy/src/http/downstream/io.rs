//! The bytes of a client's HTTP connection, as hyper reads and writes them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{data::stream::Stream, http::framing::Watch};

/// What hyper reads from and writes to: the client's stream, after bytes that were read before, seen by the watch.
#[derive(Debug)]
pub struct ServerIo {
    stream: Stream,
    prefix: Bytes,
    watch: Option<Watch>,
}

impl ServerIo {
    /// Nothing was read yet, and nobody watches.
    pub fn new(stream: Stream) -> Self {
        Self { stream, prefix: Bytes::new(), watch: None }
    }

    /// Puts bytes back before everything else. Only what was just read.
    pub fn unread(&mut self, bytes: Bytes) {
        self.prefix = bytes;
    }

    /// From now on the watch sees what is read.
    pub fn watch(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let size = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..size]);
            this.prefix.advance(size);
        }
        if let Some(watch) = &mut this.watch {
            watch.feed(&buf.filled()[before..]);
        }
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
