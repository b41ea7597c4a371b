//! A stream that became a tunnel (`CONNECT`; RFC 9113, 8.5).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{RecvStream, SendStream};
use crate::net::unread;

/// Most bytes that one write copies.
const CHUNK: usize = 16 * 1024;

/// The bytes of a stream. Our direction ends with `poll_shutdown`; dropped before both ended, the stream is reset.
#[derive(Debug)]
pub struct Tunnel {
    /// None: nothing comes.
    incoming: Option<RecvStream>,
    outgoing: SendStream,
    /// What was received and not yet read.
    read: Bytes,
    ended: bool,
}

impl Tunnel {
    /// Both directions of a stream after the heads.
    pub fn new(incoming: Option<RecvStream>, outgoing: SendStream) -> Self {
        Self { incoming, outgoing, read: Bytes::new(), ended: false }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(Ok(())) };
        while this.read.is_empty() {
            match ready!(incoming.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => this.read = data,
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
            }
        }
        let size = unread::give(&mut this.read, buf);
        incoming.release(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = buf.len().min(CHUNK);
        let mut data = Bytes::copy_from_slice(&buf[..size]);
        let sent = this.outgoing.poll_write(cx, &mut data, false)?;
        match size - data.len() {
            0 if sent.is_pending() => Poll::Pending,
            size => Poll::Ready(Ok(size)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection sends of its own accord.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.ended, true) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(this.outgoing.end().map_err(io::Error::from))
    }
}
