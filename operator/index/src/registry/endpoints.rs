//! The endpoints of services: from slices, from pods where nobody wrote slices, and from ServiceEntries.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_core::{
    endpoint::{Endpoint, EndpointAddress, EndpointSet, Health, Locality},
    selector::selects,
    service::{Registry as Source, Resolution, Service, ServicePort, TargetPort},
    snapshot::Snapshot,
    workload::Workload,
};

use super::Registry;
use crate::{
    kubernetes::slice::{SliceEndpoint, SliceRecord},
    service_entry,
};

/// An endpoint's pod was not seen yet, or has gone.
struct UnknownPod;

impl Registry {
    /// The endpoints of every port of a service.
    pub(super) fn make(&self, service: &Service, next: &Snapshot) -> BTreeMap<u16, EndpointSet> {
        let ports = service.ports.iter().filter(|port| port.protocol.is_proxied());
        ports
            .map(|port| {
                let endpoints = match service.registry {
                    Source::Kubernetes => self.of_service(service, port, next),
                    Source::ServiceEntry => self.of_entry(service, port),
                };
                (port.number, EndpointSet::new(endpoints))
            })
            .filter(|(_, set)| !set.endpoints.is_empty())
            .collect()
    }

    fn of_service(&self, service: &Service, port: &ServicePort, next: &Snapshot) -> Vec<Endpoint> {
        if let Some(target) = &service.external_name {
            let number = match port.target {
                TargetPort::Number(number) => number,
                TargetPort::Name(_) => port.number,
            };
            return vec![external_endpoint(service, target, number)];
        }
        match self.slices.get(&service.key) {
            Some(slices) => self.of_slices(service, port, slices, next),
            None if service.selector.is_empty() => Vec::new(),
            None => self.of_pods(service, port),
        }
    }

    fn of_slices(
        &self,
        service: &Service,
        port: &ServicePort,
        slices: &BTreeMap<Arc<str>, SliceRecord>,
        next: &Snapshot,
    ) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for slice in slices.values() {
            let number =
                slice.ports.iter().find(|(name, _)| *name == port.name).map(|(_, number)| *number);
            let Some(number) = number else { continue };
            for listed in &slice.endpoints {
                let published = service.publish_not_ready.then_some(Health::Healthy);
                let Some(health) = listed.health.or(published) else { continue };
                let Ok(workload) = self.pod_of(listed, next) else { continue };
                endpoints.push(slice_endpoint(service, listed, (number, health), workload));
            }
        }
        // A service with two address families lists every pod twice: one of the families is enough.
        let prefers_v6 = service.addresses.first().is_some_and(IpAddr::is_ipv6);
        let is_v6 =
            |endpoint: &Endpoint| matches!(endpoint.address, EndpointAddress::Ip(IpAddr::V6(_)));
        if endpoints.iter().any(|endpoint| is_v6(endpoint) == prefers_v6) {
            endpoints.retain(|endpoint| is_v6(endpoint) == prefers_v6);
        }
        endpoints
    }

    /// The pod of an endpoint, if it has one. Slices and pods come in any order: without its pod nobody knows whether
    /// an endpoint takes mutual TLS, so it has to wait for it.
    fn pod_of<'a>(
        &'a self,
        listed: &SliceEndpoint,
        next: &'a Snapshot,
    ) -> Result<Option<&'a Arc<Workload>>, UnknownPod> {
        let Some((namespace, name)) = &listed.pod else {
            return Ok(next.workloads.at(listed.address));
        };
        let pod = self.pods.get(namespace).and_then(|pods| pods.get(name)).ok_or(UnknownPod)?;
        Ok(Some(&pod.workload))
    }

    /// Endpoints of the pods that a service selects, for a service that nobody made slices for.
    fn of_pods(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let pods = self.pods.get(&service.key.namespace).into_iter().flat_map(BTreeMap::values);
        let chosen = pods.filter(|pod| {
            (pod.ready || service.publish_not_ready)
                && selects(&service.selector, &pod.workload.labels)
        });
        chosen.filter_map(|pod| pod_endpoint(service, port, &pod.workload)).collect()
    }

    fn of_entry(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let entry = self.entries.get(&service.key).and_then(|entries| entries.first());
        let Some(definition) = entry else { return Vec::new() };
        let mut endpoints = service_entry::endpoints(&definition.entry, service, port);
        if !service.selector.is_empty() && service.resolution != Resolution::Passthrough {
            endpoints.extend(self.of_pods(service, port));
        }
        for endpoint in &mut endpoints {
            endpoint.meshed &= !service.external;
        }
        endpoints
    }
}

fn external_endpoint(service: &Service, target: &Arc<str>, port: u16) -> Endpoint {
    let address =
        target.parse().map_or_else(|_| EndpointAddress::Dns(target.clone()), EndpointAddress::Ip);
    Endpoint {
        address,
        port,
        labels: Arc::default(),
        namespace: service.key.namespace.clone(),
        service_account: None,
        meshed: false,
        workload: None,
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
    }
}

fn slice_endpoint(
    service: &Service,
    listed: &SliceEndpoint,
    (port, health): (u16, Health),
    workload: Option<&Arc<Workload>>,
) -> Endpoint {
    let mut locality = workload.map(|workload| workload.locality.clone()).unwrap_or_default();
    if locality.zone.is_empty() {
        locality.zone = listed.zone.clone().unwrap_or_default();
    }
    Endpoint {
        address: EndpointAddress::Ip(listed.address),
        port,
        labels: workload.map(|workload| workload.labels.clone()).unwrap_or_default(),
        namespace: workload.map_or(&service.key.namespace, |workload| &workload.namespace).clone(),
        service_account: workload.map(|workload| workload.service_account.clone()),
        meshed: workload.is_some_and(|workload| workload.meshed),
        workload: workload.cloned(),
        locality,
        weight: 1,
        health,
    }
}

fn pod_endpoint(
    service: &Service,
    port: &ServicePort,
    workload: &Arc<Workload>,
) -> Option<Endpoint> {
    let number = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Name(name) => *workload.named_ports.get(name)?,
    };
    let prefers_v6 = service.addresses.first().is_some_and(IpAddr::is_ipv6);
    let addresses = &workload.addresses;
    let address =
        addresses.iter().find(|address| address.is_ipv6() == prefers_v6).or(addresses.first())?;
    Some(Endpoint {
        address: EndpointAddress::Ip(*address),
        port: number,
        labels: workload.labels.clone(),
        namespace: workload.namespace.clone(),
        service_account: Some(workload.service_account.clone()),
        meshed: workload.meshed,
        workload: Some(workload.clone()),
        locality: workload.locality.clone(),
        weight: 1,
        health: Health::Healthy,
    })
}
