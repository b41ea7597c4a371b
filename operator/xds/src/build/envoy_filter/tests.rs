use std::collections::BTreeMap;

use prost::Message;
use weft_api::xds::envoy::config::route::v3::{Route, VirtualHost};
use weft_core::resource::ResourceRef;

use super::*;

const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

fn filter(patches: &str) -> Vec<Arc<Resource<EnvoyFilterSpec>>> {
    let document = format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: f}}\n\
         spec: {{configPatches: [{patches}]}}"
    );
    let spec = match weft_crds::parse_text(&document).remove(0).unwrap() {
        weft_crds::Parsed::Ours(resource) => match *resource {
            weft_crds::AnyResource::EnvoyFilter(filter) => filter.spec,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    vec![Arc::new(Resource {
        reference: ResourceRef { kind: "EnvoyFilter", namespace: "a".into(), name: "f".into() },
        created: 0,
        generation: 1,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec,
    })]
}

fn decode(any: &Any) -> EnvoyLimit {
    assert_eq!(any.type_url, TYPE_URL);
    EnvoyLimit::decode(any.value.as_slice()).unwrap()
}

fn limits(patches: &str, port: u16) -> Vec<(u32, u32, i64, u32)> {
    let summary = |filter: &HttpFilter| match filter.config_type.as_ref().unwrap() {
        HttpConfig::TypedConfig(any) => {
            let limit = decode(any);
            let bucket = limit.token_bucket.unwrap();
            let enforced = limit.filter_enforced.unwrap().default_value.unwrap().numerator;
            let fill = bucket.fill_interval.unwrap().seconds;
            (bucket.max_tokens, bucket.tokens_per_fill.unwrap().value, fill, enforced)
        }
        other => panic!("{other:?}"),
    };
    inbound_http_filters(&filter(patches), port).iter().map(summary).collect()
}

const LIMIT: &str = r#""@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: p, token_bucket: {max_tokens: 100, tokens_per_fill: 50, fill_interval: 60s}"#;

fn insert(matches: &str, config: &str) -> String {
    format!(
        "{{applyTo: HTTP_FILTER, match: {{{matches}}}, patch: {{operation: INSERT_BEFORE, value: \
         {{name: envoy.filters.http.local_ratelimit, typed_config: {{{config}}}}}}}}}"
    )
}

#[test]
fn a_limit_without_shares_counts_every_request() {
    assert_eq!(limits(&insert("context: SIDECAR_INBOUND", LIMIT), 80), [(100, 50, 60, 100)]);
}

#[test]
fn shares_and_typed_structs_are_read() {
    let half = format!(
        "{LIMIT}, filter_enforced: {{default_value: {{numerator: 50, denominator: HUNDRED}}}}"
    );
    assert_eq!(limits(&insert("context: ANY", &half), 80), [(100, 50, 60, 50)]);
    let inner = LIMIT.split_once(',').unwrap().1;
    let wrapped = format!(
        r#""@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: {TYPE_URL}, value: {{{inner}}}"#
    );
    assert_eq!(limits(&insert("context: SIDECAR_INBOUND", &wrapped), 80), [(100, 50, 60, 100)]);
}

#[test]
fn patches_for_something_else_do_nothing() {
    for matches in [
        "context: SIDECAR_OUTBOUND",
        "context: GATEWAY",
        "context: ANY, listener: {portNumber: 81}",
    ] {
        assert_eq!(limits(&insert(matches, LIMIT), 80), [], "{matches}");
    }
    let other = LIMIT.replace("local_ratelimit.v3.LocalRateLimit", "lua.v3.Lua");
    assert_eq!(limits(&insert("context: ANY", &other), 80), []);
    assert_eq!(limits("{applyTo: CLUSTER, patch: {operation: ADD, value: {name: x}}}", 80), []);
}

#[test]
fn a_route_of_the_port_gets_its_own_limit() {
    let patch = format!(
        "{{applyTo: HTTP_ROUTE, match: {{context: SIDECAR_INBOUND, routeConfiguration: {{vhost: \
         {{name: 'inbound|http|8080', route: {{action: ANY}}}}}}}}, patch: {{operation: MERGE, value: \
         {{typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {{{LIMIT}}}}}}}}}}}"
    );
    let limits_of = |name: &str| {
        let route = Route { name: "default".into(), ..Route::default() };
        let host = VirtualHost { name: name.into(), routes: vec![route], ..VirtualHost::default() };
        let mut config =
            RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        apply_to_inbound_route(&filter(&patch), &mut config, 8080);
        let route = config.virtual_hosts.remove(0).routes.remove(0);
        route.typed_per_filter_config.get(FILTER).map(|any| decode(any).stat_prefix)
    };
    assert_eq!(limits_of("inbound|http|8080"), Some("p".into()));
    assert_eq!(limits_of("inbound|http|9090"), None);
}
