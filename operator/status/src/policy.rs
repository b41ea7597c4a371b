//! Policies of workloads: whether any workload gets them.

use std::sync::Arc;

use weft_core::{
    policy::{authorization_selects, envoy_filter_selects, peer_authentication_selector},
    resource::Resource,
    selector::selects,
};
use weft_crds::{
    Condition,
    networking::EnvoyFilterSpec,
    security::{AuthorizationPolicySpec, PeerAuthenticationSpec},
};

use crate::{Mesh, condition::in_effect, named};

pub(crate) fn peer_authentication(
    mesh: &Mesh<'_>,
    policy: &Arc<Resource<PeerAuthenticationSpec>>,
) -> Condition {
    let table = mesh.snapshot.peer_authentications.of(policy.namespace());
    let Some(selector) = peer_authentication_selector(&policy.spec) else {
        let oldest = table.iter().find(|other| peer_authentication_selector(&other.spec).is_none());
        return match oldest.filter(|oldest| oldest.reference != policy.reference) {
            Some(oldest) => superseded(&named(oldest)),
            None => workloads_follow(),
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
    let winners = selected.iter().filter_map(|workload| {
        table.iter().find(|other| {
            peer_authentication_selector(&other.spec)
                .is_some_and(|selector| selects(selector, &workload.labels))
        })
    });
    let mut others = winners.filter(|winner| winner.reference != policy.reference).peekable();
    let first = others.peek().map(|other| named(other));
    match first {
        Some(first) if others.count() == selected.len() => superseded(&first),
        _ => workloads_follow(),
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
    let mut workloads = mesh.workloads_for(policy.namespace());
    if has_selector && !workloads.any(|workload| authorization_selects(spec, &workload.labels)) {
        return no_workload();
    }
    workloads_follow()
}

pub(crate) fn envoy_filter(mesh: &Mesh<'_>, filter: &Resource<EnvoyFilterSpec>) -> Condition {
    let spec = &filter.spec;
    if !spec.target_refs.is_empty() {
        return attached();
    }
    let has_selector = spec.workload_selector.as_ref().is_some_and(|s| !s.labels.is_empty());
    let mut workloads = mesh.workloads_for(filter.namespace());
    if has_selector && !workloads.any(|workload| envoy_filter_selects(spec, &workload.labels)) {
        return no_workload();
    }
    workloads_follow()
}

fn workloads_follow() -> Condition {
    in_effect(true, "InEffect", "the workloads that it is for follow it")
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
