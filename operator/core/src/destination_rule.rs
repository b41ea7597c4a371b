//! Destination rules: merging those of one host, and the overlay of their traffic policies (`istio-behaviours` 2.4).

pub mod table;

use std::collections::BTreeMap;

use weft_crds::networking::{DestinationRuleSpec, PortTrafficPolicy, TrafficPolicy};

use crate::{host, resource::ResourceRef};

/// The destination rule that applies to a service for a client, after choosing and merging.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveDestinationRule {
    /// The rules that it was made of, oldest first.
    pub sources: Vec<ResourceRef>,
    /// The merged spec, its host fully qualified.
    pub spec: DestinationRuleSpec,
}

impl EffectiveDestinationRule {
    /// The traffic policy for a port and subset after Istio's overlay rules (`istio-behaviours` 2.4, item 36):
    /// port-level settings replace, subset policies overlay field by field. `None` stands for "no policy given".
    /// The answer has no port-level settings. An undefined subset, and the empty one, get the host's policy.
    pub fn traffic_policy(&self, port: u16, subset: &str) -> Option<TrafficPolicy> {
        let base = self.spec.traffic_policy.as_ref().map(|policy| for_port(policy, port));
        let subset = self
            .spec
            .subsets
            .iter()
            .find(|defined| !subset.is_empty() && defined.name == subset)
            .and_then(|defined| defined.traffic_policy.as_ref());
        match (base, subset) {
            (base, None) => base,
            (base, Some(overlay)) => Some(overlaid(base.unwrap_or_default(), overlay, port)),
        }
    }

    /// The labels of a subset, if it is defined.
    pub fn subset_labels(&self, subset: &str) -> Option<&BTreeMap<String, String>> {
        self.spec
            .subsets
            .iter()
            .find(|defined| defined.name == subset)
            .map(|defined| &defined.labels)
    }
}

/// The settings of a policy for one port.
fn port_settings(policy: &TrafficPolicy, port: u16) -> Option<&PortTrafficPolicy> {
    let is_for_port = |settings: &&PortTrafficPolicy| {
        settings.port.as_ref().is_some_and(|selector| selector.number == port)
    };
    policy.port_level_settings.iter().find(is_for_port)
}

/// A port's settings take the place of all four of the policy's: what they leave out has its default, not the policy's.
fn replace(policy: &mut TrafficPolicy, settings: &PortTrafficPolicy) {
    policy.load_balancer.clone_from(&settings.load_balancer);
    policy.connection_pool.clone_from(&settings.connection_pool);
    policy.outlier_detection.clone_from(&settings.outlier_detection);
    policy.tls.clone_from(&settings.tls);
}

fn for_port(policy: &TrafficPolicy, port: u16) -> TrafficPolicy {
    let mut result = policy.clone();
    result.port_level_settings.clear();
    if let Some(settings) = port_settings(policy, port) {
        replace(&mut result, settings);
    }
    result
}

fn overlaid(mut base: TrafficPolicy, overlay: &TrafficPolicy, port: u16) -> TrafficPolicy {
    fn take<T: Clone>(field: &mut Option<T>, overlay: Option<&T>) {
        if let Some(value) = overlay {
            *field = Some(value.clone());
        }
    }
    take(&mut base.load_balancer, overlay.load_balancer.as_ref());
    take(&mut base.connection_pool, overlay.connection_pool.as_ref());
    take(&mut base.outlier_detection, overlay.outlier_detection.as_ref());
    take(&mut base.tls, overlay.tls.as_ref());
    take(&mut base.tunnel, overlay.tunnel.as_ref());
    take(&mut base.proxy_protocol, overlay.proxy_protocol.as_ref());
    take(&mut base.retry_budget, overlay.retry_budget.as_ref());
    if let Some(settings) = port_settings(overlay, port) {
        replace(&mut base, settings);
    }
    base
}

/// A spec whose host is fully qualified.
pub fn qualify(spec: &DestinationRuleSpec, namespace: &str, domain: &str) -> DestinationRuleSpec {
    let mut spec = spec.clone();
    spec.host = host::resolve(&spec.host, namespace, domain);
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(spec: Value) -> EffectiveDestinationRule {
        EffectiveDestinationRule { sources: vec![], spec: serde_json::from_value(spec).unwrap() }
    }

    #[test]
    fn policies_overlay_as_in_istio() {
        let pool = |n: u32| json!({"tcp": {"maxConnections": n}});
        let outlier = |n: u32| json!({"consecutive5xxErrors": n});
        let rule = rule(json!({
            "host": "a",
            "trafficPolicy": {
                "connectionPool": pool(1),
                "outlierDetection": outlier(1),
                "tls": {"mode": "SIMPLE"},
                "proxyProtocol": {"version": "V2"},
                "portLevelSettings": [{"port": {"number": 81}, "connectionPool": pool(81)}],
            },
            "subsets": [
                {"name": "none", "labels": {"v": "1"}},
                {"name": "some", "trafficPolicy": {"connectionPool": pool(2)}},
                {"name": "ports", "trafficPolicy": {
                    "connectionPool": pool(2),
                    "portLevelSettings": [{"port": {"number": 80}, "outlierDetection": outlier(80)}],
                }},
            ],
        }));
        let proxy = json!({"version": "V2"});
        let host_80 = json!({
            "connectionPool": pool(1), "outlierDetection": outlier(1), "tls": {"mode": "SIMPLE"}, "proxyProtocol": proxy,
        });
        let cases = [
            (80, "", host_80.clone()),
            (80, "none", host_80.clone()),
            (80, "undefined", host_80),
            (81, "", json!({"connectionPool": pool(81), "proxyProtocol": proxy})),
            (81, "none", json!({"connectionPool": pool(81), "proxyProtocol": proxy})),
            (
                80,
                "some",
                json!({
                    "connectionPool": pool(2), "outlierDetection": outlier(1), "tls": {"mode": "SIMPLE"},
                    "proxyProtocol": proxy,
                }),
            ),
            (81, "some", json!({"connectionPool": pool(2), "proxyProtocol": proxy})),
            (80, "ports", json!({"outlierDetection": outlier(80), "proxyProtocol": proxy})),
            (81, "ports", json!({"connectionPool": pool(2), "proxyProtocol": proxy})),
        ];
        for (port, subset, expected) in cases {
            let expected: TrafficPolicy = serde_json::from_value(expected).unwrap();
            assert_eq!(rule.traffic_policy(port, subset), Some(expected), "{port} {subset}");
        }
        assert_eq!(rule.subset_labels("none"), Some(&[("v".into(), "1".into())].into()));
        assert_eq!(rule.subset_labels("undefined"), None);
    }

    #[test]
    fn no_policy_anywhere_is_none_and_a_subsets_own_stands_alone() {
        let rule = rule(json!({
            "host": "a",
            "subsets": [
                {"name": "v1"},
                {"name": "v2", "trafficPolicy": {
                    "tls": {"mode": "DISABLE"},
                    "portLevelSettings": [{"port": {"number": 81}}],
                }},
            ],
        }));
        assert_eq!(rule.traffic_policy(80, ""), None);
        assert_eq!(rule.traffic_policy(80, "v1"), None);
        let own: TrafficPolicy =
            serde_json::from_value(json!({"tls": {"mode": "DISABLE"}})).unwrap();
        assert_eq!(rule.traffic_policy(80, "v2"), Some(own));
        assert_eq!(rule.traffic_policy(81, "v2"), Some(TrafficPolicy::default()));
    }
}
