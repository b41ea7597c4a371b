//! PeerAuthentication: mutual TLS that workloads demand of their clients (`istio-behaviours` 1.6, 2.8).

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::{
    ResourceStatus, WorkloadSelector,
    message::{enumeration, message},
};

message! {
    /// The mutual TLS that workloads demand of their clients.
    #[derive(Eq, CustomResource)]
    #[kube(
        group = "security.istio.io",
        version = "v1",
        kind = "PeerAuthentication",
        plural = "peerauthentications",
        shortname = "pa",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Says which mutual TLS workloads demand of their clients."
    )]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) \
                 && self.selector.matchLabels.size() > 0)",
        "message": "portLevelMtls needs a selector with matchLabels",
    }]))]
    pub struct PeerAuthenticationSpec {
        /// The workloads. Unset is all of the namespace, or of the mesh in the root namespace.
        pub selector: Option<WorkloadSelector>,
        /// For all ports without a mode of their own.
        pub mtls: Option<MutualTls>,
        /// By port of the workload.
        #[schemars(
            with = "BTreeMap<String, MutualTls>",
            extend("minProperties" = 1, "x-weft-port-keys" = true, "x-kubernetes-validations" = [{
                "rule": "self.all(key, 0 < int(key) && int(key) <= 65535)",
                "message": "ports must be from 1 to 65535",
            }])
        )]
        pub port_level_mtls: BTreeMap<u16, MutualTls>,
    }
}

message! {
    /// Mutual TLS.
    #[derive(Copy, Eq)]
    pub struct MutualTls {
        /// Whether it is demanded.
        pub mode: MutualTlsMode,
    }
}

enumeration! {
    /// Whether mutual TLS is demanded.
    pub enum MutualTlsMode {
        /// As the next wider policy says; PERMISSIVE if none does.
        Unset = "UNSET",
        /// It is not offered.
        Disable = "DISABLE",
        /// Clients choose between it and plain bytes.
        Permissive = "PERMISSIVE",
        /// It is demanded.
        Strict = "STRICT",
    }
}
