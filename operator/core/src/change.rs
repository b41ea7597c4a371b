//! What a new snapshot may have changed, so that only what depends on it is resolved again.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use crate::host;

/// The keys that differ between a snapshot and the one before. Naming too much costs work, naming too little is a bug.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Everything may differ (mesh settings, policies of the root namespace, a first snapshot).
    pub all: bool,
    /// Hosts whose definition, routes, destination rule or ports differ. A wildcard host is named as it is, and so is
    /// every service that it covers; [`Change::touches_host`] knows of the names that it covers without a service.
    pub hosts: BTreeSet<Arc<str>>,
    /// Hosts of which only the endpoints differ.
    pub endpoints: BTreeSet<Arc<str>>,
    /// Namespaces whose workloads' inbound side may differ: policies, filters, services that select them, and the
    /// workloads themselves.
    pub namespaces: BTreeSet<Arc<str>>,
    /// What proxies at the edge of the mesh serve may differ: Gateways, the VirtualServices bound to them, their secrets.
    pub gateways: bool,
}

impl Change {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        !self.all
            && self.hosts.is_empty()
            && self.endpoints.is_empty()
            && self.namespaces.is_empty()
            && !self.gateways
    }

    /// Adds what another change names.
    pub fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.hosts.extend(other.hosts);
        self.endpoints.extend(other.endpoints);
        self.namespaces.extend(other.namespaces);
        self.gateways |= other.gateways;
    }

    /// Whether what the mesh says of this host (beside its endpoints) may differ; the host need not be known to it.
    pub fn touches_host(&self, name: &str) -> bool {
        // Every wildcard starts with '*', which sorts before the letters and digits of names.
        let from = (Bound::Included("*"), Bound::Unbounded);
        let mut wildcards =
            self.hosts.range::<str, _>(from).take_while(|host| host::is_wildcard(host));
        self.all || self.hosts.contains(name) || wildcards.any(|host| host::covers(host, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_touches_the_names_that_it_covers() {
        let change = Change {
            hosts: ["a.com".into(), "*.b.com".into()].into(),
            endpoints: ["c.com".into()].into(),
            ..Change::default()
        };
        for (name, expected) in [
            ("a.com", true),
            ("x.b.com", true),
            ("*.b.com", true),
            ("b.com", false),
            ("c.com", false),
        ] {
            assert_eq!(change.touches_host(name), expected, "{name}");
        }
        assert!(Change { all: true, ..Change::default() }.touches_host("b.com"));
    }
}
