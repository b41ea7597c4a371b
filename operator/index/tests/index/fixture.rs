//! A mesh fed with YAML.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_core::{change::Change, mesh::MeshConfig, snapshot::Snapshot, view::NodeView};
use weft_index::{Index, Kind, Object};

/// The objects of a text of YAML documents.
pub fn objects(yaml: &str) -> Vec<Object> {
    weft_crds::parse_text(yaml)
        .into_iter()
        .filter_map(|parsed| Object::read(parsed.unwrap()).unwrap())
        .collect()
}

/// An index with shortcuts.
pub struct Mesh {
    pub index: Index,
}

impl Default for Mesh {
    /// An empty mesh whose first snapshot is taken.
    fn default() -> Self {
        let mut index = Index::new(MeshConfig::default());
        assert!(index.snapshot().1.all);
        Self { index }
    }
}

impl Mesh {
    /// A mesh of these objects, its snapshot taken.
    pub fn of(yaml: &str) -> Self {
        let mut mesh = Self::default();
        mesh.apply(yaml);
        mesh
    }

    /// Applies objects and takes a snapshot.
    pub fn apply(&mut self, yaml: &str) -> (Arc<Snapshot>, Change) {
        for object in objects(yaml) {
            self.index.apply(object);
        }
        self.index.snapshot()
    }

    /// Deletes an object of the namespace `default` and takes a snapshot.
    pub fn delete(&mut self, kind: Kind, name: &str) -> (Arc<Snapshot>, Change) {
        self.index.delete(kind, "default", name);
        self.index.snapshot()
    }

    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.index.snapshot().0
    }
}

pub const VS: Kind = Kind::Mesh(weft_crds::Kind::VirtualService);
pub const DR: Kind = Kind::Mesh(weft_crds::Kind::DestinationRule);
pub const SE: Kind = Kind::Mesh(weft_crds::Kind::ServiceEntry);
pub const PA: Kind = Kind::Mesh(weft_crds::Kind::PeerAuthentication);
pub const AP: Kind = Kind::Mesh(weft_crds::Kind::AuthorizationPolicy);

/// A client in a namespace, without labels.
pub fn client(namespace: &str) -> NodeView {
    labelled_client(namespace, "")
}

/// A client with labels like `a=1,b=2`.
pub fn labelled_client(namespace: &str, text: &str) -> NodeView {
    NodeView {
        namespace: namespace.into(),
        labels: Arc::new(labels(text)),
        address: IpAddr::from([127, 0, 0, 1]),
        app_address: None,
        gateway: false,
        captured: false,
        on_demand: true,
        domain: "cluster.local".into(),
    }
}

pub fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_terminator(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

pub fn names<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> Vec<&'a str> {
    names.into_iter().map(|name| &**name).collect()
}

/// A change of these hosts, endpoints and namespaces.
pub fn change(hosts: &[&str], endpoints: &[&str], namespaces: &[&str]) -> Change {
    let set = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    Change {
        hosts: set(hosts),
        endpoints: set(endpoints),
        namespaces: set(namespaces),
        ..Change::default()
    }
}

/// A Service with port 80 to 8080 that selects `app: <name>`.
pub fn service(namespace: &str, name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: ''
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
"
    )
}

/// A meshed pod `<app>-<version>` with an address.
pub fn pod(namespace: &str, app: &str, version: &str, address: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  name: {app}-{version}
  namespace: {namespace}
  labels: {{app: {app}, version: {version}, security.istio.io/tlsMode: istio}}
spec:
  serviceAccountName: {app}
  containers: [{{name: app, ports: [{{name: web, containerPort: 8080}}]}}]
status: {{podIP: {address}}}
"
    )
}

/// A resource of the networking group.
pub fn networking(kind: &str, namespace: &str, name: &str, created: u8, spec: &str) -> String {
    resource("networking.istio.io/v1", kind, (namespace, name), created, spec)
}

/// A resource of the security group.
pub fn security(kind: &str, namespace: &str, name: &str, created: u8, spec: &str) -> String {
    resource("security.istio.io/v1", kind, (namespace, name), created, spec)
}

fn resource(
    api_version: &str,
    kind: &str,
    (namespace, name): (&str, &str),
    created: u8,
    spec: &str,
) -> String {
    let spec = spec.trim_matches('\n').replace('\n', "\n  ");
    format!(
        "---
apiVersion: {api_version}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec:
  {spec}
"
    )
}
