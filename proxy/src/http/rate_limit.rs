//! Local rate limiting: a token bucket in one atomic word, shared by the data threads.
//!
//! Source: Envoy's local rate limit filter. The bucket starts full and is filled at whole intervals.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::config::filter::{LocalRateLimit, TokenBucket};

impl TokenBucket {
    /// A full bucket. An interval of nothing counts as a nanosecond.
    pub fn new(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Self {
        Self {
            max_tokens,
            tokens_per_fill,
            fill_interval: fill_interval.max(Duration::from_nanos(1)),
            state: AtomicU64::new(u64::from(max_tokens)),
            since: Instant::now(),
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since).as_nanos();
        let interval = elapsed / self.fill_interval.as_nanos().max(1);
        // After 2^32 intervals the bucket is not filled any more; at Envoy's shortest interval (50 ms) that is 6 years.
        let interval = u32::try_from(interval).unwrap_or(u32::MAX);
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let (filled, tokens) = ((state >> 32) as u32, state as u32);
            // Another thread may be ahead with a later `now`.
            let newest = interval.max(filled);
            let gained = u64::from(newest - filled) * u64::from(self.tokens_per_fill);
            let tokens = (u64::from(tokens) + gained).min(u64::from(self.max_tokens));
            let (left, taken) = match tokens.checked_sub(1) {
                Some(left) => (left, true),
                None => (0, false),
            };
            let next = u64::from(newest) << 32 | left;
            match self.state.compare_exchange_weak(
                state,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return taken,
                Err(current) => state = current,
            }
        }
    }
}

/// What the filter did, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Not looked at.
    Disabled,
    /// Within the limit.
    Within,
    /// Over the limit, but let through.
    NotEnforced,
    /// Over the limit and refused.
    Refused,
}

/// Counts a request.
pub fn check(limit: &LocalRateLimit, now: Instant) -> Limited {
    if !limit.enabled.hit() {
        Limited::Disabled
    } else if limit.bucket.take(now) {
        Limited::Within
    } else if limit.enforced.hit() {
        Limited::Refused
    } else {
        Limited::NotEnforced
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_at_whole_intervals() {
        let bucket = TokenBucket::new(3, 2, Duration::from_secs(10));
        let at = |seconds| bucket.since + Duration::from_secs(seconds);
        let take = |seconds, times| (0..times).filter(|_| bucket.take(at(seconds))).count();
        assert_eq!(take(0, 10), 3);
        assert_eq!(take(9, 10), 0);
        assert_eq!(take(10, 10), 2);
        assert_eq!(take(19, 10), 0);
        // Never more than it holds, however long nobody took.
        assert_eq!(take(1_000, 10), 3);
        // A thread whose clock was read earlier does not take it back.
        assert_eq!(take(990, 10), 0);
        assert_eq!(take(1_010, 10), 2);
    }

    #[test]
    fn threads_share_one_bucket() {
        let bucket = Arc::new(TokenBucket::new(1_000, 1, Duration::from_secs(3_600)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let bucket = bucket.clone();
                std::thread::spawn(move || (0..1_000).filter(|_| bucket.take(bucket.since)).count())
            })
            .collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn shares_decide_what_is_counted_and_refused() {
        use crate::config::filter::Fraction;
        let limit = |enabled, enforced| LocalRateLimit {
            stat_prefix: "t".into(),
            bucket: Arc::new(TokenBucket::new(1, 1, Duration::from_secs(60))),
            enabled: Fraction(enabled),
            enforced: Fraction(enforced),
            status: 429,
            response_headers: Vec::new(),
            rate_limited_as_resource_exhausted: false,
        };
        let twice = |limit: LocalRateLimit| {
            let now = limit.bucket.since;
            (check(&limit, now), check(&limit, now))
        };
        assert_eq!(twice(limit(0, 1_000_000)), (Limited::Disabled, Limited::Disabled));
        assert_eq!(twice(limit(1_000_000, 0)), (Limited::Within, Limited::NotEnforced));
        assert_eq!(twice(limit(1_000_000, 1_000_000)), (Limited::Within, Limited::Refused));
    }
}
