//! The `date` of responses, formatted once per second and thread.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::HeaderValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::net::clock;

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
const SIZE: usize = 29;

thread_local! {
    /// With until when it is the date.
    static LAST: RefCell<(Option<Instant>, [u8; SIZE])> = const { RefCell::new((None, [b' '; SIZE])) };
    static VALUE: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
}

/// Now, as a header's value.
pub fn now() -> [u8; SIZE] {
    let now = clock::now();
    LAST.with_borrow_mut(|last| {
        if last.0.is_none_or(|until| now >= until) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let left = Duration::from_secs(1)
                .saturating_sub(Duration::from_nanos(since.subsec_nanos().into()));
            *last = (Some(now + left), format(since.as_secs()));
        }
        last.1
    })
}

/// The same, which costs no copy where it is the same second.
pub fn value() -> HeaderValue {
    let now = now();
    VALUE.with_borrow_mut(|value| {
        if value.as_bytes() != now.as_slice() {
            *value = HeaderValue::from_bytes(&now).unwrap_or(HeaderValue::from_static(""));
        }
        value.clone()
    })
}

fn format(seconds: u64) -> [u8; SIZE] {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let name = |name: String| name.get(..3).unwrap_or_default().to_owned();
    let text = format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        name(at.weekday().to_string()),
        at.day(),
        name(at.month().to_string()),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    );
    text.into_bytes().try_into().unwrap_or([b' '; SIZE])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_709_164_799, "Wed, 28 Feb 2024 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&format(seconds)).unwrap(), expected);
        }
        assert!(now().ends_with(b" GMT"));
        assert!(value().as_bytes().ends_with(b" GMT"));
    }
}
