//! Others that inject a sidecar into the same pods: two proxies would capture each other's traffic.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::ResourceExt;

use super::{
    facts::Facts,
    report::Section,
    selector::{matches, mentions},
};
use crate::names::INJECTOR;

const NAMESPACE_LABELS: [&str; 3] = ["istio-injection", "weft-injection", "istio.io/rev"];
const POD_LABELS: [&str; 2] = ["sidecar.istio.io/inject", "istio.io/rev"];

/// A label and its value.
type Label = (&'static str, &'static str);

/// A way in which people ask for injection.
struct Request {
    text: &'static str,
    namespace: Option<Label>,
    pod: Option<Label>,
}

const REQUESTS: [Request; 4] = [
    Request {
        text: "namespaces with istio-injection=enabled",
        namespace: Some(("istio-injection", "enabled")),
        pod: None,
    },
    Request {
        text: "namespaces with weft-injection=enabled",
        namespace: Some(("weft-injection", "enabled")),
        pod: None,
    },
    Request {
        text: "namespaces with istio.io/rev=default",
        namespace: Some(("istio.io/rev", "default")),
        pod: None,
    },
    Request {
        text: "pods with sidecar.istio.io/inject=true",
        namespace: None,
        pod: Some(("sidecar.istio.io/inject", "true")),
    },
];

/// Judges all injectors.
pub fn judge(facts: &Facts) -> Section {
    let mut section = Section::new("Injection");
    let configurations = match &facts.mutating {
        Ok(configurations) => configurations,
        Err(reason) => {
            section.note(format!("other injectors are not looked for: {reason}"));
            return section;
        }
    };
    let ours = configurations.iter().find(|c| c.name_any() == INJECTOR);
    let mut alone = true;
    for other in configurations.iter().filter(|c| c.name_any() != INJECTOR) {
        let shared: Vec<&str> = REQUESTS
            .iter()
            .filter(|request| {
                takes(other, true, request) && ours.is_none_or(|ours| takes(ours, false, request))
            })
            .map(|request| request.text)
            .collect();
        if shared.is_empty() {
            continue;
        }
        alone = false;
        let text = format!(
            "another injector, MutatingWebhookConfiguration {}, takes the same pods: {}",
            other.name_any(),
            shared.join(", ")
        );
        let advice = "while both are installed: weft install --set webhooks.istioLabels=false, and label \
                      namespaces for Weft with weft-injection=enabled alone";
        if ours.is_some() {
            section.error(text, advice);
        } else {
            section.warning(text, advice);
        }
    }
    if alone {
        section.fine("no other injector takes the same pods");
    }
    section
}

/// Whether a configuration takes a new pod of such a namespace. Of others, only what asks for labels of injection counts:
/// many tools look at every pod.
fn takes(
    configuration: &MutatingWebhookConfiguration,
    asks_for_labels: bool,
    request: &Request,
) -> bool {
    let label = |(key, value): Label| (key.to_owned(), value.to_owned());
    let mut namespace_labels: BTreeMap<String, String> =
        [label(("kubernetes.io/metadata.name", "default"))].into();
    namespace_labels.extend(request.namespace.map(label));
    let pod_labels: BTreeMap<String, String> = request.pod.map(label).into_iter().collect();
    configuration.webhooks.iter().flatten().any(|webhook| {
        let asks = mentions(webhook.namespace_selector.as_ref(), &NAMESPACE_LABELS)
            || mentions(webhook.object_selector.as_ref(), &POD_LABELS);
        takes_pods(webhook)
            && (asks || !asks_for_labels)
            && matches(webhook.namespace_selector.as_ref(), &namespace_labels)
            && matches(webhook.object_selector.as_ref(), &pod_labels)
    })
}

fn takes_pods(webhook: &MutatingWebhook) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| {
        list.iter().flatten().any(|each| each == wanted || each == "*")
    };
    webhook.rules.iter().flatten().any(|rule| {
        has(&rule.api_groups, "")
            && (has(&rule.resources, "pods") || has(&rule.resources, "*/*"))
            && has(&rule.operations, "CREATE")
    })
}
