use std::time::Duration;

use proptest::prelude::{prop, proptest};
use prost::Message;
use weft_api::xds::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as PbLog, AccessLogFilter, ResponseFlagFilter, access_log,
                access_log_filter,
            },
            cluster::v3::{Cluster, OutlierDetection as PbOutlier},
            core::v3::{HeaderValue, HeaderValueOption},
            listener::v3::{FilterChainMatch as PbMatch, Listener as PbListener},
            rbac::v3::{Permission, Policy, Principal, Rbac as PbRules, permission, principal},
            route::v3::{
                HeaderMatcher, RetryPolicy as PbRetry, RouteConfiguration, VirtualHost as PbHost,
                header_matcher, route, route_action, route_match,
            },
        },
        extensions::{
            access_loggers::file::v3::{FileAccessLog, file_access_log},
            filters::{
                http::rbac::v3::Rbac as PbRbac,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_connection_manager, http_filter,
                },
            },
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher as PbString, string_matcher},
    },
    google::protobuf::{self as pb, Struct, UInt32Value, Value, value::Kind as PbKind},
};

use super::*;
use crate::{
    config::{
        access_log::{Command, FormatPart, LogFormat},
        cluster::LbPolicy,
        filter::{Fraction, HttpFilter as Filter},
        http::RouteSource,
        listener::{Terminal, TransportMatch},
        rbac::RbacAction,
        route::{HeaderFormat, HeaderMutation, PathMatch, RouteAction},
        tls::{TlsSource, TlsVersions},
    },
    control::fixtures::*,
};

fn decoder() -> Decoder {
    Decoder::new(&Settings::test()).unwrap()
}

fn listener(pb: &PbListener) -> Result<Listener, String> {
    decoder().listener(&pb.name, &any(pb)).map_err(|invalid| invalid.to_string())
}

fn host(pb: &PbHost) -> Result<VirtualHost, String> {
    decoder().virtual_host("r/h", &any(pb)).map_err(|invalid| invalid.to_string())
}

fn cluster(pb: &Cluster) -> Result<DecodedCluster, String> {
    decoder().cluster(&pb.name, &any(pb)).map_err(|invalid| invalid.to_string())
}

fn inline(config: RouteConfiguration) -> http_connection_manager::RouteSpecifier {
    http_connection_manager::RouteSpecifier::RouteConfig(config)
}

fn manager_listener(change: impl FnOnce(&mut HttpConnectionManager)) -> PbListener {
    let mut manager = connection_manager(inline(route_config("r", &["c"])), Vec::new());
    change(&mut manager);
    listener_of("l", &manager)
}

fn manager(listener: &Listener) -> &crate::config::http::HttpConnectionManager {
    match &listener.chains[0].terminal {
        Terminal::Http(manager) => manager,
        Terminal::Tcp(_) => panic!("not HTTP"),
    }
}

fn filter_of<T: Message + prost::Name>(name: &str, config: &T) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

#[test]
fn a_manager_without_settings_has_safe_ones() {
    let decoded = listener(&manager_listener(|_| {})).unwrap();
    let manager = manager(&decoded);
    assert_eq!(manager.max_request_headers_bytes, 64 * 1024);
    assert_eq!(manager.max_request_headers, 100);
    assert_eq!(manager.request_headers_timeout, Some(Duration::from_secs(60)));
    assert_eq!(manager.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert!(manager.generate_request_id && !manager.accept_http_10 && !manager.use_remote_address);
    let RouteSource::Inline(config) = &manager.routes else { panic!("inline routes") };
    assert_eq!(&*config.hosts.any.as_ref().unwrap().name, "all");
}

#[test]
fn zero_means_no_timeout() {
    let zero = Some(pb::Duration::default());
    let decoded = listener(&manager_listener(|manager| {
        manager.stream_idle_timeout = zero;
        manager.request_headers_timeout = zero;
    }))
    .unwrap();
    let manager = manager(&decoded);
    assert_eq!((manager.stream_idle_timeout, manager.request_headers_timeout), (None, None));
}

#[test]
fn what_is_not_implemented_is_refused_with_its_path() {
    type Change = fn(&mut HttpConnectionManager);
    let http = "filter_chains[0].filters[0].typed_config";
    let cases: [(Change, &str); 8] = [
        (|m| m.via = "x".into(), ".via: not supported"),
        (|m| m.codec_type = 3, ".codec_type: \"3\" is not supported"),
        (|m| m.route_specifier = None, ".route_specifier: missing"),
        (|m| m.http_filters.clear(), ".http_filters: missing"),
        (
            |m| {
                m.http_filters.pop();
                m.http_filters.push(filter_of("x", &Cluster::default()));
            },
            ".http_filters.router at the end: missing",
        ),
        (
            |m| m.http_filters.insert(0, filter_of("x", &Cluster::default())),
            ".http_filters[0].typed_config: \"envoy.config.cluster.v3.Cluster\" is not supported",
        ),
        (
            |m| m.max_request_headers_kb = Some(UInt32Value { value: 9000 }),
            ".max_request_headers_kb: \"9000\" is not 1 to 8192",
        ),
        (
            |m| m.drain_timeout = Some(pb::Duration { seconds: -1, nanos: 0 }),
            ".drain_timeout: \"-1s 0ns\" is not a duration of zero or more",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(listener(&manager_listener(change)).unwrap_err(), format!("{http}{expected}"));
    }
}

#[test]
fn an_optional_filter_that_is_not_known_is_passed_over() {
    let mut unknown = filter_of("x", &Cluster::default());
    unknown.is_optional = true;
    let decoded =
        listener(&manager_listener(|manager| manager.http_filters.insert(0, unknown))).unwrap();
    assert!(manager(&decoded).filters.is_empty());
}

#[test]
fn the_proxys_own_ports_are_bound_where_the_settings_say() {
    let mut settings = Settings::test();
    settings.ports.inbound = 25006;
    let decoder = Decoder::new(&settings).unwrap();
    let mut pb = rds_listener("virtualInbound", "r");
    pb.bind_to_port = None;
    pb.additional_addresses = [("127.0.0.1", 8080), ("127.0.0.1", 8080), ("127.0.0.1", 9090)]
        .map(|(ip, port)| weft_api::xds::envoy::config::listener::v3::AdditionalAddress {
            address: Some(address(ip, port)),
            ..Default::default()
        })
        .to_vec();
    let decoded = decoder.listener("virtualInbound", &any(&pb)).unwrap();
    let expected = ["127.0.0.1:25006", "127.0.0.1:8080", "127.0.0.1:9090"];
    assert_eq!(decoded.binds, expected.map(|bind| bind.parse().unwrap()));
    assert!(
        listener(&rds_listener("http_proxy", "r")).unwrap().binds.is_empty(),
        "not to be bound"
    );
}

#[test]
fn filter_chain_matches_are_read() {
    let mut pb = tcp_listener("l", "c");
    pb.filter_chains[0].filter_chain_match = Some(PbMatch {
        destination_port: Some(UInt32Value { value: 8080 }),
        transport_protocol: "tls".into(),
        application_protocols: vec!["istio".into()],
        server_names: vec!["*.Example.com".into()],
        ..PbMatch::default()
    });
    let decoded = listener(&pb).unwrap();
    let matches = &decoded.chains[0].matches;
    assert_eq!(matches.destination_port, Some(8080));
    assert_eq!(matches.transport, Some(TransportMatch::Tls));
    assert_eq!(*matches.application_protocols[0], *b"istio");
    assert_eq!(&*matches.server_names[0], "*.example.com");
    pb.filter_chains[0].filter_chain_match.as_mut().unwrap().source_type = 1;
    assert_eq!(
        listener(&pb).unwrap_err(),
        "filter_chains[0].filter_chain_match.source_type: not supported"
    );
}

fn permission_of(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn rbac_listener(permission: permission::Rule, identifier: principal::Identifier) -> PbListener {
    let policy = Policy {
        permissions: vec![permission_of(permission)],
        principals: vec![Principal { identifier: Some(identifier) }],
        ..Policy::default()
    };
    let rules = PbRules {
        action: 1,
        policies: [("ns[a]-policy[b]-rule[0]".to_owned(), policy)].into(),
        ..PbRules::default()
    };
    let rbac = PbRbac { rules: Some(rules), ..PbRbac::default() };
    manager_listener(|manager| {
        manager.http_filters.insert(0, filter_of("envoy.filters.http.rbac", &rbac));
    })
}

#[test]
fn rbac_rules_become_trees_and_lose_nothing() {
    let header = |name: &str| HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
        ..HeaderMatcher::default()
    };
    let not = permission::Rule::NotRule(Box::new(permission_of(permission::Rule::Header(header(
        "X-Secret",
    )))));
    let name = PbString {
        match_pattern: Some(string_matcher::MatchPattern::Exact("spiffe://td/ns/a/sa/b".into())),
        ..PbString::default()
    };
    let by_state = principal::Identifier::FilterState(
        weft_api::xds::envoy::r#type::matcher::v3::FilterStateMatcher {
            key: "io.istio.peer_principal".into(),
            matcher: Some(
                weft_api::xds::envoy::r#type::matcher::v3::filter_state_matcher::Matcher::StringMatch(name),
            ),
        },
    );
    let decoded = listener(&rbac_listener(not, by_state)).unwrap();
    let Filter::Rbac(rbac) = &manager(&decoded).filters[0] else { panic!("RBAC") };
    let rules = rbac.rules.as_ref().unwrap();
    assert_eq!(rules.action, RbacAction::Deny);
    let (name, policy) = &rules.policies[0];
    assert_eq!(&**name, "ns[a]-policy[b]-rule[0]");
    assert_eq!(
        format!("{policy:?}"),
        "Policy { permissions: [Not(Header(HeaderMatcher { name: \"x-secret\", value: Present(true), \
         invert: false, treat_missing_as_empty: false }))], principals: [Authenticated(Some(Exact { \
         value: \"spiffe://td/ns/a/sa/b\", ignore_case: false }))] }"
    );
    let any_permission = permission::Rule::Any(true);
    let path = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.rules.\
                policies[\"ns[a]-policy[b]-rule[0]\"]";
    for (listener_, expected) in [
        (
            rbac_listener(permission::Rule::Any(false), principal::Identifier::Any(true)),
            ".permissions[0].any: false: not supported",
        ),
        (
            rbac_listener(
                any_permission.clone(),
                principal::Identifier::OrIds(principal::Set::default()),
            ),
            ".principals[0].or_ids.ids that are empty: not supported",
        ),
        (
            rbac_listener(
                permission::Rule::DestinationPort(70_000),
                principal::Identifier::Any(true),
            ),
            ".permissions[0].destination_port: \"70000\" is not a port",
        ),
    ] {
        assert_eq!(listener(&listener_).unwrap_err(), format!("{path}{expected}"));
    }
}

fn text_value(text: &str) -> Value {
    Value { kind: Some(PbKind::StringValue(text.into())) }
}

fn struct_value(fields: &[(&str, Value)]) -> Value {
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Value { kind: Some(PbKind::StructValue(Struct { fields })) }
}

fn number_value(number: f64) -> Value {
    Value { kind: Some(PbKind::NumberValue(number)) }
}

/// A local rate limit as an EnvoyFilter writes it.
fn typed_struct(more: &[(&str, Value)]) -> HttpFilter {
    let share = struct_value(&[(
        "default_value",
        struct_value(&[("numerator", number_value(100.0)), ("denominator", text_value("HUNDRED"))]),
    )]);
    let mut fields = vec![
        ("stat_prefix", text_value("http_local_rate_limiter")),
        (
            "token_bucket",
            struct_value(&[
                ("max_tokens", number_value(10.0)),
                ("tokens_per_fill", number_value(10.0)),
                ("fill_interval", text_value("60s")),
            ]),
        ),
        ("filter_enabled", share.clone()),
        ("filter_enforced", share),
    ];
    fields.extend_from_slice(more);
    let Some(PbKind::StructValue(value)) = struct_value(&fields).kind else { panic!("a struct") };
    let typed = rate_limit_struct::TypedStruct {
        type_url:
            "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
                .into(),
        value: Some(value),
    };
    let config = Any {
        type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".into(),
        value: typed.encode_to_vec(),
    };
    HttpFilter {
        name: "envoy.filters.http.local_ratelimit".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

#[test]
fn a_local_rate_limit_may_come_as_a_typed_struct_and_keeps_its_bucket() {
    let pb = manager_listener(|manager| manager.http_filters.insert(0, typed_struct(&[])));
    let decoder = decoder();
    let bucket_of = |listener: &Listener| {
        let Filter::LocalRateLimit(limit) = &manager(listener).filters[0] else { panic!("limit") };
        assert_eq!(
            (limit.status, limit.enabled, limit.enforced),
            (429, Fraction::ALL, Fraction::ALL)
        );
        limit.bucket.clone()
    };
    let first = decoder.listener("l", &any(&pb)).unwrap();
    let bucket = bucket_of(&first);
    assert_eq!((bucket.max_tokens, bucket.tokens_per_fill), (10, 10));
    assert_eq!(bucket.fill_interval, Duration::from_secs(60));
    let second = decoder.listener("l", &any(&pb)).unwrap();
    assert!(Arc::ptr_eq(&bucket, &bucket_of(&second)), "an update leaves the bucket");
    let other = decoder.listener("other", &any(&pb)).unwrap();
    assert!(!Arc::ptr_eq(&bucket, &bucket_of(&other)), "another listener has its own");
    let unknown = typed_struct(&[("descriptors", number_value(1.0))]);
    let pb = manager_listener(|manager| manager.http_filters.insert(0, unknown));
    assert_eq!(
        listener(&pb).unwrap_err(),
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.value.descriptors: \
         not supported"
    );
}

fn with_route(change: impl FnOnce(&mut weft_api::xds::envoy::config::route::v3::Route)) -> PbHost {
    let mut pb = virtual_host("h", &["c1", "c2"]);
    change(&mut pb.routes[0]);
    pb
}

fn forward(
    pb: &mut weft_api::xds::envoy::config::route::v3::Route,
) -> &mut weft_api::xds::envoy::config::route::v3::RouteAction {
    match &mut pb.action {
        Some(route::Action::Route(action)) => action,
        _ => panic!("a forwarding route"),
    }
}

#[test]
fn a_route_keeps_envoys_defaults() {
    let decoded = host(&with_route(|_| {})).unwrap();
    let RouteAction::Forward(action) = &decoded.routes[0].action else { panic!("forwards") };
    assert_eq!(action.timeout, Some(Duration::from_secs(15)));
    assert_eq!(action.cluster_not_found, ::http::StatusCode::SERVICE_UNAVAILABLE);
    assert!(action.retry.is_none() && action.max_grpc_timeout.is_none());
    assert!(
        matches!(&decoded.routes[0].matches.path, PathMatch::Prefix { value, .. } if &**value == "/")
    );
}

#[test]
fn istios_default_retries_are_read() {
    let decoded = host(&with_route(|route| {
        forward(route).timeout = Some(pb::Duration::default());
        forward(route).retry_policy = Some(PbRetry {
            retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
                .into(),
            num_retries: Some(UInt32Value { value: 2 }),
            host_selection_retry_max_attempts: 5,
            retry_host_predicate: vec![
                weft_api::xds::envoy::config::route::v3::retry_policy::RetryHostPredicate {
                    name: "envoy.retry_host_predicates.previous_hosts".into(),
                    config_type: None,
                },
            ],
            ..PbRetry::default()
        });
    }))
    .unwrap();
    let RouteAction::Forward(action) = &decoded.routes[0].action else { panic!("forwards") };
    assert_eq!(action.timeout, None);
    let retry = action.retry.as_deref().unwrap();
    assert_eq!(
        (retry.retries, retry.host_selection_attempts, retry.avoid_previous_hosts),
        (2, 5, true)
    );
    assert_eq!(
        retry.on,
        crate::config::route::RetryOn {
            connect_failure: true,
            refused_stream: true,
            grpc_unavailable: true,
            grpc_cancelled: true,
            retriable_status_codes: true,
            ..Default::default()
        }
    );
    assert_eq!(retry.backoff_base, Duration::from_millis(25));
    assert_eq!(retry.backoff_max, Duration::from_millis(250));
}

#[test]
fn routes_that_cannot_be_served_are_refused_with_their_path() {
    type Change = fn(&mut weft_api::xds::envoy::config::route::v3::Route);
    let regex = |pattern: &str| {
        Some(route_match::PathSpecifier::SafeRegex(RegexMatcher {
            regex: pattern.into(),
            engine_type: None,
        }))
    };
    let cases: [(Change, &str); 8] = [
        (|r| r.action = None, "routes[0].action: missing"),
        (|r| r.r#match = None, "routes[0].match: missing"),
        (|r| forward(r).cluster_specifier = None, "routes[0].route.cluster: missing"),
        (
            |r| match &mut forward(r).cluster_specifier {
                Some(route_action::ClusterSpecifier::WeightedClusters(split)) => {
                    for cluster in &mut split.clusters {
                        cluster.weight = None;
                    }
                }
                _ => panic!("a split"),
            },
            "routes[0].route.weighted_clusters.clusters: \"0\" is not a sum of weights",
        ),
        (
            |r| forward(r).append_x_forwarded_host = true,
            "routes[0].route.append_x_forwarded_host: not supported",
        ),
        (
            |r| {
                forward(r).retry_policy =
                    Some(PbRetry { retry_on: "5xx,sometimes".into(), ..PbRetry::default() });
            },
            "routes[0].route.retry_policy.retry_on: \"sometimes\" is not supported",
        ),
        (
            |r| r.request_headers_to_remove.push("bad name".into()),
            "routes[0].request_headers_to_remove[0]: \"bad name\" is not a header name",
        ),
        (
            |r| r.r#match.as_mut().unwrap().cookies.push(Default::default()),
            "routes[0].match.cookies: not supported",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(host(&with_route(change)).unwrap_err(), expected);
    }
    for (pattern, start) in [
        ("(", "routes[0].match.safe_regex.regex: not a usable regular expression: "),
        ("a)|(b", "routes[0].match.safe_regex.regex: not a usable regular expression: "),
        (
            "(?:a{1000}){1000}",
            "routes[0].match.safe_regex.regex: not a usable regular expression: ",
        ),
    ] {
        let pb = with_route(|r| r.r#match.as_mut().unwrap().path_specifier = regex(pattern));
        let error = host(&pb).unwrap_err();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn a_regular_expression_must_match_the_whole_path() {
    let decoded = host(&with_route(|route| {
        route.r#match.as_mut().unwrap().path_specifier =
            Some(route_match::PathSpecifier::SafeRegex(RegexMatcher {
                regex: "/a|/b".into(),
                engine_type: None,
            }));
    }))
    .unwrap();
    let PathMatch::Regex(regex) = &decoded.routes[0].matches.path else { panic!("a regex") };
    for (path, expected) in [("/a", true), ("/b", true), ("/ab", false), ("/x/b", false)] {
        assert_eq!(regex.is_match(path), expected, "{path}");
    }
}

#[test]
fn domains_are_sorted_and_belong_to_one_virtual_host() {
    let mut config = route_config("r", &["c"]);
    config.virtual_hosts[0].domains =
        ["B.example", "*.example", "*.b.example", "b.*", "*"].map(ToOwned::to_owned).to_vec();
    let decoded = decoder().route_configuration("r", &any(&config)).unwrap();
    let names = |list: &[(Box<str>, Arc<VirtualHost>)]| -> Vec<String> {
        list.iter().map(|(name, _)| name.to_string()).collect()
    };
    assert_eq!(names(&decoded.hosts.suffixes), [".b.example", ".example"]);
    assert_eq!(names(&decoded.hosts.prefixes), ["b."]);
    assert!(decoded.hosts.exact.contains_key("b.example") && decoded.hosts.any.is_some());
    config.virtual_hosts.push(virtual_host("again", &["c"]));
    assert_eq!(
        decoder().route_configuration("r", &any(&config)).unwrap_err().to_string(),
        "virtual_hosts.domains: \"*\" is given twice"
    );
}

#[test]
fn header_changes_keep_envoys_order_and_meaning() {
    let add = |key: &str, value: &str, action: i32| HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), raw_value: vec![] }),
        append_action: action,
        ..HeaderValueOption::default()
    };
    let decoded = host(&with_route(|route| {
        route.request_headers_to_add =
            vec![add("a", "1", 0), add("b", "2", 2), add("c", "100%%", 1), add("d", "", 0)];
        route.request_headers_to_add.push(add("e", "%DOWNSTREAM_REMOTE_ADDRESS%!", 2));
        route.request_headers_to_remove = vec!["X-Gone".into()];
    }))
    .unwrap();
    let literal =
        |text: &'static str| HeaderFormat::Literal(::http::HeaderValue::from_static(text));
    let name = ::http::HeaderName::from_static;
    assert_eq!(
        decoded.routes[0].request_headers,
        [
            HeaderMutation::Remove(name("x-gone")),
            HeaderMutation::Append(name("a"), literal("1")),
            HeaderMutation::Set(name("b"), literal("2")),
            HeaderMutation::AddIfAbsent(name("c"), literal("100%")),
            HeaderMutation::Set(
                name("e"),
                HeaderFormat::Format(crate::config::access_log::Format {
                    parts: vec![
                        FormatPart::Command {
                            command: Command::DownstreamRemoteAddress,
                            max: None
                        },
                        FormatPart::Literal("!".into()),
                    ]
                })
            ),
        ]
    );
}

#[test]
fn formats_are_parsed_once() {
    let parse = |text: &str| format::parse(text).map_err(|invalid| invalid.to_string());
    assert_eq!(
        parse("a%%%REQ(X-A?:PATH):10%b").unwrap().parts,
        [
            FormatPart::Literal("a%".into()),
            FormatPart::Command {
                command: Command::RequestHeader {
                    name: "x-a".into(),
                    otherwise: Some(":path".into())
                },
                max: Some(10)
            },
            FormatPart::Literal("b".into()),
        ]
    );
    for (text, expected) in [
        ("%NOPE%", "\"%NOPE%\" is not supported"),
        ("%REQ(A", "\"%REQ(A\" is not a finished %COMMAND%"),
        ("%PROTOCOL", "\"%PROTOCOL\" is not a finished %COMMAND%"),
        ("%REQ(a b)%", "\"a b\" is not a header name"),
        ("%REQ(A):x%", "\"x\" is not a length"),
        ("%DYNAMIC_METADATA(x)%", "\"%DYNAMIC_METADATA(x)%\" is not supported"),
    ] {
        assert_eq!(parse(text).unwrap_err(), expected);
    }
}

#[test]
fn access_logs_come_from_the_configuration_or_from_the_command_line() {
    let json = Struct {
        fields: [("b", "%PROTOCOL%"), ("a", "x")]
            .map(|(key, text)| (key.to_owned(), text_value(text)))
            .into(),
    };
    let log = PbLog {
        name: "log".into(),
        filter: Some(AccessLogFilter {
            filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(
                ResponseFlagFilter { flags: vec!["NR".into()] },
            )),
        }),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&FileAccessLog {
            path: "/dev/stdout".into(),
            access_log_format: Some(file_access_log::AccessLogFormat::JsonFormat(json)),
        }))),
    };
    let pb = manager_listener(|manager| manager.access_log.push(log));
    let decoded = listener(&pb).unwrap();
    let log = &manager(&decoded).access_logs[0];
    assert_eq!((&*log.path, &*log.only_flags[0]), ("/dev/stdout", "NR"));
    let LogFormat::Json(fields) = &log.format else { panic!("JSON") };
    assert_eq!(fields.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["a", "b"]);
    for format in [crate::settings::AccessLogFormat::Text, crate::settings::AccessLogFormat::Json] {
        let mut settings = Settings::test();
        settings.access_log =
            Some(crate::settings::AccessLogSettings { format, file: "/tmp/log".into() });
        let decoder = Decoder::new(&settings).unwrap();
        let decoded = decoder.listener("l", &any(&pb)).unwrap();
        assert_eq!(&*manager(&decoded).access_logs[0].path, "/tmp/log");
        assert_eq!(manager(&decoded).access_logs.len(), 1);
    }
}

#[test]
fn a_cluster_without_settings_has_envoys() {
    let decoded = cluster(&eds_cluster("c")).unwrap();
    assert_eq!(decoded.eds.as_deref(), Some("c"));
    assert_eq!(decoded.lb, LbPolicy::RoundRobin);
    assert_eq!(decoded.panic_threshold, 50);
    assert_eq!(decoded.connect_timeout, Duration::from_secs(5));
    assert_eq!((decoded.limits.max_connections, decoded.limits.max_retries), (1024, 3));
    assert!(decoded.outlier.is_none() && decoded.transports.is_empty());
}

#[test]
fn outlier_detection_is_on_for_what_is_enforced() {
    let mut pb = eds_cluster("c");
    let on = Some(UInt32Value { value: 100 });
    pb.outlier_detection = Some(PbOutlier {
        consecutive_gateway_failure: Some(UInt32Value { value: 7 }),
        ..PbOutlier::default()
    });
    let decoded = cluster(&pb).unwrap().outlier.unwrap();
    assert_eq!((decoded.consecutive_5xx, decoded.consecutive_gateway_failure), (5, 0));
    assert_eq!(decoded.max_ejection_percent, 10);
    pb.outlier_detection.as_mut().unwrap().enforcing_consecutive_gateway_failure = on;
    assert_eq!(cluster(&pb).unwrap().outlier.unwrap().consecutive_gateway_failure, 7);
    pb.outlier_detection.as_mut().unwrap().enforcing_success_rate = on;
    assert_eq!(
        cluster(&pb).unwrap_err(),
        "outlier_detection.enforcing_success_rate: not supported"
    );
}

fn mesh_context(sni: &str) -> weft_api::xds::envoy::config::core::v3::TransportSocket {
    use weft_api::xds::envoy::{
        config::core::v3::{TransportSocket, transport_socket},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
            UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        },
    };
    let secret = |name: &str| SdsSecretConfig { name: name.into(), sds_config: None };
    let name = SubjectAltNameMatcher {
        san_type: 3,
        matcher: Some(PbString {
            match_pattern: Some(string_matcher::MatchPattern::Exact(
                "spiffe://td/ns/a/sa/b".into(),
            )),
            ..PbString::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    let context = UpstreamTlsContext {
        sni: sni.into(),
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                CombinedCertificateValidationContext {
                    default_validation_context: Some(CertificateValidationContext {
                        match_typed_subject_alt_names: vec![name],
                        ..CertificateValidationContext::default()
                    }),
                    validation_context_sds_secret_config: Some(secret("ROOTCA")),
                    ..CombinedCertificateValidationContext::default()
                },
            )),
            alpn_protocols: vec!["istio".into()],
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    }
}

#[test]
fn the_meshs_secrets_stand_for_the_proxys_own() {
    use weft_api::xds::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    let mut pb = eds_cluster("c");
    pb.transport_socket_matches = vec![TransportSocketMatch {
        name: "tlsMode-istio".into(),
        r#match: Some(Struct { fields: [("tlsMode".to_owned(), text_value("istio"))].into() }),
        transport_socket: Some(mesh_context("outbound_.80_._.b")),
    }];
    let decoded = cluster(&pb).unwrap();
    let transport = &decoded.transports[0];
    assert_eq!(*transport.matches, [("tlsMode".into(), "istio".into())]);
    let tls = transport.tls.as_deref().unwrap();
    assert_eq!((&tls.identity, &tls.trust), (&Some(TlsSource::Mesh), &Some(TlsSource::Mesh)));
    assert_eq!((tls.versions, &*tls.sni), (TlsVersions::Tls13, "outbound_.80_._.b"));
    assert!(tls.subject_alt_names[0].matches("spiffe://td/ns/a/sa/b"));
}

#[test]
fn a_name_that_is_not_the_resources_own_is_refused() {
    let error = decoder().cluster("other", &any(&eds_cluster("c"))).unwrap_err();
    assert_eq!(error.to_string(), "name: \"c\" is not the resource's name");
}

#[test]
fn another_message_than_the_type_says_is_refused() {
    let error = decoder().cluster("c", &any(&route_config("c", &["x"]))).unwrap_err();
    assert_eq!(error.to_string(), "\"envoy.config.route.v3.RouteConfiguration\" is not supported");
}

/// Decodes as every type; what matters is that it returns.
fn decode_all(bytes: &[u8]) {
    let decoder = decoder();
    let typed =
        |name: &str| Any { type_url: format!("type.googleapis.com/{name}"), value: bytes.to_vec() };
    let _ = decoder.listener("l", &typed("envoy.config.listener.v3.Listener"));
    let _ = decoder.route_configuration("r", &typed("envoy.config.route.v3.RouteConfiguration"));
    let _ = decoder.virtual_host("r/h", &typed("envoy.config.route.v3.VirtualHost"));
    let _ = decoder.cluster("c", &typed("envoy.config.cluster.v3.Cluster"));
    let _ = decoder.assignment(&typed("envoy.config.endpoint.v3.ClusterLoadAssignment"));
}

fn samples() -> Vec<Vec<u8>> {
    let limit = manager_listener(|manager| manager.http_filters.insert(0, typed_struct(&[])));
    let rbac = rbac_listener(permission::Rule::Any(true), principal::Identifier::Any(true));
    let mut secure = eds_cluster("c");
    secure.transport_socket = Some(mesh_context("sni"));
    vec![
        limit.encode_to_vec(),
        rbac.encode_to_vec(),
        tcp_listener("l", "c").encode_to_vec(),
        route_config("r", &["c1", "c2"]).encode_to_vec(),
        virtual_host("h", &["c1"]).encode_to_vec(),
        secure.encode_to_vec(),
        assignment("c", &["10.0.0.1:80"]).encode_to_vec(),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(proptest::num::u8::ANY, 0..512)) {
        decode_all(&bytes);
    }

    #[test]
    fn damaged_resources_are_no_panic(
        sample in 0..7_usize,
        damage in prop::collection::vec((proptest::arbitrary::any::<prop::sample::Index>(), proptest::num::u8::ANY), 1..8),
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        decode_all(&bytes);
    }

    #[test]
    fn arbitrary_formats_are_no_panic(text in ".{0,64}|(%[A-Z_()?:%a-z0-9-]{0,16}){0,4}") {
        let _ = format::parse(&text);
    }
}
