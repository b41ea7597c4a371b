//! String, header and query matchers as routes and policies use them (`envoy.type.matcher.v3`, `HeaderMatcher`).

use regex::Regex;

/// `envoy.type.matcher.v3.StringMatcher`. With `ignore_case` the pattern is kept lower-cased.
#[derive(Clone, Debug)]
pub enum StringMatcher {
    /// The whole value.
    Exact { value: Box<str>, ignore_case: bool },
    /// The value's beginning.
    Prefix { value: Box<str>, ignore_case: bool },
    /// The value's end.
    Suffix { value: Box<str>, ignore_case: bool },
    /// A part of the value.
    Contains { value: Box<str>, ignore_case: bool },
    /// The whole value by a regular expression (anchored when it was compiled).
    Regex(Regex),
}

fn starts_ignoring_case(text: &str, prefix: &str) -> bool {
    text.as_bytes()
        .get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn ends_ignoring_case(text: &str, suffix: &str) -> bool {
    text.len()
        .checked_sub(suffix.len())
        .and_then(|start| text.as_bytes().get(start..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes()))
}

impl StringMatcher {
    /// Whether the value matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact { value, ignore_case: false } => text == &**value,
            Self::Exact { value, ignore_case: true } => text.eq_ignore_ascii_case(value),
            Self::Prefix { value, ignore_case: false } => text.starts_with(&**value),
            Self::Prefix { value, ignore_case: true } => starts_ignoring_case(text, value),
            Self::Suffix { value, ignore_case: false } => text.ends_with(&**value),
            Self::Suffix { value, ignore_case: true } => ends_ignoring_case(text, value),
            Self::Contains { value, ignore_case: false } => text.contains(&**value),
            Self::Contains { value, ignore_case: true } => {
                text.to_ascii_lowercase().contains(&**value)
            }
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// What a header must be.
#[derive(Clone, Debug)]
pub enum HeaderValueMatch {
    /// There (or, with `false`, not there).
    Present(bool),
    /// Its value (several values joined by commas, as Envoy does) matches.
    String(StringMatcher),
    /// A whole number in `start..end`.
    Range { start: i64, end: i64 },
}

/// `envoy.config.route.v3.HeaderMatcher`. Names are lower-cased; `:method`, `:authority`, `:path`, `:scheme` are pseudo headers.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// The header's name.
    pub name: Box<str>,
    /// What it must be.
    pub value: HeaderValueMatch,
    /// The result is turned round.
    pub invert: bool,
    /// A header that is missing counts as an empty value.
    pub treat_missing_as_empty: bool,
}

/// `envoy.config.route.v3.QueryParameterMatcher`. The first value of a parameter counts.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// The parameter's name.
    pub name: Box<str>,
    /// What its value must be; `None`: it must be there.
    pub value: Option<StringMatcher>,
}
