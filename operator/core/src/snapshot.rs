//! The mesh at one moment: immutable, structurally shared, with the questions that resolution asks of it.
//!
//! The index edits the tables of its own copy and publishes copies of it; a published snapshot never changes. Tests build
//! one by editing the tables of `Snapshot::default()`.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use weft_crds::{
    networking::{EnvoyFilterSpec, GatewaySpec, ServiceEntrySpec, VirtualServiceSpec},
    security::{AuthorizationPolicySpec, MutualTlsMode, PeerAuthenticationSpec},
};

pub use crate::{
    credential::CredentialTable,
    destination_rule::EffectiveDestinationRule,
    policy::{PeerAuthenticationModes, WorkloadAuthorization},
};
use crate::{
    destination_rule::table::{Client, DestinationRuleTable},
    endpoint::{Endpoint, EndpointAddress, EndpointSet},
    gateway::GatewayNode,
    mesh::MeshConfig,
    policy::{self, Subject},
    resource::{Resource, table::ResourceTable},
    service::{Service, ServiceKey, ServicePort, TargetPort, table::ServiceTable},
    store::Store,
    view::NodeView,
    virtual_service::table::{Tier, VirtualServiceTable},
    workload::{Workload, table::WorkloadTable},
};

/// A service's port that a workload serves.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundPort {
    /// The workload's port.
    pub target_port: u16,
    /// The service's port.
    pub port: ServicePort,
    /// The service; the oldest where several share the target port.
    pub service: Arc<Service>,
}

/// The endpoints of a service by its port's number.
pub type PortEndpoints = BTreeMap<u16, Arc<EndpointSet>>;

/// The mesh at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Counts up with every snapshot that differs from the one before.
    pub version: u64,
    /// Mesh-wide settings.
    pub mesh: Arc<MeshConfig>,
    /// Services of all registries.
    pub services: ServiceTable,
    /// Endpoints of services; a service without any may be absent.
    pub endpoints: Store<ServiceKey, Arc<PortEndpoints>>,
    /// Pods.
    pub workloads: WorkloadTable,
    /// VirtualServices.
    pub virtual_services: VirtualServiceTable,
    /// DestinationRules.
    pub destination_rules: DestinationRuleTable,
    /// ServiceEntries as they were accepted; what they define is among the services.
    pub service_entries: ResourceTable<ServiceEntrySpec>,
    /// Gateways.
    pub gateways: ResourceTable<GatewaySpec>,
    /// The secrets that Gateways name.
    pub credentials: CredentialTable,
    /// PeerAuthentications.
    pub peer_authentications: ResourceTable<PeerAuthenticationSpec>,
    /// AuthorizationPolicies.
    pub authorization_policies: ResourceTable<AuthorizationPolicySpec>,
    /// EnvoyFilters.
    pub envoy_filters: ResourceTable<EnvoyFilterSpec>,
}

impl Snapshot {
    /// The service that a client means by a name: short, qualified, or a virtual IP address. Its own namespace is
    /// preferred, then visible ones (`istio-behaviours` 2.1, items 1, 4 and 6). The name of a headless service's pod
    /// stands for the service, that of an ExternalName service for the mesh's service behind it (item 61), and a name
    /// that only a wildcard ServiceEntry covers for that entry's service.
    pub fn service(&self, view: &NodeView, host: &str) -> Option<&Arc<Service>> {
        self.services.find(&view.namespace, host, &self.mesh.domain)
    }

    /// Every service that a client sees, one for each hostname, ordered by hostname.
    pub fn visible_services(&self, view: &NodeView) -> Vec<&Arc<Service>> {
        self.services.visible(&view.namespace)
    }

    /// The endpoints of a service's port (by service port number), ready or published ones.
    pub fn endpoints(&self, service: &ServiceKey, port: u16) -> Arc<EndpointSet> {
        self.endpoints.get(service).and_then(|ports| ports.get(&port)).cloned().unwrap_or_default()
    }

    /// The VirtualService with `gateways: mesh` that replaces a host's routes for this client: one wins, sidecars do not
    /// merge (item 8). Its hosts, destinations and gateways are fully qualified, delegates are merged in, every subset
    /// that it names is defined. Matches that are for other gateways than `mesh` only are still in it.
    pub fn virtual_service(
        &self,
        view: &NodeView,
        hostname: &str,
    ) -> Option<Arc<Resource<VirtualServiceSpec>>> {
        self.virtual_services.select(&view.namespace, hostname).cloned()
    }

    /// The destination rule for a service and client (items 33 to 35). Subsets that a route in effect still names stay
    /// defined after their rule is gone.
    pub fn destination_rule(
        &self,
        view: &NodeView,
        service: &Service,
    ) -> Option<Arc<EffectiveDestinationRule>> {
        let client = Client {
            namespace: &view.namespace,
            labels: &view.labels,
            root: &self.mesh.root_namespace,
        };
        self.destination_rules.select(client, &service.key.hostname, &service.key.namespace)
    }

    /// The mutual TLS modes of workloads with these labels in this namespace (item 68).
    pub fn peer_authentication(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> PeerAuthenticationModes {
        policy::peer_authentication(&self.peer_authentications, self.subject(namespace, labels))
    }

    /// Whether clients speak mTLS to this endpoint when no rule says otherwise: it is meshed and its policy does not
    /// disable it (item 69).
    pub fn endpoint_accepts_mtls(&self, endpoint: &Endpoint) -> bool {
        endpoint.meshed
            && self.peer_authentication(&endpoint.namespace, &endpoint.labels).mode(endpoint.port)
                != MutualTlsMode::Disable
    }

    /// The authorization policies of workloads with these labels in this namespace (items 73 and 74).
    pub fn authorization(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> WorkloadAuthorization {
        policy::authorization(&self.authorization_policies, self.subject(namespace, labels))
    }

    /// The EnvoyFilters of workloads with these labels in this namespace, in order of application (item 88).
    pub fn envoy_filters(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<Arc<Resource<EnvoyFilterSpec>>> {
        policy::envoy_filters(&self.envoy_filters, self.subject(namespace, labels))
    }

    /// The pod with this address.
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.at(address)
    }

    /// The pod with this name.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(namespace, name)
    }

    /// The ports that a workload serves, one for each target port, ordered (item 57): those of the services of its
    /// namespace that select its labels, and of those without a selector that have its address as an endpoint.
    pub fn inbound_ports(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        address: IpAddr,
    ) -> Vec<InboundPort> {
        let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
        let services = self.services.selecting(namespace, labels);
        for service in services.chain(self.services.served_at(namespace, address)) {
            for port in service.ports.iter().filter(|port| port.protocol.is_proxied()) {
                for target_port in self.target_ports(service, port, address) {
                    let found =
                        InboundPort { target_port, port: port.clone(), service: service.clone() };
                    match ports.entry(target_port) {
                        Entry::Vacant(entry) => _ = entry.insert(found),
                        Entry::Occupied(mut entry) if age(&found) < age(entry.get()) => {
                            entry.insert(found);
                        }
                        Entry::Occupied(_) => {}
                    }
                }
            }
        }
        ports.into_values().collect()
    }

    /// The ports at which a proxy at the edge serves a port of its Gateways: where the services that select it send that
    /// port, else the port itself (item 28).
    pub fn gateway_ports(&self, node: GatewayNode<'_>, number: u16) -> BTreeSet<u16> {
        let services = self.services.selecting(node.namespace, node.labels);
        let services = services.chain(self.services.served_at(node.namespace, node.address));
        let found: BTreeSet<u16> = services
            .filter_map(|service| Some((service, service.port(number)?)))
            .flat_map(|(service, port)| self.target_ports(service, port, node.address))
            .collect();
        if found.is_empty() { [number].into() } else { found }
    }

    /// The VirtualServices of a Gateway (`<namespace>/<name>`) that proxies of a namespace get: their own namespace's
    /// private ones first, then those exported to it, then public ones, each oldest first (item 7).
    pub fn virtual_services_of_gateway(
        &self,
        namespace: &str,
        gateway: &str,
    ) -> Vec<(Tier, &Arc<Resource<VirtualServiceSpec>>)> {
        self.virtual_services.of_gateway(namespace, gateway)
    }

    /// The workload's ports behind a service's port: what the endpoints at its address say, else what the port says.
    fn target_ports(&self, service: &Service, port: &ServicePort, address: IpAddr) -> Vec<u16> {
        let endpoints = self.endpoints.get(&service.key).and_then(|ports| ports.get(&port.number));
        let served: Vec<u16> = endpoints
            .map(|set| {
                set.at(&EndpointAddress::Ip(address)).map(|endpoint| endpoint.port).collect()
            })
            .unwrap_or_default();
        if !served.is_empty() {
            return served;
        }
        match &port.target {
            _ if service.selector.is_empty() => Vec::new(),
            TargetPort::Number(number) => vec![*number],
            TargetPort::Name(name) => {
                let workload = self.workloads.at(address);
                workload
                    .and_then(|workload| workload.named_ports.get(name))
                    .copied()
                    .into_iter()
                    .collect()
            }
        }
    }

    fn subject<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> Subject<'a> {
        Subject { root: &self.mesh.root_namespace, namespace, labels }
    }
}

/// Orders the services that share a workload's port: the oldest one's protocol counts.
fn age(found: &InboundPort) -> (i64, &str, &str, u16) {
    let key = &found.service.key;
    (found.service.created, &key.hostname, &key.namespace, found.port.number)
}
