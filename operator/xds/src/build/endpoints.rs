//! Endpoints of clusters, with what proxies need to know of each.

use std::{collections::BTreeMap, net::IpAddr};

use weft_api::{
    identity::SpiffeId,
    names::ClusterName,
    xds::envoy::config::{
        cluster::v3::cluster::DiscoveryType,
        core::v3::{Address, HealthStatus, Locality as PbLocality, Pipe, address},
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint as PbEndpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
    },
};
use weft_core::{
    endpoint::{Endpoint, EndpointAddress, Health, Locality},
    selector::selects,
    service::{Resolution, TargetPort},
};

use super::{
    cluster::Target,
    message::{address, metadata, named_address, object, text, uint32},
    scope::Scope,
};

/// The Kubernetes cluster that endpoints are in; this mesh has one.
const KUBE_CLUSTER: &str = "Kubernetes";

/// The endpoints of an EDS cluster. There is an answer for every such cluster, with endpoints or without.
pub(crate) fn build(scope: &Scope<'_>, name: &ClusterName) -> Option<ClusterLoadAssignment> {
    let target = Target::find(scope, name)?;
    if target.discovery(scope, &name.subset) != DiscoveryType::Eds {
        return None;
    }
    Some(assignment(scope, name, &target))
}

/// The endpoints of a cluster whose endpoints are names.
pub(crate) fn dns(
    scope: &Scope<'_>,
    name: &ClusterName,
    target: &Target<'_>,
) -> ClusterLoadAssignment {
    let mut assignment = assignment(scope, name, target);
    if assignment.endpoints.is_empty() && target.service.resolution == Resolution::Passthrough {
        let port = match target.port.target {
            TargetPort::Number(number) => number,
            TargetPort::Name(_) => target.port.number,
        };
        let host = lb_endpoint(named_address(target.service.hostname(), port));
        assignment.endpoints = vec![LocalityLbEndpoints {
            lb_endpoints: vec![host],
            ..LocalityLbEndpoints::default()
        }];
    }
    assignment
}

/// One endpoint, without more to say of it.
pub(crate) fn single(name: &str, ip: IpAddr, port: u16) -> ClusterLoadAssignment {
    let locality = LocalityLbEndpoints {
        lb_endpoints: vec![lb_endpoint(address(ip, port))],
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(address: Address) -> LbEndpoint {
    let endpoint = PbEndpoint { address: Some(address), ..PbEndpoint::default() };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    }
}

fn assignment(scope: &Scope<'_>, name: &ClusterName, target: &Target<'_>) -> ClusterLoadAssignment {
    let set = scope.endpoints(target.service, name.port);
    let subset = target.rule.as_ref().and_then(|rule| rule.subset_labels(&name.subset));
    let mut localities: BTreeMap<&Locality, Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in &set.endpoints {
        if subset.is_some_and(|labels| !selects(labels, &endpoint.labels)) {
            continue;
        }
        if let Some(built) = one(scope, target, endpoint) {
            localities.entry(&endpoint.locality).or_default().push(built);
        }
    }
    ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints: localities.into_iter().map(|(place, built)| locality(place, built)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn locality(place: &Locality, lb_endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    let weight = |endpoint: &LbEndpoint| {
        endpoint.load_balancing_weight.as_ref().map_or(1, |weight| weight.value)
    };
    let weight = lb_endpoints.iter().map(weight).fold(0, u32::saturating_add);
    LocalityLbEndpoints {
        locality: Some(PbLocality {
            region: place.region.to_string(),
            zone: place.zone.to_string(),
            sub_zone: place.sub_zone.to_string(),
        }),
        load_balancing_weight: Some(uint32(weight)),
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    }
}

fn one(scope: &Scope<'_>, target: &Target<'_>, endpoint: &Endpoint) -> Option<LbEndpoint> {
    let is_eds = target.service.resolution == Resolution::Static;
    let address = match &endpoint.address {
        EndpointAddress::Ip(ip) => address(*ip, endpoint.port),
        // EDS takes no names.
        EndpointAddress::Dns(_) if is_eds => return None,
        EndpointAddress::Dns(name) => named_address(name, endpoint.port),
        EndpointAddress::Unix(path) => {
            let pipe = Pipe { path: path.to_string(), mode: 0 };
            Address { address: Some(address::Address::Pipe(pipe)) }
        }
    };
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    let mut described = Vec::new();
    if !target.service.external && scope.endpoint_accepts_mtls(endpoint) {
        described.push(("envoy.transport_socket_match", object([("tlsMode", text("istio"))])));
    }
    if let Some(workload) = &endpoint.workload {
        let id = format!(
            "{};{};{};{};{KUBE_CLUSTER}",
            workload.workload_name,
            workload.namespace,
            workload.canonical_name,
            workload.canonical_revision
        );
        described.push(("istio", object([("workload", text(id))])));
    }
    Some(LbEndpoint {
        health_status: health.into(),
        metadata: (!described.is_empty()).then(|| metadata(described)),
        load_balancing_weight: Some(uint32(endpoint.weight.max(1))),
        ..lb_endpoint(address)
    })
}

/// The SPIFFE URIs that servers of a service's port may have: those of its endpoints' service accounts, in every trust
/// domain of the mesh, and those that the service names itself (item 70).
pub(crate) fn identities(scope: &Scope<'_>, target: &Target<'_>) -> Vec<String> {
    let mesh = scope.mesh();
    let set = scope.endpoints(target.service, target.port.number);
    let mut uris: Vec<String> =
        target.service.subject_alt_names.iter().map(ToString::to_string).collect();
    for endpoint in &set.endpoints {
        let Some(account) = &endpoint.service_account else { continue };
        for domain in std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases) {
            uris.push(SpiffeId::new(domain, &endpoint.namespace, account).to_string());
        }
    }
    uris.sort_unstable();
    uris.dedup();
    uris
}
