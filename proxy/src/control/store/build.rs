//! Clusters and endpoints put together: the form that data threads read.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::slot::Slots;
use crate::{
    config::cluster::{Cluster, Discovery, Endpoint, Endpoints, TransportSocket},
    control::decode::{
        cluster::DecodedCluster,
        endpoint::{AssignedEndpoint, Assignment, EndpointAddress, Fields, LocalityEndpoints},
    },
    net::cluster::StateStore,
};

/// Addresses of a name, after the first look-up.
pub type Addresses = Arc<[IpAddr]>;

/// A cluster in effect, and what it was made of.
#[derive(Debug)]
pub struct Built {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    from: Parts,
}

/// What a cluster is made of. Equal parts make equal clusters.
#[derive(Clone, Debug)]
pub struct Parts {
    decoded: Arc<DecodedCluster>,
    assignment: Option<Arc<Assignment>>,
    addresses: Vec<(Box<str>, Addresses)>,
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        let same_assignment = match (&self.assignment, &other.assignment) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.decoded, &other.decoded)
            && same_assignment
            && self.addresses == other.addresses
    }
}

/// The parts of a cluster, once all have arrived.
pub fn parts(
    decoded: &Arc<DecodedCluster>,
    endpoints: &Slots<Assignment>,
    addresses: &HashMap<Box<str>, Addresses>,
) -> Option<Parts> {
    let assignment = match &decoded.eds {
        Some(name) => {
            let slot = endpoints.get(name)?;
            if slot.is_pending() {
                return None;
            }
            slot.latest().map(|accepted| accepted.value.clone())
        }
        None => decoded.inline.clone(),
    };
    let addresses = names(decoded)
        .map(|name| Some((Box::from(name), addresses.get(name)?.clone())))
        .collect::<Option<Vec<_>>>()?;
    Some(Parts { decoded: decoded.clone(), assignment, addresses })
}

/// The names that a DNS cluster needs addresses of.
fn names(decoded: &DecodedCluster) -> impl Iterator<Item = &str> {
    let by_name = matches!(decoded.discovery, Discovery::StrictDns | Discovery::LogicalDns);
    decoded
        .inline
        .iter()
        .filter(move |_| by_name)
        .flat_map(|assignment| &assignment.localities)
        .flat_map(|locality| &locality.endpoints)
        .filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Name(name, _) => Some(&**name),
            EndpointAddress::Ip(_) => None,
        })
}

/// See `Store::names_to_resolve`.
pub fn names_to_resolve(clusters: &Slots<DecodedCluster>) -> Vec<(Box<str>, Duration)> {
    let mut wanted: HashMap<&str, Duration> = HashMap::new();
    for (_, slot) in clusters.iter() {
        if let Some(accepted) = slot.latest() {
            for name in names(&accepted.value) {
                let every = wanted.entry(name).or_insert(accepted.value.dns_refresh);
                *every = (*every).min(accepted.value.dns_refresh);
            }
        }
    }
    wanted.into_iter().map(|(name, every)| (name.into(), every)).collect()
}

/// See `Store::resolved`.
pub fn resolved(known: &mut HashMap<Box<str>, Addresses>, name: &str, mut addresses: Vec<IpAddr>) {
    addresses.sort_unstable();
    addresses.dedup();
    match known.get_mut(name) {
        Some(old) if addresses.is_empty() || old[..] == addresses[..] => {}
        Some(old) => *old = addresses.into(),
        None => {
            known.insert(name.into(), addresses.into());
        }
    }
}

impl Built {
    /// Puts a cluster together, or gives the one that was made of the same parts.
    pub fn update(old: Option<Self>, from: Parts, states: &mut StateStore) -> Self {
        if let Some(old) = old
            && old.from == from
        {
            return old;
        }
        Self { cluster: Arc::new(build(&from, states)), from }
    }
}

fn build(parts: &Parts, states: &mut StateStore) -> Cluster {
    let decoded = &*parts.decoded;
    let endpoints = parts
        .assignment
        .as_ref()
        .map(|assignment| endpoints(decoded, assignment, &parts.addresses, states))
        .unwrap_or_default();
    let protocol = &decoded.protocol;
    Cluster {
        name: decoded.name.clone(),
        discovery: decoded.discovery,
        lb: decoded.lb,
        connect_timeout: decoded.connect_timeout,
        protocol: protocol.protocol,
        max_requests_per_connection: protocol.max_requests_per_connection,
        idle_timeout: protocol.idle_timeout,
        max_connection_duration: protocol.max_connection_duration,
        max_concurrent_streams: protocol.max_concurrent_streams,
        http2_keepalive: protocol.http2_keepalive,
        tcp_keepalive: decoded.tcp_keepalive,
        limits: decoded.limits,
        outlier: decoded.outlier,
        panic_threshold: decoded.panic_threshold,
        health_check: decoded.health_check.clone(),
        transports: decoded.transports.clone(),
        bind_source: decoded.bind_source.clone(),
        service: decoded.service.clone(),
        endpoints: Arc::new(Endpoints { all: endpoints }),
        state: states.cluster(&decoded.name),
    }
}

/// Ordered by priority, then address; an address counts once.
fn endpoints(
    decoded: &DecodedCluster,
    assignment: &Assignment,
    addresses: &[(Box<str>, Addresses)],
    states: &mut StateStore,
) -> Vec<Arc<Endpoint>> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for group in &assignment.localities {
        let scale = weight_scale(decoded, group);
        for assigned in &group.endpoints {
            let found = socket_addresses(decoded, assigned, addresses);
            for address in found {
                if !seen.insert(address) {
                    continue;
                }
                all.push(Arc::new(Endpoint {
                    address,
                    hostname: hostname(assigned),
                    priority: group.priority,
                    weight: scaled(assigned.weight, scale),
                    healthy: assigned.healthy,
                    transport: transport(&decoded.transports, &assigned.transport),
                    locality: group.locality.clone(),
                    workload: assigned.workload.clone(),
                    state: states.endpoint(&decoded.name, address),
                }));
            }
        }
    }
    all.sort_by_key(|endpoint| (endpoint.priority, endpoint.address));
    all
}

fn hostname(assigned: &AssignedEndpoint) -> Option<Box<str>> {
    assigned.hostname.clone().or_else(|| match &assigned.address {
        EndpointAddress::Name(name, _) => Some(name.clone()),
        EndpointAddress::Ip(_) => None,
    })
}

fn socket_addresses(
    decoded: &DecodedCluster,
    assigned: &AssignedEndpoint,
    addresses: &[(Box<str>, Addresses)],
) -> Vec<SocketAddr> {
    match &assigned.address {
        EndpointAddress::Ip(address) => vec![*address],
        EndpointAddress::Name(name, port) => {
            let most = if decoded.discovery == Discovery::LogicalDns { 1 } else { usize::MAX };
            addresses
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, all)| {
                    let family = decoded.dns_family;
                    all.iter().filter(move |address| family.takes(**address, all)).take(most)
                })
                .into_iter()
                .flatten()
                .map(|address| SocketAddr::new(*address, *port))
                .collect()
        }
    }
}

/// With weighted localities an endpoint's share is its part of its locality's; in thousandths, to keep small parts.
fn weight_scale(decoded: &DecodedCluster, group: &LocalityEndpoints) -> Option<(u64, u64)> {
    let weight = group.weight.filter(|_| decoded.locality_weighted)?;
    let sum: u64 = group.endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    Some((u64::from(weight) * 1000, sum.max(1)))
}

fn scaled(weight: u32, scale: Option<(u64, u64)>) -> u32 {
    match scale {
        None => weight,
        Some((share, sum)) => {
            let scaled = u128::from(weight) * u128::from(share) / u128::from(sum);
            u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
        }
    }
}

/// The first transport whose fields the endpoint has.
fn transport(transports: &[TransportSocket], fields: &Fields) -> Option<usize> {
    transports
        .iter()
        .position(|transport| transport.matches.iter().all(|field| fields.contains(field)))
        .filter(|index| transports[*index].tls.is_some())
}
