//! `weft-bench`: what the proxy costs on this machine. `./justw bench` builds the shipped profile and runs it.

use std::path::PathBuf;

use clap::Parser;
use weft_e2e::{bench, programs::Programs};

/// Measure the proxy: size of the binary, time to ready, memory idle and under load, CPU per request.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", version)]
struct Arguments {
    /// Folder of the programs [default: beside this one].
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Requests a second of the load.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Seconds of load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { programs, rate, seconds } = Arguments::parse();
    let programs = programs.map_or_else(Programs::find, Programs::in_folder)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(bench::run(programs, rate, seconds))
}
