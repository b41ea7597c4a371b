//! Services: what clients name.

pub mod table;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::protocol::Protocol;

/// A service's key: hostnames are unique within a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The namespace that defines it.
    pub namespace: Arc<str>,
    /// The fully qualified name, lower-cased.
    pub hostname: Arc<str>,
}

/// Who may see a service, route or rule (`exportTo`, `istio-behaviours` 2.5, item 45).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Every namespace (`*`).
    Public,
    /// The namespaces listed, sorted; `.` stands here as the own namespace's name.
    Namespaces(Vec<Arc<str>>),
    /// Nobody (`~`).
    Hidden,
}

impl Visibility {
    /// Reads `exportTo` of something in a namespace; an empty list means the mesh's default for its kind.
    pub fn from_export_to<S: AsRef<str>>(
        export_to: &[S],
        default: &[Arc<str>],
        namespace: &Arc<str>,
    ) -> Self {
        let names: Vec<&str> = if export_to.is_empty() {
            default.iter().map(AsRef::as_ref).collect()
        } else {
            export_to.iter().map(AsRef::as_ref).collect()
        };
        if names.contains(&"*") {
            return Self::Public;
        }
        let mut listed: Vec<Arc<str>> = names
            .into_iter()
            .filter(|name| *name != "~")
            .map(|name| if name == "." { namespace.clone() } else { name.into() })
            .collect();
        listed.sort_unstable();
        listed.dedup();
        if listed.is_empty() { Self::Hidden } else { Self::Namespaces(listed) }
    }

    /// Whether clients in a namespace see it.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(listed) => listed.iter().any(|listed| **listed == *namespace),
            Self::Hidden => false,
        }
    }
}

/// How a service's endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The mesh knows the endpoints.
    Static,
    /// The connection's original destination is used as it is.
    Passthrough,
    /// Every address that DNS gives for the endpoints' names.
    Dns,
    /// The first address that DNS gives, looked up for each connection.
    DnsRoundRobin,
}

/// What a service was defined by. Kubernetes beats ServiceEntry for the same hostname and namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    ServiceEntry,
}

/// Where a port's traffic goes in the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port.
    Name(Arc<str>),
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty when it is the only one.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// The pod's port.
    pub target: TargetPort,
    /// What is spoken.
    pub protocol: Protocol,
}

/// A service, from Kubernetes or from a ServiceEntry.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and hostname.
    pub key: ServiceKey,
    /// The short name: that of the Service, or the first label of the hostname.
    pub name: Arc<str>,
    /// Virtual addresses; empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// Ranges of virtual addresses (ServiceEntry only).
    pub networks: Vec<IpNet>,
    /// Its ports, by number.
    pub ports: Vec<ServicePort>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Outside the mesh (`MESH_EXTERNAL`): never automatic mTLS.
    pub external: bool,
    /// Where it was defined.
    pub registry: Registry,
    /// When it was created, as [`crate::resource::Resource::created`].
    pub created: i64,
    /// Who sees it.
    pub visibility: Visibility,
    /// The pods it selects; empty when it selects none.
    pub selector: BTreeMap<String, String>,
    /// No virtual address on purpose (`clusterIP: None`).
    pub headless: bool,
    /// Endpoints that are not ready are used too.
    pub publish_not_ready: bool,
    /// The target of an ExternalName service.
    pub external_name: Option<Arc<str>>,
    /// Identities of servers to accept beside those of its endpoints.
    pub subject_alt_names: Vec<Arc<str>>,
}

impl Service {
    /// The fully qualified name.
    pub fn hostname(&self) -> &str {
        &self.key.hostname
    }

    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_to_is_read_as_istio_reads_it() {
        let listed = |names: &[&str]| {
            Visibility::Namespaces(names.iter().map(|name| Arc::from(*name)).collect())
        };
        let cases: [(&[&str], &[&str], Visibility); 7] = [
            (&[], &["*"], Visibility::Public),
            (&[], &["."], listed(&["own"])),
            (&["."], &["*"], listed(&["own"])),
            (&["b", "."], &["*"], listed(&["b", "own"])),
            (&["b"], &["*"], listed(&["b"])),
            (&["~"], &["*"], Visibility::Hidden),
            (&["b", "*"], &["."], Visibility::Public),
        ];
        for (export_to, default, expected) in cases {
            let default: Vec<Arc<str>> = default.iter().map(|name| Arc::from(*name)).collect();
            let got = Visibility::from_export_to(export_to, &default, &"own".into());
            assert_eq!(got, expected, "{export_to:?}");
        }
        assert!(listed(&["b"]).includes("b") && !listed(&["b"]).includes("own"));
    }
}
