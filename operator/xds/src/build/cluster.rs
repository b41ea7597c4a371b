//! Clusters: a service's port or a subset of it, the application's own ports, and those that stand for no service.

use std::{collections::BTreeSet, net::IpAddr};

use weft_api::{
    names::{
        BLACK_HOLE_CLUSTER, ClusterName, Direction, INBOUND_PASSTHROUGH_CLUSTER,
        PASSTHROUGH_CLUSTER,
    },
    xds::envoy::config::{
        cluster::v3::{
            Cluster,
            cluster::{
                ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
                TransportSocketMatch,
            },
        },
        core::v3::{
            BindConfig, ExtraSourceAddress, Metadata, SocketAddress, socket_address::PortSpecifier,
        },
        endpoint::v3::ClusterLoadAssignment,
    },
};
use weft_core::{
    service::{Resolution, Service, ServicePort},
    snapshot::{EffectiveDestinationRule, InboundPort},
};
use weft_crds::networking::{ClientTlsMode, TrafficPolicy};

use super::{
    endpoints,
    message::{ads, duration, list, metadata, nested, number, object, text},
    scope::Scope,
    tls,
    traffic_policy::{self as policy, AutoSni, Upstream},
};

/// Where the inbound side of a captured workload's proxy calls the application from, so that the call is not captured.
const INBOUND_SOURCE: [&str; 2] = ["127.0.0.6", "::6"];

/// Every cluster that the node may see.
pub(crate) fn names(scope: &Scope<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for service in scope.visible_services() {
        let rule = scope.destination_rule(service);
        let subsets = rule.iter().flat_map(|rule| &rule.spec.subsets).map(|s| s.name.as_str());
        let subsets: BTreeSet<&str> = std::iter::once("").chain(subsets).collect();
        for port in service.ports.iter().filter(|port| port.protocol.is_proxied()) {
            names.extend(subsets.iter().map(|subset| {
                ClusterName::outbound(port.number, subset, service.hostname()).to_string()
            }));
        }
    }
    names.push(BLACK_HOLE_CLUSTER.into());
    if scope.is_gateway() {
        return names;
    }
    names.extend(
        scope.inbound_ports().iter().map(|port| ClusterName::inbound(port.target_port).to_string()),
    );
    if scope.is_captured() {
        names.push(INBOUND_PASSTHROUGH_CLUSTER.into());
        names.push(PASSTHROUGH_CLUSTER.into());
    }
    names
}

pub(crate) fn build(scope: &Scope<'_>, name: &str) -> Option<Cluster> {
    match name {
        BLACK_HOLE_CLUSTER => Some(named(scope, name, DiscoveryType::Static)),
        PASSTHROUGH_CLUSTER => Some(passthrough(scope, name)),
        INBOUND_PASSTHROUGH_CLUSTER => {
            let mut cluster = passthrough(scope, name);
            cluster.upstream_bind_config =
                scope.is_captured().then(|| inbound_source(scope.address()));
            Some(cluster)
        }
        name => {
            let name: ClusterName = name.parse().ok()?;
            match name.direction {
                Direction::Outbound => outbound(scope, &name),
                Direction::Inbound => inbound(scope, &name),
            }
        }
    }
}

fn named(scope: &Scope<'_>, name: &str, discovery: DiscoveryType) -> Cluster {
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        connect_timeout: Some(duration(scope.mesh().connect_timeout)),
        ..Cluster::default()
    }
}

/// A cluster without endpoints of its own: the connection's destination is used.
fn passthrough(scope: &Scope<'_>, name: &str) -> Cluster {
    let mut cluster = named(scope, name, DiscoveryType::OriginalDst);
    policy::apply_limits(&mut cluster, None, None);
    cluster.lb_policy = LbPolicy::ClusterProvided.into();
    policy::apply_protocol(&mut cluster, Upstream::Downstream, None, AutoSni::default());
    cluster
}

/// In both families, that of the application first: a call from anywhere else would be captured again.
fn inbound_source(application: IpAddr) -> BindConfig {
    let address = |family: bool| SocketAddress {
        address: INBOUND_SOURCE[usize::from(family)].into(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    };
    let first = application.is_ipv6();
    BindConfig {
        source_address: Some(address(first)),
        extra_source_addresses: vec![ExtraSourceAddress {
            address: Some(address(!first)),
            ..ExtraSourceAddress::default()
        }],
        ..BindConfig::default()
    }
}

/// A service's port as a node sees it, with what the node's rules say of it.
pub(crate) struct Target<'a> {
    pub(crate) service: &'a Service,
    pub(crate) port: &'a ServicePort,
    pub(crate) rule: Option<std::sync::Arc<EffectiveDestinationRule>>,
}

impl<'a> Target<'a> {
    /// The target of an outbound cluster's name; `None` when there is no such service, port or subset.
    pub(crate) fn find(scope: &Scope<'a>, name: &ClusterName) -> Option<Self> {
        let service = scope.service_named(&name.host)?;
        let port = service.port(name.port).filter(|port| port.protocol.is_proxied())?;
        let rule = scope.destination_rule(service);
        if !name.subset.is_empty() {
            rule.as_ref()?.subset_labels(&name.subset)?;
        }
        Some(Self { service, port, rule })
    }

    fn policy(&self, subset: &str) -> TrafficPolicy {
        self.rule
            .as_ref()
            .and_then(|rule| rule.traffic_policy(self.port.number, subset))
            .unwrap_or_default()
    }

    /// The client itself chose the endpoint.
    fn is_headless(&self, scope: &Scope<'_>) -> bool {
        self.service.headless && scope.is_captured()
    }

    /// How the proxy finds endpoints.
    pub(crate) fn discovery(&self, scope: &Scope<'_>, subset: &str) -> DiscoveryType {
        if policy::is_passthrough(self.policy(subset).load_balancer.as_ref()) {
            return DiscoveryType::OriginalDst;
        }
        match self.service.resolution {
            // Where nothing is captured, what the client named is all there is to go by.
            Resolution::Passthrough
                if !scope.is_captured() && !self.service.hostname().starts_with('*') =>
            {
                DiscoveryType::StrictDns
            }
            Resolution::Passthrough => DiscoveryType::OriginalDst,
            // Stock Envoy knows no cluster that has endpoints and goes by the connection's destination.
            Resolution::Static if self.is_headless(scope) && !scope.is_on_demand() => {
                DiscoveryType::OriginalDst
            }
            Resolution::Static => DiscoveryType::Eds,
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        }
    }
}

fn outbound(scope: &Scope<'_>, name: &ClusterName) -> Option<Cluster> {
    let target = Target::find(scope, name)?;
    let settings = target.policy(&name.subset);
    let discovery = target.discovery(scope, &name.subset);
    let mut cluster = named(scope, &name.to_string(), discovery);
    let pool = settings.connection_pool.as_ref();
    policy::apply_limits(&mut cluster, pool, settings.retry_budget.as_ref());
    policy::apply_outlier_detection(&mut cluster, settings.outlier_detection.as_ref());
    policy::apply_load_balancer(&mut cluster, settings.load_balancer.as_ref());
    match discovery {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name.to_string() });
            if target.is_headless(scope) {
                cluster.lb_policy = LbPolicy::ClusterProvided.into();
                cluster.lb_config = None;
            }
        }
        DiscoveryType::OriginalDst => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.lb_config = None;
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let mut assignment = endpoints::dns(scope, name, &target);
            if discovery == DiscoveryType::LogicalDns {
                // Envoy takes exactly one name.
                keep_one(&mut assignment);
            }
            cluster.load_assignment = Some(assignment);
        }
        DiscoveryType::Static => {}
    }
    let auto = apply_tls(scope, &mut cluster, name, &target, &settings);
    let upstream = Upstream::outbound(target.port.protocol, pool);
    policy::apply_protocol(&mut cluster, upstream, pool, auto);
    cluster.metadata = Some(service_metadata(&target, name));
    Some(cluster)
}

fn keep_one(assignment: &mut ClusterLoadAssignment) {
    assignment.endpoints.truncate(1);
    for locality in &mut assignment.endpoints {
        locality.lb_endpoints.truncate(1);
    }
}

/// What telemetry says of the cluster, and which rules it was made of.
fn service_metadata(target: &Target<'_>, name: &ClusterName) -> Metadata {
    let service = target.service;
    let described = object([
        ("host", text(service.hostname())),
        ("name", text(&*service.name)),
        ("namespace", text(&*service.key.namespace)),
    ]);
    let mut istio = object([
        ("services", list(vec![nested(described)])),
        ("default_original_port", number(target.port.number)),
    ]);
    if !name.subset.is_empty() {
        istio.fields.insert("subset".into(), text(&name.subset));
    }
    if let Some(source) = target.rule.as_ref().and_then(|rule| rule.sources.first()) {
        let path = format!(
            "/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}",
            source.namespace, source.name
        );
        istio.fields.insert("config".into(), text(path));
    }
    metadata([("istio", istio)])
}

/// How endpoints are spoken to: as the rule says, else mutual TLS with those that take it (items 37, 44, 69 and 70).
fn apply_tls(
    scope: &Scope<'_>,
    cluster: &mut Cluster,
    name: &ClusterName,
    target: &Target<'_>,
    settings: &TrafficPolicy,
) -> AutoSni {
    let protocol = target.port.protocol;
    let mutual = |sni: &str, servers: &[String]| {
        let sni = if sni.is_empty() { name.sni() } else { sni.to_owned() };
        let servers = match servers {
            [] => endpoints::identities(scope, target),
            // Whoever names servers means these alone.
            named => named.to_vec(),
        };
        tls::mesh_upstream(sni, servers, protocol, scope.metadata_exchange())
    };
    let Some(rule) = &settings.tls else {
        if scope.mesh().enable_auto_mtls && takes_mtls(target) {
            let istio = object([("tlsMode", text("istio"))]);
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".into(),
                    r#match: Some(istio),
                    transport_socket: Some(mutual("", &[])),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".into(),
                    r#match: Some(object([])),
                    transport_socket: Some(tls::plaintext()),
                },
            ];
        }
        return AutoSni::default();
    };
    match rule.mode {
        ClientTlsMode::Disable => AutoSni::default(),
        ClientTlsMode::IstioMutual => {
            cluster.transport_socket = Some(mutual(&rule.sni, &rule.subject_alt_names));
            AutoSni::default()
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            cluster.transport_socket = Some(tls::originated(rule, protocol));
            let sni = rule.sni.is_empty();
            let verifies = !rule.insecure_skip_verify.unwrap_or_default();
            AutoSni { sni, san: sni && verifies && rule.subject_alt_names.is_empty() }
        }
    }
}

/// Whether endpoints of the service may be meshed.
fn takes_mtls(target: &Target<'_>) -> bool {
    !target.service.external && target.service.resolution == Resolution::Static
}

/// The application's own port. The pool settings of the service's rule shape it too (item 38).
fn inbound(scope: &Scope<'_>, name: &ClusterName) -> Option<Cluster> {
    let port = scope.inbound_ports().into_iter().find(|port| port.target_port == name.port)?;
    let settings = inbound_policy(scope, &port);
    let pool = settings.connection_pool.as_ref();
    let mut cluster = named(scope, &name.to_string(), DiscoveryType::Static);
    policy::apply_limits(&mut cluster, pool, None);
    let upstream = Upstream::outbound(port.port.protocol, None);
    policy::apply_protocol(&mut cluster, upstream, pool, AutoSni::default());
    cluster.load_assignment =
        Some(endpoints::single(&name.to_string(), scope.app_address(), port.target_port));
    cluster.upstream_bind_config = scope.is_captured().then(|| inbound_source(scope.app_address()));
    let service = object([
        ("host", text(port.service.hostname())),
        ("name", text(&*port.service.name)),
        ("namespace", text(&*port.service.key.namespace)),
    ]);
    let istio = object([("services", list(vec![nested(service)]))]);
    cluster.metadata = Some(metadata([("istio", istio)]));
    Some(cluster)
}

fn inbound_policy(scope: &Scope<'_>, port: &InboundPort) -> TrafficPolicy {
    scope
        .destination_rule(&port.service)
        .and_then(|rule| rule.traffic_policy(port.port.number, ""))
        .unwrap_or_default()
}
