//! Durations on the command line: `90s`, `24h`, `1h30m`.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    let duration: weft_crds::Duration = text.parse().map_err(|error| format!("{error}"))?;
    Ok(duration.into())
}
