//! What one request costs in instructions and allocations, counted by callgrind: a figure that a busy machine cannot move.
//!
//! The proxy runs under valgrind twice, with few and with more requests over one connection; the difference, for each
//! request, is compared with the committed figure (`bench/gates.json`). Starting up cancels out.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    client::{self, Speech, Target},
    install::{self, Tool},
    loads, measure,
    peer::Peer,
    tether::{self, Program},
};

/// Requests of the short run: what is done once is done.
const FEW: usize = 100;
/// Requests that the long run has more.
const MORE: usize = 500;

/// The proxy is some fifty times slower under valgrind, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// A figure may grow by this share before the gate closes: less than a real regression, more than other compilers do.
const TOLERANCE: f64 = 0.08;

/// What arrives together depends on the machine's load and can only add to the cost: so often it is counted before the gate
/// is said to be closed, and the least counts.
const ATTEMPTS: usize = 3;

/// Allocations are few, so that one more is more than the tolerance; and some depend on what arrives together.
const ALLOCATIONS: f64 = 1.5;

/// What is counted: name, role of the proxy, what the client speaks.
const GATES: &[(&str, &str, Speech)] = &[("h1", "h1", Speech::Http1), ("h2", "h2", Speech::Http2)];

/// What one request costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions of user space.
    pub instructions: f64,
    /// Calls of the allocator that give memory.
    pub allocations: f64,
}

impl Cost {
    /// Of two runs, the second of which has [`MORE`] requests more.
    fn of_one(few: Count, more: Count) -> Self {
        let each = |few: u64, more: u64| more.saturating_sub(few) as f64 / MORE as f64;
        Self {
            instructions: each(few.instructions, more.instructions).round(),
            allocations: (each(few.allocations, more.allocations) * 10.0).round() / 10.0,
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.min(other.instructions),
            allocations: self.allocations.min(other.allocations),
        }
    }
}

/// Counts, and compares with the file or, with `update`, writes it. Callgrind's files stay in the folder `keep`. Returns
/// whether every gate is open.
///
/// # Errors
/// When valgrind is missing or something does not run.
pub fn run(proxy: &Path, file: &Path, update: bool, keep: Option<&Path>) -> anyhow::Result<bool> {
    if !cfg!(target_arch = "x86_64") && !update {
        say("SKIPPED: the cost of a request, because the committed figures are of x86_64")?;
        return Ok(true);
    }
    let (stand, mut upstream) = Stand::new(proxy)?;
    let committed: BTreeMap<String, Cost> = if update {
        BTreeMap::new()
    } else {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())?
    };
    let mut costs = BTreeMap::new();
    for (name, role, speech) in GATES {
        let configuration = Peer::Weft.configuration(role).context("no configuration")?;
        let count = |requests: usize| -> anyhow::Result<Count> {
            let output = keep.unwrap_or(stand.folder()).join(format!("{name}.{requests}"));
            let program = stand.callgrind(name, &[], &output, &configuration)?;
            profile(vec![program], *speech, requests)?;
            let text = std::fs::read_to_string(&output).context("callgrind's output")?;
            Count::parse(&text).context("callgrind's output has no totals")
        };
        let allowed = committed.get(*name);
        let mut least = None;
        for _ in 0..ATTEMPTS {
            let (few, more) = (count(FEW)?, count(FEW + MORE)?);
            ensure!(
                more.allocations > 0,
                "{} names no functions: the figures are of a release build that is not stripped",
                proxy.display()
            );
            upstream.must_run()?;
            let cost = Cost::of_one(few, more);
            let cost = least.map_or(cost, |least| cost.least(least));
            least = Some(cost);
            if allowed.is_none_or(|allowed| judge(name, &cost, allowed).1) {
                break;
            }
        }
        costs.extend(least.map(|cost| ((*name).to_owned(), cost)));
    }
    if update {
        let mut text = serde_json::to_string_pretty(&costs)?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
        say(&format!("written: {}", file.display()))?;
        return Ok(true);
    }
    let mut open = true;
    for (name, cost) in &costs {
        let allowed = committed.get(name).with_context(|| format!("no figure of {name}"))?;
        let (line, holds) = judge(name, cost, allowed);
        say(&line)?;
        open &= holds;
    }
    Ok(open)
}

/// Where a proxy runs under valgrind.
pub(crate) struct Stand {
    proxy: PathBuf,
    valgrind: Tool,
    cores: Vec<usize>,
    folder: TempDir,
}

impl Stand {
    /// For this proxy, with its upstream, which runs.
    ///
    /// # Errors
    /// When the proxy or valgrind is missing, or the upstream does not run.
    pub fn new(proxy: &Path) -> anyhow::Result<(Self, Program)> {
        ensure!(proxy.is_file(), "{} is not built", proxy.display());
        let valgrind =
            install::in_path("valgrind").context("valgrind is not installed").map(Tool::at)?;
        let folder = tempfile::Builder::new().prefix("weft-callgrind-").tempdir()?;
        let cores = tether::cores()?;
        let backend = vec!["backend".into()];
        let order = loads::order("backend", Tool::own()?, backend, &cores, folder.path());
        let upstream = Program::start(&order)?;
        Ok((Self { proxy: proxy.to_owned(), valgrind, cores, folder }, upstream))
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the proxy with one worker, and with more options for callgrind, which writes the output when it ends.
    ///
    /// # Errors
    /// When it does not start.
    pub fn callgrind(
        &self,
        name: &str,
        options: &[&str],
        output: &Path,
        configuration: &Path,
    ) -> anyhow::Result<Program> {
        let mut arguments: Vec<OsString> = vec!["--tool=callgrind".into()];
        arguments.push(format!("--callgrind-out-file={}", output.display()).into());
        arguments.extend(options.iter().map(Into::into));
        arguments.extend(
            [self.proxy.as_os_str(), "--config".as_ref(), configuration.as_os_str()]
                .map(Into::into),
        );
        arguments.extend(["--concurrency", "1"].map(Into::into));
        let valgrind = self.valgrind.clone();
        Program::start(&loads::order(name, valgrind, arguments, &self.cores, self.folder()))
    }
}

/// Sends the requests through proxies that run under valgrind, and ends them.
pub(crate) fn profile(
    mut programs: Vec<Program>,
    speech: Speech,
    requests: usize,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = Target { address: measure::FRONT, certificates: None, resume: false };
    let outcome = runtime.block_on(async {
        client::until_served(&target, speech, PATIENCE, || {
            tether::pause(Duration::ZERO)?;
            programs.iter_mut().try_for_each(Program::must_run)
        })
        .await?;
        let exchange = client::exchange(measure::FRONT, speech, requests);
        tokio::time::timeout(PATIENCE, exchange).await.context("the requests take too long")?
    });
    outcome
        .with_context(|| programs.iter().map(Program::log_tail).collect::<Vec<_>>().join("\n"))?;
    programs.into_iter().try_for_each(|program| program.terminate(PATIENCE))
}

/// What callgrind counted in a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    instructions: u64,
    allocations: u64,
}

impl Count {
    /// Reads callgrind's file: `totals`, and the calls of functions that give memory.
    fn parse(text: &str) -> Option<Self> {
        let mut names: HashMap<&str, bool> = HashMap::new();
        let (mut allocations, mut called) = (0, false);
        let mut instructions = None;
        for line in text.lines() {
            if let Some(total) = line.strip_prefix("totals: ") {
                instructions = total.split_whitespace().next()?.parse().ok();
            } else if let Some(function) = line.strip_prefix("cfn=") {
                called = is_allocator(&mut names, function);
            } else if let Some(function) = line.strip_prefix("fn=") {
                is_allocator(&mut names, function);
            } else if let Some(calls) = line.strip_prefix("calls=")
                && called
            {
                allocations += calls.split_whitespace().next()?.parse::<u64>().ok()?;
            }
        }
        Some(Self { instructions: instructions?, allocations })
    }
}

/// Names are written once, `(12) name`, and then only as `(12)`.
fn is_allocator<'a>(names: &mut HashMap<&'a str, bool>, function: &'a str) -> bool {
    let (id, name) = function.split_once(' ').unwrap_or((function, ""));
    if !name.is_empty() {
        // Rust's way to whatever allocator there is.
        let giving = ["__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc"];
        let last = name.rsplit("::").next().unwrap_or(name);
        names.insert(id, giving.contains(&last));
    }
    names.get(id).copied().unwrap_or_default()
}

fn judge(name: &str, cost: &Cost, allowed: &Cost) -> (String, bool) {
    let change = |now: f64, then: f64| 100.0 * (now - then) / then.max(1.0);
    let instructions = cost.instructions <= allowed.instructions * (1.0 + TOLERANCE);
    let allocations = cost.allocations <= allowed.allocations + ALLOCATIONS;
    let better = cost.instructions < allowed.instructions * (1.0 - TOLERANCE)
        || cost.allocations < allowed.allocations - ALLOCATIONS;
    let verdict = match (instructions && allocations, better) {
        (false, _) => "MORE THAN COMMITTED",
        (true, true) => "better: commit it (./justw gates --update)",
        (true, false) => "as committed",
    };
    let line = format!(
        "{name}: {} instructions a request ({:+.1}%), {} allocations (committed {}): {verdict}",
        cost.instructions,
        change(cost.instructions, allowed.instructions),
        cost.allocations,
        allowed.allocations
    );
    (line, instructions && allocations)
}

pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_file_gives_instructions_and_allocations() {
        let text = "version: 1\nevents: Ir\n\nfn=(1) main\n1 10\n\
            cfn=(2) __rustc::__rust_alloc\ncalls=7 0\n1 20\n\
            cfn=(3) weft::serve\ncalls=100 0\n1 20\n\
            fn=(3)\n2 5\ncfn=(2)\ncalls=5 0\n3 20\n\
            cfn=(4) __rustc::__rust_dealloc\ncalls=9 0\n3 20\n\
            cfn=(5) __rustc::__rust_realloc\ncalls=1 0\n3 20\ntotals: 12345\n";
        let expected = Count { instructions: 12345, allocations: 13 };
        assert_eq!(Count::parse(text), Some(expected));
        assert_eq!(Count::parse("fn=(1) main\n1 10\n"), None);
    }

    #[test]
    fn a_gate_closes_on_more_and_says_when_less_is_needed() {
        let committed = Cost { instructions: 10_000.0, allocations: 20.0 };
        for (instructions, allocations, holds, word) in [
            (10_700.0, 21.0, true, "as committed"),
            (10_900.0, 20.0, false, "MORE"),
            (10_000.0, 22.0, false, "MORE"),
            (8_000.0, 20.0, true, "better"),
        ] {
            let (line, open) = judge("h1", &Cost { instructions, allocations }, &committed);
            assert_eq!(open, holds, "{line}");
            assert!(line.contains(word), "{line}");
        }
    }
}
