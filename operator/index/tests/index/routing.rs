//! VirtualServices and DestinationRules.

use std::collections::BTreeMap;

use weft_core::snapshot::Snapshot;

use crate::fixture::*;

const HOST: &str = "web.default.svc.cluster.local";

/// A VirtualService in `default` for `web` whose one route is named and goes to a subset.
fn virtual_service(name: &str, created: u8, route: &str, subset: &str) -> String {
    networking(
        "VirtualService",
        "default",
        name,
        created,
        &format!(
            "hosts: [web]
http: [{{name: {route}, route: [{{destination: {{host: web, subset: {subset}}}}}]}}]"
        ),
    )
}

/// A DestinationRule in `default` for `web` with subsets by version.
fn rule(name: &str, created: u8, subsets: &[&str]) -> String {
    let subsets: Vec<String> =
        subsets.iter().map(|v| format!("{{name: {v}, labels: {{version: {v}}}}}")).collect();
    let spec = format!("host: web\nsubsets: [{}]", subsets.join(", "));
    networking("DestinationRule", "default", name, created, &spec)
}

/// The name of the first route that clients of a namespace get for a host.
fn route(snapshot: &Snapshot, namespace: &str, host: &str) -> Option<String> {
    let found = snapshot.virtual_service(&client(namespace), host)?;
    Some(found.spec.http[0].name.clone())
}

/// The subsets that clients of a namespace have of a host.
fn subsets(snapshot: &Snapshot, namespace: &str, host: &str) -> Vec<String> {
    let service = snapshot.service(&client(namespace), host).unwrap();
    let rule = snapshot.destination_rule(&client(namespace), service);
    rule.map(|rule| rule.spec.subsets.iter().map(|s| s.name.clone()).collect()).unwrap_or_default()
}

#[test]
fn a_route_takes_effect_with_its_subsets_in_either_order() {
    let parts = [virtual_service("r", 1, "a", "v1"), rule("d", 1, &["v1"])];
    for order in [[0, 1], [1, 0]] {
        let mut mesh = Mesh::of(&service("default", "web"));
        let (snapshot, _) = mesh.apply(&parts[order[0]]);
        assert_eq!(route(&snapshot, "default", HOST), None);
        let (snapshot, changed) = mesh.apply(&parts[order[1]]);
        assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("a"));
        assert_eq!(subsets(&snapshot, "default", HOST), ["v1"]);
        assert_eq!(names(&changed.hosts), [HOST]);
    }
}

#[test]
fn an_edit_that_cannot_take_effect_leaves_the_version_before() {
    let mut mesh = Mesh::of(
        &(service("default", "web") + &virtual_service("r", 1, "a", "v1") + &rule("d", 1, &["v1"])),
    );
    let (snapshot, changed) = mesh.apply(&virtual_service("r", 1, "b", "v2"));
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("a"));
    assert!(changed.is_empty(), "{changed:?}");
    let state = snapshot.virtual_services.state("default", "r").unwrap();
    let missing: Vec<_> = state.missing.iter().map(|m| (&*m.host, &*m.subset)).collect();
    assert_eq!(missing, [(HOST, "v2")]);
    let (snapshot, changed) = mesh.apply(&rule("d", 1, &["v1", "v2"]));
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("b"));
    assert_eq!(changed, change(&[HOST], &[], &["default"]));
}

#[test]
fn a_subset_stays_defined_while_a_route_in_effect_names_it() {
    let mut mesh = Mesh::of(
        &(service("default", "web") + &virtual_service("r", 1, "a", "v1") + &rule("d", 1, &["v1"])),
    );
    let (snapshot, _) = mesh.apply(&rule("d", 1, &["v2"]));
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("a"));
    assert_eq!(subsets(&snapshot, "default", HOST), ["v2", "v1"]);
    let (snapshot, _) = mesh.delete(DR, "d");
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("a"));
    assert_eq!(subsets(&snapshot, "other", HOST), ["v1"]);
    let edited = virtual_service("r", 1, "edited", "v1");
    assert_eq!(route(&mesh.apply(&edited).0, "default", HOST).as_deref(), Some("edited"));
    let second = virtual_service("s", 2, "second", "v1").replace("[web]", "[web.other]");
    let snapshot = mesh.apply(&second).0;
    assert_eq!(route(&snapshot, "default", "web.other").as_deref(), Some("second"));
    mesh.delete(VS, "s");
    let (snapshot, changed) = mesh.delete(VS, "r");
    assert_eq!(subsets(&snapshot, "default", HOST), [""; 0], "nobody names it any more");
    assert_eq!(names(&changed.hosts), [HOST]);
    assert_eq!(route(&mesh.apply(&edited).0, "default", HOST), None, "and so it is forgotten");
}

#[test]
fn a_kept_subset_follows_its_rule_when_it_comes_back() {
    let mut mesh = Mesh::of(
        &(service("default", "web") + &virtual_service("r", 1, "a", "v1") + &rule("d", 1, &["v1"])),
    );
    mesh.delete(DR, "d");
    let back = rule("d", 1, &["v1"]).replace("version: v1", "version: other");
    let snapshot = mesh.apply(&back).0;
    let service = snapshot.service(&client("default"), HOST).unwrap();
    let rule = snapshot.destination_rule(&client("default"), service).unwrap();
    assert_eq!(rule.spec.subsets.len(), 1);
    assert_eq!(rule.subset_labels("v1"), Some(&labels("version=other")));
}

#[test]
fn the_oldest_of_two_virtual_services_for_a_host_wins() {
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &rule("d", 1, &["v1", "v2"])
            + &virtual_service("young", 2, "young", "v1")
            + &virtual_service("old", 1, "old", "v2")
            + &virtual_service("also-young", 2, "also-young", "v2")),
    );
    assert_eq!(route(&mesh.snapshot(), "default", HOST).as_deref(), Some("old"));
    let snapshot = mesh.delete(VS, "old").0;
    assert_eq!(
        route(&snapshot, "default", HOST).as_deref(),
        Some("also-young"),
        "same age: by name"
    );
    let waiting = virtual_service("older", 0, "older", "v3");
    let snapshot = mesh.apply(&waiting).0;
    assert_eq!(
        route(&snapshot, "default", HOST).as_deref(),
        Some("also-young"),
        "one that waits is as if it did not exist"
    );
}

#[test]
fn specific_hosts_beat_wildcards_and_private_beats_exported_beats_public() {
    let vs = |namespace: &str, name: &str, created, hosts: &str, export_to: &str| {
        networking(
            "VirtualService",
            namespace,
            name,
            created,
            &format!(
                "hosts: {hosts}\nexportTo: {export_to}\nhttp: [{{name: {name}, route: [{{destination: {{host: x.com}}}}]}}]"
            ),
        )
    };
    let mut mesh = Mesh::of(
        &(vs("a", "wide", 1, "['*.com']", "['*']")
            + &vs("a", "wider", 0, "['*.com', other.org]", "['.']")
            + &vs("b", "narrow", 3, "['*.foo.com']", "['*']")
            + &vs("b", "exact", 4, "[a.foo.com]", "['*']")
            + &vs("b", "exact-private", 9, "[a.foo.com]", "['.']")
            + &vs("b", "exact-to-c", 8, "[a.foo.com]", "[c]")
            + &vs("b", "gateway-only", 0, "[a.foo.com]", "['*']\ngateways: [gw]")
            + &vs("b", "with-mesh", 0, "[b.foo.com]", "['*']\ngateways: [gw, mesh]")),
    );
    let snapshot = mesh.snapshot();
    let cases = [
        ("z", "x.com", Some("wide")),
        ("a", "x.com", Some("wider")),
        ("z", "x.foo.com", Some("narrow")),
        ("a", "x.foo.com", Some("narrow")),
        ("z", "a.foo.com", Some("exact")),
        ("b", "a.foo.com", Some("exact-private")),
        ("c", "a.foo.com", Some("exact-to-c")),
        ("z", "*.foo.com", Some("narrow")),
        ("z", "b.foo.com", Some("with-mesh")),
        ("z", "foo.org", None),
        ("a", "other.org", Some("wider")),
        ("z", "other.org", None),
    ];
    for (namespace, host, expected) in cases {
        assert_eq!(
            route(&snapshot, namespace, host).as_deref(),
            expected,
            "{host} from {namespace}"
        );
    }
}

#[test]
fn an_edit_touches_the_hosts_of_its_virtual_service_alone() {
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &service("default", "db")
            + &networking(
                "ServiceEntry",
                "default",
                "e",
                1,
                "hosts: [a.foo.com, b.foo.com, c.org]",
            )),
    );
    let vs = |hosts: &str, timeout: &str| {
        networking(
            "VirtualService",
            "default",
            "r",
            1,
            &format!(
                "hosts: {hosts}\nhttp: [{{timeout: {timeout}, route: [{{destination: {{host: web}}}}]}}]"
            ),
        )
    };
    let cases = [
        (vs("[web]", "1s"), vec![HOST]),
        (vs("[web]", "1s"), vec![]),
        (vs("[web]", "2s"), vec![HOST]),
        (vs("[web, db]", "2s"), vec!["db.default.svc.cluster.local", HOST]),
        (vs("[db]", "2s"), vec!["db.default.svc.cluster.local", HOST]),
        (
            vs("['*.foo.com']", "2s"),
            vec!["*.foo.com", "a.foo.com", "b.foo.com", "db.default.svc.cluster.local"],
        ),
    ];
    for (yaml, expected) in cases {
        let (_, changed) = mesh.apply(&yaml);
        assert_eq!(names(&changed.hosts), expected);
        assert!(!changed.all && changed.endpoints.is_empty());
    }
    let (snapshot, changed) = mesh.delete(VS, "r");
    assert_eq!(names(&changed.hosts), ["*.foo.com", "a.foo.com", "b.foo.com"]);
    assert_eq!(route(&snapshot, "default", "a.foo.com"), None);
}

#[test]
fn a_rule_is_looked_up_in_the_clients_then_the_services_then_the_root_namespace() {
    let dr = |namespace: &str, name: &str, created: u8, host: &str, rest: &str| {
        let spec = format!("host: {host}\nsubsets: [{{name: {name}}}]\n{rest}");
        networking("DestinationRule", namespace, name, created, &spec)
    };
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &service("default", "db")
            + &service("third", "api")
            + &dr("client", "own", 1, HOST, "exportTo: ['.']")
            + &dr("client", "own-wide", 1, "'*.svc.cluster.local'", "exportTo: ['.']")
            + &dr("default", "service", 1, "web", "")
            + &dr("default", "private", 1, "db", "exportTo: ['.']")
            + &dr("istio-system", "root", 1, "'*.cluster.local'", "")
            + &dr(
                "istio-system",
                "root-private",
                1,
                "'*.default.svc.cluster.local'",
                "exportTo: ['.']",
            )
            + &dr("selective", "chosen", 5, HOST, "workloadSelector: {matchLabels: {app: a}}")
            + &dr("selective", "unselective", 1, HOST, "")),
    );
    let snapshot = mesh.snapshot();
    let db = "db.default.svc.cluster.local";
    let api = "api.third.svc.cluster.local";
    let cases = [
        ("client", "", HOST, "own"),
        ("client", "", db, "own-wide"),
        ("client", "", api, "own-wide"),
        ("other", "", HOST, "service"),
        ("other", "", db, "root"),
        ("default", "", db, "private"),
        ("other", "", api, "root"),
        ("istio-system", "", HOST, "root-private"),
        ("istio-system", "", api, "root"),
        ("selective", "app=a", HOST, "chosen"),
        ("selective", "app=b", HOST, "unselective"),
    ];
    for (namespace, labels, host, expected) in cases {
        let view = labelled_client(namespace, labels);
        let service = snapshot.service(&view, host).unwrap();
        let rule = snapshot.destination_rule(&view, service).unwrap();
        assert_eq!(rule.spec.subsets[0].name, expected, "{host} from {namespace} {labels}");
    }
}

#[test]
fn rules_of_one_host_and_namespace_merge() {
    let dr = |name: &str, created: u8, rest: &str| {
        networking("DestinationRule", "default", name, created, &format!("host: web\n{rest}"))
    };
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &dr(
                "b",
                2,
                "subsets: [{name: v1, labels: {from: b}}, {name: v2}]\ntrafficPolicy: {tls: {mode: SIMPLE}}",
            )
            + &dr("a", 1, "subsets: [{name: v1, labels: {from: a}}]")
            + &dr("c", 3, "subsets: [{name: v3}]\ntrafficPolicy: {tls: {mode: DISABLE}}")
            + &dr("d", 4, "subsets: [{name: v4}]\nexportTo: ['.']")
            + &dr("e", 5, "subsets: [{name: v5}]\nworkloadSelector: {matchLabels: {app: a}}")),
    );
    let snapshot = mesh.snapshot();
    let rule = |labels: &str| {
        let view = labelled_client("default", labels);
        let service = snapshot.service(&view, "web").unwrap();
        snapshot.destination_rule(&view, service).unwrap()
    };
    let merged = rule("");
    let sources: Vec<_> = merged.sources.iter().map(|source| &*source.name).collect();
    assert_eq!(sources, ["a", "b", "c"]);
    let subsets: BTreeMap<_, _> = merged
        .spec
        .subsets
        .iter()
        .map(|s| (s.name.as_str(), s.labels.get("from").cloned()))
        .collect();
    assert_eq!(subsets, [("v1", Some("a".into())), ("v2", None), ("v3", None)].into());
    let tls =
        merged.traffic_policy(80, "").and_then(|policy| policy.tls).map(|tls| tls.mode.to_string());
    assert_eq!(tls.as_deref(), Some("SIMPLE"));
    assert_eq!(rule("app=a").spec.subsets[0].name, "v5", "a selective rule stands alone");
}

#[test]
fn a_subset_named_by_a_public_route_is_defined_for_clients_with_rules_of_their_own() {
    let own = networking("DestinationRule", "client", "own", 1, &format!("host: {HOST}"));
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &virtual_service("r", 1, "a", "v1")
            + &rule("d", 1, &["v1", "v2"])
            + &own),
    );
    assert_eq!(subsets(&mesh.snapshot(), "client", HOST), ["v1"]);
}

#[test]
fn delegates_are_merged_in_and_followed() {
    let root = networking(
        "VirtualService",
        "default",
        "root",
        1,
        "hosts: [web]
http: [{match: [{uri: {prefix: /a}}], delegate: {name: part, namespace: team}}, {name: rest, route: [{destination: {host: web}}]}]",
    );
    let part = |timeout: &str, export_to: &str| {
        networking(
            "VirtualService",
            "team",
            "part",
            2,
            &format!(
                "exportTo: {export_to}\nhttp: [{{name: part, timeout: {timeout}, route: [{{destination: {{host: api}}}}]}}]"
            ),
        )
    };
    let mut mesh = Mesh::of(&(service("default", "web") + &root));
    let snapshot = mesh.snapshot();
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("rest"));
    let missing = &snapshot.virtual_services.state("default", "root").unwrap().missing_delegates;
    assert_eq!(
        missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["VirtualService team/part"]
    );
    let (snapshot, changed) = mesh.apply(&part("1s", "['*']"));
    assert_eq!(names(&changed.hosts), [HOST]);
    let found = snapshot.virtual_service(&client("default"), HOST).unwrap();
    assert_eq!(found.spec.http[0].route[0].destination.host, "api.team.svc.cluster.local");
    assert_eq!(found.spec.http[0].matches.len(), 1);
    assert_eq!(names(&mesh.apply(&part("2s", "['*']")).1.hosts), [HOST]);
    let snapshot = mesh.apply(&part("2s", "['.']")).0;
    assert_eq!(
        route(&snapshot, "default", HOST).as_deref(),
        Some("rest"),
        "not exported to the root"
    );
}

#[test]
fn a_route_to_a_host_that_does_not_exist_stays_in_effect() {
    let vs = networking(
        "VirtualService",
        "default",
        "r",
        1,
        "hosts: [web]\nhttp: [{name: a, route: [{destination: {host: nowhere}}]}]",
    );
    let mut mesh = Mesh::of(&(service("default", "web") + &vs));
    assert_eq!(route(&mesh.snapshot(), "default", HOST).as_deref(), Some("a"));
}

#[test]
fn default_visibility_comes_from_the_mesh() {
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &virtual_service("r", 1, "a", "v1")
            + &rule("d", 1, &["v1"])
            + "---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'defaultVirtualServiceExportTo: [.]'}
"),
    );
    let snapshot = mesh.snapshot();
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("a"));
    assert_eq!(route(&snapshot, "other", HOST), None);
    mesh.index.delete(weft_index::Kind::ConfigMap, "istio-system", "istio");
    assert_eq!(route(&mesh.snapshot(), "other", HOST).as_deref(), Some("a"));
}

#[test]
fn an_invalid_version_leaves_the_one_before_and_is_reported() {
    let vs = |weights: [u8; 2]| {
        networking(
            "VirtualService",
            "default",
            "r",
            1,
            &format!(
                "hosts: [web]\nhttp: [{{name: 'w{0}', route: [{{destination: {{host: a}}, weight: {0}}}, {{destination: {{host: b}}, weight: {1}}}]}}]",
                weights[0], weights[1]
            ),
        )
    };
    let mut mesh = Mesh::of(&vs([0, 0]));
    let diagnosis =
        |mesh: &Mesh| mesh.index.diagnoses().get(&VS.reference("default", "r")).unwrap().clone();
    assert_eq!(route(&mesh.snapshot(), "default", HOST), None, "never had a good version");
    let first = diagnosis(&mesh);
    assert_eq!((first.generation, first.accepted, first.errors.len()), (1, None, 1));
    let snapshot = mesh.apply(&vs([9, 1])).0;
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("w9"));
    assert_eq!(diagnosis(&mesh).accepted, Some(2));
    assert_eq!(diagnosis(&mesh).errors, []);
    let (snapshot, changed) = mesh.apply(&vs([0, 0]));
    assert_eq!(route(&snapshot, "default", HOST).as_deref(), Some("w9"));
    assert!(changed.is_empty());
    assert_eq!((diagnosis(&mesh).generation, diagnosis(&mesh).accepted), (3, Some(2)));
    assert!(!diagnosis(&mesh).errors.is_empty());
}
