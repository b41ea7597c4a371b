//! The programs of Kubernetes, etcd, CoreDNS and Helm, built from the Go modules in `e2e/cluster` into the cache.
//!
//! A module's folder in the cache is named by a hash of its files: other versions get another folder. It is renamed
//! into place when it is whole. The programs of all modules are hard links in one folder, for `PATH`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use super::{folder, go, say};
use crate::programs::repository;

/// What Kubernetes says that it is; unstamped programs call themselves v0.0.0, and Helm's checks of versions fail.
pub const KUBERNETES: &str = "v1.36.4";

/// How often a build that goes on says so.
const PROGRESS: Duration = Duration::from_secs(30);

/// A Go module of `e2e/cluster`, and what is built of it: (program, package).
struct Module {
    folder: &'static str,
    says: &'static str,
    programs: &'static [(&'static str, &'static str)],
}

const MODULES: [Module; 5] = [
    Module { folder: "pause", says: "pause: seconds", programs: &[("pause", ".")] },
    Module {
        folder: "etcd",
        says: "etcd: a minute",
        programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    },
    Module {
        folder: "kubernetes",
        says: "Kubernetes: about 10 minutes on 2 cores",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
    },
    Module { folder: "coredns", says: "CoreDNS: a minute", programs: &[("coredns", ".")] },
    Module {
        folder: "helm",
        says: "Helm: two minutes",
        programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    },
];

fn sources() -> PathBuf {
    repository().join("e2e/cluster")
}

impl Module {
    /// A hash of the files that say what is built of it.
    fn fingerprint(&self) -> anyhow::Result<String> {
        let folder = sources().join(self.folder);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .with_context(|| folder.display().to_string())?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        let mut hash = Sha256::new();
        for file in files {
            let content = fs::read(&file).with_context(|| file.display().to_string())?;
            let name = file.file_name().unwrap_or_default().display();
            hash.update(format!("{name}:{}\n", content.len()).as_bytes());
            hash.update(&content);
        }
        Ok(short(hash))
    }

    /// Where its programs are kept, whatever the other modules are.
    fn store(&self) -> anyhow::Result<PathBuf> {
        Ok(folder::cache()?.join(format!("{}-{}", self.folder, self.fingerprint()?)))
    }
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of the built programs of all modules; they may be missing.
///
/// # Errors
/// When the modules cannot be read.
pub fn programs() -> anyhow::Result<PathBuf> {
    let mut hash = Sha256::new();
    for module in &MODULES {
        hash.update(module.fingerprint()?.as_bytes());
    }
    Ok(folder::cache()?.join(format!("bin-{}", short(hash))))
}

/// Builds what the cache lacks and returns the folder of the programs.
///
/// # Errors
/// When Go is missing or too old, or a build fails; the message has the end of its output.
pub fn ready() -> anyhow::Result<PathBuf> {
    let programs = programs()?;
    if all_in(&programs) {
        return Ok(programs);
    }
    let cache = folder::cache()?;
    fs::create_dir_all(&programs).with_context(|| programs.display().to_string())?;
    let lock = fs::File::create(cache.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    for module in &MODULES {
        let store = module.store()?;
        if !module.programs.iter().all(|(name, _)| store.join(name).is_file()) {
            let go = go::find()?;
            say(&format!("building {} (once, into {})", module.says, store.display()));
            build(&go, module, &store)?;
        }
        for (name, _) in module.programs {
            let target = programs.join(name);
            if !target.is_file() {
                fs::hard_link(store.join(name), &target)
                    .with_context(|| target.display().to_string())?;
            }
        }
    }
    Ok(programs)
}

fn all_in(programs: &Path) -> bool {
    let mut names = MODULES.iter().flat_map(|module| module.programs);
    names.all(|(name, _)| programs.join(name).is_file())
}

/// Whether every program is built.
///
/// # Errors
/// When the modules cannot be read.
pub fn is_ready() -> anyhow::Result<bool> {
    Ok(all_in(&programs()?))
}

/// The folders of the modules.
pub fn folders() -> impl Iterator<Item = PathBuf> {
    MODULES.iter().map(|module| sources().join(module.folder))
}

fn linker_flags(module: &Module) -> String {
    let mut flags = "-s -w".to_owned();
    if module.folder == "kubernetes" {
        let mut numbers = KUBERNETES.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
        for (name, value) in [
            ("gitVersion", KUBERNETES),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ] {
            flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
        }
    }
    flags
}

fn build(go: &Path, module: &Module, store: &Path) -> anyhow::Result<()> {
    let partial = store.with_added_extension("partial");
    fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
    let log = store.with_added_extension("log");
    let output = fs::File::create(&log)?;
    let local = module.programs.iter().all(|(_, package)| *package == ".");
    let target = match module.programs {
        [(name, _)] => partial.join(name),
        _ => partial.join(""),
    };
    let mut command = Command::new(go);
    command
        .current_dir(sources().join(module.folder))
        .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"])
        .arg(linker_flags(module))
        .arg("-o")
        .arg(target)
        .args(if local { vec!["."] } else { module.programs.iter().map(|(_, p)| *p).collect() })
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = command.spawn().context("go build")?;
    let began = Instant::now();
    let mut said = began;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            say(&format!("  still building {} ({} s)", module.folder, began.elapsed().as_secs()));
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        bail!("go build of {} ({status}):\n{}", module.folder, tail(&log));
    }
    for (name, _) in module.programs {
        ensure!(partial.join(name).is_file(), "go build of {} made no {name}", module.folder);
    }
    // What an older program of ours left incomplete is in the way.
    if store.exists() {
        fs::remove_dir_all(store)?;
    }
    fs::rename(&partial, store).with_context(|| store.display().to_string())?;
    say(&format!("  built in {} s", began.elapsed().as_secs()));
    Ok(())
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_stamped_version_is_the_pinned_one() {
        let module = fs::read_to_string(sources().join("kubernetes/go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes {KUBERNETES}")));
    }

    #[test]
    fn every_module_has_a_place_of_its_own() {
        let stores: Vec<_> = MODULES.iter().map(|module| module.store().unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = stores.iter().collect();
        assert_eq!(distinct.len(), MODULES.len());
    }
}
