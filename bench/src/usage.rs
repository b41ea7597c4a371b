//! What processes cost, from `/proc`: CPU time and resident memory of a program with all that it started.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

/// Linux reports 100 ticks a second to user space on every architecture that Weft runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time (user and system) that a process and its descendants used so far.
///
/// # Errors
/// When the process is gone.
pub fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for id in tree(process)? {
        sum += stat(id)?.ticks;
    }
    Ok(TICK * u32::try_from(sum).context("CPU time")?)
}

/// Resident memory of a process and its descendants, in KiB.
///
/// # Errors
/// When the process is gone.
pub fn resident(process: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for id in tree(process)? {
        let path = format!("/proc/{id}/status");
        let text = std::fs::read_to_string(&path).context(path)?;
        let value = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let value = value.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        sum += value.context("no VmRSS")?;
    }
    Ok(sum)
}

/// CPU time that the whole machine was busy so far, all cores added.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn machine() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = busy(&text).context("/proc/stat has no line `cpu`")?;
    Ok(TICK * u32::try_from(ticks).context("CPU time")?)
}

fn busy(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system IDLE IOWAIT irq softirq steal; guest time is in user time already
    (fields.len() >= 8).then(|| fields[..3].iter().chain(&fields[5..8]).sum())
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(process: u32) -> anyhow::Result<Stat> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).context(path)?;
    parse(&text).context("/proc/PID/stat")
}

fn parse(text: &str) -> Option<Stat> {
    // The second field is the name in brackets and may hold spaces.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks: ticks(11)? + ticks(12)? })
}

/// The process and its descendants.
fn tree(process: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes may end while they are looked at.
        if let Ok(stat) = stat(id) {
            children.entry(stat.parent).or_default().push(id);
        }
    }
    let mut found = vec![process];
    let mut next = 0;
    while let Some(id) = found.get(next) {
        next += 1;
        found.extend(children.remove(id).unwrap_or_default());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 13 8 0 0 20 0 1 0 100 0 0";
        let stat = parse(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 21));
    }

    #[test]
    fn idle_and_waiting_time_is_not_busy() {
        let text = "cpu  1 2 3 1000 2000 4 5 6 0 0\ncpu0 1 2 3 1000 2000 4 5 6 0 0\n";
        assert_eq!(busy(text), Some(21));
        assert_eq!(busy("cpu  1 2"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        assert!(resident(std::process::id()).unwrap() > 100);
        cpu(std::process::id()).unwrap();
        machine().unwrap();
    }
}
