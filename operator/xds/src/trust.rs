//! Whom a stream may speak for: a node may only claim the namespace and service account of its certificate.

use std::fmt;

use weft_api::{identity::SpiffeId, node::NodeInfo};

/// Who the peer's certificate says it is. The runtime puts it into the request's extensions after the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity(pub SpiffeId);

/// Whether streams must be authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeTrust {
    /// The peer's certificate must agree with what the node claims.
    #[default]
    Certificate,
    /// Every claim is believed when there is no certificate. For tests on loopback only.
    Claims,
}

/// What is known of nodes besides their certificates. Asked once for each stream.
#[tonic::async_trait]
pub trait NodeRegistry: fmt::Debug + Send + Sync + 'static {
    /// Whether there is such a node; waits a little for one that may just have come.
    ///
    /// # Errors
    /// Why the node cannot be what it claims.
    async fn check(&self, node: &NodeInfo) -> Result<(), String>;
}

/// Why a node is not served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrustError {
    /// There was no client certificate.
    #[error("a client certificate of the mesh is required")]
    NoCertificate,
    /// The certificate is another workload's.
    #[error(
        "{identity} may not act for service account {service_account} of namespace {namespace}"
    )]
    OtherWorkload {
        /// Who the certificate says the peer is.
        identity: SpiffeId,
        /// The namespace that the node claims.
        namespace: String,
        /// The service account that the node claims.
        service_account: String,
    },
    /// The node is not known, or known as another's.
    #[error("{0}")]
    Unknown(String),
}

impl TrustError {
    /// The status that ends the stream.
    pub fn status(&self) -> tonic::Status {
        match self {
            Self::NoCertificate => tonic::Status::unauthenticated(self.to_string()),
            Self::OtherWorkload { .. } | Self::Unknown(_) => {
                tonic::Status::permission_denied(self.to_string())
            }
        }
    }
}

impl NodeTrust {
    /// Checks that the stream's peer is known at all, before anything is read from it.
    pub(crate) fn check_peer(self, peer: Option<&PeerIdentity>) -> Result<(), TrustError> {
        match (self, peer) {
            (Self::Certificate, None) => Err(TrustError::NoCertificate),
            _ => Ok(()),
        }
    }

    /// Checks a node's claims against the peer's certificate.
    pub(crate) fn check_node(
        self,
        peer: Option<&PeerIdentity>,
        node: &NodeInfo,
    ) -> Result<(), TrustError> {
        self.check_peer(peer)?;
        let Some(PeerIdentity(identity)) = peer else { return Ok(()) };
        if *identity.namespace == *node.namespace
            && *identity.service_account == *node.service_account
        {
            return Ok(());
        }
        Err(TrustError::OtherWorkload {
            identity: identity.clone(),
            namespace: node.namespace.clone(),
            service_account: node.service_account.clone(),
        })
    }
}
