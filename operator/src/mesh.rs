//! The owner of the index: batches of a source in, snapshots out.
//!
//! A thread of its own, as building a snapshot may take a while. Snapshots go to the ADS streams; what people want to
//! know beside them goes to the administration port as [`View`].

use std::{sync::Arc, thread};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{mpsc::Receiver, watch};
use weft_core::{diagnosis::Diagnoses, snapshot::Snapshot};
use weft_index::Index;
use weft_xds::SnapshotSender;

use crate::source::{Batch, Event, Report, Severity};

/// The mesh as the administration port shows it.
#[derive(Clone, Debug)]
pub struct View {
    /// The snapshot in effect.
    pub snapshot: Arc<Snapshot>,
    /// What is wrong with resources by themselves.
    pub diagnoses: Diagnoses,
    /// What is wrong with the source's files.
    pub report: Arc<Report>,
}

/// The latest view; `None` until the source was read for the first time.
pub type LatestView = watch::Receiver<Option<Arc<View>>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    r#type: &'static str,
    event: &'static str,
}

/// Counts of what the source delivered, with the names that Istio's dashboards ask for.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Changes of Kubernetes' kinds.
    registry_events: Family<EventLabels, Counter>,
    /// Changes of our kinds.
    config_events: Family<EventLabels, Counter>,
    services: Gauge,
    problems: Gauge,
    snapshots: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "pilot_k8s_reg_events",
            "Changes of services, endpoints and workloads",
            metrics.registry_events.clone(),
        );
        registry.register(
            "pilot_k8s_cfg_events",
            "Changes of routes, rules and policies",
            metrics.config_events.clone(),
        );
        registry.register("pilot_services", "Services in the mesh", metrics.services.clone());
        registry.register(
            "weft_source_problems",
            "Files and resources that are not in effect as written",
            metrics.problems.clone(),
        );
        registry.register(
            "weft_snapshot",
            "Number of the snapshot in effect",
            metrics.snapshots.clone(),
        );
        metrics
    }

    fn count(&self, event: &Event) {
        let (kind, verb) = match event {
            Event::Apply(object) => (object.kind(), "apply"),
            Event::Delete(key) => (key.kind, "delete"),
            Event::Invalid { key, .. } => (key.kind, "invalid"),
        };
        let family = match kind {
            weft_index::Kind::Mesh(_) => &self.config_events,
            _ => &self.registry_events,
        };
        family.get_or_create(&EventLabels { r#type: kind.as_str(), event: verb }).inc();
    }
}

/// Owns the index.
pub struct MeshTask {
    /// The index, empty.
    pub index: Index,
    /// Where snapshots go.
    pub snapshots: Arc<SnapshotSender<Snapshot>>,
    /// Where the view goes.
    pub view: watch::Sender<Option<Arc<View>>>,
    /// Counts.
    pub metrics: Metrics,
    /// The trust domain that certificates are for, once there is one.
    pub trust_domain: Option<Arc<str>>,
}

impl MeshTask {
    /// Identities cannot be renamed while they are in use: a change of the mesh's settings needs a restart.
    fn check_trust_domain(&self, snapshot: &Snapshot) {
        let mesh = &snapshot.mesh.trust_domain;
        if let Some(certificates) = self.trust_domain.as_ref().filter(|domain| *domain != mesh) {
            tracing::error!(
                %certificates,
                %mesh,
                "the mesh's settings have another trust domain than certificates; restart the operator"
            );
        }
    }

    /// Runs until the source ends.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn(mut self, mut batches: Receiver<Batch>) -> std::io::Result<()> {
        thread::Builder::new().name("index".into()).spawn(move || {
            while let Some(batch) = batches.blocking_recv() {
                self.apply(batch);
            }
        })?;
        Ok(())
    }

    /// Applies a batch, and what else has come meanwhile is in the next one.
    pub fn apply(&mut self, batch: Batch) {
        let events = batch.events.len();
        for event in batch.events {
            self.metrics.count(&event);
            match event {
                Event::Apply(object) => self.index.apply(object),
                Event::Delete(key) => self.index.delete(key.kind, &key.namespace, &key.name),
                Event::Invalid { key, generation, problems } => {
                    let reference = key.kind.reference(&key.namespace, &key.name);
                    self.index.reject(&reference, key.kind, generation, problems)
                }
            };
        }
        let (snapshot, change) = self.index.snapshot();
        let errors = batch.report.problems.iter().filter(|p| p.severity == Severity::Error);
        self.metrics.problems.set(i64::try_from(errors.count()).unwrap_or(i64::MAX));
        self.metrics.services.set(i64::try_from(snapshot.services.iter().count()).unwrap_or(0));
        self.metrics.snapshots.set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        let view = View {
            snapshot: snapshot.clone(),
            diagnoses: self.index.diagnoses().clone(),
            report: batch.report,
        };
        self.view.send_replace(Some(Arc::new(view)));
        if !change.is_empty() {
            if change.all {
                self.check_trust_domain(&snapshot);
            }
            tracing::info!(
                version = snapshot.version,
                events,
                all = change.all,
                hosts = change.hosts.len(),
                endpoints = change.endpoints.len(),
                namespaces = change.namespaces.len(),
                "the mesh changed"
            );
            self.snapshots.publish(snapshot, change);
        }
    }
}
