//! What can be done with a cluster that runs: load images, stop and start its programs, look into it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{folder::Folder, images as archives_of, say, status, up};

const PATIENCE: Duration = Duration::from_secs(60);

/// Imports archives; those of `target/images` when none is named.
///
/// # Errors
/// When the cluster is not up, or with containerd's words.
pub fn load(folder: &Folder, mut archives: Vec<PathBuf>) -> anyhow::Result<()> {
    up::running(folder)?;
    if archives.is_empty() {
        let built = archives_of::default_folder();
        archives = archives_of::archives(&built)?;
        ensure!(!archives.is_empty(), "no images in {}: ./justw images", built.display());
    }
    for archive in &archives {
        up::load(folder, archive)?;
        say(&format!("loaded {}", archive.display()));
    }
    Ok(())
}

/// Makes our images' archives.
///
/// # Errors
/// When a program is missing or not static.
pub fn images(programs: Option<PathBuf>, target: Option<PathBuf>) -> anyhow::Result<()> {
    let programs = match programs {
        Some(programs) => programs,
        None => std::env::current_exe()?.parent().context("a program has a folder")?.to_path_buf(),
    };
    archives_of::build(&programs, &target.unwrap_or_else(archives_of::default_folder))
}

/// Ends a program of the node, and waits until it is gone.
///
/// # Errors
/// When there is no such program, or it does not end.
pub fn stop(folder: &Folder, program: &str) -> anyhow::Result<()> {
    known(folder, program)?;
    let wanted = folder.file(&format!("wanted/{program}"));
    if wanted.exists() {
        fs::remove_file(wanted)?;
    }
    let running = folder.file(&format!("running/{program}"));
    until(&format!("{program} should end"), || !running.exists())
}

/// Starts a program of the node, and waits until its process is there.
///
/// # Errors
/// When there is no such program, or it does not start.
pub fn start(folder: &Folder, program: &str) -> anyhow::Result<()> {
    known(folder, program)?;
    up::want(folder, program)?;
    let running = folder.file(&format!("running/{program}"));
    until(&format!("{program} should start"), || running.exists())
}

/// Halts a program of the node (SIGSTOP): it keeps its connections and answers nothing.
///
/// # Errors
/// When there is no such program, or it does not run.
pub fn pause(folder: &Folder, program: &str) -> anyhow::Result<()> {
    signal(folder, program, "STOP")
}

/// Lets a halted program go on.
///
/// # Errors
/// As [`pause`].
pub fn resume(folder: &Folder, program: &str) -> anyhow::Result<()> {
    signal(folder, program, "CONT")
}

/// By its number in the node's namespace.
fn signal(folder: &Folder, program: &str, signal: &str) -> anyhow::Result<()> {
    known(folder, program)?;
    let number = fs::read_to_string(folder.file(&format!("running/{program}")))
        .with_context(|| format!("{program} does not run"))?;
    let output = nsenter(folder)?
        .args(["sh", "-c", &format!("kill -s {signal} {}", number.trim())])
        .stdin(Stdio::null())
        .output()
        .context("nsenter")?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn known(folder: &Folder, program: &str) -> anyhow::Result<()> {
    up::running(folder)?;
    let names: Vec<_> =
        status::components(folder)?.into_iter().map(|component| component.name).collect();
    ensure!(
        names.iter().any(|name| name == program),
        "the node has no program {program:?}; it has {}",
        names.join(", ")
    );
    Ok(())
}

fn until(what: &str, ask: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !ask() {
        if Instant::now() >= deadline {
            bail!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs a command in the node's namespaces; its exit code is ours.
///
/// # Errors
/// When the cluster is not up.
pub fn enter(folder: &Folder, command: &[String]) -> anyhow::Result<ExitCode> {
    let status = nsenter(folder)?.args(command).status().context("nsenter")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn nsenter(folder: &Folder) -> anyhow::Result<Command> {
    let init = up::running(folder)?.init;
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", init.pid()))
        .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--"]);
    Ok(command)
}
