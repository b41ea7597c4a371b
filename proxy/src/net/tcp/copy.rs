//! Copying bytes both ways until both sides have ended, one breaks, or both are silent for too long.

use std::{
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

/// Bytes that a direction holds at most.
const BUFFER: usize = 16 * 1024;
/// How long bytes may have been copied before they are reported.
const REPORT: Duration = Duration::from_secs(5);
/// Reads of one direction before the task lets others run.
const TURNS: usize = 16;

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

/// One direction.
#[derive(Debug)]
struct Pump {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
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

impl Pump {
    fn new() -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { buffer, start: 0, end: 0, total: 0, state: State::Copying }
    }

    /// Moves what can be moved. `Ready` when this direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        let mut turns = 0;
        loop {
            while let Some(rest) = self.buffer.get(self.start..self.end).filter(|r| !r.is_empty()) {
                let written =
                    ready!(Pin::new(&mut *to).poll_write(cx, rest)).map_err(Broken::Writing)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Writing(io::ErrorKind::WriteZero.into())));
                }
                self.start += written;
                self.total += written as u64;
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    // The other side may have gone already; then there is nobody to tell.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Ended;
                    continue;
                }
                State::Copying => {}
            }
            turns += 1;
            if turns > TURNS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
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
                Poll::Ready(Ok(())) => (self.start, self.end) = (0, buffer.filled().len()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Reading(error))),
            }
        }
    }
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
