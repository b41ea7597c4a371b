//! Waiting for conditions. Nothing here sleeps for a time that somebody guessed: what is awaited is asked again
//! until it holds, and a deadline ends a wait for what never comes.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// Far beyond what anything takes on a busy machine; only failures wait so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

const AGAIN: Duration = Duration::from_millis(20);

/// Asks until the answer is `Ok`; fails with the last error after [`PATIENCE`].
///
/// # Errors
/// When the deadline passes.
pub async fn until_ok<T>(
    what: &str,
    ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    until_ok_for(PATIENCE, what, ask).await
}

/// As [`until_ok`], with another deadline.
///
/// # Errors
/// When the deadline passes.
pub async fn until_ok_for<T>(
    patience: Duration,
    what: &str,
    ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    until_ok_every(AGAIN, patience, what, ask).await
}

/// As [`until_ok`], with another deadline, and another time between two questions.
///
/// # Errors
/// When the deadline passes.
pub async fn until_ok_every<T>(
    again: Duration,
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        // A question that never ends is one that failed.
        let left = deadline.saturating_duration_since(Instant::now()).max(again);
        let error = match tokio::time::timeout(left, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer"),
        };
        if Instant::now() >= deadline {
            return Err(error).with_context(|| format!("{what}: not within {patience:?}"));
        }
        tokio::time::sleep(again).await;
    }
}

/// Asks until the answer equals what is expected.
///
/// # Errors
/// When the deadline passes; the message has the last answer.
pub async fn until_eq<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    until_ok(what, async || {
        let answer = ask().await?;
        if answer != expected {
            bail!("is {answer:?}, expected {expected:?}");
        }
        Ok(())
    })
    .await
}
