//! What a proxy says of itself in its first xDS message: the node identifier and Istio's metadata keys.
//!
//! Identifier: `<kind>~<pod address>~<pod>.<namespace>~<namespace>.svc.<domain>`, as Istio's agents write it.

use std::{collections::BTreeMap, net::IpAddr};

use crate::xds::{
    envoy::config::core::v3::{Node, node::UserAgentVersionType},
    google::protobuf::{Struct, Value, value::Kind},
};

/// What a proxy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyKind {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// At an edge of the mesh.
    Router,
}

impl ProxyKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// How traffic reaches the proxy (metadata `INTERCEPTION_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interception {
    /// Nothing is captured: the proxy binds the workload's ports itself, and applications name the proxy.
    None,
    /// Connections are redirected to 15001 and 15006; the original destination is asked of the kernel.
    #[default]
    Redirect,
}

/// A proxy's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Sidecar or gateway.
    pub kind: ProxyKind,
    /// The workload's address, as Pod and EndpointSlice give it.
    pub pod_address: IpAddr,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace. Checked against the certificate of the stream.
    pub namespace: String,
    /// The pod's service account. Checked against the certificate of the stream.
    pub service_account: String,
    /// The name of the Deployment (or other owner) that the pod belongs to.
    pub workload_name: String,
    /// The pod's labels; the operator prefers those of the Pod object where it has one.
    pub labels: BTreeMap<String, String>,
    /// The Kubernetes cluster's name.
    pub cluster_id: String,
    /// How traffic reaches the proxy.
    pub interception: Interception,
    /// Where the application listens when it does not share the pod's address (`WEFT_APP_ADDRESS`).
    pub app_address: Option<IpAddr>,
    /// Whether the proxy fetches virtual hosts on first use (`WEFT_ON_DEMAND`); stock Envoy does not.
    pub on_demand: bool,
    /// The domain of the mesh's services, usually `cluster.local`.
    pub domain: String,
}

/// Why a node's description cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeError {
    /// The identifier has another shape.
    #[error("node id {0:?} is not KIND~ADDRESS~POD.NAMESPACE~DOMAIN")]
    Id(String),
    /// The identifier's second part is not an IP address.
    #[error("node id {0:?} has no valid IP address")]
    Address(String),
    /// Identifier and metadata name different namespaces.
    #[error("node id says namespace {id:?}, metadata NAMESPACE says {metadata:?}")]
    NamespaceMismatch {
        /// From the identifier.
        id: String,
        /// From the metadata.
        metadata: String,
    },
    /// A metadata key that must be there is not, or has another type or value.
    #[error("node metadata {key} is missing or not valid")]
    Metadata {
        /// The key.
        key: &'static str,
    },
}

fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

fn get_text<'a>(metadata: &'a Struct, key: &str) -> Option<&'a str> {
    match metadata.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(value) => Some(value),
        _ => None,
    }
}

impl NodeInfo {
    /// The node identifier.
    pub fn id(&self) -> String {
        format!(
            "{}~{}~{}.{}~{}.svc.{}",
            self.kind.as_str(),
            self.pod_address,
            self.pod_name,
            self.namespace,
            self.namespace,
            self.domain
        )
    }

    /// The metadata as a protobuf `Struct`, with Istio's keys.
    pub fn metadata(&self) -> Struct {
        let labels = Struct {
            fields: self.labels.iter().map(|(k, v)| (k.clone(), text(v.clone()))).collect(),
        };
        let interception = match self.interception {
            Interception::None => "NONE",
            Interception::Redirect => "REDIRECT",
        };
        let mut fields = vec![
            ("NAME", text(&self.pod_name)),
            ("NAMESPACE", text(&self.namespace)),
            ("SERVICE_ACCOUNT", text(&self.service_account)),
            ("WORKLOAD_NAME", text(&self.workload_name)),
            ("CLUSTER_ID", text(&self.cluster_id)),
            ("INSTANCE_IPS", text(self.pod_address.to_string())),
            ("INTERCEPTION_MODE", text(interception)),
            ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
        ];
        if let Some(address) = self.app_address {
            fields.push(("WEFT_APP_ADDRESS", text(address.to_string())));
        }
        if self.on_demand {
            fields.push(("WEFT_ON_DEMAND", Value { kind: Some(Kind::BoolValue(true)) }));
        }
        Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() }
    }

    /// The xDS node message.
    pub fn to_node(&self) -> Node {
        Node {
            id: self.id(),
            cluster: format!("{}.{}", self.workload_name, self.namespace),
            metadata: Some(self.metadata()),
            user_agent_name: "weft-proxy".into(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
                env!("CARGO_PKG_VERSION").into(),
            )),
            ..Node::default()
        }
    }

    /// Reads the xDS node message of a peer, ours or a stock Envoy with the same identifier and metadata.
    ///
    /// # Errors
    /// The identifier's shape is checked strictly; of the metadata only what is present must be valid, except
    /// `SERVICE_ACCOUNT`, which must be there.
    pub fn from_node(node: &Node) -> Result<Self, NodeError> {
        let mut parts = node.id.split('~');
        let (Some(kind), Some(address), Some(pod), Some(suffix), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NodeError::Id(node.id.clone()));
        };
        let kind = match kind {
            "sidecar" => ProxyKind::Sidecar,
            "router" => ProxyKind::Router,
            _ => return Err(NodeError::Id(node.id.clone())),
        };
        let pod_address = address.parse().map_err(|_| NodeError::Address(node.id.clone()))?;
        let (pod_name, namespace) =
            pod.rsplit_once('.').ok_or_else(|| NodeError::Id(node.id.clone()))?;
        let domain = suffix
            .strip_prefix(namespace)
            .and_then(|rest| rest.strip_prefix(".svc."))
            .ok_or_else(|| NodeError::Id(node.id.clone()))?;
        let empty = Struct::default();
        let metadata = node.metadata.as_ref().unwrap_or(&empty);
        if let Some(claimed) = get_text(metadata, "NAMESPACE")
            && claimed != namespace
        {
            return Err(NodeError::NamespaceMismatch {
                id: namespace.into(),
                metadata: claimed.into(),
            });
        }
        let labels = match metadata.fields.get("LABELS").and_then(|v| v.kind.as_ref()) {
            None => BTreeMap::new(),
            Some(Kind::StructValue(labels)) => labels
                .fields
                .keys()
                .map(|key| match get_text(labels, key) {
                    Some(value) => Ok((key.clone(), value.to_owned())),
                    None => Err(NodeError::Metadata { key: "LABELS" }),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(NodeError::Metadata { key: "LABELS" }),
        };
        let interception = match get_text(metadata, "INTERCEPTION_MODE") {
            None | Some("REDIRECT") => Interception::Redirect,
            Some("NONE") => Interception::None,
            Some(_) => return Err(NodeError::Metadata { key: "INTERCEPTION_MODE" }),
        };
        let app_address = get_text(metadata, "WEFT_APP_ADDRESS")
            .map(|address| {
                address.parse().map_err(|_| NodeError::Metadata { key: "WEFT_APP_ADDRESS" })
            })
            .transpose()?;
        let on_demand = matches!(
            metadata.fields.get("WEFT_ON_DEMAND").and_then(|v| v.kind.as_ref()),
            Some(Kind::BoolValue(true))
        );
        Ok(Self {
            kind,
            pod_address,
            pod_name: pod_name.into(),
            namespace: namespace.into(),
            service_account: get_text(metadata, "SERVICE_ACCOUNT")
                .filter(|account| !account.is_empty())
                .ok_or(NodeError::Metadata { key: "SERVICE_ACCOUNT" })?
                .into(),
            workload_name: get_text(metadata, "WORKLOAD_NAME").unwrap_or(pod_name).into(),
            labels,
            cluster_id: get_text(metadata, "CLUSTER_ID").unwrap_or("Kubernetes").into(),
            interception,
            app_address,
            on_demand,
            domain: domain.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> NodeInfo {
        NodeInfo {
            kind: ProxyKind::Sidecar,
            pod_address: "127.20.1.1".parse().unwrap(),
            pod_name: "order-service-v1-0".into(),
            namespace: "default".into(),
            service_account: "order-service".into(),
            workload_name: "order-service-v1".into(),
            labels: [("app".to_owned(), "order-service".to_owned())].into(),
            cluster_id: "Kubernetes".into(),
            interception: Interception::None,
            app_address: Some("127.20.1.2".parse().unwrap()),
            on_demand: true,
            domain: "cluster.local".into(),
        }
    }

    #[test]
    fn a_node_round_trips() {
        let node = info().to_node();
        assert_eq!(
            node.id,
            "sidecar~127.20.1.1~order-service-v1-0.default~default.svc.cluster.local"
        );
        assert_eq!(NodeInfo::from_node(&node), Ok(info()));
    }

    #[test]
    fn a_node_that_contradicts_itself_is_refused() {
        let mut node = info().to_node();
        node.id = node.id.replace("default~default", "other~other");
        assert_eq!(
            NodeInfo::from_node(&node),
            Err(NodeError::NamespaceMismatch { id: "other".into(), metadata: "default".into() })
        );
        node.id = "nonsense".into();
        assert_eq!(NodeInfo::from_node(&node), Err(NodeError::Id("nonsense".into())));
    }

    #[test]
    fn a_node_without_a_service_account_is_refused() {
        let mut node = info().to_node();
        node.metadata.as_mut().unwrap().fields.remove("SERVICE_ACCOUNT");
        assert_eq!(NodeInfo::from_node(&node), Err(NodeError::Metadata { key: "SERVICE_ACCOUNT" }));
    }
}
