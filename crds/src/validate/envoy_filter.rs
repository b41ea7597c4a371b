//! Validation of EnvoyFilters: their form, and which of their patches Weft gives effect to.

use super::{Validation, text};
use crate::{
    networking::{ApplyTo, EnvoyConfigObjectPatch, EnvoyFilterSpec, PatchEffect, PatchOperation},
    path::Path,
};

pub(super) fn validate(spec: &EnvoyFilterSpec, report: &mut Validation) {
    let path = Path::root("spec");
    if let Some(selector) = &spec.workload_selector {
        let at = path.field("workloadSelector");
        text::labels(&selector.labels, &at.field("labels"), report);
    }
    if !spec.target_refs.is_empty() {
        let reason = "takes effect in gateways and waypoints only: sidecars pass over the resource";
        report.warn(&path.field("targetRefs"), reason);
    }
    let list = path.field("configPatches");
    if spec.config_patches.is_empty() {
        report.warn(&list, "is empty, so that nothing is patched");
    }
    for (index, patch) in spec.config_patches.iter().enumerate() {
        config_patch(patch, &list.index(index), report);
    }
}

fn config_patch(patch: &EnvoyConfigObjectPatch, path: &Path<'_>, report: &mut Validation) {
    if patch.apply_to == ApplyTo::Invalid {
        report.error(&path.field("applyTo"), "is required");
        return;
    }
    let at = path.field("patch");
    let Some(change) = &patch.patch else {
        report.error(&at, "is required");
        return;
    };
    if change.operation == PatchOperation::Invalid {
        report.error(&at.field("operation"), "is required");
        return;
    }
    if change.operation != PatchOperation::Remove && change.value.is_empty() {
        let reason = format!("is required for operation {}", change.operation);
        report.error(&at.field("value"), reason);
        return;
    }
    if patch.matches.as_ref().is_some_and(|matches| matches.proxy.is_some()) {
        let at = path.field("match");
        report.warn(&at.field("proxy"), "has no effect in Weft: every proxy of the mesh is meant");
    }
    match patch.effect() {
        PatchEffect::LocalRateLimit(limit) | PatchEffect::RouteLocalRateLimit(limit) => {
            for (field, reason) in limit.without_effect() {
                report.warn(&at.field("value"), format!("{field} {reason}"));
            }
        }
        PatchEffect::None(reason) => {
            report.warn(path, format!("has no effect in Weft: {reason}"));
        }
    }
}
