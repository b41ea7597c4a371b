//! Path normalisation: once, before policies and routes see the path, and forwarded so.
//!
//! Source: Envoy's `ConnectionManagerUtility::maybeNormalizePath` (escaped slashes, then RFC 3986, then slashes merged).

use std::borrow::Cow;

use ::http::uri::PathAndQuery;

use super::matching::hex;
use crate::config::http::{EscapedSlashes, PathNormalization};

/// What to do with a request whose path was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing changed.
    Keep,
    /// This is the path now.
    Replace(PathAndQuery),
    /// The client is sent to this path.
    Redirect(PathAndQuery),
    /// The path is not acceptable.
    Reject,
}

/// Normalises a path as the settings say.
pub fn normalize(settings: &PathNormalization, target: &PathAndQuery) -> Outcome {
    if settings.escaped_slashes == EscapedSlashes::Keep
        && !settings.normalize
        && !settings.merge_slashes
    {
        return Outcome::Keep;
    }
    let original = target.path();
    if !original.starts_with('/') {
        return Outcome::Keep;
    }
    let mut path = Cow::Borrowed(original);
    let mut redirect = false;
    if settings.escaped_slashes != EscapedSlashes::Keep
        && let Some(decoded) = unescape_slashes(&path)
    {
        match settings.escaped_slashes {
            EscapedSlashes::Reject => return Outcome::Reject,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        path = Cow::Owned(decoded);
    }
    if settings.normalize && needs_canonical(&path) {
        match canonical(&path) {
            Some(canonical) => path = Cow::Owned(canonical),
            None => return Outcome::Reject,
        }
    }
    if settings.merge_slashes && path.contains("//") {
        path = Cow::Owned(merge_slashes(&path));
    }
    if *path == *original {
        return Outcome::Keep;
    }
    let mut text = path.into_owned();
    if let Some(query) = target.query() {
        text.push('?');
        text.push_str(query);
    }
    match PathAndQuery::try_from(text) {
        Ok(target) if redirect => Outcome::Redirect(target),
        Ok(target) => Outcome::Replace(target),
        Err(_) => Outcome::Reject,
    }
}

/// `%2F` and `%5C` decoded; `None` when there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    let mut found = false;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let decoded = match escape.get(1..3) {
            Some(code) if code.eq_ignore_ascii_case("2f") => Some('/'),
            Some(code) if code.eq_ignore_ascii_case("5c") => Some('\\'),
            _ => None,
        };
        match decoded {
            Some(character) => {
                found = true;
                out.push(character);
                rest = &escape[3..];
            }
            None => {
                out.push('%');
                rest = &escape[1..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Whether a path has anything that [`canonical`] would change. Most have not.
fn needs_canonical(path: &str) -> bool {
    path.contains(['%', '\\']) || path.contains("/.")
}

/// Backslashes become slashes, escaped unreserved characters are decoded, dot segments are resolved.
/// `None`: an escaped NUL.
fn canonical(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| Some(hex(*bytes.get(at + 1)?)? * 16 + hex(*bytes.get(at + 2)?)?))
            .flatten();
        match escaped {
            Some(0) => return None,
            Some(value)
                if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') =>
            {
                plain.push(value);
                at += 3;
            }
            Some(_) => {
                plain.extend_from_slice(&bytes[at..at + 3]);
                at += 3;
            }
            None => {
                plain.push(if byte == b'\\' { b'/' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8(plain).ok().map(|plain| resolve_dots(&plain))
}

fn resolve_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {
                if last {
                    out.push("");
                }
            }
            ".." => {
                out.pop();
                if last {
                    out.push("");
                }
            }
            other => out.push(other),
        }
    }
    let mut text = String::with_capacity(path.len());
    for segment in out {
        text.push('/');
        text.push_str(segment);
    }
    if text.is_empty() {
        text.push('/');
    }
    text
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(settings: PathNormalization, target: &str) -> Result<String, &'static str> {
        match normalize(&settings, &target.parse().unwrap()) {
            Outcome::Keep => Ok(target.to_owned()),
            Outcome::Replace(target) => Ok(target.to_string()),
            Outcome::Redirect(_) => Err("redirect"),
            Outcome::Reject => Err("reject"),
        }
    }

    const BASE: PathNormalization = PathNormalization {
        normalize: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
    };

    #[test]
    fn base_normalisation_follows_rfc_3986() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2e/b", "/a./b"),
            ("/a\\..\\b", "/b"),
            ("/a//b", "/a//b"),
            ("/%61dmin", "/admin"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%zz", "/a%zz"),
            ("/a%2", "/a%2"),
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/.hidden/..x/...", "/.hidden/..x/..."),
        ] {
            assert_eq!(run(BASE, target).as_deref(), Ok(expected), "{target}");
        }
        assert_eq!(run(BASE, "/a%00b"), Err("reject"));
    }

    #[test]
    fn without_normalisation_paths_stay() {
        for target in ["/a/../b", "/a//b", "/a%2fb", "/a%00"] {
            assert_eq!(run(PathNormalization::default(), target).as_deref(), Ok(target));
        }
    }

    #[test]
    fn slashes_are_merged_and_unescaped_on_demand() {
        let merge = PathNormalization { merge_slashes: true, ..BASE };
        assert_eq!(run(merge, "//a///b?c//d").as_deref(), Ok("/a/b?c//d"));
        assert_eq!(run(merge, "/a%2Fb").as_deref(), Ok("/a%2Fb"));
        let with = |escaped_slashes| PathNormalization { escaped_slashes, ..merge };
        let forward = with(EscapedSlashes::UnescapeAndForward);
        for (target, expected) in [
            ("/a%2F%2fb", "/a/b"),
            ("/a%5c..%5Cb", "/b"),
            ("/a%2f..%2fadmin", "/admin"),
            ("/a%252fb", "/a%252fb"),
        ] {
            assert_eq!(run(forward, target).as_deref(), Ok(expected), "{target}");
        }
        assert_eq!(run(with(EscapedSlashes::Reject), "/a%2fb"), Err("reject"));
        assert_eq!(run(with(EscapedSlashes::Reject), "/a/b").as_deref(), Ok("/a/b"));
        assert_eq!(run(with(EscapedSlashes::UnescapeAndRedirect), "/a%2fb"), Err("redirect"));
    }

    proptest::proptest! {
        /// What was normalised once does not change again: routes and the application see the same path.
        #[test]
        fn normalisation_is_idempotent(path in "/[a-c./%\\\\2eF5]{0,24}") {
            let settings = PathNormalization { merge_slashes: true, escaped_slashes: EscapedSlashes::Keep, normalize: true };
            if let Ok(once) = run(settings, &path) {
                // An escape may decode to a new percent sign's neighbour; only `%25` style escapes stay escaped.
                proptest::prop_assert!(!once.contains("/../") && !once.contains("/./") && !once.contains("//"));
                proptest::prop_assert!(!once.ends_with("/..") && !once.ends_with("/."));
            }
        }
    }
}
