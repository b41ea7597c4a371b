//! Tables: a spec in YAML, and what is said about it.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod http_route;
mod security;
mod service_entry;
mod virtual_service;

use super::*;
use crate::{Parsed, parse_text};

const EXAMPLES: [(&str, &str); 7] = [
    ("authorization", include_str!("../../tests/examples/authorization.yaml")),
    ("canary", include_str!("../../tests/examples/canary.yaml")),
    ("circuit-breaker", include_str!("../../tests/examples/circuit-breaker.yaml")),
    ("fault-injection", include_str!("../../tests/examples/fault-injection.yaml")),
    ("mtls-strict", include_str!("../../tests/examples/mtls-strict.yaml")),
    ("rate-limit-envoyfilter", include_str!("../../tests/examples/rate-limit-envoyfilter.yaml")),
    ("timeout-retries", include_str!("../../tests/examples/timeout-retries.yaml")),
];

fn parse(text: &str) -> AnyResource {
    match parse_text(text).pop() {
        Some(Ok(Parsed::Ours(resource))) => *resource,
        other => panic!("{text}\n{other:?}"),
    }
}

/// A resource with this spec in YAML, indented by two spaces or in flow style.
fn resource(kind: &str, spec: &str) -> AnyResource {
    let version = match kind {
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io/v1",
        _ => "networking.istio.io/v1",
    };
    parse(&format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: b}}\nspec: {spec}\n"
    ))
}

fn lines(findings: &[FieldError]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_errors(kind: &str, table: &[(&str, &[&str])]) {
    for (spec, errors) in table {
        let found = validate(&resource(kind, spec));
        assert_eq!(lines(&found.errors), *errors, "{spec}");
    }
}

#[track_caller]
fn assert_warnings(kind: &str, table: &[(&str, &[&str])]) {
    for (spec, warnings) in table {
        let found = validate(&resource(kind, spec));
        let expected = (vec![], warnings.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!((lines(&found.errors), lines(&found.warnings)), expected, "{spec}");
    }
}

#[test]
fn the_examples_are_valid_and_only_the_deprecated_field_is_warned_of() {
    for (name, text) in EXAMPLES {
        for document in parse_text(text) {
            let Ok(Parsed::Ours(resource)) = document else { panic!("{name}: {document:?}") };
            let warnings: &[&str] = if name == "circuit-breaker" {
                &["spec.trafficPolicy.outlierDetection.consecutiveErrors: is deprecated: \
                   it counts as consecutive5xxErrors"]
            } else {
                &[]
            };
            let found = validate(&resource);
            assert_eq!(
                (found.errors, lines(&found.warnings)),
                (vec![], warnings.iter().map(ToString::to_string).collect()),
                "{name}"
            );
        }
    }
}

#[test]
fn what_this_version_does_not_act_on_is_warned_of() {
    let policy = |policy: &str| format!("{{host: a, trafficPolicy: {{{policy}}}}}");
    let nothing = NOT_YET;
    for (kind, spec, path, reason) in [
        (
            "DestinationRule",
            policy("tunnel: {targetHost: a, targetPort: 1}"),
            "trafficPolicy.tunnel",
            nothing,
        ),
        (
            "DestinationRule",
            policy("proxyProtocol: {version: V2}"),
            "trafficPolicy.proxyProtocol",
            nothing,
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {localityLbSetting: {enabled: true}}"),
            "trafficPolicy.loadBalancer.localityLbSetting",
            nothing,
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {warmup: {duration: 1s}}"),
            "trafficPolicy.loadBalancer.warmup",
            nothing,
        ),
        ("AuthorizationPolicy", "{action: AUDIT, rules: [{}]}".into(), "action", nothing),
        (
            "AuthorizationPolicy",
            "{action: CUSTOM, provider: {name: p}, rules: [{}]}".into(),
            "action",
            "this version of Weft has no providers: requests that the rules match are refused",
        ),
        (
            "AuthorizationPolicy",
            "{rules: [{from: [{source: {notRequestPrincipals: [a]}}]}]}".into(),
            "rules[0].from[0].source.notRequestPrincipals",
            "this version of Weft reads no tokens: no request has such a property",
        ),
    ] {
        assert_warnings(kind, &[(&spec, &[&format!("spec.{path}: {reason}")])]);
    }
}
