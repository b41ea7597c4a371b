//! Standard output and error. A reader that has seen enough (`weft ... | head`) is no failure.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written, unless nobody reads it any more.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// Writes a line to standard error.
pub fn error(text: &str) {
    // Nobody is left to tell when this fails.
    _ = writeln!(io::stderr(), "{text}");
}
