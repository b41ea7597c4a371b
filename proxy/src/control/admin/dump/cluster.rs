//! Clusters and endpoints.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{duration, locality, pruned, socket_address, thresholds, timeout, tls};
use crate::config::cluster::{
    Cluster, Discovery, Endpoint, LbPolicy, OutlierDetection, TransportSocket, UpstreamProtocol,
};

/// A cluster without its endpoints.
pub fn cluster(cluster: &Cluster) -> Value {
    let by_eds = cluster.name.starts_with("outbound|");
    let discovery = match cluster.discovery {
        Discovery::Told if by_eds => "EDS",
        Discovery::Told => "STATIC",
        Discovery::OriginalDestination => "ORIGINAL_DST",
        Discovery::StrictDns => "STRICT_DNS",
        Discovery::LogicalDns => "LOGICAL_DNS",
    };
    let services = cluster.service.as_ref().map(|service| {
        json!({"filter_metadata": {"istio": {"services": [{
            "host": &*service.host,
            "name": &*service.name,
            "namespace": &*service.namespace,
        }]}}})
    });
    let transports: Vec<_> = cluster.transports.iter().map(transport).collect();
    pruned(json!({
        "name": &*cluster.name,
        "type": discovery,
        "connect_timeout": duration(cluster.connect_timeout),
        "lb_policy": lb_policy(cluster.lb),
        "circuit_breakers": {"thresholds": [thresholds(&cluster.limits)]},
        "outlier_detection": cluster.outlier.as_ref().map(outlier),
        "common_lb_config": {"healthy_panic_threshold": {"value": cluster.panic_threshold}},
        "typed_extension_protocol_options": protocol(cluster),
        "transport_socket_matches": transports,
        "upstream_bind_config": cluster.bind_source.first().map(|address| {
            json!({"source_address": {"address": address.to_string(), "port_value": 0}})
        }),
        "metadata": services,
        "load_assignment": if discovery == "STATIC" { endpoints(cluster) } else { Value::Null },
    }))
}

fn lb_policy(policy: LbPolicy) -> &'static str {
    match policy {
        LbPolicy::RoundRobin => "ROUND_ROBIN",
        LbPolicy::LeastRequest { .. } => "LEAST_REQUEST",
        LbPolicy::Random => "RANDOM",
        LbPolicy::RingHash { .. } => "RING_HASH",
        LbPolicy::Maglev { .. } => "MAGLEV",
        LbPolicy::ClusterProvided => "CLUSTER_PROVIDED",
    }
}

fn protocol(cluster: &Cluster) -> Value {
    let mut options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": pruned(json!({
            "idle_timeout": timeout(cluster.idle_timeout),
            "max_connection_duration": cluster.max_connection_duration.map(duration),
            "max_requests_per_connection":
                Some(cluster.max_requests_per_connection).filter(|most| *most > 0),
        })),
    });
    match cluster.protocol {
        UpstreamProtocol::Http1 => {
            options["explicit_http_config"] = json!({"http_protocol_options": {}});
        }
        UpstreamProtocol::Http2 => {
            options["explicit_http_config"] = json!({"http2_protocol_options": {
                "max_concurrent_streams": cluster.max_concurrent_streams,
            }});
        }
        UpstreamProtocol::Downstream => {
            options["use_downstream_protocol_config"] = json!({});
        }
    }
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options})
}

fn outlier(outlier: &OutlierDetection) -> Value {
    let on = |count: u32| if count > 0 { 100 } else { 0 };
    json!({
        "consecutive_5xx": outlier.consecutive_5xx,
        "enforcing_consecutive_5xx": on(outlier.consecutive_5xx),
        "consecutive_gateway_failure": outlier.consecutive_gateway_failure,
        "enforcing_consecutive_gateway_failure": on(outlier.consecutive_gateway_failure),
        "consecutive_local_origin_failure": outlier.consecutive_local_origin_failure,
        "split_external_local_origin_errors": outlier.split_external_local_origin_errors,
        "interval": duration(outlier.interval),
        "base_ejection_time": duration(outlier.base_ejection_time),
        "max_ejection_time": duration(outlier.max_ejection_time),
        "max_ejection_percent": outlier.max_ejection_percent,
    })
}

fn transport(transport: &TransportSocket) -> Value {
    let fields: Map<String, Value> =
        transport.matches.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    json!({
        "name": transport.name,
        "match": fields,
        "transport_socket": transport.tls.as_deref().map_or_else(tls::raw_buffer, tls::upstream),
    })
}

/// A cluster's load assignment.
pub fn endpoints(cluster: &Cluster) -> Value {
    let mut groups: Vec<(&Endpoint, Vec<Value>)> = Vec::new();
    for endpoint in &cluster.endpoints.all {
        let value = lb_endpoint(cluster, endpoint);
        match groups.last_mut() {
            Some((first, list))
                if first.priority == endpoint.priority && first.locality == endpoint.locality =>
            {
                list.push(value);
            }
            _ => groups.push((endpoint, vec![value])),
        }
    }
    let groups: Vec<_> = groups
        .into_iter()
        .map(|(first, list)| {
            let mut group = pruned(json!({
                "locality": locality(&first.locality),
                "lb_endpoints": list,
            }));
            if first.priority > 0 {
                group["priority"] = json!(first.priority);
            }
            group
        })
        .collect();
    json!({"cluster_name": &*cluster.name, "endpoints": groups})
}

fn lb_endpoint(cluster: &Cluster, endpoint: &Arc<Endpoint>) -> Value {
    let transport = endpoint.transport.and_then(|index| cluster.transports.get(index));
    let fields: Map<String, Value> = transport
        .into_iter()
        .flat_map(|transport| &transport.matches)
        .map(|(key, value)| (key.to_string(), json!(value)))
        .collect();
    let workload = endpoint.workload.as_deref().map(|workload| {
        json!({"workload": format!(
            "{};{};{};{};{}",
            workload.workload,
            workload.namespace,
            workload.canonical_name,
            workload.canonical_revision,
            workload.cluster,
        )})
    });
    let metadata = pruned(json!({"envoy.transport_socket_match": fields, "istio": workload}));
    pruned(json!({
        "endpoint": pruned(json!({
            "address": socket_address(endpoint.address),
            "hostname": endpoint.hostname,
        })),
        "health_status": if endpoint.healthy { "HEALTHY" } else { "UNHEALTHY" },
        "metadata": pruned(json!({"filter_metadata": metadata})),
        "load_balancing_weight": endpoint.weight,
    }))
}
