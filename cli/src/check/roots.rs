//! The root certificate: what the API server trusts when it calls the webhooks, and the same wherever proxies need it.

use std::collections::BTreeSet;

use k8s_openapi::{ByteString, api::admissionregistration::v1::WebhookClientConfig};
use kube::ResourceExt;

use super::{facts::Facts, report::Section};
use crate::names::{INJECTOR, ROOT_CONFIG_MAP, VALIDATOR};

/// Judges it.
pub fn judge(facts: &Facts) -> Section {
    let mut section = Section::new("Root certificate");
    let injector = facts.mutating.as_deref().unwrap_or_default().iter();
    let injector = injector.filter(|configuration| configuration.name_any() == INJECTOR);
    let injector = injector.flat_map(|configuration| configuration.webhooks.iter().flatten());
    let validator = facts.validating.as_deref().unwrap_or_default().iter();
    let validator = validator.filter(|configuration| configuration.name_any() == VALIDATOR);
    let validator = validator.flat_map(|configuration| configuration.webhooks.iter().flatten());
    let injected = bundles(injector.map(|webhook| &webhook.client_config));
    let root = injected.iter().flatten().next().cloned();
    trusted(&mut section, INJECTOR, &injected, root.as_deref());
    let validated = bundles(validator.map(|webhook| &webhook.client_config));
    trusted(&mut section, VALIDATOR, &validated, root.as_deref());
    if let Some(root) = &root {
        published(&mut section, facts, root);
    }
    section
}

fn bundles<'a>(configs: impl Iterator<Item = &'a WebhookClientConfig>) -> Vec<Option<String>> {
    let text = |ByteString(bytes): &ByteString| String::from_utf8_lossy(bytes).trim().to_owned();
    configs.map(|config| config.ca_bundle.as_ref().map(text)).collect()
}

/// `bundles` of the webhooks of one configuration: none when it is not there, which was said elsewhere.
fn trusted(section: &mut Section, name: &str, bundles: &[Option<String>], root: Option<&str>) {
    if bundles.is_empty() {
        return;
    }
    if bundles.iter().any(Option::is_none) {
        section.error(
            format!("{name} has no CA bundle: the API server cannot call the operator"),
            "the operator that leads writes it; see Operator above, and its log",
        );
    } else if bundles.iter().any(|bundle| bundle.as_deref() != root) {
        section.error(
            format!("{name} has another CA bundle than the mesh's root: its calls fail"),
            "the operator that leads repairs it within a minute; if not, its log says why",
        );
    } else {
        section.fine(format!("the API server trusts it at {name}"));
    }
}

fn published(section: &mut Section, facts: &Facts, root: &str) {
    let roots = match &facts.roots {
        Ok(roots) => roots,
        Err(reason) => return section.note(format!("namespaces are not checked: {reason}")),
    };
    let meshed: BTreeSet<String> =
        facts.meshed_pods().filter_map(|pod| pod.metadata.namespace.clone()).collect();
    let mut right = 0;
    for namespace in &meshed {
        match roots.get(namespace) {
            None => section.error(
                format!("the namespace {namespace} has meshed pods and no ConfigMap {ROOT_CONFIG_MAP}"),
                "its new pods cannot start; the log of the operator that leads says why it is not written",
            ),
            Some(other) if other.trim() != root => section.error(
                format!("{namespace}/{ROOT_CONFIG_MAP} is not the mesh's root: stale, or another mesh's"),
                "the operator that leads repairs it within a minute; another mesh in the cluster may write it too",
            ),
            Some(_) => right += 1,
        }
    }
    if right > 0 {
        section.fine(format!("the same in {right} namespaces with meshed pods"));
    }
}
