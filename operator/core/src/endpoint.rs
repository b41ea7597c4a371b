//! Endpoints: where a service's port is served.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::workload::Workload;

/// Where an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A name that the proxy looks up.
    Dns(Arc<str>),
    /// A Unix domain socket's path.
    Unix(Arc<str>),
}

/// Whether an endpoint gets new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Known to fail. Kubernetes' endpoints never are: those that are not ready are left out, or count as healthy where
    /// their service publishes them.
    Unhealthy,
    /// Terminating but still serving.
    Draining,
}

/// A place: region, zone and sub-zone, each may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Sub-zone.
    pub sub_zone: Arc<str>,
}

/// One endpoint of one port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its address.
    pub address: EndpointAddress,
    /// Its port: the workload's, not the service's.
    pub port: u16,
    /// Its labels: the pod's, or those of a WorkloadEntry. Subsets select by them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The namespace it runs in.
    pub namespace: Arc<str>,
    /// Its service account; `None` when unknown, and then it takes no mTLS.
    pub service_account: Option<Arc<str>>,
    /// Whether a proxy of the mesh is in front of it (`security.istio.io/tlsMode: istio`).
    pub meshed: bool,
    /// The workload, when the mesh knows the pod.
    pub workload: Option<Arc<Workload>>,
    /// Its place.
    pub locality: Locality,
    /// Relative weight; 0 counts as 1.
    pub weight: u32,
    /// Whether it gets new requests.
    pub health: Health,
}

/// The endpoints of one port of a service, ordered by address and port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSet {
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSet {
    /// The endpoints in their order; of several with the same address and port the first counts.
    pub fn new(mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        endpoints.dedup_by(|b, a| (&a.address, a.port) == (&b.address, b.port));
        Self { endpoints }
    }

    /// The endpoints at an address.
    pub fn at(&self, address: &EndpointAddress) -> impl Iterator<Item = &Endpoint> {
        let start = self.endpoints.partition_point(|endpoint| endpoint.address < *address);
        self.endpoints[start..].iter().take_while(move |endpoint| endpoint.address == *address)
    }
}
