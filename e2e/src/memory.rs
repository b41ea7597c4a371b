//! What a process holds in memory, from `/proc`.

use anyhow::Context;

/// Figures of one process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages, shared ones included.
    pub resident: u64,
    /// Pages of this process alone that were written to: what another process of the same program costs.
    pub private: u64,
}

/// Reads the figures of a process.
///
/// # Errors
/// When the process is gone.
pub fn of(process: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = std::fs::read_to_string(&path).context(path)?;
    let sum = |names: &[&str]| -> u64 {
        let value = |line: &str| -> Option<u64> {
            let (name, rest) = line.split_once(':')?;
            names.contains(&name).then(|| rest.split_whitespace().next()?.parse().ok()).flatten()
        };
        text.lines().filter_map(value).sum()
    };
    Ok(Memory { resident: sum(&["Rss"]), private: sum(&["Private_Dirty"]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let memory = of(std::process::id()).unwrap();
        assert!(memory.resident > 100 && memory.private > 10, "{memory:?}");
    }
}
