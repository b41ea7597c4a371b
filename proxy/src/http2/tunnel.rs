//! A stream that became a tunnel (`CONNECT`; RFC 9113, 8.5).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::unread;

/// Most bytes that one write copies.
const CHUNK: usize = 16 * 1024;

/// The bytes of a stream. Our direction ends with `poll_shutdown`; dropped before both ended, the stream is reset.
#[derive(Debug)]
pub struct Tunnel {
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    /// What was received and not yet read.
    read: Bytes,
    ended: bool,
}

impl Tunnel {
    /// Both directions of a stream after the heads.
    pub fn new(incoming: RecvStream, outgoing: SendStream<Bytes>) -> Self {
        Self { incoming, outgoing, read: Bytes::new(), ended: false }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.outgoing.poll_reset(cx).map(|reset| match reset {
            Ok(reason) => of(h2::Error::from(reason)),
            Err(error) => of(error),
        })
    }
}

fn of(error: h2::Error) -> io::Error {
    if error.is_io() {
        // It is one, as was just asked.
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            match ready!(this.incoming.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => this.read = data,
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(of(error)),
                    });
                }
            }
        }
        let size = unread::give(&mut this.read, buf);
        let _ = this.incoming.flow_control().release_capacity(size);
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
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.outgoing.reserve_capacity(buf.len().min(CHUNK));
        while this.outgoing.capacity() == 0 {
            match this.outgoing.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(of(error))),
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => return this.poll_reset(cx).map(Err),
            }
        }
        let size = buf.len().min(CHUNK).min(this.outgoing.capacity());
        let data = Bytes::copy_from_slice(buf.get(..size).unwrap_or_default());
        Poll::Ready(this.outgoing.send_data(data, false).map(|()| size).map_err(of))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection writes of its own accord.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.ended, true) {
            return Poll::Ready(Ok(()));
        }
        this.outgoing.reserve_capacity(0);
        Poll::Ready(this.outgoing.send_data(Bytes::new(), true).map_err(of))
    }
}
