//! `weft-bench`: the comparison with other proxies. `./justw bench` builds what is shipped and runs it.

use std::{
    ffi::OsString,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use weft_bench::{
    backend,
    campaign::{self, Plan},
    client::{self, Target},
    gates, layout,
    peer::Peer,
    scenario, tether,
};

/// Compare the proxy with Envoy, HAProxy and nginx on this machine.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", version)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// One short round of the main scenarios.
    #[arg(long)]
    quick: bool,
    /// Only scenarios of this name; `*` stands for any text. May be repeated.
    #[arg(long, value_name = "GLOB")]
    scenario: Vec<String>,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "weft,envoy,haproxy,nginx")]
    peers: Vec<Peer>,
    /// How often everything is repeated [default: 3, quick: 1].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each load [default: 5, quick: 2].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Requests a second of the fixed rate.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Our proxy [default: weft-proxy beside this program].
    #[arg(long, value_name = "FILE")]
    proxy: Option<PathBuf>,
    /// Write versions, machine, settings and all samples.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a chart of CPU time (SVG).
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
    /// List what would be measured.
    #[arg(long)]
    list: bool,
}

/// What this program starts itself as.
#[derive(Debug, Subcommand)]
enum Part {
    /// Count what a request costs in instructions and allocations, against the committed figures (needs valgrind).
    Gates {
        /// Our proxy, a release build [default: weft-proxy beside this program].
        #[arg(long, value_name = "FILE")]
        proxy: Option<PathBuf>,
        /// Write the figures instead of comparing them.
        #[arg(long)]
        update: bool,
        /// Keep what callgrind wrote (callgrind_annotate and kcachegrind read it).
        #[arg(long, value_name = "FOLDER")]
        keep: Option<PathBuf>,
    },
    /// Write which functions the proxy enters when it starts and serves, for the linker (needs valgrind).
    Layout {
        /// Our proxy, built as it is shipped but not stripped [default: weft-proxy beside this program].
        #[arg(long, value_name = "FILE")]
        proxy: Option<PathBuf>,
    },
    /// The upstream.
    #[command(hide = true)]
    Backend,
    /// A connection for every request.
    #[command(hide = true)]
    Churn {
        #[command(flatten)]
        target: To,
        #[arg(long)]
        parallel: usize,
        #[arg(long)]
        seconds: u64,
    },
    /// Idle connections.
    #[command(hide = true)]
    Hold {
        #[command(flatten)]
        target: To,
        #[arg(long)]
        count: usize,
    },
    /// Another program, tied to this one.
    #[command(hide = true)]
    Tether {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct To {
    address: SocketAddr,
    #[arg(long)]
    certificates: Option<PathBuf>,
    #[arg(long)]
    resume: bool,
}

impl From<To> for Target {
    fn from(To { address, certificates, resume }: To) -> Self {
        Self { address, certificates, resume }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::parse();
    if let Some(part) = arguments.part.take() {
        return if run_part(part)? { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) };
    }
    let cases = scenario::cases(&arguments.scenario, arguments.quick);
    if arguments.list {
        let mut output = std::io::stdout().lock();
        for case in cases {
            writeln!(output, "{:<24} {}", case.name(), case.scenario.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let proxy = ours(arguments.proxy)?;
    let mut peers = arguments.peers;
    peers.sort_unstable();
    peers.dedup();
    let plan = Plan {
        cases,
        peers,
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 }).max(1),
        time: Duration::from_secs(arguments.seconds.unwrap_or(if arguments.quick { 2 } else { 5 })),
        rate: arguments.rate,
        proxy,
        json: arguments.json,
        chart: arguments.chart,
    };
    tether::end_on_signals()?;
    Ok(if campaign::run(&plan)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The proxy that the user named, or the one beside this program.
fn ours(path: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match path {
        Some(path) => Ok(std::path::absolute(path)?),
        None => {
            Ok(std::env::current_exe().context("this executable")?.with_file_name("weft-proxy"))
        }
    }
}

/// Returns whether all is as it should be.
fn run_part(part: Part) -> anyhow::Result<bool> {
    match part {
        Part::Tether { arguments } => return tether::become_program(&arguments).map(|()| true),
        Part::Gates { proxy, update, keep } => {
            tether::end_on_signals()?;
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("gates.json");
            let keep = keep.map(std::path::absolute).transpose()?;
            if let Some(folder) = &keep {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            return gates::run(&ours(proxy)?, &file, update, keep.as_deref());
        }
        Part::Layout { proxy } => {
            tether::end_on_signals()?;
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("proxy/layout.txt");
            return layout::run(&ours(proxy)?, &file).map(|()| true);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let say = |text: &str| -> std::io::Result<()> {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{text}")?;
        output.flush()
    };
    match part {
        Part::Backend => runtime.block_on(backend::run()),
        Part::Churn { target, parallel, seconds } => {
            let time = Duration::from_secs(seconds);
            let churned = runtime.block_on(client::churn(&target.into(), parallel, time))?;
            say(&serde_json::to_string(&churned)?).context("stdout")
        }
        Part::Hold { target, count } => {
            let mut said = Ok(());
            let ready = || said = say("held");
            let held = runtime.block_on(client::hold(&target.into(), count, ready));
            said.context("stdout").and(held)
        }
        Part::Tether { .. } | Part::Gates { .. } | Part::Layout { .. } => Ok(()),
    }
    .map(|()| true)
}
