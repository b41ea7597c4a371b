//! The demo runs, shows its table, and leaves nothing behind.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weft_e2e::{programs::Programs, wait};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(Programs::find().unwrap().path("weft-demo"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn the_demo_ends_by_itself_with_a_summary() {
    let output = demo(&["--for", "12s"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.len() == 8 && row[0] != "SOURCE")
        .collect();
    for pair in [
        ["load", "storefront", "v1"],
        ["storefront", "order-service", "v1"],
        ["storefront", "order-service", "v2"],
        ["order-service", "user-service", "v1"],
        ["order-service", "payment-service", "v1"],
    ] {
        let row = rows.iter().rfind(|row| row[..3] == pair);
        let row = row.unwrap_or_else(|| panic!("no row {pair:?} in\n{text}"));
        assert_eq!((row[4], row[7]), ("100.0", "yes"), "{row:?}");
    }
    assert!(text.contains("100.00 % succeeded"), "{text}");
}

/// Starts a demo and waits until it runs; its mesh's folder, which is in the command line of all that it started.
fn running() -> anyhow::Result<(Child, BufReader<ChildStdout>, String)> {
    let mut child = demo(&[]).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("stdout")?);
    let mut line = String::new();
    while !line.starts_with("Configuration: ") {
        line.clear();
        ensure!(output.read_line(&mut line)? > 0, "the demo ended");
    }
    let folder = line.trim().trim_start_matches("Configuration: ").trim_end_matches("/config");
    Ok((child, output, folder.to_owned()))
}

/// The number of processes with this text in their command line.
fn processes_with(text: &str) -> usize {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    folders
        .filter_map(|folder| std::fs::read(folder.path().join("cmdline")).ok())
        .filter(|command| String::from_utf8_lossy(command).contains(text))
        .count()
}

#[tokio::test]
async fn a_demo_that_is_killed_or_interrupted_leaves_no_process() {
    for signal in [Signal::INT, Signal::KILL] {
        let (mut child, mut output, folder) = running().unwrap();
        // The operator and seven proxies name the folder; the applications do not.
        assert_eq!(processes_with(&folder), 8);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        // Nobody reads on, or the pipe fills.
        std::io::copy(&mut output, &mut std::io::sink()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.success(), signal == Signal::INT, "{status}");
        wait::until_eq("processes of the demo", 0, async || Ok(processes_with(&folder)))
            .await
            .unwrap();
        let _ = std::fs::remove_dir_all(folder);
    }
}
