//! A pod without a proxy in, the pod with its proxy out (`istio-behaviours` 3.3).
//!
//! Pure: what a pod becomes depends on the pod, its namespace, its workload and the configuration alone. Injecting what
//! was injected before gives the same pod again.

mod capture;
mod metadata;
mod overlay;
mod probes;
mod proxy;
mod strip;
mod volumes;

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

pub use self::strip::strip;
use crate::{
    annotations::{Interception, PodSettings, Template, names as annotation},
    config::InjectConfig,
    decision::{Candidate, Skip},
    json,
    owner::Owner,
};

/// The proxy's container.
pub(crate) const PROXY: &str = "istio-proxy";
/// The container that has traffic captured.
pub(crate) const INIT: &str = "istio-init";

/// An annotation whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The annotation.
    pub annotation: String,
    /// What is wrong with its value.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation {}: {}", self.annotation, self.reason)
    }
}

/// Why a pod cannot get a proxy.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// It has not the shape of a pod.
    #[error("not a pod: {0}")]
    NotAPod(serde_json::Error),
    /// It has nothing to run.
    #[error("not a pod: it has no spec")]
    NoSpec,
    /// Annotations that cannot be used: all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Annotations(Vec<Problem>),
}

/// A pod with its proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It got a proxy.
    Injected(Box<Injected>),
    /// It stays as it is.
    Skipped(Skip),
}

/// Gives a pod its proxy, unless it is to have none. `owner` is the workload where the pod itself does not tell.
///
/// # Errors
/// When the pod asks for something that cannot be had.
pub fn inject(
    mut pod: Value,
    namespace: &str,
    owner: Option<Owner>,
    config: &InjectConfig,
) -> Result<Outcome, InjectError> {
    let typed = read(&pod)?;
    let empty = BTreeMap::new();
    let candidate = Candidate {
        namespace,
        labels: typed.metadata.labels.as_ref().unwrap_or(&empty),
        annotations: typed.metadata.annotations.as_ref().unwrap_or(&empty),
        spec: typed.spec.as_ref().ok_or(InjectError::NoSpec)?,
    };
    let (skip, warning) = candidate.decide(config);
    if let Some(skip) = skip {
        return Ok(Outcome::Skipped(skip));
    }
    strip(&mut pod).map_err(|problem| InjectError::Annotations(vec![problem]))?;
    let typed = read(&pod)?;
    let annotations = typed.metadata.annotations.as_ref().unwrap_or(&empty);
    let settings = PodSettings::read(annotations, config).map_err(InjectError::Annotations)?;
    let owner = owner.unwrap_or_else(|| Owner::of(&typed.metadata));
    let mut injection = Injection { config, settings, namespace, owner, typed, pod };
    injection.run();
    let mut warnings = injection.settings.warnings;
    warnings.extend(warning);
    Ok(Outcome::Injected(Box::new(Injected { pod: injection.pod, warnings })))
}

fn read(pod: &Value) -> Result<Pod, InjectError> {
    serde_json::from_value(pod.clone()).map_err(InjectError::NotAPod)
}

/// One pod under way.
struct Injection<'a> {
    config: &'a InjectConfig,
    settings: PodSettings,
    namespace: &'a str,
    owner: Owner,
    /// The pod as it came, to read from.
    typed: Pod,
    /// The pod as it goes, to write to.
    pod: Value,
}

/// What the injector added, as the annotation `sidecar.istio.io/status` tells it.
#[derive(Default)]
struct Added {
    init_containers: Vec<&'static str>,
    containers: Vec<&'static str>,
    volumes: Vec<String>,
    image_pull_secrets: Vec<String>,
}

impl Injection<'_> {
    fn run(&mut self) {
        let mut added = Added::default();
        let overrides = overlay::take(json::object_mut(&mut self.pod, "spec"));
        // First what stays when an injection is taken back, so that the next one writes the same in the same order.
        self.write_metadata();
        let mut environment = Vec::new();
        if self.settings.template == Template::Sidecar {
            environment.extend(self.rewrite_probes());
            environment.extend(self.merge_metrics());
        }
        let proxy = overrides.apply(self.proxy_container(environment));
        let init = (self.settings.template == Template::Sidecar
            && self.settings.capture.mode == Interception::Redirect)
            .then(|| overrides.apply(self.init_container()));
        self.add_containers(proxy, init, &mut added);
        self.add_volumes(&mut added);
        self.write_status(&added);
        if let Some(text) = overrides.to_json() {
            self.annotations().insert(annotation::OVERRIDES.into(), text.into());
        }
    }

    fn spec(&mut self) -> &mut Value {
        &mut self.pod["spec"]
    }

    fn annotations(&mut self) -> &mut json::Object {
        json::object_mut(&mut self.pod["metadata"], "annotations")
    }

    /// Whether the proxy is an init container that keeps running.
    fn is_native(&self) -> bool {
        self.settings.native && self.settings.template == Template::Sidecar
    }

    fn add_containers(&mut self, proxy: Value, init: Option<Value>, added: &mut Added) {
        let native = self.is_native();
        let hold = self.settings.hold_application;
        let gateway = self.settings.template == Template::Gateway;
        let spec = self.spec();
        if native {
            // Before the pod's own init containers: those have the mesh's network too.
            let containers = json::list_mut(spec, "initContainers");
            containers.insert(0, proxy);
            added.init_containers.push(PROXY);
            if let Some(init) = init {
                containers.insert(0, init);
                added.init_containers.insert(0, INIT);
            }
        } else {
            let containers = json::list_mut(spec, "containers");
            // A gateway's proxy is what `kubectl exec` means, and the first container is that.
            let place = if hold || gateway { 0 } else { containers.len() };
            containers.insert(place, proxy);
            added.containers.push(PROXY);
            if let Some(init) = init {
                // After the pod's own: those would find their connections captured and nobody to take them.
                json::list_mut(spec, "initContainers").push(init);
                added.init_containers.push(INIT);
            }
        }
        json::remove_empty(spec, "initContainers");
    }

    fn write_status(&mut self, added: &Added) {
        let list = |names: Vec<&str>| if names.is_empty() { Value::Null } else { json!(names) };
        let status = json!({
            "initContainers": list(added.init_containers.clone()),
            "containers": list(added.containers.clone()),
            "volumes": list(added.volumes.iter().map(String::as_str).collect()),
            "imagePullSecrets": list(added.image_pull_secrets.iter().map(String::as_str).collect()),
            "revision": self.config.revision,
        });
        self.annotations().insert(annotation::STATUS.into(), status.to_string().into());
    }
}

/// A variable with a value.
fn variable(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}
