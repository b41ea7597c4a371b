//! Whose traffic a request is: the labels of Istio's metrics, resolved once per pair of workloads and kept.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use ::http::HeaderValue;
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
/// Handles of these that are looked at first.
const RECENT: usize = 8;

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
#[derive(Clone, Debug)]
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
    recent: RefCell<VecDeque<Recent>>,
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
        Self { stats, own, held: RefCell::default(), recent: RefCell::default() }
    }

    /// The thread's other counters.
    pub fn stats(&self) -> &ThreadStats {
        &self.stats
    }
}

/// Whose traffic a request is, where it stands.
#[derive(Clone, Copy)]
struct Whose<'a> {
    reporter: Reporter,
    cluster: Option<&'a Arc<Cluster>>,
    peer: Option<&'a Arc<WorkloadInfo>>,
    source_principal: Option<&'a str>,
    destination_principal: Option<&'a str>,
    security: SecurityPolicy,
    /// What was asked for, where the service's name is made of it.
    authority: Option<&'a HeaderValue>,
}

impl<'a> Whose<'a> {
    fn new(record: &'a Record) -> Self {
        let connection = &record.connection;
        let reporter = Reporter::from(record.manager.direction);
        let upstream = record.upstream.as_ref();
        let info = match reporter {
            Reporter::Destination => connection.tls.as_deref(),
            Reporter::Source => upstream.and_then(|up| up.connection.as_ref()?.peer.as_deref()),
        };
        let info = info.filter(|info| info.verified);
        let other = info.and_then(|info| info.certificate.uri_sans.first()).map(|uri| &**uri);
        let own = info.and_then(|info| info.local_identity.as_deref());
        let (source_principal, destination_principal, security) = match reporter {
            Reporter::Destination if info.is_some() => (other, own, SecurityPolicy::MutualTls),
            Reporter::Destination => (other, own, SecurityPolicy::None),
            Reporter::Source => (own, other, SecurityPolicy::Unknown),
        };
        // The workload at the other end: as it told itself, else as the endpoint's metadata says.
        let endpoint = match reporter {
            Reporter::Source => upstream.and_then(|up| up.endpoint.workload.as_ref()),
            Reporter::Destination => None,
        };
        let cluster = record.cluster.as_ref();
        let made = cluster.is_some_and(|cluster| cluster.service.is_none())
            && record.manager.direction == TrafficDirection::Outbound;
        Self {
            reporter,
            cluster,
            peer: record.peer.as_ref().or(endpoint),
            source_principal,
            destination_principal,
            security,
            authority: made.then_some(&record.authority),
        }
    }

    fn key(self, service: Option<Arc<str>>) -> Key {
        Key {
            reporter: self.reporter,
            cluster: address(self.cluster),
            service,
            peer: address(self.peer),
            source_principal: self.source_principal.map(Arc::from),
            destination_principal: self.destination_principal.map(Arc::from),
            security: self.security,
        }
    }
}

fn address<T>(held: Option<&Arc<T>>) -> usize {
    held.map_or(0, |held| Arc::as_ptr(held) as usize)
}

/// A handle that was asked for lately: it is found without a copy of what names it.
#[derive(Clone, Debug)]
struct Recent {
    key: Key,
    authority: Option<HeaderValue>,
    held: Held,
}

impl Recent {
    fn is(&self, whose: Whose<'_>) -> bool {
        let key = &self.key;
        key.cluster == address(whose.cluster)
            && key.peer == address(whose.peer)
            && (key.reporter, key.security) == (whose.reporter, whose.security)
            && self.authority.as_ref() == whose.authority
            && key.source_principal.as_deref() == whose.source_principal
            && key.destination_principal.as_deref() == whose.destination_principal
    }
}

/// The traffic that a request belongs to.
pub fn traffic(record: &Record) -> Rc<Traffic> {
    let handles = &record.connection.thread.handles;
    let whose = Whose::new(record);
    if whose.cluster.is_none() {
        // There are many reasons; none is worth to be fast.
        return handles.find(record, whose).traffic;
    }
    let mut recent = handles.recent.borrow_mut();
    if let Some(found) = recent.iter().find(|recent| recent.is(whose)) {
        return found.held.traffic.clone();
    }
    let held = handles.find(record, whose);
    if recent.len() >= RECENT {
        recent.pop_back();
    }
    let traffic = held.traffic.clone();
    let authority = whose.authority.cloned();
    recent.push_front(Recent { key: whose.key(None), authority, held });
    traffic
}

impl Handles {
    fn find(&self, record: &Record, whose: Whose<'_>) -> Held {
        // Without a cluster's own service the labels depend on what was asked for.
        let named = whose.cluster.is_some_and(|cluster| cluster.service.is_some());
        let service = (!named).then(|| service(record));
        let key = whose.key(service.as_ref().map(|service| service.host.clone()));
        if let Some(held) = self.held.borrow().get(&key) {
            return held.clone();
        }
        let other = whose.peer.unwrap_or(&NOBODY).clone();
        let (source, destination) = match whose.reporter {
            Reporter::Source => (self.own.clone(), other),
            Reporter::Destination => (other, self.own.clone()),
        };
        let labels = TrafficLabels {
            reporter: whose.reporter,
            source,
            source_principal: key.source_principal.clone().unwrap_or_default(),
            destination,
            destination_principal: key.destination_principal.clone().unwrap_or_default(),
            service: service.unwrap_or_else(|| self::service(record)),
            security: whose.security,
        };
        let mut held = self.held.borrow_mut();
        if held.len() >= KEPT {
            held.clear();
        }
        let value = Held {
            traffic: self.stats.traffic(&labels),
            _cluster: whose.cluster.cloned(),
            _peer: whose.peer.cloned(),
        };
        held.insert(key, value.clone());
        value
    }
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
