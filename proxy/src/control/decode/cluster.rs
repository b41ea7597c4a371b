//! Clusters, without their endpoints.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use weft_api::xds::{
    envoy::config::{
        cluster::v3::{
            CircuitBreakers as PbBreakers, Cluster as PbCluster, OutlierDetection as PbOutlier,
            circuit_breakers::Thresholds,
            cluster::{
                ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig, LbPolicy as PbLb,
                TransportSocketMatch, common_lb_config::LocalityConfigSpecifier,
            },
        },
        core::v3::{
            Metadata, RoutingPriority, TcpKeepalive as PbKeepalive, TransportSocket as PbSocket,
        },
    },
    google::protobuf::{Struct, UInt32Value, value::Kind},
};

use super::{
    Context,
    endpoint::{Assignment, Fields, assignment},
    health,
    invalid::{At, Invalid, each, refuse, refuse_all},
    protocol::{self, Protocol},
    tls,
    value::{duration_or, ip, number, text_of},
};
use crate::config::{
    cluster::{
        CircuitBreakers, Discovery, LbPolicy, OutlierDetection, RetryBudget, ServiceInfo,
        TcpKeepalive, TransportSocket,
    },
    health::HealthCheck,
};

/// Which of a name's addresses are endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFamily {
    /// Those of version 6, or of version 4 where there are none of version 6.
    Auto,
    /// Of version 4.
    V4,
    /// Of version 6.
    V6,
    /// Of version 4, or of version 6 where there are none of version 4.
    V4Preferred,
    /// Of both.
    All,
}

impl DnsFamily {
    /// Whether an address counts among these.
    pub fn takes(self, address: IpAddr, all: &[IpAddr]) -> bool {
        let any = |version_4: bool| all.iter().any(|address| address.is_ipv4() == version_4);
        match self {
            Self::All => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::V4Preferred => address.is_ipv4() || !any(true),
            Self::Auto => address.is_ipv6() || !any(false),
        }
    }
}

/// A cluster before it has met its endpoints.
#[derive(Clone, Debug)]
pub struct DecodedCluster {
    /// Its name.
    pub name: Arc<str>,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// The name of its load assignment, when endpoints come by EDS.
    pub eds: Option<Arc<str>>,
    /// Endpoints that it holds itself.
    pub inline: Option<Arc<Assignment>>,
    /// How often names are looked up again.
    pub dns_refresh: Duration,
    /// Which addresses of names count.
    pub dns_family: DnsFamily,
    /// Localities get shares by their weights.
    pub locality_weighted: bool,
    /// How an endpoint is chosen.
    pub lb: LbPolicy,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// What is spoken, and for how long.
    pub protocol: Protocol,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Limits.
    pub limits: CircuitBreakers,
    /// Outlier detection.
    pub outlier: Option<OutlierDetection>,
    /// See `config::cluster::Cluster::panic_threshold`.
    pub panic_threshold: u8,
    /// See `config::cluster::Cluster::health_check`.
    pub health_check: Option<Arc<HealthCheck>>,
    /// Transports.
    pub transports: Vec<TransportSocket>,
    /// Source addresses.
    pub bind_source: Box<[IpAddr]>,
    /// For telemetry.
    pub service: Option<ServiceInfo>,
}

/// `envoy.config.cluster.v3.Cluster`.
pub(super) fn cluster(
    context: &Context<'_>,
    cluster: &PbCluster,
) -> Result<DecodedCluster, Invalid> {
    refuse_all(&[
        (cluster.transport_socket_matcher.is_some(), "transport_socket_matcher"),
        (cluster.health_checks.len() > 1, "health_checks[1]"),
        (
            cluster.close_connections_on_host_health_failure && !cluster.health_checks.is_empty(),
            "close_connections_on_host_health_failure",
        ),
        (cluster.lb_subset_config.is_some(), "lb_subset_config"),
        (!cluster.filters.is_empty(), "filters"),
        (cluster.load_balancing_policy.is_some(), "load_balancing_policy"),
        (cluster.upstream_config.is_some(), "upstream_config"),
        (
            cluster.connection_pool_per_downstream_connection,
            "connection_pool_per_downstream_connection",
        ),
        (cluster.queuing_policies.is_some(), "queuing_policies"),
    ])?;
    let discovery = discovery(context, cluster)?;
    let eds = eds_name(context, cluster)?;
    let inline = match &cluster.load_assignment {
        Some(pb) if eds.is_none() => Some(Arc::new(assignment(pb).at("load_assignment")?)),
        _ => None,
    };
    if inline.is_none() && matches!(discovery, Discovery::StrictDns | Discovery::LogicalDns) {
        return Err(Invalid::missing("load_assignment"));
    }
    let protocol = protocol::protocol(cluster)?;
    let (panic_threshold, locality_weighted) = common_lb(cluster)?;
    Ok(DecodedCluster {
        name: context.intern(&cluster.name),
        discovery,
        eds,
        inline,
        dns_refresh: duration_or(
            cluster.dns_refresh_rate.as_ref(),
            "dns_refresh_rate",
            Duration::from_secs(5),
        )?
        .max(Duration::from_secs(1)),
        dns_family: dns_family(context, cluster)?,
        locality_weighted,
        lb: lb_policy(cluster)?,
        connect_timeout: duration_or(
            cluster.connect_timeout.as_ref(),
            "connect_timeout",
            Duration::from_secs(5),
        )?,
        tcp_keepalive: cluster
            .upstream_connection_options
            .as_ref()
            .and_then(|options| options.tcp_keepalive.as_ref())
            .map(keepalive),
        limits: limits(cluster.circuit_breakers.as_ref()).at("circuit_breakers")?,
        outlier: cluster
            .outlier_detection
            .as_ref()
            .map(outlier)
            .transpose()
            .at("outlier_detection")?,
        panic_threshold,
        health_check: cluster
            .health_checks
            .first()
            .map(|check| health::health_check(check, &cluster.name).map(Arc::new))
            .transpose()
            .at_index("health_checks", 0)?,
        transports: transports(context, cluster, protocol.auto_sni)?,
        protocol,
        bind_source: bind_source(cluster)?,
        service: cluster.metadata.as_ref().and_then(service),
    })
}

fn discovery(context: &Context<'_>, cluster: &PbCluster) -> Result<Discovery, Invalid> {
    match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(_)) => Err(Invalid::unsupported("cluster_type")),
        None => Ok(Discovery::Told),
        Some(ClusterDiscoveryType::Type(value)) => match DiscoveryType::try_from(*value) {
            Ok(DiscoveryType::Static | DiscoveryType::Eds) => Ok(Discovery::Told),
            // Only what the mesh captures has a destination of its own.
            Ok(DiscoveryType::OriginalDst) if context.standalone => {
                Err(Invalid::unsupported_value("ORIGINAL_DST")).at("type")
            }
            Ok(DiscoveryType::OriginalDst) => Ok(Discovery::OriginalDestination),
            Ok(DiscoveryType::StrictDns) => Ok(Discovery::StrictDns),
            Ok(DiscoveryType::LogicalDns) => Ok(Discovery::LogicalDns),
            Err(_) => Err(Invalid::unsupported_value(value.to_string())).at("type"),
        },
    }
}

fn eds_name(context: &Context<'_>, cluster: &PbCluster) -> Result<Option<Arc<str>>, Invalid> {
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32))
    {
        return Ok(None);
    }
    let config = cluster
        .eds_cluster_config
        .as_ref()
        .ok_or_else(|| Invalid::missing("eds_cluster_config"))?;
    Ok(Some(match config.service_name.as_str() {
        "" => context.intern(&cluster.name),
        name => context.intern(name),
    }))
}

fn dns_family(context: &Context<'_>, cluster: &PbCluster) -> Result<DnsFamily, Invalid> {
    match DnsLookupFamily::try_from(cluster.dns_lookup_family) {
        // A control plane that does not say leaves it to the proxy, which can tell endpoints that do not answer from others.
        Ok(DnsLookupFamily::Auto) if !context.standalone => Ok(DnsFamily::All),
        Ok(DnsLookupFamily::Auto) => Ok(DnsFamily::Auto),
        Ok(DnsLookupFamily::V4Only) => Ok(DnsFamily::V4),
        Ok(DnsLookupFamily::V6Only) => Ok(DnsFamily::V6),
        Ok(DnsLookupFamily::V4Preferred) => Ok(DnsFamily::V4Preferred),
        Ok(DnsLookupFamily::All) => Ok(DnsFamily::All),
        Err(_) => Err(Invalid::unsupported_value(cluster.dns_lookup_family.to_string()))
            .at("dns_lookup_family"),
    }
}

fn lb_policy(cluster: &PbCluster) -> Result<LbPolicy, Invalid> {
    let to_u32 = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    match PbLb::try_from(cluster.lb_policy) {
        Ok(PbLb::RoundRobin) => Ok(LbPolicy::RoundRobin),
        Ok(PbLb::Random) => Ok(LbPolicy::Random),
        Ok(PbLb::LeastRequest) => {
            let choices = match &cluster.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => {
                    number(config.choice_count.as_ref(), 2)
                }
                _ => 2,
            };
            Ok(LbPolicy::LeastRequest { choices: choices.max(2) })
        }
        Ok(PbLb::RingHash) => {
            let size = match &cluster.lb_config {
                Some(LbConfig::RingHashLbConfig(config)) => {
                    refuse(config.hash_function != 0, "ring_hash_lb_config.hash_function")?;
                    config.minimum_ring_size.as_ref().map_or(1024, |size| size.value)
                }
                _ => 1024,
            };
            Ok(LbPolicy::RingHash { minimum_size: to_u32(size).min(8 << 20) })
        }
        Ok(PbLb::Maglev) => {
            let size = match &cluster.lb_config {
                Some(LbConfig::MaglevLbConfig(config)) => {
                    config.table_size.as_ref().map_or(65_537, |size| size.value)
                }
                _ => 65_537,
            };
            Ok(LbPolicy::Maglev { table_size: to_u32(size).clamp(1, 5_000_011) })
        }
        Ok(PbLb::ClusterProvided) => {
            if let Some(LbConfig::OriginalDstLbConfig(config)) = &cluster.lb_config {
                refuse_all(&[
                    (config.use_http_header, "original_dst_lb_config.use_http_header"),
                    (
                        config.upstream_port_override.is_some(),
                        "original_dst_lb_config.upstream_port_override",
                    ),
                    (config.metadata_key.is_some(), "original_dst_lb_config.metadata_key"),
                ])?;
            }
            Ok(LbPolicy::ClusterProvided)
        }
        Ok(PbLb::LoadBalancingPolicyConfig) | Err(_) => {
            Err(Invalid::unsupported_value(cluster.lb_policy.to_string())).at("lb_policy")
        }
    }
}

/// The panic threshold in percent, and whether localities are weighted.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn common_lb(cluster: &PbCluster) -> Result<(u8, bool), Invalid> {
    let Some(common) = &cluster.common_lb_config else {
        return Ok((50, false));
    };
    refuse(common.override_host_status.is_some(), "common_lb_config.override_host_status")?;
    let threshold = match &common.healthy_panic_threshold {
        None => 50,
        Some(percent) if (0.0..=100.0).contains(&percent.value) => percent.value.round() as u8,
        Some(percent) => {
            return Err(Invalid::value(percent.value.to_string(), "a percentage"))
                .at("common_lb_config.healthy_panic_threshold");
        }
    };
    let weighted = matches!(
        common.locality_config_specifier,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
    );
    Ok((threshold, weighted))
}

fn keepalive(keepalive: &PbKeepalive) -> TcpKeepalive {
    let seconds = |value: Option<&UInt32Value>| {
        value
            .map(|value| value.value)
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into()))
    };
    TcpKeepalive {
        time: seconds(keepalive.keepalive_time.as_ref()),
        interval: seconds(keepalive.keepalive_interval.as_ref()),
        probes: keepalive.keepalive_probes.as_ref().map(|p| p.value).filter(|p| *p > 0),
    }
}

/// The thresholds of the default priority, with Envoy's values for what is not given.
fn limits(breakers: Option<&PbBreakers>) -> Result<CircuitBreakers, Invalid> {
    let unset = Thresholds::default();
    let thresholds = match breakers {
        None => &unset,
        Some(breakers) => {
            refuse(!breakers.per_host_thresholds.is_empty(), "per_host_thresholds")?;
            breakers
                .thresholds
                .iter()
                .find(|thresholds| thresholds.priority == RoutingPriority::Default as i32)
                .unwrap_or(&unset)
        }
    };
    let retry_budget = thresholds.retry_budget.as_ref().map(|budget| RetryBudget {
        percent: budget
            .budget_percent
            .as_ref()
            .map_or(20.0, |percent| percent.value.clamp(0.0, 100.0)),
        min_concurrency: number(budget.min_retry_concurrency.as_ref(), 3),
    });
    Ok(CircuitBreakers {
        max_connections: number(thresholds.max_connections.as_ref(), 1024),
        max_pending_requests: number(thresholds.max_pending_requests.as_ref(), 1024),
        max_requests: number(thresholds.max_requests.as_ref(), 1024),
        max_retries: number(thresholds.max_retries.as_ref(), 3),
        retry_budget,
    })
}

fn outlier(outlier: &PbOutlier) -> Result<OutlierDetection, Invalid> {
    let positive = |value: Option<&UInt32Value>| value.is_some_and(|value| value.value > 0);
    refuse_all(&[
        (positive(outlier.enforcing_success_rate.as_ref()), "enforcing_success_rate"),
        (
            positive(outlier.enforcing_local_origin_success_rate.as_ref()),
            "enforcing_local_origin_success_rate",
        ),
        (positive(outlier.enforcing_failure_percentage.as_ref()), "enforcing_failure_percentage"),
        (
            positive(outlier.enforcing_failure_percentage_local_origin.as_ref()),
            "enforcing_failure_percentage_local_origin",
        ),
        (!outlier.monitors.is_empty(), "monitors"),
    ])?;
    // A count is in force when its share of enforcement is not zero; shares in between are refused.
    let count =
        |count: Option<&UInt32Value>, share: Option<&UInt32Value>, default, field| match number(
            share, default,
        ) {
            0 => Ok(0),
            100 => Ok(number(count, 5)),
            other => Err(Invalid::unsupported_value(other.to_string())).at(field),
        };
    let base_ejection_time = duration_or(
        outlier.base_ejection_time.as_ref(),
        "base_ejection_time",
        Duration::from_secs(30),
    )?;
    Ok(OutlierDetection {
        consecutive_5xx: count(
            outlier.consecutive_5xx.as_ref(),
            outlier.enforcing_consecutive_5xx.as_ref(),
            100,
            "enforcing_consecutive_5xx",
        )?,
        consecutive_gateway_failure: count(
            outlier.consecutive_gateway_failure.as_ref(),
            outlier.enforcing_consecutive_gateway_failure.as_ref(),
            0,
            "enforcing_consecutive_gateway_failure",
        )?,
        consecutive_local_origin_failure: count(
            outlier.consecutive_local_origin_failure.as_ref(),
            outlier.enforcing_consecutive_local_origin_failure.as_ref(),
            100,
            "enforcing_consecutive_local_origin_failure",
        )?,
        split_external_local_origin_errors: outlier.split_external_local_origin_errors,
        interval: duration_or(outlier.interval.as_ref(), "interval", Duration::from_secs(10))?,
        base_ejection_time,
        max_ejection_time: duration_or(
            outlier.max_ejection_time.as_ref(),
            "max_ejection_time",
            Duration::from_secs(300).max(base_ejection_time),
        )?,
        max_ejection_percent: number(outlier.max_ejection_percent.as_ref(), 10).min(100),
    })
}

/// The matched transports, then the one for everybody else.
fn transports(
    context: &Context<'_>,
    cluster: &PbCluster,
    auto_sni: bool,
) -> Result<Vec<TransportSocket>, Invalid> {
    let decode = |socket: &PbSocket| -> Result<_, Invalid> {
        let mut tls = tls::upstream(context, socket).at("transport_socket")?;
        if let Some(tls) = &mut tls {
            tls.auto_sni |= auto_sni;
        }
        Ok(tls.map(Arc::new))
    };
    let mut transports =
        each(&cluster.transport_socket_matches, "transport_socket_matches", |matched| {
            let socket = matched
                .transport_socket
                .as_ref()
                .ok_or_else(|| Invalid::missing("transport_socket"))?;
            Ok(TransportSocket {
                name: matched.name.as_str().into(),
                matches: match_fields(matched)?,
                tls: decode(socket)?,
            })
        })?;
    if let Some(socket) = &cluster.transport_socket {
        transports.push(TransportSocket {
            name: socket.name.as_str().into(),
            matches: Vec::new(),
            tls: decode(socket)?,
        });
    }
    Ok(transports)
}

/// The fields that an endpoint must have, sorted by key.
fn match_fields(matched: &TransportSocketMatch) -> Result<Fields, Invalid> {
    let empty = HashMap::new();
    let fields = matched.r#match.as_ref().map_or(&empty, |fields| &fields.fields);
    let mut fields = fields
        .iter()
        .map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => Ok((key.as_str().into(), text.as_str().into())),
            _ => Err(Invalid::unsupported("value that is not a string")).at_key("match", key),
        })
        .collect::<Result<Vec<_>, _>>()?;
    fields.sort_unstable();
    Ok(fields)
}

fn bind_source(cluster: &PbCluster) -> Result<Box<[IpAddr]>, Invalid> {
    let Some(bind) = &cluster.upstream_bind_config else {
        return Ok(Box::default());
    };
    let extra = bind.extra_source_addresses.iter().filter_map(|extra| extra.address.as_ref());
    let addresses = bind
        .source_address
        .iter()
        .chain(extra)
        .map(|source| ip(&source.address).at("upstream_bind_config.source_address.address"))
        .collect::<Result<Vec<_>, _>>()?;
    // One that is not specified leaves the choice to the system.
    let specified = addresses.iter().all(|address| !address.is_unspecified());
    Ok(if specified { addresses.into() } else { Box::default() })
}

/// `istio.services[0]`.
fn service(metadata: &Metadata) -> Option<ServiceInfo> {
    let istio = metadata.filter_metadata.get("istio")?;
    let Some(Kind::ListValue(services)) = &istio.fields.get("services")?.kind else {
        return None;
    };
    let Some(Kind::StructValue(service)) = &services.values.first()?.kind else {
        return None;
    };
    let text = |service: &Struct, key: &str| -> Arc<str> {
        text_of(service, key).unwrap_or_default().into()
    };
    Some(ServiceInfo {
        host: text(service, "host"),
        name: text(service, "name"),
        namespace: text(service, "namespace"),
    })
}
