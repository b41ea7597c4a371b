//! Where a cluster keeps its things: one folder per name, and a cache of what was built.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::handle::Handle;

/// Unix sockets live in the folder, and their paths end at 107 bytes.
const LONGEST_ROOT: usize = 80;

/// The folder of one cluster.
#[derive(Clone, Debug)]
pub struct Folder {
    name: String,
    root: PathBuf,
}

/// What `up` started, so that `down` ends that and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Process 1 of the node, as this machine numbers it.
    pub init: Handle,
    /// Makes the API server reachable from here.
    pub forward: Option<Handle>,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// The programs that the node runs.
    pub programs: PathBuf,
}

impl Folder {
    /// The folder of the cluster with this name; it need not exist.
    ///
    /// # Errors
    /// When the name is not one, or no place can be written to.
    pub fn of(name: &str) -> anyhow::Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            (1..=20).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-'),
            "--name {name:?}: a cluster's name is 1 to 20 of a-z, 0-9 and '-', and does not begin with '-'"
        );
        let home = clusters()?;
        let root = home.join(name);
        ensure!(
            root.as_os_str().len() <= LONGEST_ROOT,
            "{}: too long for sockets (more than {LONGEST_ROOT} bytes): set XDG_STATE_HOME to a shorter path",
            root.display()
        );
        Ok(Self { name: name.to_owned(), root })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file in it.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The file for `KUBECONFIG`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// containerd's socket.
    pub fn containerd(&self) -> PathBuf {
        self.file("containerd.sock")
    }

    /// What runs, if something was started.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn started(&self) -> anyhow::Result<Option<Started>> {
        let path = self.file("started.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Records what was started.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&self, started: &Started) -> anyhow::Result<()> {
        self.write("started.json", &serde_json::to_vec_pretty(started)?)
    }

    /// Writes a file as one step, with its folders; readable by its owner alone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let path = self.file(path);
        let parent = path.parent().context("a file has a folder")?;
        let partial = path.with_added_extension("partial");
        fs::create_dir_all(parent)
            .and_then(|()| {
                File::options().create(true).truncate(true).write(true).mode(0o600).open(&partial)
            })
            .and_then(|mut file| file.write_all(content))
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Held while `up` or `down` works on this cluster: the second of two waits.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.with_added_extension("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        flock(&file, FlockOperation::LockExclusive).context("cannot lock the cluster")?;
        Ok(file)
    }
}

/// The folder of all clusters: `$XDG_STATE_HOME/weft/cluster`, or one in `/tmp` when that cannot be written.
///
/// # Errors
/// When neither can be.
pub fn clusters() -> anyhow::Result<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    let wanted = state.into_iter().chain([PathBuf::from("/tmp/weft-state")]);
    for folder in wanted.map(|state| state.join("weft/cluster")) {
        if writable(&folder) {
            return Ok(folder);
        }
    }
    bail!("no folder for clusters can be written: set XDG_STATE_HOME")
}

fn writable(folder: &Path) -> bool {
    fs::create_dir_all(folder).is_ok() && tempfile::tempfile_in(folder).is_ok()
}

/// `$XDG_CACHE_HOME/weft/cluster`: what is built once and used by every cluster.
///
/// # Errors
/// When there is neither `XDG_CACHE_HOME` nor a home.
pub fn cache() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("weft/cluster"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_are_no_folder_names_are_refused() {
        for name in ["", "-a", "../x", "A", "a b", "abcdefghijklmnopqrstu"] {
            let error = Folder::of(name).unwrap_err().to_string();
            assert!(error.contains("a cluster's name"), "{name:?}: {error}");
        }
        for name in ["default", "east", "a-1"] {
            assert!(Folder::of(name).unwrap().root().ends_with(name));
        }
    }

    #[test]
    fn what_was_recorded_is_read_back() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder { name: "x".into(), root: home.path().join("x") };
        assert!(folder.started().unwrap().is_none());
        let init = Handle::of(std::process::id()).unwrap();
        let started = Started { init, forward: None, port: 7, programs: "/p".into() };
        folder.record(&started).unwrap();
        let read = folder.started().unwrap().unwrap();
        assert_eq!((read.init, read.port), (init, 7));
    }
}
