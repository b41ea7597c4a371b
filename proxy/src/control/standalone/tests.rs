use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::settings::Cli;

struct Test {
    folder: TempDir,
}

impl Test {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str) -> Result<Store, String> {
        let path = self.write("bootstrap.yaml", text);
        let cli =
            Cli::try_parse_from(["weft-proxy", "--config", "x", "--concurrency", "1"]).unwrap();
        let shown = |error: BootstrapError| {
            error.to_string().replace(&self.folder.path().display().to_string(), "FOLDER")
        };
        let bootstrap = Bootstrap::read(&path).map_err(shown)?;
        let settings = Settings::standalone(&cli.standalone, bootstrap.said.clone());
        load(&settings, &bootstrap).map_err(shown)
    }
}

/// A listener with one filter, and clusters.
fn bootstrap(filter: &str, clusters: &str) -> String {
    format!(
        "
static_resources:
  listeners:
  - name: one
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8080 }} }}
    filter_chains: [ {{ filters: [ {{ name: f, typed_config: {filter} }} ] }} ]
  clusters: [ {clusters} ]
"
    )
}

fn tcp(cluster: &str) -> String {
    format!(
        "{{ '@type': t/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: {cluster} }}"
    )
}

fn http(more: &str) -> String {
    format!(
        "{{ '@type': t/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
            stat_prefix: h, {more},
            http_filters: [ {{ name: r, typed_config: {{ '@type': t/envoy.extensions.filters.http.router.v3.Router }} }} ] }}"
    )
}

const STATIC: &str = "{ name: a, load_assignment: { cluster_name: a, endpoints: [ { lb_endpoints: [
    { endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } } } ] } ] } }";

#[test]
fn clusters_are_there_whether_anything_names_them_or_not() {
    let unused = STATIC.replacen("name: a,", "name: unused,", 1);
    let mut store =
        Test::new().load(&bootstrap(&tcp("a"), &format!("{STATIC}, {unused}"))).unwrap();
    store.publish(Instant::now());
    let config = store.published();
    assert!(config.initialized);
    assert!(config.listeners["one"].is_some());
    let mut names: Vec<_> = config.clusters.keys().map(|name| &**name).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "unused"]);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_path() {
    let test = Test::new();
    let listener = "\"FOLDER/bootstrap.yaml\": static_resources.listeners[0]";
    let config = format!("{listener}.filter_chains[0].filters[0].typed_config");
    let route = |action: &str| {
        http(&format!(
            "route_config: {{ virtual_hosts: [ {{ name: v, domains: ['*'], routes: [ {action} ] }} ] }}"
        ))
    };
    for (filter, clusters, wanted) in [
        (tcp("b"), STATIC.to_owned(), format!("{listener}: cluster \"b\" is not defined")),
        (
            route("{ match: { prefix: / }, route: { cluster: b } }"),
            STATIC.to_owned(),
            format!("{listener}: cluster \"b\" is not defined"),
        ),
        (
            route("{ match: { prefix: / }, route: { cluster: a, foo: 1 } }"),
            STATIC.to_owned(),
            format!("{config}.route_config.virtual_hosts[0].routes[0].route.foo: no such field"),
        ),
        (
            http("rds: { route_config_name: r, config_source: { ads: {} } }"),
            STATIC.to_owned(),
            format!("{listener}: route configuration \"r\" is not defined"),
        ),
        (
            http("via: x, route_config: { name: r }"),
            STATIC.to_owned(),
            format!("{config}.via: not supported"),
        ),
        (
            tcp("a"),
            STATIC.replacen("name: a,", "name: a, lb_subset_config: {},", 1),
            "\"FOLDER/bootstrap.yaml\": static_resources.clusters[0].lb_subset_config: not supported"
                .to_owned(),
        ),
        (
            tcp("a"),
            "{ name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED }".to_owned(),
            "\"FOLDER/bootstrap.yaml\": static_resources.clusters[0].type: \"ORIGINAL_DST\" is not supported"
                .to_owned(),
        ),
    ] {
        let found = test.load(&bootstrap(&filter, &clusters)).err();
        assert_eq!(found.as_deref(), Some(&*wanted), "{filter} {clusters}");
    }
}

/// A file of load assignments, as a control plane's answer.
fn assignments(cluster: &str, port: &str) -> String {
    format!(
        "
version_info: '1'
resources:
- '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: {cluster}
  endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }} ] }} ]
"
    )
}

#[test]
fn endpoints_come_from_files_and_the_last_good_ones_stay() {
    let test = Test::new();
    let file = test.write("eds.yaml", &assignments("a", "1"));
    let eds = |name: &str| {
        format!(
            "{{ name: {name}, type: EDS, eds_cluster_config: {{ eds_config: {{ path_config_source: {{ path: {} }} }} }} }}",
            file.display()
        )
    };
    let text = bootstrap(&tcp("a"), &format!("{}, {}", eds("a"), eds("without")));
    let mut store = test.load(&text).unwrap();
    let addresses = |store: &mut Store| -> Vec<String> {
        store.publish(Instant::now());
        let all = &store.published().clusters["a"].endpoints.all;
        all.iter().map(|endpoint| endpoint.address.to_string()).collect()
    };
    assert_eq!(addresses(&mut store), ["127.0.0.1:1"]);
    assert!(store.published().clusters["without"].endpoints.all.is_empty());
    assert!(store.published().listeners["one"].is_some());

    test.write("eds.yaml", &assignments("a", "2"));
    endpoints(&mut store, &file).unwrap();
    assert_eq!(addresses(&mut store), ["127.0.0.1:2"]);

    test.write("eds.yaml", &assignments("a", "99999"));
    let error = endpoints(&mut store, &file).unwrap_err().to_string();
    assert!(
        error.contains("resources[0].endpoints[0].lb_endpoints[0].endpoint.address"),
        "{error}"
    );
    assert_eq!(addresses(&mut store), ["127.0.0.1:2"]);

    std::fs::remove_file(&file).unwrap();
    assert!(matches!(test.load(&text), Err(error) if error.contains("cannot read")));
}

#[test]
fn secrets_are_named_by_contexts_and_may_be_in_files() {
    let key = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let test = Test::new();
    let chain = test.write("chain.pem", &key.cert.pem());
    let private = test.write("key.pem", &key.signing_key.serialize_pem());
    let text = |name: &str, secrets: &str| {
        bootstrap(&tcp("a"), STATIC).replace(
            "filter_chains: [ {",
            &format!(
                "filter_chains: [ {{ transport_socket: {{ name: tls, typed_config: {{
                    '@type': t/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
                    common_tls_context: {{ tls_certificate_sds_secret_configs: [ {{ name: {name} }} ] }} }} }},"
            ),
        ) + &format!("  secrets: [ {secrets} ]\n")
    };
    let secret = |name: &str| {
        format!(
            "{{ name: {name}, tls_certificate: {{ certificate_chain: {{ filename: {} }}, private_key: {{ filename: {} }} }} }}",
            chain.display(),
            private.display()
        )
    };
    // A name that means something in a mesh is a name as others here.
    for name in ["server", "default"] {
        let mut store = test.load(&text(name, &secret(name))).unwrap();
        store.publish(Instant::now());
        assert!(store.published().listeners["one"].is_some(), "{name}");
    }
    let error = test.load(&text("server", &secret("other"))).err();
    assert_eq!(
        error.as_deref(),
        Some(
            "\"FOLDER/bootstrap.yaml\": static_resources.listeners[0]: secret \"server\" is not defined"
        )
    );
    std::fs::remove_file(&private).unwrap();
    let error = test.load(&text("server", &secret("server"))).err().unwrap();
    assert!(
        error.contains(
            "static_resources.secrets[0].tls_certificate.private_key.filename: cannot read"
        ),
        "{error}"
    );
}

#[test]
fn the_family_says_which_addresses_of_a_name_are_endpoints() {
    let addresses = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let (four, six) = ("192.0.2.1", "2001:db8::1");
    for (family, known, wanted) in [
        ("AUTO", vec![four, six], vec![six]),
        ("AUTO", vec![four], vec![four]),
        ("V4_ONLY", vec![four, six], vec![four]),
        ("V4_ONLY", vec![six], vec![]),
        ("V6_ONLY", vec![four, six], vec![six]),
        ("V4_PREFERRED", vec![four, six], vec![four]),
        ("V4_PREFERRED", vec![six], vec![six]),
        ("ALL", vec![four, six], vec![four, six]),
    ] {
        let cluster = STATIC
            .replacen(
                "name: a,",
                &format!("name: a, type: STRICT_DNS, dns_lookup_family: {family},"),
                1,
            )
            .replace("127.0.0.1", "a.test");
        let mut store = Test::new().load(&bootstrap(&tcp("a"), &cluster)).unwrap();
        store.resolved("a.test", addresses(&known));
        store.publish(Instant::now());
        let all = &store.published().clusters["a"].endpoints.all;
        let found: Vec<_> = all.iter().map(|e| e.address.ip().to_string()).collect();
        assert_eq!(found, wanted, "{family} {known:?}");
    }
}

/// What is loaded, or the refusal, with these listener filters.
fn with_listener_filters(filters: &[&str]) -> Result<(), String> {
    let filters: Vec<_> = filters
        .iter()
        .map(|filter| {
            format!(
                "{{ name: f, typed_config: {{ '@type': t/envoy.extensions.filters.listener.{filter} }} }}"
            )
        })
        .collect();
    let filters = format!("listener_filters: [{}]\n    filter_chains:", filters.join(", "));
    let text = bootstrap(&tcp("a"), STATIC).replace("filter_chains:", &filters);
    Test::new().load(&text).map(drop)
}

#[test]
fn listener_filters_that_cannot_be_done_are_refused() {
    let announced = "proxy_protocol.v3.ProxyProtocol";
    let tls = "tls_inspector.v3.TlsInspector";
    let with = |field: &str| format!("{announced}, {field}");
    for fine in [
        &[announced, tls][..],
        &[&with("allow_requests_without_proxy_protocol: true, disallowed_versions: [V1]"), tls],
        &[&with("stat_prefix: s")],
    ] {
        assert_eq!(with_listener_filters(fine), Ok(()));
    }
    let of = |name: &str| format!(": \"envoy.extensions.filters.listener.{name}\"");
    let first = "once, before the inspectors";
    for (filters, refused) in [
        (
            &["original_dst.v3.OriginalDst"][..],
            of("original_dst.v3.OriginalDst") + " is not supported",
        ),
        (&[&with("rules: [{ tlv_type: 2 }]")], ".rules: not supported".to_owned()),
        (&[&with("pass_through_tlvs: {}")], ".pass_through_tlvs: not supported".to_owned()),
        (&[&with("tlv_location: FILTER_STATE")], ".tlv_location: not supported".to_owned()),
        (&[tls, announced], format!("{} is not {first}", of(announced))),
        (&[announced, announced], format!("{} is not {first}", of(announced))),
    ] {
        let at = filters.len() - 1;
        let wanted = format!(
            "\"FOLDER/bootstrap.yaml\": static_resources.listeners[0].listener_filters[{at}].typed_config{refused}"
        );
        assert_eq!(with_listener_filters(filters), Err(wanted));
    }
}
