//! The application's probes and hooks by way of the agent.
//!
//! The kubelet has no certificate, and what it asks is captured like everything else. So it asks the agent, which is
//! not captured, and the agent asks the application. `exec` and `sleep` need no network and stay.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::{Injection, PROXY, variable};
use crate::json;

/// Probes, and how the agent's path names them.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
/// Hooks, and how the agent's path names them.
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];
/// What the agent asks in the kubelet's place.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

type Ports = BTreeMap<String, i32>;

impl Injection<'_> {
    /// Points probes and hooks at the agent. Answers the variable that tells the agent what they were.
    pub(super) fn rewrite_probes(&mut self) -> Option<Value> {
        let agent = self.settings.status_port.filter(|_| self.settings.rewrite_probes)?;
        let ports: BTreeMap<String, Ports> = self
            .applications()
            .map(|container| (container.name.clone(), ports(container)))
            .collect();
        let mut probers = json::Object::new();
        let spec = self.spec();
        for key in ["containers", "initContainers"] {
            let Some(Value::Array(containers)) = spec.get_mut(key) else { continue };
            for container in containers {
                let name = json::name(container).to_owned();
                // An init container that ends has neither probes nor hooks.
                let Some(ports) = ports.get(&name).filter(|_| name != PROXY) else { continue };
                for (field, path) in PROBES {
                    let path = format!("/app-health/{name}/{path}");
                    let probe = container.get_mut(field);
                    if let Some(before) =
                        probe.and_then(|probe| redirect(probe, &path, agent, ports))
                    {
                        probers.insert(path, before);
                    }
                }
                for (field, path) in HOOKS {
                    let path = format!("/app-lifecycle/{name}/{path}");
                    let hook =
                        container.get_mut("lifecycle").and_then(|hooks| hooks.get_mut(field));
                    if let Some(before) = hook.and_then(|hook| redirect(hook, &path, agent, ports))
                    {
                        probers.insert(path, before);
                    }
                }
            }
        }
        (!probers.is_empty())
            .then(|| variable("ISTIO_KUBE_APP_PROBERS", Value::Object(probers).to_string()))
    }
}

fn ports(container: &Container) -> Ports {
    let ports = container.ports.iter().flatten();
    ports.filter_map(|port| Some((port.name.clone()?, port.container_port))).collect()
}

/// Points one probe or hook at the agent and answers what the agent is to do; `None` leaves it as it is.
fn redirect(probe: &mut Value, path: &str, agent: u16, ports: &Ports) -> Option<Value> {
    let handler =
        *HANDLERS.iter().find(|handler| probe.get(**handler).is_some_and(Value::is_object))?;
    let mut asked = probe[handler].clone();
    let port = match &asked["port"] {
        Value::String(name) => match name.parse::<u16>() {
            Ok(port) => json!(port),
            Err(_) => json!(ports.get(name)?),
        },
        port => port.clone(),
    };
    // Without a port, or with one that the container does not name, the kubelet says what is wrong. What asks the agent
    // as it is stays: the agent would ask itself for ever.
    if !port.is_u64() || port == json!(agent) {
        return None;
    }
    asked["port"] = port;
    let mut before = json!({});
    before[handler] = asked;
    if let Some(timeout) = probe.get("timeoutSeconds") {
        before["timeoutSeconds"] = timeout.clone();
    }
    let probe = probe.as_object_mut()?;
    probe.remove(handler);
    probe.insert("httpGet".into(), json!({"path": path, "port": agent, "scheme": "HTTP"}));
    Some(before)
}

/// Undoes [`Injection::rewrite_probes`], given the variable's value.
pub(super) fn restore(spec: &mut Value, probers: &str) {
    let Ok(probers) = serde_json::from_str::<json::Object>(probers) else { return };
    for key in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(key) else { continue };
        for container in containers {
            let name = json::name(container).to_owned();
            for (field, path) in PROBES {
                let before = probers.get(&format!("/app-health/{name}/{path}"));
                put_back(container.get_mut(field), before);
            }
            for (field, path) in HOOKS {
                let before = probers.get(&format!("/app-lifecycle/{name}/{path}"));
                put_back(container.get_mut("lifecycle").and_then(|l| l.get_mut(field)), before);
            }
        }
    }
}

fn put_back(probe: Option<&mut Value>, before: Option<&Value>) {
    let (Some(Value::Object(probe)), Some(before)) = (probe, before) else { return };
    for handler in HANDLERS {
        if let Some(asked) = before.get(handler) {
            probe.remove("httpGet");
            probe.insert(handler.into(), asked.clone());
        }
    }
}
