//! Cross-origin resource sharing: preflights are answered here, other responses get their headers.
//!
//! Source: the Fetch standard, and Envoy's CORS filter. A preflight of an origin that is not allowed goes to the
//! application, or is refused by saying nothing, as the policy says.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{head::Head, matching::any_matches};
use crate::config::route::CorsPolicy;

/// What becomes of a request that may be a preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// It is answered with these headers.
    Answer(HeaderMap),
    /// It goes on.
    No,
}

fn is_preflight(head: &Head) -> bool {
    head.method == Method::OPTIONS
        && head
            .headers
            .get(header::ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty())
}

fn allowed_origin<'a>(policy: &CorsPolicy, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    any_matches(&policy.allow_origins, origin.to_str().ok()?).then_some(origin)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        headers.insert(name, value.clone());
    }
}

/// Answers a preflight.
pub fn preflight(policy: &CorsPolicy, head: &Head) -> Preflight {
    if !is_preflight(head) || !head.headers.contains_key(header::ORIGIN) {
        return Preflight::No;
    }
    let Some(origin) = allowed_origin(policy, &head.headers) else {
        return if policy.forward_unmatched_preflights {
            Preflight::No
        } else {
            Preflight::Answer(HeaderMap::new())
        };
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    insert(&mut headers, header::ACCESS_CONTROL_ALLOW_METHODS, policy.allow_methods.as_ref());
    insert(&mut headers, header::ACCESS_CONTROL_ALLOW_HEADERS, policy.allow_headers.as_ref());
    insert(&mut headers, header::ACCESS_CONTROL_MAX_AGE, policy.max_age.as_ref());
    Preflight::Answer(headers)
}

/// The origin to name in the response to a request that is not a preflight.
pub fn origin(policy: &CorsPolicy, head: &Head) -> Option<HeaderValue> {
    allowed_origin(policy, &head.headers).cloned()
}

/// Adds to the response for an allowed origin.
pub fn response(policy: &CorsPolicy, origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if policy.allow_credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, policy.expose_headers.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::matcher::StringMatcher, http::head::tests::head};

    fn policy(forward_unmatched_preflights: bool) -> CorsPolicy {
        CorsPolicy {
            allow_origins: vec![StringMatcher::Exact {
                value: "https://a.example".into(),
                ignore_case: false,
            }],
            allow_methods: Some(HeaderValue::from_static("GET,POST")),
            allow_headers: Some(HeaderValue::from_static("x-a")),
            expose_headers: Some(HeaderValue::from_static("x-b")),
            max_age: Some(HeaderValue::from_static("86400")),
            allow_credentials: true,
            forward_unmatched_preflights,
        }
    }

    fn list(headers: &HeaderMap) -> Vec<String> {
        let mut list: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        list.sort();
        list
    }

    #[test]
    fn preflights_are_answered_by_the_policy() {
        let ask = |origin: &str| {
            head(
                "OPTIONS",
                "a",
                "/",
                &[("origin", origin), ("access-control-request-method", "PUT")],
            )
        };
        let Preflight::Answer(answer) = preflight(&policy(true), &ask("https://a.example")) else {
            panic!("not answered")
        };
        assert_eq!(
            list(&answer),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: x-a",
                "access-control-allow-methods: GET,POST",
                "access-control-allow-origin: https://a.example",
                "access-control-max-age: 86400",
            ]
        );
        for (request, forwards, expected) in [
            (ask("https://b.example"), true, Preflight::No),
            (ask("https://b.example"), false, Preflight::Answer(HeaderMap::new())),
            (head("OPTIONS", "a", "/", &[("origin", "https://a.example")]), true, Preflight::No),
            (head("GET", "a", "/", &[("origin", "https://a.example")]), true, Preflight::No),
        ] {
            assert_eq!(preflight(&policy(forwards), &request), expected, "{request:?}");
        }
    }

    #[test]
    fn responses_name_the_allowed_origin() {
        let request = head("GET", "a", "/", &[("origin", "https://a.example")]);
        let mut headers = HeaderMap::new();
        let allowed = origin(&policy(true), &request).unwrap();
        response(&policy(true), allowed, &mut headers);
        assert_eq!(
            list(&headers),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://a.example",
                "access-control-expose-headers: x-b",
            ]
        );
        assert_eq!(origin(&policy(true), &head("GET", "a", "/", &[("origin", "null")])), None);
    }
}
