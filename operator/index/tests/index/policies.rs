//! PeerAuthentications, AuthorizationPolicies and EnvoyFilters.

use weft_crds::security::MutualTlsMode::{self, Disable, Permissive, Strict};
use weft_index::Kind;

use crate::fixture::*;

fn peer(namespace: &str, name: &str, created: u8, spec: &str) -> String {
    security("PeerAuthentication", namespace, name, created, spec)
}

#[test]
fn peer_authentication_inherits_from_workload_to_namespace_to_mesh() {
    type Modes = (MutualTlsMode, Option<MutualTlsMode>);
    let cases: [(&str, Vec<String>, Modes); 9] = [
        ("nothing", vec![], (Permissive, None)),
        ("mesh-wide", vec![peer("istio-system", "a", 1, "mtls: {mode: STRICT}")], (Strict, None)),
        (
            "namespace over mesh",
            vec![
                peer("istio-system", "a", 1, "mtls: {mode: STRICT}"),
                peer("ns", "a", 1, "mtls: {mode: DISABLE}"),
            ],
            (Disable, None),
        ),
        (
            "unset inherits",
            vec![
                peer("istio-system", "a", 1, "mtls: {mode: STRICT}"),
                peer("ns", "a", 1, "mtls: {mode: UNSET}"),
                peer("ns", "w", 1, "selector: {matchLabels: {app: a}}"),
            ],
            (Strict, None),
        ),
        (
            "the oldest of a level, even when it says nothing",
            vec![peer("ns", "young", 2, "mtls: {mode: STRICT}"), peer("ns", "old", 1, "mtls: {}")],
            (Permissive, None),
        ),
        (
            "workload over namespace, with ports",
            vec![
                peer("ns", "a", 1, "mtls: {mode: STRICT}"),
                peer(
                    "ns",
                    "w",
                    2,
                    "selector: {matchLabels: {app: a}}\nmtls: {mode: PERMISSIVE}\nportLevelMtls: {80: {mode: DISABLE}}",
                ),
            ],
            (Permissive, Some(Disable)),
        ),
        (
            "a port that is unset has the workload's mode",
            vec![
                peer("ns", "a", 1, "mtls: {mode: STRICT}"),
                peer(
                    "ns",
                    "w",
                    2,
                    "selector: {matchLabels: {app: a}}\nportLevelMtls: {80: {mode: UNSET}}",
                ),
            ],
            (Strict, Some(Strict)),
        ),
        (
            "the oldest workload policy alone",
            vec![
                peer(
                    "ns",
                    "w2",
                    2,
                    "selector: {matchLabels: {app: a}}\nmtls: {mode: STRICT}\nportLevelMtls: {80: {mode: DISABLE}}",
                ),
                peer("ns", "w1", 1, "selector: {matchLabels: {app: a}}\nmtls: {mode: DISABLE}"),
                peer("ns", "w0", 0, "selector: {matchLabels: {app: b}}\nmtls: {mode: STRICT}"),
            ],
            (Disable, None),
        ),
        (
            "a selector in the root namespace means nothing",
            vec![peer(
                "istio-system",
                "w",
                1,
                "selector: {matchLabels: {app: a}}\nmtls: {mode: STRICT}",
            )],
            (Permissive, None),
        ),
    ];
    for (case, policies, (default, port)) in cases {
        let mut mesh = Mesh::of(&policies.concat());
        let modes = mesh.snapshot().peer_authentication("ns", &labels("app=a,x=y"));
        assert_eq!(modes.default, default, "{case}");
        assert_eq!(modes.mode(80), port.unwrap_or(default), "{case}");
        assert_eq!(modes.ports.len(), usize::from(port.is_some()), "{case}");
        assert_eq!(modes.mode(81), default, "{case}");
    }
}

#[test]
fn endpoints_take_mtls_unless_their_policy_forbids_it() {
    let mut mesh = Mesh::of(
        &(service("default", "web")
            + &service("other", "api")
            + &pod("default", "web", "v1", "10.0.0.1")
            + &pod("default", "web", "v2", "10.0.0.2").replace("istio}", "disabled}")),
    );
    let accepts = |mesh: &mut Mesh| {
        let snapshot = mesh.snapshot();
        let service = snapshot.service(&client("default"), "web").unwrap();
        let set = snapshot.endpoints(&service.key, 80);
        set.endpoints.iter().map(|e| snapshot.endpoint_accepts_mtls(e)).collect::<Vec<_>>()
    };
    assert_eq!(accepts(&mut mesh), [true, false]);
    let off = "selector: {matchLabels: {app: web}}\nportLevelMtls: {8080: {mode: DISABLE}}";
    let (_, changed) = mesh.apply(&peer("default", "none", 1, off));
    assert_eq!(changed, change(&[], &["web.default.svc.cluster.local"], &["default"]));
    assert_eq!(accepts(&mut mesh), [false, false]);
    let (_, changed) = mesh.delete(PA, "none");
    assert_eq!(changed, change(&[], &["web.default.svc.cluster.local"], &["default"]));
    assert_eq!(accepts(&mut mesh), [true, false]);
    assert!(mesh.apply(&peer("istio-system", "a", 1, "mtls: {mode: STRICT}")).1.all);
}

#[test]
fn authorization_policies_of_root_and_namespace_apply_by_selector_oldest_first() {
    let policy = |namespace: &str, name: &str, created: u8, spec: &str| {
        security("AuthorizationPolicy", namespace, name, created, spec)
    };
    let rules = "rules: [{}]";
    let mut mesh = Mesh::of(
        &(policy("ns", "young", 5, rules)
            + &policy("ns", "old", 1, rules)
            + &policy("ns", "mine", 2, &format!("selector: {{matchLabels: {{app: a}}}}\n{rules}"))
            + &policy(
                "ns",
                "not-mine",
                2,
                &format!("selector: {{matchLabels: {{app: b}}}}\n{rules}"),
            )
            + &policy("istio-system", "root", 3, rules)
            + &policy(
                "istio-system",
                "root-mine",
                4,
                &format!("selector: {{matchLabels: {{app: a}}}}\n{rules}"),
            )
            + &policy("elsewhere", "other", 1, rules)
            + &policy("ns", "deny", 1, &format!("action: DENY\n{rules}"))
            + &policy("ns", "audit", 1, &format!("action: AUDIT\n{rules}"))
            + &policy(
                "ns",
                "custom",
                1,
                &format!("action: CUSTOM\nprovider: {{name: p}}\n{rules}"),
            )
            + &policy(
                "ns",
                "attached",
                1,
                &format!(
                    "targetRefs: [{{kind: Gateway, name: g, group: gateway.networking.k8s.io}}]\n{rules}"
                ),
            )),
    );
    let found = mesh.snapshot().authorization("ns", &labels("app=a"));
    let listed = |list: &[std::sync::Arc<weft_core::resource::Resource<_>>]| -> Vec<String> {
        list.iter().map(|policy| policy.reference.name.to_string()).collect()
    };
    assert_eq!(listed(&found.allow), ["old", "mine", "root", "root-mine", "young"]);
    assert_eq!(
        (listed(&found.deny), listed(&found.audit), listed(&found.custom)),
        (vec!["deny".into()], vec!["audit".into()], vec!["custom".into()])
    );
    let in_root = mesh.snapshot().authorization("istio-system", &labels("app=a"));
    assert_eq!(listed(&in_root.allow), ["root", "root-mine"]);
    assert_eq!(mesh.apply(&policy("ns", "young", 5, "{}")).1, change(&[], &[], &["ns"]));
    assert!(mesh.apply(&policy("istio-system", "root", 3, "{}")).1.all);
    mesh.index.delete(AP, "ns", "young");
    assert_eq!(mesh.index.snapshot().1, change(&[], &[], &["ns"]));
}

#[test]
fn envoy_filters_apply_by_priority_then_root_first_then_oldest() {
    let filter = |namespace: &str, name: &str, created: u8, spec: &str| {
        networking("EnvoyFilter", namespace, name, created, spec).replace("/v1\n", "/v1alpha3\n")
    };
    let mut mesh = Mesh::of(
        &(filter("ns", "old", 1, "priority: 0")
            + &filter("ns", "young", 2, "priority: 0")
            + &filter("ns", "before", 9, "priority: -1")
            + &filter("ns", "after", 0, "priority: 1")
            + &filter("istio-system", "root", 5, "priority: 0")
            + &filter("ns", "mine", 3, "workloadSelector: {labels: {app: a}}")
            + &filter("ns", "not-mine", 3, "workloadSelector: {labels: {app: b}}")
            + &filter("elsewhere", "other", 1, "priority: 0")),
    );
    let found = mesh.snapshot().envoy_filters("ns", &labels("app=a"));
    let found: Vec<_> = found.iter().map(|filter| &*filter.reference.name).collect();
    assert_eq!(found, ["before", "root", "old", "young", "mine", "after"]);
}

#[test]
fn generations_are_counted_where_nobody_counts_them() {
    let policy = |mode: &str| peer("default", "a", 1, &format!("mtls: {{mode: {mode}}}"));
    let mut mesh = Mesh::of(&policy("STRICT"));
    let generation = |mesh: &mut Mesh| {
        mesh.snapshot().peer_authentications.get("default", "a").unwrap().generation
    };
    assert_eq!(generation(&mut mesh), 1);
    assert!(mesh.apply(&policy("STRICT")).1.is_empty());
    assert_eq!(generation(&mut mesh), 1);
    mesh.apply(&policy("DISABLE"));
    assert_eq!(generation(&mut mesh), 2);
    mesh.apply(&policy("STRICT").replace("name: a,", "name: a, generation: 7,"));
    assert_eq!(generation(&mut mesh), 7);
}

#[test]
fn what_the_source_could_not_read_is_reported_until_it_can() {
    let policy = peer("default", "a", 1, "mtls: {mode: STRICT}");
    let mut mesh = Mesh::of(&policy);
    let error = weft_crds::FieldError { path: "spec.mtls".into(), reason: "no".into() };
    assert!(mesh.index.report_invalid(PA, "default", "a", vec![error.clone()]));
    assert!(!mesh.index.report_invalid(PA, "default", "a", vec![error.clone()]), "known already");
    let diagnosis = mesh.index.diagnoses().get(&PA.reference("default", "a")).unwrap().clone();
    assert_eq!((diagnosis.generation, diagnosis.accepted), (2, Some(1)));
    assert_eq!(diagnosis.errors, std::slice::from_ref(&error));
    let modes = mesh.snapshot().peer_authentication("default", &labels(""));
    assert_eq!(modes.default, Strict, "the last good version stays");
    mesh.apply(&policy);
    assert_eq!(mesh.index.diagnoses().get(&PA.reference("default", "a")).unwrap().errors, []);
    mesh.index.report_invalid(Kind::Service, "default", "s", vec![error]);
    assert!(mesh.index.delete(Kind::Service, "default", "s"));
    assert!(mesh.index.diagnoses().get(&Kind::Service.reference("default", "s")).is_none());
}
