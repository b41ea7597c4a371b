//! Durations as YAML writes them: protobuf's form (`1.5s`) and Go's (`1m30s`, `100ms`).

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest duration that protobuf knows: about 10,000 years, in seconds.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A duration, to the nanosecond, never negative. Written in seconds: `1.5s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(pub time::Duration);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not `<number><unit>` once or more.
    #[error(
        "not a duration: expected a number and a unit, such as \"1.5s\", \"100ms\" or \"1m30s\""
    )]
    Malformed,
    /// A number without a unit.
    #[error("a duration needs a unit: ns, us, ms, s, m or h")]
    NoUnit,
    /// Below zero.
    #[error("a duration cannot be negative")]
    Negative,
    /// More than protobuf can express.
    #[error("the duration is too long")]
    TooLong,
}

impl Duration {
    /// No time at all; many fields read it as "no limit".
    pub const ZERO: Self = Self(time::Duration::ZERO);

    /// Whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// Milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(time::Duration::from_millis(milliseconds))
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<time::Duration> for Duration {
    fn from(duration: time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            return write!(f, "{seconds}s");
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let text = text.strip_prefix('+').unwrap_or(text);
        if let Some(rest) = text.strip_prefix('-') {
            let duration: Self = rest.parse()?;
            return if duration.is_zero() { Ok(duration) } else { Err(DurationError::Negative) };
        }
        // Go writes no time as a bare zero.
        if text == "0" {
            return Ok(Self::ZERO);
        }
        if text.is_empty() {
            return Err(DurationError::Malformed);
        }
        let (mut rest, mut nanos) = (text, 0_u128);
        while !rest.is_empty() {
            let (part, tail) = leading_part(rest)?;
            nanos = nanos.checked_add(part).ok_or(DurationError::TooLong)?;
            rest = tail;
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| DurationError::TooLong)?;
        if seconds > MAX_SECONDS {
            return Err(DurationError::TooLong);
        }
        let subsec = u32::try_from(nanos % 1_000_000_000).map_err(|_| DurationError::TooLong)?;
        Ok(Self(time::Duration::new(seconds, subsec)))
    }
}

/// One `<number><unit>` in nanoseconds, and what follows it.
fn leading_part(text: &str) -> Result<(u128, &str), DurationError> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::Malformed);
    }
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "" => return Err(DurationError::NoUnit),
        _ => return Err(DurationError::Malformed),
    };
    // Twenty digits overflow no u128 whatever the unit; more can only be too long.
    if whole.trim_start_matches('0').len() > 20 {
        return Err(DurationError::TooLong);
    }
    let whole: u128 = if whole.is_empty() { 0 } else { parse_digits(whole)? };
    // What is below a nanosecond is cut off, as Go does.
    let fraction = &fraction[..fraction.len().min(18)];
    let below = if fraction.is_empty() {
        0
    } else {
        parse_digits(fraction)? * scale / 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18))
    };
    let nanos = whole.checked_mul(scale).and_then(|n| n.checked_add(below));
    Ok((nanos.ok_or(DurationError::TooLong)?, rest))
}

fn parse_digits(digits: &str) -> Result<u128, DurationError> {
    digits.parse().map_err(|_| DurationError::Malformed)
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-weft-duration": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_both_forms_and_written_in_seconds() {
        for (text, nanos, written) in [
            ("1.5s", 1_500_000_000, "1.5s"),
            ("0s", 0, "0s"),
            ("0", 0, "0s"),
            ("-0s", 0, "0s"),
            ("+2s", 2_000_000_000, "2s"),
            ("100ms", 100_000_000, "0.1s"),
            ("1m30s", 90_000_000_000, "90s"),
            ("1h0.5m", 3_630_000_000_000, "3630s"),
            ("5m", 300_000_000_000, "300s"),
            (".5s", 500_000_000, "0.5s"),
            ("1.s", 1_000_000_000, "1s"),
            ("3us", 3_000, "0.000003s"),
            ("3µs", 3_000, "0.000003s"),
            ("1.0000000019s", 1_000_000_001, "1.000000001s"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.0, time::Duration::from_nanos(nanos), "{text}");
            assert_eq!(duration.to_string(), written, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_says_why() {
        for (text, error) in [
            ("", DurationError::Malformed),
            ("s", DurationError::Malformed),
            (".s", DurationError::Malformed),
            ("1.2.3s", DurationError::Malformed),
            ("1 s", DurationError::Malformed),
            ("1d", DurationError::Malformed),
            ("--1s", DurationError::Negative),
            ("5", DurationError::NoUnit),
            ("1m5", DurationError::NoUnit),
            ("-1s", DurationError::Negative),
            ("315576000001s", DurationError::TooLong),
            ("99999999999999999999999999999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(error), "{text}");
        }
    }
}
