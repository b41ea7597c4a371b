//! A process that is known by its number and its start, so that a number which was used again is never signalled.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const AGAIN: Duration = Duration::from_millis(20);

/// One process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    pid: i32,
    /// Clock ticks between the machine's boot and the process's start.
    start: u64,
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    parent: i32,
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses and spaces too.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        // Field 22; state and parent were fields 3 and 4.
        start: fields.nth(17)?.parse().ok()?,
    })
}

impl Handle {
    /// A process that runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let pid = i32::try_from(pid).context("process id")?;
        let found = stat(pid).with_context(|| format!("process {pid} is not running"))?;
        Ok(Self { pid, start: found.start })
    }

    /// The first child of this process, when there is one.
    pub fn first_child(self) -> Option<Self> {
        let numbers = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
        let mut pids: Vec<i32> =
            numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        pids.into_iter().find_map(|pid| {
            let found = stat(pid)?;
            (found.parent == self.pid).then_some(Self { pid, start: found.start })
        })
    }

    /// Its number.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs.
    pub fn runs(self) -> bool {
        stat(self.pid).is_some_and(|found| found.start == self.start && !"ZX".contains(found.state))
    }

    /// Kills it and waits until it is gone; nothing to do when it is.
    ///
    /// # Errors
    /// When it may not be signalled, or is still there after `patience`.
    pub fn kill(self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while self.runs() {
            let pid = Pid::from_raw(self.pid).context("process id")?;
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot kill {}", self.pid));
                }
            }
            if Instant::now() >= deadline {
                bail!("process {} was killed and still runs after {patience:?}", self.pid);
            }
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn a_killed_process_is_gone_and_killing_it_again_is_fine() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let handle = Handle::of(child.id()).unwrap();
        assert!(handle.runs());
        handle.kill(Duration::from_secs(30)).unwrap();
        assert!(!handle.runs());
        child.wait().unwrap();
        handle.kill(Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn a_number_that_was_used_again_is_another_process() {
        let own = Handle::of(std::process::id()).unwrap();
        let earlier = Handle { start: own.start - 1, ..own };
        assert!(own.runs());
        assert!(!earlier.runs());
    }
}
