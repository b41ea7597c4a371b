//! A delta client that does nothing by itself: it sends what it is told to and shows what it got.

use std::{collections::HashMap, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weft_api::{
    node::{Interception, NodeInfo, ProxyKind},
    xds::envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    xds::google::rpc,
};
use weft_xds::ResourceType;

use crate::mesh::Server;

/// A response, compactly: names with bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: ResourceType,
    pub resources: Vec<(String, String)>,
    pub removed: Vec<String>,
}

pub struct Client {
    /// Sent with the next request, then gone.
    pub node: Option<Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    versions: HashMap<(ResourceType, String), String>,
}

fn node(on_demand: bool) -> Node {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        pod_address: [127, 20, 1, 1].into(),
        pod_name: "order-service-v1-0".into(),
        namespace: "default".into(),
        service_account: "order-service".into(),
        workload_name: "order-service-v1".into(),
        labels: [("app".to_owned(), "order-service".to_owned())].into(),
        cluster_id: "Kubernetes".into(),
        interception: Interception::None,
        app_address: None,
        on_demand,
        domain: "cluster.local".into(),
    }
    .to_node()
}

impl Client {
    pub async fn connect(server: &Server) -> Self {
        Self::try_connect(server).await.unwrap()
    }

    pub async fn connect_stock(server: &Server) -> Self {
        Self { node: Some(node(false)), ..Self::connect(server).await }
    }

    pub async fn try_connect(server: &Server) -> Result<Self, Status> {
        let mut ads =
            AggregatedDiscoveryServiceClient::connect(format!("http://{}", server.address))
                .await
                .unwrap()
                .max_decoding_message_size(4 << 20);
        let (requests, stream) = mpsc::channel(16);
        let responses =
            ads.delta_aggregated_resources(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { node: Some(node(true)), requests, responses, versions: HashMap::new() })
    }

    pub async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = self.node.take();
        self.requests.send(request).await.unwrap();
    }

    pub async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        self.resubscribe(kind, names, &[]).await;
    }

    pub async fn resubscribe(
        &mut self,
        kind: ResourceType,
        names: &[&str],
        versions: &[(String, String)],
    ) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            initial_resource_versions: versions.iter().cloned().collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub async fn unsubscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub async fn nack(&mut self, response: &DeltaDiscoveryResponse, reason: &str) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: Some(rpc::Status { message: reason.into(), ..rpc::Status::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    /// The next response. The stream's end is an error without a message.
    pub async fn try_next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.responses.message());
        next.await.expect("a response in time")?.ok_or_else(|| Status::aborted(""))
    }

    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        self.try_next().await.unwrap()
    }

    pub async fn next_acked(&mut self) -> Seen {
        let response = self.next().await;
        let seen = self.project(&response);
        for resource in response.resources.iter() {
            self.versions.insert((seen.kind, resource.name.clone()), resource.version.clone());
        }
        self.ack(&response).await;
        seen
    }

    pub fn project(&self, response: &DeltaDiscoveryResponse) -> Seen {
        let body = |resource: &weft_api::xds::envoy::service::discovery::v3::Resource| {
            String::from_utf8(resource.resource.clone().unwrap().value).unwrap()
        };
        Seen {
            kind: ResourceType::from_type_url(&response.type_url).unwrap(),
            resources: response.resources.iter().map(|r| (r.name.clone(), body(r))).collect(),
            removed: response.removed_resources.clone(),
        }
    }

    /// What the client holds of a type, by version.
    pub fn versions(&self, kind: ResourceType) -> Vec<(String, String)> {
        let of_kind = self.versions.iter().filter(|((k, _), _)| *k == kind);
        of_kind.map(|((_, name), version)| (name.clone(), version.clone())).collect()
    }

    /// Lets the server take in all that was sent and published, and asserts that it had nothing to say. The probe is
    /// a type that the server does not serve, answered in the order of requests.
    pub async fn settle(&mut self) {
        // Longer than the longest debounce: what was published before has been looked at.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let probe = DeltaDiscoveryRequest {
            type_url: "probe".into(),
            resource_names_subscribe: vec!["probe".into()],
            ..DeltaDiscoveryRequest::default()
        };
        self.send(probe).await;
        let response = self.next().await;
        assert_eq!(response.type_url, "probe", "{response:?}");
    }
}
