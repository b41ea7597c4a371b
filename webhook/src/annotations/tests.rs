use super::*;

fn read(annotations: &[(&str, &str)]) -> Result<PodSettings, Vec<String>> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let annotations: BTreeMap<_, _> = annotations.iter().map(own).collect();
    PodSettings::read(&annotations, &InjectConfig::default())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Every annotation that can be wrong, with a value that is, and what the pod's author is told.
#[test]
fn values_that_make_no_sense_refuse_the_pod_and_say_why() {
    for (name, value, reason) in [
        ("sidecar.istio.io/nativeSidecar", "maybe", "\"maybe\" is neither true nor false"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "2", "\"2\" is neither true nor false"),
        ("sidecar.istio.io/capNetBindService", "", "\"\" is neither true nor false"),
        ("prometheus.istio.io/merge-metrics", "x", "\"x\" is neither true nor false"),
        (
            "sidecar.istio.io/proxyCPU",
            "fast",
            "\"fast\" is not a quantity such as 100m, 1.5 or 128Mi",
        ),
        ("sidecar.istio.io/proxyMemory", "1gb", "\"1gb\" is not a quantity"),
        ("sidecar.istio.io/proxyCPULimit", "-1", "\"-1\" is not a quantity"),
        ("sidecar.istio.io/proxyMemoryLimit", "", "\"\" is not a quantity"),
        (
            "sidecar.istio.io/interceptionMode",
            "TPROXY",
            "TPROXY is not supported by Weft; use REDIRECT",
        ),
        (
            "sidecar.istio.io/interceptionMode",
            "redirect",
            "\"redirect\" is neither REDIRECT nor NONE",
        ),
        ("sidecar.istio.io/logLevel", "loud", "\"loud\" is none of trace, debug"),
        ("sidecar.istio.io/logLevel", "weft=loud", "\"weft=loud\" is none of"),
        (
            "sidecar.istio.io/proxyImageType",
            "small",
            "\"small\" is none of default, distroless, debug",
        ),
        ("sidecar.istio.io/userVolume", "[", "is not a JSON list, or a JSON object by name"),
        ("sidecar.istio.io/userVolume", "[{\"emptyDir\":{}}]", "an entry has no name"),
        ("sidecar.istio.io/userVolumeMount", "[{\"name\":\"a\"}]", "an entry has no mountPath"),
        ("status.sidecar.istio.io/port", "70000", "\"70000\" is not a port, or 0 for none"),
        (
            "readiness.status.sidecar.istio.io/initialDelaySeconds",
            "-1",
            "\"-1\" is not a whole number of at least 0",
        ),
        (
            "readiness.status.sidecar.istio.io/periodSeconds",
            "0",
            "\"0\" is not a whole number of at least 1",
        ),
        (
            "readiness.status.sidecar.istio.io/failureThreshold",
            "x",
            "\"x\" is not a whole number of at least 1",
        ),
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "10.0.0.0/8,10.1",
            "\"10.1\" is not a CIDR such as 10.0.0.0/8",
        ),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*", "\"*\" is not a CIDR"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "http", "\"http\" is not a port"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "*", "\"*\" is not a port"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "80,0", "\"0\" is not a port"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "65536", "\"65536\" is not a port"),
        (
            "traffic.sidecar.istio.io/excludeInterfaces",
            "a b",
            "\"a b\" is not the name of an interface",
        ),
        ("istio.io/reroute-virtual-interfaces", "far-too-long-a-name", "is not the name"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "a/b", "is not the name"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth*", "is not the name"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth0:1", "is not the name"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "+", "is not the name"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "-x", "is not the name"),
        ("proxy.istio.io/config", "[]", "is not a ProxyConfig"),
        ("proxy.istio.io/config", "concurrency: many", "concurrency is not a whole number"),
        ("proxy.istio.io/config", "drainDuration: 5", "drainDuration is not a duration such as 5s"),
        ("proxy.istio.io/config", "proxyMetadata: {'a=b': c}", "proxyMetadata has an entry"),
        ("proxy.istio.io/config", "statusPort: 99999", "statusPort is not a port"),
        (
            "proxy.istio.io/config",
            "holdApplicationUntilProxyStarts: 'yes'",
            "holdApplicationUntilProxyStarts is neither true nor false",
        ),
        (
            "inject.istio.io/templates",
            "sidecar,grpc-agent",
            "there is no template \"grpc-agent\"; there are sidecar and gateway",
        ),
        ("inject.istio.io/templates", "sidecar,gateway", "sidecar and gateway do not go together"),
    ] {
        let problems = read(&[(name, value)]).expect_err(name);
        let [problem] = problems.as_slice() else { panic!("{name}: {problems:?}") };
        let told = problem.strip_prefix(&format!("annotation {name}: ")).expect(problem);
        assert!(told.contains(reason), "{name}={value}: {told}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let problems = read(&[
        ("sidecar.istio.io/proxyCPU", "x"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "y"),
        ("proxy.istio.io/config", "concurrency: z"),
    ])
    .unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn any_amount_given_replaces_all_defaults() {
    let resources = |annotations: &[(&str, &str)]| read(annotations).unwrap().resources;
    assert_eq!(resources(&[]), Resources::default());
    let given = resources(&[("sidecar.istio.io/proxyMemoryLimit", "1Gi")]);
    let limits = BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]);
    assert_eq!(given, Resources { requests: BTreeMap::new(), limits });
    let problems =
        read(&[("sidecar.istio.io/proxyCPU", "2"), ("sidecar.istio.io/proxyCPULimit", "1500m")]);
    assert_eq!(
        problems.unwrap_err(),
        ["annotation sidecar.istio.io/proxyCPU: 2 is above sidecar.istio.io/proxyCPULimit, 1500m"]
    );
}

#[test]
fn a_pods_proxy_config_is_merged_over_the_meshs() {
    let base = serde_json::json!({"concurrency": 2, "proxyMetadata": {"A": "1", "B": "1"}});
    let config = InjectConfig {
        default_config: base.as_object().unwrap().clone(),
        ..InjectConfig::default()
    };
    let text = "proxyMetadata: {B: 2, C: true}\nterminationDrainDuration: 9s\ntracing: {sampling: 1}\n\
                discoveryAddress: other:15012\nstatusPort: 15999\n";
    let annotations = BTreeMap::from([("proxy.istio.io/config".to_owned(), text.to_owned())]);
    let settings = PodSettings::read(&annotations, &config).unwrap();
    let environment: Vec<_> = settings.proxy_config.environment().into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(environment, [pair("A", "1"), pair("B", "2"), pair("C", "true")]);
    assert_eq!(settings.discovery_address, "other:15012");
    assert_eq!(settings.status_port, Some(15999));
    assert_eq!(settings.warnings, ["proxy.istio.io/config: tracing has no effect in Weft"]);
    let json: Value =
        serde_json::from_str(&settings.proxy_config.to_json(&settings.discovery_address)).unwrap();
    assert_eq!(json["concurrency"], 2);
    assert_eq!(json["discoveryAddress"], "other:15012");
}

#[test]
fn what_means_nothing_to_weft_is_a_warning() {
    for name in annotation::WITHOUT_EFFECT {
        let settings = read(&[(name, "x")]).unwrap();
        assert_eq!(settings.warnings, [format!("{name}: has no effect in Weft")]);
    }
    assert!(read(&[("example.com/other", "x")]).unwrap().warnings.is_empty());
}

#[test]
fn lists_are_handed_on_without_blanks_and_nothing_means_nothing() {
    let settings = read(&[
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", " 10.0.0.0/8 , fd00::/8 "),
        ("traffic.sidecar.istio.io/includeInboundPorts", ""),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "15021, 9000,9000"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "*"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "tun0, cni+, a-fifteen-bytes+"),
    ])
    .unwrap();
    let capture = settings.capture;
    assert_eq!(capture.include_outbound_ip_ranges, "10.0.0.0/8,fd00::/8");
    assert_eq!(capture.include_inbound_ports, "");
    assert_eq!(capture.include_outbound_ports, "*");
    assert_eq!(capture.exclude_interfaces, "tun0,cni+,a-fifteen-bytes+");
    assert_eq!(capture.excluded_inbound_ports(Some(15020)), "15090,15021,15020,9000");
}

#[test]
fn log_levels_are_envoys_and_the_proxys_own() {
    for (text, level) in [
        ("debug", "debug"),
        ("warning", "warn"),
        ("critical", "error"),
        ("off", "off"),
        ("warn,weft_proxy::net=debug", "warn,weft_proxy::net=debug"),
    ] {
        assert_eq!(LogLevel::parse(text), Ok(LogLevel(level.into())));
    }
    for text in ["", "warn,", "=debug", "a b=debug", "weft_proxy"] {
        assert!(LogLevel::parse(text).is_err(), "{text:?}");
    }
}
