//! The node's control groups: one folder in every hierarchy of the machine, made by `up` and removed by `down`.
//!
//! Hierarchies are used as the machine has them, version 1 or 2, and never mounted or reorganised.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{config::unified_control_groups, folder::Folder};

const MOUNTED: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(20);

/// The group's name: `cgroupRoot` of the kubelet.
pub fn name(folder: &Folder) -> String {
    format!("weft-{}", folder.name())
}

fn groups(folder: &Folder) -> anyhow::Result<Vec<PathBuf>> {
    let name = name(folder);
    if unified_control_groups() {
        return Ok(vec![Path::new(MOUNTED).join(name)]);
    }
    let hierarchies = fs::read_dir(MOUNTED).context("no control groups in /sys/fs/cgroup")?;
    let folders = hierarchies.filter_map(Result::ok).map(|entry| entry.path());
    Ok(folders
        .filter(|path| path.join("cgroup.procs").exists())
        .map(|path| path.join(&name))
        .collect())
}

/// Makes them.
///
/// # Errors
/// When the machine does not let us.
pub fn make(folder: &Folder) -> anyhow::Result<()> {
    if unified_control_groups() {
        for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
            // Those that the machine has not, the kubelet misses in its own words.
            let _ =
                fs::write(format!("{MOUNTED}/cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    for group in groups(folder)? {
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // A new cpuset of version 1 is empty, and no process can be in it.
        for file in ["cpuset.mems", "cpuset.cpus"] {
            let parent = group.with_file_name(file);
            let own = group.join(file);
            if !unified_control_groups() && parent.exists() && own.exists() {
                fs::write(&own, fs::read(&parent)?)
                    .with_context(|| format!("cannot write {}", own.display()))?;
            }
        }
    }
    Ok(())
}

/// Moves a process into all of them.
///
/// # Errors
/// When the machine does not let us.
pub fn enter(folder: &Folder, process: u32) -> anyhow::Result<()> {
    for group in groups(folder)? {
        fs::write(group.join("cgroup.procs"), process.to_string())
            .with_context(|| format!("no process can be put into {}", group.display()))?;
    }
    Ok(())
}

/// Removes them, once their processes are gone.
///
/// # Errors
/// When a process is still in one of them.
pub fn remove(folder: &Folder) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for group in groups(folder)? {
        while let Err(error) = remove_tree(&group) {
            if Instant::now() >= deadline {
                return Err(error).with_context(|| format!("cannot remove {}", group.display()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
