//! RE2's spelling as the engine's.

use crate::Text;

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = r"\t\n\f\r ";

/// An RE2 expression in the engine's syntax. What is no expression stays none.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut text = pattern.chars().peekable();
    while let Some(character) = text.next() {
        match character {
            '\\' => escape(&mut text, &mut out),
            '[' => class(&mut text, &mut out),
            other => out.push(other),
        }
    }
    out
}

/// The ASCII characters of `\d`, `\w` and `\s`, and whether the escape means all others.
fn perl_class(letter: char) -> Option<(&'static str, bool)> {
    let class = match letter.to_ascii_lowercase() {
        'd' => DIGIT,
        'w' => WORD,
        's' => SPACE,
        _ => return None,
    };
    Some((class, letter.is_ascii_uppercase()))
}

/// What follows a backslash outside of a class.
fn escape(text: &mut Text<'_>, out: &mut String) {
    match text.next() {
        None => out.push('\\'),
        Some('Q') => quoted(text, out),
        // `\b{...}` is the engine's own.
        Some('b') if text.peek() != Some(&'{') => out.push_str(r"(?-u:\b)"),
        Some(letter) => match perl_class(letter) {
            Some((class, negated)) => {
                out.push_str(if negated { "[^" } else { "[" });
                out.push_str(class);
                out.push(']');
            }
            None => out.extend(['\\', letter]),
        },
    }
}

/// Everything up to `\E` means itself.
fn quoted(text: &mut Text<'_>, out: &mut String) {
    let mut literal = String::new();
    while let Some(character) = text.next() {
        if character == '\\' && text.next_if_eq(&'E').is_some() {
            break;
        }
        literal.push(character);
    }
    out.push_str(&regex::escape(&literal));
}

/// A class after its opening bracket.
fn class(text: &mut Text<'_>, out: &mut String) {
    out.push('[');
    out.extend(text.next_if_eq(&'^'));
    if text.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
    while let Some(character) = text.next() {
        match character {
            ']' => {
                out.push(']');
                return;
            }
            '[' if text.peek() == Some(&':') => named(text, out),
            '[' | '&' | '~' => out.extend(['\\', character]),
            '-' if text.next_if_eq(&'-').is_some() => out.push_str(r"-\-"),
            '\\' => match text.next() {
                None => out.push('\\'),
                Some(letter) => match perl_class(letter) {
                    Some((class, false)) => out.push_str(class),
                    Some((class, true)) => out.extend(["[^", class, "]"]),
                    None => out.extend(['\\', letter]),
                },
            },
            other => out.push(other),
        }
    }
}

/// `[:alpha:]` and its kin, after the bracket.
fn named(text: &mut Text<'_>, out: &mut String) {
    out.push('[');
    while let Some(character) = text.next() {
        out.push(character);
        if character == ':' && text.peek() == Some(&']') {
            out.extend(text.next());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{part, translate, whole};

    #[test]
    fn expressions_mean_what_re2_says() {
        for (pattern, matching, others) in [
            (r"/v\d+", &["/v1", "/v23"][..], &["/v", "/v\u{663}"][..]),
            (r"\w{3}", &["a_1"], &["añb", "a-b"]),
            (r"\W\S\D", &["-aa"], &["aaa", "- a", "-a1"]),
            (r"[\w.-]+@[^\s@]+", &["a.b-c@d"], &["a b@d", "@d"]),
            (r"[^\W_]+", &["ab1"], &["a_b", "a-b"]),
            (r".*\bfoo\b.*", &["a foo", "foo", "é foo"], &["afoo"]),
            (r"\Qa.b*\E.", &["a.b*c"], &["aXb*c", "a.b*"]),
            (r"a\Q[", &["a["], &["a"]),
            ("[[a]+", &["[a["], &["]"]),
            ("[]a]+", &["]a"], &["b"]),
            ("[^]a]", &["b"], &["]", "a"]),
            ("[a&&b]+", &["a&b"], &["c"]),
            ("[+--]+", &["+,-"], &["."]),
            ("[[:digit:]a]+", &["1a"], &["b"]),
            ("^(.*?;)?(user=beta)(;.*)?$", &["user=beta", "a=b;user=beta;c"], &["user=alpha"]),
            (r"\\d", &[r"\d"], &["1"]),
            ("(?i)chrome", &["Chrome"], &["firefox"]),
        ] {
            let regex = whole(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            for text in matching {
                assert!(regex.is_match(text), "{pattern} should match {text}: {regex}");
            }
            for text in others {
                assert!(!regex.is_match(text), "{pattern} should not match {text}: {regex}");
            }
        }
    }

    #[test]
    fn usual_expressions_are_small_enough_and_absurd_ones_are_not() {
        for pattern in [
            r"/orders/\w{8}-\w{4}-\w{4}-\w{4}-\w{12}",
            r"[\w.-]+@[\w-]+\.\w{2,63}",
            r"/[\w-]{1,253}",
            r".*[?&]id=\w{1,10}.*",
            r"/.{1,255}",
        ] {
            assert!(whole(pattern).is_ok(), "{pattern}: {:?}", whole(pattern));
        }
        assert!(whole(r"(\w{1,1000}){1,1000}").is_err());
    }

    #[test]
    fn what_is_no_expression_stays_none() {
        for pattern in ["([", "a)(b", "[a", r"a\", "[[:", r"[\", "(?=a)", "a**b(", "*"] {
            assert!(whole(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_part_may_be_anywhere() {
        let regex = part(r"/v(\d)").unwrap();
        assert_eq!(regex.replace_all("/a/v1/b", "/w${1}"), "/a/w1/b");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in r"(\\[a-zQE]|\[\^?|\]|&&|--|\(|\)|[a-c:*+?{}|]|é){0,12}") {
            let _ = whole(&text);
        }

        #[test]
        fn plain_text_stays_as_it_is(text in "[a-z0-9/_.()|*+?^$ ]{0,24}") {
            prop_assert_eq!(translate(&text), text);
        }
    }
}
