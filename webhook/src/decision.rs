//! Which pods get a proxy, of those that the webhook is called for.
//!
//! The second of two stages: the webhook's selectors decide which pods it sees. Which label the namespace carries
//! is therefore not asked here.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::PodSpec;

use crate::config::{InjectConfig, Injection};

/// Asks for the proxy, or refuses it: a label, or (not any more in new pods) an annotation.
pub(crate) const INJECT: &str = "sidecar.istio.io/inject";

/// Why a pod gets no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It shares the node's network, which is not the mesh's to capture.
    HostNetwork,
    /// Its containers are of another operating system.
    Windows,
    /// Its namespace is Kubernetes' own.
    IgnoredNamespace,
    /// Its label `sidecar.istio.io/inject` says so.
    Label,
    /// Its annotation `sidecar.istio.io/inject` says so.
    Annotation,
    /// A selector of `neverInjectSelector` selects it.
    NeverInjectSelector,
    /// The policy is not to, and nothing else asks for it.
    Policy,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "the pod shares the node's network (hostNetwork)",
            Self::Windows => "the pod is for Windows",
            Self::IgnoredNamespace => "nothing is injected in this namespace",
            Self::Label => "the label sidecar.istio.io/inject says false",
            Self::Annotation => "the annotation sidecar.istio.io/inject says false",
            Self::NeverInjectSelector => "neverInjectSelector selects the pod",
            Self::Policy => "the injector's policy is disabled",
        })
    }
}

/// What is asked about a pod.
pub(crate) struct Candidate<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    pub(crate) spec: &'a PodSpec,
}

impl Candidate<'_> {
    /// Why the pod gets no proxy, or `None` if it does; and what its author should know.
    pub(crate) fn decide(&self, config: &InjectConfig) -> (Option<Skip>, Option<String>) {
        if self.spec.host_network == Some(true) {
            return (Some(Skip::HostNetwork), None);
        }
        if self.is_windows() {
            return (Some(Skip::Windows), None);
        }
        if config.ignored_namespaces.iter().any(|namespace| namespace == self.namespace) {
            return (Some(Skip::IgnoredNamespace), None);
        }
        let (asked, skip) = match self.labels.get(INJECT) {
            Some(label) => (Some(label), Skip::Label),
            None => (self.annotations.get(INJECT), Skip::Annotation),
        };
        let mut warning = None;
        match asked.map(|text| (text, boolean(text))) {
            Some((_, Some(true))) => return (None, None),
            Some((_, Some(false))) => return (Some(skip), None),
            Some((text, None)) if !text.is_empty() => {
                warning = Some(format!("{INJECT}: {text:?} is neither true nor false; ignored"));
            }
            _ => {}
        }
        let selected = |selectors: &[crate::Selector]| {
            selectors.iter().any(|selector| selector.selects(self.labels))
        };
        let skip = if selected(&config.never_inject_selector) {
            Some(Skip::NeverInjectSelector)
        } else if config.policy == Injection::Enabled || selected(&config.always_inject_selector) {
            None
        } else {
            Some(Skip::Policy)
        };
        (skip, warning)
    }

    fn is_windows(&self) -> bool {
        let os = self.spec.os.as_ref().map(|os| os.name.as_str());
        let selected = self.spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
        os.or(selected.map(String::as_str)) == Some("windows")
    }
}

/// The words that stand for true and false in labels and annotations, in any case.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "y" | "yes" | "on" => Some(true),
        "false" | "f" | "0" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Selector;

    /// The second stage as a table: label, annotation, never, always, policy, and what comes out.
    #[test]
    fn what_a_pod_says_beats_selectors_and_those_beat_the_policy() {
        let skip = |skip| Some(skip);
        for (label, annotation, never, always, policy, expected) in [
            ("", "", false, false, true, None),
            ("", "", false, false, false, skip(Skip::Policy)),
            ("true", "", false, false, false, None),
            ("true", "", true, false, true, None),
            ("false", "", false, false, true, skip(Skip::Label)),
            ("false", "", false, true, true, skip(Skip::Label)),
            ("", "true", false, false, false, None),
            ("", "false", false, false, true, skip(Skip::Annotation)),
            ("true", "false", false, false, false, None),
            ("false", "true", false, false, true, skip(Skip::Label)),
            ("", "", true, false, true, skip(Skip::NeverInjectSelector)),
            ("", "", true, true, true, skip(Skip::NeverInjectSelector)),
            ("", "", false, true, false, None),
            ("maybe", "", false, false, true, None),
            ("maybe", "", false, false, false, skip(Skip::Policy)),
            ("maybe", "", true, false, true, skip(Skip::NeverInjectSelector)),
            ("maybe", "false", false, false, true, None),
        ] {
            let map = |value: &str| {
                let entry = (!value.is_empty()).then(|| (INJECT.to_owned(), value.to_owned()));
                entry.into_iter().collect::<BTreeMap<_, _>>()
            };
            let mut labels = map(label);
            labels.insert("app".into(), "a".into());
            let selectors = |on: bool| {
                let match_labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
                let selector = Selector { match_labels, ..Selector::default() };
                on.then_some(selector).into_iter().collect::<Vec<_>>()
            };
            let config = InjectConfig {
                never_inject_selector: selectors(never),
                always_inject_selector: selectors(always),
                policy: if policy { Injection::Enabled } else { Injection::Disabled },
                ..InjectConfig::default()
            };
            let candidate = Candidate {
                namespace: "shop",
                labels: &labels,
                annotations: &map(annotation),
                spec: &PodSpec::default(),
            };
            let (decided, warning) = candidate.decide(&config);
            let case = (label, annotation, never, always, policy);
            assert_eq!(decided, expected, "{case:?}");
            assert_eq!(warning.is_some(), label == "maybe", "{case:?}");
        }
    }

    #[test]
    fn no_label_brings_a_proxy_into_what_is_not_the_meshs() {
        let labels = BTreeMap::from([(INJECT.to_owned(), "true".to_owned())]);
        for (namespace, spec, expected) in [
            ("shop", json!({"containers": []}), None),
            ("kube-system", json!({"containers": []}), Some(Skip::IgnoredNamespace)),
            ("kube-node-lease", json!({"containers": []}), Some(Skip::IgnoredNamespace)),
            ("shop", json!({"containers": [], "hostNetwork": true}), Some(Skip::HostNetwork)),
            ("shop", json!({"containers": [], "os": {"name": "windows"}}), Some(Skip::Windows)),
            (
                "shop",
                json!({"containers": [], "nodeSelector": {"kubernetes.io/os": "windows"}}),
                Some(Skip::Windows),
            ),
            ("shop", json!({"containers": [], "os": {"name": "linux"}}), None),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let annotations = BTreeMap::new();
            let candidate =
                Candidate { namespace, labels: &labels, annotations: &annotations, spec: &spec };
            assert_eq!(candidate.decide(&InjectConfig::default()).0, expected, "{spec:?}");
        }
    }
}
