//! The terminal, or what stands in its place: a table that is redrawn, or lines every few seconds.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Clears the screen and moves to its top.
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";

/// After this time, and then every so often, the user hears that work is going on.
const PROGRESS: Duration = Duration::from_secs(2);

pub(super) struct Screen {
    terminal: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal() }
    }

    /// How often the table is worth showing.
    pub(super) fn every(&self) -> Duration {
        Duration::from_secs(if self.terminal { 1 } else { 5 })
    }

    /// Writes text once.
    pub(super) fn show(&self, text: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// On a terminal the table takes the place of what was there, with the hints under it.
    pub(super) fn redraw(&self, table: &str, hints: &str) -> io::Result<()> {
        match self.terminal {
            true => self.show(&format!("{CLEAR}{table}\n{hints}")),
            false => self.show(&format!("{table}\n")),
        }
    }

    /// Says what is being done, that it is still being done, and how long it took.
    pub(super) async fn during<T>(
        &self,
        what: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        self.show(&format!("{what} ...\n"))?;
        let mut progress =
            tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => {
                    let end = if outcome.is_ok() { "done" } else { "failed" };
                    self.show(&format!("{end} after {:.1} s\n\n", start.elapsed().as_secs_f64()))?;
                    return outcome;
                }
                _ = progress.tick() => {
                    self.show(&format!("  still {what} ({:.0} s)\n", start.elapsed().as_secs_f64()))?;
                }
            }
        }
    }
}
