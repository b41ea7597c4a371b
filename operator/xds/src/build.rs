//! The mesh as xDS resources: what each name stands for, as Istio would build it (`istio-behaviours`, chapter 2).
//!
//! Pure functions of a snapshot, a name and a node's view; fed by the server through [`MeshResolver`]. Names and shapes are
//! those of `ARCHITECTURE.md`, "The xDS contract". Stock Envoy must accept every resource.

mod access_log;
mod authority;
mod captured;
mod cluster;
mod endpoints;
mod envoy_filter;
mod gateway;
mod http;
mod inbound;
mod listener;
mod matcher;
mod message;
mod outbound;
mod rbac;
mod route;
mod scope;
mod tls;
mod traffic_policy;

use std::sync::Arc;

use weft_api::{
    names::{
        self, ClusterName, Direction, OutboundListenerName, ServiceRouteName, VirtualHostName,
    },
    node::{Interception, NodeInfo, ProxyKind},
};
use weft_core::{snapshot::Snapshot, view::NodeView};

use crate::{
    ResourceType,
    resolver::{EncodedResource, Resolved, Resolver},
    wire,
};
use scope::Scope;

/// Makes xDS resources of the mesh.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeshResolver;

impl Resolver for MeshResolver {
    type Snapshot = Snapshot;

    fn view(&self, snapshot: &Snapshot, node: &NodeInfo) -> NodeView {
        let workload = snapshot
            .workload(&node.namespace, &node.pod_name)
            .or_else(|| snapshot.workload_by_address(node.pod_address))
            // A node may only be what its certificate says: another account's pod is not it.
            .filter(|workload| {
                *workload.namespace == *node.namespace
                    && *workload.service_account == *node.service_account
            });
        let labels = workload
            .map_or_else(|| Arc::new(node.labels.clone()), |workload| workload.labels.clone());
        NodeView {
            namespace: node.namespace.as_str().into(),
            labels,
            address: node.pod_address,
            app_address: node.app_address,
            gateway: node.kind == ProxyKind::Router,
            captured: node.interception == Interception::Redirect,
            on_demand: node.on_demand,
            domain: node.domain.as_str().into(),
        }
    }

    fn resolve(
        &self,
        snapshot: &Snapshot,
        kind: ResourceType,
        name: &str,
        view: &NodeView,
    ) -> Resolved {
        let scope = Scope::new(snapshot, view);
        let resource = build(&scope, kind, name).map(Arc::new);
        let (dependencies, reads) = scope.finish();
        Resolved { resource, dependencies, reads }
    }

    fn names(&self, snapshot: &Snapshot, kind: ResourceType, view: &NodeView) -> Vec<Arc<str>> {
        let scope = Scope::new(snapshot, view);
        let names = match kind {
            ResourceType::Cluster => cluster::names(&scope),
            ResourceType::Listener => listener::names(&scope),
            ResourceType::Route => route::names(&scope),
            ResourceType::Endpoints => cluster::names(&scope),
            // There is one for every authority that a client may write.
            // Secrets are only ever asked for by name.
            ResourceType::VirtualHost | ResourceType::Secret => Vec::new(),
        };
        names.into_iter().map(Into::into).collect()
    }
}

fn encoded<M: prost::Message + prost::Name>(message: &M) -> EncodedResource {
    EncodedResource::new(wire::encode(message), Vec::new(), false)
}

fn build(scope: &Scope<'_>, kind: ResourceType, name: &str) -> Option<EncodedResource> {
    match kind {
        ResourceType::Listener => listener::build(scope, name).map(|listener| encoded(&listener)),
        ResourceType::Route => {
            if scope.is_gateway() {
                return gateway::routes(scope, name).map(|config| encoded(&config));
            }
            if name == names::HTTP_PROXY {
                return route::http_proxy(scope).map(|config| encoded(&config));
            }
            if let Ok(port) = name.parse() {
                return captured::routes(scope, port).map(|config| encoded(&config));
            }
            let name: ServiceRouteName = name.parse().ok()?;
            route::of_service(scope, &name).map(|config| encoded(&config))
        }
        ResourceType::VirtualHost if scope.is_gateway() => None,
        ResourceType::VirtualHost => {
            let name: VirtualHostName = name.parse().ok()?;
            let host = match name.route_config.parse() {
                Ok(port) => captured::of_authority(scope, port, &name.authority)?,
                Err(_) if name.route_config == names::HTTP_PROXY => {
                    route::of_authority(scope, &name.authority)?
                }
                Err(_) => return None,
            };
            let alias = |domain: &String| VirtualHostName {
                route_config: name.route_config.clone(),
                authority: domain.clone(),
            };
            let aliases = host.domains.iter().map(|domain| alias(domain).to_string()).collect();
            Some(EncodedResource::new(wire::encode(&host), aliases, false))
        }
        ResourceType::Secret => gateway::secret(scope, name).map(|secret| encoded(&secret)),
        ResourceType::Cluster => {
            let cluster = cluster::build(scope, name)?;
            let needs_endpoints = cluster.eds_cluster_config.is_some();
            Some(EncodedResource::new(wire::encode(&cluster), Vec::new(), needs_endpoints))
        }
        ResourceType::Endpoints => {
            let name: ClusterName = name.parse().ok()?;
            if name.direction != Direction::Outbound {
                return None;
            }
            endpoints::build(scope, &name).map(|assignment| encoded(&assignment))
        }
    }
}

/// Reads the name of an outbound listener.
fn outbound_name(name: &str) -> Option<OutboundListenerName> {
    name.parse().ok()
}
