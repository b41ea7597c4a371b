//! The process's coarse clock: time since the first use, as numbers that fit an atomic.

use std::{sync::LazyLock, time::Duration};

use tokio::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds on the process's clock. Follows tokio's clock, so that tests may pause it.
pub fn now_ms() -> u64 {
    millis(Instant::now().saturating_duration_since(*START))
}

/// A duration in whole milliseconds, at most what 64 bits hold.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
