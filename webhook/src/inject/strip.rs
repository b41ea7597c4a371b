//! A pod that was injected before becomes what it was, so that it can be injected anew.
//!
//! What was added stands in the annotation `sidecar.istio.io/status`; what was changed in the proxy's environment.

use serde::Deserialize;
use serde_json::Value;

use super::{PROXY, Problem, metadata, probes};
use crate::{annotations::names as annotation, json};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    init_containers: Option<Vec<String>>,
    containers: Option<Vec<String>>,
    volumes: Option<Vec<String>>,
    image_pull_secrets: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Overrides {
    containers: Vec<Value>,
    init_containers: Vec<Value>,
}

/// Takes back what an earlier injection did to a pod; others stay as they are.
///
/// # Errors
/// When an annotation that the injector writes was changed to something that it does not write.
pub fn strip(pod: &mut Value) -> Result<(), Problem> {
    let annotation = |name: &str| {
        let text = pod.get("metadata")?.get("annotations")?.get(name)?.as_str()?;
        Some(text.to_owned())
    };
    let Some(status) = annotation(annotation::STATUS) else { return Ok(()) };
    let status: Status = parse(annotation::STATUS, &status)?;
    let overrides = annotation(annotation::OVERRIDES);
    let overrides: Overrides = match &overrides {
        Some(text) => parse(annotation::OVERRIDES, text)?,
        None => Overrides::default(),
    };

    let variables = proxy_variables(pod);
    let spec = &mut pod["spec"];
    for (key, names) in [
        ("initContainers", status.init_containers),
        ("containers", status.containers),
        ("volumes", status.volumes),
        ("imagePullSecrets", status.image_pull_secrets),
    ] {
        let names = names.unwrap_or_default();
        if !names.is_empty() {
            json::list_mut(spec, key)
                .retain(|item| !names.iter().any(|name| name == json::name(item)));
        }
    }
    json::list_mut(spec, "containers").extend(overrides.containers);
    json::list_mut(spec, "initContainers").extend(overrides.init_containers);
    for key in ["initContainers", "volumes", "imagePullSecrets"] {
        json::remove_empty(spec, key);
    }
    if let Some(probers) = &variables.probers {
        probes::restore(spec, probers);
    }
    metadata::restore_metrics(pod, variables.metrics.as_deref());
    let annotations = json::object_mut(&mut pod["metadata"], "annotations");
    for name in [annotation::STATUS, annotation::OVERRIDES, annotation::REVISION] {
        annotations.remove(name);
    }
    json::remove_empty(&mut pod["metadata"], "annotations");
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(name: &str, text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| Problem {
        annotation: name.to_owned(),
        reason: format!("is not what the injector writes; remove it ({error})"),
    })
}

/// What the proxy was told of the application.
#[derive(Default)]
struct Variables {
    probers: Option<String>,
    metrics: Option<String>,
}

fn proxy_variables(pod: &Value) -> Variables {
    let Some(spec) = pod.get("spec") else { return Variables::default() };
    let mut containers =
        json::list(spec, "containers").iter().chain(json::list(spec, "initContainers"));
    let Some(proxy) = containers.find(|container| json::name(container) == PROXY) else {
        return Variables::default();
    };
    let value = |name: &str| {
        let variable = json::list(proxy, "env").iter().find(|v| json::name(v) == name)?;
        json::text(variable, "value").map(str::to_owned)
    };
    Variables {
        probers: value("ISTIO_KUBE_APP_PROBERS"),
        metrics: value("ISTIO_PROMETHEUS_ANNOTATIONS"),
    }
}
