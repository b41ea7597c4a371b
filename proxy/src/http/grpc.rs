//! What the proxy must know of gRPC: statuses, and how they map to HTTP's.
//!
//! Source: gRPC's `http-grpc-status-mapping.md`, `PROTOCOL-HTTP2.md` (timeouts), Envoy's `Grpc::Utility`.

use std::time::Duration;

use ::http::{HeaderMap, StatusCode};

use super::head::names;

/// `CANCELLED`
pub const CANCELLED: u32 = 1;
/// `UNKNOWN`
pub const UNKNOWN: u32 = 2;
/// `DEADLINE_EXCEEDED`
pub const DEADLINE_EXCEEDED: u32 = 4;
/// `PERMISSION_DENIED`
pub const PERMISSION_DENIED: u32 = 7;
/// `RESOURCE_EXHAUSTED`
pub const RESOURCE_EXHAUSTED: u32 = 8;
/// `UNIMPLEMENTED`
pub const UNIMPLEMENTED: u32 = 12;
/// `INTERNAL`
pub const INTERNAL: u32 = 13;
/// `UNAVAILABLE`
pub const UNAVAILABLE: u32 = 14;
/// `UNAUTHENTICATED`
pub const UNAUTHENTICATED: u32 = 16;

/// The gRPC status of an HTTP status that is not gRPC's.
pub fn from_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The HTTP status of a gRPC status, for clients that do not speak gRPC.
pub fn to_http(status: u32) -> StatusCode {
    match status {
        0 => StatusCode::OK,
        // Nginx's "client closed request".
        CANCELLED => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        DEADLINE_EXCEEDED => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        PERMISSION_DENIED => StatusCode::FORBIDDEN,
        RESOURCE_EXHAUSTED => StatusCode::TOO_MANY_REQUESTS,
        UNIMPLEMENTED => StatusCode::NOT_IMPLEMENTED,
        UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `grpc-status` of headers or trailers.
pub fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get(names::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// `grpc-timeout`.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(names::GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// A `grpc-message` value: what is not printable ASCII, and the percent sign, is escaped.
pub fn escape_message(message: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_strictly() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("", None),
            ("S", None),
            ("1", None),
            ("+1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                names::GRPC_TIMEOUT,
                ::http::HeaderValue::from_bytes(text.as_bytes()).unwrap(),
            );
            assert_eq!(timeout(&headers), expected, "{text}");
        }
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(escape_message("no 100% é\n"), "no 100%25 %C3%A9%0A");
    }
}
