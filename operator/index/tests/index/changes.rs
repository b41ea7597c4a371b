//! A change names whatever differs: what it does not name answers every question as before.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use proptest::{prelude::*, test_runner::Config};
use weft_core::{change::Change, mesh::MeshConfig, snapshot::Snapshot};
use weft_index::{Index, Object};

use crate::fixture::*;

/// Versions of objects that relate to each other in every way that the index follows. Versions of one object share a
/// line of the table.
fn pool() -> Vec<Vec<Object>> {
    let vs = |namespace: &str, name: &str, created, spec: &str| {
        networking("VirtualService", namespace, name, created, spec)
    };
    let dr = |namespace: &str, name: &str, created, spec: &str| {
        networking("DestinationRule", namespace, name, created, spec)
    };
    let to = |host: &str, subset: &str| {
        format!(
            "http: [{{name: {subset}, route: [{{destination: {{host: {host}, subset: {subset}}}}}]}}]"
        )
    };
    let slice = |name: &str, service: &str, addresses: &str| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: {addresses}
"
        )
    };
    let alias = |target: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: alias}}\nspec: {{type: ExternalName, externalName: {target}, ports: [{{port: 80}}]}}\n"
        )
    };
    let config = |text: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: \"{text}\"}}\n"
        )
    };
    let entry = |name: &str, created, spec: &str| {
        networking("ServiceEntry", "default", name, created, spec)
    };
    let pa = |namespace: &str, spec: &str| security("PeerAuthentication", namespace, "p", 1, spec);
    let select = "selector: {matchLabels: {version: v1}}";
    let web = service("default", "web");
    let manual = "---\napiVersion: v1\nkind: Service\nmetadata: {name: manual}\nspec: {ports: [{name: http, port: 80}]}\n";
    [
        web.clone() + &web.replace("port: 80", "port: 81") + &web.replace("name: http", "name: tcp"),
        service("default", "db"),
        service("team", "web"),
        manual.to_owned(),
        alias("web.default.svc.cluster.local") + &alias("out.example.com"),
        pod("default", "web", "v1", "10.0.0.1") + &pod("default", "web", "v1", "10.0.0.9"),
        pod("default", "web", "v2", "10.0.0.2")
            + &pod("default", "web", "v2", "10.0.0.2").replace("istio}", "disabled}"),
        pod("team", "web", "v1", "10.0.0.3"),
        slice("web-1", "web", "[{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-v1}}, {addresses: [10.0.0.2]}]")
            + &slice("web-1", "web", "[{addresses: [10.0.0.2]}]")
            + &slice("web-1", "db", "[]"),
        slice("manual-1", "manual", "[{addresses: [10.0.0.3]}]")
            + &slice("manual-1", "manual", "[{addresses: [10.0.0.1]}]"),
        entry("e1", 1, "hosts: [a.com, '*.b.com']\nresolution: NONE\nports: [{number: 80, name: http, protocol: HTTP}]")
            + &entry("e1", 1, "hosts: [a.com]\nresolution: DNS\nexportTo: ['.']\nports: [{number: 80, name: http, protocol: HTTP}]"),
        entry("e2", 2, "hosts: [a.com, web.default.svc.cluster.local]\nresolution: STATIC\nlocation: MESH_INTERNAL\nworkloadSelector: {labels: {app: web}}\nports: [{number: 80, name: http, protocol: HTTP}]"),
        vs("default", "r1", 1, &format!("hosts: [web]\n{}", to("web", "v1")))
            + &vs("default", "r1", 1, &format!("hosts: [web, a.com]\n{}", to("web", "v2"))),
        vs("default", "r2", 2, &format!("hosts: [web, db]\n{}", to("db", "v1"))),
        vs("team", "r3", 3, &format!("hosts: ['*.com', '*.local']\n{}", to("web.default.svc.cluster.local", "v2")))
            + &vs("team", "r3", 3, &format!("hosts: ['*.com']\nexportTo: ['.']\n{}", to("web.default.svc.cluster.local", "v1"))),
        vs("default", "r4", 0, "hosts: [db]\nhttp: [{delegate: {name: part, namespace: team}}]"),
        vs("team", "part", 6, &to("web", "v1")) + &vs("team", "part", 6, "http: [{route: [{destination: {host: web}}]}]"),
        dr("default", "d1", 1, "host: web\nsubsets: [{name: v1, labels: {version: v1}}]")
            + &dr("default", "d1", 1, "host: '*.default.svc.cluster.local'\nsubsets: [{name: v2}]"),
        dr("default", "d2", 2, "host: web\nsubsets: [{name: v1}, {name: v2}]\ntrafficPolicy: {tls: {mode: DISABLE}}"),
        dr("team", "d3", 3, "host: '*.svc.cluster.local'\nsubsets: [{name: v1, labels: {team: t}}]")
            + &dr("team", "d3", 3, "host: web\nworkloadSelector: {matchLabels: {app: web}}"),
        dr("istio-system", "d4", 3, "host: '*.com'\nsubsets: [{name: v1}]"),
        pa("default", "mtls: {mode: STRICT}") + &pa("default", &format!("{select}\nmtls: {{mode: DISABLE}}")),
        pa("istio-system", "mtls: {mode: DISABLE}"),
        security("AuthorizationPolicy", "default", "a", 1, "rules: [{}]")
            + &security("AuthorizationPolicy", "default", "a", 1, select),
        config("defaultServiceExportTo: ['.']")
            + &config("{defaultDestinationRuleExportTo: ['.'], defaultVirtualServiceExportTo: [team]}"),
    ]
    .iter()
    .map(|versions| objects(versions))
    .collect()
}

const NAMESPACES: [&str; 3] = ["default", "team", "third"];
const HOSTS: [&str; 12] = [
    "web.default.svc.cluster.local",
    "db.default.svc.cluster.local",
    "manual.default.svc.cluster.local",
    "alias.default.svc.cluster.local",
    "web.team.svc.cluster.local",
    "out.example.com",
    "a.com",
    "x.a.com",
    "x.b.com",
    "*.b.com",
    "x.local",
    "elsewhere.org",
];

/// Every answer that resolution of a client's side may get, by host.
fn client_answers(snapshot: &Snapshot) -> BTreeMap<(&str, &str), impl PartialEq + use<>> {
    let pairs = NAMESPACES.iter().flat_map(|ns| HOSTS.iter().map(move |host| (*ns, *host)));
    pairs
        .map(|(namespace, host)| {
            let view = labelled_client(namespace, "app=web");
            let service = snapshot.service(&view, host).cloned();
            let name = service.as_ref().map_or(host.into(), |service| service.key.hostname.clone());
            let routes = snapshot.virtual_service(&view, &name);
            let rule = service.as_ref().and_then(|s| snapshot.destination_rule(&view, s));
            ((namespace, host), (service, routes, rule))
        })
        .collect()
}

/// Endpoints with whether they take mTLS, by service.
fn endpoint_answers(snapshot: &Snapshot) -> BTreeMap<Arc<str>, Vec<impl PartialEq + use<>>> {
    let mut answers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for namespace in NAMESPACES {
        for service in snapshot.visible_services(&client(namespace)) {
            for port in &service.ports {
                let set = snapshot.endpoints(&service.key, port.number);
                let mtls: Vec<bool> =
                    set.endpoints.iter().map(|e| snapshot.endpoint_accepts_mtls(e)).collect();
                let list = answers.entry(service.key.hostname.clone()).or_default();
                list.push((service.key.clone(), port.number, set, mtls));
            }
        }
    }
    answers
}

/// Every answer that resolution of a workload's side may get, by namespace.
fn workload_answers(snapshot: &Snapshot) -> BTreeMap<&'static str, Vec<impl PartialEq + use<>>> {
    let addresses: [IpAddr; 4] = [1, 2, 3, 9].map(|last| [10, 0, 0, last].into());
    let namespaces = ["default", "team"].into_iter();
    namespaces
        .map(|namespace| {
            let answer = |(address, version): (&IpAddr, &str)| {
                let labels = labels(&format!("app=web,version={version}"));
                // A pod's address belongs to one namespace; elsewhere nobody asks for it.
                let here = (*address == addresses[2]) == (namespace == "team");
                let ports = if here {
                    snapshot.inbound_ports(namespace, &labels, *address)
                } else {
                    Vec::new()
                };
                let view = labelled_client(namespace, "app=web");
                let rules: Vec<_> = ports
                    .iter()
                    .map(|port| snapshot.destination_rule(&view, &port.service))
                    .collect();
                (
                    ports,
                    rules,
                    snapshot.peer_authentication(namespace, &labels),
                    snapshot.authorization(namespace, &labels),
                    snapshot.workload(namespace, &format!("web-{version}")).cloned(),
                )
            };
            let both = addresses.iter().flat_map(|address| [(address, "v1"), (address, "v2")]);
            (namespace, both.map(answer).collect())
        })
        .collect()
}

fn check(before: &Snapshot, after: &Snapshot, change: &Change) -> Result<(), TestCaseError> {
    let (old, new) = (client_answers(before), client_answers(after));
    for (key @ (namespace, host), answer) in &new {
        if old.get(key) != Some(answer) {
            // Whoever asks depends on the name and on what it stood for.
            let view = client(namespace);
            let stood_for = before.service(&view, host).map_or(*host, |service| service.hostname());
            let named = change.touches_host(host) || change.touches_host(stood_for);
            prop_assert!(named, "{host} from {namespace}: {change:?}");
        }
    }
    let (mut old, new) = (endpoint_answers(before), endpoint_answers(after));
    for (host, answer) in &new {
        if old.remove(host).as_ref() != Some(answer) {
            let named = change.touches_host(host) || change.endpoints.contains(host);
            prop_assert!(named, "endpoints of {host}: {change:?}");
        }
    }
    for host in old.keys() {
        prop_assert!(change.touches_host(host), "{host} is gone: {change:?}");
    }
    let (old, new) = (workload_answers(before), workload_answers(after));
    for (namespace, answer) in &new {
        if old.get(namespace) != Some(answer) {
            let named = change.all || change.namespaces.contains(*namespace);
            prop_assert!(named, "workloads of {namespace}: {change:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 32, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_a_change_does_not_name_answers_as_before(
        steps in prop::collection::vec((0..25usize, 0..5usize, any::<bool>()), 1..60),
    ) {
        let pool = pool();
        let mut index = Index::new(MeshConfig::default());
        let mut before = index.snapshot().0;
        for (line, version, look) in steps {
            let versions = &pool[line % pool.len()];
            match versions.get(version % (versions.len() + 1)) {
                Some(object) => index.apply(object.clone()),
                None => {
                    let reference = versions[0].reference();
                    index.delete(versions[0].kind(), &reference.namespace, &reference.name)
                }
            };
            if look {
                let (after, change) = index.snapshot();
                check(&before, &after, &change)?;
                before = after;
            }
        }
    }

    #[test]
    fn what_is_left_decides_but_for_the_memory_of_routes(
        steps in prop::collection::vec((0..25usize, 0..5usize, any::<bool>()), 1..60),
    ) {
        let pool: Vec<Vec<Object>> =
            pool().into_iter().filter(|versions| versions[0].kind() != VS).collect();
        let mut index = Index::new(MeshConfig::default());
        let mut left: BTreeMap<usize, Object> = BTreeMap::new();
        for (line, version, look) in steps {
            let line = line % pool.len();
            let versions = &pool[line];
            match versions.get(version % (versions.len() + 1)) {
                Some(object) => {
                    index.apply(object.clone());
                    left.insert(line, object.clone());
                }
                None => {
                    let reference = versions[0].reference();
                    index.delete(versions[0].kind(), &reference.namespace, &reference.name);
                    left.remove(&line);
                }
            }
            if look {
                index.snapshot();
            }
        }
        let mut fresh = Index::new(MeshConfig::default());
        for object in left.into_values() {
            fresh.apply(object);
        }
        prop_assert!(same(&index.snapshot().0, &fresh.snapshot().0));
    }
}

/// Whether two meshes are equal, but for how often their resources were edited.
fn same(a: &Snapshot, b: &Snapshot) -> bool {
    endpoint_answers(a) == endpoint_answers(b)
        && a.services == b.services
        && a.endpoints == b.endpoints
        && a.workloads == b.workloads
        && a.mesh == b.mesh
}
