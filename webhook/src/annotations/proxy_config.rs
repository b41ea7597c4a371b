//! Istio's ProxyConfig, as far as the injector reads it.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_crds::Duration;

use crate::json::{self, Object};

/// Fields that the proxy or the injector acts on.
const WITH_EFFECT: [&str; 9] = [
    "concurrency",
    "discoveryAddress",
    "drainDuration",
    "environmentVariables",
    "holdApplicationUntilProxyStarts",
    "proxyMetadata",
    "statusPort",
    "terminationDrainDuration",
    "trustDomain",
];

/// A ProxyConfig, checked; handed to the proxy as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProxyConfig(Object);

impl ProxyConfig {
    /// Checks the fields that are read here or by the proxy. The error names the field.
    pub(crate) fn read(fields: Object) -> Result<Self, (&'static str, String)> {
        let wrong = |name, reason: &str| Err((name, reason.to_owned()));
        for (name, value) in &fields {
            match name.as_str() {
                "concurrency" if !value.is_null() && value.as_u64().is_none_or(|n| n > 255) => {
                    return wrong("concurrency", "is not a whole number from 0 to 255");
                }
                "holdApplicationUntilProxyStarts" if !value.is_boolean() => {
                    return wrong("holdApplicationUntilProxyStarts", "is neither true nor false");
                }
                "drainDuration" => duration("drainDuration", value)?,
                "terminationDrainDuration" => duration("terminationDrainDuration", value)?,
                "statusPort" if value.as_u64().is_none_or(|port| port > 65535) => {
                    return wrong("statusPort", "is not a port");
                }
                "discoveryAddress" if !value.is_string() => {
                    return wrong("discoveryAddress", "is not a text");
                }
                "proxyMetadata" => environment("proxyMetadata", value)?,
                "environmentVariables" => environment("environmentVariables", value)?,
                _ => {}
            }
        }
        Ok(Self(fields))
    }

    /// What was checked before.
    pub(super) fn unchecked(fields: Object) -> Self {
        Self(fields)
    }

    /// A pod's own ProxyConfig, YAML or JSON, over the mesh's.
    pub(super) fn merged(base: &Object, text: &str) -> Result<Self, String> {
        let over = match text {
            "" => Object::new(),
            text => serde_saphyr::from_str::<Object>(text).map_err(|error| {
                format!("is not a ProxyConfig: {}", first_line(&error.to_string()))
            })?,
        };
        let mut merged = Value::Object(base.clone());
        json::merge(&mut merged, Value::Object(over));
        let fields = merged.as_object().cloned().unwrap_or_default();
        Self::read(fields).map_err(|(name, reason)| format!("{name} {reason}"))
    }

    /// Fields that the pod's author added and nothing acts on.
    pub(super) fn without_effect(&self, base: &Object) -> impl Iterator<Item = &str> {
        let names = self.0.iter().filter(|(name, value)| base.get(*name) != Some(*value));
        names.map(|(name, _)| name.as_str()).filter(|name| !WITH_EFFECT.contains(name))
    }

    pub(super) fn discovery_address(&self) -> Option<&str> {
        self.0.get("discoveryAddress")?.as_str().filter(|address| !address.is_empty())
    }

    pub(super) fn hold_application(&self) -> Option<bool> {
        self.0.get("holdApplicationUntilProxyStarts")?.as_bool()
    }

    pub(super) fn status_port(&self) -> Option<u16> {
        self.0.get("statusPort")?.as_u64().and_then(|port| port.try_into().ok())
    }

    /// Variables of the proxy's environment.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let objects = ["proxyMetadata", "environmentVariables"].into_iter();
        let entries = objects.filter_map(|name| self.0.get(name)?.as_object()).flatten();
        entries.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
    }

    /// The JSON that the proxy reads.
    pub(crate) fn to_json(&self, discovery_address: &str) -> String {
        let mut fields = self.0.clone();
        fields.insert("discoveryAddress".into(), discovery_address.into());
        Value::Object(fields).to_string()
    }
}

fn duration(name: &'static str, value: &Value) -> Result<(), (&'static str, String)> {
    let text = value.as_str().ok_or((name, "is not a duration such as 5s".to_owned()))?;
    text.parse::<Duration>().map(|_| ()).map_err(|error| (name, format!("is {error}")))
}

fn environment(name: &'static str, value: &Value) -> Result<(), (&'static str, String)> {
    let object = match value {
        Value::Null => return Ok(()),
        Value::Object(object) => object,
        _ => return Err((name, "is not an object of texts".to_owned())),
    };
    let usable = |(key, value): (&String, &Value)| {
        !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
            && text(value).is_some()
    };
    if object.iter().all(usable) {
        Ok(())
    } else {
        Err((name, "has an entry that cannot be a variable of an environment".to_owned()))
    }
}

/// YAML's numbers and booleans are texts where variables are meant.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
