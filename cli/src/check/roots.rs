//! The root certificate: the same wherever it is needed, and what the API server trusts when it calls the webhooks.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use kube::ResourceExt;

use super::{facts::Facts, report::Section};
use crate::names::{INJECTOR, ROOT_CONFIG_MAP, VALIDATOR};

/// Judges it.
pub fn judge(facts: &Facts) -> Section {
    let mut section = Section::new("Root certificate");
    let roots = match &facts.roots {
        Ok(roots) => roots,
        Err(reason) => {
            section.note(format!("it is not checked: {reason}"));
            return section;
        }
    };
    let Some(root) = roots.get(&facts.namespace).filter(|root| !root.trim().is_empty()) else {
        section.error(
            format!(
                "there is no ConfigMap {}/{ROOT_CONFIG_MAP}: the operator has published none yet",
                facts.namespace
            ),
            "see Operator above, and its log",
        );
        return section;
    };
    let meshed: BTreeSet<String> =
        facts.meshed_pods().filter_map(|pod| pod.metadata.namespace.clone()).collect();
    for namespace in &meshed {
        match roots.get(namespace) {
            None => section.error(
                format!("the namespace {namespace} has meshed pods and no ConfigMap {ROOT_CONFIG_MAP}"),
                "its new pods cannot start; the operator's log says why it cannot write it",
            ),
            Some(other) if other.trim() != root.trim() => section.error(
                format!("{namespace}/{ROOT_CONFIG_MAP} is not the mesh's root: stale, or another mesh's"),
                "the operator renews it within a minute; another mesh in the cluster may write it too",
            ),
            Some(_) => {}
        }
    }
    if section.is_fine() {
        section.fine(format!("the same in {} meshed namespaces", meshed.len()));
    }
    webhooks(&mut section, facts, root);
    section
}

fn webhooks(section: &mut Section, facts: &Facts, root: &str) {
    let mutating = facts.mutating.as_deref().unwrap_or_default();
    let validating = facts.validating.as_deref().unwrap_or_default();
    let injector = mutating.iter().find(|c| c.name_any() == INJECTOR);
    let validator = validating.iter().find(|c| c.name_any() == VALIDATOR);
    let injector = injector
        .map(|c| c.webhooks.iter().flatten().map(|w| w.client_config.ca_bundle.as_ref()).collect());
    let validator = validator
        .map(|c| c.webhooks.iter().flatten().map(|w| w.client_config.ca_bundle.as_ref()).collect());
    for (name, bundles) in [(INJECTOR, injector), (VALIDATOR, validator)] {
        let Some(bundles): Option<Vec<Option<&ByteString>>> = bundles else { continue };
        let trusted = |bundle: &Option<&ByteString>| {
            bundle.is_some_and(|bytes| String::from_utf8_lossy(&bytes.0).contains(root.trim()))
        };
        if bundles.iter().all(trusted) {
            section.fine(format!("the API server trusts it at {name}"));
        } else if bundles.iter().all(Option::is_none) {
            section.error(
                format!("{name} has no CA bundle: the API server cannot call the operator"),
                "the operator writes it when it leads; see Operator above, and its log",
            );
        } else {
            section.error(
                format!("{name} has another CA bundle than the mesh's root: its calls fail"),
                "the operator repairs it within a minute; if not, its log says why",
            );
        }
    }
}
