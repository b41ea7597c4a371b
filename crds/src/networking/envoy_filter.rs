//! EnvoyFilter: patches of proxy configuration (`istio-behaviours` 1.7). Weft gives effect to a typed subset only.

use kube::CustomResource;
use serde_json::{Map, Value};

use super::LabelSelector;
use crate::{
    PolicyTargetReference, ResourceStatus,
    message::{enumeration, message},
};

message! {
    /// Patches of proxy configuration.
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1alpha3",
        kind = "EnvoyFilter",
        plural = "envoyfilters",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Patches proxy configuration. Local rate limits take effect; other patches are reported."
    )]
    #[schemars(extend("x-weft-one-of" = [["workloadSelector", "targetRefs"]]))]
    pub struct EnvoyFilterSpec {
        /// The workloads that are patched. Unset is all of the namespace, or of the mesh in the root namespace.
        pub workload_selector: Option<LabelSelector>,
        /// Attaches the patches to gateways.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// The patches, in order.
        pub config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Resources with lower numbers apply first.
        pub priority: i32,
    }
}

message! {
    /// One patch.
    pub struct EnvoyConfigObjectPatch {
        /// The kind of object that is patched.
        pub apply_to: ApplyTo,
        /// Which objects of that kind.
        #[serde(rename = "match")]
        pub matches: Option<EnvoyConfigObjectMatch>,
        /// What is done to them.
        pub patch: Option<Patch>,
    }
}

enumeration! {
    /// A kind of proxy configuration.
    pub enum ApplyTo {
        /// Nothing; not allowed.
        Invalid = "INVALID",
        /// A listener.
        Listener = "LISTENER",
        /// A filter chain of a listener.
        FilterChain = "FILTER_CHAIN",
        /// A network filter of a filter chain.
        NetworkFilter = "NETWORK_FILTER",
        /// An HTTP filter of a connection manager.
        HttpFilter = "HTTP_FILTER",
        /// A route configuration.
        RouteConfiguration = "ROUTE_CONFIGURATION",
        /// A virtual host.
        VirtualHost = "VIRTUAL_HOST",
        /// A route.
        HttpRoute = "HTTP_ROUTE",
        /// A cluster.
        Cluster = "CLUSTER",
        /// An extension's configuration.
        ExtensionConfig = "EXTENSION_CONFIG",
        /// The bootstrap.
        Bootstrap = "BOOTSTRAP",
        /// A listener filter.
        ListenerFilter = "LISTENER_FILTER",
    }
}

message! {
    /// Which objects are patched.
    #[schemars(extend("x-weft-one-of" = [["listener", "routeConfiguration", "cluster", "waypoint"]]))]
    pub struct EnvoyConfigObjectMatch {
        /// The side of the proxy.
        pub context: PatchContext,
        /// Properties of the proxy.
        pub proxy: Option<ProxyMatch>,
        /// Properties of the listener.
        pub listener: Option<ListenerMatch>,
        /// Properties of the route configuration.
        pub route_configuration: Option<RouteConfigurationMatch>,
        /// Properties of the cluster.
        pub cluster: Option<ClusterMatch>,
        /// Properties of a waypoint's configuration.
        pub waypoint: Option<WaypointMatch>,
    }
}

enumeration! {
    /// A side of a proxy.
    pub enum PatchContext {
        /// All of them.
        Any = "ANY",
        /// Towards the application.
        SidecarInbound = "SIDECAR_INBOUND",
        /// Away from the application.
        SidecarOutbound = "SIDECAR_OUTBOUND",
        /// Gateways.
        Gateway = "GATEWAY",
        /// Waypoints.
        Waypoint = "WAYPOINT",
    }
}

message! {
    /// Properties of a proxy.
    #[derive(Eq)]
    pub struct ProxyMatch {
        /// A regular expression for its version.
        pub proxy_version: String,
        /// Metadata that it has.
        pub metadata: std::collections::BTreeMap<String, String>,
    }
}

message! {
    /// Properties of a listener.
    #[derive(Eq)]
    pub struct ListenerMatch {
        /// Its port.
        pub port_number: u32,
        /// The name of the service's port.
        pub port_name: String,
        /// A filter chain.
        pub filter_chain: Option<FilterChainMatch>,
        /// A listener filter.
        pub listener_filter: String,
        /// Its name.
        pub name: String,
    }
}

message! {
    /// Properties of a filter chain.
    #[derive(Eq)]
    pub struct FilterChainMatch {
        /// Its name.
        pub name: String,
        /// The server name that it is for.
        pub sni: String,
        /// `raw_buffer` or `tls`.
        pub transport_protocol: String,
        /// The application protocols that it is for, separated by commas.
        pub application_protocols: String,
        /// A network filter of it.
        pub filter: Option<FilterMatch>,
        /// The destination port that it is for.
        pub destination_port: u32,
    }
}

message! {
    /// A network filter.
    #[derive(Eq)]
    pub struct FilterMatch {
        /// Its name.
        pub name: String,
        /// A filter within it.
        pub sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    /// A filter within a network filter, such as an HTTP filter.
    #[derive(Eq)]
    pub struct SubFilterMatch {
        /// Its name.
        pub name: String,
    }
}

message! {
    /// Properties of a route configuration.
    #[derive(Eq)]
    pub struct RouteConfigurationMatch {
        /// The port that it is for.
        pub port_number: u32,
        /// The name of the service's port.
        pub port_name: String,
        /// The gateway that it is for: `namespace/name`.
        pub gateway: String,
        /// A virtual host.
        pub vhost: Option<VirtualHostMatch>,
        /// Its name.
        pub name: String,
    }
}

message! {
    /// Properties of a virtual host.
    #[derive(Eq)]
    pub struct VirtualHostMatch {
        /// Its name, such as `inbound|http|8080`.
        pub name: String,
        /// A domain of it.
        pub domain_name: String,
        /// A route.
        pub route: Option<RouteMatch>,
    }
}

message! {
    /// Properties of a route.
    #[derive(Eq)]
    pub struct RouteMatch {
        /// Its name.
        pub name: String,
        /// What it does.
        pub action: RouteMatchAction,
    }
}

enumeration! {
    /// What a route does.
    pub enum RouteMatchAction {
        /// Anything.
        Any = "ANY",
        /// Forwards.
        Route = "ROUTE",
        /// Redirects.
        Redirect = "REDIRECT",
        /// Answers itself.
        DirectResponse = "DIRECT_RESPONSE",
    }
}

message! {
    /// Properties of a cluster.
    #[derive(Eq)]
    pub struct ClusterMatch {
        /// The service's port.
        pub port_number: u32,
        /// The service's fully qualified host.
        pub service: String,
        /// The subset.
        pub subset: String,
        /// Its name.
        pub name: String,
    }
}

message! {
    /// Properties of a waypoint's configuration.
    #[derive(Eq)]
    pub struct WaypointMatch {
        /// A network filter.
        pub filter: Option<FilterMatch>,
        /// The service's port.
        pub port_number: u32,
        /// A route.
        pub route: Option<WaypointRouteMatch>,
    }
}

message! {
    /// A route of a waypoint.
    #[derive(Eq)]
    pub struct WaypointRouteMatch {
        /// Its name.
        pub name: String,
    }
}

message! {
    /// What is done to an object.
    pub struct Patch {
        /// How.
        pub operation: PatchOperation,
        /// The configuration that the operation brings.
        #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
        pub value: Map<String, Value>,
        /// Where a filter goes, in place of naming a neighbour.
        pub filter_class: FilterClass,
    }
}

enumeration! {
    /// A way to patch.
    pub enum PatchOperation {
        /// Nothing; not allowed.
        Invalid = "INVALID",
        /// Merges the value into the object.
        Merge = "MERGE",
        /// Adds the value to a list.
        Add = "ADD",
        /// Takes the object away.
        Remove = "REMOVE",
        /// Puts the value before the object.
        InsertBefore = "INSERT_BEFORE",
        /// Puts the value after the object.
        InsertAfter = "INSERT_AFTER",
        /// Puts the value first.
        InsertFirst = "INSERT_FIRST",
        /// Puts the value in the object's place.
        Replace = "REPLACE",
        /// As MERGE, but lists are replaced.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST",
    }
}

enumeration! {
    /// The place of a filter among the mesh's own.
    pub enum FilterClass {
        /// As the operation says.
        Unspecified = "UNSPECIFIED",
        /// After authentication.
        Authn = "AUTHN",
        /// After authorization.
        Authz = "AUTHZ",
        /// Before statistics.
        Stats = "STATS",
    }
}
