//! The patterns of policies as matchers: `exact`, `prefix*`, `*suffix` and `*` for presence (`istio-behaviours`, item 77).

use weft_api::xds::envoy::{
    config::{
        core::v3::CidrRange,
        rbac::v3::{Permission, Principal, permission, principal},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    r#type::matcher::v3::{
        PathMatcher, RegexMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern,
    },
};
use weft_api::xds::google::protobuf::UInt32Value;

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// A regular expression for the whole value.
pub(super) fn regex(regex: impl Into<String>) -> StringMatcher {
    matcher(MatchPattern::SafeRegex(RegexMatcher {
        regex: regex.into(),
        ..RegexMatcher::default()
    }))
}

/// A pattern, with `start` before it where its beginning is fixed.
pub(super) fn string(pattern: &str, start: &str) -> StringMatcher {
    if pattern == "*" {
        regex(".+")
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        matcher(MatchPattern::Suffix(suffix.into()))
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        matcher(MatchPattern::Prefix(format!("{start}{prefix}")))
    } else {
        matcher(MatchPattern::Exact(format!("{start}{pattern}")))
    }
}

/// A pattern as a piece of a regular expression.
pub(super) fn escaped(pattern: &str) -> String {
    pattern.split('*').map(escape).collect::<Vec<_>>().join(".*")
}

fn escape(literal: &str) -> String {
    let special = |c| r"\.+*?()|[]{}^$#&-~/".contains(c) && c != '/';
    literal.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A header, also a pseudo header.
pub(super) fn header(name: &str, pattern: &str) -> HeaderMatcher {
    let specifier = if pattern == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(string(pattern, ""))
    };
    header_of(name, specifier)
}

fn header_of(name: &str, specifier: HeaderMatchSpecifier) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_ascii_lowercase(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

/// Authorities that a host pattern covers: case does not count, and a pattern without a port covers every port.
pub(super) fn authorities(pattern: &str) -> Vec<HeaderMatcher> {
    let ignoring_case = |pattern: MatchPattern| {
        let matcher = StringMatcher { match_pattern: Some(pattern), ignore_case: true };
        header_of(":authority", HeaderMatchSpecifier::StringMatch(matcher))
    };
    let with_port = |host: String| {
        let matcher = regex(format!("(?i){host}:[0-9]+"));
        header_of(":authority", HeaderMatchSpecifier::StringMatch(matcher))
    };
    if pattern == "*" {
        return vec![header(":authority", "*")];
    }
    let has_port = pattern.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if let Some(suffix) = pattern.strip_prefix('*') {
        let mut all = vec![ignoring_case(MatchPattern::Suffix(suffix.into()))];
        if !has_port {
            all.push(with_port(format!(".*{}", escape(suffix))));
        }
        all
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        vec![ignoring_case(MatchPattern::Prefix(prefix.into()))]
    } else {
        let mut all = vec![ignoring_case(MatchPattern::Exact(pattern.into()))];
        if !has_port {
            all.push(with_port(escape(pattern)));
        }
        all
    }
}

/// A path: a pattern, or a template with `{*}` for one segment and `{**}` for any number of them.
pub(super) fn path(pattern: &str) -> PathMatcher {
    let matcher = if pattern.contains("{*}") || pattern.contains("{**}") {
        regex(template(pattern))
    } else {
        string(pattern, "")
    };
    PathMatcher { rule: Some(path_matcher::Rule::Path(matcher)) }
}

fn template(pattern: &str) -> String {
    let segments = pattern
        .split("{**}")
        .map(|part| part.split("{*}").map(escape).collect::<Vec<_>>().join("[^/]+"));
    segments.collect::<Vec<_>>().join(".*")
}

/// An address or a range of them. The validation has seen it: what does not parse matches nothing.
pub(super) fn cidr(block: &str) -> Option<CidrRange> {
    let net = match block.parse::<ipnet::IpNet>() {
        Ok(net) => net,
        Err(_) => block.parse::<std::net::IpAddr>().ok()?.into(),
    };
    Some(CidrRange {
        address_prefix: net.network().to_string(),
        prefix_len: Some(UInt32Value { value: net.prefix_len().into() }),
    })
}

/// What no request is.
pub(super) fn nothing_done() -> permission::Rule {
    let any = Permission { rule: Some(permission::Rule::Any(true)) };
    permission::Rule::NotRule(Box::new(any))
}

/// What no client is.
pub(super) fn nobody() -> principal::Identifier {
    let any = Principal { identifier: Some(principal::Identifier::Any(true)) };
    principal::Identifier::NotId(Box::new(any))
}

/// One of these.
pub(super) fn any_permission(mut rules: Vec<permission::Rule>) -> permission::Rule {
    match rules.len() {
        0 => nothing_done(),
        1 => rules.remove(0),
        _ => permission::Rule::OrRules(permission::Set {
            rules: rules.into_iter().map(|rule| Permission { rule: Some(rule) }).collect(),
        }),
    }
}

/// One of these.
pub(super) fn any_principal(mut ids: Vec<principal::Identifier>) -> principal::Identifier {
    match ids.len() {
        0 => nobody(),
        1 => ids.remove(0),
        _ => principal::Identifier::OrIds(principal::Set {
            ids: ids.into_iter().map(|id| Principal { identifier: Some(id) }).collect(),
        }),
    }
}

/// Not this.
pub(super) fn not_permission(rule: permission::Rule) -> permission::Rule {
    permission::Rule::NotRule(Box::new(Permission { rule: Some(rule) }))
}

/// Not this.
pub(super) fn not_principal(id: principal::Identifier) -> principal::Identifier {
    principal::Identifier::NotId(Box::new(Principal { identifier: Some(id) }))
}
