//! What the control plane reports about a resource.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::message::{is_unset, message};

/// What the control plane reports about a resource. Fields that other tools put here are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceStatus {
    /// Facts about the resource.
    #[serde(skip_serializing_if = "is_unset")]
    pub conditions: Vec<Condition>,
    /// Findings of analysis, in the form of the tool that wrote them.
    #[serde(skip_serializing_if = "is_unset")]
    pub validation_messages: Vec<Value>,
    /// The generation of the resource that this status speaks of.
    #[serde(deserialize_with = "generation", skip_serializing_if = "is_unset")]
    pub observed_generation: Option<i64>,
    /// Addresses that were given to a service entry without its own.
    #[serde(skip_serializing_if = "is_unset")]
    pub addresses: Vec<AssignedAddress>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

message! {
    /// One fact about a resource.
    #[derive(Eq)]
    pub struct Condition {
        /// What the fact is about.
        #[serde(rename = "type")]
        pub type_: String,
        /// `True`, `False` or `Unknown`.
        pub status: String,
        /// One word on why, for programs.
        pub reason: String,
        /// A sentence on why, for people.
        pub message: String,
        /// When it was last looked at, in RFC 3339.
        pub last_probe_time: Option<String>,
        /// When `status` last changed, in RFC 3339.
        pub last_transition_time: Option<String>,
        /// The generation of the resource that this speaks of.
        #[serde(deserialize_with = "generation")]
        pub observed_generation: Option<i64>,
    }
}

message! {
    /// An address that was given to a host.
    #[derive(Eq)]
    pub struct AssignedAddress {
        /// The address.
        pub value: String,
        /// The host that has it.
        pub host: String,
    }
}

/// 64-bit numbers are strings in protobuf's JSON.
fn generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Integer(i64),
        Text(String),
    }
    match Option::<Number>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Number::Integer(number)) => Ok(Some(number)),
        Some(Number::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl JsonSchema for ResourceStatus {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ResourceStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "What the control plane reports about the resource.",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}
