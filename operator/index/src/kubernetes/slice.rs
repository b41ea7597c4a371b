//! EndpointSlice objects.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1 as api;
use weft_core::endpoint::Health;

use super::service::port_number;
use crate::object::{self, Kind};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice of a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SliceRecord {
    /// The Service that it belongs to.
    pub service: Arc<str>,
    /// Port names and numbers.
    pub ports: Vec<(Arc<str>, u16)>,
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SliceEndpoint {
    pub address: IpAddr,
    /// The pod, by namespace and name.
    pub pod: Option<(Arc<str>, Arc<str>)>,
    pub zone: Option<Arc<str>>,
    /// `None` when it takes no requests.
    pub health: Option<Health>,
}

/// Reads an EndpointSlice; `None` when it belongs to no Service or holds no addresses.
pub(crate) fn read(slice: &api::EndpointSlice) -> Option<SliceRecord> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.as_str().into();
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        return None;
    }
    let namespace = object::reference(Kind::EndpointSlice, &slice.metadata).namespace;
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        let name = port.name.as_deref().unwrap_or_default().into();
        Some((name, port_number(port.port?)?))
    });
    let endpoints = slice.endpoints.iter().flatten().flat_map(|endpoint| {
        let pod =
            endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let pod = pod.and_then(|target| {
            let own = || namespace.clone();
            let namespace = target.namespace.as_deref().map_or_else(own, Into::into);
            Some((namespace, Arc::from(target.name.as_deref()?)))
        });
        let zone = endpoint.zone.as_deref().map(Arc::from);
        let health = health(endpoint);
        // Every address of an endpoint stands for the same pod; consumers use the first.
        endpoint
            .addresses
            .first()
            .and_then(|address| address.parse().ok())
            .map(|address| SliceEndpoint { address, pod: pod.clone(), zone, health })
    });
    Some(SliceRecord { service, ports: ports.collect(), endpoints: endpoints.collect() })
}

fn health(endpoint: &api::Endpoint) -> Option<Health> {
    let Some(conditions) = &endpoint.conditions else { return Some(Health::Healthy) };
    let serving_while_terminating =
        conditions.serving == Some(true) && conditions.terminating == Some(true);
    match conditions.ready {
        None | Some(true) => Some(Health::Healthy),
        Some(false) if serving_while_terminating => Some(Health::Draining),
        Some(false) => None,
    }
}
