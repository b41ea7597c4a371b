//! Programs that the bench starts: pinned to cores, logged to a file, and certain to end.
//!
//! Every program is started by this executable in its place (`weft-bench tether`), which asks the kernel to kill it when
//! the bench ends for whatever reason. All are started by the main thread, since that request follows the thread.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::{
    process::{
        Pid, Resource, Rlimit, Signal, getppid, getrlimit, kill_process,
        set_parent_process_death_signal, setrlimit,
    },
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Lines of a log that are shown when something goes wrong.
const TAIL: usize = 15;

/// How long a program may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(3);

/// What is looked at between two looks at a program.
const PAUSE: Duration = Duration::from_millis(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM end what is being waited for with an error, so that everything is cleaned up.
///
/// # Errors
/// When the thread that waits for signals cannot be started.
pub fn end_on_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        anyhow::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}

/// Waits a little, unless the user wants to end.
///
/// # Errors
/// When the user does.
pub fn pause(time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    loop {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// The cores that this process may use.
///
/// # Errors
/// When the kernel does not say.
pub fn cores() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("sched_getaffinity")?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Order {
    /// Names the log, and the program in messages.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Added to the environment.
    pub environment: Vec<(String, OsString)>,
    /// The cores that it may use.
    pub cores: Vec<usize>,
    /// Its working folder, where its output goes as well.
    pub folder: PathBuf,
}

/// A running program; ended with this value.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: PathBuf,
    log: PathBuf,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(order: &Order) -> anyhow::Result<Self> {
        let Order { name, program, arguments, environment, cores, folder } = order;
        let output = folder.join(format!("{name}.out"));
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe().context("this executable")?);
        command
            .arg("tether")
            .arg(std::process::id().to_string())
            .arg(cores_text(cores))
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&log)?);
        for variable in std::env::vars_os().map(|(name, _)| name) {
            if variable.to_string_lossy().to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(variable);
            }
        }
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.clone(), child, output, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output so far.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self) -> String {
        let mut log = read(&self.output);
        log.push_str(&read(&self.log));
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Fails when it is not running any more.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it is still there after `patience`.
    pub fn terminate(mut self, patience: Duration) -> anyhow::Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot end {}", self.name))?;
        let end = Instant::now() + patience;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "{} does not end:\n{}", self.name, self.log_tail());
            pause(PAUSE)?;
        }
        Ok(())
    }

    /// Waits for its end and returns its output; `look` is called all the while.
    ///
    /// # Errors
    /// When it fails, or is not done after `patience`.
    pub fn finish(
        mut self,
        patience: Duration,
        mut look: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let end = Instant::now() + patience;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(self.output()),
                Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
                None if Instant::now() > end => {
                    bail!("{} is not done after {patience:?}:\n{}", self.name, self.log_tail())
                }
                None => pause(PAUSE)?,
            }
            look()?;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), pid) {
            let _ = kill_process(pid, Signal::TERM);
            let end = Instant::now() + FAREWELL;
            while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(PAUSE);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn cores_text(cores: &[usize]) -> String {
    let mut text = String::new();
    for core in cores {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{core}");
    }
    text
}

/// `weft-bench tether PARENT CORES PROGRAM ARGUMENTS...`: becomes the program. Returns only when it cannot.
///
/// # Errors
/// With the reason.
pub fn become_program(arguments: &[OsString]) -> anyhow::Result<()> {
    let [parent, cores, program, arguments @ ..] = arguments else {
        bail!("usage: weft-bench tether PARENT CORES PROGRAM ARGUMENTS...");
    };
    set_parent_process_death_signal(Some(Signal::KILL)).context("prctl")?;
    // The parent may have ended before the request was made.
    let alive = getppid().map(|pid| OsString::from(pid.as_raw_nonzero().to_string()));
    ensure!(alive.as_ref() == Some(parent), "the bench is gone");
    let mut set = CpuSet::new();
    for core in cores.to_string_lossy().split(',') {
        set.set(core.parse().context("core")?);
    }
    sched_setaffinity(None, &set).context("sched_setaffinity")?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("nofile")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| Path::new(program).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_written_as_a_list() {
        assert_eq!(cores_text(&[0, 1, 7]), "0,1,7");
        assert!(!cores().unwrap().is_empty());
    }
}
