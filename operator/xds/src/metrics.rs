//! The control plane's `pilot_xds*` metrics, under the names that dashboards for Istio use.
//!
//! Fed by the streams; read by the operator's `/metrics`.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::ResourceType;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: String,
}

/// A count that only goes up. The library would add `_total` to a counter's name, which Istio's names do not have.
type Count = Gauge<u64, AtomicU64>;

/// The metrics of an ADS server.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    connected: Family<VersionLabel, Gauge>,
    pushes: Family<TypeLabel, Count>,
    rejects: Family<TypeLabel, Count>,
    refused: Count,
    push_time: Family<TypeLabel, Histogram>,
    config_size: Family<TypeLabel, Histogram>,
}

/// Counts a stream among the connected ones for as long as it lives.
#[derive(Debug)]
pub(crate) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connected: Family::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            refused: Count::default(),
            push_time: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.005, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0])
            }),
            config_size: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(256.0, 4.0, 10))
            }),
        };
        registry.register("pilot_xds", "Proxies connected over xDS", metrics.connected.clone());
        registry.register(
            "pilot_xds_pushes",
            "Responses sent, by type of resource",
            metrics.pushes.clone(),
        );
        registry.register(
            "pilot_total_xds_rejects",
            "Responses that a proxy refused, by type of resource",
            metrics.rejects.clone(),
        );
        registry.register(
            "pilot_xds_refused_streams",
            "Streams refused for who the peer is or says it is",
            metrics.refused.clone(),
        );
        registry.register(
            "pilot_xds_push_time",
            "Seconds to make a response, by type of resource",
            metrics.push_time.clone(),
        );
        registry.register(
            "pilot_xds_config_size_bytes",
            "Size of responses, by type of resource",
            metrics.config_size.clone(),
        );
        metrics
    }

    pub(crate) fn connected(&self, version: &str) -> Connected {
        // The version comes from the peer: an unbounded label set must not.
        let version = if version.is_empty() { "unknown" } else { version };
        let version = version.chars().take(64).collect();
        let gauge = self.connected.get_or_create_owned(&VersionLabel { version });
        gauge.inc();
        Connected(gauge)
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn rejected(&self, kind: ResourceType) {
        self.rejects.get_or_create(&TypeLabel { r#type: kind.short() }).inc();
    }

    pub(crate) fn pushed(&self, kind: ResourceType, bytes: usize, took: Duration) {
        let label = TypeLabel { r#type: kind.short() };
        self.pushes.get_or_create(&label).inc();
        self.push_time.get_or_create(&label).observe(took.as_secs_f64());
        // Exact below 2^53 bytes.
        self.config_size.get_or_create(&label).observe(bytes as f64);
    }
}
