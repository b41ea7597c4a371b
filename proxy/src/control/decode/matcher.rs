//! String, regular-expression, header and query matchers.

use regex::Regex;
use weft_api::xds::envoy::{
    config::route::v3::{
        HeaderMatcher as PbHeader, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    r#type::matcher::v3::{
        PathMatcher as PbPath, RegexMatchAndSubstitute, RegexMatcher, StringMatcher as PbString,
        path_matcher, string_matcher::MatchPattern,
    },
};

use super::invalid::{At, Invalid, Reason};
use crate::config::matcher::{HeaderMatcher, HeaderValueMatch, QueryMatcher, StringMatcher};

fn invalid(error: &weft_regex::Error) -> Invalid {
    Invalid { path: String::new(), reason: Reason::Regex(error.to_string()) }
}

/// A regular expression that must match the whole text.
pub fn anchored(pattern: &str) -> Result<Regex, Invalid> {
    weft_regex::whole(pattern).map_err(|error| invalid(&error))
}

/// `RegexMatcher`, matching the whole text.
pub fn regex(matcher: &RegexMatcher) -> Result<Regex, Invalid> {
    anchored(&matcher.regex).at("regex")
}

/// `RegexMatchAndSubstitute`: the pattern is not anchored; `\1` and `\\` become what the regex crate understands.
pub fn substitute(value: &RegexMatchAndSubstitute) -> Result<(Regex, Box<str>), Invalid> {
    let pattern = value.pattern.as_ref().ok_or_else(|| Invalid::missing("pattern"))?;
    let regex =
        weft_regex::part(&pattern.regex).map_err(|error| invalid(&error)).at("pattern.regex")?;
    let mut replacement = String::with_capacity(value.substitution.len());
    let mut characters = value.substitution.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => replacement.push_str("$$"),
            '\\' => match characters.next() {
                Some('\\') => replacement.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let group = digit.to_digit(10).unwrap_or_default();
                    if usize::try_from(group).is_ok_and(|group| group >= regex.captures_len()) {
                        return Err(Invalid::value(
                            &value.substitution,
                            "a substitution that names existing groups",
                        ))
                        .at("substitution");
                    }
                    replacement.push_str("${");
                    replacement.push(digit);
                    replacement.push('}');
                }
                _ => {
                    return Err(Invalid::value(
                        &value.substitution,
                        r"a substitution (\0 to \9, \\)",
                    ))
                    .at("substitution");
                }
            },
            other => replacement.push(other),
        }
    }
    Ok((regex, replacement.into()))
}

fn folded(value: &str, ignore_case: bool) -> Box<str> {
    if ignore_case { value.to_ascii_lowercase().into() } else { value.into() }
}

/// `StringMatcher`.
pub fn string(matcher: &PbString) -> Result<StringMatcher, Invalid> {
    let ignore_case = matcher.ignore_case;
    let not_empty = |value: &str, field: &str| {
        if value.is_empty() { Err(Invalid::missing(field)) } else { Ok(folded(value, ignore_case)) }
    };
    Ok(match &matcher.match_pattern {
        Some(MatchPattern::Exact(value)) => {
            StringMatcher::Exact { value: folded(value, ignore_case), ignore_case }
        }
        Some(MatchPattern::Prefix(value)) => {
            StringMatcher::Prefix { value: not_empty(value, "prefix")?, ignore_case }
        }
        Some(MatchPattern::Suffix(value)) => {
            StringMatcher::Suffix { value: not_empty(value, "suffix")?, ignore_case }
        }
        Some(MatchPattern::Contains(value)) => {
            StringMatcher::Contains { value: not_empty(value, "contains")?, ignore_case }
        }
        Some(MatchPattern::SafeRegex(matcher)) => {
            StringMatcher::Regex(regex(matcher).at("safe_regex")?)
        }
        Some(MatchPattern::Custom(_)) => return Err(Invalid::unsupported("custom")),
        None => return Err(Invalid::missing("match_pattern")),
    })
}

/// The string matcher of a `PathMatcher`.
pub fn path(matcher: &PbPath) -> Result<StringMatcher, Invalid> {
    match &matcher.rule {
        Some(path_matcher::Rule::Path(matcher)) => string(matcher).at("path"),
        None => Err(Invalid::missing("path")),
    }
}

/// `HeaderMatcher`, with the older spellings of a string match.
pub fn header(matcher: &PbHeader) -> Result<HeaderMatcher, Invalid> {
    use HeaderMatchSpecifier as Specifier;
    if matcher.name.is_empty() {
        return Err(Invalid::missing("name"));
    }
    let case = |value: &str| -> Box<str> { value.into() };
    let value = match &matcher.header_match_specifier {
        None => HeaderValueMatch::Present(true),
        Some(Specifier::PresentMatch(present)) => HeaderValueMatch::Present(*present),
        Some(Specifier::StringMatch(matcher)) => {
            HeaderValueMatch::String(string(matcher).at("string_match")?)
        }
        Some(Specifier::RangeMatch(range)) => {
            HeaderValueMatch::Range { start: range.start, end: range.end }
        }
        Some(Specifier::ExactMatch(value)) => HeaderValueMatch::String(StringMatcher::Exact {
            value: case(value),
            ignore_case: false,
        }),
        Some(Specifier::PrefixMatch(value)) => HeaderValueMatch::String(StringMatcher::Prefix {
            value: case(value),
            ignore_case: false,
        }),
        Some(Specifier::SuffixMatch(value)) => HeaderValueMatch::String(StringMatcher::Suffix {
            value: case(value),
            ignore_case: false,
        }),
        Some(Specifier::ContainsMatch(value)) => {
            HeaderValueMatch::String(StringMatcher::Contains {
                value: case(value),
                ignore_case: false,
            })
        }
        Some(Specifier::SafeRegexMatch(matcher)) => {
            HeaderValueMatch::String(StringMatcher::Regex(regex(matcher).at("safe_regex_match")?))
        }
    };
    Ok(HeaderMatcher {
        name: matcher.name.to_ascii_lowercase().into(),
        value,
        invert: matcher.invert_match,
        treat_missing_as_empty: matcher.treat_missing_header_as_empty,
    })
}

/// `QueryParameterMatcher`.
pub fn query(matcher: &QueryParameterMatcher) -> Result<QueryMatcher, Invalid> {
    use QueryParameterMatchSpecifier as Specifier;
    let value = match &matcher.query_parameter_match_specifier {
        None | Some(Specifier::PresentMatch(true)) => None,
        Some(Specifier::PresentMatch(false)) => {
            return Err(Invalid::unsupported_value("false")).at("present_match");
        }
        Some(Specifier::StringMatch(matcher)) => Some(string(matcher).at("string_match")?),
    };
    Ok(QueryMatcher { name: matcher.name.as_str().into(), value })
}
