//! Endpoints. Which transport each gets is decided when they meet their cluster.

use std::{net::SocketAddr, sync::Arc};

use weft_api::xds::envoy::config::{
    core::v3::{HealthStatus, Metadata},
    endpoint::v3::{
        ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
    },
};
use weft_api::xds::google::protobuf::value::Kind;

use super::{
    invalid::{At, Invalid, each, refuse, refuse_all},
    value::{number, socket, socket_port, text_of},
};
use crate::config::cluster::WorkloadInfo;

/// Region, zone, sub-zone.
pub type Locality = (Box<str>, Box<str>, Box<str>);

/// String fields of metadata, sorted by key.
pub type Fields = Vec<(Box<str>, Box<str>)>;

/// A load assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Its localities in order.
    pub localities: Vec<LocalityEndpoints>,
}

/// The endpoints of one locality and priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// Where.
    pub locality: Locality,
    /// 0 is used first.
    pub priority: u32,
    /// Share of the locality, when the cluster splits by locality.
    pub weight: Option<u32>,
    /// Who.
    pub endpoints: Vec<AssignedEndpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedEndpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its name.
    pub hostname: Option<Box<str>>,
    /// At least 1.
    pub weight: u32,
    /// Gets new requests.
    pub healthy: bool,
    /// `envoy.transport_socket_match`.
    pub transport: Fields,
    /// `istio.workload`.
    pub workload: Option<Arc<WorkloadInfo>>,
}

/// An address, or a name that must be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(SocketAddr),
    /// A DNS name.
    Name(Box<str>, u16),
}

/// `ClusterLoadAssignment`.
pub fn assignment(assignment: &ClusterLoadAssignment) -> Result<Assignment, Invalid> {
    refuse(!assignment.named_endpoints.is_empty(), "named_endpoints")?;
    if let Some(policy) = &assignment.policy {
        refuse_all(&[
            (!policy.drop_overloads.is_empty(), "policy.drop_overloads"),
            (policy.weighted_priority_health, "policy.weighted_priority_health"),
        ])?;
    }
    Ok(Assignment { localities: each(&assignment.endpoints, "endpoints", locality)? })
}

fn locality(group: &LocalityLbEndpoints) -> Result<LocalityEndpoints, Invalid> {
    refuse(group.lb_config.is_some(), "lb_config")?;
    let locality = group.locality.clone().unwrap_or_default();
    Ok(LocalityEndpoints {
        locality: (locality.region.into(), locality.zone.into(), locality.sub_zone.into()),
        priority: group.priority,
        weight: group.load_balancing_weight.as_ref().map(|weight| weight.value),
        endpoints: each(&group.lb_endpoints, "lb_endpoints", endpoint)?,
    })
}

fn endpoint(lb: &LbEndpoint) -> Result<AssignedEndpoint, Invalid> {
    let endpoint = match &lb.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => return Err(Invalid::unsupported("endpoint_name")),
        None => return Err(Invalid::missing("endpoint")),
    };
    refuse(!endpoint.additional_addresses.is_empty(), "endpoint.additional_addresses")?;
    let address = endpoint.address.as_ref().ok_or_else(|| Invalid::missing("endpoint.address"))?;
    let address = (|| {
        let socket = socket(address)?;
        let port = socket_port(socket).at("socket_address")?;
        Ok(match socket.address.parse() {
            Ok(ip) => EndpointAddress::Ip(SocketAddr::new(ip, port)),
            Err(_) if socket.address.is_empty() => {
                return Err(Invalid::missing("socket_address.address"));
            }
            Err(_) => EndpointAddress::Name(socket.address.as_str().into(), port),
        })
    })()
    .at("endpoint.address")?;
    let healthy = matches!(
        HealthStatus::try_from(lb.health_status),
        Ok(HealthStatus::Healthy | HealthStatus::Unknown)
    );
    Ok(AssignedEndpoint {
        address,
        hostname: Some(endpoint.hostname.as_str()).filter(|name| !name.is_empty()).map(Into::into),
        weight: number(lb.load_balancing_weight.as_ref(), 1).max(1),
        healthy,
        transport: transport(lb.metadata.as_ref()),
        workload: workload(lb.metadata.as_ref()).map(Arc::new),
    })
}

/// The string fields of `envoy.transport_socket_match`, sorted.
fn transport(metadata: Option<&Metadata>) -> Fields {
    let Some(fields) = metadata.and_then(|m| m.filter_metadata.get("envoy.transport_socket_match"))
    else {
        return Vec::new();
    };
    let mut fields: Vec<_> = fields
        .fields
        .iter()
        .filter_map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => Some((key.as_str().into(), text.as_str().into())),
            _ => None,
        })
        .collect();
    fields.sort_unstable();
    fields
}

/// `<workload>;<namespace>;<canonical name>;<canonical revision>;<cluster>`.
fn workload(metadata: Option<&Metadata>) -> Option<WorkloadInfo> {
    let text = text_of(metadata?.filter_metadata.get("istio")?, "workload")?;
    let mut parts = text.split(';').map(Arc::<str>::from);
    let mut next = || parts.next().unwrap_or_default();
    Some(WorkloadInfo {
        workload: next(),
        namespace: next(),
        canonical_name: next(),
        canonical_revision: next(),
        cluster: next(),
        ..WorkloadInfo::default()
    })
}
