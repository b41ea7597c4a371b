//! Whether a request matches: header and query matchers, and routes.
//!
//! Source: Envoy's `HeaderUtility`, `QueryParameterMatcher` and `RouteEntryImplBase`.

use std::borrow::Cow;

use crate::config::{
    matcher::{HeaderMatcher, HeaderValueMatch, QueryMatcher, StringMatcher},
    route::{PathMatch, Route, RouteMatch, VirtualHost, VirtualHosts},
};
use std::sync::Arc;

use super::head::Head;

/// Whether the header is as the matcher says.
///
/// A missing header matches nothing that looks at its value, not even inverted, unless it counts as empty.
pub fn header_matches(matcher: &HeaderMatcher, head: &Head) -> bool {
    let value = match head.value(&matcher.name) {
        None if matcher.treat_missing_as_empty => Some(Cow::Borrowed("")),
        value => value,
    };
    let matched = match (&matcher.value, value) {
        (HeaderValueMatch::Present(expected), value) => value.is_some() == *expected,
        (_, None) => return false,
        (HeaderValueMatch::String(string), Some(value)) => string.matches(&value),
        (HeaderValueMatch::Range { start, end }, Some(value)) => {
            value.parse::<i64>().is_ok_and(|number| (*start..*end).contains(&number))
        }
    };
    matched != matcher.invert
}

/// Whether every header matcher holds.
pub fn headers_match(matchers: &[HeaderMatcher], head: &Head) -> bool {
    matchers.iter().all(|matcher| header_matches(matcher, head))
}

/// The first value of a query parameter, decoded.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key) == name).then(|| percent_decode(value))
    })
}

/// Decodes `%XX`; what is not valid stays as it is.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let decoded = (byte == b'%')
            .then(|| Some(hex(*bytes.get(at + 1)?)? * 16 + hex(*bytes.get(at + 2)?)?))
            .flatten();
        match decoded {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The value of a hexadecimal digit.
pub fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn query_matches(matcher: &QueryMatcher, query: &str) -> bool {
    match (query_value(query, &matcher.name), &matcher.value) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(string)) => string.matches(&value),
    }
}

fn path_matches(matcher: &PathMatch, head: &Head) -> bool {
    if matches!(matcher, PathMatch::Connect) {
        return head.method == ::http::Method::CONNECT;
    }
    let path = head.path();
    let starts = |value: &str, ignore_case: bool| {
        path.as_bytes().get(..value.len()).is_some_and(|start| {
            if ignore_case {
                start.eq_ignore_ascii_case(value.as_bytes())
            } else {
                start == value.as_bytes()
            }
        })
    };
    match matcher {
        PathMatch::Prefix { value, ignore_case } => starts(value, *ignore_case),
        PathMatch::Exact { value, ignore_case } => {
            path.len() == value.len() && starts(value, *ignore_case)
        }
        PathMatch::SeparatedPrefix { value, ignore_case } => {
            starts(value, *ignore_case)
                && matches!(path.as_bytes().get(value.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::Connect => false,
    }
}

/// Whether a route applies. Draws where the route takes only a share of the requests.
pub fn route_matches(route: &RouteMatch, head: &Head) -> bool {
    path_matches(&route.path, head)
        && (!route.grpc || head.is_grpc())
        && headers_match(&route.headers, head)
        && (route.query.is_empty() || {
            let query = head.target.query().unwrap_or_default();
            route.query.iter().all(|matcher| query_matches(matcher, query))
        })
        && route.fraction.is_none_or(crate::config::filter::Fraction::hit)
}

/// The first route of the virtual host that applies.
pub fn find_route<'a>(host: &'a VirtualHost, head: &Head) -> Option<&'a Arc<Route>> {
    host.routes.iter().find(|route| route_matches(&route.matches, head))
}

/// An authority without its port.
pub fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon)
            if colon > authority.rfind(']').unwrap_or(0)
                && authority[colon + 1..].bytes().all(|b| b.is_ascii_digit())
                && (authority.starts_with('[') || !authority[..colon].contains(':')) =>
        {
            &authority[..colon]
        }
        _ => authority,
    }
}

/// The virtual host that names an authority, as a whole or in part.
pub fn find_named_host<'a>(
    hosts: &'a VirtualHosts,
    authority: &str,
) -> Option<&'a Arc<VirtualHost>> {
    if let Some(host) = hosts.exact.get(authority) {
        return Some(host);
    }
    let longer = |pattern: &str| authority.len() > pattern.len();
    hosts
        .suffixes
        .iter()
        .find(|(suffix, _)| longer(suffix) && authority.ends_with(&**suffix))
        .or_else(|| {
            hosts
                .prefixes
                .iter()
                .find(|(prefix, _)| longer(prefix) && authority.starts_with(&**prefix))
        })
        .map(|(_, host)| host)
}

/// Whether any of the matchers takes the text.
pub fn any_matches(matchers: &[StringMatcher], text: &str) -> bool {
    matchers.iter().any(|matcher| matcher.matches(text))
}

#[cfg(test)]
mod tests;
