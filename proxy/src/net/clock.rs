//! The process's coarse clock: time since the first use, as numbers that fit an atomic; and one look at the clock for all
//! that a task does in one turn.

use std::{cell::Cell, sync::LazyLock, time::Duration};

use tokio::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Now; within [`turn`] that is when it began.
pub fn now() -> Instant {
    TURN.get().unwrap_or_else(Instant::now)
}

/// Runs what takes no time that counts: the clock is looked at once.
pub fn turn<T>(run: impl FnOnce() -> T) -> T {
    struct Ends(Option<Instant>);
    impl Drop for Ends {
        fn drop(&mut self) {
            TURN.set(self.0);
        }
    }
    let _ends = Ends(TURN.replace(Some(Instant::now())));
    run()
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_turn_and_goes_on_after_it() {
        let began = now();
        let (inner, nested) = turn(|| {
            let first = now();
            (first, turn(now))
        });
        assert!(inner >= began && nested >= inner);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now() - began, Duration::from_secs(1));
        let stopped = std::panic::catch_unwind(|| turn(|| panic!("in a turn")));
        assert!(stopped.is_err() && TURN.get().is_none());
    }
}
