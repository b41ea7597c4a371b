//! The node that pods run on, where it is one of ours: the processes of containers, and the node's own programs.

use std::process::Command;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1;

use super::Pod;

/// A node of a cluster of ours.
#[derive(Clone, Debug)]
pub struct Node {
    cluster: String,
}

impl Node {
    /// The node of the cluster under test; `None` where that is somebody else's.
    pub fn of_ours() -> Option<Self> {
        std::env::var("WEFT_CLUSTER").ok().map(|cluster| Self { cluster })
    }

    /// `weft-cluster ORDER`, such as `["pause", "kube-apiserver"]`.
    ///
    /// # Errors
    /// With what it said.
    pub fn order(&self, order: &[&str]) -> anyhow::Result<String> {
        let (command, rest) = order.split_first().context("an order")?;
        let output = Command::new("weft-cluster")
            .args([command, "--name", self.cluster.as_str()])
            .args(rest)
            .output()
            .context("weft-cluster cannot be run")?;
        if !output.status.success() {
            bail!("{order:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sends a signal to all processes of a pod's container, as the node's administrator could.
    ///
    /// # Errors
    /// When the container does not run.
    pub fn signal(&self, pod: &Pod, container: &str, signal: &str) -> anyhow::Result<()> {
        let id = running(pod.object(), container)
            .with_context(|| format!("{container} of {} does not run", pod.name()))?;
        let script = format!(
            "for p in /proc/[0-9]*; do \
               if grep -qs {id} $p/cgroup; then kill -s {signal} ${{p#/proc/}} && echo ${{p#/proc/}}; fi; \
             done"
        );
        let signalled = self.order(&["enter", "--", "sh", "-c", &script])?;
        ensure!(!signalled.trim().is_empty(), "no process of container {id}");
        Ok(())
    }
}

/// The identifier of a container that runs.
fn running<'a>(pod: &'a v1::Pod, container: &str) -> Option<&'a str> {
    let status = container_status(pod, container)?;
    status.state.as_ref()?.running.as_ref()?;
    status.container_id.as_deref()?.rsplit('/').next()
}

/// What the kubelet says of a container, native sidecars among them.
pub fn container_status<'a>(pod: &'a v1::Pod, name: &str) -> Option<&'a v1::ContainerStatus> {
    let status = pod.status.as_ref()?;
    let sidecars = status.init_container_statuses.iter().flatten();
    sidecars.chain(status.container_statuses.iter().flatten()).find(|status| status.name == name)
}
