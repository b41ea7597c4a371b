//! The two directions of a connection: bytes that were read and not taken, bytes that are to be written.
//!
//! Both borrow their buffers from the thread while they hold something, and only then. Sans policy: who owns the
//! connection decides what an end or an error means.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::{buffer::Size, encode};

/// Room that is worth a read.
const WORTHWHILE: usize = 2 * 1024;
/// Data up to this size is copied behind what goes out before it.
const COPIED: usize = 4 * 1024;
/// Formatted bytes after which nothing more is queued before it is written.
const QUEUED: usize = 12 * 1024;

/// What bytes come from.
pub trait Source: AsyncRead + Unpin {
    /// Whether a read would wait, where that can be told without one: no buffer is needed then, and no system call. The
    /// context's task is woken when it changes.
    fn is_silent(&self, cx: &mut Context<'_>) -> bool;
}

/// Bytes that were read and not taken.
#[derive(Debug)]
pub struct Incoming {
    /// Them.
    pub bytes: BytesMut,
    /// What the next buffer is: large as long as reads fill more than a small one.
    size: Size,
    /// What the buffer is that is borrowed; `None`: there is none, or it has grown.
    lent: Option<Size>,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), size: Size::Small, lent: None }
    }
}

impl Incoming {
    /// Reads once. `Ready(0)`: the peer sends nothing more.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_fill<IO: Source>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if io.is_silent(cx) {
            self.release();
            return Poll::Pending;
        }
        let room = self.make_room();
        let polled = poll_read_buf(Pin::new(io), cx, &mut self.bytes);
        match polled {
            Poll::Ready(Ok(read @ 1..)) if read == room => self.size = Size::Large,
            // A message of the peer's that is as short as this needs no more.
            Poll::Ready(Ok(read @ 1..)) if read < WORTHWHILE => self.size = Size::Small,
            Poll::Ready(Ok(1..)) => {}
            _ => self.release(),
        }
        polled
    }

    /// Takes a head. What is as short as most is copied: the buffer serves others at once, while the head may be looked at
    /// for as long as its message is under way.
    pub fn take_head(&mut self, size: usize) -> Bytes {
        if size > COPIED {
            return self.bytes.split_to(size).freeze();
        }
        let head = self.bytes.get(..size).map(Bytes::copy_from_slice);
        self.bytes.advance(size.min(self.bytes.len()));
        head.unwrap_or_default()
    }

    /// Data that were taken, for somebody who may hold them for long: what is little beside the buffer that it is in is copied,
    /// so that many small pieces under way do not hold many buffers.
    pub fn detach(&self, data: Bytes) -> Bytes {
        let little = match self.lent {
            Some(Size::Large) => Size::Small.bytes(),
            _ => Size::Small.bytes() / 32,
        };
        if data.len() < little { Bytes::copy_from_slice(&data) } else { data }
    }

    /// Sees to it that there is room, and says how much.
    fn make_room(&mut self) -> usize {
        let full = self.bytes.capacity() - self.bytes.len() < WORTHWHILE;
        if self.bytes.is_empty() && (full || self.lent != Some(self.size)) {
            self.give_back();
            self.bytes = self.size.take();
            self.lent = Some(self.size);
        } else if full {
            self.bytes.reserve(self.size.bytes().max(self.bytes.len()));
            self.lent = None;
        }
        self.bytes.capacity() - self.bytes.len()
    }

    /// Gives the buffer back when there is nothing in it.
    pub fn release(&mut self) {
        if self.bytes.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let buffer = std::mem::take(&mut self.bytes);
        if let Some(size) = self.lent.take() {
            size.give(buffer);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Bytes that are to be written: what was formatted, one piece of data, and what follows it.
#[derive(Debug, Default)]
pub struct Outgoing {
    formatted: BytesMut,
    data: Bytes,
    after: &'static [u8],
    /// Something was handed to the connection since the last flush.
    unflushed: bool,
}

impl Outgoing {
    /// Where heads are formatted. Only while [`Self::has_room`].
    pub fn format(&mut self) -> &mut BytesMut {
        if self.formatted.capacity() == 0 {
            self.formatted = Size::Small.take();
        }
        &mut self.formatted
    }

    /// Whether more may be queued.
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.after.is_empty() && self.formatted.len() < QUEUED
    }

    /// Whether everything was handed to the connection.
    pub fn is_empty(&self) -> bool {
        self.formatted.is_empty() && self.data.is_empty() && self.after.is_empty()
    }

    /// Queues data as it is. Only while [`Self::has_room`].
    pub fn data(&mut self, data: Bytes) {
        if data.len() <= COPIED {
            self.format().extend_from_slice(&data);
        } else {
            self.data = data;
        }
    }

    /// Queues data as a chunk. Only while [`Self::has_room`].
    pub fn chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        encode::chunk(self.format(), data.len());
        if data.len() <= COPIED {
            self.formatted.extend_from_slice(&data);
            self.formatted.extend_from_slice(encode::CHUNK_END);
        } else {
            self.data = data;
            self.after = encode::CHUNK_END;
        }
    }

    /// Queues the last chunk.
    pub fn last_chunk(&mut self) {
        if self.data.is_empty() && self.after.is_empty() {
            self.format().extend_from_slice(encode::LAST_CHUNK);
        } else {
            self.after = b"\r\n0\r\n\r\n";
        }
    }

    /// Writes until nothing is left and the connection has taken it. Answers how much was written by this call when it
    /// is ready.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let parts =
                [IoSlice::new(&self.formatted), IoSlice::new(&self.data), IoSlice::new(self.after)];
            // Empty parts cost the kernel nothing, but a single part is written plainly.
            let size = if self.data.is_empty() && self.after.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.formatted))?
            } else {
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts))?
            };
            if size == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += size as u64;
            self.unflushed = true;
            self.advance(size);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Size::Small.give(std::mem::take(&mut self.formatted));
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, size: usize) {
        let of_formatted = size.min(self.formatted.len());
        self.formatted.advance(of_formatted);
        let of_data = (size - of_formatted).min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        let of_after = size - of_formatted - of_data;
        self.after = self.after.get(of_after..).unwrap_or_default();
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        Size::Small.give(std::mem::take(&mut self.formatted));
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt;

    use super::*;

    impl Source for tokio::io::DuplexStream {
        fn is_silent(&self, _: &mut Context<'_>) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn everything_goes_out_in_order_however_little_is_taken() {
        let large = Bytes::from(vec![b'x'; 3 * COPIED]);
        for capacity in [1, 7, 1_000, 100_000] {
            let (mut ours, mut theirs) = tokio::io::duplex(capacity);
            let mut out = Outgoing::default();
            let writing = async {
                out.format().extend_from_slice(b"head\r\n");
                out.chunk(Bytes::from_static(b"small"));
                out.chunk(large.clone());
                assert!(!out.has_room());
                out.last_chunk();
                let mut written = 0;
                std::future::poll_fn(|cx| out.poll_write(&mut ours, cx, &mut written))
                    .await
                    .unwrap();
                assert!(out.is_empty() && out.formatted.capacity() == 0);
                drop(ours);
                written
            };
            let mut read = Vec::new();
            let (written, _) = tokio::join!(writing, theirs.read_to_end(&mut read));
            let mut expected = b"head\r\n5\r\nsmall\r\n3000\r\n".to_vec();
            expected.extend_from_slice(&large);
            expected.extend_from_slice(b"\r\n0\r\n\r\n");
            assert_eq!((read, written), (expected.clone(), expected.len() as u64));
        }
    }

    #[tokio::test]
    async fn large_messages_are_read_in_large_pieces() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024 * 1024);
        let mut incoming = Incoming::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let (small, large) = (Size::Small.bytes(), Size::Large.bytes());
        for (sent, read) in [
            (small, vec![small]),
            (2 * large + 5_000, vec![large, large, 5_000]),
            (large, vec![large]),
            (100, vec![100]),
            (small + 100, vec![small, 100]),
        ] {
            tokio::io::AsyncWriteExt::write_all(&mut theirs, &vec![b'x'; sent]).await.unwrap();
            for expected in read {
                let Poll::Ready(Ok(size)) = incoming.poll_fill(&mut ours, cx) else {
                    panic!("nothing of {sent} bytes");
                };
                assert_eq!(size, expected, "of {sent}");
                incoming.bytes.clear();
            }
            assert!(incoming.poll_fill(&mut ours, cx).is_pending());
            assert_eq!(incoming.bytes.capacity(), 0);
        }
    }

    #[test]
    fn a_short_head_leaves_the_buffer_to_others() {
        for (size, shares) in [(10, false), (COPIED, false), (COPIED + 1, true)] {
            let mut incoming = Incoming::default();
            incoming.bytes.extend_from_slice(&vec![b'h'; size]);
            incoming.bytes.extend_from_slice(b"body");
            let address = incoming.bytes.as_ptr();
            let head = incoming.take_head(size);
            assert_eq!((head.len(), &incoming.bytes[..]), (size, &b"body"[..]));
            assert_eq!(head.as_ptr() == address, shares, "{size}");
        }
    }

    #[test]
    fn small_pieces_do_not_hold_their_buffers() {
        for (lent, size, copied) in [
            (Size::Small, 511, true),
            (Size::Small, 512, false),
            (Size::Large, 16 * 1024 - 1, true),
            (Size::Large, 16 * 1024, false),
        ] {
            let incoming = Incoming { bytes: BytesMut::new(), size: lent, lent: Some(lent) };
            let data = Bytes::from(vec![b'd'; size]);
            let address = data.as_ptr();
            let detached = incoming.detach(data.clone());
            assert_eq!((detached.as_ptr() != address, &detached), (copied, &data), "{size}");
        }
    }

    #[tokio::test]
    async fn no_buffer_is_held_while_nothing_is_there() {
        let (mut ours, mut theirs) = tokio::io::duplex(100);
        let mut incoming = Incoming::default();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(incoming.poll_fill(&mut ours, cx).is_pending());
        assert_eq!(incoming.bytes.capacity(), 0);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"abc").await.unwrap();
        assert!(matches!(incoming.poll_fill(&mut ours, cx), Poll::Ready(Ok(3))));
        assert!(incoming.bytes.capacity() > 0);
        drop(theirs);
        assert!(matches!(incoming.poll_fill(&mut ours, cx), Poll::Ready(Ok(0))));
        assert_eq!(incoming.bytes, "abc");
        incoming.bytes.clear();
        incoming.release();
        assert_eq!(incoming.bytes.capacity(), 0);
    }
}
