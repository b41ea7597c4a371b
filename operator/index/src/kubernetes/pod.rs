//! Pod objects: workloads and whether they are ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{self as api, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use weft_core::{endpoint::Locality, workload::Workload};

use super::service::port_number;
use crate::object::{self, Kind};

const TLS_MODE: &str = "security.istio.io/tlsMode";
const HASH: &str = "pod-template-hash";

/// A pod that runs, or may come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodRecord {
    pub workload: Arc<Workload>,
    /// Whether it takes requests.
    pub ready: bool,
}

/// Reads a Pod; `None` when it has run to its end and its address may belong to another.
pub(crate) fn read(pod: &api::Pod) -> Option<PodRecord> {
    let reference = object::reference(Kind::Pod, &pod.metadata);
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let workload_name = workload_name(&pod.metadata, &labels, &reference.name);
    let first = |keys: &[&str], default: &str| -> Arc<str> {
        let found = keys.iter().find_map(|key| labels.get(*key)).map_or(default, String::as_str);
        found.into()
    };
    let workload = Workload {
        name: reference.name,
        namespace: reference.namespace,
        // On the host's network an address says nothing about which pod it is.
        addresses: if spec.host_network == Some(true) { Vec::new() } else { addresses(status) },
        service_account: spec
            .service_account_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
            .into(),
        canonical_name: first(
            &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"],
            &workload_name,
        ),
        canonical_revision: first(
            &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"],
            "latest",
        ),
        named_ports: named_ports(spec),
        meshed: labels.get(TLS_MODE).is_some_and(|mode| mode == "istio"),
        locality: locality(&labels),
        workload_name: workload_name.into(),
        labels: Arc::new(labels),
    };
    let ready = pod.metadata.deletion_timestamp.is_none() && is_ready(status);
    Some(PodRecord { workload: Arc::new(workload), ready })
}

/// A pod without any condition of readiness (nobody probes it, as in a folder of YAML) is ready unless it waits.
fn is_ready(status: &PodStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) => condition.status == "True",
        None => status.phase.as_deref().is_none_or(|phase| phase == "Running"),
    }
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let addresses: BTreeSet<IpAddr> =
        status.pod_ip.iter().chain(all).filter_map(|ip| ip.parse().ok()).collect();
    addresses.into_iter().collect()
}

fn named_ports(spec: &PodSpec) -> BTreeMap<Arc<str>, u16> {
    let sidecars = spec.init_containers.iter().flatten();
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut named = BTreeMap::new();
    for port in
        ports.filter(|port| port.protocol.as_deref().is_none_or(|transport| transport == "TCP"))
    {
        if let (Some(name), Some(number)) = (port.name.as_deref(), port_number(port.container_port))
        {
            named.entry(name.into()).or_insert(number);
        }
    }
    named
}

/// The name of the Deployment or other owner: that of the pod's controller without the suffix which a Deployment or
/// CronJob gave it.
fn workload_name(metadata: &ObjectMeta, labels: &BTreeMap<String, String>, pod: &str) -> String {
    if let Some(name) = labels.get("service.istio.io/workload-name") {
        return name.clone();
    }
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first());
    let hash = labels.get(HASH).map(String::as_str);
    match owner {
        Some(owner) if owner.kind == "ReplicaSet" => {
            strip_suffix(&owner.name, |suffix| hash.is_none_or(|hash| hash == suffix))
        }
        // CronJobs name their jobs by the minute in which they are due.
        Some(owner) if owner.kind == "Job" => strip_suffix(&owner.name, |suffix| {
            suffix.len() >= 8 && suffix.bytes().all(|byte| byte.is_ascii_digit())
        }),
        Some(owner) => owner.name.clone(),
        // `<deployment>-<hash>-<random>`
        None => match (hash, pod.rsplit_once('-')) {
            (Some(hash), Some((replica_set, _))) => {
                strip_suffix(replica_set, |suffix| suffix == hash)
            }
            _ => pod.to_owned(),
        },
    }
}

fn strip_suffix(name: &str, is_suffix: impl Fn(&str) -> bool) -> String {
    match name.rsplit_once('-') {
        Some((base, suffix)) if !base.is_empty() && is_suffix(suffix) => base.to_owned(),
        _ => name.to_owned(),
    }
}

/// `istio-locality: region.zone.subzone` (dots, because a label has no slashes), else the topology labels.
fn locality(labels: &BTreeMap<String, String>) -> Locality {
    if let Some(text) = labels.get("istio-locality") {
        return parse_locality(text, if text.contains('/') { '/' } else { '.' });
    }
    let label =
        |key: &str| labels.get(key).map(|value| Arc::from(value.as_str())).unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        sub_zone: label("topology.istio.io/subzone"),
    }
}

/// A locality from its parts in one text.
pub(crate) fn parse_locality(text: &str, separator: char) -> Locality {
    let mut parts = text.splitn(3, separator).map(Arc::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality { region: next(), zone: next(), sub_zone: next() }
}

/// Whether labels say that a proxy of the mesh is in front of their bearer.
pub(crate) fn tls_mode(labels: &BTreeMap<String, String>) -> Option<bool> {
    labels.get(TLS_MODE).map(|mode| mode == "istio")
}
