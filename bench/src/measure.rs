//! One measurement: a chain of proxies is started, loaded, and ended.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    client::{self, Churned, Speech, Target},
    install::Tool,
    loads::{self, Loads},
    peer::Proxy,
    scenario::{Case, Load},
    tether::{self, Order, Program},
    usage,
};

/// The first proxy of every chain but those that begin with the server's sidecar.
pub const FRONT: SocketAddr = crate::loopback(1, 10_000);
/// The server's sidecar.
const SIDECAR: SocketAddr = crate::loopback(2, 10_443);

/// How long a chain may take to serve, and a load generator longer than it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that are opened at the same time by the churn.
const CHURNING: usize = 16;

/// Starts that are timed in a round.
const STARTS: usize = 3;

/// What a process gets to settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// Where and how everything runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long each load lasts.
    pub time: Duration,
    /// Requests a second of the fixed rate.
    pub rate: u32,
    /// The working folder.
    pub folder: std::path::PathBuf,
    /// All cores.
    pub cores: Vec<usize>,
}

impl Settings {
    /// The cores of the proxies: one for one worker, so that what they do is done there.
    pub fn proxy_cores(&self, workers: usize) -> &[usize] {
        let count = self.cores.len();
        if count > workers { &self.cores[count - workers..] } else { &self.cores }
    }

    /// The cores of everything else, when there are some left.
    pub fn load_cores(&self, workers: usize) -> &[usize] {
        let count = self.cores.len();
        if count > workers { &self.cores[..count - workers] } else { &self.cores }
    }
}

/// What was measured of one proxy in one round. What a case does not measure is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Right answers in a second, as many as there can be.
    pub rate: Option<f64>,
    /// CPU seconds of all proxy processes for 10,000 of them.
    pub cpu: Option<f64>,
    /// The share of their cores that the proxies used meanwhile; far below 1 something else was the limit.
    pub busy: Option<f64>,
    /// Latencies at the fixed rate, in milliseconds.
    pub p50: Option<f64>,
    /// As `p50`.
    pub p99: Option<f64>,
    /// As `p50`.
    pub p999: Option<f64>,
    /// CPU seconds for 10,000 requests at the fixed rate.
    pub paced_cpu: Option<f64>,
    /// Resident memory of all proxy processes before the load, in MiB.
    pub idle: Option<f64>,
    /// The most during the load, in MiB.
    pub loaded: Option<f64>,
    /// Resident memory for each idle connection, in KiB.
    pub connection: Option<f64>,
    /// From exec to the first answer, in milliseconds.
    pub start: Option<f64>,
    /// The share of handshakes that resumed a session.
    pub resumed: Option<f64>,
    /// CPU of other programs meanwhile, as a share of the machine.
    pub foreign: Option<f64>,
    /// Requests that failed.
    pub failed: u64,
}

/// The proxies of a chain.
struct Chain(Vec<Program>);

impl Chain {
    fn start(proxy: &Proxy, case: &Case, settings: &Settings) -> anyhow::Result<Self> {
        let cores = settings.proxy_cores(case.workers);
        // Each takes its place in the chain when the next one is there already.
        let roles = case.scenario.roles.iter().rev();
        let programs = roles.map(|role| {
            Program::start(&proxy.order(role, case.workers, cores, &settings.folder)?)
        });
        Ok(Self(programs.collect::<anyhow::Result<_>>()?))
    }

    fn until_served(&mut self, case: &Case, folder: &Path) -> anyhow::Result<()> {
        let target = target(case, folder);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let programs = &mut self.0;
        let served = client::until_served(&target, case.speech(), PATIENCE, || {
            tether::pause(Duration::ZERO)?;
            programs.iter_mut().try_for_each(Program::must_run)
        });
        let outcome = runtime.block_on(served);
        outcome.with_context(|| {
            let logs = programs.iter().map(Program::log_tail);
            logs.collect::<Vec<_>>().join("\n")
        })
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        self.0.iter().map(|program| usage::cpu(program.id())).sum()
    }

    /// In KiB.
    fn resident(&self) -> anyhow::Result<u64> {
        self.0.iter().map(|program| usage::resident(program.id())).sum()
    }
}

fn front(case: &Case) -> SocketAddr {
    if case.speech() == Speech::Http1Tls { SIDECAR } else { FRONT }
}

fn target(case: &Case, folder: &Path) -> Target {
    let tls = case.speech() == Speech::Http1Tls;
    Target {
        address: front(case),
        certificates: tls.then(|| folder.join("certs")),
        resume: matches!(case.scenario.load, Load::Churn { resume: true }),
    }
}

fn mebi(kibi: u64) -> f64 {
    kibi as f64 / 1024.0
}

/// One round of a case with one proxy. The backend must be running.
///
/// # Errors
/// When something does not start, or no request is answered.
pub fn run(
    proxy: &Proxy,
    case: &Case,
    loads: &Loads,
    settings: &Settings,
) -> anyhow::Result<Sample> {
    let outcome = match case.scenario.load {
        Load::Start => starts(proxy, case, settings),
        _ => loaded(proxy, case, loads, settings),
    };
    outcome.with_context(|| format!("{}: {}", case.name(), proxy.peer.title()))
}

fn starts(proxy: &Proxy, case: &Case, settings: &Settings) -> anyhow::Result<Sample> {
    let (mut times, mut idle) = (Vec::new(), 0);
    for _ in 0..STARTS {
        let begin = Instant::now();
        let mut chain = Chain::start(proxy, case, settings)?;
        chain.until_served(case, &settings.folder)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        tether::pause(SETTLE)?;
        idle = chain.resident()?;
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(Sample { start: Some(times[STARTS / 2]), idle: Some(mebi(idle)), ..Sample::default() })
}

fn loaded(
    proxy: &Proxy,
    case: &Case,
    loads: &Loads,
    settings: &Settings,
) -> anyhow::Result<Sample> {
    let mut chain = Chain::start(proxy, case, settings)?;
    chain.until_served(case, &settings.folder)?;
    tether::pause(SETTLE)?;
    let bench = Bench { case, loads, settings };
    let mut sample = Sample { idle: Some(mebi(chain.resident()?)), ..Sample::default() };
    match case.scenario.load {
        Load::Idle { count, .. } => bench.hold(&mut chain, count, &mut sample)?,
        Load::Churn { .. } => bench.churn(&chain, &mut sample)?,
        Load::Start | Load::Requests(_) | Load::Calls => {
            bench.saturate(&chain, &mut sample)?;
            bench.pace(&chain, &mut sample)?;
        }
    }
    chain.0.iter_mut().try_for_each(Program::must_run)?;
    Ok(sample)
}

/// What a load was measured to cost.
struct Cost {
    output: String,
    cpu: Duration,
    busy: f64,
    foreign: f64,
    most: u64,
}

struct Bench<'a> {
    case: &'a Case,
    loads: &'a Loads,
    settings: &'a Settings,
}

impl Bench<'_> {
    fn saturate(&self, chain: &Chain, sample: &mut Sample) -> anyhow::Result<()> {
        let load = |time| self.loads.saturate(self.case, FRONT, time);
        self.run("warm", load(Duration::from_secs(1)), chain)?;
        let cost = self.run("saturate", load(self.settings.time), chain)?;
        let counted = loads::counted(self.case.speech(), &cost.output)?;
        ensure!(counted.answers > 0, "no request was answered:\n{}", cost.output);
        sample.rate = Some(counted.rate);
        sample.cpu = Some(cost.cpu.as_secs_f64() * 1e4 / counted.answers as f64);
        sample.busy = Some(cost.busy);
        sample.foreign = Some(cost.foreign);
        sample.loaded = Some(mebi(cost.most));
        sample.failed += counted.failed;
        Ok(())
    }

    fn pace(&self, chain: &Chain, sample: &mut Sample) -> anyhow::Result<()> {
        let Settings { rate, time, .. } = self.settings;
        let load = self.loads.paced(self.case, FRONT, *rate, *time);
        let cost = self.run("pace", load, chain)?;
        let latency = loads::latency(&cost.output)?;
        let answers = latency.counted.answers as f64;
        (sample.p50, sample.p99) = (Some(latency.p50), Some(latency.p99));
        sample.p999 = Some(latency.p999);
        sample.paced_cpu = Some(cost.cpu.as_secs_f64() * 1e4 / answers);
        sample.failed += latency.counted.failed;
        Ok(())
    }

    fn churn(&self, chain: &Chain, sample: &mut Sample) -> anyhow::Result<()> {
        let seconds = self.settings.time.as_secs().max(1).to_string();
        let churn = |seconds: &str| -> anyhow::Result<_> {
            let mut list = self.own_client("churn");
            list.extend(["--parallel".into(), CHURNING.to_string().into()]);
            list.extend(["--seconds".into(), seconds.into()]);
            Ok((Tool::own()?, list))
        };
        self.run("warm", churn("1")?, chain)?;
        let cost = self.run("churn", churn(&seconds)?, chain)?;
        let churned: Churned = serde_json::from_str(&cost.output).context("the client's JSON")?;
        let connections = churned.connections as f64;
        sample.rate = Some(connections / churned.seconds);
        sample.cpu = Some(cost.cpu.as_secs_f64() * 1e4 / connections);
        sample.busy = Some(cost.busy);
        sample.foreign = Some(cost.foreign);
        sample.loaded = Some(mebi(cost.most));
        (sample.p50, sample.p99) = (Some(churned.p50), Some(churned.p99));
        sample.resumed = Some(churned.resumed as f64 / connections);
        sample.failed += churned.failed;
        Ok(())
    }

    fn hold(&self, chain: &mut Chain, count: usize, sample: &mut Sample) -> anyhow::Result<()> {
        let before = chain.resident()?;
        let mut list = self.own_client("hold");
        list.extend(["--count".into(), count.to_string().into()]);
        let mut holder = Program::start(&self.order("hold", Tool::own()?, list))?;
        let end = Instant::now() + PATIENCE * 2;
        while !holder.output().contains("held") {
            holder.must_run()?;
            chain.0.iter_mut().try_for_each(Program::must_run)?;
            ensure!(Instant::now() < end, "{count} connections cannot be opened in time");
            tether::pause(Duration::from_millis(50))?;
        }
        tether::pause(SETTLE)?;
        let after = chain.resident()?;
        holder.must_run()?;
        sample.loaded = Some(mebi(after));
        sample.connection = Some((after as f64 - before as f64) / count as f64);
        Ok(())
    }

    fn own_client(&self, command: &str) -> Vec<OsString> {
        let target = target(self.case, &self.settings.folder);
        let mut list = vec![command.into(), target.address.to_string().into()];
        if let Some(folder) = target.certificates {
            list.extend(["--certificates".into(), folder.into_os_string()]);
        }
        if target.resume {
            list.push("--resume".into());
        }
        list
    }

    fn order(&self, name: &str, tool: Tool, arguments: Vec<OsString>) -> Order {
        let cores = self.settings.load_cores(self.case.workers);
        loads::order(name, tool, arguments, cores, &self.settings.folder)
    }

    /// Runs a load to its end, and reads before and after what the proxies used.
    fn run(
        &self,
        name: &str,
        (tool, arguments): (Tool, Vec<OsString>),
        chain: &Chain,
    ) -> anyhow::Result<Cost> {
        let ours = || usage::cpu(std::process::id());
        let (begin, machine, cpu, all) = (Instant::now(), usage::machine()?, chain.cpu()?, ours()?);
        let generator = Program::start(&self.order(name, tool, arguments))?;
        let id = generator.id();
        let (mut most, mut generated, mut seen) = (0, Duration::ZERO, Instant::now());
        let output = generator.finish(self.settings.time + PATIENCE, || {
            if seen.elapsed() > Duration::from_millis(100) {
                seen = Instant::now();
                most = most.max(chain.resident()?);
                generated = usage::cpu(id).unwrap_or(generated);
            }
            Ok(())
        })?;
        let elapsed = begin.elapsed().as_secs_f64();
        let cpu = chain.cpu()?.saturating_sub(cpu);
        // What this process and all below it used; the generator is gone and was read shortly before its end.
        let known = ours()?.saturating_sub(all) + generated;
        let foreign = (usage::machine()?.saturating_sub(machine)).saturating_sub(known);
        let cores = self.settings.proxy_cores(self.case.workers).len() as f64;
        Ok(Cost {
            output,
            cpu,
            busy: cpu.as_secs_f64() / elapsed / cores,
            foreign: foreign.as_secs_f64() / elapsed / self.settings.cores.len() as f64,
            most: most.max(chain.resident()?),
        })
    }
}
