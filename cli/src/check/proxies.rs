//! Proxies: every meshed pod's is connected and has what it was sent; every pod that should have one has.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;

use super::{
    facts::{Facts, proxy},
    report::Section,
};

/// Names of pods that a finding spells out.
const SHOWN: usize = 5;

/// Judges them.
pub fn judge(facts: &Facts) -> Section {
    let mut section = Section::new("Proxies");
    if let Err(reason) = &facts.pods {
        section.note(format!("they are not checked: {reason}"));
        return section;
    }
    without_proxy(&mut section, facts);
    let asked = facts.proxies.iter().filter_map(|(pod, answer)| match answer {
        Ok(value) => Some(value),
        Err(reason) => {
            section.note(format!("the operator {pod} cannot be asked: {reason}"));
            None
        }
    });
    let connected: Vec<&Value> = asked.flat_map(|value| value.as_array()).flatten().collect();
    // Who cannot be asked may serve those who seem to be missing.
    if facts.proxies.values().any(Result::is_ok) {
        sync(&mut section, &connected);
        missing(&mut section, facts, &connected);
        resources(&mut section, facts);
    }
    section
}

fn sync(section: &mut Section, connected: &[&Value]) {
    let mut stale = BTreeSet::new();
    for proxy in connected {
        let name = proxy["proxy"].as_str().unwrap_or("-");
        for (kind, state) in proxy["types"].as_object().into_iter().flatten() {
            match state["state"].as_str() {
                Some("REJECTED") => section.error(
                    format!(
                        "{name} refuses the {kind} that it was sent: {}",
                        reason(&state["lastNack"])
                    ),
                    "it goes on with what it had; this is a fault of Weft's or of an EnvoyFilter",
                ),
                Some("STALE") => _ = stale.insert(name.to_owned()),
                _ => {}
            }
        }
    }
    if !stale.is_empty() {
        section.warning(
            format!("{} have not acknowledged what they were last sent", names(&stale)),
            "normal for a moment; otherwise see the proxies' logs",
        );
    }
}

fn missing(section: &mut Section, facts: &Facts, connected: &[&Value]) {
    let known: BTreeSet<&str> = connected.iter().filter_map(|p| p["proxy"].as_str()).collect();
    let running = facts.meshed_pods().filter(|pod| is_running(pod));
    let (mut there, mut lost) = (0, BTreeSet::new());
    for pod in running {
        let name = format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default());
        if known.contains(name.as_str()) {
            there += 1;
        } else {
            lost.insert(name);
        }
    }
    if lost.is_empty() {
        section.fine(format!("{there} proxies of running pods are connected"));
    } else {
        section.error(
            format!("{} run without a connection to the operator", names(&lost)),
            "they hear of no change; their istio-proxy container's log says why",
        );
    }
}

/// Pods of labelled namespaces that were made before the label, or while the webhook was ignored.
fn without_proxy(section: &mut Section, facts: &Facts) {
    let labelled: BTreeSet<String> = facts
        .namespaces
        .as_deref()
        .unwrap_or_default()
        .iter()
        .filter(|namespace| {
            let label = |key: &str| namespace.labels().get(key).map(String::as_str);
            let own = label("weft-injection");
            own == Some("enabled") || (own.is_none() && label("istio-injection") == Some("enabled"))
        })
        .map(ResourceExt::name_any)
        .collect();
    let mut bare: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in facts.pods.as_deref().unwrap_or_default() {
        let namespace = pod.namespace().unwrap_or_default();
        let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        let declined = |value: &str| value == "false";
        let declined = pod.labels().get("sidecar.istio.io/inject").is_some_and(|v| declined(v))
            || pod.annotations().get("sidecar.istio.io/inject").is_some_and(|v| declined(v));
        if labelled.contains(&namespace)
            && is_running(pod)
            && proxy(pod).is_none()
            && !host
            && !declined
        {
            bare.entry(namespace).or_default().insert(pod.name_any());
        }
    }
    for (namespace, pods) in bare {
        section.warning(
            format!(
                "{} in the namespace {namespace} run without a proxy though it is labelled",
                names(&pods)
            ),
            format!("they were made before: kubectl -n {namespace} rollout restart deployment"),
        );
    }
}

fn resources(section: &mut Section, facts: &Facts) {
    let Some(Ok(status)) = facts.statuses.values().find(|status| status.is_ok()) else { return };
    let resources = status["resources"].as_array().into_iter().flatten();
    let refused = resources.filter(|resource| {
        let conditions = resource["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|c| c["type"] == "Accepted" && c["status"] == "False")
    });
    let refused: BTreeSet<String> = refused
        .map(|resource| {
            let text = |key: &str| resource[key].as_str().unwrap_or_default();
            format!("{} {}/{}", text("kind"), text("namespace"), text("name"))
        })
        .collect();
    if !refused.is_empty() {
        section.warning(
            format!("{} are not in effect as they are written", names(&refused)),
            "weft analyze --all-namespaces says why",
        );
    }
}

fn is_running(pod: &Pod) -> bool {
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    running && pod.metadata.deletion_timestamp.is_none()
}

fn names(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn reason(nack: &Value) -> String {
    nack["reason"].as_str().or(nack.as_str()).map_or_else(|| nack.to_string(), str::to_owned)
}
