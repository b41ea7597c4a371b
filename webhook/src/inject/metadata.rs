//! Labels and annotations that the mesh reads of a pod.

use serde_json::{Value, json};

use super::{Injection, PROXY, variable};
use crate::{
    annotations::{Interception, Template, names as annotation},
    json,
};

const TLS_MODE: &str = "security.istio.io/tlsMode";
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const NETWORK: &str = "topology.istio.io/network";

/// The longest value of a label.
const LONGEST: usize = 63;

/// Where the agent offers metrics.
const METRICS_PATH: &str = "/stats/prometheus";

impl Injection<'_> {
    pub(super) fn write_metadata(&mut self) {
        let label = |key: &str| {
            self.typed.metadata.labels.as_ref()?.get(key).filter(|value| !value.is_empty())
        };
        let name = label("app.kubernetes.io/name").or_else(|| label("app"));
        let name = label_value(name.unwrap_or(&self.owner.name));
        let revision = label("app.kubernetes.io/version").or_else(|| label("version"));
        let revision = revision.map_or("latest", String::as_str).to_owned();
        let mut labels = vec![(CANONICAL_NAME, name), (CANONICAL_REVISION, revision)];
        // Clients offer mutual TLS where this says so; without capture it would meet the application itself.
        let captured = self.settings.capture.mode == Interception::Redirect;
        if captured && self.settings.template == Template::Sidecar {
            labels.push((TLS_MODE, "istio".to_owned()));
        }
        if !self.config.network.is_empty() {
            labels.push((NETWORK, self.config.network.clone()));
        }
        let config = self.config;
        let first = (self.settings.template == Template::Sidecar)
            .then(|| self.applications().find(|container| container.name != PROXY))
            .flatten()
            .map(|container| container.name.clone());

        let written = json::object_mut(&mut self.pod["metadata"], "labels");
        let more = config.injected_labels.iter().map(|(key, value)| (key.as_str(), value.clone()));
        for (key, value) in labels.into_iter().chain(more) {
            set_if_absent(written, key, value);
        }
        let annotations = self.annotations();
        if let Some(first) = first {
            set_if_absent(annotations, annotation::DEFAULT_LOGS_CONTAINER, first.clone());
            set_if_absent(annotations, annotation::DEFAULT_CONTAINER, first);
        }
        for (key, value) in &config.injected_annotations {
            set_if_absent(annotations, key, value.clone());
        }
        annotations.insert(annotation::REVISION.into(), config.revision.clone().into());
    }

    /// Has Prometheus ask the agent, which asks the application as the pod's own annotations say. Answers the
    /// variable that tells the agent.
    pub(super) fn merge_metrics(&mut self) -> Option<Value> {
        if !self.settings.merge_metrics {
            return None;
        }
        let port = self.settings.status_port?.to_string();
        let annotations = self.annotations();
        // The application's metrics are not the agent's, which would ask itself for ever: a pod that was copied from an
        // injected one says so.
        let own =
            annotations.get(annotation::SCRAPE_PORT).is_none_or(|asked| *asked != json!(port));
        let mut told = json::Object::new();
        for (key, name, value) in [
            ("scrape", annotation::SCRAPE, "true"),
            ("path", annotation::SCRAPE_PATH, METRICS_PATH),
            ("port", annotation::SCRAPE_PORT, &port),
        ] {
            if let Some(before) = annotations.insert(name.into(), json!(value)) {
                told.insert(key.into(), before);
            }
        }
        (own && !told.is_empty())
            .then(|| variable("ISTIO_PROMETHEUS_ANNOTATIONS", Value::Object(told).to_string()))
    }
}

/// Undoes [`Injection::merge_metrics`], given the variable's value.
pub(super) fn restore_metrics(pod: &mut Value, told: Option<&str>) {
    let annotations = json::object_mut(&mut pod["metadata"], "annotations");
    let merged = annotations.get(annotation::SCRAPE_PATH) == Some(&json!(METRICS_PATH));
    if !merged {
        return;
    }
    let told: json::Object =
        told.and_then(|told| serde_json::from_str(told).ok()).unwrap_or_default();
    for (key, name) in [
        ("scrape", annotation::SCRAPE),
        ("path", annotation::SCRAPE_PATH),
        ("port", annotation::SCRAPE_PORT),
    ] {
        match told.get(key) {
            Some(Value::String(before)) => {
                annotations.insert(name.into(), json!(before));
            }
            _ => {
                annotations.remove(name);
            }
        }
    }
}

fn set_if_absent(object: &mut json::Object, key: &str, value: String) {
    object.entry(key).or_insert(Value::String(value));
}

/// A workload's name may be longer than a label's value, and must then end as one may.
fn label_value(name: &str) -> String {
    let mut end = name.len().min(LONGEST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].trim_end_matches(['-', '_', '.']).to_owned()
}
