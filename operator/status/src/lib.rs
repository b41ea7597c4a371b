//! What the mesh makes of each resource: conditions computed from a snapshot and the index's diagnoses.
//!
//! Pure: nothing is written here. Admin views show the conditions as they are; a writer of Kubernetes statuses adds the
//! times of transition. Every resource of ours has `Accepted` (the latest version is valid) and `InEffect` (clients or
//! workloads get it, and if not, why not); `ResolvedRefs` says whether what it names exists; `Warnings` is there only when
//! there is something to warn of.
#![deny(missing_docs)]

mod condition;
mod destination_rule;
mod gateway;
mod policy;
mod service_entry;
mod virtual_service;

use std::{collections::BTreeMap, sync::Arc};

use weft_core::{
    diagnosis::{Diagnoses, Diagnosis},
    resource::{Resource, ResourceRef},
    snapshot::Snapshot,
    workload::Workload,
};
use weft_crds::Kind;

pub use weft_crds::Condition;

/// The conditions of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceConditions {
    /// The resource.
    pub reference: ResourceRef,
    /// The generation that the conditions speak of.
    pub observed_generation: i64,
    /// The conditions, without times.
    pub conditions: Vec<Condition>,
}

impl ResourceConditions {
    /// The condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

/// The conditions of every resource of ours, and of Kubernetes' objects that something is wrong with, ordered by kind,
/// namespace and name.
pub fn conditions(snapshot: &Snapshot, diagnoses: &Diagnoses) -> Vec<ResourceConditions> {
    let mesh = Mesh::new(snapshot);
    let sorted: BTreeMap<&ResourceRef, &Arc<Diagnosis>> = diagnoses.iter().collect();
    sorted.into_iter().map(|(reference, diagnosis)| mesh.judge(reference, diagnosis)).collect()
}

/// A snapshot, with what several judgements need made once.
struct Mesh<'a> {
    snapshot: &'a Snapshot,
    workloads: BTreeMap<&'a str, Vec<&'a Arc<Workload>>>,
}

impl<'a> Mesh<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut workloads: BTreeMap<&str, Vec<&Arc<Workload>>> = BTreeMap::new();
        for workload in snapshot.workloads.iter() {
            workloads.entry(&workload.namespace).or_default().push(workload);
        }
        Self { snapshot, workloads }
    }

    /// The workloads that a policy of a namespace may be for.
    fn workloads_for(&self, namespace: &str) -> impl Iterator<Item = &'a Arc<Workload>> {
        let everywhere = self.is_root(namespace).then(|| self.workloads.values().flatten());
        let own = if self.is_root(namespace) { None } else { self.workloads.get(namespace) };
        everywhere.into_iter().flatten().chain(own.into_iter().flatten()).copied()
    }

    fn is_root(&self, namespace: &str) -> bool {
        *self.snapshot.mesh.root_namespace == *namespace
    }

    fn judge(&self, reference: &ResourceRef, diagnosis: &Diagnosis) -> ResourceConditions {
        let mut conditions = vec![condition::accepted(diagnosis)];
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == reference.kind);
        if let Some(kind) = kind {
            let effect = self.effect(kind, reference).unwrap_or_else(|| {
                vec![condition::in_effect(
                    false,
                    "NotAccepted",
                    "no version of it was ever accepted",
                )]
            });
            conditions.extend(effect);
        }
        conditions.extend(condition::warnings(diagnosis));
        for condition in &mut conditions {
            condition.observed_generation = Some(diagnosis.generation);
        }
        ResourceConditions {
            reference: reference.clone(),
            observed_generation: diagnosis.generation,
            conditions,
        }
    }

    /// What becomes of the accepted version; `None` when there is none.
    fn effect(&self, kind: Kind, reference: &ResourceRef) -> Option<Vec<Condition>> {
        let (namespace, name) = (&*reference.namespace, &*reference.name);
        let snapshot = self.snapshot;
        match kind {
            Kind::VirtualService => {
                let resource = snapshot.virtual_services.accepted.get(namespace, name)?;
                Some(virtual_service::judge(snapshot, resource))
            }
            Kind::DestinationRule => {
                let resource = snapshot.destination_rules.accepted().get(namespace, name)?;
                Some(destination_rule::judge(snapshot, resource))
            }
            Kind::ServiceEntry => {
                let resource = snapshot.service_entries.get(namespace, name)?;
                Some(vec![service_entry::judge(snapshot, resource)])
            }
            Kind::Gateway => {
                let resource = snapshot.gateways.get(namespace, name)?;
                Some(gateway::judge(self, resource))
            }
            Kind::PeerAuthentication => {
                let resource = snapshot.peer_authentications.get(namespace, name)?;
                Some(vec![policy::peer_authentication(self, resource)])
            }
            Kind::AuthorizationPolicy => {
                let resource = snapshot.authorization_policies.get(namespace, name)?;
                Some(vec![policy::authorization_policy(self, resource)])
            }
            Kind::EnvoyFilter => {
                let resource = snapshot.envoy_filters.get(namespace, name)?;
                Some(vec![policy::envoy_filter(self, resource)])
            }
        }
    }
}

/// `<namespace>/<name>`, as messages name resources.
fn named<S>(resource: &Resource<S>) -> String {
    format!("{}/{}", resource.reference.namespace, resource.reference.name)
}

/// A list as messages have it; long ones are cut short.
fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 10;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", items[..SHOWN].join(", ")),
        None => items.join(", "),
    }
}
