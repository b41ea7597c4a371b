//! Copying bytes both ways until both sides have ended, one breaks, or both are silent for too long.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::net::scratch::{self, Scratch};

/// What one read takes at first, and again once the other side has been slow.
const SMALL: usize = 16 * 1024;
/// How long bytes may have been copied before they are reported.
const REPORT: Duration = Duration::from_secs(5);
/// Bytes of one direction after which the task lets others run.
const TURN: usize = 256 * 1024;

/// How copying ended.
#[derive(Debug)]
pub enum End {
    /// Both sides have said that they are done.
    Closed,
    /// Nothing moved for as long as is allowed.
    Idle,
    /// The client's connection broke.
    Downstream,
    /// The endpoint's connection broke.
    Upstream(io::Error),
}

/// One direction. It holds bytes only while the side that they are for does not take them.
#[derive(Debug)]
struct Pump {
    held: Vec<u8>,
    sent: usize,
    /// What one read takes: more than [`SMALL`] only as long as both sides keep up, so that slow ones cost little memory.
    room: usize,
    total: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Copying,
    Ending,
    Ended,
}

/// Which side broke.
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

thread_local! {
    static RELAYING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Pump {
    fn new() -> Self {
        Self { held: Vec::new(), sent: 0, room: SMALL, total: 0, state: State::Copying }
    }

    /// Moves what can be moved. `Ready` when this direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        if !self.held.is_empty() {
            let rest = &self.held[self.sent..];
            let (sent, taken) = send(cx, to, rest);
            self.sent += sent;
            self.total += sent as u64;
            ready!(taken).map_err(Broken::Writing)?;
            (self.held, self.sent) = (Vec::new(), 0);
        }
        let mut moved = 0;
        while self.state == State::Copying {
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut scratch = Scratch::take(&RELAYING);
            let mut buffer = ReadBuf::new(&mut scratch[..self.room]);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    // TLS keeps written bytes until it is told to send them.
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::Writing)?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.state = State::Ending,
                // TLS that ends without saying so.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.state = State::Ending;
                }
                Poll::Ready(Ok(())) => {
                    moved += buffer.filled().len();
                    ready!(self.pass_on(cx, to, buffer.filled()))?;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Reading(error))),
            }
        }
        if self.state == State::Ending {
            // The other side may have gone already; then there is nobody to tell.
            let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
            self.state = State::Ended;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what was read, and holds what is not taken.
    fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> Poll<Result<(), Broken>> {
        let (sent, taken) = send(cx, to, bytes);
        self.total += sent as u64;
        if taken.is_pending() {
            (self.held, self.room) = (bytes[sent..].to_vec(), SMALL);
        } else if bytes.len() == self.room {
            self.room = scratch::SIZE;
        }
        taken.map_err(Broken::Writing)
    }
}

/// Writes all of the bytes, or as much as is taken at once: says how much.
fn send(
    cx: &mut Context<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> (usize, Poll<io::Result<()>>) {
    let mut sent = 0;
    while sent < bytes.len() {
        match Pin::new(&mut *to).poll_write(cx, &bytes[sent..]) {
            Poll::Ready(Ok(0)) => {
                return (sent, Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
            }
            Poll::Ready(Ok(size)) => sent += size,
            Poll::Ready(Err(error)) => return (sent, Poll::Ready(Err(error))),
            Poll::Pending => return (sent, Poll::Pending),
        }
    }
    (sent, Poll::Ready(Ok(())))
}

/// Copies. `report` is told now and then, and at the end, how many bytes were received from the client and sent to it
/// in all.
pub async fn copy<D, U>(
    downstream: &mut D,
    upstream: &mut U,
    idle: Option<Duration>,
    mut report: impl FnMut(u64, u64),
) -> End
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Pump::new(), Pump::new());
    let mut last = Instant::now();
    let mut moved = 0;
    let mut told = 0;
    let mut idle_timer = idle.map(|idle| Box::pin(sleep_until(last + idle)));
    let mut report_timer: Option<Pin<Box<Sleep>>> = None;
    let end = poll_fn(|cx| {
        let up_done = match up.poll(cx, downstream, upstream) {
            Poll::Ready(Err(Broken::Reading(_))) => return Poll::Ready(End::Downstream),
            Poll::Ready(Err(Broken::Writing(error))) => return Poll::Ready(End::Upstream(error)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        let down_done = match down.poll(cx, upstream, downstream) {
            Poll::Ready(Err(Broken::Reading(error))) => return Poll::Ready(End::Upstream(error)),
            Poll::Ready(Err(Broken::Writing(_))) => return Poll::Ready(End::Downstream),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if up_done && down_done {
            return Poll::Ready(End::Closed);
        }
        let total = up.total + down.total;
        if total != moved {
            moved = total;
            last = Instant::now();
            report_timer.get_or_insert_with(|| Box::pin(sleep_until(last + REPORT)));
        }
        if let Some(timer) = &mut report_timer
            && timer.as_mut().poll(cx).is_ready()
        {
            report_timer = None;
            told = total;
            report(up.total, down.total);
        }
        if let (Some(idle), Some(timer)) = (idle, &mut idle_timer) {
            while timer.as_mut().poll(cx).is_ready() {
                // The timer is not moved with every byte, only when it fires too early.
                if last.elapsed() >= idle {
                    return Poll::Ready(End::Idle);
                }
                timer.as_mut().reset(last + idle);
            }
        }
        Poll::Pending
    })
    .await;
    if up.total + down.total != told {
        report(up.total, down.total);
    }
    end
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn much_is_read_at_once_only_while_the_other_side_keeps_up() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut client, mut from) = duplex(1 << 20);
        let (mut to, mut server) = duplex(300_000);
        let mut pump = Pump::new();
        let sent: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
        client.write_all(&sent[..100_000]).await.unwrap();
        assert!(pump.poll(cx, &mut from, &mut to).is_pending());
        assert_eq!((pump.room, pump.held.capacity(), pump.total), (scratch::SIZE, 0, 100_000));
        client.write_all(&sent[100_000..]).await.unwrap();
        while pump.held.is_empty() {
            assert!(pump.poll(cx, &mut from, &mut to).is_pending());
        }
        // What was read and not taken, and no more than that.
        assert!(pump.held.len() <= scratch::SIZE && pump.room == SMALL, "{pump:?}");
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        let pumping = poll_fn(|cx| pump.poll(cx, &mut from, &mut to));
        let (pumped, read) = tokio::join!(pumping, server.read_to_end(&mut received));
        assert!(pumped.is_ok() && read.is_ok() && received == sent);
        assert_eq!((pump.held.capacity(), pump.total), (0, 400_000));
    }
}
