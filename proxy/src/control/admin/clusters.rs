//! `/clusters`: endpoints with what was counted of them.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use serde_json::{Value, json};

use super::dump;
use crate::{
    config::{
        ProxyConfig,
        cluster::{Cluster, Endpoint},
    },
    net::clock::now_ms,
};

fn sorted(config: &ProxyConfig) -> Vec<&Cluster> {
    let mut clusters: Vec<&Cluster> = config.clusters.values().map(|cluster| &**cluster).collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters
}

/// Numbers of an endpoint with Envoy's names; true for those that only grow.
fn stats(endpoint: &Endpoint) -> [(&'static str, u64, bool); 7] {
    let state = &endpoint.state;
    let (total, error) = (state.rq_total.load(Relaxed), state.rq_error.load(Relaxed));
    let active = u64::from(state.active.get());
    [
        ("cx_active", u64::from(state.connections.get()), false),
        ("cx_connect_fail", state.cx_connect_fail.load(Relaxed), true),
        ("cx_total", state.cx_total.load(Relaxed), true),
        ("rq_active", active, false),
        ("rq_error", error, true),
        ("rq_success", total.saturating_sub(error).saturating_sub(active), true),
        ("rq_total", total, true),
    ]
}

fn is_ejected(endpoint: &Endpoint) -> bool {
    endpoint.state.outlier.is_ejected(now_ms())
}

/// Envoy's text form.
pub fn text(config: &ProxyConfig, added_via_api: bool) -> String {
    let mut out = String::new();
    for cluster in sorted(config) {
        let name = &cluster.name;
        let limits = &cluster.limits;
        let _ = writeln!(out, "{name}::observability_name::{name}");
        for (limit, value) in [
            ("max_connections", limits.max_connections),
            ("max_pending_requests", limits.max_pending_requests),
            ("max_requests", limits.max_requests),
            ("max_retries", limits.max_retries),
        ] {
            let _ = writeln!(out, "{name}::default_priority::{limit}::{value}");
        }
        let _ = writeln!(out, "{name}::added_via_api::{added_via_api}");
        for endpoint in &cluster.endpoints.all {
            endpoint_text(&mut out, cluster, endpoint);
        }
    }
    out
}

fn endpoint_text(out: &mut String, cluster: &Cluster, endpoint: &Endpoint) {
    let of = &cluster.name;
    let address = endpoint.address;
    for (name, value, _) in stats(endpoint) {
        let _ = writeln!(out, "{of}::{address}::{name}::{value}");
    }
    let mut flags = String::new();
    if is_ejected(endpoint) {
        flags.push_str("/failed_outlier_check");
    }
    if cluster.fails_check(endpoint) {
        flags.push_str("/failed_active_hc");
    }
    if !endpoint.healthy {
        flags.push_str("/failed_eds_health");
    }
    if flags.is_empty() {
        flags.push_str("healthy");
    }
    let (region, zone, sub_zone) = &endpoint.locality;
    let hostname = endpoint.hostname.as_deref().unwrap_or_default();
    for (name, value) in [
        ("hostname", hostname),
        ("health_flags", &flags),
        ("weight", &endpoint.weight.to_string()),
        ("region", region),
        ("zone", zone),
        ("sub_zone", sub_zone),
        ("canary", "false"),
        ("priority", &endpoint.priority.to_string()),
    ] {
        let _ = writeln!(out, "{of}::{address}::{name}::{value}");
    }
}

/// Envoy's JSON form.
pub fn json(config: &ProxyConfig, added_via_api: bool) -> Value {
    let statuses: Vec<Value> = sorted(config)
        .into_iter()
        .map(|cluster| {
            let hosts: Vec<Value> =
                cluster.endpoints.all.iter().map(|endpoint| host(cluster, endpoint)).collect();
            json!({
                "name": &*cluster.name,
                "observability_name": &*cluster.name,
                "added_via_api": added_via_api,
                "circuit_breakers": {"thresholds": [dump::thresholds(&cluster.limits)]},
                "host_statuses": hosts,
            })
        })
        .collect();
    json!({"cluster_statuses": statuses})
}

fn host(cluster: &Cluster, endpoint: &Endpoint) -> Value {
    let stats: Vec<Value> = stats(endpoint)
        .into_iter()
        .map(|(name, value, grows)| {
            let kind = if grows { "COUNTER" } else { "GAUGE" };
            json!({"name": name, "value": value.to_string(), "type": kind})
        })
        .collect();
    let mut health = json!({
        "eds_health_status": if endpoint.healthy { "HEALTHY" } else { "UNHEALTHY" },
    });
    if cluster.fails_check(endpoint) {
        health["failed_active_health_check"] = json!(true);
    }
    if is_ejected(endpoint) {
        health["failed_outlier_check"] = json!(true);
    }
    json!({
        "address": dump::socket_address(endpoint.address),
        "stats": stats,
        "health_status": health,
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "hostname": endpoint.hostname.as_deref().unwrap_or_default(),
        "locality": dump::locality(&endpoint.locality),
    })
}
