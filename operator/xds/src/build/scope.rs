//! The questions that builders ask of the mesh, and a record of what their answers hang on.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weft_core::{
    credential::CredentialTable,
    endpoint::{Endpoint, EndpointSet},
    gateway::{self, GatewayNode, Merged},
    mesh::MeshConfig,
    resource::Resource,
    service::Service,
    snapshot::{
        EffectiveDestinationRule, InboundPort, PeerAuthenticationModes, Snapshot,
        WorkloadAuthorization,
    },
    view::NodeView,
    virtual_service::table::Tier,
};
use weft_crds::networking::{EnvoyFilterSpec, VirtualServiceSpec};

use super::tls::MetadataExchange;
use crate::resolver::{Dependencies, ViewFields};

#[derive(Debug, Default)]
struct Trace {
    dependencies: Dependencies,
    reads: ViewFields,
}

/// One resolution: the mesh as one node sees it.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    snapshot: &'a Snapshot,
    view: &'a NodeView,
    trace: RefCell<Trace>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, view: &'a NodeView) -> Self {
        Self { snapshot, view, trace: RefCell::default() }
    }

    /// What the answers so far hang on.
    pub(crate) fn finish(self) -> (Dependencies, ViewFields) {
        let trace = self.trace.into_inner();
        (trace.dependencies, trace.reads)
    }

    pub(crate) fn mesh(&self) -> &'a MeshConfig {
        &self.snapshot.mesh
    }

    pub(crate) fn namespace(&self) -> &'a str {
        &self.view.namespace
    }

    /// Connections are redirected to the proxy. At the edge of the mesh clients call the proxy itself.
    pub(crate) fn is_captured(&self) -> bool {
        self.view.captured && !self.view.gateway
    }

    /// The proxy stands at an edge of the mesh.
    pub(crate) fn is_gateway(&self) -> bool {
        self.view.gateway
    }

    /// Where a proxy at the edge is called: in a pod at all addresses, else at its own.
    pub(crate) fn edge_address(&self) -> IpAddr {
        match (self.view.captured, self.address()) {
            (true, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (true, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            (false, own) => own,
        }
    }

    fn depends_on_gateways(&self) {
        self.trace.borrow_mut().dependencies.gateways = true;
    }

    /// What the Gateways that select this proxy make it serve.
    pub(crate) fn gateways(&self) -> Merged {
        self.depends_on_gateways();
        self.depends_on_namespace(self.namespace());
        let node = GatewayNode {
            namespace: self.namespace(),
            labels: self.labels(),
            address: self.address(),
        };
        gateway::merge(self.snapshot, node)
    }

    /// The VirtualServices of a Gateway, `<namespace>/<name>`.
    pub(crate) fn virtual_services_of_gateway(
        &self,
        gateway: &str,
    ) -> Vec<(Tier, &'a Arc<Resource<VirtualServiceSpec>>)> {
        self.depends_on_gateways();
        self.snapshot.virtual_services_of_gateway(self.namespace(), gateway)
    }

    /// The secrets that Gateways name.
    pub(crate) fn credentials(&self) -> &'a CredentialTable {
        self.depends_on_gateways();
        &self.snapshot.credentials
    }

    /// The proxy fetches virtual hosts on first use: it is a weft-proxy.
    pub(crate) fn is_on_demand(&self) -> bool {
        self.view.on_demand
    }

    /// Whether the proxy exchanges metadata with its peers on TCP.
    pub(crate) fn metadata_exchange(&self) -> MetadataExchange {
        if self.is_on_demand() { MetadataExchange::Spoken } else { MetadataExchange::Unknown }
    }

    pub(crate) fn labels(&self) -> &'a BTreeMap<String, String> {
        self.trace.borrow_mut().reads.labels = true;
        &self.view.labels
    }

    /// The workload's address.
    pub(crate) fn address(&self) -> IpAddr {
        self.trace.borrow_mut().reads.address = true;
        self.view.address
    }

    /// Where the application listens.
    pub(crate) fn app_address(&self) -> IpAddr {
        let pod = self.address();
        self.view.app_address.unwrap_or(pod)
    }

    fn depends_on_host(&self, host: &str) {
        self.trace.borrow_mut().dependencies.hosts.insert(host.into());
    }

    fn depends_on_namespace(&self, namespace: &str) {
        self.trace.borrow_mut().dependencies.namespaces.insert(namespace.into());
    }

    /// The service that this node means by a name.
    pub(crate) fn service(&self, host: &str) -> Option<&'a Arc<Service>> {
        let found = self.snapshot.service(self.view, host);
        self.depends_on_host(host);
        match found {
            Some(service) => {
                self.depends_on_host(service.hostname());
                // Asked for by another name, a better match may appear.
                self.trace.borrow_mut().dependencies.any_host |= service.hostname() != host;
            }
            None => self.trace.borrow_mut().dependencies.any_host = true,
        }
        found
    }

    /// The service of this very hostname.
    pub(crate) fn service_named(&self, hostname: &str) -> Option<&'a Arc<Service>> {
        let found = self.snapshot.service(self.view, hostname);
        self.depends_on_host(hostname);
        found.filter(|service| service.hostname() == hostname)
    }

    pub(crate) fn visible_services(&self) -> Vec<&'a Arc<Service>> {
        self.trace.borrow_mut().dependencies.any_host = true;
        self.snapshot.visible_services(self.view)
    }

    pub(crate) fn endpoints(&self, service: &Service, port: u16) -> Arc<EndpointSet> {
        self.trace.borrow_mut().dependencies.endpoints.insert(service.key.hostname.clone());
        self.snapshot.endpoints(&service.key, port)
    }

    pub(crate) fn endpoint_accepts_mtls(&self, endpoint: &Endpoint) -> bool {
        self.depends_on_namespace(&endpoint.namespace);
        self.snapshot.endpoint_accepts_mtls(endpoint)
    }

    pub(crate) fn virtual_service(&self, host: &str) -> Option<Arc<Resource<VirtualServiceSpec>>> {
        self.depends_on_host(host);
        self.snapshot.virtual_service(self.view, host)
    }

    /// The hosts of every VirtualService in effect, as far as this node may see them; only some are services.
    pub(crate) fn routed_hosts(&self) -> BTreeSet<String> {
        self.trace.borrow_mut().dependencies.any_host = true;
        self.snapshot
            .virtual_services
            .states()
            .filter_map(|state| state.effective.as_ref())
            .flat_map(|resource| resource.spec.hosts.iter().cloned())
            .collect()
    }

    pub(crate) fn destination_rule(
        &self,
        service: &Service,
    ) -> Option<Arc<EffectiveDestinationRule>> {
        self.depends_on_host(service.hostname());
        // A rule that does not select this client counts too: another client may get it.
        let by_labels = self.snapshot.destination_rules.selects_clients(service.hostname());
        self.trace.borrow_mut().reads.labels |= by_labels;
        self.snapshot.destination_rule(self.view, service)
    }

    /// The mutual TLS modes of the node's own inbound side.
    pub(crate) fn peer_authentication(&self) -> PeerAuthenticationModes {
        self.depends_on_namespace(self.namespace());
        self.snapshot.peer_authentication(self.namespace(), self.labels())
    }

    /// The authorization policies of the node's own inbound side.
    pub(crate) fn authorization(&self) -> WorkloadAuthorization {
        self.depends_on_namespace(self.namespace());
        self.snapshot.authorization(self.namespace(), self.labels())
    }

    pub(crate) fn envoy_filters(&self) -> Vec<Arc<Resource<EnvoyFilterSpec>>> {
        self.depends_on_namespace(self.namespace());
        self.snapshot.envoy_filters(self.namespace(), self.labels())
    }

    /// The ports that the node's workload serves.
    pub(crate) fn inbound_ports(&self) -> Vec<InboundPort> {
        self.depends_on_namespace(self.namespace());
        self.snapshot.inbound_ports(self.namespace(), self.labels(), self.address())
    }
}
