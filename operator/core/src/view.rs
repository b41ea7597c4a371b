//! What a node may see and what it is told: everything that resolution needs to know of the asking proxy.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// The part of a proxy's description that its configuration depends on. Nodes with equal views get equal resources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeView {
    /// The proxy's namespace: decides visibility and how short names are read.
    pub namespace: Arc<str>,
    /// The workload's labels: those of the Pod where the mesh knows it, else the node's own.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The workload's address.
    pub address: IpAddr,
    /// Where the application listens, when not at the workload's address.
    pub app_address: Option<IpAddr>,
    /// At an edge of the mesh rather than beside a workload.
    pub gateway: bool,
    /// Connections are redirected to the proxy (else it binds the workload's ports itself).
    pub captured: bool,
    /// The proxy fetches virtual hosts on first use.
    pub on_demand: bool,
    /// The domain of the mesh's services.
    pub domain: Arc<str>,
}
