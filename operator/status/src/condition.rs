//! The conditions that every kind has.

use weft_core::diagnosis::Diagnosis;
use weft_crds::{Condition, FieldError};

/// A condition without time and generation.
pub(crate) fn condition(type_: &str, holds: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Condition::default()
    }
}

/// Whether clients or workloads get it.
pub(crate) fn in_effect(holds: bool, reason: &str, message: &str) -> Condition {
    condition("InEffect", holds, reason, message)
}

/// Whether what it names exists.
pub(crate) fn resolved_refs(problems: &[(&str, String)]) -> Condition {
    match problems.first() {
        None => condition("ResolvedRefs", true, "ResolvedRefs", "everything that it names exists"),
        Some((reason, _)) => {
            let messages: Vec<&str> =
                problems.iter().map(|(_, message)| message.as_str()).collect();
            condition("ResolvedRefs", false, reason, &messages.join("; "))
        }
    }
}

/// Whether the latest version is valid, and what holds if not.
pub(crate) fn accepted(diagnosis: &Diagnosis) -> Condition {
    if diagnosis.errors.is_empty() {
        return condition("Accepted", true, "Accepted", "the resource is valid");
    }
    let stays = match diagnosis.accepted {
        Some(0) => "the version before stays".to_owned(),
        Some(generation) => format!("generation {generation} of it stays"),
        None => "no version of it was ever accepted".to_owned(),
    };
    condition("Accepted", false, "Invalid", &format!("{}; {stays}", join(&diagnosis.errors)))
}

/// What is accepted and yet probably not meant.
pub(crate) fn warnings(diagnosis: &Diagnosis) -> Option<Condition> {
    let warnings = &diagnosis.warnings;
    (!warnings.is_empty()).then(|| condition("Warnings", true, "Warnings", &join(warnings)))
}

fn join(findings: &[FieldError]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
