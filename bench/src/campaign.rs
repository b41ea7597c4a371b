//! The whole run: installs, takes turns, repeats, and tells.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::{
    backend, certificates, chart,
    figures::{self, Outcome, Series},
    install::{Installer, Tool},
    loads::{self, Loads},
    measure::{self, Settings},
    peer::{Peer, Proxy},
    scenario::{Case, Load},
    table,
    tether::{self, Program},
    usage,
};

/// How busy the machine may be before anything is started, as a share of it.
const QUIET: f64 = 0.1;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is measured.
    pub cases: Vec<Case>,
    /// Who takes part.
    pub peers: Vec<Peer>,
    /// How often everything is repeated.
    pub rounds: usize,
    /// How long each load lasts.
    pub time: Duration,
    /// Requests a second of the fixed rate.
    pub rate: u32,
    /// Our proxy.
    pub proxy: PathBuf,
    /// Where all samples go.
    pub json: Option<PathBuf>,
    /// Where the chart goes.
    pub chart: Option<PathBuf>,
}

/// Runs the plan. Returns whether every proxy could be measured in every case.
///
/// # Errors
/// When something cannot be installed or started; a proxy that fails in one case does not end the run.
pub fn run(plan: &Plan) -> anyhow::Result<bool> {
    ensure!(!plan.cases.is_empty(), "no scenario has that name (--list shows all)");
    let needs =
        |wanted: fn(&Load) -> bool| plan.cases.iter().any(|case| wanted(&case.scenario.load));
    let installer = Installer::new()?;
    let proxies = plan.peers.iter().map(|peer| peer.find(&installer, &plan.proxy));
    let proxies = proxies.collect::<anyhow::Result<Vec<_>>>()?;
    let loads = if needs(|load| matches!(load, Load::Requests(_) | Load::Calls)) {
        Loads {
            wrk: installer.debian("wrk", "wrk")?,
            h2load: installer.debian("h2load", "nghttp2-client")?,
            oha: installer.oha()?,
        }
    } else {
        let none = || Tool::at("");
        Loads { wrk: none(), h2load: none(), oha: none() }
    };
    drop(installer);

    let folder = tempfile::Builder::new().prefix("weft-bench-").tempdir()?;
    certificates::write(&folder.path().join("certs"))?;
    std::fs::write(folder.path().join(loads::MESSAGE_FILE), backend::grpc_message())?;
    let settings = Settings {
        time: plan.time,
        rate: plan.rate,
        folder: folder.path().to_owned(),
        cores: tether::cores()?,
    };
    tell(&opening(plan, &proxies, &settings))?;
    let busy = busy_before()?;
    if busy > QUIET {
        tell(&format!(
            "\nWARNING: other programs use {:.0}% of this machine: the figures will be noisy.\n",
            busy * 100.0
        ))?;
    }
    let outcomes = rounds(plan, &proxies, &loads, &settings)?;
    tell("\n")?;
    for outcome in &outcomes {
        tell(&table::outcome(outcome))?;
        tell("\n")?;
    }
    let goals = figures::goals(&outcomes);
    if !goals.is_empty() {
        tell(&table::goals(&goals))?;
    }
    save(plan, &proxies, &settings, &outcomes, busy)?;
    let failed = |series: &Series| series.failure.is_some();
    Ok(!outcomes.iter().flat_map(|outcome| &outcome.series).any(failed))
}

fn rounds(
    plan: &Plan,
    proxies: &[Proxy],
    loads: &Loads,
    settings: &Settings,
) -> anyhow::Result<Vec<Outcome>> {
    let takes_part = |proxy: &&Proxy, case: &Case| {
        let mut roles = case.scenario.roles.iter();
        proxy.runs_with(case.workers) && roles.all(|role| proxy.peer.configuration(role).is_some())
    };
    let outcome = |case: &Case| Outcome {
        case: case.name(),
        scenario: case.scenario.name,
        about: case.scenario.about,
        is_main: case.is_main(),
        series: proxies
            .iter()
            .filter(|proxy| takes_part(proxy, case))
            .map(|proxy| Series { peer: proxy.peer, samples: Vec::new(), failure: None })
            .collect(),
    };
    let mut outcomes: Vec<_> = plan.cases.iter().map(outcome).collect();
    let all = plan.rounds * outcomes.iter().map(|outcome| outcome.series.len()).sum::<usize>();
    let (begin, mut done) = (Instant::now(), 0);
    for round in 0..plan.rounds {
        for (case, outcome) in plan.cases.iter().zip(&mut outcomes) {
            let mut backend = start_backend(case, settings)?;
            // Who begins changes from round to round, so that nobody always meets the machine in the same state.
            let count = outcome.series.len().max(1);
            outcome.series.rotate_left(round % count);
            for series in &mut outcome.series {
                let proxy = proxies.iter().find(|proxy| proxy.peer == series.peer);
                let proxy = proxy.context("a series of no proxy")?;
                progress(done, all, begin, &format!("{} {}", case.name(), series.peer.title()));
                let sample = measure::run(proxy, case, loads, settings);
                tether::pause(Duration::ZERO)?;
                match sample {
                    Ok(sample) => series.samples.push(Some(sample)),
                    Err(error) => {
                        series.samples.push(None);
                        series.failure = Some(format!("{error:#}"));
                    }
                }
                backend.must_run()?;
                done += 1;
            }
            outcome.series.sort_by_key(|series| series.peer);
        }
    }
    progress(done, all, begin, "done");
    Ok(outcomes)
}

fn start_backend(case: &Case, settings: &Settings) -> anyhow::Result<Program> {
    let cores = settings.load_cores(case.workers);
    let arguments = vec!["backend".into()];
    let order = loads::order("backend", Tool::own()?, arguments, cores, &settings.folder);
    let mut backend = Program::start(&order)?;
    for address in [backend::HTTP1, backend::HTTP2] {
        while std::net::TcpStream::connect(address).is_err() {
            backend.must_run()?;
            tether::pause(Duration::from_millis(5))?;
        }
    }
    Ok(backend)
}

/// One line that says where the run is.
fn progress(done: usize, all: usize, begin: Instant, what: &str) {
    let left = match done {
        0 => String::new(),
        _ => {
            let each = begin.elapsed().as_secs_f64() / done as f64;
            format!(", {:.0} min left", (each * (all - done) as f64 / 60.0).ceil())
        }
    };
    // Nothing depends on whether anybody reads it.
    let _ = writeln!(std::io::stderr().lock(), "[{done}/{all}{left}] {what}");
}

fn tell(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("stdout")
}

/// The share of the machine that is used before anything of ours runs.
fn busy_before() -> anyhow::Result<f64> {
    let before = usage::machine()?;
    tether::pause(Duration::from_secs(1))?;
    let used = usage::machine()?.saturating_sub(before);
    Ok(used.as_secs_f64() / std::thread::available_parallelism()?.get() as f64)
}

/// What the machine and the settings are; fair or not, everybody can judge.
fn opening(plan: &Plan, proxies: &[Proxy], settings: &Settings) -> String {
    let mut text = format!("machine   {}, {} cores\n", processor(), settings.cores.len());
    for proxy in proxies {
        text.push_str(&format!("{:<9} {}\n", proxy.peer.title(), proxy.version));
    }
    let Plan { rounds, time, rate, .. } = plan;
    text.push_str(&format!(
        "settings  {rounds} rounds, proxies in turn; {}s saturated, then {}s at {rate} requests/s; 64 requests under way\n\
         cores     one worker: proxies on {:?}, load and backend on {:?}; two workers: proxies on {:?}, load on {:?}\n\
         fairness  one data thread per worker everywhere, no access log, TLS 1.3 on both sides with ECDSA P-256, release builds;\n\
         \x20         Weft counts metrics and checks the principal by RBAC as Envoy does, from the same file; HAProxy 2.6 and\n\
         \x20         nginx read no alternative names, so they check the common name, which carries the same identity;\n\
         \x20         nginx runs as one process, speaks no HTTP/2 to servers and takes no part there (bench/config has all files)\n",
        time.as_secs(),
        time.as_secs(),
        settings.proxy_cores(1),
        settings.load_cores(1),
        settings.proxy_cores(2),
        settings.load_cores(2),
    ));
    text
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn save(
    plan: &Plan,
    proxies: &[Proxy],
    settings: &Settings,
    outcomes: &[Outcome],
    busy: f64,
) -> anyhow::Result<()> {
    if let Some(path) = &plan.json {
        let versions: Vec<_> = proxies
            .iter()
            .map(|proxy| json!({"proxy": proxy.peer, "version": proxy.version}))
            .collect();
        let value = json!({
            "machine": {
                "processor": processor(),
                "cores": settings.cores,
                "busy_before": busy,
                "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            },
            "versions": versions,
            "settings": {
                "rounds": plan.rounds,
                "seconds": plan.time.as_secs(),
                "rate": plan.rate,
                "proxy_cores": [settings.proxy_cores(1), settings.proxy_cores(2)],
                "load_cores": [settings.load_cores(1), settings.load_cores(2)],
            },
            "outcomes": outcomes,
            "goals": figures::goals(outcomes),
        });
        write(path, &serde_json::to_string_pretty(&value)?)?;
    }
    if let Some(path) = &plan.chart {
        let versions: Vec<_> = proxies.iter().map(|proxy| proxy.peer.title()).collect();
        let footer = format!(
            "{} on {} cores of {}, medians of {} rounds, ./justw bench",
            versions.join(", "),
            settings.cores.len(),
            processor(),
            plan.rounds
        );
        write(path, &chart::svg(outcomes, &footer))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    tell(&format!("written: {}\n", path.display()))
}
