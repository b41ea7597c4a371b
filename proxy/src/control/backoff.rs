//! Waiting longer and longer between attempts, with jitter, so that proxies do not come back all at once.

use std::time::Duration;

/// Doubles from `base` to `max`; each wait is between half of it and all of it.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `base`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, next: base }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = self.next.saturating_mul(2).min(self.max);
        wait
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.base;
    }

    /// Changes the longest wait.
    pub fn limit(&mut self, max: Duration) {
        self.max = max.max(self.base);
        self.next = self.next.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_begin_anew() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(base, max);
        for full in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let wait = backoff.wait();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= base);
    }
}
