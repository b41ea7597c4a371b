//! EnvoyFilters.

use super::*;

#[test]
fn envoy_filters_need_an_operation_and_a_value() {
    assert_errors(
        "EnvoyFilter",
        &[
            (
                "{configPatches: [{patch: {operation: MERGE}}]}",
                &["spec.configPatches[0].applyTo: is required"],
            ),
            (
                "{configPatches: [{applyTo: CLUSTER}]}",
                &["spec.configPatches[0].patch: is required"],
            ),
            (
                "{configPatches: [{applyTo: CLUSTER, patch: {value: {a: b}}}]}",
                &["spec.configPatches[0].patch.operation: is required"],
            ),
            (
                "{configPatches: [{applyTo: CLUSTER, patch: {operation: ADD}}]}",
                &["spec.configPatches[0].patch.value: is required for operation ADD"],
            ),
        ],
    );
}

#[test]
fn envoy_filter_patches_without_effect_are_warned_of() {
    for (patch, warning) in [
        ("applyTo: CLUSTER, patch: {operation: REMOVE}", "patches of CLUSTER are not supported"),
        (
            "applyTo: HTTP_FILTER, match: {context: GATEWAY}, patch: {operation: ADD, value: {name: x}}",
            "context GATEWAY is not supported, only SIDECAR_INBOUND",
        ),
        (
            "applyTo: HTTP_FILTER, patch: {operation: ADD, value: {name: envoy.filters.http.lua}}",
            "of HTTP filters only envoy.filters.http.local_ratelimit is supported, not \"envoy.filters.http.lua\"",
        ),
        (
            "applyTo: HTTP_FILTER, patch: {operation: MERGE, value: {name: envoy.filters.http.local_ratelimit}}",
            "operation MERGE is not supported for HTTP_FILTER",
        ),
        (
            "applyTo: HTTP_FILTER, patch: {operation: ADD, value: {name: envoy.filters.http.local_ratelimit}}",
            "the filter has no typed_config",
        ),
        (
            "applyTo: HTTP_ROUTE, patch: {operation: MERGE, value: {route: {timeout: 1s}}}",
            "of routes only typed_per_filter_config of envoy.filters.http.local_ratelimit is supported",
        ),
    ] {
        let warning = format!("spec.configPatches[0]: has no effect in Weft: {warning}");
        assert_warnings(
            "EnvoyFilter",
            &[(&format!("{{configPatches: [{{{patch}}}]}}"), &[&warning])],
        );
    }
    let typed = "'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    for (config, warning) in [
        (
            format!("{typed}, stat_prefix: a, token_bucket: {{max_tokens: 1}}"),
            "[0]: has no effect in Weft: its configuration is not understood: value.token_bucket.fillInterval: is required",
        ),
        (
            format!("{typed}, stat_prefix: a, descriptors: [{{entries: []}}]"),
            "[0].patch.value: descriptors has no effect in Weft: limits by properties of requests are not supported",
        ),
        (
            "'@type': type.googleapis.com/x.Y".to_owned(),
            "[0]: has no effect in Weft: the filter's configuration is of type \"x.Y\", not envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        ),
    ] {
        let spec = format!(
            "{{configPatches: [{{applyTo: HTTP_FILTER, patch: {{operation: INSERT_BEFORE, value: {{name: envoy.filters.http.local_ratelimit, typed_config: {{{config}}}}}}}}}]}}"
        );
        assert_warnings("EnvoyFilter", &[(&spec, &[&format!("spec.configPatches{warning}")])]);
    }
}
