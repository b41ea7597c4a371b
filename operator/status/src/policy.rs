//! Policies of workloads: which workloads have them.

use std::{collections::BTreeSet, sync::Arc};

use weft_core::{
    policy::{authorization_selects, envoy_filter_selects, peer_authentication_selector},
    resource::Resource,
    selector::selects,
    workload::Workload,
};
use weft_crds::{
    Condition,
    networking::EnvoyFilterSpec,
    security::{AuthorizationPolicySpec, PeerAuthenticationSpec},
};

use crate::{Mesh, condition::in_effect, listed, named};

pub(crate) fn peer_authentication(
    mesh: &Mesh<'_>,
    policy: &Arc<Resource<PeerAuthenticationSpec>>,
) -> Condition {
    let table = mesh.snapshot.peer_authentications.of(policy.namespace());
    let Some(selector) = peer_authentication_selector(&policy.spec) else {
        let oldest = table.iter().find(|other| peer_authentication_selector(&other.spec).is_none());
        return match oldest.filter(|oldest| oldest.reference != policy.reference) {
            Some(oldest) => superseded(&named(oldest)),
            None => followed_by(mesh.workloads_for(policy.namespace())),
        };
    };
    if mesh.is_root(policy.namespace()) {
        return in_effect(
            false,
            "SelectorInRootNamespace",
            "in the root namespace a policy with a selector has no effect",
        );
    }
    let selected: Vec<_> = mesh
        .workloads_for(policy.namespace())
        .filter(|workload| selects(selector, &workload.labels))
        .collect();
    if selected.is_empty() {
        return no_workload();
    }
    let winner = |workload: &Workload| {
        table.iter().find(|other| {
            peer_authentication_selector(&other.spec)
                .is_some_and(|selector| selects(selector, &workload.labels))
        })
    };
    let other = |workload: &Workload| {
        winner(workload).filter(|winner| winner.reference != policy.reference)
    };
    let own: Vec<_> = selected.iter().filter(|workload| other(workload).is_none()).collect();
    match selected.iter().find_map(|workload| other(workload)) {
        Some(other) if own.is_empty() => superseded(&named(other)),
        _ => followed_by(own.into_iter().copied()),
    }
}

pub(crate) fn authorization_policy(
    mesh: &Mesh<'_>,
    policy: &Resource<AuthorizationPolicySpec>,
) -> Condition {
    let spec = &policy.spec;
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return attached();
    }
    let has_selector = spec.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    let workloads: Vec<_> = mesh
        .workloads_for(policy.namespace())
        .filter(|workload| !has_selector || authorization_selects(spec, &workload.labels))
        .collect();
    if has_selector && workloads.is_empty() {
        return no_workload();
    }
    followed_by(workloads.into_iter())
}

pub(crate) fn envoy_filter(mesh: &Mesh<'_>, filter: &Resource<EnvoyFilterSpec>) -> Condition {
    let spec = &filter.spec;
    if !spec.target_refs.is_empty() {
        return attached();
    }
    let has_selector = spec.workload_selector.as_ref().is_some_and(|s| !s.labels.is_empty());
    let workloads: Vec<_> = mesh
        .workloads_for(filter.namespace())
        .filter(|workload| !has_selector || envoy_filter_selects(spec, &workload.labels))
        .collect();
    if has_selector && workloads.is_empty() {
        return no_workload();
    }
    followed_by(workloads.into_iter())
}

/// Which of the workloads that a policy is for have it: those with a proxy. They are named as their owners, so that
/// the condition does not change with every pod.
fn followed_by<'a>(workloads: impl Iterator<Item = &'a Arc<Workload>>) -> Condition {
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    for workload in workloads {
        let names = if workload.meshed { &mut with } else { &mut without };
        names.insert(format!("{}/{}", workload.namespace, workload.workload_name));
    }
    if with.is_empty() && !without.is_empty() {
        let message = format!("the workloads that it is for have no proxy: {}", listed(without));
        return in_effect(false, "NoProxy", &message);
    }
    let message = match with.is_empty() {
        true => "there is no workload that it is for yet".to_owned(),
        false => format!("followed by {}", listed(with)),
    };
    in_effect(true, "InEffect", &message)
}

fn no_workload() -> Condition {
    in_effect(false, "NoMatchingWorkload", "no workload has the labels that its selector asks for")
}

fn superseded(by: &str) -> Condition {
    in_effect(false, "Superseded", &format!("{by}, which is older, counts in its place"))
}

fn attached() -> Condition {
    in_effect(
        false,
        "NotSupported",
        "it is attached to something by reference, which is for gateways; sidecars ignore it",
    )
}
