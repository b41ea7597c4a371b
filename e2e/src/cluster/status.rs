//! What runs of a cluster.

use std::{fmt::Write, fs};

use anyhow::Context;

use super::{components::Component, folder::Folder, handle::Handle, up};

/// A few lines for people.
///
/// # Errors
/// When the cluster is not up.
pub fn report(folder: &Folder) -> anyhow::Result<String> {
    let started = up::running(folder)?;
    let mut text = format!(
        "cluster {}: up\nfolder: {}\nAPI server: https://127.0.0.1:{} ({})\nprocess 1: {}\n",
        folder.name(),
        folder.root().display(),
        started.port,
        if started.forward.is_some_and(Handle::runs) { "forwarded" } else { "forwarder is gone" },
        started.init.pid(),
    );
    for Component { name, .. } in components(folder)? {
        let running = folder.file(&format!("running/{name}")).exists();
        let wanted = folder.file(&format!("wanted/{name}")).exists();
        let state = match (running, wanted) {
            (true, true) => "runs",
            (true, false) => "is ending",
            (false, true) => "is starting",
            (false, false) => "stopped",
        };
        writeln!(text, "  {name}: {state}").context("a string")?;
    }
    Ok(text)
}

/// The programs of the node.
///
/// # Errors
/// When their list cannot be read.
pub fn components(folder: &Folder) -> anyhow::Result<Vec<Component>> {
    let path = folder.file("components.json");
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&bytes)?)
}
