//! Virtual hosts and routes.

use super::*;

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
