//! The TCP proxy filter.

use std::time::Duration;

use weft_api::xds::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy as PbTcp, tcp_proxy::ClusterSpecifier,
};

use super::{
    Context, access_log,
    invalid::{At, Invalid, each, refuse, refuse_all},
    value::{number, timeout_or},
};
use crate::config::listener::TcpProxy;

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
pub fn tcp_proxy(context: &Context<'_>, config: &PbTcp) -> Result<TcpProxy, Invalid> {
    refuse_all(&[
        (config.on_demand.is_some(), "on_demand"),
        (config.metadata_match.is_some(), "metadata_match"),
        (!config.hash_policy.is_empty(), "hash_policy"),
        (config.tunneling_config.is_some(), "tunneling_config"),
        (config.max_downstream_connection_duration.is_some(), "max_downstream_connection_duration"),
        (!config.proxy_protocol_tlvs.is_empty(), "proxy_protocol_tlvs"),
        (config.upstream_connect_mode != 0, "upstream_connect_mode"),
    ])?;
    let clusters = match &config.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            refuse(name.is_empty(), "cluster that is empty")?;
            vec![(context.intern(name), 1)]
        }
        Some(ClusterSpecifier::WeightedClusters(split)) => {
            each(&split.clusters, "weighted_clusters.clusters", |cluster| {
                refuse(cluster.metadata_match.is_some(), "metadata_match")?;
                refuse(cluster.name.is_empty(), "name that is empty")?;
                Ok((context.intern(&cluster.name), cluster.weight))
            })?
        }
        None => return Err(Invalid::missing("cluster")),
    };
    if clusters.iter().all(|(_, weight)| *weight == 0) {
        return Err(Invalid::value("0", "a sum of weights")).at("weighted_clusters");
    }
    Ok(TcpProxy {
        stat_prefix: config.stat_prefix.as_str().into(),
        clusters,
        idle_timeout: timeout_or(
            config.idle_timeout.as_ref(),
            "idle_timeout",
            Some(Duration::from_secs(3600)),
        )?,
        max_connect_attempts: number(config.max_connect_attempts.as_ref(), 1).max(1),
        access_logs: access_log::access_logs(context, &config.access_log)?,
    })
}
