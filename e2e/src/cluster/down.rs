//! Ends a cluster: the processes that `up` recorded, its control groups, its folder. Nothing else.

use std::{
    fs,
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{control_groups, folder::Folder, say};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends what runs, and removes what it left.
///
/// # Errors
/// When something of it cannot be ended or removed; asking again goes on.
pub fn run(folder: &Folder) -> anyhow::Result<()> {
    let _lock = folder.lock()?;
    if !folder.root().exists() {
        say(&format!("cluster {} does not run: nothing to do", folder.name()));
        return Ok(());
    }
    end(folder)?;
    say(&format!("cluster {} ended", folder.name()));
    Ok(())
}

/// As [`run`], by whoever holds the lock.
///
/// # Errors
/// As [`run`].
pub fn end(folder: &Folder) -> anyhow::Result<()> {
    if let Some(started) = folder.started()? {
        if let Some(forward) = started.forward {
            forward.kill(PATIENCE)?;
        }
        // The kernel ends every process of its namespaces with it, pods too.
        started.init.kill(PATIENCE)?;
    }
    control_groups::remove(folder)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Mounts go with the last process of the namespace, which may be a moment later.
        match fs::remove_dir_all(folder.root()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", folder.root().display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
