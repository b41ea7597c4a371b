//! A DestinationRule's traffic policy on a cluster (`istio-behaviours`, items 36 to 43).

use weft_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection as PbOutlier, UpstreamConnectionOptions,
                circuit_breakers::{Thresholds, thresholds},
                cluster::{CommonLbConfig, LbConfig, LbPolicy, MaglevLbConfig, RingHashLbConfig},
            },
            core::v3::{
                Http1ProtocolOptions, Http2ProtocolOptions,
                HttpProtocolOptions as CommonHttpOptions, KeepaliveSettings, TcpKeepalive,
                UpstreamHttpProtocolOptions,
            },
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::UInt32Value,
};
use weft_core::protocol::Protocol;
use weft_crds::networking::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, LoadBalancerSettings, OutlierDetection,
    RetryBudget, SimpleLb, TcpSettings,
};

use super::message::{boolean, duration, uint32, uint64};
use crate::wire;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Streams at once on one HTTP/2 connection unless a rule says otherwise: the protocol's own limit.
const MAX_STREAMS: u32 = (1 << 31) - 1;

/// Zero means that nothing was said: then there is no limit.
fn limit(value: u32) -> UInt32Value {
    uint32(if value == 0 { u32::MAX } else { value })
}

/// Connection limits. Without a policy nothing is limited.
pub(crate) fn apply_limits(
    cluster: &mut Cluster,
    pool: Option<&ConnectionPoolSettings>,
    budget: Option<&RetryBudget>,
) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let of_http = |field: fn(&HttpSettings) -> u32| limit(http.map_or(0, field));
    let budget = budget.map(|budget| thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.unwrap_or(20.0) }),
        budget_interval: budget.budget_interval.map(|interval| duration(interval.0)),
        min_retry_concurrency: Some(uint32(match budget.min_retry_concurrency {
            0 => 3,
            least => least,
        })),
    });
    let thresholds = Thresholds {
        max_connections: Some(limit(tcp.map_or(0, |tcp| tcp.max_connections))),
        max_pending_requests: Some(of_http(|http| http.http1_max_pending_requests)),
        max_requests: Some(of_http(|http| http.http2_max_requests)),
        max_retries: Some(of_http(|http| http.max_retries)),
        retry_budget: budget,
        track_remaining: true,
        ..Thresholds::default()
    };
    cluster.circuit_breakers =
        Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() });
    if let Some(timeout) = tcp.and_then(|tcp| tcp.connect_timeout) {
        cluster.connect_timeout = Some(duration(timeout.0));
    }
    cluster.upstream_connection_options = tcp.and_then(keepalive).map(|keepalive| {
        UpstreamConnectionOptions { tcp_keepalive: Some(keepalive), ..Default::default() }
    });
}

fn keepalive(tcp: &TcpSettings) -> Option<TcpKeepalive> {
    let settings = tcp.tcp_keepalive.as_ref()?;
    let seconds = |time: weft_crds::Duration| {
        uint32(u32::try_from(time.0.as_secs()).unwrap_or(u32::MAX).max(1))
    };
    Some(TcpKeepalive {
        keepalive_probes: (settings.probes > 0).then(|| uint32(settings.probes)),
        keepalive_time: settings.time.map(seconds),
        keepalive_interval: settings.interval.map(seconds),
    })
}

/// Ejection of endpoints that fail.
pub(crate) fn apply_outlier_detection(cluster: &mut Cluster, outlier: Option<&OutlierDetection>) {
    let min_health = outlier.map_or(0, |outlier| outlier.min_health_percent);
    // Zero switches Envoy's panic off: endpoints that are out stay out.
    cluster.common_lb_config = Some(CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: min_health.into() }),
        ..CommonLbConfig::default()
    });
    let Some(outlier) = outlier else { return };
    let mut result = PbOutlier {
        enforcing_success_rate: Some(uint32(0)),
        enforcing_failure_percentage: Some(uint32(0)),
        enforcing_local_origin_success_rate: Some(uint32(0)),
        always_eject_one_host: Some(boolean(true)),
        interval: outlier.interval.map(|interval| duration(interval.0)),
        base_ejection_time: outlier.base_ejection_time.map(|time| duration(time.0)),
        max_ejection_percent: (outlier.max_ejection_percent > 0)
            .then(|| uint32(outlier.max_ejection_percent)),
        split_external_local_origin_errors: outlier.split_external_local_origin_errors,
        ..PbOutlier::default()
    };
    // Zero consecutive errors means never.
    let enforce = |count: u32| Some(uint32(if count > 0 { 100 } else { 0 }));
    let at_least_one = |count: u32| Some(uint32(count.max(1)));
    if let Some(count) = outlier.consecutive_5xx() {
        result.consecutive_5xx = at_least_one(count);
        result.enforcing_consecutive_5xx = enforce(count);
    }
    if let Some(count) = outlier.consecutive_gateway_errors {
        result.consecutive_gateway_failure = at_least_one(count);
        result.enforcing_consecutive_gateway_failure = enforce(count);
    }
    if let Some(count) = outlier.consecutive_local_origin_failures
        && outlier.split_external_local_origin_errors
    {
        result.consecutive_local_origin_failure = at_least_one(count);
        result.enforcing_consecutive_local_origin_failure = enforce(count);
    }
    cluster.outlier_detection = Some(result);
}

/// Whether the connection's own destination is to be used (PASSTHROUGH).
pub(crate) fn is_passthrough(lb: Option<&LoadBalancerSettings>) -> bool {
    lb.is_some_and(|lb| lb.consistent_hash.is_none() && lb.simple == SimpleLb::Passthrough)
}

/// How an endpoint is chosen.
pub(crate) fn apply_load_balancer(cluster: &mut Cluster, lb: Option<&LoadBalancerSettings>) {
    let policy = match lb.map(|lb| (lb.simple, lb.consistent_hash.as_ref())) {
        Some((_, Some(hash))) => {
            if let Some(maglev) = &hash.maglev {
                let table_size = (maglev.table_size > 0).then(|| uint64(maglev.table_size));
                cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
                LbPolicy::Maglev
            } else {
                let ring = hash.ring_hash.as_ref().map_or(0, |ring| ring.minimum_ring_size);
                let size = [ring, hash.minimum_ring_size, 1024].into_iter().find(|size| *size > 0);
                cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                    minimum_ring_size: size.map(uint64),
                    ..RingHashLbConfig::default()
                }));
                LbPolicy::RingHash
            }
        }
        Some((SimpleLb::RoundRobin, None)) => LbPolicy::RoundRobin,
        Some((SimpleLb::Random, None)) => LbPolicy::Random,
        Some((SimpleLb::Passthrough, None)) => LbPolicy::ClusterProvided,
        _ => LbPolicy::LeastRequest,
    };
    cluster.lb_policy = policy.into();
}

/// What is spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    Http1,
    Http2,
    /// What the client spoke.
    Downstream,
    /// Opaque bytes.
    Tcp,
}

impl Upstream {
    /// The protocol of a service's port, changed as its pool settings say (item 43).
    pub(crate) fn outbound(protocol: Protocol, pool: Option<&ConnectionPoolSettings>) -> Self {
        let http = pool.and_then(|pool| pool.http.as_ref());
        match protocol {
            protocol if protocol.is_tcp() || protocol == Protocol::Udp => Self::Tcp,
            _ if http.is_some_and(|http| http.use_client_protocol) => Self::Downstream,
            protocol if protocol.is_http2() => Self::Http2,
            _ if http.is_some_and(|http| http.h2_upgrade_policy == H2UpgradePolicy::Upgrade) => {
                Self::Http2
            }
            Protocol::Unsupported => Self::Downstream,
            _ => Self::Http1,
        }
    }
}

/// How names in the server's certificate are found when a rule gives none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AutoSni {
    pub(crate) sni: bool,
    pub(crate) san: bool,
}

/// Protocol options of a cluster. Bytes need none.
pub(crate) fn apply_protocol(
    cluster: &mut Cluster,
    upstream: Upstream,
    pool: Option<&ConnectionPoolSettings>,
    auto: AutoSni,
) {
    let http = pool.and_then(|pool| pool.http.as_ref());
    let http2 = || Http2ProtocolOptions {
        max_concurrent_streams: Some(uint32(
            http.map(|http| http.max_concurrent_streams).filter(|n| *n > 0).unwrap_or(MAX_STREAMS),
        )),
        connection_keepalive: http.and_then(|http| http.http2_keep_alive.as_ref()).and_then(
            |keep| {
                let interval = keep.interval?.0;
                Some(KeepaliveSettings {
                    interval: Some(duration(interval)),
                    timeout: Some(duration(keep.timeout.map_or(interval, |timeout| timeout.0))),
                    ..KeepaliveSettings::default()
                })
            },
        ),
        ..Http2ProtocolOptions::default()
    };
    let explicit = |config| {
        let config = ExplicitHttpConfig { protocol_config: Some(config) };
        UpstreamProtocolOptions::ExplicitHttpConfig(config)
    };
    let protocol = match upstream {
        Upstream::Tcp => return,
        Upstream::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
        }
        Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        Upstream::Downstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2()),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: common(pool),
        upstream_http_protocol_options: (auto != AutoSni::default()).then(|| {
            UpstreamHttpProtocolOptions {
                auto_sni: auto.sni,
                auto_san_validation: auto.san,
                ..UpstreamHttpProtocolOptions::default()
            }
        }),
        upstream_protocol_options: Some(protocol),
        ..HttpProtocolOptions::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.into(), wire::pack(&options));
}

fn common(pool: Option<&ConnectionPoolSettings>) -> Option<CommonHttpOptions> {
    let http = pool.and_then(|pool| pool.http.as_ref());
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let options = CommonHttpOptions {
        idle_timeout: http.and_then(|http| http.idle_timeout).map(|timeout| duration(timeout.0)),
        max_connection_duration: tcp
            .and_then(|tcp| tcp.max_connection_duration)
            .map(|longest| duration(longest.0)),
        max_requests_per_connection: http
            .map(|http| http.max_requests_per_connection)
            .filter(|requests| *requests > 0)
            .map(uint32),
        ..CommonHttpOptions::default()
    };
    (options != CommonHttpOptions::default()).then_some(options)
}
