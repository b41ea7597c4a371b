//! The authority's metrics, with the names that Istio's dashboards ask for.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Counters of the signing RPC. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Requests received.
    pub requests: Counter,
    /// Certificates given.
    pub issued: Counter,
    /// Requests whose token was refused.
    pub unauthenticated: Counter,
    /// Requests for somebody else's identity.
    pub identity_mismatches: Counter,
    /// Requests that could not be read, or whose signature was not valid.
    pub malformed: Counter,
    /// Sound requests that could not be signed.
    pub failed: Counter,
    /// When the first root ends, in seconds since the Unix epoch.
    pub root_expiry: Gauge<f64, AtomicU64>,
    /// When the signing certificate ends, in seconds since the Unix epoch.
    pub chain_expiry: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for (name, help, counter) in [
            ("csr_count", "Signing requests received", &metrics.requests),
            ("success_cert_issuance_count", "Certificates issued", &metrics.issued),
            (
                "authentication_failure_count",
                "Requests whose token was refused",
                &metrics.unauthenticated,
            ),
            (
                "id_extraction_err_count",
                "Requests for an identity that is not the requester's",
                &metrics.identity_mismatches,
            ),
            ("csr_parsing_err_count", "Requests that are not sound", &metrics.malformed),
            ("csr_sign_err_count", "Sound requests that were not signed", &metrics.failed),
        ] {
            registry.register(format!("citadel_server_{name}"), help, counter.clone());
        }
        for (name, help, gauge) in [
            ("root_cert_expiry_timestamp", "When the first root ends", &metrics.root_expiry),
            (
                "cert_chain_expiry_timestamp",
                "When the signing certificate ends",
                &metrics.chain_expiry,
            ),
        ] {
            registry.register(format!("citadel_server_{name}"), help, gauge.clone());
        }
        metrics
    }
}
