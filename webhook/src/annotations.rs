//! What a pod asks of the injector by annotations, checked: a value that makes no sense refuses the pod.
//!
//! Names are Istio's (`istio-behaviours` 3.2). What has no meaning for Weft's proxy is answered with a warning.

mod capture;
pub(crate) mod names;
mod proxy_config;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub use self::capture::Interception;
use self::names as annotation;
pub(crate) use self::{capture::Capture, proxy_config::ProxyConfig};
use crate::{
    config::{InjectConfig, NativeSidecars, ReadinessConfig, Resources},
    decision::boolean,
    inject::Problem,
    json::Object,
    quantity,
};

/// Which containers a pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// The proxy beside the application, and its capture of traffic.
    Sidecar,
    /// The proxy as the application.
    Gateway,
}

/// A log level of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(pub(crate) String);

impl LogLevel {
    /// Reads Envoy's levels, and directives of Weft's proxy.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let level = match text {
            "trace" | "debug" | "info" | "warn" | "error" | "off" => text,
            "warning" => "warn",
            "critical" => "error",
            directives if is_directives(directives) => directives,
            _ => {
                return Err(format!(
                    "{text:?} is none of trace, debug, info, warning, error, critical, off"
                ));
            }
        };
        Ok(Self(level.to_owned()))
    }
}

/// Whether a text has the form `warn,weft_proxy::net=debug`.
fn is_directives(text: &str) -> bool {
    let level =
        |level: &str| matches!(level, "trace" | "debug" | "info" | "warn" | "error" | "off");
    let target = |target: &str| {
        !target.is_empty()
            && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
    };
    text.split(',').all(|directive| match directive.split_once('=') {
        Some((name, value)) => target(name) && level(value),
        None => level(directive),
    })
}

/// What holds for one pod: the mesh's configuration with the pod's annotations over it.
#[derive(Clone, Debug)]
pub(crate) struct PodSettings {
    pub(crate) template: Template,
    pub(crate) image: String,
    pub(crate) resources: Resources,
    pub(crate) native: bool,
    pub(crate) hold_application: bool,
    pub(crate) capture: Capture,
    pub(crate) rewrite_probes: bool,
    pub(crate) merge_metrics: bool,
    pub(crate) log_level: LogLevel,
    pub(crate) bind_low_ports: bool,
    pub(crate) volumes: Vec<Value>,
    pub(crate) mounts: Vec<Value>,
    /// The agent's port; `None` has the pod ready without asking the proxy.
    pub(crate) status_port: Option<u16>,
    pub(crate) readiness: ReadinessConfig,
    pub(crate) discovery_address: String,
    pub(crate) proxy_config: ProxyConfig,
    /// What the pod's author should know.
    pub(crate) warnings: Vec<String>,
}

impl PodSettings {
    /// Reads a pod's annotations; every one that is wrong is told.
    pub(crate) fn read(
        annotations: &BTreeMap<String, String>,
        config: &InjectConfig,
    ) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { annotations, problems: Vec::new(), warnings: Vec::new() };
        reader.warn_of_what_has_no_effect();
        let proxy_config = reader.proxy_config(config);
        let discovery_address = reader
            .get(annotation::DISCOVERY_ADDRESS)
            .filter(|address| !address.is_empty())
            .or(proxy_config.discovery_address())
            .unwrap_or(&config.discovery_address)
            .to_owned();
        let settings = Self {
            template: reader.template(),
            image: match reader.get(annotation::PROXY_IMAGE) {
                None | Some("") => config.image.clone(),
                Some(image) => image.to_owned(),
            },
            resources: reader.resources(config),
            native: reader
                .boolean(annotation::NATIVE_SIDECAR)
                .unwrap_or(config.native_sidecars != NativeSidecars::Never),
            hold_application: proxy_config
                .hold_application()
                .unwrap_or(config.hold_application_until_proxy_starts),
            capture: reader.capture(config),
            rewrite_probes: reader
                .boolean(annotation::REWRITE_PROBES)
                .unwrap_or(config.rewrite_app_http_probers),
            merge_metrics: reader
                .boolean(annotation::MERGE_METRICS)
                .unwrap_or(config.prometheus_merge),
            log_level: reader
                .parsed(annotation::LOG_LEVEL, LogLevel::parse)
                .or_else(|| LogLevel::parse(&config.log_level).ok())
                .unwrap_or_else(|| LogLevel("info".into())),
            bind_low_ports: reader.boolean(annotation::BIND_LOW_PORTS).unwrap_or(false),
            volumes: reader.named(annotation::USER_VOLUME, &["name"]),
            mounts: reader.named(annotation::USER_VOLUME_MOUNT, &["name", "mountPath"]),
            status_port: reader.status_port(&proxy_config),
            readiness: reader.readiness(config),
            discovery_address,
            proxy_config,
            warnings: std::mem::take(&mut reader.warnings),
        };
        if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
    }
}

/// Reads annotations and notes what is wrong with them.
struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.annotations.get(name).map(|value| value.trim())
    }

    fn problem(&mut self, name: &str, reason: String) {
        self.problems.push(Problem { annotation: name.to_owned(), reason });
    }

    /// The value of an annotation; one that is wrong is noted.
    fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.get(name)?) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.problem(name, reason);
                None
            }
        }
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| {
            boolean(text).ok_or_else(|| format!("{text:?} is neither true nor false"))
        })
    }

    fn number(&mut self, name: &str, least: u32) -> Option<u32> {
        self.parsed(name, |text| match text.parse() {
            Ok(number) if (least..=i32::MAX.unsigned_abs()).contains(&number) => Ok(number),
            _ => Err(format!("{text:?} is not a whole number of at least {least}")),
        })
    }

    fn warn_of_what_has_no_effect(&mut self) {
        for name in annotation::WITHOUT_EFFECT {
            if self.annotations.contains_key(*name) {
                self.warnings.push(format!("{name}: has no effect in Weft"));
            }
        }
        self.parsed(annotation::PROXY_IMAGE_TYPE, |text| match text {
            "" | "default" | "distroless" | "debug" => Ok(()),
            _ => Err(format!("{text:?} is none of default, distroless, debug")),
        });
        if self.get(annotation::PROXY_IMAGE_TYPE) == Some("debug") {
            let name = annotation::PROXY_IMAGE_TYPE;
            self.warnings.push(format!("{name}: Weft has one image; debug is the same"));
        }
    }

    fn template(&mut self) -> Template {
        let parse = |text: &str| {
            let mut template = None;
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let named = match name {
                    "sidecar" => Template::Sidecar,
                    "gateway" => Template::Gateway,
                    _ => {
                        return Err(format!(
                            "there is no template {name:?}; there are sidecar and gateway"
                        ));
                    }
                };
                if template.is_some_and(|template| template != named) {
                    return Err("sidecar and gateway do not go together".to_owned());
                }
                template = Some(named);
            }
            Ok(template)
        };
        self.parsed(annotation::TEMPLATES, parse).flatten().unwrap_or(Template::Sidecar)
    }

    fn resources(&mut self, config: &InjectConfig) -> Resources {
        let amounts = [
            (annotation::PROXY_CPU, "cpu", false),
            (annotation::PROXY_MEMORY, "memory", false),
            (annotation::PROXY_CPU_LIMIT, "cpu", true),
            (annotation::PROXY_MEMORY_LIMIT, "memory", true),
        ];
        if !amounts.iter().any(|(name, ..)| self.annotations.contains_key(*name)) {
            return config.resources.clone();
        }
        let mut resources = Resources::none();
        for (name, resource, limit) in amounts {
            let amount = self.parsed(name, |text| quantity::check(text).map(|()| text.to_owned()));
            if let Some(amount) = amount {
                let list = if limit { &mut resources.limits } else { &mut resources.requests };
                list.insert(resource.to_owned(), amount);
            }
        }
        for (name, resource, _) in &amounts[..2] {
            let (Some(request), Some(limit)) =
                (resources.requests.get(*resource), resources.limits.get(*resource))
            else {
                continue;
            };
            if quantity::parse(request) > quantity::parse(limit) {
                self.problem(name, format!("{request} is above {name}Limit, {limit}"));
            }
        }
        resources
    }

    fn capture(&mut self, config: &InjectConfig) -> Capture {
        let (capture, problems) = Capture::read(config, |name| self.get(name));
        for (name, reason) in problems {
            self.problem(name, reason);
        }
        capture
    }

    fn proxy_config(&mut self, config: &InjectConfig) -> ProxyConfig {
        let read = self.parsed(annotation::PROXY_CONFIG, |text| {
            ProxyConfig::merged(&config.default_config, text)
        });
        let proxy_config =
            read.unwrap_or_else(|| ProxyConfig::unchecked(config.default_config.clone()));
        if self.annotations.contains_key(annotation::PROXY_CONFIG) {
            self.warnings.extend(proxy_config.without_effect(&config.default_config).map(
                |field| format!("{}: {field} has no effect in Weft", annotation::PROXY_CONFIG),
            ));
        }
        proxy_config
    }

    fn status_port(&mut self, proxy_config: &ProxyConfig) -> Option<u16> {
        let annotated = self.parsed(annotation::STATUS_PORT, |text| {
            text.parse::<u16>().map_err(|_| format!("{text:?} is not a port, or 0 for none"))
        });
        let port = annotated.or(proxy_config.status_port()).unwrap_or(15020);
        (port != 0).then_some(port)
    }

    fn readiness(&mut self, config: &InjectConfig) -> ReadinessConfig {
        let base = config.readiness_probe;
        ReadinessConfig {
            initial_delay_seconds: self
                .number(annotation::READINESS_INITIAL_DELAY, 0)
                .unwrap_or(base.initial_delay_seconds),
            period_seconds: self
                .number(annotation::READINESS_PERIOD, 1)
                .unwrap_or(base.period_seconds),
            failure_threshold: self
                .number(annotation::READINESS_FAILURES, 1)
                .unwrap_or(base.failure_threshold),
        }
    }

    /// Volumes or mounts: a list of them, or an object of them by name.
    fn named(&mut self, annotation: &str, required: &[&str]) -> Vec<Value> {
        self.parsed(annotation, |text| named_objects(text, required)).unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NamedObjects {
    List(Vec<Object>),
    ByName(BTreeMap<String, Object>),
}

fn named_objects(text: &str, required: &[&str]) -> Result<Vec<Value>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let objects = match serde_json::from_str(text) {
        Ok(NamedObjects::List(list)) => list,
        Ok(NamedObjects::ByName(objects)) => objects
            .into_iter()
            .map(|(name, mut object)| {
                object.insert("name".into(), name.into());
                object
            })
            .collect(),
        Err(_) => return Err("is not a JSON list, or a JSON object by name".to_owned()),
    };
    for object in &objects {
        for key in required {
            let there =
                object.get(*key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
            if !there {
                return Err(format!("an entry has no {key}"));
            }
        }
    }
    Ok(objects.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
mod tests;
