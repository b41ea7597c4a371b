//! The text of the metrics: Prometheus' exposition format, and Envoy's `name: value` lines.
//!
//! Envoy's dotted names become `envoy_*` with the tags that Envoy takes out of them (cluster name, prefix of the
//! connection manager, listener address, class of the status).

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{Display, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    cells::{BUCKETS, HistogramSnapshot},
    labels::{RequestProtocol, TrafficLabels},
    registry::{Inner, Registry},
    traffic::{Cells, Variant},
};
use crate::{
    config::{ProxyConfig, cluster::Cluster},
    net::clock,
    shared::STARTED,
};

/// One variant's numbers, summed over the threads.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    requests: u64,
    duration: HistogramSnapshot,
    request_bytes: HistogramSnapshot,
    response_bytes: HistogramSnapshot,
    request_messages: u64,
    response_messages: u64,
    opened: u64,
    closed: u64,
    sent: u64,
    received: u64,
}

impl Sum {
    fn add(&mut self, cells: &Cells) {
        self.requests += cells.requests.load(Relaxed);
        self.duration.merge(&cells.duration.snapshot());
        self.request_bytes.merge(&cells.request_bytes.snapshot());
        self.response_bytes.merge(&cells.response_bytes.snapshot());
        self.request_messages += cells.request_messages.load(Relaxed);
        self.response_messages += cells.response_messages.load(Relaxed);
        self.opened += cells.tcp_opened.load(Relaxed);
        self.closed += cells.tcp_closed.load(Relaxed);
        self.sent += cells.tcp_sent.load(Relaxed);
        self.received += cells.tcp_received.load(Relaxed);
    }
}

/// A series ready to be written: its labels' text and its numbers.
struct Line {
    labels: String,
    protocol: RequestProtocol,
    sum: Sum,
}

/// Writes a metric's `TYPE` line once, then its samples.
struct Prometheus {
    out: String,
}

impl Prometheus {
    fn family(&mut self, name: &str, kind: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.out, "{name} {value}")
        } else {
            writeln!(self.out, "{name}{{{labels}}} {value}")
        };
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &HistogramSnapshot) {
        let mut seen = 0;
        for (i, count) in histogram.counts.iter().enumerate() {
            seen += count;
            let _ = match BUCKETS.get(i) {
                Some(bound) => {
                    writeln!(self.out, "{name}_bucket{{{labels},le=\"{bound}\"}} {seen}")
                }
                None => writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {seen}"),
            };
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, seen);
    }
}

fn push_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(name);
    text.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

fn label_text(labels: &TrafficLabels, variant: &Variant) -> String {
    let mut text = String::with_capacity(900);
    for (name, value) in labels.pairs() {
        push_label(&mut text, name, value);
    }
    push_label(&mut text, "request_protocol", variant.protocol.as_str());
    if variant.protocol != RequestProtocol::Tcp {
        push_label(&mut text, "response_code", &variant.code.to_string());
        let grpc = variant.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        push_label(&mut text, "grpc_response_status", &grpc);
    }
    push_label(&mut text, "response_flags", &variant.flags.to_string());
    text
}

fn lines(inner: &Inner) -> Vec<Line> {
    let mut sums: HashMap<(&Arc<TrafficLabels>, Variant), Sum> = HashMap::new();
    for series in inner.series.values() {
        sums.entry((&series.labels, series.variant)).or_default().add(&series.cells);
    }
    let mut lines: Vec<Line> = sums
        .into_iter()
        .map(|((labels, variant), sum)| Line {
            labels: label_text(labels, &variant),
            protocol: variant.protocol,
            sum,
        })
        .collect();
    lines.sort_by(|a, b| a.labels.cmp(&b.labels));
    lines
}

fn istio(out: &mut Prometheus, lines: &[Line]) {
    let http: Vec<&Line> = lines.iter().filter(|l| l.protocol != RequestProtocol::Tcp).collect();
    let grpc: Vec<&Line> = lines.iter().filter(|l| l.protocol == RequestProtocol::Grpc).collect();
    let tcp: Vec<&Line> = lines.iter().filter(|l| l.protocol == RequestProtocol::Tcp).collect();
    type Number = fn(&Sum) -> u64;
    let counters: [(&str, &[&Line], Number); 7] = [
        ("istio_requests_total", &http, |sum| sum.requests),
        ("istio_request_messages_total", &grpc, |sum| sum.request_messages),
        ("istio_response_messages_total", &grpc, |sum| sum.response_messages),
        ("istio_tcp_connections_opened_total", &tcp, |sum| sum.opened),
        ("istio_tcp_connections_closed_total", &tcp, |sum| sum.closed),
        ("istio_tcp_sent_bytes_total", &tcp, |sum| sum.sent),
        ("istio_tcp_received_bytes_total", &tcp, |sum| sum.received),
    ];
    for (name, lines, number) in counters {
        if !lines.is_empty() {
            out.family(name, "counter");
        }
        for line in lines {
            out.sample(name, &line.labels, number(&line.sum));
        }
    }
    type Values = fn(&Sum) -> &HistogramSnapshot;
    let histograms: [(&str, Values); 3] = [
        ("istio_request_duration_milliseconds", |sum| &sum.duration),
        ("istio_request_bytes", |sum| &sum.request_bytes),
        ("istio_response_bytes", |sum| &sum.response_bytes),
    ];
    for (name, values) in histograms {
        if !http.is_empty() {
            out.family(name, "histogram");
        }
        for line in &http {
            out.histogram(name, &line.labels, values(&line.sum));
        }
    }
}

/// A number under Envoy's name.
struct Stat {
    name: String,
    counter: bool,
    value: i64,
}

fn cluster_stats(cluster: &Cluster, now_ms: u64, stats: &mut Vec<Stat>) {
    let mut push = |name: &str, counter, value| {
        stats.push(Stat { name: format!("cluster.{}.{name}", cluster.name), counter, value });
    };
    for (name, total) in cluster.state.totals.list() {
        push(name, true, i64::try_from(total).unwrap_or(i64::MAX));
    }
    let all = &cluster.endpoints.all;
    let ejected = |e: &&Arc<crate::config::cluster::Endpoint>| e.state.outlier.is_ejected(now_ms);
    let out = all.iter().filter(ejected).count();
    let healthy = all.iter().filter(|e| cluster.is_healthy(e) && !ejected(e)).count();
    let state = &cluster.state;
    for (name, value) in [
        ("upstream_cx_active", state.connections.get()),
        ("upstream_rq_active", state.requests.get()),
        ("upstream_rq_pending_active", state.pending.get()),
        ("outlier_detection.ejections_active", u32::try_from(out).unwrap_or(u32::MAX)),
        ("membership_total", u32::try_from(all.len()).unwrap_or(u32::MAX)),
        ("membership_healthy", u32::try_from(healthy).unwrap_or(u32::MAX)),
    ] {
        push(name, false, i64::from(value));
    }
    let limits = &cluster.limits;
    for (name, now, max) in [
        ("cx_open", state.connections.get(), limits.max_connections),
        ("rq_pending_open", state.pending.get(), limits.max_pending_requests),
        ("rq_open", state.requests.get(), limits.max_requests),
        ("rq_retry_open", state.retries.get(), limits.max_retries),
    ] {
        push(&format!("circuit_breakers.default.{name}"), false, i64::from(now >= max));
    }
}

fn envoy(inner: &Inner, config: &ProxyConfig) -> Vec<Stat> {
    let mut stats = Vec::new();
    let now_ms = clock::now_ms();
    for cluster in config.clusters.values() {
        cluster_stats(cluster, now_ms, &mut stats);
    }
    for (name, cells) in &inner.counters {
        let value: u64 = cells.iter().map(|cell| cell.load(Relaxed)).sum();
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        stats.push(Stat { name: name.to_string(), counter: true, value });
    }
    for (name, cells) in &inner.gauges {
        let value = cells.iter().map(|cell| cell.load(Relaxed)).sum();
        stats.push(Stat { name: name.to_string(), counter: false, value });
    }
    let uptime = i64::try_from(STARTED.elapsed().as_secs()).unwrap_or(i64::MAX);
    let series = i64::try_from(inner.series.len()).unwrap_or(i64::MAX);
    let evicted = i64::try_from(inner.evicted).unwrap_or(i64::MAX);
    for (name, counter, value) in [
        ("server.live", false, 1),
        ("server.uptime", false, uptime),
        ("cluster_manager.active_clusters", false, config.clusters.len() as i64),
        ("listener_manager.total_listeners_active", false, config.listeners.len() as i64),
        ("stats.series", false, series),
        ("stats.series_evicted", true, evicted),
    ] {
        stats.push(Stat { name: name.into(), counter, value });
    }
    stats.sort_by(|a, b| a.name.cmp(&b.name));
    stats
}

fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// The class of status codes at the end of a name, `_rq_5xx`, and the name without it.
fn code_class(name: &str) -> Option<(&str, &str)> {
    let (rest, class) = name.rsplit_once('_')?;
    let is_class = matches!(class.as_bytes(), [b'1'..=b'5', b'x', b'x']);
    (is_class && rest.ends_with("_rq")).then_some((rest, class))
}

/// The name and the labels that Envoy makes of a dotted name, with Istio's settings.
fn tagged(name: &str) -> (String, String) {
    let mut labels = String::new();
    let name = match code_class(name) {
        Some((rest, class)) => {
            push_label(&mut labels, "response_code_class", class);
            rest
        }
        None => name,
    };
    let mut tag = |prefix: &str, label: &str| -> Option<String> {
        // Prefixes may hold dots (addresses, host names); the stat's own name is what follows the last part that
        // looks like one.
        let rest = name.strip_prefix(prefix)?;
        let (value, stat) = split_stat(rest)?;
        push_label(&mut labels, label, value);
        Some(format!("envoy_{}{}", prefix.replace('.', "_"), sanitized(stat)))
    };
    let renamed = tag("cluster.", "cluster_name")
        .or_else(|| tag("http.", "http_conn_manager_prefix"))
        .or_else(|| tag("listener.", "listener_address"))
        .or_else(|| tag("tcp.", "tcp_prefix"));
    (renamed.unwrap_or_else(|| format!("envoy_{}", sanitized(name))), labels)
}

/// Groups of statistics that have a dot in their own name.
const GROUPS: [&str; 6] = [
    ".outlier_detection.",
    ".circuit_breakers.",
    ".rbac.",
    ".fault.",
    ".http_local_rate_limit.",
    ".local_rate_limit.",
];

fn split_stat(rest: &str) -> Option<(&str, &str)> {
    let group = GROUPS.iter().filter_map(|group| rest.find(group)).min();
    let at = group.or_else(|| rest.rfind('.'))?;
    Some((rest.get(..at)?, rest.get(at + 1..)?))
}

impl Registry {
    /// Everything in Prometheus' exposition format.
    pub fn render_prometheus(&self, config: &ProxyConfig) -> String {
        let inner = self.collect();
        let mut out = Prometheus { out: String::with_capacity(64 * 1024) };
        out.family("istio_build", "gauge");
        let version = env!("CARGO_PKG_VERSION");
        out.sample("istio_build", &format!("component=\"proxy\",tag=\"{version}\""), 1);
        istio(&mut out, &lines(&inner));
        let mut families: BTreeMap<(String, bool), Vec<(String, i64)>> = BTreeMap::new();
        for stat in envoy(&inner, config) {
            let (name, labels) = tagged(&stat.name);
            families.entry((name, stat.counter)).or_default().push((labels, stat.value));
        }
        for ((name, counter), samples) in families {
            out.family(&name, if counter { "counter" } else { "gauge" });
            for (labels, value) in samples {
                out.sample(&name, &labels, value);
            }
        }
        out.out
    }

    /// `name: value` lines under Envoy's names, then Istio's metrics; those that `filter` takes.
    pub fn render_text(&self, config: &ProxyConfig, filter: impl Fn(&str) -> bool) -> String {
        let inner = self.collect();
        let mut out = String::new();
        for stat in envoy(&inner, config) {
            if filter(&stat.name) {
                let _ = writeln!(out, "{}: {}", stat.name, stat.value);
            }
        }
        for line in lines(&inner) {
            let (name, value) = match line.protocol {
                RequestProtocol::Tcp => ("istio_tcp_connections_opened_total", line.sum.opened),
                _ => ("istio_requests_total", line.sum.requests),
            };
            let text = format!("{name}{{{}}}", line.labels);
            if filter(&text) {
                let _ = writeln!(out, "{text}: {value}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
