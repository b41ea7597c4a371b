//! TLS on both sides: rustls configurations built once per identity generation and settings, and what a handshake
//! says of the peer.
//!
//! Fed by `identity::Identity` and `config::tls`; used by the acceptors and by `net::pool`. In the mesh a peer is who
//! its certificate's only URI SAN says, when its chain leads to the mesh's trust bundle; server names prove nothing.

use std::sync::Arc;

use weft_api::identity::SpiffeId;

mod configs;
mod handshake;
mod keys;
mod material;
mod seen;
mod stream;
mod tickets;
mod verify;

pub use configs::{ClientTls, ServerTls, TlsContexts, provider};
pub use handshake::{accept, connect, peer_error};
pub use material::{parse_certified, parse_roots};
pub use stream::{ClientStream, ServerStream};

/// Why there is no TLS connection, or no settings to make one with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The workload has no certificate yet.
    #[error("the workload has no certificate yet")]
    NoIdentity,
    /// A certificate, key or trust bundle cannot be read.
    #[error("{what} cannot be read")]
    Material {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// rustls does not take the settings.
    #[error("TLS settings are not valid")]
    Settings(#[source] rustls::Error),
    /// The handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// The handshake took too long.
    #[error("TLS handshake timed out")]
    TimedOut,
    /// The peer's certificate does not say who it is, or it is not who it must be.
    #[error("the peer's certificate is not acceptable: {0}")]
    Peer(PeerError),
}

/// Why a peer's certificate is refused although its chain is fine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There must be one.
    #[error("there is no certificate")]
    Missing,
    /// It cannot be parsed.
    #[error("it cannot be parsed")]
    Malformed,
    /// A workload has exactly one URI SAN.
    #[error("it has {0} URI SANs instead of one")]
    UriSans(usize),
    /// The URI SAN is not a workload's identity.
    #[error("its URI SAN {0:?} is not a workload's identity")]
    NotSpiffe(String),
    /// The identity is of another trust domain.
    #[error("{0} is of another trust domain")]
    TrustDomain(SpiffeId),
    /// None of its names is one of those that were asked for.
    #[error("none of its names {0:?} is expected here")]
    Names(Vec<String>),
    /// Its time is over (a session was resumed after that).
    #[error("it has expired")]
    Expired,
}

/// What a peer's certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The peer's identity, when it is a workload's.
    pub identity: Option<SpiffeId>,
    /// URI SANs.
    pub uri_sans: Vec<String>,
    /// DNS SANs.
    pub dns_sans: Vec<String>,
    /// The leaf's subject in RFC 2253's form, as `x-forwarded-client-cert` carries it.
    pub subject: String,
    /// SHA-256 of the leaf in hexadecimal.
    pub hash: String,
}

/// What a handshake says of the peer and of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's certificate, which connections share; an empty one where there is none.
    pub certificate: Arc<PeerCertificate>,
    /// Whether there was a certificate, and it was verified.
    pub verified: bool,
    /// The URI SAN of our own certificate (`By` of `x-forwarded-client-cert`).
    pub local_identity: Option<Arc<str>>,
    /// The protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// The server name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// The session was resumed.
    pub resumed: bool,
}

#[cfg(test)]
pub(crate) mod tests;
