//! Bodies of HTTP/2 messages, read in the same way from the proxy's codec and from the `h2` crate.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use weft_proxy::http2::RecvStream;

/// A body, and its trailers.
pub type Whole = (Bytes, HeaderMap);

/// Where a body comes from.
pub trait Source {
    /// What comes next of it, which may be followed by more at once.
    fn data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>>;
    /// The trailers behind it.
    fn trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, ()>>;
}

impl Source for RecvStream {
    fn data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        let polled = self.poll_data(cx).map_err(drop);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            self.release(data.len());
        }
        polled
    }

    fn trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, ()>> {
        self.poll_trailers(cx).map_err(drop)
    }
}

impl Source for h2::RecvStream {
    fn data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        let polled = self.poll_data(cx).map_err(drop);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            let _ = self.flow_control().release_capacity(data.len());
        }
        polled
    }

    fn trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, ()>> {
        self.poll_trailers(cx).map_err(drop)
    }
}

/// Reads what has come; once the body has ended, all of it, or nothing where it broke off.
pub fn read(
    source: &mut impl Source,
    read: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<Option<Whole>> {
    loop {
        match source.data(cx) {
            Poll::Ready(Some(Ok(data))) => read.extend_from_slice(&data),
            Poll::Ready(Some(Err(()))) => return Poll::Ready(None),
            Poll::Ready(None) => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(match source.trailers(cx) {
        Poll::Ready(Ok(trailers)) => {
            Some((std::mem::take(read).freeze(), trailers.unwrap_or_default()))
        }
        _ => None,
    })
}

/// Sends one frame after the other: what is in one read must not matter.
pub async fn send(mut peer: DuplexStream, hello: &[u8], frames: &[Vec<u8>]) {
    let _ = peer.write_all(hello).await;
    settle().await;
    for frame in frames {
        if peer.write_all(frame).await.is_err() {
            break;
        }
        settle().await;
    }
    let _ = peer.shutdown().await;
    let mut answers = Vec::new();
    let _ = peer.read_to_end(&mut answers).await;
}

async fn settle() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}
