//! What an endpoint said since a request was sent to it, and how it ended: for the decision whether the request may be
//! sent again.
//!
//! Below the codec, which does not tell an end in order from a reset.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::UpstreamIo;

const SILENT: u8 = 0;
const SPOKE: u8 = 1;
const ENDED: u8 = 2;
const BROKE: u8 = 3;

/// Hears what one connection's endpoint says.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<AtomicU8>);

impl Ear {
    /// A request is about to be sent: what was said before is of others. An end stays an end.
    pub fn listen(&self) {
        if self.0.load(Relaxed) == SPOKE {
            self.0.store(SILENT, Relaxed);
        }
    }

    /// Whether the endpoint ended the connection in order, not by a reset, without a word.
    pub fn ended_silently(&self) -> bool {
        self.0.load(Relaxed) == ENDED
    }

    fn note(&self, state: u8) {
        if self.0.load(Relaxed) == SILENT {
            self.0.store(state, Relaxed);
        }
    }

    fn failed(&self, error: &io::Error) {
        self.note(match error.kind() {
            // TLS without its goodbye; a write after the endpoint's end.
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => ENDED,
            _ => BROKE,
        });
    }
}

/// A connection's bytes, heard.
#[derive(Debug)]
pub struct Heard {
    io: UpstreamIo,
    ear: Ear,
}

impl Heard {
    /// Listens from now on.
    pub fn new(io: UpstreamIo) -> (Self, Ear) {
        let ear = Ear::default();
        (Self { io, ear: ear.clone() }, ear)
    }

    fn written<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.ear.failed(error);
        }
        polled
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if buf.filled().len() > before => self.ear.note(SPOKE),
            Poll::Ready(Ok(())) => self.ear.note(ENDED),
            Poll::Ready(Err(error)) => self.ear.failed(error),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.written(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
