//! A mesh from YAML, and its resources in readable form.

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;
use weft_api::node::{Interception, NodeInfo, ProxyKind};
use weft_core::{change::Change, mesh::MeshConfig, snapshot::Snapshot, view::NodeView};
use weft_crds::parse_text;
use weft_index::{Index, Object};
use weft_xds::{
    MeshResolver, ResourceType, readable,
    resolver::{Resolved, Resolver},
};

/// Two versions of a service `order` (HTTP, gRPC, TCP, TLS and unnamed ports), a service `user`, and their pods.
const BASE: &str = include_str!("mesh.yaml");

pub struct Mesh {
    pub index: Index,
    pub snapshot: Arc<Snapshot>,
}

impl Mesh {
    pub fn new(yaml: &str) -> Self {
        Self::with(MeshConfig::default(), yaml)
    }

    pub fn with(config: MeshConfig, yaml: &str) -> Self {
        let mut mesh = Self { index: Index::new(config), snapshot: Arc::default() };
        mesh.apply(BASE);
        mesh.apply(yaml);
        mesh
    }

    /// Applies documents; what may differ.
    pub fn apply(&mut self, yaml: &str) -> Change {
        for document in parse_text(yaml) {
            let object = Object::read(document.unwrap()).unwrap();
            self.index.apply(object.unwrap());
        }
        let (snapshot, change) = self.index.snapshot();
        self.snapshot = snapshot;
        change
    }

    pub fn resolve(&self, kind: ResourceType, name: &str, node: &NodeInfo) -> Resolved {
        let view = MeshResolver.view(&self.snapshot, node);
        MeshResolver.resolve(&self.snapshot, kind, name, &view)
    }

    /// A resource as `order-v1` in the namespace `default` sees it; null when there is no such.
    pub fn get(&self, kind: ResourceType, name: &str) -> Value {
        self.get_for(kind, name, &order())
    }

    pub fn get_for(&self, kind: ResourceType, name: &str, node: &NodeInfo) -> Value {
        let resolved = self.resolve(kind, name, node);
        resolved.resource.map_or(Value::Null, |found| readable::resource(kind, &found.body))
    }

    pub fn names(&self, kind: ResourceType, node: &NodeInfo) -> Vec<String> {
        let view: NodeView = MeshResolver.view(&self.snapshot, node);
        let names = MeshResolver.names(&self.snapshot, kind, &view);
        names.iter().map(ToString::to_string).collect()
    }
}

fn node(pod: &str, namespace: &str, app: &str, address: [u8; 4]) -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        pod_address: IpAddr::from(address),
        pod_name: pod.into(),
        namespace: namespace.into(),
        service_account: app.into(),
        workload_name: app.into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        cluster_id: "Kubernetes".into(),
        interception: Interception::None,
        app_address: Some([127, 30, address[2], address[3]].into()),
        on_demand: true,
        domain: "cluster.local".into(),
    }
}

/// A weft-proxy beside `order-v1`.
pub fn order() -> NodeInfo {
    node("order-v1", "default", "order", [127, 20, 1, 1])
}

/// A weft-proxy beside `user`.
pub fn user() -> NodeInfo {
    node("user", "default", "user", [127, 20, 1, 3])
}

/// A weft-proxy of another namespace, which the mesh has no pod for.
pub fn stranger() -> NodeInfo {
    node("stranger", "other", "stranger", [127, 20, 9, 9])
}

/// A gateway's weft-proxy in a pod that the mesh knows by its own words only.
pub fn edge() -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Router,
        labels: [("istio".to_owned(), "ingressgateway".to_owned())].into(),
        app_address: None,
        interception: Interception::Redirect,
        ..node("edge-1", "edge", "edge", [127, 20, 8, 1])
    }
}

/// A stock Envoy.
pub fn stock(node: NodeInfo) -> NodeInfo {
    NodeInfo { on_demand: false, ..node }
}
