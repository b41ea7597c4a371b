//! The operator's pods: there, ready, and if not, what Kubernetes says of them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{facts::Facts, report::Section};

/// Judges them.
pub fn judge(facts: &Facts) -> Section {
    let mut section = Section::new("Operator");
    let deployment = match &facts.deployment {
        Ok(Some(deployment)) => deployment,
        Ok(None) => return section,
        Err(reason) => {
            section.note(format!("the Deployment is not checked: {reason}"));
            return section;
        }
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    for pod in facts.operator_pods() {
        if let Some(trouble) = trouble(pod) {
            let advice = format!(
                "kubectl -n {} describe pod {}, and its logs",
                facts.namespace,
                pod.name_any()
            );
            section.error(format!("{}: {trouble}", pod.name_any()), advice);
        }
    }
    if let Err(reason) = &facts.pods {
        section.note(format!("its pods are not checked: {reason}"));
    }
    let text = format!("{ready} of {wanted} replicas are ready");
    match ready {
        0 => section.error(
            format!("{text}: no pod is injected, no certificate signed, no change told to proxies"),
            format!("kubectl -n {} get events", facts.namespace),
        ),
        ready if ready < wanted => section.warning(text, "it may be on its way"),
        _ => section.fine(text),
    }
    injector(&mut section, facts);
    section
}

/// What the operator says of the injector's settings.
fn injector(section: &mut Section, facts: &Facts) {
    let statuses = facts.statuses.values().flatten();
    let problems = statuses.flat_map(|status| status["injector"].as_array().into_iter().flatten());
    let problems: BTreeSet<&str> = problems.filter_map(|problem| problem.as_str()).collect();
    for problem in problems {
        section.error(
            format!("the injector's settings are not in effect as they are written: {problem}"),
            format!("kubectl -n {} edit configmap weft, or helm upgrade", facts.namespace),
        );
    }
}

/// Why a pod does not get ready, as far as Kubernetes knows.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    for container in status.container_statuses.iter().flatten() {
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        if let Some(waiting) = waiting.filter(|w| w.reason.as_deref() != Some("ContainerCreating"))
        {
            let mut text = waiting.reason.clone().unwrap_or_else(|| "waits".into());
            if let Some(message) = &waiting.message {
                text = format!("{text}: {message}");
            }
            if let Some(ended) = ended {
                text = format!("{text} (it last ended with {})", ended.exit_code);
            }
            return Some(text);
        }
    }
    let unscheduled = status.conditions.iter().flatten();
    let mut unscheduled = unscheduled.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    unscheduled
        .next()
        .map(|condition| condition.message.clone().unwrap_or_else(|| "it is not scheduled".into()))
}
