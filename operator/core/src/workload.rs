//! Workloads: pods (or what stands for them) and what policies select them by.

pub mod table;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::endpoint::Locality;

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The pod's name.
    pub name: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The pod's service account (`default` when not said).
    pub service_account: Arc<str>,
    /// The Deployment or other owner: the pod's name without the suffixes that its owners added.
    pub workload_name: Arc<str>,
    /// `service.istio.io/canonical-name`, else `app.kubernetes.io/name`, else `app`, else the workload's name.
    pub canonical_name: Arc<str>,
    /// `service.istio.io/canonical-revision`, else `app.kubernetes.io/version`, else `version`, else `latest`.
    pub canonical_revision: Arc<str>,
    /// Named container ports.
    pub named_ports: BTreeMap<Arc<str>, u16>,
    /// Whether a proxy of the mesh is in front of it.
    pub meshed: bool,
    /// Where it runs.
    pub locality: Locality,
}
