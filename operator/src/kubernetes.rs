//! What the operator does in a Kubernetes cluster besides reading resources: its state is kept there, and what it has
//! to say is written there.
//!
//! Every replica signs certificates and serves webhooks; what is written for all is written by the leader alone.

pub mod authority;
pub mod token_review;

use anyhow::Context;
use kube::{Client, Config};

use crate::settings::Settings;

/// The label of everything that the operator creates, for whoever has to clean up.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "weft-operator");
/// The name under which the operator writes fields.
pub const FIELD_MANAGER: &str = "weft-operator";
/// The ConfigMap with the mesh's settings and those of the injector.
pub const MESH_CONFIG: &str = "weft";

/// The cluster that the operator runs in, and the operator's place in it.
#[derive(Clone)]
pub struct Cluster {
    /// For everything that is asked of the API server.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// The operator's pod: tells replicas apart.
    pub pod: String,
}

impl Cluster {
    /// Finds the API server: that of the pod's service account, or of a kubeconfig file.
    ///
    /// # Errors
    /// When there is neither, or the settings do not say where the operator is.
    pub async fn find(settings: &Settings) -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context(
            "--source kubernetes: neither a pod's service account nor a kubeconfig file was found",
        )?;
        // A watch says nothing for as long as nothing changes; requests have time-outs of their own.
        config.read_timeout = None;
        let client = Client::try_from(config).context("the API server cannot be asked")?;
        Ok(Self {
            client,
            namespace: settings.namespace.clone(),
            pod: settings.pod_name.clone().unwrap_or_else(|| format!("pid-{}", std::process::id())),
        })
    }
}
