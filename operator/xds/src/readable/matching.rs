//! Matchers as short texts.

use weft_api::xds::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

/// `=exact`, `prefix*`, `*suffix`, `~regex`.
pub(super) fn string(matcher: &StringMatcher) -> String {
    let case = if matcher.ignore_case { "(any case)" } else { "" };
    let pattern = match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => format!("={text}"),
        Some(MatchPattern::Prefix(text)) => format!("{text}*"),
        Some(MatchPattern::Suffix(text)) => format!("*{text}"),
        Some(MatchPattern::Contains(text)) => format!("*{text}*"),
        Some(MatchPattern::SafeRegex(regex)) => format!("~{}", regex.regex),
        Some(MatchPattern::Custom(_)) | None => "?".into(),
    };
    pattern + case
}

fn header(matcher: &HeaderMatcher) -> String {
    let value = match &matcher.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => string(matcher),
        Some(HeaderMatchSpecifier::PresentMatch(true)) => " present".into(),
        _ => "?".into(),
    };
    let not = if matcher.invert_match { "not " } else { "" };
    let or_missing = if matcher.treat_missing_header_as_empty { " (or missing)" } else { "" };
    format!("{not}{}{value}{or_missing}", matcher.name)
}

fn query(matcher: &QueryParameterMatcher) -> String {
    let value = match &matcher.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => string(matcher),
        _ => " present".into(),
    };
    format!("?{}{value}", matcher.name)
}

/// Everything that a request must have.
pub(super) fn route(wanted: &RouteMatch) -> Vec<String> {
    let path = match &wanted.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => format!("={path}"),
        Some(PathSpecifier::SafeRegex(regex)) => format!("~{}", regex.regex),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => format!("{prefix}/*"),
        _ => "?".into(),
    };
    let any_case = wanted.case_sensitive.is_some_and(|sensitive| !sensitive.value);
    let path = if any_case { format!("{path}(any case)") } else { path };
    std::iter::once(path)
        .chain(wanted.headers.iter().map(header))
        .chain(wanted.query_parameters.iter().map(query))
        .collect()
}
