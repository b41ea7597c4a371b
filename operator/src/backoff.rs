//! Pauses between attempts: twice as long each time, with some chance in them, up to a limit.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

/// The pauses of one thing that is attempted.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Tells of a failed attempt: the first one of a row to everybody, the others to who looks closely.
    pub fn tell(&self, what: &str, error: &(dyn std::error::Error + 'static)) {
        if self.next == FIRST {
            tracing::warn!(error, "{what}, trying again");
        } else {
            tracing::debug!(error, "{what}, trying again");
        }
    }

    /// The pause before the next attempt: between half of it and all of it.
    pub fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The last attempt was a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        for expected in [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000] {
            let pause = backoff.next();
            let expected = Duration::from_millis(expected);
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} for {expected:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
