//! Changing heads: header mutations, rewrites of path and authority, and redirects.
//!
//! Source: Envoy's `HeaderParser`, `RouteEntryImplBase::finalizePathHeader` and its redirects.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};

use super::{
    head::{Head, names},
    matching::without_port,
};
use crate::config::{
    access_log::Format,
    route::{Forward, HeaderFormat, HeaderMutation, PathMatch, Redirect},
};

/// Applies mutations to a request. `fill` makes values with `%COMMAND%`s; empty ones change nothing.
pub fn request(
    mutations: &[HeaderMutation],
    head: &mut Head,
    fill: &dyn Fn(&Format, &Head) -> String,
) {
    for mutation in mutations {
        if let Some(change) = Change::new(mutation, &|format| fill(format, head)) {
            match change {
                // The authority cannot be removed, and there is only one.
                Change::Remove(name) if name == header::HOST => {}
                Change::Set(name, value) | Change::Append(name, value) if name == header::HOST => {
                    head.authority = value;
                }
                Change::AddIfAbsent(name, _) if name == header::HOST => {}
                change => change.apply(&mut head.headers),
            }
        }
    }
}

/// Applies mutations to a response's headers.
pub fn response(
    mutations: &[HeaderMutation],
    headers: &mut HeaderMap,
    fill: &dyn Fn(&Format, &HeaderMap) -> String,
) {
    for mutation in mutations {
        if let Some(change) = Change::new(mutation, &|format| fill(format, headers)) {
            change.apply(headers);
        }
    }
}

/// A mutation with its value filled in.
enum Change {
    Remove(HeaderName),
    Set(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
    AddIfAbsent(HeaderName, HeaderValue),
}

impl Change {
    fn new(mutation: &HeaderMutation, fill: &dyn Fn(&Format) -> String) -> Option<Self> {
        let value = |format: &HeaderFormat| match format {
            HeaderFormat::Literal(value) => Some(value.clone()),
            HeaderFormat::Format(format) => {
                Some(fill(format)).filter(|text| !text.is_empty())?.try_into().ok()
            }
        };
        Some(match mutation {
            HeaderMutation::Remove(name) => Self::Remove(name.clone()),
            HeaderMutation::Set(name, format) => Self::Set(name.clone(), value(format)?),
            HeaderMutation::Append(name, format) => Self::Append(name.clone(), value(format)?),
            HeaderMutation::AddIfAbsent(name, format) => {
                Self::AddIfAbsent(name.clone(), value(format)?)
            }
        })
    }

    fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::Set(name, value) => {
                headers.insert(name, value);
            }
            Self::Append(name, value) => {
                headers.append(name, value);
            }
            Self::AddIfAbsent(name, value) => {
                headers.entry(name).or_insert(value);
            }
        }
    }
}

/// Rewrites the path as the route says; the original is kept in `x-envoy-original-path`.
pub fn rewrite_path(head: &mut Head, matched: &PathMatch, forward: &Forward) {
    let path = if let Some(prefix) = &forward.prefix_rewrite {
        replace_prefix(head.path(), matched, prefix)
    } else if let Some((regex, substitution)) = &forward.regex_rewrite {
        regex.replace_all(head.path(), &**substitution)
    } else {
        return;
    };
    if path == head.path() {
        return;
    }
    if let Some(target) = with_query(&path, head.target.query()) {
        if let Ok(original) = HeaderValue::from_str(head.target.as_str()) {
            head.headers.insert(names::ORIGINAL_PATH, original);
        }
        head.target = target;
    }
}

/// Only a matched prefix is replaced; a path that matched as a whole is replaced as a whole.
fn replace_prefix<'a>(path: &'a str, matched: &PathMatch, new: &'a str) -> Cow<'a, str> {
    match matched {
        PathMatch::Prefix { value, .. } | PathMatch::SeparatedPrefix { value, .. } => {
            let rest = path.get(value.len()..).unwrap_or_default();
            Cow::Owned(format!("{new}{rest}"))
        }
        PathMatch::Exact { .. } | PathMatch::Regex(_) | PathMatch::Connect => Cow::Borrowed(new),
    }
}

fn with_query(path: &str, query: Option<&str>) -> Option<PathAndQuery> {
    // A rewrite may take the leading slash away; what goes upstream always has one.
    let slash = if path.starts_with('/') { "" } else { "/" };
    match query {
        Some(query) => format!("{slash}{path}?{query}").try_into().ok(),
        None => format!("{slash}{path}").try_into().ok(),
    }
}

/// Where a redirect leads.
pub fn location(head: &Head, matched: &PathMatch, redirect: &Redirect) -> Option<HeaderValue> {
    let scheme = match &redirect.scheme {
        Some(scheme) => scheme,
        None if redirect.https => "https",
        None => head.scheme(),
    };
    let authority = match &redirect.host {
        Some(host) => Cow::Borrowed(&**host),
        None => own_authority(head.authority(), scheme, redirect.port.is_some()),
    };
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = if let Some(path) = &redirect.path {
        Cow::Borrowed(&**path)
    } else if let Some(prefix) = &redirect.prefix_rewrite {
        replace_prefix(head.path(), matched, prefix)
    } else if let Some((regex, substitution)) = &redirect.regex_rewrite {
        regex.replace_all(head.path(), &**substitution)
    } else {
        Cow::Borrowed(head.path())
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let query = match head.target.query() {
        Some(query) if !redirect.strip_query && !path.contains('?') => format!("?{query}"),
        _ => String::new(),
    };
    HeaderValue::try_from(format!("{scheme}://{authority}{port}{slash}{path}{query}")).ok()
}

/// The request's authority, without a port that the redirect replaces or that is the new scheme's other default.
fn own_authority<'a>(authority: &'a str, scheme: &str, replaced: bool) -> Cow<'a, str> {
    let other_default = match scheme {
        "https" => ":80",
        _ => ":443",
    };
    if replaced || authority.ends_with(other_default) {
        Cow::Borrowed(without_port(authority))
    } else {
        Cow::Borrowed(authority)
    }
}

#[cfg(test)]
mod tests {
    use ::http::StatusCode;

    use super::*;
    use crate::{
        config::{
            access_log::{Command, FormatPart},
            route::ForwardTarget,
        },
        http::head::tests::head,
    };

    fn forward() -> Forward {
        Forward {
            target: ForwardTarget::Cluster("c".into()),
            timeout: None,
            idle_timeout: None,
            retry: None,
            prefix_rewrite: None,
            regex_rewrite: None,
            host_rewrite: None,
            hash: Vec::new(),
            mirrors: Vec::new(),
            cors: None,
            upgrades: Vec::new(),
            cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
            max_grpc_timeout: None,
        }
    }

    fn redirect() -> Redirect {
        Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            https: false,
            host: None,
            port: None,
            path: None,
            prefix_rewrite: None,
            regex_rewrite: None,
            strip_query: false,
        }
    }

    fn prefix(value: &str) -> PathMatch {
        PathMatch::Prefix { value: value.into(), ignore_case: false }
    }

    fn regex_rewrite() -> Option<(regex::Regex, Box<str>)> {
        Some((regex::Regex::new("^/v([0-9]+)/").unwrap(), "/version/${1}/".into()))
    }

    #[test]
    fn mutations_set_append_add_and_remove() {
        let literal = |text| HeaderFormat::Literal(HeaderValue::from_static(text));
        let name = HeaderName::from_static;
        let path = HeaderFormat::Format(Format {
            parts: vec![FormatPart::Command { command: Command::RouteName, max: None }],
        });
        let mutations = [
            HeaderMutation::Set(name("a"), literal("new")),
            HeaderMutation::Append(name("b"), literal("2")),
            HeaderMutation::AddIfAbsent(name("b"), literal("3")),
            HeaderMutation::AddIfAbsent(name("c"), literal("3")),
            HeaderMutation::Remove(name("d")),
            HeaderMutation::Set(name("e"), path.clone()),
            HeaderMutation::Set(header::HOST, literal("other:80")),
            HeaderMutation::Remove(header::HOST),
        ];
        let mut request_head =
            head("GET", "shop", "/x", &[("a", "1"), ("a", "2"), ("b", "1"), ("d", "1")]);
        request(&mutations, &mut request_head, &|_, head| head.path().to_owned());
        let expected = head(
            "GET",
            "other:80",
            "/x",
            &[("a", "new"), ("b", "1"), ("b", "2"), ("c", "3"), ("e", "/x")],
        );
        assert_eq!(request_head.headers, expected.headers);
        assert_eq!(request_head.authority, expected.authority);
        let mut map = HeaderMap::new();
        response(&[HeaderMutation::Set(name("e"), path)], &mut map, &|_, _| String::new());
        assert_eq!(map, HeaderMap::new());
    }

    #[test]
    fn paths_are_rewritten_and_the_original_is_kept() {
        let new = |text: &str| Forward { prefix_rewrite: Some(text.into()), ..forward() };
        let exact = PathMatch::Exact { value: "/old".into(), ignore_case: false };
        for (matched, forward, target, expected) in [
            (prefix("/old"), new("/new"), "/old/x?q=1", "/new/x?q=1"),
            (prefix("/old/"), new("/"), "/old/x", "/x"),
            (prefix("/old"), new("/"), "/old/x", "//x"),
            (exact, new("/new"), "/old?q", "/new?q"),
            (prefix("/"), new("x"), "/y", "/xy"),
            (
                prefix("/"),
                Forward { regex_rewrite: regex_rewrite(), ..forward() },
                "/v12/x?y",
                "/version/12/x?y",
            ),
            (prefix("/"), Forward { regex_rewrite: regex_rewrite(), ..forward() }, "/x", "/x"),
            (prefix("/"), forward(), "/x", "/x"),
        ] {
            let mut request = head("GET", "a", target, &[]);
            rewrite_path(&mut request, &matched, &forward);
            assert_eq!(request.target.as_str(), expected, "{target}");
            let original = request.headers.get(names::ORIGINAL_PATH).map(|v| v.to_str().unwrap());
            assert_eq!(original, (expected != target).then_some(target), "{target}");
        }
    }

    #[test]
    fn redirects_lead_where_they_say() {
        for (redirect, expected) in [
            (redirect(), "http://shop:80/old/x?q=1"),
            (Redirect { https: true, ..redirect() }, "https://shop/old/x?q=1"),
            (Redirect { host: Some("b".into()), ..redirect() }, "http://b/old/x?q=1"),
            (Redirect { port: Some(8080), ..redirect() }, "http://shop:8080/old/x?q=1"),
            (Redirect { path: Some("/new".into()), ..redirect() }, "http://shop:80/new?q=1"),
            (Redirect { path: Some("/new?a".into()), ..redirect() }, "http://shop:80/new?a"),
            (
                Redirect { path: Some("/new".into()), strip_query: true, ..redirect() },
                "http://shop:80/new",
            ),
            (
                Redirect { prefix_rewrite: Some("/n".into()), ..redirect() },
                "http://shop:80/n/x?q=1",
            ),
            (Redirect { scheme: Some("ftp".into()), ..redirect() }, "ftp://shop:80/old/x?q=1"),
        ] {
            let request = head("GET", "shop:80", "/old/x?q=1", &[]);
            assert_eq!(
                location(&request, &prefix("/old"), &redirect).unwrap(),
                expected,
                "{redirect:?}"
            );
        }
    }
}
