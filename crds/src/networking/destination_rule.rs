//! DestinationRule: what clients of a host do after routing (`istio-behaviours` 1.2, 2.4).

use std::collections::BTreeMap;

use kube::CustomResource;

use super::TrafficPolicy;
use crate::{ResourceStatus, WorkloadSelector, message::message};

message! {
    /// What clients of a host do after routing: subsets, load balancing, connections, ejection, TLS.
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "DestinationRule",
        plural = "destinationrules",
        shortname = "dr",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Says what clients of a host do after routing: subsets, load balancing, connections, ejection, TLS."
    )]
    #[schemars(extend("required" = ["host"]))]
    pub struct DestinationRuleSpec {
        /// The service's host. A short name is of this resource's namespace; wildcards are allowed.
        #[schemars(length(min = 1))]
        pub host: String,
        /// For every subset and port, unless they say otherwise.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named groups of the host's endpoints.
        pub subsets: Vec<Subset>,
        /// The namespaces that see this resource: `.` for its own, `*` for all, or names. None means the mesh's default.
        pub export_to: Vec<String>,
        /// The client workloads, of this resource's namespace, that the rule is for. Unset is all.
        pub workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    /// A named group of a host's endpoints.
    #[schemars(extend("required" = ["name"]))]
    pub struct Subset {
        /// The name that routes use.
        #[schemars(length(min = 1))]
        pub name: String,
        /// The labels that endpoints of the group have, beyond those that the service selects by.
        pub labels: BTreeMap<String, String>,
        /// What differs from the rule's own policy, field by field.
        pub traffic_policy: Option<TrafficPolicy>,
    }
}
