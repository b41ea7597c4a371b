//! Texts in, resources or errors out.

use std::collections::BTreeMap;

use serde_json::json;
use weft_crds::{
    AnyResource, Duration, Kind, ParseError, Parsed, Percent, StringMatch,
    networking::{
        Destination, DestinationRuleSpec, EnvoyFilterSpec, HttpMatchRequest, HttpRetry, HttpRoute,
        HttpRouteDestination, PatchEffect, PortSelector, SimpleLb, Subset, VirtualServiceSpec,
    },
    parse_document, parse_text,
    security::{AuthorizationAction, MutualTls, MutualTlsMode},
};

fn resources(text: &str) -> Vec<AnyResource> {
    let parsed = parse_text(text).into_iter().map(|result| match result {
        Ok(Parsed::Ours(resource)) => *resource,
        other => panic!("{other:?}"),
    });
    parsed.collect()
}

fn errors(text: &str) -> Vec<String> {
    parse_text(text).into_iter().filter_map(Result::err).map(|e| e.to_string()).collect()
}

fn virtual_service(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {spec}"
    )
}

fn virtual_service_spec(spec: &str) -> VirtualServiceSpec {
    match resources(&virtual_service(spec)).pop() {
        Some(AnyResource::VirtualService(resource)) => resource.spec,
        other => panic!("{other:?}"),
    }
}

#[test]
fn canary_is_read_as_written() {
    let to = |subset: &str, weight| HttpRouteDestination {
        destination: Destination {
            host: "order-service".into(),
            subset: subset.into(),
            port: None,
        },
        weight,
        headers: None,
    };
    let beta = HttpMatchRequest {
        headers: [("user-type".into(), StringMatch::Exact("beta".into()))].into(),
        ..Default::default()
    };
    let routes = VirtualServiceSpec {
        hosts: vec!["order-service".into()],
        http: vec![
            HttpRoute { matches: vec![beta], route: vec![to("v2", 100)], ..Default::default() },
            HttpRoute { route: vec![to("v1", 90), to("v2", 10)], ..Default::default() },
        ],
        ..Default::default()
    };
    let subset = |name: &str| Subset {
        name: name.into(),
        labels: [("version".to_owned(), name.to_owned())].into(),
        traffic_policy: None,
    };
    let rule = DestinationRuleSpec {
        host: "order-service".into(),
        subsets: vec![subset("v1"), subset("v2")],
        ..Default::default()
    };
    let found = resources(include_str!("examples/canary.yaml"));
    let [AnyResource::VirtualService(service), AnyResource::DestinationRule(destination)] =
        found.as_slice()
    else {
        panic!("{found:?}")
    };
    assert_eq!((&service.spec, &destination.spec), (&routes, &rule));
    assert_eq!((found[0].namespace(), found[0].name()), ("default", "order-service"));
}

#[test]
fn protobufs_habits_are_understood() {
    let spec = virtual_service_spec(
        r#"
  hosts: [a]
  exportTo: null
  http:
  - timeout: 1m30s
    mirror: {host: b}
    mirror_percent: 5
    retries: {attempts: "3", per_try_timeout: 250ms, retryRemoteLocalities: yes, backoff: null}
    cors_policy: {unmatchedPreflights: 2}
    fault: {delay: {fixedDelay: 1.5s, percentage: {value: "0.5"}}}
    match: [{queryParams: {debug: {}}, headers: {x: {regex: "*"}}}]
    route: [{destination: {host: a, port: {number: 80.0}}, weight: 1}]
"#,
    );
    let route = &spec.http[0];
    assert_eq!(route.timeout, Some(Duration::from_secs(90)));
    assert_eq!(route.mirror_percent, Some(5));
    assert_eq!(
        route.retries,
        Some(HttpRetry {
            attempts: 3,
            per_try_timeout: Some(Duration::from_millis(250)),
            retry_remote_localities: Some(true),
            ..Default::default()
        })
    );
    assert_eq!(route.cors_policy.as_ref().unwrap().unmatched_preflights.as_str(), "IGNORE");
    let delay = route.fault.as_ref().unwrap().delay.clone().unwrap();
    assert_eq!((delay.percentage, delay.share()), (Some(Percent::new(0.5)), 0.5));
    assert_eq!(
        route.matches[0].query_params,
        BTreeMap::from([("debug".into(), StringMatch::Unset)])
    );
    assert!(route.matches[0].headers["x"].is_presence());
    assert_eq!(route.route[0].destination.port, Some(PortSelector { number: 80 }));
}

#[test]
fn deprecated_fields_keep_their_meaning() {
    let found = resources(include_str!("examples/circuit-breaker.yaml"));
    let AnyResource::DestinationRule(rule) = &found[0] else { panic!("{found:?}") };
    let policy = rule.spec.traffic_policy.as_ref().unwrap();
    assert_eq!(policy.outlier_detection.as_ref().unwrap().consecutive_5xx(), Some(5));
}

#[test]
fn errors_name_kind_namespace_name_field_and_reason() {
    for (spec, error) in [
        (
            "{http: [{route: [{}, {destination: {host: a}, weight: ten}]}]}",
            "spec.http[0].route[1].weight: expected a whole number, found the string \"ten\"",
        ),
        ("{htpp: []}", "spec.htpp: unknown field; did you mean http?"),
        ("{whatever: 1}", "spec.whatever: unknown field"),
        ("{http: {}}", "spec.http: expected a list, found an object"),
        ("{hosts: a}", "spec.hosts: expected a list, found the string \"a\""),
        ("{hosts: [1]}", "spec.hosts[0]: expected a string, found the number 1; put it in quotes"),
        ("{http: [{timeout: 5}]}", "spec.http[0].timeout: a duration needs a unit, such as 5s"),
        (
            "{http: [{timeout: -1s}]}",
            "spec.http[0].timeout: \"-1s\": a duration cannot be negative",
        ),
        (
            "{http: [{retries: {attempts: -1}}]}",
            "spec.http[0].retries.attempts: must be from 0 to 4294967295, not -1",
        ),
        (
            "{http: [{match: [{headers: {x-user: {exact: a, prefix: b}}}]}]}",
            "spec.http[0].match[0].headers[x-user]: only one of exact, prefix, regex can be set",
        ),
        (
            "{http: [{match: [{headers: {x-user: null}}]}]}",
            "spec.http[0].match[0].headers[x-user]: expected an object, found nothing",
        ),
        (
            "{http: [{corsPolicy: {unmatchedPreflights: PASS}}]}",
            "spec.http[0].corsPolicy.unmatchedPreflights: unknown value \"PASS\"; expected one of UNSPECIFIED, FORWARD, IGNORE",
        ),
        (
            "{http: [{mirror_percent: 1, mirrorPercent: 2}]}",
            "spec.http[0].mirrorPercent: the same field as mirrorPercent, which is there too",
        ),
        (
            "{http: [{match: [{port: 65536}]}]}",
            "spec.http[0].match[0].port: must be from 0 to 65535, not 65536",
        ),
        (
            "{http: [{directResponse: {body: {bytes: '%'}}}]}",
            "spec.http[0].directResponse.body.bytes: not base64: Invalid symbol 37, offset 0.",
        ),
        ("[]", "spec: expected an object, found a list"),
    ] {
        assert_eq!(
            errors(&virtual_service(spec)),
            [format!("VirtualService default/a: {error}")],
            "{spec}"
        );
    }
}

#[test]
fn every_problem_of_a_resource_is_reported_at_once() {
    let text = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: Pay, namespace: shop, lables: {a: b}}
specs: {}
spec:
  action: PERMIT
  rules: [{from: [], to: [{operation: {methods: []}}]}]
";
    let error = parse_text(text).remove(0).unwrap_err();
    let found: Vec<(&str, &str)> =
        error.problems().iter().map(|p| (p.path.as_str(), p.reason.as_str())).collect();
    assert_eq!(
        found,
        [
            ("metadata.lables", "unknown field; did you mean labels?"),
            ("spec.action", "unknown value \"PERMIT\"; expected one of ALLOW, DENY, AUDIT, CUSTOM"),
            ("spec.rules[0].from", "must not be empty: leave it out, or say at least one"),
            (
                "spec.rules[0].to[0].operation.methods",
                "must not be empty: leave it out, or say at least one"
            ),
            ("specs", "unknown field"),
        ]
    );
    assert_eq!(
        (error.kind(), error.namespace(), error.name()),
        (Some(Kind::AuthorizationPolicy), Some("shop"), Some("Pay"))
    );
    assert_eq!(
        (error.path(), error.reason()),
        (Some("metadata.lables"), "unknown field; did you mean labels?")
    );
}

#[test]
fn metadata_needs_a_name_that_can_be_one() {
    for (metadata, error) in [
        ("null", "VirtualService default/(no name): metadata.name: is required"),
        ("{}", "VirtualService default/(no name): metadata.name: is required"),
        (
            "{name: A_b}",
            "VirtualService default/A_b: metadata.name: \"A_b\" is not a name: lower-case letters, digits, - and . only",
        ),
        (
            "{name: a, namespace: b.c}",
            "VirtualService b.c/a: metadata.namespace: \"b.c\" is not a namespace: lower-case letters, digits and - only",
        ),
        (
            "{name: a, labels: {b: 1}}",
            "VirtualService default/a: metadata.labels[b]: expected a string, found the number 1; put it in quotes",
        ),
        ("[]", "VirtualService default/(no name): metadata: expected an object, found a list"),
    ] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {metadata}"
        );
        assert_eq!(errors(&text), [error], "{metadata}");
    }
}

#[test]
fn metadata_is_kept_and_a_null_creation_timestamp_is_none() {
    let text = "
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: a.b
  namespace: c
  creationTimestamp: null
  generation: 7
  labels: {x: y}
  annotations: {z: 'true'}
spec: {host: d, trafficPolicy: {loadBalancer: {simple: 4}}}
status: {conditions: [{type: Ready, status: 'True', observedGeneration: '7'}], other: 1}
";
    let AnyResource::DestinationRule(rule) = resources(text).remove(0) else { panic!() };
    assert_eq!(rule.metadata.generation, Some(7));
    assert_eq!(rule.metadata.creation_timestamp, None);
    assert_eq!(rule.metadata.labels, Some([("x".to_owned(), "y".to_owned())].into()));
    let balancer = rule.spec.traffic_policy.unwrap().load_balancer.unwrap();
    assert_eq!(balancer.simple, SimpleLb::RoundRobin);
    let status = rule.status.unwrap();
    assert_eq!(status.conditions[0].observed_generation, Some(7));
    assert_eq!(status.other["other"], json!(1));
}

#[test]
fn versions_that_are_not_served_are_refused() {
    assert_eq!(
        errors("apiVersion: networking.istio.io/v2\nkind: Gateway\nmetadata: {name: a}"),
        [
            "Gateway default/a: apiVersion: Gateway has no version \"v2\"; served are v1, v1beta1, v1alpha3"
        ]
    );
    assert_eq!(
        errors("apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {name: a}"),
        [
            "EnvoyFilter default/a: apiVersion: EnvoyFilter has no version \"v1\"; served are v1alpha3"
        ]
    );
}

#[test]
fn a_required_field_may_not_be_missing() {
    assert_eq!(
        errors(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n"
        ),
        ["DestinationRule default/a: spec.host: is required"]
    );
}

#[test]
fn kinds_that_are_not_ours_are_handed_back() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: b}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
---
just: text
";
    let found: Vec<(String, String, Option<String>)> = parse_text(text)
        .into_iter()
        .map(|result| match result {
            Ok(Parsed::Other(other)) => {
                let name = other.name().map(str::to_owned);
                (other.api_version, other.kind, name)
            }
            ours => panic!("{ours:?}"),
        })
        .collect();
    let other =
        |api: &str, kind: &str, name: Option<&str>| (api.into(), kind.into(), name.map(Into::into));
    assert_eq!(
        found,
        [
            other("v1", "Service", Some("a")),
            other("networking.istio.io/v1", "Sidecar", Some("s")),
            other("gateway.networking.k8s.io/v1", "Gateway", Some("g")),
            other("", "", None),
        ]
    );
}

#[test]
fn documents_are_parsed_one_by_one() {
    let text = format!(
        "# nothing\n---\n{}\n---\nnull\n---\n- a\n---\n{}\n---\n{}\n",
        virtual_service("{hosts: [a]}"),
        virtual_service("{hots: [a]}"),
        virtual_service("{hosts: [b]}"),
    );
    let results = parse_text(&text);
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 2);
    assert_eq!(
        errors(&text),
        [
            "document 2: expected an object with apiVersion and kind",
            "document 3: VirtualService default/a: spec.hots: unknown field; did you mean hosts?",
        ]
    );
    assert_eq!(parse_text(""), []);
    assert_eq!(parse_text("---\n---\n# only comments\n"), []);
}

#[test]
fn lists_stand_for_their_items() {
    let item = "{metadata: {name: a}, spec: {mtls: {mode: STRICT}}}";
    let full = format!(
        "{{apiVersion: security.istio.io/v1beta1, kind: PeerAuthentication, {}",
        &item[1..]
    );
    for text in [
        format!("apiVersion: v1\nkind: List\nitems: [{full}, {full}]"),
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthenticationList\nmetadata: {{}}\nitems: [{item}, {full}]"
        ),
    ] {
        for resource in resources(&text) {
            let AnyResource::PeerAuthentication(policy) = resource else { panic!("{text}") };
            assert_eq!(policy.spec.mtls, Some(MutualTls { mode: MutualTlsMode::Strict }));
        }
        assert_eq!(resources(&text).len(), 2);
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_expanded() {
    let text = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: &m {name: a}
spec:
  action: DENY
  rules:
  - to: [&op {operation: {methods: [GET]}}]
  - to: [*op]
  - to:
    - <<: *op
";
    let AnyResource::AuthorizationPolicy(policy) = resources(text).remove(0) else { panic!() };
    assert_eq!(policy.spec.action, AuthorizationAction::Deny);
    assert_eq!(policy.spec.rules[0], policy.spec.rules[1]);
    assert_eq!(policy.spec.rules[0], policy.spec.rules[2]);
}

#[test]
fn aliases_that_multiply_are_an_error() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{before}]\n");
    }
    let error = errors(&bomb).remove(0);
    assert!(error.starts_with("not valid YAML: alias replay limit exceeded"), "{error}");
    // One that contains itself.
    assert_eq!(errors("a: &a [*a]").len(), 1);
}

#[test]
fn what_is_not_yaml_says_where() {
    let Some(Err(ParseError::Yaml { line, .. })) = parse_text("a: 1\nb: [").pop() else { panic!() };
    assert_eq!(line, 2);
    for text in ["a: 1\na: 2", "a: b: c", "'", "%", "\0", "a: .inf", &"[".repeat(10_000)] {
        let found = parse_text(text);
        assert!(
            matches!(found.as_slice(), [Err(ParseError::Yaml { .. })]),
            "{text:.10}: {found:?}"
        );
    }
}

#[test]
fn words_that_yaml_once_took_for_booleans_are_text_where_text_is_wanted() {
    let spec = virtual_service_spec(
        "{hosts: [a, n, no], http: [{match: [{headers: {x: {exact: on}}, ignoreUriCase: no}]}]}",
    );
    assert_eq!(spec.hosts, ["a", "n", "no"]);
    assert_eq!(spec.http[0].matches[0].headers["x"], StringMatch::Exact("on".into()));
    assert_eq!(
        errors(&virtual_service("{http: [{match: [{ignoreUriCase: maybe}]}]}")),
        [
            "VirtualService default/a: spec.http[0].match[0].ignoreUriCase: expected true or false, found the string \"maybe\""
        ]
    );
}

#[test]
fn ports_are_keys_of_port_level_mtls() {
    let text = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a}}\nspec: {spec}"
        )
    };
    let found = resources(&text("{portLevelMtls: {8080: {mode: DISABLE}, '9090': {mode: 3}}}"));
    let AnyResource::PeerAuthentication(policy) = &found[0] else { panic!("{found:?}") };
    let mode = |mode| MutualTls { mode };
    assert_eq!(
        policy.spec.port_level_mtls,
        BTreeMap::from([(8080, mode(MutualTlsMode::Disable)), (9090, mode(MutualTlsMode::Strict))])
    );
    assert_eq!(
        errors(&text("{portLevelMtls: {http: {}, '0': {}}}")),
        [
            "PeerAuthentication default/a: spec.portLevelMtls[http]: a port must be from 1 to 65535; \
         spec.portLevelMtls[0]: a port must be from 1 to 65535"
        ]
    );
    assert_eq!(errors(&text("{portLevelMtls: {}}")).len(), 1);
}

fn filter(value: &str) -> PatchEffect {
    let text = format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: a}}\nspec: {{configPatches: [{value}]}}"
    );
    let AnyResource::EnvoyFilter(filter) = resources(&text).remove(0) else { panic!() };
    let EnvoyFilterSpec { config_patches, .. } = filter.spec;
    config_patches[0].effect()
}

#[test]
fn local_rate_limits_are_recognised_in_every_wrapping() {
    let kind =
        "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let config =
        "stat_prefix: p, status: {code: TooManyRequests}, token_bucket: {max_tokens: 10, tokens_per_fill: 5, fill_interval: 60s},
      filter_enabled: {runtime_key: k, default_value: {numerator: 50, denominator: HUNDRED}},
      response_headers_to_add: [{append: false, header: {key: x-limited, value: 'true'}}]";
    let plain = format!("{{'@type': {kind}, {config}}}");
    let wrapped = format!(
        "{{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: {kind}, value: {{{config}}}}}"
    );
    let mut limits = Vec::new();
    for config in [&plain, &wrapped] {
        let patch = format!(
            "{{applyTo: HTTP_FILTER, match: {{context: SIDECAR_INBOUND}}, patch: {{operation: INSERT_BEFORE,
              value: {{name: envoy.filters.http.local_ratelimit, typed_config: {config}}}}}}}"
        );
        let PatchEffect::LocalRateLimit(limit) = filter(&patch) else {
            panic!("{:?}", filter(&patch))
        };
        limits.push(limit);
        let patch = format!(
            "{{applyTo: HTTP_ROUTE, match: {{context: SIDECAR_INBOUND, routeConfiguration: {{vhost: {{name: 'inbound|http|80'}}}}}},
              patch: {{operation: MERGE, value: {{typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {config}}}}}}}}}"
        );
        let PatchEffect::RouteLocalRateLimit(limit) = filter(&patch) else {
            panic!("{:?}", filter(&patch))
        };
        limits.push(limit);
    }
    assert!(limits.iter().all(|limit| *limit == limits[0]), "{limits:?}");
    assert_eq!(limits[0].status.unwrap().code, 429);
    let bucket = limits[0].token_bucket.unwrap();
    assert_eq!(
        (bucket.max_tokens, bucket.tokens_per_fill, bucket.fill_interval),
        (10, Some(5), Duration::from_secs(60))
    );
    assert_eq!(limits[0].filter_enabled.as_ref().unwrap().percent(), 50.0);
    assert!(limits[0].response_headers_to_add[0].replaces());
}

#[test]
fn a_single_value_is_parsed_too() {
    let value = json!({
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "Gateway",
        "metadata": { "name": "a" },
        "spec": { "selector": { "app": "gw" } },
    });
    let Ok(Parsed::Ours(resource)) = parse_document(value) else { panic!() };
    assert_eq!((resource.kind(), resource.name()), (Kind::Gateway, "a"));
    assert_eq!(parse_document(json!("x")), Err(ParseError::NotAnObject { document: None }));
}
