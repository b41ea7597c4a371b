use serde_json::json;

use super::*;

#[test]
fn nothing_at_all_is_the_defaults() {
    for (values, mesh) in
        [("", ""), ("{}", "{}"), (" \n", "# nothing\n"), ("{}", "trustDomain: ''")]
    {
        let config = InjectConfig::read(values, mesh).unwrap();
        assert_eq!(config, InjectConfig::default(), "{values:?} {mesh:?}");
    }
    let written = serde_json::to_string(&InjectConfig::default()).unwrap();
    assert_eq!(InjectConfig::read(&written, "").unwrap(), InjectConfig::default());
}

#[test]
fn the_mesh_configuration_wins_where_both_speak() {
    let values = json!({
        "trustDomain": "values.example",
        "prometheusMerge": true,
        "clusterId": "east",
        "defaultConfig": {"concurrency": 4, "proxyMetadata": {"A": "1"}},
    });
    let mesh = "
trustDomain: mesh.example
enablePrometheusMerge: false
accessLogFile: /dev/stdout
defaultConfig: {concurrency: 2, proxyMetadata: {B: '2'}}
";
    let config = InjectConfig::read(&values.to_string(), mesh).unwrap();
    let default_config = json!({"concurrency": 2, "proxyMetadata": {"A": "1", "B": "2"}});
    assert_eq!(
        config,
        InjectConfig {
            trust_domain: "mesh.example".into(),
            prometheus_merge: false,
            cluster_id: "east".into(),
            default_config: default_config.as_object().unwrap().clone(),
            ..InjectConfig::default()
        }
    );
}

#[test]
fn native_sidecars_are_said_in_words_and_booleans() {
    for (text, expected) in [
        ("true", NativeSidecars::Always),
        ("\"true\"", NativeSidecars::Always),
        ("false", NativeSidecars::Never),
        ("\"false\"", NativeSidecars::Never),
        ("\"auto\"", NativeSidecars::Auto),
    ] {
        let config = InjectConfig::read(&format!("{{\"nativeSidecars\": {text}}}"), "").unwrap();
        assert_eq!(config.native_sidecars, expected, "{text}");
    }
}

#[test]
fn numbers_stand_for_texts_where_people_write_them() {
    let values = json!({"excludeOutboundPorts": 25, "resources": {"requests": {"cpu": 1.5}}});
    let config = InjectConfig::read(&values.to_string(), "").unwrap();
    assert_eq!(config.exclude_outbound_ports, "25");
    assert_eq!(config.resources.requests, BTreeMap::from([("cpu".into(), "1.5".into())]));
    assert_eq!(config.resources.limits, Resources::default().limits);
}

#[test]
fn what_could_not_be_written_into_a_pod_is_refused_with_the_fields_name() {
    for (values, mesh, expected) in [
        ("{\"imag\": \"a\"}", "", "values: unknown field `imag`"),
        ("[]", "", "values: invalid"),
        ("{", "", "values: EOF"),
        ("{\"image\": \"\"}", "", "image: must not be empty"),
        ("{\"nativeSidecars\": \"maybe\"}", "", "values: "),
        ("{\"imagePullPolicy\": \"Sometimes\"}", "", "values: unknown variant `Sometimes`"),
        ("{\"logLevel\": \"loud\"}", "", "logLevel: \"loud\" is none of"),
        ("{\"startupSeconds\": 0}", "", "startupSeconds: must be at least 1"),
        ("{\"readinessProbe\": {\"periodSeconds\": 0}}", "", "readinessProbe: periodSeconds"),
        (
            "{\"resources\": {\"requests\": {\"cpu\": \"fast\"}}}",
            "",
            "resources: requests.cpu: \"fast\" is not a quantity",
        ),
        (
            "{\"resources\": {\"requests\": {\"cpu\": \"2\"}, \"limits\": {\"cpu\": \"500m\"}}}",
            "",
            "resources: cpu: the request 2 is above the limit 500m",
        ),
        (
            "{\"excludeOutboundIPRanges\": \"10.0.0.0\"}",
            "",
            "excludeOutboundIPRanges: \"10.0.0.0\" is not a CIDR",
        ),
        ("{\"includeInboundPorts\": \"http\"}", "", "includeInboundPorts: \"http\" is not a port"),
        ("", "a: [", "mesh: "),
        ("", "defaultConfig: 1", "mesh: defaultConfig: is not an object"),
        (
            "",
            "defaultConfig: {concurrency: many}",
            "defaultConfig.concurrency: is not a whole number",
        ),
        (
            "{\"defaultConfig\": {\"drainDuration\": \"soon\"}}",
            "",
            "defaultConfig.drainDuration: is not a duration",
        ),
    ] {
        let error = InjectConfig::read(values, mesh).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{values} {mesh}: {error}");
    }
}

/// `weft inject` works without a cluster, and should do what the chart's defaults do.
#[test]
fn the_defaults_are_the_charts() {
    let chart = std::fs::read_to_string("../charts/weft/values.yaml").unwrap();
    let chart: Value = serde_saphyr::from_str(&chart).unwrap();
    let ours = serde_json::to_value(InjectConfig::default()).unwrap();
    for key in ["holdApplicationUntilProxyStarts", "logLevel", "resources"] {
        assert_eq!(ours[key], chart["injection"][key], "{key}");
    }
    assert_eq!(chart["injection"]["nativeSidecars"], json!(true));
}
