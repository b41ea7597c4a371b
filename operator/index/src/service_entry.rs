//! ServiceEntries: the services that they define and the endpoints that they list (`istio-behaviours` 1.4 and 2.7,
//! items 62 and 63).

use std::{net::IpAddr, sync::Arc};

use weft_core::{
    endpoint::{Endpoint, EndpointAddress, Health},
    host,
    mesh::MeshConfig,
    protocol::Protocol,
    resource::Resource,
    service::{Registry, Resolution, Service, ServiceKey, ServicePort, TargetPort, Visibility},
};
use weft_crds::networking::{
    ServiceEntryLocation, ServiceEntryResolution, ServiceEntrySpec, WorkloadEntrySpec,
};

use crate::kubernetes::pod::{parse_locality, tls_mode};

/// The services that an entry defines: one for each host.
pub(crate) fn services(entry: &Resource<ServiceEntrySpec>, mesh: &MeshConfig) -> Vec<Service> {
    let spec = &entry.spec;
    let namespace = &entry.reference.namespace;
    let hosts = spec.hosts.iter().map(|host| host.to_ascii_lowercase());
    hosts
        .map(|hostname| Service {
            name: hostname.split('.').next().unwrap_or_default().into(),
            addresses: spec.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            networks: spec.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            ports: ports(spec),
            resolution: resolution(spec.resolution, &hostname),
            external: spec.location == ServiceEntryLocation::MeshExternal,
            registry: Registry::ServiceEntry,
            created: entry.created,
            visibility: Visibility::from_export_to(
                &spec.export_to,
                &mesh.default_service_export_to,
                namespace,
            ),
            selector: selector(spec).cloned().unwrap_or_default(),
            headless: false,
            publish_not_ready: false,
            external_name: None,
            subject_alt_names: spec
                .subject_alt_names
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            key: ServiceKey { namespace: namespace.clone(), hostname: hostname.into() },
        })
        .collect()
}

fn selector(spec: &ServiceEntrySpec) -> Option<&weft_core::selector::Labels> {
    spec.workload_selector.as_ref().map(|selector| &selector.labels)
}

fn ports(spec: &ServiceEntrySpec) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for port in &spec.ports {
        if port.number == 0 || ports.iter().any(|other| other.number == port.number) {
            continue;
        }
        let target = if port.target_port == 0 { port.number } else { port.target_port };
        ports.push(ServicePort {
            name: port.name.as_str().into(),
            number: port.number,
            target: TargetPort::Number(target),
            protocol: Protocol::from_name(&port.protocol),
        });
    }
    ports.sort_by_key(|port| port.number);
    ports
}

fn resolution(resolution: ServiceEntryResolution, hostname: &str) -> Resolution {
    match resolution {
        ServiceEntryResolution::Static => Resolution::Static,
        ServiceEntryResolution::Dns => Resolution::Dns,
        ServiceEntryResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        // A name is looked up as it is asked for; that of a wildcard is the connection's own.
        ServiceEntryResolution::DynamicDns if !host::is_wildcard(hostname) => Resolution::Dns,
        ServiceEntryResolution::None | ServiceEntryResolution::DynamicDns => {
            Resolution::Passthrough
        }
    }
}

/// The endpoints that an entry lists for a port of a service of its own, pods that it selects aside.
pub(crate) fn endpoints(
    entry: &Resource<ServiceEntrySpec>,
    service: &Service,
    port: &ServicePort,
) -> Vec<Endpoint> {
    let target = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.number,
    };
    let by_name = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if service.resolution == Resolution::Passthrough {
        return Vec::new();
    }
    if entry.spec.endpoints.is_empty() && by_name && service.selector.is_empty() {
        if host::is_wildcard(service.hostname()) {
            return Vec::new();
        }
        let own =
            WorkloadEntrySpec { address: service.hostname().to_owned(), ..Default::default() };
        return endpoint(entry, service, (&own, target)).into_iter().collect();
    }
    let number = |workload: &WorkloadEntrySpec| {
        workload.ports.get(&*port.name).copied().filter(|number| *number > 0).unwrap_or(target)
    };
    let listed = entry.spec.endpoints.iter();
    listed.filter_map(|workload| endpoint(entry, service, (workload, number(workload)))).collect()
}

fn endpoint(
    entry: &Resource<ServiceEntrySpec>,
    service: &Service,
    (workload, port): (&WorkloadEntrySpec, u16),
) -> Option<Endpoint> {
    let text = workload.address.as_str();
    let (address, port) = match (text.strip_prefix("unix://"), text.parse::<IpAddr>()) {
        (Some(path), _) => (EndpointAddress::Unix(path.into()), 0),
        (None, Ok(address)) => (EndpointAddress::Ip(address), port),
        (None, Err(_)) if text.is_empty() => return None,
        (None, Err(_)) => (EndpointAddress::Dns(text.to_ascii_lowercase().into()), port),
    };
    let account = Some(&workload.service_account).filter(|account| !account.is_empty());
    // Who says neither has no proxy; outside the mesh nobody has.
    let meshed = tls_mode(&workload.labels).unwrap_or(account.is_some());
    Some(Endpoint {
        address,
        port,
        labels: Arc::new(workload.labels.clone()),
        namespace: entry.reference.namespace.clone(),
        service_account: account.map(|account| account.as_str().into()),
        meshed: meshed && !service.external,
        workload: None,
        locality: parse_locality(&workload.locality, '/'),
        weight: workload.weight,
        health: Health::Healthy,
    })
}
