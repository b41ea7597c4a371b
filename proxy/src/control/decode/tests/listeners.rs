//! Listeners, their filter chains and connection managers.

use super::*;

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
