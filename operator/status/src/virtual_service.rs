//! VirtualServices: waiting for subsets, superseded, or in effect; and whether their destinations exist.

use std::{collections::BTreeSet, sync::Arc};

use weft_core::{
    gateway::ServerHost,
    resource::Resource,
    service::Visibility,
    snapshot::Snapshot,
    virtual_service::{destinations, gateways_of, is_for_mesh, table::VirtualServiceState},
};
use weft_crds::{Condition, networking::VirtualServiceSpec};

use crate::{
    condition::{in_effect, resolved_refs},
    listed, named,
};

type VirtualService = Resource<VirtualServiceSpec>;

pub(crate) fn judge(snapshot: &Snapshot, accepted: &Arc<VirtualService>) -> Vec<Condition> {
    let (namespace, name) = (accepted.namespace(), &accepted.reference.name);
    let state = snapshot.virtual_services.state(namespace, name).cloned().unwrap_or_default();
    vec![effect(snapshot, accepted, &state), references(snapshot, accepted, &state)]
}

fn effect(
    snapshot: &Snapshot,
    accepted: &VirtualService,
    state: &VirtualServiceState,
) -> Condition {
    if accepted.spec.hosts.is_empty() {
        return in_effect(true, "Delegate", "it has effect through those that delegate to it");
    }
    if !state.missing.is_empty() {
        let subsets =
            state.missing.iter().map(|named| format!("{} of {}", named.subset, named.host));
        let stays = match &state.effective {
            Some(effective) => format!("generation {} of it stays in effect", effective.generation),
            None => "until then it is as if it did not exist".to_owned(),
        };
        let message = format!("no DestinationRule defines subset {}; {stays}", listed(subsets));
        return in_effect(false, "WaitingForSubset", &message);
    }
    let Some(effective) = &state.effective else {
        return in_effect(false, "NotAccepted", "no version of it was ever in effect");
    };
    let unbound = unbound(snapshot, effective);
    let bound = gateways_of(&effective.spec).len() - unbound.len();
    let sidecars = is_for_mesh(&effective.spec).then(|| superseded(snapshot, effective));
    let messages: Vec<&str> = unbound.iter().map(|(_, message)| message.as_str()).collect();
    let messages = messages.join("; ");
    match (sidecars, unbound.first()) {
        // For gateways only.
        (None, None) => in_effect(true, "InEffect", "requests by its gateways follow it"),
        (None, Some((reason, _))) if bound == 0 => in_effect(false, reason, &messages),
        (None, Some((reason, _))) => in_effect(
            true,
            reason,
            &format!("in effect, but not by all of its gateways: {messages}"),
        ),
        (Some(sidecars), None) if bound > 0 && sidecars.status == "False" => {
            let message =
                format!("requests by its gateways follow it; for sidecars: {}", sidecars.message);
            in_effect(true, &sidecars.reason, &message)
        }
        (Some(sidecars), None) => sidecars,
        (Some(sidecars), Some((reason, _))) => {
            let holds = bound > 0 || sidecars.status == "True";
            in_effect(holds, reason, &format!("{messages}; for sidecars: {}", sidecars.message))
        }
    }
}

/// The Gateways that it is bound to without an effect, and why.
fn unbound(snapshot: &Snapshot, effective: &VirtualService) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    for gateway in gateways_of(&effective.spec) {
        let found = gateway
            .split_once('/')
            .and_then(|(namespace, name)| snapshot.gateways.get(namespace, name));
        let Some(found) = found else {
            problems.push(("GatewayNotFound", format!("Gateway {gateway} does not exist")));
            continue;
        };
        let servers = found.spec.servers.iter();
        let mut hosts = servers
            .flat_map(|server| &server.hosts)
            .map(|host| ServerHost::parse(host, found.namespace()));
        let common = hosts.any(|host| {
            let mut names = effective.spec.hosts.iter();
            names.any(|name| host.intersection(effective.namespace(), name).is_some())
        });
        if !common {
            let message = format!("no server of Gateway {gateway} has a host in common with it");
            problems.push(("NoHostInCommon", message));
        }
    }
    problems
}

/// Whether any client gets it, host by host.
fn superseded(snapshot: &Snapshot, effective: &Arc<VirtualService>) -> Condition {
    let hosts: BTreeSet<&str> = effective.spec.hosts.iter().map(String::as_str).collect();
    let lost: Vec<(&str, String)> = hosts
        .iter()
        .filter_map(|host| Some((*host, named(winner(snapshot, effective, host)?))))
        .collect();
    if lost.is_empty() {
        return in_effect(true, "InEffect", "clients of its hosts follow it");
    }
    let listed = listed(lost.iter().map(|(host, by)| format!("{host} (by {by})")));
    if lost.len() < hosts.len() {
        let message = format!("in effect, but superseded for {listed}");
        return in_effect(true, "PartlySuperseded", &message);
    }
    let message = format!("an older VirtualService has its host: {listed}");
    in_effect(false, "Superseded", &message)
}

/// The VirtualService that clients get instead of this one; `None` when some get this one.
fn winner<'a>(
    snapshot: &'a Snapshot,
    own: &VirtualService,
    host: &str,
) -> Option<&'a Arc<VirtualService>> {
    let table = &snapshot.virtual_services;
    let is_own = |other: &VirtualService| other.reference == own.reference;
    let (_, visibility) = table.in_effect_for(host).find(|(other, _)| is_own(other))?;
    match visibility {
        Visibility::Hidden => None,
        // What is private somewhere supersedes it there alone.
        Visibility::Public => {
            let mut public = table
                .in_effect_for(host)
                .filter(|(_, visibility)| **visibility == Visibility::Public);
            public.next().map(|(first, _)| first).filter(|first| !is_own(first))
        }
        Visibility::Namespaces(namespaces) => {
            let mut winners = namespaces.iter().map(|namespace| {
                let mut seen = table
                    .in_effect_for(host)
                    .filter(|(_, visibility)| visibility.includes(namespace))
                    .map(|(other, _)| other);
                let selected = table.select(namespace, host);
                selected.filter(|selected| seen.any(|other| Arc::ptr_eq(other, selected)))
            });
            let first = winners.next()??;
            let all_lost = !is_own(first) && winners.all(|other| other.is_some_and(|o| !is_own(o)));
            all_lost.then_some(first)
        }
    }
}

fn references(
    snapshot: &Snapshot,
    accepted: &VirtualService,
    state: &VirtualServiceState,
) -> Condition {
    let namespace = accepted.namespace();
    let mut problems: Vec<(&str, String)> = Vec::new();
    for delegate in &state.missing_delegates {
        let message = format!("{delegate} does not exist or may not be delegated to");
        problems.push(("DelegateNotFound", message));
    }
    let spec = state.effective.as_ref().filter(|_| state.missing.is_empty());
    let spec = spec.map_or(&accepted.spec, |effective| &effective.spec);
    let mut seen = BTreeSet::new();
    for destination in destinations(spec) {
        let port = destination.port.as_ref().map(|port| port.number);
        if !seen.insert((&destination.host, port)) {
            continue;
        }
        match snapshot.services.find(namespace, &destination.host, &snapshot.mesh.domain) {
            None => problems.push((
                "DestinationNotFound",
                format!("host {} is not in the mesh: its requests get 503", destination.host),
            )),
            Some(service) => {
                if let Some(port) = port.filter(|port| service.port(*port).is_none()) {
                    let message = format!("host {} has no port {port}", destination.host);
                    problems.push(("PortNotFound", message));
                }
            }
        }
    }
    resolved_refs(&problems)
}
