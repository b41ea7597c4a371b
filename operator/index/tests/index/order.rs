//! The order of events never matters.

use proptest::{prelude::*, sample::subsequence, test_runner::Config};
use weft_core::{mesh::MeshConfig, snapshot::Snapshot};
use weft_index::{Index, Object};

use crate::fixture::*;

/// A mesh with at least one of every relation between objects that the index follows.
#[expect(clippy::too_many_lines, reason = "the mesh is one text")]
fn everything() -> Vec<Object> {
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
    objects(
        &(service("default", "web")
            + &service("default", "db")
            + &pod("default", "web", "v1", "10.0.0.1")
            + &pod("default", "web", "v2", "10.0.0.2")
            + &pod("default", "db", "v1", "10.0.0.3")
            + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-v1}}, {addresses: [10.0.0.2]}]
---
apiVersion: v1
kind: Service
metadata: {name: manual}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual-1, labels: {kubernetes.io/service-name: manual}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.3]}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local, ports: [{port: 80}]}
---
apiVersion: v1
kind: Secret
metadata: {name: shop}
stringData: {tls.crt: nonsense}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: '{defaultDestinationRuleExportTo: [team, .], defaultServiceExportTo: [\"*\"]}'}
" + &networking(
            "Gateway",
            "default",
            "gw",
            1,
            "selector: {app: web}\nservers: [{port: {number: 443, name: s, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: shop}}]",
        ) + &networking(
            "ServiceEntry",
            "default",
            "e",
            1,
            "hosts: [a.com, '*.b.com', web.default.svc.cluster.local]\nresolution: DNS\nports: [{number: 80, name: http}]",
        ) + &networking(
            "ServiceEntry",
            "default",
            "e2",
            2,
            "hosts: [a.com]\nresolution: STATIC\nworkloadSelector: {labels: {app: db}}\nports: [{number: 81, name: http}]",
        ) + &vs("default", "old", 1, &format!("hosts: [web]\n{}", to("web", "v1")))
            + &vs("default", "young", 2, &format!("hosts: [web, db]\n{}", to("web", "v2")))
            + &vs("default", "waits", 0, &format!("hosts: [web]\n{}", to("web", "v9")))
            + &vs("team", "other", 3, &format!("hosts: ['*.com']\n{}", to("web.default", "v1")))
            + &vs(
                "team",
                "shared",
                3,
                &format!("hosts: [x.com]\n{}", to("web.default.svc.cluster.local", "v1")),
            )
            + &vs(
                "foreign",
                "borrows",
                4,
                &format!("hosts: [y.com]\n{}", to("web.default.svc.cluster.local", "v1")),
            )
            + &vs("default", "root", 5, "hosts: [z.com]\nhttp: [{delegate: {name: part}}]")
            + &vs("default", "part", 6, &to("web", "v2"))
            + &dr("default", "d1", 1, "host: web\nsubsets: [{name: v1, labels: {version: v1}}]")
            + &dr(
                "default",
                "d2",
                2,
                "host: web\nsubsets: [{name: v1, labels: {from: d2}}, {name: v2}]",
            )
            + &dr(
                "team",
                "d3",
                3,
                "host: '*.svc.cluster.local'\nsubsets: [{name: v1, labels: {team: t}}]",
            )
            + &security("PeerAuthentication", "default", "p", 1, "mtls: {mode: STRICT}")
            + &security("AuthorizationPolicy", "default", "a", 1, "rules: [{}]")),
    )
}

fn snapshot_of(objects: &[Object], every: usize) -> Snapshot {
    let mut index = Index::new(MeshConfig::default());
    for (at, object) in objects.iter().enumerate() {
        index.apply(object.clone());
        if at % every == 0 {
            index.snapshot();
        }
    }
    let mut snapshot = Snapshot::clone(&index.snapshot().0);
    snapshot.version = 0;
    snapshot
}

proptest! {
    #![proptest_config(Config { cases: 32, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_same_objects_in_any_order_make_the_same_mesh(
        objects in Just(everything()).prop_shuffle(),
        every in 1..40usize,
    ) {
        let expected = snapshot_of(&everything(), 100);
        prop_assert!(snapshot_of(&objects, every) == expected);
    }

    #[test]
    fn what_comes_and_goes_leaves_no_trace(
        passing in subsequence(everything(), 0..12),
        objects in Just(everything()).prop_shuffle(),
        every in 1..40usize,
    ) {
        // Only Kubernetes' objects and policies: a route in effect rightly leaves its memory.
        let passing: Vec<Object> = passing.into_iter().map(rename).collect();
        let mut index = Index::new(MeshConfig::default());
        for (at, object) in passing.iter().chain(&objects).enumerate() {
            index.apply(object.clone());
            if at % every == 0 {
                index.snapshot();
            }
        }
        for object in &passing {
            let reference = object.reference();
            index.delete(object.kind(), &reference.namespace, &reference.name);
        }
        let mut snapshot = Snapshot::clone(&index.snapshot().0);
        snapshot.version = 0;
        prop_assert!(snapshot == snapshot_of(&everything(), 100));
    }
}

/// The same object in a namespace of its own.
fn rename(mut object: Object) -> Object {
    use weft_crds::AnyResource;
    let metadata = match &mut object {
        Object::Service(object) => &mut object.metadata,
        Object::EndpointSlice(object) => &mut object.metadata,
        Object::Pod(object) => &mut object.metadata,
        Object::ConfigMap(object) => &mut object.metadata,
        Object::Secret(object) => &mut object.metadata,
        Object::Mesh(resource) => match &mut **resource {
            AnyResource::VirtualService(resource) => &mut resource.metadata,
            AnyResource::DestinationRule(resource) => &mut resource.metadata,
            AnyResource::Gateway(resource) => &mut resource.metadata,
            AnyResource::ServiceEntry(resource) => &mut resource.metadata,
            AnyResource::EnvoyFilter(resource) => &mut resource.metadata,
            AnyResource::PeerAuthentication(resource) => &mut resource.metadata,
            AnyResource::AuthorizationPolicy(resource) => &mut resource.metadata,
        },
    };
    metadata.namespace = Some("passing".to_owned());
    object
}
