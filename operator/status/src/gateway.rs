//! Gateways: which pods serve them, and what of them is not served.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{
    credential::named_by_server,
    gateway::{Fault, FaultReason, GatewayNode, merge},
    resource::Resource,
    selector::selects,
    workload::Workload,
};
use weft_crds::{Condition, networking::GatewaySpec};

use crate::{
    Mesh,
    condition::{in_effect, resolved_refs},
    listed,
};

/// What a Gateway's pods say of it.
#[derive(Default)]
struct Verdict {
    /// The workloads that serve it.
    workloads: BTreeSet<String>,
    /// By server, what is not served, each told once.
    faults: BTreeMap<usize, BTreeSet<FaultReason>>,
    /// Servers that some pod serves.
    served: BTreeSet<usize>,
    /// By server, Secrets whose latest version is no good while an earlier one is served.
    stale: BTreeSet<(usize, String)>,
}

pub(crate) fn judge(mesh: &Mesh<'_>, gateway: &Resource<GatewaySpec>) -> Vec<Condition> {
    if gateway.spec.selector.is_empty() {
        let message = "it is for every gateway of the mesh, as its selector is empty";
        return vec![in_effect(true, "InEffect", message), resolved_refs(&[])];
    }
    let verdict = verdict(mesh, gateway);
    if verdict.workloads.is_empty() {
        let message = "no pod has the labels that its selector asks for";
        return vec![in_effect(false, "NoMatchingWorkload", message), resolved_refs(&[])];
    }
    let is_reference = |reason: &FaultReason| matches!(reason, FaultReason::Credential(_));
    let (mut conflicts, mut references) = (Vec::new(), Vec::new());
    for (server, reasons) in &verdict.faults {
        for reason in reasons {
            let message = format!("spec.servers[{server}]: {reason}");
            let list = if is_reference(reason) { &mut references } else { &mut conflicts };
            list.push((reason.reason(), message));
        }
    }
    let mut unresolved = references.clone();
    unresolved.extend(
        verdict
            .stale
            .iter()
            .map(|(server, reason)| ("SecretInvalid", format!("spec.servers[{server}]: {reason}"))),
    );
    let served_by = format!("served by {}", listed(&verdict.workloads));
    let all: Vec<&str> =
        conflicts.iter().chain(&references).map(|(_, message)| message.as_str()).collect();
    let first = conflicts.first().or(references.first()).map(|(reason, _)| *reason);
    let effect = match first {
        None => in_effect(true, "InEffect", &served_by),
        Some(reason) if verdict.served.is_empty() => in_effect(false, reason, &all.join("; ")),
        Some(reason) => {
            in_effect(true, reason, &format!("{served_by}, but in part only: {}", all.join("; ")))
        }
    };
    vec![effect, resolved_refs(&unresolved)]
}

fn verdict(mesh: &Mesh<'_>, gateway: &Resource<GatewaySpec>) -> Verdict {
    let mut verdict = Verdict::default();
    // Pods of a workload agree in all that counts but their address.
    let mut seen = BTreeSet::new();
    for workload in mesh.workloads.values().flatten() {
        if !selects(&gateway.spec.selector, &workload.labels) {
            continue;
        }
        let Some(address) = workload.addresses.first() else { continue };
        if !seen.insert((&workload.namespace, &workload.labels)) {
            continue;
        }
        let node = GatewayNode {
            namespace: &workload.namespace,
            labels: &workload.labels,
            address: *address,
        };
        let merged = merge(mesh.snapshot, node);
        verdict.workloads.insert(name(workload));
        let own = |fault: &&Fault| fault.gateway == gateway.reference;
        for fault in merged.faults.iter().filter(own) {
            verdict.faults.entry(fault.server).or_default().insert(fault.reason.clone());
        }
        let servers = merged.listeners.iter().flat_map(|listener| &listener.servers);
        let own = servers.filter(|server| server.gateway.reference == gateway.reference);
        verdict.served.extend(own.map(|server| server.index));
        verdict.stale.extend(stale(mesh, gateway, &workload.namespace));
    }
    verdict
}

/// The Secrets of a namespace whose latest version is no good while an earlier one is served, by the server that names them.
fn stale(
    mesh: &Mesh<'_>,
    gateway: &Resource<GatewaySpec>,
    namespace: &str,
) -> Vec<(usize, String)> {
    let servers = gateway.spec.servers.iter().enumerate();
    let named = servers.flat_map(|(index, server)| {
        named_by_server(server).into_iter().map(move |name| (index, name))
    });
    named
        .filter_map(|(index, name)| {
            let state = mesh.snapshot.credentials.state(namespace, &name)?;
            if state.errors.is_empty() || state.good.is_none() {
                return None;
            }
            let reasons: Vec<String> = state.errors.iter().map(ToString::to_string).collect();
            let reasons = reasons.join("; ");
            Some((index, format!("Secret {namespace}/{name}: {reasons}; the version before stays")))
        })
        .collect()
}

fn name(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.workload_name)
}
