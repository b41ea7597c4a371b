//! The process's coarse clock: time since the first use, as numbers that fit an atomic; and one look at the clock, and one
//! timer, for all that a task does in one turn.

use std::{
    cell::Cell,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A task's turn.
#[derive(Clone, Copy)]
struct Turn {
    began: Instant,
    /// Who runs it keeps the timer of all alarms.
    keeps_timer: bool,
    /// The earliest alarm that was polled.
    alarm: Option<Instant>,
}

thread_local! {
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// Now; within [`turn`] that is when it began.
pub fn now() -> Instant {
    TURN.get().map_or_else(Instant::now, |turn| turn.began)
}

/// Runs what takes no time that counts: for it, it is `began`. Answers when the caller must poll again for the sake of an
/// [`Alarm`], whatever wakes it or does not.
pub fn turn<T>(began: Instant, run: impl FnOnce() -> T) -> (T, Option<Instant>) {
    still(began, true, run)
}

/// The same for one who polls only what was woken: alarms have timers of their own.
pub fn turn_of_woken<T>(run: impl FnOnce() -> T) -> T {
    still(Instant::now(), false, run).0
}

fn still<T>(began: Instant, keeps_timer: bool, run: impl FnOnce() -> T) -> (T, Option<Instant>) {
    struct Ends(Option<Turn>);
    impl Drop for Ends {
        fn drop(&mut self) {
            TURN.set(self.0);
        }
    }
    let _ends = Ends(TURN.replace(Some(Turn { began, keeps_timer, alarm: None })));
    let done = run();
    (done, TURN.get().and_then(|turn| turn.alarm))
}

/// A time to wait for. Within [`turn`] it costs nothing: who runs the turn keeps the timer. Elsewhere it has a timer of its
/// own. Within a turn it must be polled by every poll, not only when it is woken.
#[derive(Debug)]
pub struct Alarm {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// At a time.
    pub fn at(at: Instant) -> Self {
        Self { at, timer: None }
    }

    /// After so long.
    pub fn after(time: Duration) -> Self {
        Self::at(now() + time)
    }

    /// Puts it off until so long from now.
    pub fn reset(&mut self, time: Duration) {
        self.at = now() + time;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(self.at);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(turn) = TURN.get().filter(|turn| turn.keeps_timer) else {
            let at = this.at;
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            return timer.as_mut().poll(cx);
        };
        if turn.began >= this.at {
            return Poll::Ready(());
        }
        let earliest = turn.alarm.map_or(this.at, |other| other.min(this.at));
        TURN.set(Some(Turn { alarm: Some(earliest), ..turn }));
        Poll::Pending
    }
}

/// Milliseconds on the process's clock. Follows tokio's clock, so that tests may pause it.
pub fn now_ms() -> u64 {
    millis(now().saturating_duration_since(*START))
}

/// A duration in whole milliseconds, at most what 64 bits hold.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Waker};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_turn_and_goes_on_after_it() {
        let began = now();
        let ((first, second), alarm) = turn(Instant::now(), || (now(), now()));
        assert!(first >= began && second == first && alarm.is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now() - began, Duration::from_secs(1));
        let stopped = std::panic::catch_unwind(|| turn(Instant::now(), || panic!("in a turn")));
        assert!(stopped.is_err() && TURN.get().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_polled_when_woken_is_woken_by_its_alarm() {
        let began = now();
        let mut alarm = Alarm::after(Duration::from_secs(2));
        poll_fn(|cx| turn_of_woken(|| Pin::new(&mut alarm).poll(cx))).await;
        assert_eq!(now() - began, Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn alarms_tell_whoever_runs_the_turn_or_wake_by_themselves() {
        let began = now();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut late = Alarm::after(Duration::from_secs(9));
        let mut early = Alarm::after(Duration::from_secs(2));
        let mut poll = || {
            turn(Instant::now(), || {
                (Pin::new(&mut late).poll(cx).is_ready(), Pin::new(&mut early).poll(cx).is_ready())
            })
        };
        assert_eq!(poll(), ((false, false), Some(began + Duration::from_secs(2))));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(poll(), ((false, true), Some(began + Duration::from_secs(9))));
        early.reset(Duration::from_secs(3));
        let mut early = pin!(early);
        poll_fn(|cx| early.as_mut().poll(cx)).await;
        assert_eq!(now() - began, Duration::from_secs(5));
        late.await;
        assert_eq!(now() - began, Duration::from_secs(9));
    }
}
