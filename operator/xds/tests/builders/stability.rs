//! What every resolution must keep: no panic, equal bytes for equal meshes, and an honest record of what it hangs on.

use proptest::prelude::*;
use weft_xds::ResourceType;

use crate::mesh::{Mesh, edge, order, stock, stranger, user};

const EXTRA: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: order}
spec: {hosts: [order], http: [{match: [{sourceLabels: {app: user}}], route: [{destination: {host: user}}]}, {route: [{destination: {host: order, subset: v1}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: order}
spec: {host: order, subsets: [{name: v1, labels: {version: v1}}]}
";

fn parts() -> impl Strategy<Value = String> {
    let words = [
        "outbound",
        "inbound",
        "order",
        "user",
        "80",
        "8080",
        "v1",
        "|",
        "||",
        "_",
        ":",
        "/",
        "http_proxy",
        ".",
        "*",
        "[",
        "]",
        "::1",
        "order.default.svc.cluster.local",
        "10.0.0.1",
        "é",
        " ",
        "virtualInbound",
        "65536",
        "-1",
    ];
    let word = prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    proptest::collection::vec(word, 0..6).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_name_makes_a_resolution_panic(names in proptest::collection::vec(parts(), 1..64)) {
        thread_local! {
            static MESH: Mesh = Mesh::new(EXTRA);
        }
        MESH.with(|mesh| {
            for name in &names {
                for kind in ResourceType::ALL {
                    mesh.resolve(kind, name, &order());
                    mesh.resolve(kind, name, &stock(stranger()));
                    mesh.resolve(kind, name, &edge());
                }
            }
        });
    }
}

/// Names of every type that the mesh has, and some that it has not.
fn names(mesh: &Mesh) -> Vec<(ResourceType, String)> {
    let mut names = Vec::new();
    for kind in ResourceType::ALL {
        names.extend(mesh.names(kind, &order()).into_iter().map(|name| (kind, name)));
    }
    for authority in ["order", "user:80", "order.default", "nobody", "later.default", "10.0.0.2"] {
        names.push((ResourceType::VirtualHost, format!("http_proxy/{authority}")));
    }
    for name in ["order_80", "user_80", "later_80"] {
        names.push((ResourceType::Listener, name.into()));
    }
    names.push((ResourceType::Cluster, "outbound|80|v2|order.default.svc.cluster.local".into()));
    names.push((ResourceType::Cluster, "outbound|80||later.default.svc.cluster.local".into()));
    names
}

#[test]
fn equal_meshes_have_equal_bytes() {
    let (a, b) = (Mesh::new(EXTRA), Mesh::new(EXTRA));
    for (kind, name) in names(&a) {
        for node in [order(), user(), stock(order())] {
            assert_eq!(
                a.resolve(kind, &name, &node),
                b.resolve(kind, &name, &node),
                "{kind:?} {name}"
            );
        }
    }
}

/// An answer whose dependencies a change does not touch must be the same after it.
#[test]
fn no_change_goes_unnoticed() {
    let changes = [
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: order}\nspec: {host: order, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: user}\nspec: {hosts: [user], http: [{timeout: 1s, route: [{destination: {host: later}}]}]}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: later}\nspec: {selector: {app: order}, ports: [{name: http, port: 80, targetPort: 9090}]}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: order-v3, labels: {app: order, version: v2, security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: other, containers: [{name: app, image: app}]}\nstatus: {podIP: 127.20.1.4, phase: Running, conditions: [{type: Ready, status: 'True'}]}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: DISABLE}}\n",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none}\nspec: {}\n",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: x}\nspec: {configPatches: []}\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: wild}\nspec: {hosts: ['*.default'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n",
    ];
    let mut mesh = Mesh::new(EXTRA);
    for yaml in changes {
        let names = names(&mesh);
        let nodes = [order(), user(), stranger(), stock(order())];
        let resolve = |mesh: &Mesh| -> Vec<_> {
            let each = names
                .iter()
                .flat_map(|(kind, name)| nodes.iter().map(move |node| (*kind, name, node)));
            each.map(|(kind, name, node)| mesh.resolve(kind, name, node)).collect()
        };
        let before = resolve(&mesh);
        let change = mesh.apply(yaml);
        let after = resolve(&mesh);
        let asked = names.iter().flat_map(|name| nodes.iter().map(move |_| name));
        for ((before, after), asked) in before.iter().zip(&after).zip(asked) {
            if !before.dependencies.touched_by(&change) {
                assert_eq!(before.resource, after.resource, "{asked:?} after {yaml}{change:?}");
            }
        }
    }
}

/// Views that agree on what an answer says it read get the same answer.
#[test]
fn nodes_share_only_what_is_the_same_for_both() {
    let mesh = Mesh::new(EXTRA);
    let mut other = order();
    other.labels = [("app".to_owned(), "user".to_owned())].into();
    other.pod_name = "unknown".into();
    other.pod_address = [127, 20, 7, 7].into();
    other.app_address = None;
    for (kind, name) in names(&mesh) {
        let (a, b) = (mesh.resolve(kind, &name, &order()), mesh.resolve(kind, &name, &other));
        if !a.reads.labels && !a.reads.address {
            assert_eq!(a.resource, b.resource, "{name}");
        }
    }
}
