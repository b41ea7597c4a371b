//! The delta ADS server: who may open a stream, and a task for each.
//!
//! Mounted by the runtime, which puts the peer's [`PeerIdentity`] into the request's extensions. State-of-the-world xDS
//! is not served.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use futures_util::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, time::Duration};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use weft_api::{
    node::{NodeInfo, ProxyKind},
    xds::envoy::config::core::v3::Node,
    xds::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
        },
    },
};

use crate::trust::TrustError;
use crate::{
    PeerIdentity, ResourceType, SnapshotReceiver,
    cache::ResourceCache,
    connections::{Connection, Connections},
    metrics::Metrics,
    resolver::Resolver,
    session::{Session, Warming},
    stream::{AdsStream, Shared},
};
pub use crate::{
    stream::Debounce,
    trust::{NodeRegistry, NodeTrust},
};

/// How the server behaves. The default is right for a mesh.
#[derive(Clone, Debug)]
pub struct AdsOptions {
    /// Whether streams must be authenticated.
    pub trust: NodeTrust,
    /// Who knows which nodes there are; without it a certificate is enough.
    pub nodes: Option<Arc<dyn NodeRegistry>>,
    /// How long a burst of snapshots is waited out.
    pub debounce: Debounce,
    /// How many resolved resources are kept for other streams.
    pub cache_capacity: usize,
    /// How long a stock Envoy that does not answer holds later types up.
    pub order_timeout: Duration,
    /// How long a stream may take to say which node it is.
    pub first_request_timeout: Duration,
}

impl Default for AdsOptions {
    fn default() -> Self {
        Self {
            trust: NodeTrust::Certificate,
            nodes: None,
            debounce: Debounce::default(),
            cache_capacity: 65_536,
            order_timeout: Duration::from_secs(5),
            first_request_timeout: Duration::from_secs(15),
        }
    }
}

/// The ADS server. [`Self::into_service`] makes it a tonic service.
pub struct AdsServer<R: Resolver> {
    shared: Arc<Shared<R>>,
    snapshots: SnapshotReceiver<R::Snapshot>,
    connections: Connections,
    options: AdsOptions,
}

impl<R: Resolver> fmt::Debug for AdsServer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdsServer").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// What a stream needs once its node is known to be who it says.
struct Admitted {
    node: Arc<NodeInfo>,
    version: String,
    identity: Option<String>,
}

impl<R: Resolver> AdsServer<R> {
    /// A server of what `resolver` makes of the snapshots that come in. `snapshots` must be fresh from
    /// [`crate::SnapshotSender::subscribe`]. Cancelling `drain` ends every stream.
    pub fn new(
        resolver: R,
        snapshots: SnapshotReceiver<R::Snapshot>,
        registry: &mut Registry,
        drain: CancellationToken,
        options: AdsOptions,
    ) -> Self {
        let shared = Shared {
            resolver,
            cache: ResourceCache::new(snapshots.clone(), options.cache_capacity),
            metrics: Metrics::register(registry),
            debounce: options.debounce,
            drain,
        };
        let shared = Arc::new(shared);
        Self { shared, snapshots, connections: Connections::default(), options }
    }

    /// The proxies that are connected.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// The service to mount.
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self)
    }

    fn admit(&self, peer: Option<&PeerIdentity>, node: &Node) -> Result<Admitted, Status> {
        let info = NodeInfo::from_node(node).map_err(|error| {
            tracing::warn!(node = node.id, %error, "node refused");
            self.shared.metrics.refused();
            Status::invalid_argument(error.to_string())
        })?;
        self.options.trust.check_node(peer, &info).map_err(|error| {
            tracing::warn!(node = node.id, %error, "node refused");
            self.shared.metrics.refused();
            error.status()
        })?;
        let version = version(node);
        let identity = peer.map(|peer| peer.0.to_string());
        Ok(Admitted { node: Arc::new(info), version, identity })
    }

    /// Reads the first request of a stream, which says what node it is.
    async fn first(
        &self,
        peer: Option<&PeerIdentity>,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
    ) -> Result<(DeltaDiscoveryRequest, Admitted), Status> {
        let first = tokio::time::timeout(self.options.first_request_timeout, requests.next());
        let first = match first.await {
            Ok(Some(first)) => first?,
            Ok(None) => {
                return Err(Status::invalid_argument("stream ended before it named its node"));
            }
            Err(_) => {
                return Err(Status::deadline_exceeded("stream did not name its node in time"));
            }
        };
        let node = first
            .node
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("the first request must name the node"))?;
        let admitted = self.admit(peer, node)?;
        if let Some(nodes) = &self.options.nodes {
            nodes.check(&admitted.node).await.map_err(|reason| {
                let error = TrustError::Unknown(reason);
                tracing::warn!(node = admitted.node.id(), %error, "node refused");
                self.shared.metrics.refused();
                error.status()
            })?;
        }
        Ok((first, admitted))
    }

    async fn serve(
        self,
        peer: Option<PeerIdentity>,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) {
        let drain = self.shared.drain.clone();
        let first = tokio::select! {
            first = self.first(peer.as_ref(), &mut requests) => first,
            () = drain.cancelled() => return,
        };
        let (first, Admitted { node, version, identity }) = match first {
            Ok(first) => first,
            Err(status) => {
                // The client may be gone, and then nobody is left to be told.
                drop(responses.try_send(Err(status)));
                return;
            }
        };
        let span = tracing::info_span!("ads", node = node.id(), version);
        let warming = if node.on_demand {
            Warming::ByClient
        } else {
            Warming::ByOrder(self.options.order_timeout)
        };
        let session = Arc::new(Mutex::new(Session::new(warming)));
        let secrets = peer.is_some() && node.kind == ProxyKind::Router;
        let _connected = self.shared.metrics.connected(&version);
        let _registered = self.connections.register(Connection {
            node: node.clone(),
            version,
            identity,
            since: SystemTime::now(),
            session: session.clone(),
        });
        let stream = AdsStream {
            shared: self.shared,
            snapshots: self.snapshots,
            node,
            session,
            responses,
            current: None,
            secrets,
        };
        async {
            tracing::info!("proxy connected");
            stream.run(first, requests).await;
            tracing::info!("proxy disconnected");
        }
        .instrument(span)
        .await;
    }
}

impl<R: Resolver> Clone for AdsServer<R> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            snapshots: self.snapshots.clone(),
            connections: self.connections.clone(),
            options: self.options.clone(),
        }
    }
}

type Never = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;

#[tonic::async_trait]
impl<R: Resolver> AggregatedDiscoveryService for AdsServer<R> {
    type StreamAggregatedResourcesStream = Never;
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Never>, Status> {
        Err(Status::unimplemented(
            "state-of-the-world xDS is not served: set ads_config.api_type to DELTA_GRPC",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = request.extensions().get::<PeerIdentity>().cloned();
        self.options.trust.check_peer(peer.as_ref()).map_err(|error| {
            tracing::warn!(peer = ?request.remote_addr(), %error, "ADS stream refused");
            self.shared.metrics.refused();
            error.status()
        })?;
        // Room for one response of each type: more are never under way.
        let (responses, stream) = mpsc::channel(ResourceType::ALL.len() + 1);
        tokio::spawn(self.clone().serve(peer, request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The program and version that a node says it is.
fn version(node: &Node) -> String {
    use weft_api::xds::envoy::config::core::v3::node::UserAgentVersionType;
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .as_ref()
            .map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
            .unwrap_or_default(),
        None => String::new(),
    };
    let full = format!("{}/{version}", node.user_agent_name);
    full.trim_matches('/').chars().take(128).collect()
}
