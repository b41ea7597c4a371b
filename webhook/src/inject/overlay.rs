//! A pod's own `istio-proxy` container, which changes the injected one: image `auto`, or any of its fields.
//!
//! As Kubernetes' strategic merge has it: objects field by field, lists of named things by name, other lists as a whole.

use serde_json::{Value, json};

use super::{INIT, PROXY};
use crate::json;

/// The image that stands for the injected one.
const AUTO: &str = "auto";

/// What of a container has a name to be found by.
const KEYED_LISTS: [(&str, &[&str]); 4] = [
    ("env", &["name"]),
    ("ports", &["containerPort", "protocol"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
];

/// Of these a probe or a hook has one.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// The pod's own containers of the injector's names.
#[derive(Default)]
pub(super) struct Overrides {
    containers: Vec<Value>,
    init_containers: Vec<Value>,
}

/// Takes the containers of the injector's names out of a pod.
pub(super) fn take(spec: &mut json::Object) -> Overrides {
    let mut taken = |key: &str| -> Vec<Value> {
        let Some(Value::Array(containers)) = spec.get_mut(key) else { return Vec::new() };
        let ours = |container: &mut Value| matches!(json::name(container), PROXY | INIT);
        containers.extract_if(.., ours).collect()
    };
    Overrides { containers: taken("containers"), init_containers: taken("initContainers") }
}

impl Overrides {
    /// The injected container with the pod's own fields over it.
    pub(super) fn apply(&self, mut container: Value) -> Value {
        let name = json::name(&container).to_owned();
        for over in self.containers.iter().chain(&self.init_containers) {
            if json::name(over) == name {
                merge_container(&mut container, over);
            }
        }
        container
    }

    /// What the pod had, for the annotation that tells a later injection.
    pub(super) fn to_json(&self) -> Option<String> {
        let mut object = json::Object::new();
        if !self.containers.is_empty() {
            object.insert("containers".into(), self.containers.clone().into());
        }
        if !self.init_containers.is_empty() {
            object.insert("initContainers".into(), self.init_containers.clone().into());
        }
        (!object.is_empty()).then(|| Value::Object(object).to_string())
    }
}

fn merge_container(container: &mut Value, over: &Value) {
    for (key, value) in over.as_object().into_iter().flatten() {
        if key == "image" && (value == AUTO || value == "") {
            continue;
        }
        match KEYED_LISTS.iter().find(|(list, _)| list == key) {
            Some((_, keys)) => merge_list(json::list_mut(container, key), value, keys),
            None if key.ends_with("Probe") => merge_handler(&mut container[key], value),
            None if key == "lifecycle" => {
                for (hook, value) in value.as_object().into_iter().flatten() {
                    merge_handler(&mut container[key][hook], value);
                }
            }
            None => json::merge(&mut container[key], value.clone()),
        }
    }
}

/// Replaces what has the same key, and adds the rest.
fn merge_list(list: &mut Vec<Value>, over: &Value, keys: &[&str]) {
    for item in over.as_array().into_iter().flatten() {
        let same = |other: &Value| {
            keys.iter().all(|key| {
                // A port whose protocol is not said is of TCP.
                let default = json!("TCP");
                let of =
                    |value: &Value| value.get(*key).cloned().unwrap_or_else(|| default.clone());
                of(other) == of(item)
            })
        };
        match list.iter_mut().find(|other| same(other)) {
            Some(other) => *other = item.clone(),
            None => list.push(item.clone()),
        }
    }
}

/// A handler of another kind takes the injected one's place.
fn merge_handler(base: &mut Value, over: &Value) {
    let brings = HANDLERS.iter().any(|handler| over.get(handler).is_some());
    if brings && let Some(base) = base.as_object_mut() {
        base.retain(|key, _| !HANDLERS.contains(&key.as_str()));
    }
    json::merge(base, over.clone());
}
