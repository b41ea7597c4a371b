//! The proxies that are compared, and how each is started from its committed configuration.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::{
    install::{Installer, Tool},
    tether::Order,
};

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Ours.
    Weft,
    /// Envoy.
    Envoy,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

impl Peer {
    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Weft => "Weft",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }

    /// The file of `bench/config` that it runs for a role, if it can play that role.
    pub fn configuration(self, role: &str) -> Option<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let path = match self {
            Self::Weft | Self::Envoy => folder.join(format!("envoy/{role}.yaml")),
            Self::Haproxy => folder.join(format!("haproxy/{role}.cfg")),
            Self::Nginx => folder.join(format!("nginx/{role}.conf")),
        };
        path.is_file().then_some(path)
    }

    /// Finds it, or installs it; ours is the given program.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn find(self, installer: &Installer, ours: &Path) -> anyhow::Result<Proxy> {
        let tool = match self {
            Self::Weft => {
                ensure!(ours.is_file(), "{} is not built", ours.display());
                Tool::at(ours)
            }
            Self::Envoy => installer.envoy()?,
            Self::Haproxy => installer.debian("haproxy", "haproxy")?,
            Self::Nginx => installer.debian("nginx", "nginx")?,
        };
        let mut proxy = Proxy { peer: self, tool, version: String::new() };
        proxy.version = proxy.read_version()?;
        Ok(proxy)
    }
}

/// A proxy that can be run here.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Which one.
    pub peer: Peer,
    /// Its executable.
    pub tool: Tool,
    /// What it says of its version.
    pub version: String,
}

impl Proxy {
    /// Can it be more than one process or thread under this bench?
    pub fn runs_with(&self, workers: usize) -> bool {
        // Its workers would outlive it when it is killed, so it runs as one process.
        self.peer != Peer::Nginx || workers == 1
    }

    /// How it is run in a role.
    ///
    /// # Errors
    /// When it has no configuration for that role.
    pub fn order(
        &self,
        role: &str,
        workers: usize,
        cores: &[usize],
        folder: &Path,
    ) -> anyhow::Result<Order> {
        let file = self.peer.configuration(role).with_context(|| {
            format!("{} has no configuration for the role {role}", self.peer.title())
        })?;
        let mut environment = self.tool.environment.clone();
        let mut arguments: Vec<OsString> = Vec::new();
        let workers = workers.to_string();
        match self.peer {
            Peer::Weft => arguments.extend(["--config".into(), file.into_os_string()]),
            Peer::Envoy => {
                arguments.extend(["--disable-hot-restart", "--log-level", "error"].map(Into::into));
                arguments.extend(["-c".into(), file.into_os_string()]);
            }
            Peer::Haproxy => {
                arguments.extend(["-db".into(), "-f".into(), file.into_os_string()]);
                environment.push(("BENCH_THREADS".into(), workers.clone().into()));
            }
            Peer::Nginx => {
                // It looks for certificates beside the file.
                let copy = folder.join(format!("{role}.conf"));
                std::fs::copy(&file, &copy).with_context(|| copy.display().to_string())?;
                arguments.extend(["-p".into(), folder.into(), "-c".into(), copy.into_os_string()]);
            }
        }
        if matches!(self.peer, Peer::Weft | Peer::Envoy) {
            arguments.extend(["--concurrency".into(), workers.into()]);
        }
        Ok(Order {
            name: format!("{}-{role}", self.peer.title().to_ascii_lowercase()),
            program: self.tool.path.clone(),
            arguments,
            environment,
            cores: cores.to_vec(),
            folder: folder.to_owned(),
        })
    }

    fn read_version(&self) -> anyhow::Result<String> {
        let argument = match self.peer {
            Peer::Weft | Peer::Envoy => "--version",
            Peer::Haproxy | Peer::Nginx => "-v",
        };
        let output = Command::new(&self.tool.path)
            .arg(argument)
            .envs(self.tool.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output();
        let output = output.with_context(|| self.tool.path.display().to_string())?;
        ensure!(output.status.success(), "{} does not run here", self.tool.path.display());
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
        // Envoy says first where it is.
        Ok(line.rsplit("  version: ").next().unwrap_or(line).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_is_of_a_role_that_a_scenario_has() {
        let roles: Vec<_> =
            crate::scenario::ALL.iter().flat_map(|scenario| scenario.roles).copied().collect();
        for role in &roles {
            assert!(Peer::Envoy.configuration(role).is_some(), "{role}");
        }
        for folder in ["envoy", "haproxy", "nginx"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(folder);
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let role = path.file_stem().unwrap().to_str().unwrap();
                assert!(roles.contains(&role), "{}", path.display());
            }
        }
    }
}
