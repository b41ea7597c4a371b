//! A request's head in one shape, whatever the protocol: what routes, policies and filters look at.
//!
//! Made by [`sanitize`](super::sanitize) from a codec's request, turned back into one by the router.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, uri::PathAndQuery};

use crate::net::grpc::is_grpc;

/// A request's head. `Host` is not among the headers: it is `authority`.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Whether the scheme is `https` (`x-forwarded-proto`, the transport, or an absolute target).
    pub https: bool,
    /// The authority (`Host`, `:authority`, or that of an absolute target).
    pub authority: HeaderValue,
    /// Path and query.
    pub target: PathAndQuery,
    /// The client's version.
    pub version: Version,
    /// Other headers.
    pub headers: HeaderMap,
}

impl Head {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The path without query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The authority as text; one that is not text is empty.
    pub fn authority(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }

    /// A header or pseudo header; several values are joined by commas, as Envoy does. Values that are not UTF-8 are read lossily.
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(pseudo) = name.strip_prefix(':') {
            return match pseudo {
                "method" => Some(self.method.as_str().into()),
                "authority" => Some(self.authority().into()),
                "path" => Some(self.target.as_str().into()),
                "scheme" => Some(self.scheme().into()),
                _ => None,
            };
        }
        if name == "host" {
            return Some(self.authority().into());
        }
        joined(&self.headers, name)
    }

    /// Whether this is a gRPC request.
    pub fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }
}

/// A header's values joined by commas.
pub fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
    let first = values.next()?;
    let mut all: Option<String> = None;
    for value in values {
        let text = all.get_or_insert_with(|| first.to_string());
        text.push(',');
        text.push_str(&value);
    }
    Some(match all {
        Some(all) => Cow::Owned(all),
        None => first,
    })
}

/// Header names of Envoy's and Istio's that have no constant elsewhere.
pub mod names {
    use super::HeaderName;

    macro_rules! names {
        ($($constant:ident = $name:literal;)*) => {
            $(#[doc = $name] pub const $constant: HeaderName = HeaderName::from_static($name);)*
        };
    }

    names! {
        ATTEMPT_COUNT = "x-envoy-attempt-count";
        EXPECTED_TIMEOUT = "x-envoy-expected-rq-timeout-ms";
        UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time";
        ORIGINAL_PATH = "x-envoy-original-path";
        OVERLOADED = "x-envoy-overloaded";
        RATE_LIMITED = "x-envoy-ratelimited";
        PEER_METADATA = "x-envoy-peer-metadata";
        PEER_METADATA_ID = "x-envoy-peer-metadata-id";
        DECORATOR_OPERATION = "x-envoy-decorator-operation";
        EXTERNAL_ADDRESS = "x-envoy-external-address";
        FORWARDED_FOR = "x-forwarded-for";
        FORWARDED_PROTO = "x-forwarded-proto";
        FORWARDED_CLIENT_CERT = "x-forwarded-client-cert";
        REQUEST_ID = "x-request-id";
        KEEP_ALIVE = "keep-alive";
        PROXY_CONNECTION = "proxy-connection";
        GRPC_STATUS = "grpc-status";
        GRPC_MESSAGE = "grpc-message";
        GRPC_TIMEOUT = "grpc-timeout";
        HTTP2_SETTINGS = "http2-settings";
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A head for tables: method, authority, target, headers.
    pub fn head(method: &str, authority: &str, target: &str, headers: &[(&str, &str)]) -> Head {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        Head {
            method: method.parse().unwrap(),
            https: false,
            authority: authority.parse().unwrap(),
            target: target.parse().unwrap(),
            version: Version::HTTP_11,
            headers: map,
        }
    }

    #[test]
    fn values_of_one_header_are_joined_and_pseudo_headers_are_found() {
        let head = head("GET", "a:80", "/x?y=1", &[("a", "1"), ("a", "2"), ("b", "3")]);
        let value = |name: &str| head.value(name).map(Cow::into_owned);
        assert_eq!(value("a").as_deref(), Some("1,2"));
        assert_eq!(value("b").as_deref(), Some("3"));
        assert_eq!(value("c"), None);
        assert_eq!(value(":path").as_deref(), Some("/x?y=1"));
        assert_eq!(value(":authority").as_deref(), Some("a:80"));
        assert_eq!(value("host").as_deref(), Some("a:80"));
        assert_eq!(value(":method").as_deref(), Some("GET"));
        assert_eq!(value(":scheme").as_deref(), Some("http"));
    }
}
