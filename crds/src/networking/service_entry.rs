//! ServiceEntry: services that Kubernetes does not know (`istio-behaviours` 1.4, 2.7).

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::{
    ResourceStatus,
    message::{enumeration, message},
    selector::selector_labels,
};

message! {
    /// A service that Kubernetes does not know, inside or outside the mesh.
    #[derive(Eq, CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "ServiceEntry",
        plural = "serviceentries",
        shortname = "se",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Adds a service that Kubernetes does not know, inside or outside the mesh."
    )]
    #[schemars(extend(
        "required" = ["hosts"],
        "x-weft-one-of" = [["workloadSelector", "endpoints"]],
        "x-kubernetes-validations" = [
            {
                "rule": "!has(self.addresses) || self.addresses.all(a, !a.contains('/')) || !has(self.resolution) \
                         || self.resolution in ['NONE', 'STATIC']",
                "message": "CIDR addresses are allowed only with resolution NONE or STATIC",
            },
            {
                "rule": "(has(self.resolution) && self.resolution != 'NONE') || !has(self.endpoints)",
                "message": "endpoints cannot be given with resolution NONE",
            },
            {
                "rule": "!(has(self.resolution) && self.resolution == 'DNS_ROUND_ROBIN') || !has(self.endpoints) \
                         || size(self.endpoints) <= 1",
                "message": "resolution DNS_ROUND_ROBIN takes one endpoint at most",
            },
        ],
    ))]
    pub struct ServiceEntrySpec {
        /// Domain names, wildcards allowed.
        #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = [{
            "rule": "self.all(host, host != '*')",
            "message": "a host cannot be *",
        }]))]
        pub hosts: Vec<String>,
        /// Virtual addresses or CIDR ranges. Without any, one is assigned where the DNS proxy is on.
        #[schemars(length(max = 256), inner(length(max = 64)))]
        pub addresses: Vec<String>,
        /// The ports.
        #[schemars(length(max = 256), extend("x-kubernetes-validations" = [
            {
                "rule": "self.all(l1, self.exists_one(l2, l1.number == l2.number))",
                "message": "port numbers must differ",
            },
            {
                "rule": "self.all(l1, self.exists_one(l2, l1.name == l2.name))",
                "message": "port names must differ",
            },
        ]))]
        pub ports: Vec<ServicePort>,
        /// Whether the service is part of the mesh.
        pub location: ServiceEntryLocation,
        /// How addresses of endpoints are found.
        pub resolution: ServiceEntryResolution,
        /// The endpoints.
        #[schemars(length(max = 4096))]
        pub endpoints: Vec<WorkloadEntrySpec>,
        /// Picks WorkloadEntries and pods of this resource's namespace as endpoints.
        pub workload_selector: Option<LabelSelector>,
        /// The namespaces that see this resource: `.` for its own, `*` for all, `~` for none, or names. None means the
        /// mesh's default.
        pub export_to: Vec<String>,
        /// Names of which the servers' certificates must have one.
        pub subject_alt_names: Vec<String>,
    }
}

message! {
    /// A port of a service.
    #[derive(Eq)]
    #[schemars(extend("required" = ["number", "name"]))]
    pub struct ServicePort {
        /// The port that clients call.
        #[schemars(range(min = 1))]
        pub number: u16,
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS. Empty lets the proxy find out.
        pub protocol: String,
        /// The port's name.
        #[schemars(length(min = 1, max = 256))]
        pub name: String,
        /// The port of the endpoints. 0 is `number`.
        pub target_port: u16,
    }
}

enumeration! {
    /// Whether a service is part of the mesh.
    pub enum ServiceEntryLocation {
        /// It is not: no mutual TLS unless a rule says so.
        MeshExternal = "MESH_EXTERNAL",
        /// It is.
        MeshInternal = "MESH_INTERNAL",
    }
}

enumeration! {
    /// How addresses of endpoints are found.
    pub enum ServiceEntryResolution {
        /// Not at all: connections go where the client wanted.
        None = "NONE",
        /// The endpoints' own addresses.
        Static = "STATIC",
        /// By DNS, all addresses.
        Dns = "DNS",
        /// By DNS, one address at a time.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// By DNS, the name that each request asks for.
        DynamicDns = "DYNAMIC_DNS",
    }
}

message! {
    /// Picks workloads by their labels.
    #[derive(Eq)]
    pub struct LabelSelector {
        /// Every one of these labels must be there with this value.
        #[schemars(schema_with = "selector_labels")]
        pub labels: BTreeMap<String, String>,
    }
}

message! {
    /// An endpoint that Kubernetes does not know.
    #[derive(Eq)]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "has(self.address) || has(self.network)",
            "message": "address or network must be set",
        },
        {
            "rule": "!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)",
            "message": "a unix:// address has no ports",
        },
    ]))]
    pub struct WorkloadEntrySpec {
        /// IP address, domain name, or `unix://` with a path. Empty if the network's gateway is called.
        #[schemars(length(max = 256))]
        pub address: String,
        /// Ports of the endpoint by the names of the service's ports.
        pub ports: BTreeMap<String, u16>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// The network that it is in.
        pub network: String,
        /// Where it is: `region/zone/subzone`.
        pub locality: String,
        /// Its share. 0 means 1.
        pub weight: u32,
        /// The service account of its identity; without one it takes no part in mutual TLS.
        pub service_account: String,
    }
}
