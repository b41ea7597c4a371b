//! Why a server of a Gateway, or a part of it, is not served.

use std::fmt;

use super::ListenerKind;
use crate::{credential::CredentialFault, resource::ResourceRef};

/// Something of a Gateway that a proxy does not serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The Gateway.
    pub gateway: ResourceRef,
    /// Which of its servers.
    pub server: usize,
    /// Why.
    pub reason: FaultReason,
}

/// Why it is not served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultReason {
    /// An older server speaks something else on the port.
    ProtocolConflict {
        /// The proxy's port.
        port: u16,
        /// What is spoken there.
        spoken: ListenerKind,
        /// The Gateway that says so.
        by: ResourceRef,
    },
    /// An older server has the host on the port, with TLS.
    DuplicateHost {
        /// The host.
        host: String,
        /// The proxy's port.
        port: u16,
        /// The Gateway that has it.
        by: ResourceRef,
    },
    /// A secret that it needs cannot be used.
    Credential(CredentialFault),
    /// Something that is not served at all.
    Unsupported(String),
}

impl FaultReason {
    /// The reason as conditions have it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ProtocolConflict { .. } => "ProtocolConflict",
            Self::DuplicateHost { .. } => "DuplicateHost",
            Self::Credential(fault) => fault.reason(),
            Self::Unsupported(_) => "NotSupported",
        }
    }
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProtocolConflict { port, spoken, by } => {
                let spoken = match spoken {
                    ListenerKind::Http => "HTTP without TLS",
                    ListenerKind::Tls => "TLS",
                    ListenerKind::Tcp => "the bytes of another server",
                };
                let (namespace, name) = (&by.namespace, &by.name);
                write!(f, "port {port} is for {spoken} already, by Gateway {namespace}/{name}")
            }
            Self::DuplicateHost { host, port, by } => {
                let (namespace, name) = (&by.namespace, &by.name);
                write!(
                    f,
                    "host {host} on port {port} belongs to Gateway {namespace}/{name}, which is older"
                )
            }
            Self::Credential(fault) => fault.fmt(f),
            Self::Unsupported(what) => f.write_str(what),
        }
    }
}
