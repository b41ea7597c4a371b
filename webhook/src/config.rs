//! What the injector writes into pods, as the mesh's administrator set it.
//!
//! From the ConfigMap `weft`: key `values` is [`InjectConfig`] as JSON, key `mesh` Istio's MeshConfig, whose fields win where
//! both speak of the same thing. `{}` and nothing are the defaults.

mod salvage;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    annotations::{Capture, Interception, LogLevel, ProxyConfig},
    json::{self, Object},
    quantity,
    selector::Selector,
};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The key `values` is not JSON of the right shape.
    #[error("values: {0}")]
    Values(serde_json::Error),
    /// The key `mesh` is not YAML.
    #[error("mesh: {0}")]
    Mesh(String),
    /// A field's value makes no sense.
    #[error("{field}: {reason}")]
    Field {
        /// The field, with the key that it is in.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The injector's configuration: the JSON of the key `values`. Every field may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InjectConfig {
    /// The name of this injector, written as annotation `istio.io/rev`. `default`.
    pub revision: String,
    /// Whether pods that say nothing themselves are injected where the webhook is called. `enabled`.
    pub policy: Injection,
    /// Pods that are never injected, unless they ask for it by label. None.
    pub never_inject_selector: Vec<Selector>,
    /// Pods that are injected whatever the policy, unless they refuse by label. None.
    pub always_inject_selector: Vec<Selector>,
    /// Whether Istio's labels of namespaces ask for this injector. `false` while Istio itself injects in the same cluster: its
    /// root certificates stay where only its labels are. Which pods come here is the webhook configuration's affair. `true`.
    pub istio_labels: bool,
    /// Namespaces in which nothing is injected. `kube-system`, `kube-public`, `kube-node-lease`, `local-path-storage`.
    pub ignored_namespaces: Vec<String>,

    /// The proxy's image. `docker.io/weft/proxy:dev`.
    pub image: String,
    /// When the image is pulled. `IfNotPresent`.
    pub image_pull_policy: PullPolicy,
    /// Names of Secrets to pull the image with, added to the pod's. None.
    pub image_pull_secrets: Vec<String>,
    /// The proxy's resources. 10m CPU and 32Mi requested, 256Mi at most.
    pub resources: Resources,
    /// Whether the proxy is a native sidecar (an init container that keeps running; Kubernetes 1.29 and later). `auto` is `true`.
    pub native_sidecars: NativeSidecars,
    /// Whether the application's containers wait until the proxy is ready. A native sidecar always holds them. `false`.
    pub hold_application_until_proxy_starts: bool,
    /// Seccomp profile of the injected containers; empty for none. `RuntimeDefault`.
    pub seccomp_profile: String,
    /// When the proxy is ready.
    pub readiness_probe: ReadinessConfig,
    /// Seconds that the proxy may take to start. 600.
    pub startup_seconds: u32,
    /// What the proxy logs: trace, debug, info, warning, error, critical, off, or directives of its own. `info`.
    pub log_level: String,
    /// Whether the proxy logs JSON. `false`.
    pub log_as_json: bool,

    /// Where the proxy gets configuration and certificates. `weft-operator.weft-system.svc:15012`.
    pub discovery_address: String,
    /// The trust domain of identities; MeshConfig's `trustDomain` wins. `cluster.local`.
    pub trust_domain: String,
    /// The domain of Kubernetes' services. `cluster.local`.
    pub cluster_domain: String,
    /// The Kubernetes cluster's name. `Kubernetes`.
    pub cluster_id: String,
    /// The mesh's name; empty for the trust domain.
    pub mesh_id: String,
    /// The name of the network that pods are in; empty for none.
    pub network: String,

    /// How traffic is captured: `REDIRECT`, or `NONE`.
    pub interception_mode: Interception,
    /// Outbound destinations that are captured: `*` or CIDRs, separated by commas. `*`.
    #[serde(rename = "includeOutboundIPRanges")]
    pub include_outbound_ip_ranges: String,
    /// Outbound destinations that are not captured: CIDRs. None.
    #[serde(rename = "excludeOutboundIPRanges")]
    pub exclude_outbound_ip_ranges: String,
    /// Outbound ports that are captured whatever the address: `*` or ports. None.
    #[serde(deserialize_with = "wire::text")]
    pub include_outbound_ports: String,
    /// Outbound ports that are not captured. None.
    #[serde(deserialize_with = "wire::text")]
    pub exclude_outbound_ports: String,
    /// Inbound ports that are captured: `*`, ports, or nothing. `*`.
    #[serde(deserialize_with = "wire::text")]
    pub include_inbound_ports: String,
    /// Inbound ports that are not captured, beside the proxy's own. None.
    #[serde(deserialize_with = "wire::text")]
    pub exclude_inbound_ports: String,
    /// Interfaces whose traffic is not captured. None.
    pub exclude_interfaces: String,

    /// Whether the application's probes go through the proxy, so that they work where mutual TLS is demanded. `true`.
    #[serde(rename = "rewriteAppHTTPProbers")]
    pub rewrite_app_http_probers: bool,
    /// Whether the application's metrics are offered together with the proxy's; MeshConfig's `enablePrometheusMerge` wins. `true`.
    pub prometheus_merge: bool,
    /// Istio's ProxyConfig for every proxy; MeshConfig's `defaultConfig` is merged over it.
    pub default_config: Object,
    /// Labels that every injected pod gets, unless it has them. None.
    pub injected_labels: BTreeMap<String, String>,
    /// Annotations that every injected pod gets, unless it has them. None.
    pub injected_annotations: BTreeMap<String, String>,
}

/// Whether pods that say nothing are injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Injection {
    /// They are.
    #[default]
    Enabled,
    /// They are not.
    Disabled,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// When the node has none.
    #[default]
    IfNotPresent,
    /// Whenever a container starts.
    Always,
    /// Never.
    Never,
}

/// Requests and limits, by the names that Kubernetes gives resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// What is set aside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "wire::texts")]
    pub requests: BTreeMap<String, String>,
    /// What is the most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "wire::texts")]
    pub limits: BTreeMap<String, String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            requests: [("cpu", "10m"), ("memory", "32Mi")].map(own).into(),
            limits: [("memory", "256Mi")].map(own).into(),
        }
    }
}

/// Whether the proxy is a native sidecar: `auto`, `true` or `false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "wire::Native", into = "wire::Native")]
pub enum NativeSidecars {
    /// What Weft thinks best: yes.
    #[default]
    Auto,
    /// Yes: needs Kubernetes 1.29.
    Always,
    /// No: a container beside the application's.
    Never,
}

/// The proxy's readiness probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ReadinessConfig {
    /// Seconds before the first probe. 0.
    pub initial_delay_seconds: u32,
    /// Seconds between probes. 15.
    pub period_seconds: u32,
    /// Failures after which the pod is not ready. 4.
    pub failure_threshold: u32,
}

impl Default for ReadinessConfig {
    fn default() -> Self {
        Self { initial_delay_seconds: 0, period_seconds: 15, failure_threshold: 4 }
    }
}

impl Default for InjectConfig {
    fn default() -> Self {
        let ignored = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
        Self {
            revision: "default".into(),
            policy: Injection::Enabled,
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
            istio_labels: true,
            ignored_namespaces: ignored.map(Into::into).to_vec(),
            image: "docker.io/weft/proxy:dev".into(),
            image_pull_policy: PullPolicy::default(),
            image_pull_secrets: Vec::new(),
            resources: Resources::default(),
            native_sidecars: NativeSidecars::Auto,
            hold_application_until_proxy_starts: false,
            seccomp_profile: "RuntimeDefault".into(),
            readiness_probe: ReadinessConfig::default(),
            startup_seconds: 600,
            log_level: "info".into(),
            log_as_json: false,
            discovery_address: "weft-operator.weft-system.svc:15012".into(),
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            mesh_id: String::new(),
            network: String::new(),
            interception_mode: Interception::Redirect,
            include_outbound_ip_ranges: "*".into(),
            exclude_outbound_ip_ranges: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            include_inbound_ports: "*".into(),
            exclude_inbound_ports: String::new(),
            exclude_interfaces: String::new(),
            rewrite_app_http_probers: true,
            prometheus_merge: true,
            default_config: Object::new(),
            injected_labels: BTreeMap::new(),
            injected_annotations: BTreeMap::new(),
        }
    }
}

impl InjectConfig {
    /// Reads the ConfigMap's keys: `values` as JSON and `mesh` as YAML; an empty text is a key that is not there.
    ///
    /// # Errors
    /// When a text cannot be read, or a value could not be written into a pod.
    pub fn read(values: &str, mesh: &str) -> Result<Self, ConfigError> {
        let mut config: Self = match values.trim() {
            "" => Self::default(),
            // By way of an object: a list would be taken for the fields in their order.
            values => serde_json::from_str::<Object>(values)
                .and_then(|fields| serde_json::from_value(fields.into()))
                .map_err(ConfigError::Values)?,
        };
        config.merge_mesh(&read_mesh(mesh)?.into())?;
        config.check()?;
        Ok(config)
    }

    /// Takes what the mesh's configuration says.
    fn merge_mesh(&mut self, mesh: &Value) -> Result<(), ConfigError> {
        if let Some(domain) = json::text(mesh, "trustDomain").filter(|domain| !domain.is_empty()) {
            self.trust_domain = domain.into();
        }
        if let Some(merge) = mesh.get("enablePrometheusMerge").and_then(Value::as_bool) {
            self.prometheus_merge = merge;
        }
        match mesh.get("defaultConfig") {
            None | Some(Value::Null) => {}
            Some(Value::Object(config)) => {
                let mut base = Value::Object(std::mem::take(&mut self.default_config));
                json::merge(&mut base, Value::Object(config.clone()));
                if let Value::Object(merged) = base {
                    self.default_config = merged;
                }
            }
            Some(_) => return Err(field("mesh: defaultConfig", "is not an object".into())),
        }
        Ok(())
    }

    /// Whether everything in it can be written into a pod.
    fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in [
            ("image", &self.image),
            ("discoveryAddress", &self.discovery_address),
            ("trustDomain", &self.trust_domain),
            ("clusterDomain", &self.cluster_domain),
            ("revision", &self.revision),
        ] {
            if value.is_empty() {
                return Err(field(name, "must not be empty".into()));
            }
        }
        if self.startup_seconds == 0 {
            return Err(field("startupSeconds", "must be at least 1".into()));
        }
        if self.readiness_probe.period_seconds == 0 || self.readiness_probe.failure_threshold == 0 {
            let reason = "periodSeconds and failureThreshold must be at least 1".into();
            return Err(field("readinessProbe", reason));
        }
        self.resources.check().map_err(|reason| field("resources", reason))?;
        LogLevel::parse(&self.log_level).map_err(|reason| field("logLevel", reason))?;
        Capture::of(self).map_err(|(name, reason)| field(name, reason))?;
        ProxyConfig::read(self.default_config.clone())
            .map_err(|(name, reason)| field(&format!("defaultConfig.{name}"), reason))?;
        Ok(())
    }
}

/// The fields of the key `mesh`.
fn read_mesh(text: &str) -> Result<Object, ConfigError> {
    if text.trim().is_empty() {
        return Ok(Object::new());
    }
    match serde_saphyr::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Object::new()),
        Ok(_) => Err(ConfigError::Mesh("is not an object".to_owned())),
        Err(error) => Err(ConfigError::Mesh(error.to_string())),
    }
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn field(field: &str, reason: String) -> ConfigError {
    ConfigError::Field { field: field.to_owned(), reason }
}

impl Resources {
    /// Nothing requested, nothing limited.
    pub(crate) fn none() -> Self {
        Self { requests: BTreeMap::new(), limits: BTreeMap::new() }
    }

    /// Quantities everywhere, and no request above its limit.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (list, amounts) in [("requests", &self.requests), ("limits", &self.limits)] {
            for (name, amount) in amounts {
                quantity::check(amount).map_err(|reason| format!("{list}.{name}: {reason}"))?;
            }
        }
        for (name, request) in &self.requests {
            if let Some(limit) = self.limits.get(name)
                && quantity::parse(request) > quantity::parse(limit)
            {
                return Err(format!("{name}: the request {request} is above the limit {limit}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
