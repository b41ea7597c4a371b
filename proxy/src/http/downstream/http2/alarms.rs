//! One timer for all that the streams of a connection wait for.
//!
//! An alarm may be taken back: then the timer, which stays, wakes the connection in vain, once.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The earliest time that a stream waits for.
pub type Earliest = Rc<Cell<Option<Instant>>>;

/// What one stream waits for, and who is woken then.
#[derive(Debug, Default)]
pub struct Alarm {
    at: Option<Instant>,
    waker: Option<Waker>,
}

impl Alarm {
    /// Waits for a time, or for none.
    pub fn set(&mut self, at: Option<Instant>, cx: &Context<'_>, earliest: &Earliest) {
        self.at = at;
        let Some(at) = at else { return };
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        if earliest.get().is_none_or(|earliest| at < earliest) {
            earliest.set(Some(at));
        }
    }
}

/// The connection's timer.
#[derive(Debug, Default)]
pub struct Timer {
    earliest: Earliest,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What it is set to.
    set: Option<Instant>,
}

impl Timer {
    /// For the connection's streams.
    pub fn earliest(&self) -> &Earliest {
        &self.earliest
    }

    /// The connection itself waits for a time.
    pub fn wait(&self, at: Instant) {
        if self.earliest.get().is_none_or(|earliest| at < earliest) {
            self.earliest.set(Some(at));
        }
    }

    /// Wakes streams whose time has come.
    pub fn ring<'a>(&self, now: Instant, alarms: impl Iterator<Item = &'a Alarm>) {
        if self.earliest.get().is_none_or(|at| at > now) {
            return;
        }
        let mut next: Option<Instant> = None;
        for alarm in alarms {
            match (alarm.at, &alarm.waker) {
                (Some(at), Some(waker)) if at <= now => waker.wake_by_ref(),
                (Some(at), _) => next = Some(next.map_or(at, |next| next.min(at))),
                (None, _) => {}
            }
        }
        self.earliest.set(next);
    }

    /// Sees to it that the task is woken in time.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        let Some(at) = self.earliest.get() else { return };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if self.set.is_none_or(|set| at < set) {
            sleep.as_mut().reset(at);
            self.set = Some(at);
        }
        if sleep.as_mut().poll(cx).is_ready() {
            self.set = None;
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_stream_is_woken_at_its_time_by_one_timer() {
        let began = Instant::now();
        let after = |seconds| Some(began + Duration::from_secs(seconds));
        let mut timer = Timer::default();
        let mut alarms = [Alarm::default(), Alarm::default(), Alarm::default()];
        let mut rung = Vec::new();
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            let now = Instant::now();
            timer.ring(now, alarms.iter());
            match polls {
                1 => {
                    for (alarm, seconds) in alarms.iter_mut().zip([9, 5, 2]) {
                        alarm.set(after(seconds), cx, timer.earliest());
                    }
                }
                // The first that comes takes its place behind another; the one between is taken back.
                _ if alarms[2].at == after(2) && now == began + Duration::from_secs(2) => {
                    rung.push(now - began);
                    alarms[2].set(after(20), cx, timer.earliest());
                    alarms[1].set(None, cx, timer.earliest());
                }
                _ if alarms[0].at == after(9) && now == began + Duration::from_secs(9) => {
                    rung.push(now - began);
                    alarms[0].set(None, cx, timer.earliest());
                }
                _ if now == began + Duration::from_secs(20) => {
                    rung.push(now - began);
                    return Poll::Ready(());
                }
                _ => {}
            }
            timer.poll(cx);
            Poll::Pending
        })
        .await;
        assert_eq!(rung, [2, 9, 20].map(Duration::from_secs));
        assert!(polls < 20, "{polls}");
    }
}
