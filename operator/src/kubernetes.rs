//! What the operator does in a Kubernetes cluster besides reading resources: its state is kept there, and what it has
//! to say is written there.
//!
//! Every replica signs certificates and serves webhooks; what is written for all is written by the leader alone.

pub mod authority;
mod ca_bundle;
mod complaints;
mod events;
pub mod injector;
mod leader;
mod lease;
pub mod pods;
mod roots;
pub mod status;
pub mod token_review;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::{Client, Config};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use weft_ca::authority::AuthorityStore;
use weft_webhook::InjectConfig;

pub use self::complaints::complain;
use self::status::StatusWriter;
use crate::{mesh::LatestView, settings::Settings};

/// The label of everything that the operator creates, for whoever has to clean up.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "weft-operator");
/// The name under which the operator writes fields.
pub const FIELD_MANAGER: &str = "weft-operator";
/// The ConfigMap with the mesh's settings and those of the injector.
pub const MESH_CONFIG: &str = "weft";

/// A connection on which nothing comes for this long is dead.
const SILENCE: Duration = Duration::from_secs(320);

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
        // The API server ends a watch after less than five minutes: who hears nothing for longer has lost it.
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let client = Client::try_from(config).context("the API server cannot be asked")?;
        Ok(Self {
            client,
            namespace: settings.namespace.clone(),
            pod: settings.pod_name.clone().unwrap_or_else(|| format!("pid-{}", std::process::id())),
        })
    }
}

/// What the leader writes from.
pub struct Writers {
    /// Where to.
    pub cluster: Cluster,
    /// The mesh's roots.
    pub authority: Arc<AuthorityStore>,
    /// The mesh.
    pub view: LatestView,
    /// The injector's settings.
    pub injection: watch::Receiver<Arc<InjectConfig>>,
    /// Statuses.
    pub statuses: StatusWriter,
}

impl Writers {
    /// Takes part in the election, and writes while this replica leads, until the signal. The lease has been given up
    /// when the task ends.
    pub fn spawn(self, shutdown: &CancellationToken) -> JoinHandle<()> {
        let (leads, leading) = watch::channel(false);
        let Self { cluster, authority, view, injection, statuses } = self;
        spawn_writer(&leading, shutdown, move || statuses.clone().run());
        {
            let (cluster, authority) = (cluster.clone(), authority.clone());
            spawn_writer(&leading, shutdown, move || {
                let (cluster, authority) = (cluster.clone(), authority.clone());
                roots::publish(cluster, authority, view.clone(), injection.clone())
            });
        }
        {
            let (client, authority) = (cluster.client.clone(), authority.clone());
            spawn_writer(&leading, shutdown, move || {
                ca_bundle::maintain::<MutatingWebhookConfiguration>(
                    client.clone(),
                    ca_bundle::INJECTOR,
                    authority.clone(),
                )
            });
        }
        {
            let client = cluster.client.clone();
            spawn_writer(&leading, shutdown, move || {
                ca_bundle::maintain::<ValidatingWebhookConfiguration>(
                    client.clone(),
                    ca_bundle::VALIDATOR,
                    authority.clone(),
                )
            });
        }
        tokio::spawn(leader::run(cluster, leads, shutdown.clone()))
    }
}

fn spawn_writer<F: Future<Output = ()> + Send + 'static>(
    leading: &watch::Receiver<bool>,
    shutdown: &CancellationToken,
    task: impl Fn() -> F + Send + Sync + 'static,
) {
    let (leading, shutdown) = (leading.clone(), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = leader::while_leading(leading, task) => {}
            () = shutdown.cancelled() => {}
        }
    });
}
