//! Counts of what was asked and answered, under the names that Istio's dashboards ask for.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use weft_crds::Kind;

use crate::review::GroupVersionResource;

/// A count that only goes up. The library would add `_total` to a counter's name, which Istio's names do not all have.
type Count = Gauge<u64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassedLabels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedLabels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: Counter,
    pub(crate) successes: Counter,
    pub(crate) failures: Counter,
    pub(crate) skips: Counter,
    passed: Family<PassedLabels, Count>,
    failed: Family<FailedLabels, Count>,
    pub(crate) http_errors: Count,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for (name, help, counter) in [
            ("sidecar_injection_requests", "Pods that injection was asked for", &metrics.requests),
            ("sidecar_injection_success", "Pods that got a proxy", &metrics.successes),
            (
                "sidecar_injection_failure",
                "Pods refused, and unreadable requests",
                &metrics.failures,
            ),
            ("sidecar_injection_skip", "Pods that are to have no proxy", &metrics.skips),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "galley_validation_passed",
            "Resources that were accepted",
            metrics.passed.clone(),
        );
        registry.register(
            "galley_validation_failed",
            "Resources that were refused",
            metrics.failed.clone(),
        );
        registry.register(
            "galley_validation_http_error",
            "Requests to validate that could not be read",
            metrics.http_errors.clone(),
        );
        metrics
    }

    pub(crate) fn passed(&self, resource: &GroupVersionResource) {
        let Some((group, version, resource)) = known(resource) else { return };
        self.passed.get_or_create(&PassedLabels { group, version, resource }).inc();
    }

    pub(crate) fn failed(&self, resource: &GroupVersionResource, reason: &'static str) {
        let Some((group, version, resource)) = known(resource) else { return };
        self.failed.get_or_create(&FailedLabels { group, version, resource, reason }).inc();
    }
}

/// The resource as labels, which are never more than our kinds: whoever reaches the port could name any other.
fn known(resource: &GroupVersionResource) -> Option<(&'static str, &'static str, &'static str)> {
    let GroupVersionResource { group, version, resource } = resource;
    let kind =
        Kind::ALL.into_iter().find(|kind| kind.group() == group && kind.plural() == resource)?;
    let version = kind.versions().iter().find(|known| *known == version)?;
    Some((kind.group(), version, kind.plural()))
}
