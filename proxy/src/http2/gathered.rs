//! A connection's bytes, of which those that one turn writes leave together.
//!
//! What is written is held, up to a limit, until the connection's owner sends it ([`Gathered::poll_send`]), which it does
//! when it has polled everything: a system call, and a TLS record, for the frames of many streams. Nothing is held
//! while the socket takes everything.

use std::{
    cell::{Cell, RefCell},
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is held at most; no more is taken before the socket takes some of it.
const MOST: usize = 80 * 1024;

thread_local! {
    /// A buffer for whoever needs one next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A handle of a connection's bytes; all handles are alike.
pub struct Gathered<IO>(Rc<RefCell<Held<IO>>>);

struct Held<IO> {
    io: IO,
    bytes: Vec<u8>,
    sent: usize,
    /// Why the connection cannot be written to.
    failed: Option<io::ErrorKind>,
}

impl<IO> Clone for Gathered<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<IO: fmt::Debug> fmt::Debug for Gathered<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gathered").field(&self.0.borrow().io).finish()
    }
}

impl<IO> Gathered<IO> {
    /// A first handle.
    pub fn new(io: IO) -> Self {
        Self(Rc::new(RefCell::new(Held { io, bytes: Vec::new(), sent: 0, failed: None })))
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Sends what is held. An error shows in the next read or write too.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<IO: AsyncWrite + Unpin> Held<IO> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let sent = self.poll_socket(cx);
        match &sent {
            Poll::Ready(Ok(())) => {
                let mut spare = std::mem::take(&mut self.bytes);
                spare.clear();
                SPARE.set(spare);
                self.sent = 0;
            }
            Poll::Ready(Err(error)) => {
                self.failed = Some(error.kind());
                (self.bytes, self.sent) = (Vec::new(), 0);
            }
            Poll::Pending => {
                // What waits for long is no larger than it is.
                self.bytes.drain(..self.sent);
                self.sent = 0;
                self.bytes.shrink_to_fit();
            }
        }
        sent
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                size => self.sent += size,
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn poll_hold<'a>(
        &mut self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.bytes.len() >= MOST {
            ready!(self.poll_send(cx))?;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
            self.bytes.reserve(MOST);
        }
        let before = self.bytes.len();
        for part in parts {
            let size = part.len().min(MOST - self.bytes.len());
            self.bytes.extend_from_slice(&part[..size]);
        }
        Poll::Ready(Ok(self.bytes.len() - before))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let held = &mut *self.0.borrow_mut();
        if let Some(kind) = held.failed {
            return Poll::Ready(Err(kind.into()));
        }
        Pin::new(&mut held.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_hold(cx, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_hold(cx, bufs.iter().map(|part| &**part))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Who writes has no say in when it is sent.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let held = &mut *self.0.borrow_mut();
        ready!(held.poll_send(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_one_turn_writes_leaves_together_and_nothing_is_lost_behind_a_slow_reader() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (near, mut far) = duplex(1000);
        let mut io = Gathered::new(near);
        let parts = [IoSlice::new(b"one "), IoSlice::new(b"two ")];
        assert_eq!(io.write_vectored(&parts).await.unwrap(), 8);
        io.write_all(b"three").await.unwrap();
        io.flush().await.unwrap();
        let mut read = vec![0; 100];
        assert!(Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut read)).is_pending());
        assert!(io.poll_send(cx).is_ready());
        let size = far.read(&mut read).await.unwrap();
        assert_eq!(&read[..size], b"one two three");
        assert_eq!(io.0.borrow().bytes.capacity(), 0);

        let much: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let mut written = 0;
        while let Poll::Ready(size) = Pin::new(&mut io).poll_write(cx, &much[written..]) {
            written += size.unwrap();
        }
        assert!((MOST..=MOST + 1000).contains(&written), "{written}");
        let rest = much[written..].to_vec();
        let writer = async {
            io.write_all(&rest).await.unwrap();
            io.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let (_, size) = tokio::join!(writer, far.read_to_end(&mut all));
        assert_eq!(size.unwrap(), much.len());
        assert!(all == much);
    }

    #[tokio::test]
    async fn an_error_shows_in_what_comes_next() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (near, far) = duplex(1000);
        let mut io = Gathered::new(near);
        drop(far);
        io.write_all(b"lost").await.unwrap();
        assert!(matches!(io.poll_send(cx), Poll::Ready(Err(_))));
        assert_eq!(io.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(io.flush().await.is_err() && io.read_u8().await.is_err());
    }
}
