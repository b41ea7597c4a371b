//! Decides what to write into a resource's status. Pure.

use serde_json::{Value, json};
use weft_crds::Condition;
use weft_status::ResourceConditions;

use crate::source::kubernetes::Held;

/// The types of conditions that are ours.
const OURS: [&str; 4] = ["Accepted", "InEffect", "ResolvedRefs", "Warnings"];
/// Reasons for which something is not in effect that its author must act on. Others come and go by themselves, as
/// workloads and services do.
const CONFLICTS: [&str; 4] =
    ["Superseded", "PartlySuperseded", "NotSupported", "SelectorInRootNamespace"];

/// What is to be written.
#[derive(Debug, PartialEq)]
pub(super) struct Write {
    /// For server-side apply.
    pub patch: Value,
    /// What somebody must act on and was not told yet.
    pub notices: Vec<Notice>,
}

/// An Event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub reason: String,
    pub message: String,
}

/// What to write for a resource whose status is `held`; `None` when it says all that is wanted.
pub(super) fn write(held: &Held, wanted: &ResourceConditions, now: &str) -> Option<Write> {
    // The mesh has not seen the latest version yet: it will soon.
    if wanted.observed_generation < held.generation {
        return None;
    }
    let before = &held.status.conditions;
    let old = |type_: &str| before.iter().find(|condition| condition.type_ == type_);
    let ours: Vec<Condition> = wanted
        .conditions
        .iter()
        .map(|condition| {
            let same = old(&condition.type_).filter(|old| old.status == condition.status);
            let since = same.and_then(|old| old.last_transition_time.clone());
            Condition {
                last_transition_time: since.or_else(|| Some(now.to_owned())),
                ..condition.clone()
            }
        })
        .collect();
    let others = before.iter().filter(|condition| !OURS.contains(&condition.type_.as_str()));
    let conditions: Vec<Condition> = ours.iter().chain(others).cloned().collect();
    let observed = Some(wanted.observed_generation);
    if same(&conditions, before) && held.status.observed_generation == observed {
        return None;
    }
    let news = ours.iter().filter(|condition| {
        old(&condition.type_).is_none_or(|old| {
            (&old.status, &old.reason, &old.message)
                != (&condition.status, &condition.reason, &condition.message)
        })
    });
    let reference = &wanted.reference;
    Some(Write {
        notices: news.filter_map(notice).collect(),
        patch: json!({
            "apiVersion": held.api_version,
            "kind": reference.kind,
            "metadata": { "name": *reference.name, "namespace": *reference.namespace },
            "status": { "conditions": conditions, "observedGeneration": observed },
        }),
    })
}

/// The order of conditions says nothing.
fn same(a: &[Condition], b: &[Condition]) -> bool {
    a.len() == b.len() && a.iter().all(|condition| b.contains(condition))
}

fn notice(condition: &Condition) -> Option<Notice> {
    let refused = condition.type_ == "Accepted" && condition.status == "False";
    let conflict = condition.type_ == "InEffect" && CONFLICTS.contains(&condition.reason.as_str());
    (refused || conflict)
        .then(|| Notice { reason: condition.reason.clone(), message: condition.message.clone() })
}

#[cfg(test)]
mod tests {
    use weft_core::resource::ResourceRef;
    use weft_crds::ResourceStatus;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str, since: Option<&str>) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: format!("because {reason}"),
            last_transition_time: since.map(Into::into),
            observed_generation: Some(2),
            ..Condition::default()
        }
    }

    fn wanted(conditions: Vec<Condition>) -> ResourceConditions {
        ResourceConditions {
            reference: ResourceRef {
                kind: "VirtualService",
                namespace: "shop".into(),
                name: "orders".into(),
            },
            observed_generation: 2,
            conditions,
        }
    }

    fn held(conditions: Vec<Condition>) -> Held {
        Held {
            api_version: "networking.istio.io/v1".into(),
            uid: "u".into(),
            generation: 2,
            status: ResourceStatus {
                conditions,
                observed_generation: Some(2),
                ..ResourceStatus::default()
            },
        }
    }

    fn accepted(status: &str, reason: &str, since: Option<&str>) -> Condition {
        condition("Accepted", status, reason, since)
    }

    #[test]
    fn nothing_is_written_that_is_there() {
        let there = held(vec![
            condition("Reconciled", "True", "Theirs", Some("t0")),
            accepted("True", "Accepted", Some("t1")),
        ]);
        assert_eq!(write(&there, &wanted(vec![accepted("True", "Accepted", None)]), "t2"), None);
    }

    #[test]
    fn a_version_that_the_mesh_has_not_seen_is_not_judged() {
        let newer = Held { generation: 3, ..held(Vec::new()) };
        assert_eq!(write(&newer, &wanted(vec![accepted("True", "Accepted", None)]), "t2"), None);
    }

    #[test]
    fn a_status_keeps_its_time_until_it_changes_and_what_others_wrote() {
        let foreign = condition("Reconciled", "True", "Theirs", Some("t0"));
        let there = held(vec![
            foreign.clone(),
            accepted("True", "Accepted", Some("t1")),
            condition("InEffect", "True", "InEffect", Some("t1")),
            condition("Warnings", "True", "Warnings", Some("t1")),
        ]);
        let wanted = wanted(vec![
            accepted("True", "Accepted", None),
            condition("InEffect", "False", "NoMatchingWorkload", None),
        ]);
        let written = write(&there, &wanted, "t2").unwrap();
        assert_eq!(
            written,
            Write {
                notices: Vec::new(),
                patch: json!({
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "VirtualService",
                    "metadata": { "name": "orders", "namespace": "shop" },
                    "status": {
                        "conditions": [
                            accepted("True", "Accepted", Some("t1")),
                            condition("InEffect", "False", "NoMatchingWorkload", Some("t2")),
                            foreign,
                        ],
                        "observedGeneration": 2,
                    },
                }),
            }
        );
    }

    #[test]
    fn somebody_is_told_once_of_what_he_must_act_on() {
        let refused = |since| accepted("False", "Invalid", since);
        let superseded = |since| condition("InEffect", "False", "Superseded", since);
        let notice =
            |reason: &str| Notice { reason: reason.into(), message: format!("because {reason}") };
        for (name, before, after, told) in [
            ("new and refused", vec![], refused(None), vec![notice("Invalid")]),
            (
                "refused now",
                vec![accepted("True", "Accepted", Some("t1"))],
                refused(None),
                vec![notice("Invalid")],
            ),
            ("superseded", vec![], superseded(None), vec![notice("Superseded")]),
            (
                "still superseded, other things changed",
                vec![superseded(Some("t1")), condition("Warnings", "True", "W", None)],
                superseded(None),
                vec![],
            ),
            ("in order", vec![], accepted("True", "Accepted", None), vec![]),
        ] {
            let written = write(&held(before), &wanted(vec![after]), "t2").unwrap();
            assert_eq!(written.notices, told, "{name}");
        }
    }
}
