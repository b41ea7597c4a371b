//! DestinationRules: whether their host exists, and what older rules for it take from them.

use std::sync::Arc;

use weft_core::{host, resource::Resource, service::Visibility, snapshot::Snapshot};
use weft_crds::{Condition, networking::DestinationRuleSpec};

use crate::{
    condition::{in_effect, resolved_refs},
    listed, named,
};

type DestinationRule = Resource<DestinationRuleSpec>;

pub(crate) fn judge(snapshot: &Snapshot, rule: &Arc<DestinationRule>) -> Vec<Condition> {
    let host = &rule.spec.host;
    let exists = if host::is_wildcard(host) {
        snapshot.services.iter().any(|service| host::covers(host, service.hostname()))
    } else {
        !snapshot.services.named(host).is_empty()
    };
    let problem = (!exists).then(|| ("HostNotFound", format!("host {host} is not in the mesh")));
    vec![effect(snapshot, rule), resolved_refs(problem.as_slice())]
}

/// What of a rule counts among the older ones that it is merged with (`istio-behaviours` 2.4, item 34).
fn effect(snapshot: &Snapshot, rule: &DestinationRule) -> Condition {
    let visibility = |rule: &DestinationRule| {
        Visibility::from_export_to(
            &rule.spec.export_to,
            &snapshot.mesh.default_destination_rule_export_to,
            &rule.reference.namespace,
        )
    };
    let own = visibility(rule);
    if own == Visibility::Hidden {
        return in_effect(false, "Hidden", "it is exported to nobody");
    }
    let older: Vec<&Arc<DestinationRule>> = snapshot
        .destination_rules
        .accepted()
        .of(rule.namespace())
        .iter()
        .take_while(|other| other.reference != rule.reference)
        .filter(|other| {
            other.spec.host == rule.spec.host
                && other.spec.workload_selector == rule.spec.workload_selector
                && visibility(other) == own
        })
        .collect();
    if older.is_empty() {
        return in_effect(true, "InEffect", "clients of its host follow it");
    }
    let mut lost = Vec::new();
    if rule.spec.traffic_policy.is_some()
        && let Some(other) = older.iter().find(|other| other.spec.traffic_policy.is_some())
    {
        lost.push(format!("its traffic policy (that of {} counts)", named(other)));
    }
    for subset in &rule.spec.subsets {
        let defines = |other: &&&Arc<DestinationRule>| {
            other.spec.subsets.iter().any(|defined| defined.name == subset.name)
        };
        if let Some(other) = older.iter().find(defines) {
            lost.push(format!("its subset {} (that of {} counts)", subset.name, named(other)));
        }
    }
    let with = listed(older.iter().map(|other| named(other)));
    if lost.is_empty() {
        return in_effect(true, "Merged", &format!("merged with {with}"));
    }
    let message = format!("merged with {with}, which are older, without {}", listed(lost));
    in_effect(true, "PartlySuperseded", &message)
}
