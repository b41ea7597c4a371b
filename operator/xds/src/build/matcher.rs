//! How texts, headers and query parameters are compared.

use weft_api::xds::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};
use weft_crds::StringMatch;

/// A regular expression (RE2) for the whole text.
pub(crate) fn regex(regex: impl Into<String>) -> RegexMatcher {
    RegexMatcher { regex: regex.into(), engine_type: None }
}

pub(crate) fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

pub(crate) fn exact(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Exact(text.into()))
}

/// How a route's match compares a text; `None` when it only has to be there.
fn string_match(wanted: &StringMatch) -> Option<StringMatcher> {
    Some(string(match wanted {
        _ if wanted.is_presence() => return None,
        StringMatch::Unset => return None,
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    }))
}

/// A header of a route's match (`istio-behaviours`, item 14).
pub(crate) fn header(name: &str, wanted: &StringMatch) -> HeaderMatcher {
    let specifier = match string_match(wanted) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_ascii_lowercase(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

/// A header that must not match; one that is missing does not.
pub(crate) fn without_header(name: &str, unwanted: &StringMatch) -> HeaderMatcher {
    let mut matcher = header(name, unwanted);
    matcher.invert_match = true;
    matcher.treat_missing_header_as_empty = !unwanted.is_presence();
    matcher
}

pub(crate) fn query_parameter(name: &str, wanted: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string_match(wanted) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.into(), query_parameter_match_specifier: Some(specifier) }
}
