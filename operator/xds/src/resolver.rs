//! The seam between the protocol and the resources: what a name resolves to, and what that answer hangs on.
//!
//! Fed by the server's streams, implemented by `build::MeshResolver`. A resolution is a pure function of snapshot,
//! type, name and the fields of the view that it says it read.

use std::{collections::BTreeSet, fmt, num::NonZeroU64, sync::Arc};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use weft_api::node::NodeInfo;
use weft_core::{change::Change, view::NodeView};

use crate::ResourceType;

/// What a resource's bytes are: equal bytes, equal version, also after a restart of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(NonZeroU64);

impl Version {
    fn of(body: &[u8], aliases: &[String]) -> Self {
        let mut hash = Sha256::new();
        hash.update(body);
        for alias in aliases {
            hash.update([0]);
            hash.update(alias);
        }
        let digest = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(NonZeroU64::new(u64::from_be_bytes(first)).unwrap_or(NonZeroU64::MIN))
    }

    /// Reads what [`fmt::Display`] wrote; another server's version is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .and_then(NonZeroU64::new)
            .map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A resource as it goes over the wire, shared by every stream that it was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedResource {
    /// The hash of the rest.
    pub version: Version,
    /// The serialised message.
    pub body: Bytes,
    /// Other names that it answers to (VHDS).
    pub aliases: Vec<String>,
    /// A cluster that is of no use before its endpoints have come.
    pub needs_endpoints: bool,
}

impl EncodedResource {
    /// A resource with these bytes, which must be the same whenever the message is (see [`crate::wire`]).
    pub fn new(body: Bytes, aliases: Vec<String>, needs_endpoints: bool) -> Self {
        Self { version: Version::of(&body, &aliases), body, aliases, needs_endpoints }
    }
}

/// The keys of the model that an answer hangs on, absent ones included: a name that does not exist now may later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// Hangs on which hosts there are.
    pub any_host: bool,
    /// Hosts' definition, routes, rules and ports.
    pub hosts: BTreeSet<Arc<str>>,
    /// Hosts' endpoints.
    pub endpoints: BTreeSet<Arc<str>>,
    /// The inbound side of namespaces' workloads.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Gateways, the VirtualServices bound to them, and secrets.
    pub gateways: bool,
}

impl Dependencies {
    /// Whether the answer may differ after this change.
    pub fn touched_by(&self, change: &Change) -> bool {
        let names = |set: &BTreeSet<Arc<str>>, name: &Arc<str>| set.contains(name);
        change.all
            || (self.any_host && !change.hosts.is_empty())
            || (self.gateways && change.gateways)
            || self.hosts.iter().chain(&self.endpoints).any(|host| change.touches_host(host))
            || self.endpoints.iter().any(|host| names(&change.endpoints, host))
            || self.namespaces.iter().any(|namespace| names(&change.namespaces, namespace))
    }
}

/// Which parts of a [`NodeView`] an answer was made from. Views that agree on them share the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewFields {
    /// The workload's labels.
    pub labels: bool,
    /// The workload's address, and where the application listens.
    pub address: bool,
}

impl ViewFields {
    /// Whether two nodes get the same answer. Namespace, domain and the kind of proxy always count: nearly
    /// every answer hangs on them, and there are few of each.
    pub fn agree(self, a: &NodeView, b: &NodeView) -> bool {
        a.namespace == b.namespace
            && a.domain == b.domain
            && (a.gateway, a.captured, a.on_demand) == (b.gateway, b.captured, b.on_demand)
            && (!self.labels || a.labels == b.labels)
            && (!self.address || (a.address, a.app_address) == (b.address, b.app_address))
    }
}

/// What a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `None` when there is no such resource for this node.
    pub resource: Option<Arc<EncodedResource>>,
    /// What the answer hangs on.
    pub dependencies: Dependencies,
    /// What of the view it was made from.
    pub reads: ViewFields,
}

/// Makes resources of a snapshot. Calls are synchronous, and pure in all their arguments.
pub trait Resolver: Send + Sync + 'static {
    /// What resources are made from.
    type Snapshot: Send + Sync + 'static;

    /// What a node sees of the mesh.
    fn view(&self, snapshot: &Self::Snapshot, node: &NodeInfo) -> NodeView;

    /// The resource of this type and name for a node.
    fn resolve(
        &self,
        snapshot: &Self::Snapshot,
        kind: ResourceType,
        name: &str,
        view: &NodeView,
    ) -> Resolved;

    /// The names that a wildcard subscription of this type stands for.
    fn names(
        &self,
        snapshot: &Self::Snapshot,
        kind: ResourceType,
        view: &NodeView,
    ) -> Vec<Arc<str>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn an_answer_is_touched_by_what_it_hangs_on_and_nothing_else() {
        let deps = Dependencies {
            hosts: set(&["a.x"]),
            endpoints: set(&["b.x"]),
            namespaces: set(&["ns"]),
            any_host: false,
            gateways: false,
        };
        let hosts = |names: &[&str]| Change { hosts: set(names), ..Change::default() };
        let endpoints = |names: &[&str]| Change { endpoints: set(names), ..Change::default() };
        let namespaces = |names: &[&str]| Change { namespaces: set(names), ..Change::default() };
        let table = [
            (Change { all: true, ..Change::default() }, true),
            (hosts(&["a.x"]), true),
            (hosts(&["b.x"]), true),
            (hosts(&["c.x"]), false),
            (hosts(&["*.x"]), true),
            (hosts(&["*.y", "z"]), false),
            (hosts(&["*"]), true),
            (endpoints(&["b.x"]), true),
            (endpoints(&["a.x"]), false),
            (namespaces(&["ns"]), true),
            (namespaces(&["other"]), false),
        ];
        for (change, touched) in table {
            assert_eq!(deps.touched_by(&change), touched, "{change:?}");
        }
        let any = Dependencies { any_host: true, ..Dependencies::default() };
        assert!(any.touched_by(&hosts(&["new"])));
        assert!(!any.touched_by(&endpoints(&["new"])));
    }

    #[test]
    fn versions_round_trip_and_foreign_ones_are_not_ours() {
        let version = Version::of(b"bytes", &[]);
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        for foreign in ["", "1", "0000000000000000", "2026-01-01T00:00:00Z/7", "+123456789abcdef"] {
            assert_eq!(Version::parse(foreign), None, "{foreign}");
        }
    }
}
