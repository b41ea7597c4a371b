//! The mesh's settings as Istio's MeshConfig writes them (`istio-behaviours` 1.8).
//!
//! Read from the key `mesh` of the ConfigMap `istio`, or from a file of the operator's. Fields that Weft does not know or
//! that have no effect in it are named in warnings, never an error: the same ConfigMap serves other versions.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;
use weft_core::mesh::{AccessLogEncoding, MeshConfig, OutboundTrafficPolicy, PathNormalization};
use weft_crds::{Duration, FieldError};

/// Why a text is not a MeshConfig.
#[derive(Debug, thiserror::Error)]
pub enum MeshConfigError {
    /// It is not YAML, or a field has the wrong type.
    #[error("not a MeshConfig")]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// A field's value makes no sense.
    #[error("{path}: {reason}")]
    Value {
        /// The field.
        path: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    trust_domain: Option<String>,
    trust_domain_aliases: Option<Vec<String>>,
    root_namespace: Option<String>,
    enable_auto_mtls: Option<bool>,
    outbound_traffic_policy: Option<OutboundTrafficPolicyWire>,
    connect_timeout: Option<Duration>,
    protocol_detection_timeout: Option<Duration>,
    access_log_file: Option<String>,
    access_log_encoding: Option<String>,
    path_normalization: Option<PathNormalizationWire>,
    proxy_http_port: Option<u16>,
    default_config: Option<ProxyConfigWire>,
    default_service_export_to: Option<Vec<String>>,
    default_virtual_service_export_to: Option<Vec<String>>,
    default_destination_rule_export_to: Option<Vec<String>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct OutboundTrafficPolicyWire {
    mode: Option<String>,
}

#[derive(Deserialize)]
struct PathNormalizationWire {
    normalization: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProxyConfigWire {
    drain_duration: Option<Duration>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// Reads settings over those that hold where the text says nothing; also answers what has no effect.
pub fn parse(
    yaml: &str,
    base: &MeshConfig,
) -> Result<(MeshConfig, Vec<FieldError>), MeshConfigError> {
    let wire = serde_saphyr::from_str::<Option<Wire>>(yaml)
        .map_err(|error| MeshConfigError::Syntax(Box::new(error)))?;
    let (mut mesh, mut warnings) = (base.clone(), Vec::new());
    let Some(wire) = wire else { return Ok((mesh, warnings)) };
    fn text(field: &mut Arc<str>, value: Option<String>) {
        if let Some(value) = value {
            *field = value.into();
        }
    }
    fn texts(field: &mut Vec<Arc<str>>, values: Option<Vec<String>>) {
        if let Some(values) = values {
            *field = values.into_iter().map(Into::into).collect();
        }
    }
    text(&mut mesh.trust_domain, wire.trust_domain.filter(|domain| !domain.is_empty()));
    text(&mut mesh.root_namespace, wire.root_namespace.filter(|name| !name.is_empty()));
    text(&mut mesh.access_log_file, wire.access_log_file);
    texts(&mut mesh.trust_domain_aliases, wire.trust_domain_aliases);
    texts(&mut mesh.default_service_export_to, wire.default_service_export_to);
    texts(&mut mesh.default_virtual_service_export_to, wire.default_virtual_service_export_to);
    texts(&mut mesh.default_destination_rule_export_to, wire.default_destination_rule_export_to);
    mesh.enable_auto_mtls = wire.enable_auto_mtls.unwrap_or(mesh.enable_auto_mtls);
    mesh.proxy_http_port = wire.proxy_http_port.unwrap_or(mesh.proxy_http_port);
    mesh.connect_timeout = wire.connect_timeout.map_or(mesh.connect_timeout, Into::into);
    mesh.protocol_detection_timeout =
        wire.protocol_detection_timeout.map_or(mesh.protocol_detection_timeout, Into::into);
    if mesh.connect_timeout.is_zero() {
        return Err(wrong("connectTimeout", "it must be greater than zero".to_owned()));
    }
    if let Some(encoding) = wire.access_log_encoding {
        mesh.access_log_encoding = access_log_encoding(&encoding)?;
    }
    if let Some(mode) = wire.outbound_traffic_policy.and_then(|policy| policy.mode) {
        mesh.outbound_traffic_policy = outbound_traffic_policy(&mode, &mut warnings)?;
    }
    if let Some(value) = wire.path_normalization.and_then(|policy| policy.normalization) {
        mesh.path_normalization = path_normalization(&value)?;
    }
    if let Some(proxy) = wire.default_config {
        mesh.drain_duration = proxy.drain_duration.map_or(mesh.drain_duration, Into::into);
        warnings.extend(proxy.unknown.keys().map(|key| no_effect(&format!("defaultConfig.{key}"))));
    }
    warnings.extend(wire.unknown.keys().map(|key| no_effect(key)));
    Ok((mesh, warnings))
}

fn no_effect(path: &str) -> FieldError {
    FieldError { path: path.to_owned(), reason: "has no effect".to_owned() }
}

fn wrong(path: &'static str, reason: String) -> MeshConfigError {
    MeshConfigError::Value { path, reason }
}

fn access_log_encoding(value: &str) -> Result<AccessLogEncoding, MeshConfigError> {
    match value {
        "TEXT" => Ok(AccessLogEncoding::Text),
        "JSON" => Ok(AccessLogEncoding::Json),
        _ => Err(wrong("accessLogEncoding", format!("{value:?} is neither TEXT nor JSON"))),
    }
}

fn outbound_traffic_policy(
    value: &str,
    warnings: &mut Vec<FieldError>,
) -> Result<OutboundTrafficPolicy, MeshConfigError> {
    match value {
        "ALLOW_ANY" => Ok(OutboundTrafficPolicy::AllowAny),
        "ALLOW_ANY_DYNAMIC_DNS" => {
            warnings.push(FieldError {
                path: "outboundTrafficPolicy.mode".to_owned(),
                reason: "ALLOW_ANY_DYNAMIC_DNS counts as ALLOW_ANY".to_owned(),
            });
            Ok(OutboundTrafficPolicy::AllowAny)
        }
        "REGISTRY_ONLY" => Ok(OutboundTrafficPolicy::RegistryOnly),
        _ => Err(wrong(
            "outboundTrafficPolicy.mode",
            format!("{value:?} is none of ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS, REGISTRY_ONLY"),
        )),
    }
}

fn path_normalization(value: &str) -> Result<PathNormalization, MeshConfigError> {
    match value {
        "NONE" => Ok(PathNormalization::None),
        "BASE" | "DEFAULT" => Ok(PathNormalization::Base),
        "MERGE_SLASHES" => Ok(PathNormalization::MergeSlashes),
        "DECODE_AND_MERGE_SLASHES" => Ok(PathNormalization::DecodeAndMergeSlashes),
        _ => Err(wrong(
            "pathNormalization.normalization",
            format!("{value:?} is none of NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn istios_names_and_defaults_hold() {
        let base = MeshConfig::default();
        let (mesh, warnings) = parse(
            "
trustDomain: example.org
trustDomainAliases: [old.org]
rootNamespace: mesh-system
enableAutoMtls: false
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
connectTimeout: 3s
protocolDetectionTimeout: 100ms
accessLogFile: /dev/stdout
accessLogEncoding: JSON
pathNormalization: {normalization: MERGE_SLASHES}
proxyHttpPort: 8888
defaultVirtualServiceExportTo: ['.']
defaultConfig: {drainDuration: 5s, concurrency: 2}
enableTracing: true
",
            &base,
        )
        .unwrap();
        assert_eq!(
            mesh,
            MeshConfig {
                trust_domain: "example.org".into(),
                trust_domain_aliases: vec!["old.org".into()],
                root_namespace: "mesh-system".into(),
                enable_auto_mtls: false,
                outbound_traffic_policy: OutboundTrafficPolicy::RegistryOnly,
                connect_timeout: Duration::from_secs(3),
                protocol_detection_timeout: Duration::from_millis(100),
                access_log_file: "/dev/stdout".into(),
                access_log_encoding: AccessLogEncoding::Json,
                path_normalization: PathNormalization::MergeSlashes,
                proxy_http_port: 8888,
                drain_duration: Duration::from_secs(5),
                default_virtual_service_export_to: vec![".".into()],
                ..base.clone()
            }
        );
        let paths: Vec<_> = warnings.iter().map(|warning| warning.path.as_str()).collect();
        assert_eq!(paths, ["defaultConfig.concurrency", "enableTracing"]);
        for empty in ["", "{}", "# nothing"] {
            assert_eq!(parse(empty, &base).unwrap(), (base.clone(), vec![]), "{empty:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_names_the_field() {
        for (yaml, expected) in [
            ("accessLogEncoding: XML", "accessLogEncoding: \"XML\" is neither TEXT nor JSON"),
            ("connectTimeout: 0s", "connectTimeout: it must be greater than zero"),
            (
                "outboundTrafficPolicy: {mode: NOPE}",
                "outboundTrafficPolicy.mode: \"NOPE\" is none of ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS, REGISTRY_ONLY",
            ),
            ("[]", "not a MeshConfig"),
            ("proxyHttpPort: 70000", "not a MeshConfig"),
            ("a: [", "not a MeshConfig"),
        ] {
            let error = parse(yaml, &MeshConfig::default()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{yaml}");
        }
    }
}
