//! Services, endpoints and workloads.

use weft_core::{
    endpoint::{Endpoint, EndpointAddress, Health},
    protocol::Protocol,
    service::{Registry, Resolution, ServiceKey, TargetPort},
    snapshot::Snapshot,
};

use weft_index::Kind;

use crate::fixture::*;

fn key(namespace: &str, hostname: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.into(), hostname: hostname.into() }
}

/// Endpoints as `address:port`, with a mark for those that drain.
fn endpoints(snapshot: &Snapshot, hostname: &str, port: u16) -> Vec<String> {
    let service = snapshot.service(&client("default"), hostname).unwrap();
    let shown = |endpoint: &Endpoint| {
        let address = match &endpoint.address {
            EndpointAddress::Ip(address) => address.to_string(),
            EndpointAddress::Dns(name) | EndpointAddress::Unix(name) => name.to_string(),
        };
        let mark = if endpoint.health == Health::Draining { " draining" } else { "" };
        format!("{address}:{}{mark}", endpoint.port)
    };
    snapshot.endpoints(&service.key, port).endpoints.iter().map(shown).collect()
}

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-v1}, zone: z1}
- {addresses: [10.0.0.2]}
- {addresses: [10.0.0.3], conditions: {ready: false}}
- {addresses: [10.0.0.4], conditions: {ready: false, serving: true, terminating: true}}
";

#[test]
fn a_service_is_found_by_every_name_and_address_that_clients_use() {
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &service("other", "web")
            + &service("other", "db").replace("clusterIP: ''", "clusterIP: None")
            + "---
apiVersion: v1
kind: Service
metadata: {name: vip, namespace: default}
spec: {clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1, 'fd00::1'], ports: [{port: 80}]}
" + &networking(
            "ServiceEntry",
            "default",
            "ext",
            1,
            "hosts: ['*.example.com', 'a.example.com']
addresses: [10.9.0.0/16, 10.2.0.1]
ports: [{number: 443, name: tls, protocol: TLS}]",
        )),
    );
    let snapshot = mesh.snapshot();
    let cases = [
        ("default", "web", Some(("default", "web.default.svc.cluster.local"))),
        ("default", "WEB", Some(("default", "web.default.svc.cluster.local"))),
        ("other", "web", Some(("other", "web.other.svc.cluster.local"))),
        ("third", "web", None),
        ("third", "web.other", Some(("other", "web.other.svc.cluster.local"))),
        ("third", "web.other.svc", Some(("other", "web.other.svc.cluster.local"))),
        ("third", "web.other.svc.cluster.local", Some(("other", "web.other.svc.cluster.local"))),
        ("third", "web.other.svc.cluster.local.", Some(("other", "web.other.svc.cluster.local"))),
        ("third", "x.web.other.svc.cluster.local", None),
        ("third", "db-0.db.other.svc.cluster.local", Some(("other", "db.other.svc.cluster.local"))),
        ("third", "db-0.db.other", Some(("other", "db.other.svc.cluster.local"))),
        ("other", "db-0.db", Some(("other", "db.other.svc.cluster.local"))),
        ("default", "10.1.0.1", Some(("default", "vip.default.svc.cluster.local"))),
        ("default", "fd00::1", Some(("default", "vip.default.svc.cluster.local"))),
        ("default", "[fd00::1]", Some(("default", "vip.default.svc.cluster.local"))),
        ("default", "10.9.1.2", Some(("default", "*.example.com"))),
        ("default", "10.3.0.1", None),
        ("default", "a.example.com", Some(("default", "a.example.com"))),
        ("default", "b.example.com", Some(("default", "*.example.com"))),
        ("default", "example.com", None),
        ("default", "", None),
        ("default", "..", None),
    ];
    for (namespace, host, expected) in cases {
        let found = snapshot.service(&client(namespace), host);
        let found = found.map(|service| (&*service.key.namespace, service.hostname()));
        assert_eq!(found, expected, "{host} from {namespace}");
    }
    let shared = snapshot.service(&client("default"), "10.2.0.1").map(|found| found.hostname());
    assert_eq!(shared, Some("*.example.com"), "names that share an address: first by hostname");
}

#[test]
fn visibility_and_precedence_among_services_of_one_name() {
    let entry = |namespace: &str, name: &str, created, export_to: &str| {
        networking(
            "ServiceEntry",
            namespace,
            name,
            created,
            &format!(
                "hosts: [shared.com, web.default.svc.cluster.local]
resolution: DNS
exportTo: {export_to}
ports: [{{number: {}, name: http, protocol: HTTP}}]",
                8000 + u16::from(created)
            ),
        )
    };
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &entry("a", "young", 9, "['*']")
            + &entry("b", "old", 3, "['*']")
            + &entry("c", "private", 1, "['.']")
            + &entry("d", "to-e", 2, "[e]")
            + &entry("default", "first", 5, "['*']")
            + &entry("default", "second", 6, "['*']")),
    );
    let snapshot = mesh.snapshot();
    let port = |namespace: &str, host: &str| {
        snapshot.service(&client(namespace), host).map(|service| service.ports[0].number)
    };
    assert_eq!(port("a", "shared.com"), Some(8009), "its own");
    assert_eq!(port("c", "shared.com"), Some(8001), "its own, private");
    assert_eq!(port("d", "shared.com"), Some(8003), "its own is not exported to itself");
    assert_eq!(port("e", "shared.com"), Some(8002), "the oldest it sees");
    assert_eq!(port("z", "shared.com"), Some(8003), "the oldest it sees");
    assert_eq!(port("default", "shared.com"), Some(8005), "the oldest of its namespace");
    let kubernetes = "web.default.svc.cluster.local";
    assert_eq!(port("z", kubernetes), Some(80), "Kubernetes beats older entries");
    assert_eq!(port("a", kubernetes), Some(8009), "the own namespace beats Kubernetes");
    let visible = |namespace: &str| {
        let services = snapshot.visible_services(&client(namespace));
        services
            .iter()
            .map(|s| format!("{} {}", s.key.namespace, s.key.hostname))
            .collect::<Vec<_>>()
    };
    assert_eq!(visible("z"), ["b shared.com", "default web.default.svc.cluster.local"]);
    assert_eq!(visible("c"), ["c shared.com", "c web.default.svc.cluster.local"]);
    let snapshot = mesh.delete(Kind::Service, "web").0;
    let definer = snapshot.service(&client("default"), kubernetes).unwrap();
    assert_eq!((definer.registry, definer.ports[0].number), (Registry::ServiceEntry, 8005));
}

#[test]
fn a_service_is_read_with_its_ports_and_annotations() {
    let mut mesh = Mesh::of(
        "
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {networking.istio.io/exportTo: 'a, .'}
  creationTimestamp: '1970-01-01T00:00:07Z'
spec:
  publishNotReadyAddresses: true
  ports:
  - {port: 443, name: https-x, targetPort: web}
  - {port: 80, appProtocol: grpc, targetPort: '8080'}
  - {port: 53, protocol: UDP}
  - {port: 53, name: dns}
  - {port: 70000}
  - {port: 81, targetPort: 0}
",
    );
    let snapshot = mesh.snapshot();
    assert!(snapshot.service(&client("b"), "web.default").is_none());
    let service = snapshot.service(&client("a"), "web.default").unwrap();
    let ports: Vec<_> =
        service.ports.iter().map(|p| (p.number, p.target.clone(), p.protocol)).collect();
    assert_eq!(
        ports,
        [
            (53, TargetPort::Number(53), Protocol::Tcp),
            (80, TargetPort::Number(8080), Protocol::Grpc),
            (81, TargetPort::Number(81), Protocol::Unsupported),
            (443, TargetPort::Name("web".into()), Protocol::Https),
        ]
    );
    assert_eq!((service.created, service.publish_not_ready, service.headless), (7, true, false));
    let findings = mesh.index.diagnoses().get(&Kind::Service.reference("default", "web")).unwrap();
    let shown: Vec<_> = findings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["spec.ports[4].port: 70000 is not a port: it must be from 1 to 65535"]);
}

#[test]
fn endpoints_come_from_slices_joined_to_pods() {
    let mut mesh = Mesh::of(&(service("default", "web") + "---" + SLICE));
    let (snapshot, _) = mesh.apply(&pod("default", "web", "v1", "10.0.0.1"));
    assert_eq!(
        endpoints(&snapshot, "web", 80),
        ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.4:8080 draining"]
    );
    let set = snapshot.endpoints(&key("default", "web.default.svc.cluster.local"), 80);
    let joined = &set.endpoints[0];
    assert_eq!(joined.labels.get("version").map(String::as_str), Some("v1"));
    assert_eq!(joined.service_account.as_deref(), Some("web"));
    assert_eq!((joined.meshed, &*joined.locality.zone), (true, "z1"));
    assert_eq!(joined.workload.as_ref().map(|workload| &*workload.canonical_name), Some("web"));
    let unknown = &set.endpoints[1];
    assert_eq!(
        (unknown.meshed, &unknown.service_account, &unknown.workload),
        (false, &None, &None)
    );
    assert_eq!(
        snapshot.endpoints(&key("default", "web.default.svc.cluster.local"), 81).endpoints,
        []
    );
    let by_address = mesh.apply(&pod("default", "web", "v2", "10.0.0.2")).0;
    let set = by_address.endpoints(&key("default", "web.default.svc.cluster.local"), 80);
    assert_eq!(set.endpoints[1].labels.get("version").map(String::as_str), Some("v2"));
}

#[test]
fn an_endpoint_waits_for_the_pod_that_it_names() {
    let mut mesh = Mesh::of(&(service("default", "web") + "---" + SLICE));
    let others = ["10.0.0.2:8080", "10.0.0.4:8080 draining"];
    assert_eq!(endpoints(&mesh.snapshot(), "web", 80), others);
    let (snapshot, changed) = mesh.apply(&pod("default", "web", "v1", "10.0.0.1"));
    assert_eq!(endpoints(&snapshot, "web", 80).len(), 3);
    assert!(changed.endpoints.contains("web.default.svc.cluster.local"));
    assert_eq!(endpoints(&mesh.delete(Kind::Pod, "web-v1").0, "web", 80), others);
}

#[test]
fn pods_stand_in_for_slices_that_nobody_wrote() {
    let mut mesh = Mesh::of(
        &(service("default", "web").replace("targetPort: 8080", "targetPort: web")
            + &pod("default", "web", "v1", "10.0.0.1")
            + &pod("default", "web", "v2", "10.0.0.2")
            + &pod("default", "web", "v3", "10.0.0.3")
                .replace("status: {", "status: {conditions: [{type: Ready, status: 'False'}], ")
            + &pod("default", "web", "v4", "10.0.0.4")
                .replace("status: {", "status: {phase: Failed, ")
            + &pod("other", "web", "v5", "10.0.0.5")
            + &pod("default", "db", "v6", "10.0.0.6")),
    );
    assert_eq!(endpoints(&mesh.snapshot(), "web", 80), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let ready = pod("default", "web", "v3", "10.0.0.3");
    let (snapshot, changed) = mesh.apply(&ready);
    assert_eq!(endpoints(&snapshot, "web", 80).len(), 3);
    assert_eq!(changed, change(&[], &["web.default.svc.cluster.local"], &[]));
    assert_eq!(endpoints(&mesh.delete(Kind::Pod, "web-v1").0, "web", 80).len(), 2);
    let snapshot = mesh.apply(SLICE).0;
    assert_eq!(
        endpoints(&snapshot, "web", 80),
        ["10.0.0.2:8080", "10.0.0.4:8080 draining"],
        "a slice takes over, without the pod that is gone"
    );
    let snapshot = mesh.delete(Kind::EndpointSlice, "web-1").0;
    assert_eq!(endpoints(&snapshot, "web", 80), ["10.0.0.2:8080", "10.0.0.3:8080"]);
}

#[test]
fn an_event_changes_only_what_it_is_about() {
    let mut mesh =
        Mesh::of(&(service("default", "web") + &service("default", "db") + "---" + SLICE));
    let before = mesh.snapshot();
    let (after, changed) = mesh.apply(&SLICE.replace("10.0.0.2", "10.0.0.22"));
    assert_eq!(changed, change(&[], &["web.default.svc.cluster.local"], &[]));
    assert_eq!(after.version, before.version + 1);
    assert!(mesh.apply(&SLICE.replace("10.0.0.2", "10.0.0.22")).1.is_empty(), "nothing new");
    assert_eq!(mesh.snapshot().version, after.version);
    let old = before.service(&client("default"), "db").unwrap();
    let new = after.service(&client("default"), "db").unwrap();
    assert!(std::sync::Arc::ptr_eq(old, new), "what stays is shared");
    let (_, changed) = mesh.apply(&service("default", "web").replace("port: 80", "port: 81"));
    assert_eq!(
        changed,
        change(
            &["web.default.svc.cluster.local"],
            &["web.default.svc.cluster.local"],
            &["default"]
        )
    );
    let (_, changed) = mesh.apply(&pod("default", "cron", "v1", "10.0.0.9"));
    assert_eq!(changed, change(&[], &[], &["default"]));
    let (snapshot, changed) = mesh.delete(Kind::Service, "web");
    assert_eq!(changed.hosts, ["web.default.svc.cluster.local".into()].into());
    assert!(snapshot.service(&client("default"), "web").is_none());
    let gone = snapshot.endpoints(&key("default", "web.default.svc.cluster.local"), 81);
    assert_eq!(gone.endpoints, []);
}

#[test]
fn service_entries_define_services_and_endpoints() {
    let cases = [
        (
            "hosts: [a.com]\nresolution: DNS\nports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]",
            Resolution::Dns,
            vec!["a.com:8443"],
        ),
        (
            "hosts: [a.com]\nresolution: DNS_ROUND_ROBIN\nports: [{number: 443, name: tls, protocol: TLS}]
endpoints: [{address: b.com}]",
            Resolution::DnsRoundRobin,
            vec!["b.com:443"],
        ),
        (
            "hosts: [a.com]\nports: [{number: 443, name: tls, protocol: TLS}]",
            Resolution::Passthrough,
            vec![],
        ),
        (
            "hosts: [a.com]\nresolution: STATIC\nlocation: MESH_INTERNAL
ports: [{number: 443, name: tls, protocol: TLS, targetPort: 1}]
endpoints: [{address: 10.0.0.2, ports: {tls: 2}}, {address: 10.0.0.1, serviceAccount: a}, {address: unix:///x}]",
            Resolution::Static,
            vec!["10.0.0.1:1", "10.0.0.2:2", "/x:0"],
        ),
        (
            "hosts: [a.com]\nresolution: STATIC\nworkloadSelector: {labels: {app: web}}
ports: [{number: 443, name: tls, protocol: TLS, targetPort: 1}]",
            Resolution::Static,
            vec!["10.0.0.7:1"],
        ),
    ];
    for (spec, resolution, expected) in cases {
        let mut mesh = Mesh::of(
            &(networking("ServiceEntry", "default", "a", 1, spec)
                + &pod("default", "web", "v1", "10.0.0.7")
                + &pod("other", "web", "v1", "10.0.0.8")),
        );
        let snapshot = mesh.snapshot();
        assert_eq!(snapshot.service(&client("default"), "a.com").unwrap().resolution, resolution);
        assert_eq!(endpoints(&snapshot, "a.com", 443), expected, "{spec}");
        let (snapshot, changed) = mesh.delete(SE, "a");
        assert!(snapshot.service(&client("default"), "a.com").is_none());
        assert_eq!(names(&changed.hosts), ["a.com"]);
    }
}

#[test]
fn only_endpoints_with_an_identity_inside_the_mesh_take_mtls() {
    let spec = |location: &str| {
        format!(
            "hosts: [a.com]\nresolution: STATIC\nlocation: {location}\nports: [{{number: 80, name: http}}]
endpoints:
- {{address: 10.0.0.1}}
- {{address: 10.0.0.2, serviceAccount: a}}
- {{address: 10.0.0.3, serviceAccount: a, labels: {{security.istio.io/tlsMode: disabled}}}}
- {{address: 10.0.0.4, labels: {{security.istio.io/tlsMode: istio}}}}"
        )
    };
    for (location, expected) in
        [("MESH_INTERNAL", [false, true, false, true]), ("MESH_EXTERNAL", [false; 4])]
    {
        let mut mesh = Mesh::of(&networking("ServiceEntry", "default", "a", 1, &spec(location)));
        let snapshot = mesh.snapshot();
        let set = snapshot.endpoints(&key("default", "a.com"), 80);
        let meshed: Vec<_> =
            set.endpoints.iter().map(|e| snapshot.endpoint_accepts_mtls(e)).collect();
        assert_eq!(meshed, expected, "{location}");
    }
}

#[test]
fn an_external_name_stands_for_the_meshs_service_or_for_a_name_outside() {
    let alias = |target: &str| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: alias}}
spec: {{type: ExternalName, externalName: {target}, ports: [{{name: http, port: 80}}]}}
"
        )
    };
    let mut mesh = Mesh::of(&alias("web.default.svc.cluster.local"));
    let snapshot = mesh.snapshot();
    assert_eq!(endpoints(&snapshot, "alias", 80), ["web.default.svc.cluster.local:80"]);
    let (snapshot, changed) = mesh.apply(&service("default", "web"));
    let found = snapshot.service(&client("default"), "alias").unwrap();
    assert_eq!(found.hostname(), "web.default.svc.cluster.local");
    assert_eq!(
        names(&changed.hosts),
        ["alias.default.svc.cluster.local", "web.default.svc.cluster.local"],
        "what stands for a service changes with it"
    );
    let visible = snapshot.visible_services(&client("default"));
    assert_eq!(visible.len(), 1);
    let snapshot = mesh.apply(&alias("alias.default.svc.cluster.local")).0;
    assert!(snapshot.service(&client("default"), "alias").is_none(), "a loop leads nowhere");
}

#[test]
fn inbound_ports_are_one_for_each_target_port_of_the_oldest_service() {
    let service = |name: &str, created: u8, spec: &str| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec: {spec}
"
        )
    };
    let mut mesh = Mesh::of(
        &(service(
            "young",
            9,
            "{selector: {app: web}, ports: [{name: tcp, port: 80, targetPort: 8080}]}",
        ) + &service(
            "old",
            1,
            "{selector: {app: web}, ports: [{name: http, port: 81, targetPort: web}, {name: grpc, port: 90}]}",
        ) + &service(
            "other",
            1,
            "{selector: {app: other}, ports: [{name: http, port: 81, targetPort: 7}]}",
        ) + &service(
            "none",
            1,
            "{ports: [{name: http, port: 70, targetPort: 7000}, {name: u, port: 71, protocol: UDP}]}",
        ) + &pod("default", "web", "v1", "10.0.0.1")
            + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: none-1, labels: {kubernetes.io/service-name: none}}
addressType: IPv4
ports: [{name: http, port: 7001}]
endpoints: [{addresses: [10.0.0.1]}]
"),
    );
    let inbound = |snapshot: &Snapshot| {
        let ports = snapshot.inbound_ports("default", &labels("app=web"), [10, 0, 0, 1].into());
        ports
            .iter()
            .map(|p| {
                format!(
                    "{} {} {} {:?}",
                    p.target_port, p.port.number, p.service.name, p.port.protocol
                )
            })
            .collect::<Vec<_>>()
    };
    let snapshot = mesh.snapshot();
    assert_eq!(inbound(&snapshot), ["90 90 old Grpc", "7001 70 none Http", "8080 81 old Http"]);
    assert_eq!(snapshot.inbound_ports("x", &labels("app=web"), [10, 0, 0, 9].into()), []);
    let (snapshot, changed) = mesh.delete(Kind::EndpointSlice, "none-1");
    assert_eq!(inbound(&snapshot), ["90 90 old Grpc", "8080 81 old Http"]);
    assert_eq!(changed, change(&[], &["none.default.svc.cluster.local"], &["default"]));
}

#[test]
fn workloads_are_named_as_their_owners() {
    let owner = |kind: &str, name: &str| {
        format!(
            "ownerReferences: [{{apiVersion: v1, kind: {kind}, name: {name}, uid: u, controller: true}}]"
        )
    };
    let cases = [
        ("p", String::new(), "", "p", "p", "latest"),
        (
            "web-abc12-x",
            owner("ReplicaSet", "web-abc12"),
            "pod-template-hash: abc12",
            "web",
            "web",
            "latest",
        ),
        ("web-abc12-x", String::new(), "pod-template-hash: abc12", "web", "web", "latest"),
        ("db-0", owner("StatefulSet", "db"), "app: d, version: v2", "db", "d", "v2"),
        ("j", owner("Job", "cron-28012345"), "", "cron", "cron", "latest"),
        ("j", owner("Job", "import"), "", "import", "import", "latest"),
        ("p", String::new(), "service.istio.io/canonical-name: c, app: d", "p", "c", "latest"),
    ];
    for (name, owners, labels, workload, canonical, revision) in cases {
        let mut mesh = Mesh::of(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}, {owners}}}\nspec: {{containers: []}}\nstatus: {{podIP: 10.0.0.1}}"
        ));
        let snapshot = mesh.snapshot();
        let found = snapshot.workload("default", name).unwrap();
        assert_eq!(
            (&*found.workload_name, &*found.canonical_name, &*found.canonical_revision),
            (workload, canonical, revision),
            "{name} {labels}"
        );
        assert_eq!(&*found.service_account, "default");
        assert_eq!(snapshot.workload_by_address([10, 0, 0, 1].into()), Some(found));
    }
}

#[test]
fn the_config_map_sets_the_mesh_and_a_broken_one_leaves_it() {
    let config = |text: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {text}\n"
        )
    };
    let mut mesh = Mesh::of(&service("default", "web"));
    let (snapshot, changed) = mesh.apply(&config("defaultServiceExportTo: ['.']"));
    assert!(changed.all);
    assert!(snapshot.service(&client("other"), "web.default").is_none());
    assert!(snapshot.service(&client("default"), "web").is_some());
    let (snapshot, changed) = mesh.apply(&config("accessLogEncoding: XML"));
    assert!(!changed.all);
    assert_eq!(names(&snapshot.mesh.default_service_export_to), ["."], "the last good one stays");
    let reference = Kind::ConfigMap.reference("istio-system", "istio");
    let errors = &mesh.index.diagnoses().get(&reference).unwrap().errors;
    assert_eq!(
        errors[0].to_string(),
        "data.mesh: accessLogEncoding: \"XML\" is neither TEXT nor JSON"
    );
    assert!(mesh.index.delete(Kind::ConfigMap, "istio-system", "istio"));
    assert!(mesh.snapshot().service(&client("other"), "web.default").is_some());
    assert!(mesh.index.diagnoses().is_empty());
}

#[test]
fn a_reset_replaces_every_object_of_its_kind_and_no_other() {
    let mut mesh = Mesh::of(&(service("default", "a") + &service("default", "b") + "---" + SLICE));
    assert!(
        mesh.index
            .reset(Kind::Service, objects(&(service("default", "b") + &service("default", "web"))))
    );
    let snapshot = mesh.snapshot();
    let visible = snapshot.visible_services(&client("default"));
    assert_eq!(visible.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["b", "web"]);
    assert_eq!(endpoints(&snapshot, "web", 80).len(), 2, "slices stay");
    assert!(
        !mesh
            .index
            .reset(Kind::Service, objects(&(service("default", "web") + &service("default", "b"))))
    );
}
