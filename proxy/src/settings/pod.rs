//! What the injector writes into a pod: the environment of the proxy's container, under Istio's names, and files.
//!
//! Read once at the start. `PROXY_CONFIG` is Istio's ProxyConfig as JSON; what of it means nothing here is passed over.

use std::{collections::BTreeMap, net::IpAddr, path::Path, time::Duration};

use serde::Deserialize;
use weft_api::node::Interception;

use super::{SettingsError, duration::parse_duration};

/// The token of the pod's service account, for the mesh's authority.
const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
/// The root that the control plane's certificate is checked against.
const ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
/// The pod's labels (downward API).
const LABELS: &str = "/etc/istio/pod/labels";
/// Where the control plane is when nothing says so.
const CONTROL_PLANE: &str = "weft-operator.weft-system.svc:15012";
/// How long a pod that stops takes new connections: until others know that it is gone.
const TERMINATION_DRAIN: Duration = Duration::from_secs(5);

/// The proxy's surroundings in a pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `POD_NAME`.
    pub name: String,
    /// `POD_NAMESPACE`.
    pub namespace: String,
    /// `SERVICE_ACCOUNT`.
    pub service_account: String,
    /// `INSTANCE_IP`.
    pub address: IpAddr,
    /// `CA_ADDR`, else `DISCOVERY_ADDRESS`, else the proxy configuration's `discoveryAddress`.
    pub control_plane: String,
    /// `ISTIO_META_WORKLOAD_NAME`.
    pub workload_name: Option<String>,
    /// `ISTIO_META_CLUSTER_ID`.
    pub cluster_id: Option<String>,
    /// `ISTIO_META_INTERCEPTION_MODE`.
    pub interception: Interception,
    /// The labels file.
    pub labels: BTreeMap<String, String>,
    /// Data threads: the proxy configuration's `concurrency`, else `ISTIO_CPU_LIMIT`.
    pub concurrency: Option<usize>,
    /// The proxy configuration's `drainDuration`.
    pub drain_duration: Option<Duration>,
    /// The proxy configuration's `terminationDrainDuration`, or `TERMINATION_DRAIN_DURATION_SECONDS`.
    pub termination_drain: Duration,
    /// `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`: at its end the proxy waits for its connections, however long that takes.
    pub exit_on_zero_connections: bool,
    /// `ISTIO_KUBE_APP_PROBERS`, as it came.
    pub probers: Option<String>,
    /// `ISTIO_PROMETHEUS_ANNOTATIONS`, as it came.
    pub scrape: Option<String>,
}

/// Istio's ProxyConfig, as far as it counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    discovery_address: Option<String>,
    concurrency: Option<usize>,
    drain_duration: Option<String>,
    termination_drain_duration: Option<String>,
    proxy_metadata: BTreeMap<String, String>,
}

impl Pod {
    /// Reads the surroundings; `None` outside of Kubernetes (no `POD_NAME`).
    ///
    /// # Errors
    /// Something is missing or not valid, by name.
    pub fn read(
        environment: impl Fn(&str) -> Option<String>,
        read_file: impl Fn(&Path) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let optional = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let Some(name) = optional("POD_NAME") else { return Ok(None) };
        let required = |name: &'static str| {
            optional(name).ok_or(SettingsError::Environment {
                name,
                problem: "is not set, and POD_NAME is".into(),
            })
        };
        let invalid =
            |name: &'static str, problem: String| SettingsError::Environment { name, problem };
        let config: ProxyConfig = match optional("PROXY_CONFIG") {
            Some(json) => serde_json::from_str(&json)
                .map_err(|error| invalid("PROXY_CONFIG", format!("is no ProxyConfig: {error}")))?,
            None => ProxyConfig::default(),
        };
        // The injector writes the metadata into the environment too; a process started by hand may have only one of them.
        let setting =
            |name: &str| optional(name).or_else(|| config.proxy_metadata.get(name).cloned());
        let duration = |field: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(parse_duration).transpose();
            parsed.map_err(|error| invalid("PROXY_CONFIG", format!("field {field}: {error}")))
        };
        let address = required("INSTANCE_IP")?;
        let interception = match optional("ISTIO_META_INTERCEPTION_MODE").as_deref() {
            None | Some("REDIRECT") => Interception::Redirect,
            Some("NONE") => Interception::None,
            Some(other) => {
                let problem = format!("is {other:?}, not REDIRECT or NONE");
                return Err(invalid("ISTIO_META_INTERCEPTION_MODE", problem));
            }
        };
        let whole_seconds = |name: &'static str| match setting(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse() {
                Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
                Err(_) => Err(invalid(name, format!("is {text:?}, not a number of seconds"))),
            },
        };
        let limit = optional("ISTIO_CPU_LIMIT").and_then(|cores| cores.trim().parse().ok());
        Ok(Some(Self {
            name,
            namespace: required("POD_NAMESPACE")?,
            service_account: required("SERVICE_ACCOUNT")?,
            address: address.split(',').next().unwrap_or_default().trim().parse().map_err(
                |_| invalid("INSTANCE_IP", format!("is {address:?}, not an IP address")),
            )?,
            control_plane: optional("CA_ADDR")
                .or_else(|| optional("DISCOVERY_ADDRESS"))
                .or(config.discovery_address.clone())
                .unwrap_or_else(|| CONTROL_PLANE.to_owned()),
            workload_name: optional("ISTIO_META_WORKLOAD_NAME"),
            cluster_id: optional("ISTIO_META_CLUSTER_ID"),
            interception,
            labels: read_file(Path::new(LABELS)).map(|text| labels(&text)).unwrap_or_default(),
            concurrency: config.concurrency.filter(|threads| *threads > 0).or(limit),
            drain_duration: duration("drainDuration", &config.drain_duration)?,
            termination_drain: match whole_seconds("TERMINATION_DRAIN_DURATION_SECONDS")? {
                Some(seconds) => seconds,
                None => duration("terminationDrainDuration", &config.termination_drain_duration)?
                    .unwrap_or(TERMINATION_DRAIN),
            },
            exit_on_zero_connections: setting("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")
                .is_some_and(|value| value.trim().eq_ignore_ascii_case("true")),
            probers: optional("ISTIO_KUBE_APP_PROBERS"),
            scrape: optional("ISTIO_PROMETHEUS_ANNOTATIONS"),
        }))
    }

    /// Where the token is.
    pub fn token_file() -> &'static Path {
        Path::new(TOKEN)
    }

    /// Where the root is.
    pub fn root_file() -> &'static Path {
        Path::new(ROOT)
    }
}

/// Lines `key="value"`, values quoted as Go quotes; a line of another shape is passed over.
fn labels(text: &str) -> BTreeMap<String, String> {
    let unquoted = |value: &str| {
        // Values of labels have no characters that Go writes otherwise than JSON does.
        serde_json::from_str::<String>(value).unwrap_or_else(|_| value.trim_matches('"').to_owned())
    };
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), unquoted(value.trim())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<Option<Pod>, SettingsError> {
        let mut environment: BTreeMap<&str, &str> = [
            ("POD_NAME", "order-0"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "order"),
            ("INSTANCE_IP", "10.1.2.3"),
        ]
        .into();
        environment.extend(more.iter().copied());
        let file = "app=\"order\"\nversion=\"v1\"\n\nno line\n";
        Pod::read(
            |name| environment.get(name).map(|value| (*value).to_owned()),
            |path| (path == Path::new(LABELS)).then(|| file.to_owned()),
        )
    }

    #[test]
    fn a_pod_that_says_the_least_has_defaults() {
        let pod = read(&[]).unwrap().unwrap();
        assert_eq!(
            pod,
            Pod {
                name: "order-0".into(),
                namespace: "shop".into(),
                service_account: "order".into(),
                address: "10.1.2.3".parse().unwrap(),
                control_plane: "weft-operator.weft-system.svc:15012".into(),
                workload_name: None,
                cluster_id: None,
                interception: Interception::Redirect,
                labels: [("app".into(), "order".into()), ("version".into(), "v1".into())].into(),
                concurrency: None,
                drain_duration: None,
                termination_drain: Duration::from_secs(5),
                exit_on_zero_connections: false,
                probers: None,
                scrape: None,
            }
        );
        assert_eq!(read(&[("POD_NAME", "")]), Ok(None));
    }

    #[test]
    fn the_proxy_configuration_counts() {
        let config = r#"{"concurrency": 3, "drainDuration": "10s", "terminationDrainDuration": "1m30s",
            "discoveryAddress": "elsewhere:1", "tracing": {"x": 1}, "proxyMetadata": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}}"#;
        let pod = read(&[("PROXY_CONFIG", config), ("ISTIO_CPU_LIMIT", "8")]).unwrap().unwrap();
        assert_eq!(pod.concurrency, Some(3));
        assert_eq!(pod.drain_duration, Some(Duration::from_secs(10)));
        assert_eq!(pod.termination_drain, Duration::from_secs(90));
        assert_eq!(pod.control_plane, "elsewhere:1");
        assert!(pod.exit_on_zero_connections);
        let pod = read(&[("ISTIO_CPU_LIMIT", "8"), ("CA_ADDR", "here:2")]).unwrap().unwrap();
        assert_eq!((pod.concurrency, &*pod.control_plane), (Some(8), "here:2"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value, told) in [
            ("INSTANCE_IP", "ten", "INSTANCE_IP is \"ten\", not an IP address"),
            ("POD_NAMESPACE", "", "POD_NAMESPACE is not set, and POD_NAME is"),
            ("PROXY_CONFIG", "{", "PROXY_CONFIG is no ProxyConfig: "),
            (
                "PROXY_CONFIG",
                r#"{"drainDuration": "1"}"#,
                "PROXY_CONFIG field drainDuration: \"1\" is not a duration",
            ),
            ("ISTIO_META_INTERCEPTION_MODE", "TPROXY", "is \"TPROXY\", not REDIRECT or NONE"),
            ("TERMINATION_DRAIN_DURATION_SECONDS", "5s", "is \"5s\", not a number of seconds"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
