//! Regular expressions as the mesh's resources have them: RE2's syntax and meaning on Rust's engine, within one limit of
//! size. Validation accepts by the same functions that the proxy compiles with, so that nothing is accepted which a proxy
//! would refuse.
//!
//! Where the two differ: RE2's `\d`, `\w`, `\s` and `\b` know ASCII only (their Unicode counterparts would also be a
//! hundred times as large), `\Q...\E` quotes, and inside `[...]` the characters `[`, `&`, `~` and `--` mean themselves.
#![deny(missing_docs)]

use std::{iter::Peekable, str::Chars};

pub use regex::{Error, Regex};

mod translate;

pub use translate::translate;

/// The largest compiled program, in bytes: hundreds of times what a usual route needs.
const SIZE_LIMIT: usize = 1 << 20;
/// What each thread may keep of an expression's states.
const CACHE_LIMIT: usize = 1 << 18;
/// The deepest nesting of parentheses.
const NEST_LIMIT: u32 = 64;

type Text<'a> = Peekable<Chars<'a>>;

fn compile(pattern: &str) -> Result<Regex, Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(CACHE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
}

/// An expression that may match anywhere in a text.
///
/// # Errors
/// It is none, or too large.
pub fn part(pattern: &str) -> Result<Regex, Error> {
    compile(&translate(pattern))
}

/// An expression that must match a text as a whole.
///
/// # Errors
/// It is none, or too large.
pub fn whole(pattern: &str) -> Result<Regex, Error> {
    let pattern = translate(pattern);
    // By itself first: the parentheses below must not complete a pattern that is none.
    compile(&pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}
