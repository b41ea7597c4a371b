use std::io::Write as _;

use tempfile::NamedTempFile;

use super::*;

fn read(text: &str) -> Result<Bootstrap, String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().display().to_string();
    Bootstrap::read(file.path()).map_err(|error| error.to_string().replace(&path, "FILE"))
}

#[test]
fn a_bootstrap_is_taken_apart() {
    let bootstrap = read(
        "
node: { id: front-0, cluster: front }
admin:
  access_log_path: /tmp/admin.log
  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }
layered_runtime: { layers: [ { name: s, static_layer: { some.key: 1 } }, { name: a, admin_layer: {} } ] }
stats_config: { use_all_default_tags: true }
static_resources:
  listeners:
  - address: { socket_address: { address: 0.0.0.0, port_value: 80 } }
  - name: second
  clusters:
  - name: one
  - name: two
    type: EDS
    eds_cluster_config: { eds_config: { path_config_source: { path: /etc/eds.yaml } } }
",
    )
    .unwrap();
    let said = Said {
        node_id: "front-0".into(),
        node_cluster: "front".into(),
        admin: Some("127.0.0.1:9901".parse().unwrap()),
    };
    assert_eq!(bootstrap.said, said);
    assert_eq!(bootstrap.endpoint_files, [PathBuf::from("/etc/eds.yaml")]);
    assert_eq!(
        bootstrap.ignored,
        ["run-time setting some.key", "admin.access_log_path: administration has no access log"]
    );
    let names: Vec<_> =
        bootstrap.resources.iter().map(|found| (&*found.name, &*found.path)).collect();
    assert_eq!(
        names,
        [
            ("one", "static_resources.clusters[0]"),
            ("two", "static_resources.clusters[1]"),
            ("0.0.0.0_80", "static_resources.listeners[0]"),
            ("second", "static_resources.listeners[1]"),
        ]
    );
}

#[test]
fn what_cannot_be_done_is_refused_with_its_path() {
    for (text, wanted) in [
        ("static_resource: {}", "\"FILE\": static_resource: no such field"),
        ("dynamic_resources: {}", "\"FILE\": dynamic_resources: not supported"),
        ("tracing: {}", "\"FILE\": tracing: not supported"),
        (
            "layered_runtime: { layers: [ { name: a, disk_layer: { symlink_root: /x } } ] }",
            "\"FILE\": layered_runtime.layers[0].disk_layer: not supported",
        ),
        (
            "admin: { address: { pipe: { path: /x } } }",
            "\"FILE\": admin.address.pipe: not supported",
        ),
        (
            "static_resources: { clusters: [ { name: a }, { name: a } ] }",
            "\"FILE\": static_resources.clusters[1].name: \"a\" is given twice",
        ),
        (
            "static_resources: { clusters: [ {} ] }",
            "\"FILE\": static_resources.clusters[0].name: missing",
        ),
        (
            "static_resources: { clusters: [ { name: a, type: EDS, eds_cluster_config: { eds_config: { ads: {} } } } ] }",
            "\"FILE\": static_resources.clusters[0].eds_cluster_config.eds_config.ads: not supported",
        ),
        ("- a", "\"FILE\": \"[\\\"a\\\"]\" is not a mapping"),
    ] {
        assert_eq!(read(text).unwrap_err(), wanted, "{text}");
    }
    for (text, wanted) in [("{\"a\": ", "not JSON"), ("a: b: c", "not YAML")] {
        let error = read(text).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}
