//! Which of the headers that the proxy looks for a message has, found in one pass over their names.
//!
//! Most messages have few of them: looking each one up costs more than all the rest of the head.

use ::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::head::names;

/// Headers that belong to one connection.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    names::KEEP_ALIVE,
    names::PROXY_CONNECTION,
    names::HTTP2_SETTINGS,
];
/// Headers that a `Connection` field cannot have removed: message framing, and what proxies say of the client.
static PROTECTED: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CACHE_CONTROL,
    names::FORWARDED_FOR,
    names::FORWARDED_PROTO,
    names::FORWARDED_CLIENT_CERT,
    names::REQUEST_ID,
];

/// What a message has. It may say of a header that it is there when it was removed since, never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// Of these headers.
    pub fn new(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |seen, name| seen | bit(name.as_str())))
    }

    /// Whether the header, which is one of those that are looked for, is there.
    pub fn has(self, name: &HeaderName) -> bool {
        self.0 & bit(name.as_str()) != 0
    }

    /// Takes a header out, which is one of those that are looked for.
    pub fn take(self, headers: &mut HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
        if self.has(name) { headers.remove(name) } else { None }
    }

    /// Removes what belongs to one connection. `te: trailers` stays: gRPC asks for it end to end.
    pub fn remove_hop_by_hop(self, headers: &mut HeaderMap) {
        if self.0 & ((1 << HOP_BY_HOP.len()) - 1) == 0 {
            return;
        }
        if self.has(&header::CONNECTION) {
            let named: Vec<_> = connection_tokens(headers)
                .filter_map(|token| HeaderName::try_from(token).ok())
                .filter(|name| !PROTECTED.contains(name))
                .collect();
            for name in named {
                headers.remove(name);
            }
        }
        let trailers = self.has(&header::TE)
            && headers
                .get_all(header::TE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|token| token.trim().eq_ignore_ascii_case("trailers"));
        for name in &HOP_BY_HOP {
            self.take(headers, name);
        }
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// The bit of a name, which is lower case; 0 for those that nobody looks for.
fn bit(name: &str) -> u32 {
    let at = match name {
        "connection" => 0,
        "te" => 1,
        "upgrade" => 2,
        "transfer-encoding" => 3,
        "proxy-authenticate" => 4,
        "proxy-authorization" => 5,
        "keep-alive" => 6,
        "proxy-connection" => 7,
        "http2-settings" => 8,
        "host" => 9,
        "expect" => 10,
        "x-envoy-expected-rq-timeout-ms" => 11,
        "x-envoy-attempt-count" => 12,
        "x-envoy-peer-metadata-id" => 13,
        "x-envoy-peer-metadata" => 14,
        "x-request-id" => 15,
        "x-forwarded-for" => 16,
        "x-forwarded-proto" => 17,
        "x-forwarded-client-cert" => 18,
        _ => return 0,
    };
    1 << at
}

/// Every token of every `Connection` field, lower-cased.
pub fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Others, in the order of their bits behind [`HOP_BY_HOP`].
    static LOOKED_FOR: [HeaderName; 7] = [
        header::HOST,
        header::EXPECT,
        names::EXPECTED_TIMEOUT,
        names::ATTEMPT_COUNT,
        names::PEER_METADATA_ID,
        names::PEER_METADATA,
        names::REQUEST_ID,
    ];

    #[test]
    fn each_header_that_is_looked_for_has_a_bit_of_its_own() {
        let all = HOP_BY_HOP.iter().chain(&LOOKED_FOR);
        for (at, name) in all.enumerate() {
            let headers: HeaderMap =
                [(name.clone(), HeaderValue::from_static("x"))].into_iter().collect();
            let seen = Seen::new(&headers);
            assert_eq!(seen, Seen(1 << at), "{name}");
            assert!(seen.has(name));
            assert!(!Seen::new(&HeaderMap::new()).has(name), "{name}");
        }
        let other: HeaderMap =
            [(header::ACCEPT, HeaderValue::from_static("x"))].into_iter().collect();
        assert_eq!(Seen::new(&other), Seen(0));
    }

    #[test]
    fn what_is_taken_is_gone_and_the_rest_stays() {
        let mut headers: HeaderMap = [
            (names::PEER_METADATA, HeaderValue::from_static("m")),
            (header::ACCEPT, HeaderValue::from_static("a")),
        ]
        .into_iter()
        .collect();
        let seen = Seen::new(&headers);
        assert_eq!(seen.take(&mut headers, &names::PEER_METADATA_ID), None);
        assert_eq!(seen.take(&mut headers, &names::PEER_METADATA).unwrap(), "m");
        assert_eq!(headers.len(), 1);
    }
}
