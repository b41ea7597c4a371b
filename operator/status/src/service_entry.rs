//! ServiceEntries: whether their hosts are defined by them.

use std::sync::Arc;

use weft_core::{
    resource::Resource,
    service::{Registry, ServiceKey},
    snapshot::Snapshot,
};
use weft_crds::{Condition, networking::ServiceEntrySpec};

use crate::{condition::in_effect, listed, named};

type ServiceEntry = Resource<ServiceEntrySpec>;

pub(crate) fn judge(snapshot: &Snapshot, entry: &Arc<ServiceEntry>) -> Condition {
    let lost: Vec<String> = entry
        .spec
        .hosts
        .iter()
        .filter_map(|host| Some(format!("{host} (by {})", definer(snapshot, entry, host)?)))
        .collect();
    if lost.is_empty() {
        return in_effect(true, "InEffect", "its hosts are services of the mesh");
    }
    let message = format!("something else of its namespace defines {}", listed(&lost));
    if lost.len() < entry.spec.hosts.len() {
        return in_effect(true, "PartlySuperseded", &message);
    }
    in_effect(false, "Superseded", &message)
}

/// What defines a host in place of an entry (`istio-behaviours` 2.1, item 6).
fn definer(snapshot: &Snapshot, entry: &ServiceEntry, host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let namespace = entry.reference.namespace.clone();
    let service =
        snapshot.services.get(&ServiceKey { namespace, hostname: host.as_str().into() })?;
    if service.registry == Registry::Kubernetes {
        return Some(format!("Service {}/{}", service.key.namespace, service.name));
    }
    let defines = |other: &&Arc<ServiceEntry>| {
        other.spec.hosts.iter().any(|name| name.eq_ignore_ascii_case(&host))
    };
    let oldest = snapshot.service_entries.of(entry.namespace()).iter().find(defines)?;
    (oldest.reference != entry.reference).then(|| format!("ServiceEntry {}", named(oldest)))
}
