//! A server whose resources come from a table: the value of a name is its body.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use weft_api::{identity::SpiffeId, node::NodeInfo};
use weft_core::{change::Change, view::NodeView};
use weft_xds::{
    AdsOptions, AdsServer, Connections, PeerIdentity, ResourceType, SnapshotSender,
    connections::{ConnectionView, Detail},
    resolver::{Dependencies, EncodedResource, Resolved, Resolver, ViewFields},
    server::NodeTrust,
};

#[derive(Clone, Debug, Default)]
pub struct Mesh(BTreeMap<(ResourceType, String), String>);

impl Mesh {
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&str> {
        self.0.get(&(kind, name.to_owned())).map(String::as_str)
    }

    pub fn insert(&mut self, kind: ResourceType, name: &str, value: &str) {
        self.0.insert((kind, name.into()), value.into());
    }
}

pub fn mesh(resources: &[(ResourceType, &str, &str)]) -> Mesh {
    let mut mesh = Mesh::default();
    for (kind, name, value) in resources {
        mesh.insert(*kind, name, value);
    }
    mesh
}

pub fn change(hosts: &[&str]) -> Change {
    Change { hosts: hosts.iter().map(|host| Arc::from(*host)).collect(), ..Change::default() }
}

pub fn endpoints(hosts: &[&str]) -> Change {
    Change { endpoints: hosts.iter().map(|host| Arc::from(*host)).collect(), ..Change::default() }
}

struct Table(Arc<AtomicUsize>);

impl Resolver for Table {
    type Snapshot = Mesh;

    fn view(&self, _snapshot: &Mesh, node: &NodeInfo) -> NodeView {
        NodeView {
            namespace: node.namespace.as_str().into(),
            labels: Arc::new(node.labels.clone()),
            address: node.pod_address,
            app_address: node.app_address,
            gateway: false,
            captured: false,
            on_demand: node.on_demand,
            domain: node.domain.as_str().into(),
        }
    }

    fn resolve(&self, mesh: &Mesh, kind: ResourceType, name: &str, _view: &NodeView) -> Resolved {
        self.0.fetch_add(1, Ordering::Relaxed);
        let endpoints = mesh.get(ResourceType::Endpoints, name).is_some();
        let resource = mesh.get(kind, name).map(|value| {
            let needs_endpoints = kind == ResourceType::Cluster && endpoints;
            Arc::new(EncodedResource::new(value.to_owned().into(), Vec::new(), needs_endpoints))
        });
        let mut dependencies = Dependencies::default();
        if kind == ResourceType::Endpoints {
            dependencies.endpoints.insert(name.into());
        } else {
            dependencies.hosts.insert(name.into());
        }
        Resolved { resource, dependencies, reads: ViewFields::default() }
    }

    fn names(&self, mesh: &Mesh, kind: ResourceType, _view: &NodeView) -> Vec<Arc<str>> {
        mesh.0.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.as_str().into()).collect()
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub connections: Connections,
    pub drain: CancellationToken,
    snapshots: SnapshotSender<Mesh>,
    registry: Mutex<Registry>,
    resolutions: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(mesh: Mesh) -> Self {
        let server = Self::start_empty(NodeTrust::Claims, None).await;
        server.publish(mesh, Change { all: true, ..Change::default() });
        server
    }

    /// A server without a snapshot, whose peers all have the same certificate.
    pub async fn start_empty(trust: NodeTrust, peer: Option<SpiffeId>) -> Self {
        Self::start_with(AdsOptions { trust, ..AdsOptions::default() }, peer).await
    }

    pub async fn start_with(options: AdsOptions, peer: Option<SpiffeId>) -> Self {
        let snapshots = SnapshotSender::new();
        let resolutions = Arc::new(AtomicUsize::new(0));
        let drain = CancellationToken::new();
        let mut registry = Registry::default();
        let ads = AdsServer::new(
            Table(resolutions.clone()),
            snapshots.subscribe(),
            &mut registry,
            drain.clone(),
            options,
        );
        let connections = ads.connections();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = peer.map(PeerIdentity);
        let service = tonic::service::interceptor::InterceptedService::new(
            ads.into_service(),
            move |mut request: tonic::Request<()>| {
                if let Some(peer) = &peer {
                    request.extensions_mut().insert(peer.clone());
                }
                Ok(request)
            },
        );
        let incoming = TcpIncoming::from(listener);
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        let registry = Mutex::new(registry);
        Self { address, connections, drain, snapshots, registry, resolutions, task }
    }

    pub fn publish(&self, mesh: Mesh, change: Change) {
        self.snapshots.publish(Arc::new(mesh), change);
    }

    pub fn resolutions(&self) -> usize {
        self.resolutions.load(Ordering::Relaxed)
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// Waits until the admin view looks as expected.
    pub async fn until(&self, mut expected: impl FnMut(&[ConnectionView]) -> bool) {
        let seen = async {
            while !expected(&self.connections.list(Detail::Names)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let views = || self.connections.list(Detail::Resources);
        tokio::time::timeout(Duration::from_secs(60), seen)
            .await
            .unwrap_or_else(|_| panic!("never as expected: {:#?}", views()));
    }
}
