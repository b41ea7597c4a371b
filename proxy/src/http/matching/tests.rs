use foldhash::HashMap;

use super::*;
use crate::{config::filter::Fraction, http::head::tests::head};

fn exact(value: &str) -> StringMatcher {
    StringMatcher::Exact { value: value.into(), ignore_case: false }
}

fn prefix_route(value: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix { value: value.into(), ignore_case: false },
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        fraction: None,
    }
}

#[test]
fn headers_match_as_envoys_matchers() {
    let request =
        head("GET", "shop:80", "/", &[("a", "x"), ("n", "7"), ("two", "1"), ("two", "2")]);
    let matcher = |name: &str, value, invert, treat_missing_as_empty| HeaderMatcher {
        name: name.into(),
        value,
        invert,
        treat_missing_as_empty,
    };
    let string = |value: &str| HeaderValueMatch::String(exact(value));
    for (number, (matcher, expected)) in [
        (matcher("a", string("x"), false, false), true),
        (matcher("a", string("y"), false, false), false),
        (matcher("a", string("y"), true, false), true),
        // A missing header never matches a value, inverted or not, unless it counts as empty.
        (matcher("b", string("x"), false, false), false),
        (matcher("b", string("x"), true, false), false),
        (matcher("b", string("x"), true, true), true),
        (matcher("b", string(""), false, true), true),
        (matcher("a", HeaderValueMatch::Present(true), false, false), true),
        (matcher("b", HeaderValueMatch::Present(true), false, false), false),
        (matcher("b", HeaderValueMatch::Present(true), true, false), true),
        (matcher("b", HeaderValueMatch::Present(false), false, false), true),
        (matcher("b", HeaderValueMatch::Present(true), true, true), false),
        (matcher("n", HeaderValueMatch::Range { start: 5, end: 8 }, false, false), true),
        (matcher("n", HeaderValueMatch::Range { start: 5, end: 7 }, false, false), false),
        (matcher("n", HeaderValueMatch::Range { start: 5, end: 7 }, true, false), true),
        (matcher("a", HeaderValueMatch::Range { start: 0, end: 9 }, false, false), false),
        (matcher("two", string("1,2"), false, false), true),
        (matcher(":authority", string("shop:80"), false, false), true),
        (matcher(":method", string("GET"), false, false), true),
        (matcher(":scheme", string("https"), false, false), false),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(header_matches(&matcher, &request), expected, "case {number}: {matcher:?}");
    }
}

#[test]
fn paths_match_by_prefix_whole_segment_and_regular_expression() {
    let regex = |text| PathMatch::Regex(regex::Regex::new(text).unwrap());
    let text = |value: &str| -> Box<str> { value.into() };
    for (path, target, expected) in [
        (PathMatch::Prefix { value: text("/foo"), ignore_case: false }, "/foobar?q", true),
        (PathMatch::Prefix { value: text("/foo"), ignore_case: false }, "/Foo", false),
        (PathMatch::Prefix { value: text("/foo"), ignore_case: true }, "/FOObar", true),
        (PathMatch::Prefix { value: text("/foo"), ignore_case: false }, "/fo", false),
        (PathMatch::Exact { value: text("/foo"), ignore_case: false }, "/foo?a=b", true),
        (PathMatch::Exact { value: text("/foo"), ignore_case: false }, "/foo/", false),
        (PathMatch::Exact { value: text("/foo"), ignore_case: true }, "/FOO", true),
        (PathMatch::SeparatedPrefix { value: text("/foo"), ignore_case: false }, "/foo", true),
        (PathMatch::SeparatedPrefix { value: text("/foo"), ignore_case: false }, "/foo/bar", true),
        (PathMatch::SeparatedPrefix { value: text("/foo"), ignore_case: false }, "/foobar", false),
        (regex("^(?:/v[0-9]+)$"), "/v12?x=/v", true),
        (regex("^(?:/v[0-9]+)$"), "/v12/", false),
        (PathMatch::Connect, "/", false),
    ] {
        let route = RouteMatch { path, ..prefix_route("") };
        assert_eq!(
            route_matches(&route, &head("GET", "a", target, &[])),
            expected,
            "{:?} {target}",
            route.path
        );
    }
}

#[test]
fn query_parameters_match_by_their_first_decoded_value() {
    let query = |name: &str, value| RouteMatch {
        query: vec![QueryMatcher { name: name.into(), value }],
        ..prefix_route("/")
    };
    for (route, target, expected) in [
        (query("a", Some(exact("1"))), "/?a=1&a=2", true),
        (query("a", Some(exact("2"))), "/?a=1&a=2", false),
        (query("a", Some(exact("x y"))), "/?a=x%20y", true),
        (query("a", None), "/?b&a", true),
        (query("a", None), "/?b", false),
        (query("a", None), "/", false),
        (query("a", Some(exact("%zz"))), "/?a=%zz", true),
    ] {
        assert_eq!(
            route_matches(&route, &head("GET", "a", target, &[])),
            expected,
            "{:?} {target}",
            route.query
        );
    }
}

#[test]
fn a_share_of_nothing_never_matches_and_of_everything_always() {
    let request = head("GET", "a", "/", &[]);
    let route = |share| RouteMatch { fraction: Some(Fraction(share)), ..prefix_route("/") };
    assert!((0..100).all(|_| !route_matches(&route(0), &request)));
    assert!((0..100).all(|_| route_matches(&route(1_000_000), &request)));
}

#[test]
fn hosts_are_found_by_exact_name_longest_wildcard_and_star() {
    let host = |name: &str| Arc::new(VirtualHost { name: name.into(), ..VirtualHost::default() });
    let hosts = VirtualHosts {
        exact: HashMap::from_iter([
            ("a.b.c".into(), host("exact")),
            ("a.b.c:8080".into(), host("with port")),
        ]),
        suffixes: vec![(".b.c".into(), host("long suffix")), (".c".into(), host("short suffix"))],
        prefixes: vec![("a.b.".into(), host("long prefix")), ("a.".into(), host("short prefix"))],
        any: Some(host("any")),
    };
    for (authority, expected) in [
        ("a.b.c", "exact"),
        ("a.b.c:8080", "with port"),
        ("x.b.c", "long suffix"),
        ("x.y.c", "short suffix"),
        (".b.c", "short suffix"),
        ("a.b.x", "long prefix"),
        ("a.x", "short prefix"),
        ("a.b.c:9090", "long prefix"),
        ("z", "any"),
        ("", "any"),
    ] {
        assert_eq!(
            find_named_host(&hosts, authority).or(hosts.any.as_ref()).map(|host| &*host.name),
            Some(expected),
            "{authority}"
        );
    }
    assert!(find_named_host(&VirtualHosts::default(), "a").is_none());
}

#[test]
fn ports_are_taken_off_authorities() {
    for (authority, expected) in [
        ("a", "a"),
        ("a:80", "a"),
        ("a:", "a"),
        ("a:x", "a:x"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("", ""),
    ] {
        assert_eq!(without_port(authority), expected, "{authority}");
    }
}
