//! Whose traffic a request is: the labels of Istio's metrics, resolved once per pair of workloads and kept.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use foldhash::HashMap;
use weft_api::names::BLACK_HOLE_CLUSTER;

use super::{matching::without_port, record::Record};
use crate::{
    config::{
        cluster::{Cluster, ServiceInfo, WorkloadInfo},
        listener::TrafficDirection,
    },
    stats::{Reporter, SecurityPolicy, ThreadStats, Traffic, TrafficLabels, service_of},
};

/// Handles that are kept per thread; when there are more, all are looked up again.
const KEPT: usize = 512;

/// What the labels depend on, by address: the values are held beside the handle, so that addresses are not reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    reporter: Reporter,
    cluster: usize,
    service: Option<Arc<str>>,
    peer: usize,
    source_principal: Option<Arc<str>>,
    destination_principal: Option<Arc<str>>,
    security: SecurityPolicy,
}

/// A handle, and what its key points to.
#[derive(Debug)]
struct Held {
    traffic: Rc<Traffic>,
    _cluster: Option<Arc<Cluster>>,
    _peer: Option<Arc<WorkloadInfo>>,
}

/// A thread's handles.
pub struct Handles {
    stats: ThreadStats,
    own: Arc<WorkloadInfo>,
    held: RefCell<HashMap<Key, Held>>,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles").field("own", &self.own).finish_non_exhaustive()
    }
}

static NOBODY: LazyLock<Arc<WorkloadInfo>> = LazyLock::new(Arc::default);

impl Handles {
    /// For a thread whose workload is `own`.
    pub fn new(stats: ThreadStats, own: Arc<WorkloadInfo>) -> Self {
        Self { stats, own, held: RefCell::default() }
    }

    /// The thread's other counters.
    pub fn stats(&self) -> &ThreadStats {
        &self.stats
    }
}

/// The traffic that a request belongs to.
pub fn traffic(record: &Record) -> Rc<Traffic> {
    let handles = &record.connection.thread.handles;
    let connection = &record.connection;
    let reporter = Reporter::from(record.manager.direction);
    let tls = connection.tls.as_ref().filter(|info| info.verified);
    let (source_principal, destination_principal, security) = match reporter {
        Reporter::Destination => (
            tls.and_then(|info| info.uri_sans.first()).map(|uri| Arc::from(&**uri)),
            tls.and_then(|info| info.local_identity.clone()),
            if tls.is_some() { SecurityPolicy::MutualTls } else { SecurityPolicy::None },
        ),
        Reporter::Source => {
            let peer = record
                .upstream
                .as_ref()
                .and_then(|upstream| upstream.connection.as_ref()?.peer.clone())
                .filter(|peer| peer.verified);
            (
                peer.as_ref().and_then(|peer| peer.local_identity.clone()),
                peer.as_ref().and_then(|peer| peer.uri_sans.first()).map(|uri| Arc::from(&**uri)),
                SecurityPolicy::Unknown,
            )
        }
    };
    let peer = peer(record, reporter);
    // Without a cluster's own service the labels depend on what was asked for.
    let named = record.cluster.as_ref().is_some_and(|cluster| cluster.service.is_some());
    let service = (!named).then(|| service(record));
    let key = Key {
        reporter,
        cluster: record.cluster.as_ref().map_or(0, |cluster| Arc::as_ptr(cluster) as usize),
        service: service.as_ref().map(|service| service.host.clone()),
        peer: peer.as_ref().map_or(0, |peer| Arc::as_ptr(peer) as usize),
        source_principal,
        destination_principal,
        security,
    };
    if let Some(held) = handles.held.borrow().get(&key) {
        return held.traffic.clone();
    }
    let other = peer.clone().unwrap_or_else(|| NOBODY.clone());
    let (source, destination) = match reporter {
        Reporter::Source => (handles.own.clone(), other),
        Reporter::Destination => (other, handles.own.clone()),
    };
    let labels = TrafficLabels {
        reporter,
        source,
        source_principal: key.source_principal.clone().unwrap_or_default(),
        destination,
        destination_principal: key.destination_principal.clone().unwrap_or_default(),
        service: service.unwrap_or_else(|| self::service(record)),
        security,
    };
    let traffic = handles.stats.traffic(&labels);
    let mut held = handles.held.borrow_mut();
    if held.len() >= KEPT {
        held.clear();
    }
    let value = Held { traffic: traffic.clone(), _cluster: record.cluster.clone(), _peer: peer };
    held.insert(key, value);
    traffic
}

/// The workload at the other end: as it told itself, else as the endpoint's metadata says.
fn peer(record: &Record, reporter: Reporter) -> Option<Arc<WorkloadInfo>> {
    let endpoint = match reporter {
        Reporter::Source => record.upstream.as_ref().and_then(|up| up.endpoint.workload.clone()),
        Reporter::Destination => None,
    };
    record.peer.clone().or(endpoint)
}

/// The service that was asked for.
fn service(record: &Record) -> ServiceInfo {
    if let Some(cluster) = &record.cluster {
        return match (&cluster.service, record.manager.direction) {
            (Some(service), _) => service.clone(),
            // A server does not take clients' words for the names of services.
            (None, TrafficDirection::Inbound) => service_of(cluster, ""),
            (None, TrafficDirection::Outbound) => {
                let authority = record.authority.to_str().unwrap_or_default();
                service_of(cluster, without_port(authority))
            }
        };
    }
    if let Some(host) = &record.unrouted_host {
        return service_of_host(host);
    }
    let blocked = record.choice.as_ref().is_some_and(|choice| {
        &*choice.host.name == "block_all" || &*choice.route.name == "block_all"
    });
    // Names that the mesh does not know are not worth a series each.
    let name = if blocked { BLACK_HOLE_CLUSTER.into() } else { Arc::default() };
    ServiceInfo { host: Arc::default(), name, namespace: Arc::default() }
}

/// The service of a virtual host, whose name is `<host>:<port>`; of Kubernetes' names the parts are known.
fn service_of_host(name: &str) -> ServiceInfo {
    let host = without_port(name);
    let (short, rest) = host.split_once('.').unwrap_or((host, ""));
    match rest.split_once(".svc") {
        Some((namespace, _)) => {
            ServiceInfo { host: host.into(), name: short.into(), namespace: namespace.into() }
        }
        None => ServiceInfo { host: host.into(), name: host.into(), namespace: Arc::default() },
    }
}
