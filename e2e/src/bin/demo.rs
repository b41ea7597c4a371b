//! `weft-demo`: the mesh on this machine with live traffic. `./justw demo` builds and runs it.

use std::process::ExitCode;

use clap::Parser;
use weft_e2e::demo::{Settings, run};

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Settings::parse()))
}
