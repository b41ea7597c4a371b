//! How policies say what they apply to.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::message::message;

message! {
    /// Picks workloads by their labels.
    #[derive(Eq)]
    pub struct WorkloadSelector {
        /// Every one of these labels must be there with this value. None picks every workload in reach.
        #[schemars(schema_with = "selector_labels")]
        pub match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// Points at the object that a policy is attached to.
    #[derive(Eq)]
    #[schemars(extend("required" = ["kind", "name"]))]
    pub struct PolicyTargetReference {
        /// The object's API group; empty is the core group.
        #[schemars(length(max = 253))]
        pub group: String,
        /// The object's kind.
        #[schemars(length(min = 1, max = 63))]
        pub kind: String,
        /// The object's name.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
        /// Must be empty: a policy is attached to objects of its own namespace.
        #[schemars(extend("x-kubernetes-validations" = [{
            "rule": "self.size() == 0",
            "message": "must be empty: a policy is attached to objects of its own namespace",
        }]))]
        pub namespace: String,
    }
}

/// Labels to select by: no wildcards, no empty keys.
pub(crate) fn selector_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 4096,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "!self.contains('*')",
                "message": "wildcards are not allowed in labels to select by",
            }],
        },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(key, !key.contains('*'))",
                "message": "wildcards are not allowed in labels to select by",
            },
            {
                "rule": "self.all(key, key.size() != 0)",
                "message": "a label needs a key",
            },
        ],
    })
}
