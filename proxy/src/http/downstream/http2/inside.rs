//! Wake-ups of a future by its own parts: they say which part is to be polled, and while the future is being polled they
//! are not another turn of its task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// A part of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The frames that are read and written.
    Frames = 1,
    /// The streams' requests and responses.
    Streams = 2,
}

/// The future is being polled.
const POLLED: u8 = 4;

/// Who of a future's parts has been woken.
#[derive(Debug)]
pub struct Inside {
    signal: Arc<Signal>,
    frames: Waker,
    streams: Waker,
}

/// Parts may be woken by any thread, so it is one atomic state that says who hears of it: the parts that woke, and
/// [`POLLED`].
#[derive(Debug)]
struct Signal {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Signal {
    fn wake(&self, part: Part) {
        if self.state.fetch_or(part as u8, SeqCst) & POLLED == 0 {
            self.task.wake();
        }
    }
}

/// Wakes one part.
struct Bell {
    signal: Arc<Signal>,
    part: Part,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signal.wake(self.part);
    }
}

impl Inside {
    /// All parts are to be polled.
    pub fn new() -> Self {
        let all = Part::Frames as u8 | Part::Streams as u8;
        let signal = Arc::new(Signal { task: AtomicWaker::new(), state: AtomicU8::new(all) });
        let bell = |part| Arc::new(Bell { signal: signal.clone(), part }).into();
        let (frames, streams) = (bell(Part::Frames), bell(Part::Streams));
        Self { signal, frames, streams }
    }

    /// The future is polled by this task.
    pub fn enter(&self, task: &Waker) {
        self.signal.task.register(task);
        self.signal.state.fetch_or(POLLED, SeqCst);
    }

    /// The waker to poll a part with, when it is to be polled: what wakes it from now on counts anew.
    pub fn woken(&self, part: Part) -> Option<&Waker> {
        let woken = self.signal.state.fetch_and(!(part as u8), SeqCst) & part as u8 != 0;
        woken.then_some(self.waker(part))
    }

    /// The waker of a part.
    pub fn waker(&self, part: Part) -> &Waker {
        match part {
            Part::Frames => &self.frames,
            Part::Streams => &self.streams,
        }
    }

    /// A part is to be polled.
    pub fn mark(&self, part: Part) {
        self.signal.wake(part);
    }

    /// Whether no part is to be polled.
    pub fn is_quiet(&self) -> bool {
        self.signal.state.load(SeqCst) == POLLED
    }

    /// From here on a wake-up is the task's, and so is one that was not seen to.
    pub fn leave(&self) {
        if self.signal.state.fetch_and(!POLLED, SeqCst) != POLLED {
            self.signal.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn parts_that_wake_are_polled_again_without_another_turn_of_the_task() {
        let task = Arc::<Task>::default();
        let turns = || task.0.load(SeqCst);
        let inside = Inside::new();
        inside.enter(&task.clone().into());
        let frames = inside.woken(Part::Frames).unwrap().clone();
        let streams = inside.woken(Part::Streams).unwrap().clone();
        assert!(inside.is_quiet());
        frames.wake_by_ref();
        assert!(!inside.is_quiet());
        assert!(inside.woken(Part::Streams).is_none());
        assert!(inside.woken(Part::Frames).is_some());
        inside.leave();
        assert_eq!(turns(), 0);
        // Outside it is a turn, which knows whose.
        streams.wake_by_ref();
        streams.wake_by_ref();
        assert_eq!(turns(), 1);
        inside.enter(&task.clone().into());
        assert!(inside.woken(Part::Frames).is_none());
        assert!(inside.woken(Part::Streams).is_some());
        // Between the last look and the end nothing is lost.
        frames.wake_by_ref();
        inside.leave();
        assert_eq!(turns(), 2);
    }

    #[test]
    fn no_wake_up_of_another_thread_is_lost() {
        let task = Arc::<Task>::default();
        let inside = Inside::new();
        for round in 0..2_000 {
            let before = task.0.load(SeqCst);
            inside.enter(&task.clone().into());
            let _ = inside.woken(Part::Streams);
            let frames = inside.frames.clone();
            let _ = inside.woken(Part::Frames);
            let other = std::thread::spawn(move || frames.wake());
            let seen = (0..round % 50).any(|_| inside.woken(Part::Frames).is_some());
            inside.leave();
            other.join().unwrap();
            assert!(seen || task.0.load(SeqCst) > before, "round {round}");
        }
    }
}
