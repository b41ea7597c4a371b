//! The proxy's container.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::{Injection, PROXY, variable};
use crate::{
    annotations::{Interception, Template},
    json,
};

/// Where the image has the program.
const PROGRAM: &str = "/usr/local/bin/weft-proxy";

impl Injection<'_> {
    /// The container, with variables that other parts of the injection add.
    pub(super) fn proxy_container(&self, more: Vec<Value>) -> Value {
        let settings = &self.settings;
        let command = match settings.template {
            Template::Sidecar => "sidecar",
            Template::Gateway => "router",
        };
        let mut environment = self.environment();
        environment.extend(more);
        let mut container = json!({
            "name": PROXY,
            "image": settings.image,
            "imagePullPolicy": self.config.image_pull_policy,
            "args": [command],
            "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
            "env": environment,
            "resources": settings.resources,
            "securityContext": self.security_context(),
            "volumeMounts": self.mounts(),
        });
        self.add_seccomp(&mut container);
        self.add_probes(&mut container);
        let exec = |command: &str| json!({"exec": {"command": [PROGRAM, command]}});
        if self.is_native() {
            container["restartPolicy"] = json!("Always");
            container["lifecycle"] = json!({"preStop": exec("drain")});
        } else if settings.hold_application && settings.template == Template::Sidecar {
            container["lifecycle"] = json!({"postStart": exec("wait")});
        }
        container
    }

    fn security_context(&self) -> Value {
        let low_ports = self.settings.bind_low_ports;
        let mut context = json!({
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": 1337,
            "runAsNonRoot": !low_ports,
            "runAsUser": if low_ports { 0 } else { 1337 },
        });
        if low_ports {
            context["capabilities"]["add"] = json!(["NET_BIND_SERVICE"]);
        }
        context
    }

    fn add_probes(&self, container: &mut Value) {
        if self.settings.status_port.is_none() {
            return;
        }
        let ready = json!({"path": "/healthz/ready", "port": 15021});
        let readiness = &self.settings.readiness;
        container["startupProbe"] = json!({
            "httpGet": ready,
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": self.config.startup_seconds,
        });
        container["readinessProbe"] = json!({
            "httpGet": ready,
            "initialDelaySeconds": readiness.initial_delay_seconds,
            "periodSeconds": readiness.period_seconds,
            "timeoutSeconds": 3,
            "failureThreshold": readiness.failure_threshold,
        });
    }

    fn environment(&self) -> Vec<Value> {
        let (settings, config) = (&self.settings, self.config);
        let discovery = settings.discovery_address.as_str();
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
        let interception = match settings.template {
            Template::Sidecar => settings.capture.mode,
            // Nothing is captured: it has the proxy listen on all addresses of the pod.
            Template::Gateway => Interception::Redirect,
        };
        let mesh_id = Some(config.mesh_id.as_str()).filter(|id| !id.is_empty());
        let mut environment = vec![
            variable("CA_ADDR", discovery),
            variable("DISCOVERY_ADDRESS", discovery),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
            variable("PROXY_CONFIG", settings.proxy_config.to_json(discovery)),
            variable("TRUST_DOMAIN", &config.trust_domain),
            variable("ISTIO_META_POD_PORTS", self.pod_ports()),
            variable("ISTIO_META_APP_CONTAINERS", self.application_names().join(",")),
            variable("ISTIO_META_CLUSTER_ID", &config.cluster_id),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
            variable("ISTIO_META_INTERCEPTION_MODE", interception.as_str()),
            variable("ISTIO_META_WORKLOAD_NAME", &self.owner.name),
            variable("ISTIO_META_OWNER", self.owner.uri(self.namespace)),
            variable("ISTIO_META_MESH_ID", mesh_id.unwrap_or(&config.trust_domain)),
        ];
        if settings.resources.limits.contains_key("cpu") {
            // Without a limit Kubernetes would say all that the node has, and the proxy would take a thread for each.
            environment.push(json!({
                "name": "ISTIO_CPU_LIMIT",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}},
            }));
        }
        if !config.network.is_empty() {
            environment.push(variable("ISTIO_META_NETWORK", &config.network));
        }
        environment.push(variable("WEFT_LOG_LEVEL", &settings.log_level.0));
        if config.log_as_json {
            environment.push(variable("WEFT_LOG_FORMAT", "json"));
        }
        if config.cluster_domain != "cluster.local" {
            environment.push(variable("WEFT_DOMAIN", &config.cluster_domain));
        }
        if let Some(port) = settings.status_port.filter(|port| *port != 15020) {
            environment.push(variable("WEFT_STATUS_PORT", port.to_string()));
        }
        for (name, value) in settings.proxy_config.environment() {
            // A variable that is there twice is the later one: what says who the proxy is stays.
            if environment.iter().all(|variable| json::name(variable) != name) {
                environment.push(variable(&name, value));
            }
        }
        environment
    }

    /// The application's containers, native sidecars among them.
    pub(super) fn applications(&self) -> impl Iterator<Item = &Container> {
        let spec = self.typed.spec.as_ref();
        let containers = spec.into_iter().flat_map(|spec| &spec.containers);
        let sidecars = spec
            .and_then(|spec| spec.init_containers.as_deref())
            .unwrap_or_default()
            .iter()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        containers.chain(sidecars).filter(|container| container.name != PROXY)
    }

    fn application_names(&self) -> Vec<&str> {
        self.applications().map(|container| container.name.as_str()).collect()
    }

    /// The ports that the application's containers name.
    fn pod_ports(&self) -> String {
        let ports = self.applications().flat_map(|container| container.ports.iter().flatten());
        let ports = ports.map(|port| {
            let mut described = json!({"containerPort": port.container_port});
            if let Some(name) = &port.name {
                described["name"] = json!(name);
            }
            described["protocol"] = json!(port.protocol.as_deref().unwrap_or("TCP"));
            described
        });
        Value::Array(ports.collect()).to_string()
    }
}
