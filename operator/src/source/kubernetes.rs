//! The Kubernetes source: one watch for each kind, together one stream of batches.
//!
//! Guarantees: the first batch holds all that exists of every kind; nothing is said of objects that a new list shows
//! unchanged; an object that cannot be read is reported and leaves the others; while the API server cannot be reached,
//! what was read stays. A kind that may not be read keeps the source from its first batch: a mesh without its policies
//! would be open. A kind that does not exist keeps nobody waiting, and is looked for again.

mod collect;
mod kinds;
mod read;
mod watch;

use std::sync::Arc;

use kube::Client;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use weft_core::credential::SecretNamespaces;

pub use self::{
    kinds::Missing,
    read::{Held, HeldStatuses},
};
use super::{Batch, Report};

/// How far watches may be ahead of the index.
const BACKLOG: usize = 64;

/// What is to be watched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's namespace: the mesh's settings are there.
    pub namespace: String,
    /// Name of the ConfigMap with the mesh's settings.
    pub mesh_config: &'static str,
    /// The namespaces whose Secrets are read, for Gateways.
    pub secret_namespaces: SecretNamespaces,
}

/// A source that runs.
#[derive(Debug)]
pub struct Running {
    /// What changes; the first batch is what is there.
    pub batches: mpsc::Receiver<Batch>,
    /// The state of the watches, also before the first batch.
    pub report: channel::Receiver<Arc<Report>>,
    /// The statuses that our resources have in Kubernetes.
    pub held: HeldStatuses,
}

/// Follows a cluster until the signal.
pub fn follow(client: &Client, settings: &Settings, shutdown: &CancellationToken) -> Running {
    let (messages, incoming) = mpsc::channel(BACKLOG);
    let (batches, receiver) = mpsc::channel(16);
    let (report, reported) = channel::channel(Arc::default());
    let held = HeldStatuses::default();
    let kinds = kinds::all(settings);
    let collector = collect::Collector::new(kinds.iter().map(kinds::WatchedKind::id), report);
    tokio::spawn(collector.run(incoming, batches));
    for kind in kinds {
        let watch = watch::Watch::new(client.clone(), kind, messages.clone(), held.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = watch.run() => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    Running { batches: receiver, report: reported, held }
}
