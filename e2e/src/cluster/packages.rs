//! The Debian packages that a node needs: what is missing, and how it comes in.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::say;

/// Folder of the CNI plugins.
pub const CNI: &str = "/usr/lib/cni";

/// A program that must be there, and the package that brings it.
const NEEDED: [(&str, &str); 13] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Where a program is, looked for as a shell of root does.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The packages of a node whose programs are not here.
pub fn missing() -> Vec<&'static str> {
    missing_of(&NEEDED)
}

/// Of these programs and their packages, the packages whose programs are not here.
pub fn missing_of(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    let lacks = needed.iter().filter(|(program, _)| find(program).is_none());
    let mut missing: Vec<_> = lacks.map(|(_, package)| *package).collect();
    missing.dedup();
    missing
}

/// Whether packages can be installed by whoever runs this.
pub fn installable() -> bool {
    rustix::process::geteuid().is_root() && find("apt-get").is_some()
}

/// Installs packages that are missing, where apt is; else says which they are.
///
/// # Errors
/// With the list of what is missing, or apt's own words.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!(
            "missing programs; these Debian packages have them: {list} (there is no apt-get here: install them by hand)"
        );
    }
    say(&format!("installing Debian packages: {list}"));
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Packages of servers would start them.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .output()
            .context("apt-get")
    };
    let install = [&["install", "-y", "-qq", "--no-install-recommends"], packages].concat();
    let mut output = apt(&install)?;
    if !output.status.success() {
        // The lists may be old, or there may be none yet.
        apt(&["update", "-qq"])?;
        output = apt(&install)?;
    }
    if !output.status.success() {
        bail!("apt-get install {list}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
