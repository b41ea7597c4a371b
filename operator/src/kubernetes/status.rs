//! Statuses of our resources, and Events for what somebody must act on. Written by the leader.
//!
//! What is to be written is decided from the mesh as it is and from the status that a resource has; nothing is written
//! that is there already. What a change of the mesh missed, the next look repairs. Conditions of types that are not ours
//! are kept.

mod decide;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{
    task::spawn_blocking,
    time::{interval, sleep},
};
use weft_crds::Kind;

use self::decide::{Notice, Write};
use super::{Cluster, FIELD_MANAGER, events::Events};
use crate::{
    mesh::LatestView,
    source::kubernetes::{Held, HeldStatuses},
};

/// How often all of it is looked at without a reason.
const REPAIR: Duration = Duration::from_secs(30);
/// A change is waited out: several resources of one `kubectl apply` are judged together.
const QUIET: Duration = Duration::from_millis(300);
/// So many times as long as the last look took nothing is looked at again: what many resources cost is bounded.
const REST: u32 = 10;
/// But no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(20);
/// Time between two writes, so that a change that touches all resources does not flood the API server.
const SPACE: Duration = Duration::from_millis(20);

/// Counts of writes.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    written: Counter,
    failed: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weft_status_writes",
            "Statuses of resources written",
            metrics.written.clone(),
        );
        registry.register(
            "weft_status_write_failures",
            "Statuses of resources that could not be written",
            metrics.failed.clone(),
        );
        metrics
    }
}

/// Where statuses come from and go to.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    view: LatestView,
    held: HeldStatuses,
    events: Events,
    metrics: Metrics,
}

impl StatusWriter {
    /// Writes what becomes of the view's resources.
    pub fn new(cluster: &Cluster, view: LatestView, held: HeldStatuses, metrics: Metrics) -> Self {
        let events = Events::new(cluster);
        Self { client: cluster.client.clone(), view, held, events, metrics }
    }

    /// Keeps statuses right, for as long as it runs.
    pub async fn run(mut self) {
        let mut repair = interval(REPAIR);
        loop {
            tokio::select! {
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    sleep(QUIET).await;
                }
                _ = repair.tick() => {}
            }
            let cost = self.write_all().await;
            sleep((cost * REST).min(LONGEST_REST)).await;
        }
    }

    /// Writes what is to be written; says how long it took to find that out.
    async fn write_all(&mut self) -> Duration {
        let Some(view) = self.view.borrow_and_update().clone() else { return Duration::ZERO };
        let judge = move || {
            let began = Instant::now();
            let conditions = weft_status::conditions(&view.snapshot, &view.diagnoses);
            (conditions, began.elapsed())
        };
        // In a large mesh this takes a while: proxies are served meanwhile.
        let Ok((conditions, cost)) = spawn_blocking(judge).await else { return Duration::ZERO };
        let mut forbidden = BTreeSet::new();
        for wanted in conditions {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == wanted.reference.kind);
            let (Some(kind), Some(held)) = (kind, self.held.get(&wanted.reference)) else {
                continue;
            };
            if forbidden.contains(kind.as_str()) {
                continue;
            }
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let Some(write) = decide::write(&held, &wanted, &now) else { continue };
            if let Written::Forbidden = self.write(kind, &wanted.reference, &held, write).await {
                forbidden.insert(kind.as_str());
            }
            sleep(SPACE).await;
        }
        cost
    }

    async fn write(
        &self,
        kind: Kind,
        reference: &weft_core::resource::ResourceRef,
        held: &Arc<Held>,
        write: Write,
    ) -> Written {
        let Write { patch, notices } = write;
        let (group, version) = held.api_version.split_once('/').unwrap_or_default();
        let gvk = GroupVersionKind::gvk(group, version, kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let (namespace, name) = (&*reference.namespace, &*reference.name);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let options = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(name, &options, &Patch::Apply(patch)).await {
            Ok(written) => {
                tracing::debug!(%reference, "status written");
                self.metrics.written.inc();
                self.held.note(weft_index::Kind::Mesh(kind), &held.api_version, &written);
            }
            // It has just been deleted.
            Err(kube::Error::Api(status)) if status.code == 404 => return Written::No,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                self.metrics.failed.inc();
                let rule = missing_rule(kind);
                tracing::warn!(%kind, error = status.message, rule, "statuses cannot be written: add the rule to the operator's role");
                return Written::Forbidden;
            }
            Err(error) => {
                self.metrics.failed.inc();
                tracing::warn!(%reference, %error, "the status cannot be written");
                return Written::No;
            }
        }
        let about = ObjectReference {
            api_version: Some(held.api_version.clone()),
            kind: Some(kind.as_str().to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(held.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        for Notice { reason, message } in notices {
            self.events.warn(&about, &reason, &message).await;
        }
        Written::Yes
    }
}

/// What became of a status.
enum Written {
    Yes,
    No,
    /// Nor will that of any other resource of the kind.
    Forbidden,
}

/// The rule without which statuses of a kind cannot be written.
fn missing_rule(kind: Kind) -> String {
    let (group, plural) = (kind.group(), kind.plural());
    format!("{{apiGroups: [\"{group}\"], resources: [\"{plural}/status\"], verbs: [patch]}}")
}
