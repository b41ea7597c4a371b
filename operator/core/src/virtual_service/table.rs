//! The VirtualServices of the mesh: which were accepted, which are in effect, and which one a client's host gets.
//!
//! Fed by the index, which decides what is in effect; read through [`crate::snapshot::Snapshot`] and by the status.

use std::{collections::BTreeSet, sync::Arc};

use weft_crds::networking::VirtualServiceSpec;

use super::{SubsetRef, gateways_of, is_for_mesh};
use crate::{
    host::HostMap,
    resource::{Resource, ResourceRef, table::ResourceTable},
    service::Visibility,
    store::Store,
};

/// What became of an accepted VirtualService.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualServiceState {
    /// The version in effect, its delegates merged in: the accepted one, or the last that could take effect, or none.
    pub effective: Option<Arc<Resource<VirtualServiceSpec>>>,
    /// The subsets that the accepted version names and nobody defines: why it is not in effect.
    pub missing: BTreeSet<SubsetRef>,
    /// Delegates that do not exist or may not be used by it: their routes are left out.
    pub missing_delegates: BTreeSet<ResourceRef>,
}

/// How close a VirtualService is to a client: what is closer comes first (item 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Not for everybody, and of the client's own namespace.
    Private,
    /// Exported to the client's namespace.
    Exported,
    /// For everybody.
    Public,
}

/// A VirtualService in effect.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    resource: Arc<Resource<VirtualServiceSpec>>,
    visibility: Visibility,
}

/// VirtualServices by name and by host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualServiceTable {
    /// What was accepted, names qualified.
    pub accepted: ResourceTable<VirtualServiceSpec>,
    states: Store<Arc<str>, Arc<VirtualServiceState>>,
    /// Those in effect for sidecars, oldest first.
    by_host: HostMap<Vec<Entry>>,
    /// Those in effect by Gateway, oldest first.
    by_gateway: Store<Arc<str>, Vec<Entry>>,
}

/// What the state of a VirtualService decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Hosts whose routes may differ for sidecars.
    pub hosts: BTreeSet<Arc<str>>,
    /// Whether routes of Gateways may differ.
    pub gateways: bool,
}

impl VirtualServiceTable {
    /// What became of a VirtualService; `None` when there is no such.
    pub fn state(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualServiceState>> {
        self.states.get(&*key(namespace, name))
    }

    /// Every state, in no order.
    pub fn states(&self) -> impl Iterator<Item = &Arc<VirtualServiceState>> {
        self.states.values()
    }

    /// Records what became of a VirtualService, or that it is gone; answers whose routes may differ for it.
    pub fn set_state(
        &mut self,
        reference: &ResourceRef,
        state: Option<VirtualServiceState>,
        visibility: &Visibility,
    ) -> Touched {
        let key: Arc<str> = key(&reference.namespace, &reference.name).into();
        let old = self.states.get(&key).cloned();
        let mut touched = BTreeSet::new();
        for (host, _) in mesh_hosts(old.as_deref()) {
            let mut removed = None;
            self.by_host.edit(&host, |entries| {
                let at = entries.iter().position(|entry| entry.resource.reference == *reference);
                removed = at.map(|at| entries.remove(at));
            });
            let same = |entry: &Entry| {
                let new = state.as_ref().and_then(|state| state.effective.as_ref());
                new == Some(&entry.resource) && entry.visibility == *visibility
            };
            if !removed.as_ref().is_some_and(same) {
                touched.insert(host);
            }
        }
        for (host, resource) in mesh_hosts(state.as_ref()) {
            let unchanged = mesh_hosts(old.as_deref()).any(|(other, _)| other == host);
            self.by_host.edit(&host, |entries| {
                let at =
                    entries.partition_point(|entry| entry.resource.oldest_first(resource).is_lt());
                entries.insert(
                    at,
                    Entry { resource: resource.clone(), visibility: visibility.clone() },
                );
            });
            if !unchanged {
                touched.insert(host);
            }
        }
        let gateways = self.set_gateways(reference, (old.as_deref(), state.as_ref()), visibility);
        match state {
            Some(state) => _ = self.states.set(key, Arc::new(state)),
            None => _ = self.states.remove(&key),
        }
        Touched { hosts: touched, gateways }
    }

    /// Puts a VirtualService's new version in the place of the old one's; says whether any Gateway's routes differ.
    fn set_gateways(
        &mut self,
        reference: &ResourceRef,
        (old, new): (Option<&VirtualServiceState>, Option<&VirtualServiceState>),
        visibility: &Visibility,
    ) -> bool {
        let mut removed = Vec::new();
        for (gateway, _) in bound(old) {
            self.by_gateway.edit(&gateway, |entries| {
                let at = entries.iter().position(|entry| entry.resource.reference == *reference);
                removed.extend(at.map(|at| (gateway.clone(), entries.remove(at))));
            });
        }
        let mut added = Vec::new();
        for (gateway, resource) in bound(new) {
            let entry = Entry { resource: resource.clone(), visibility: visibility.clone() };
            self.by_gateway.edit(&gateway, |entries| {
                let older = |entry: &Entry| entry.resource.oldest_first(resource).is_lt();
                entries.insert(entries.partition_point(older), entry.clone());
            });
            added.push((gateway, entry));
        }
        removed != added
    }

    /// The VirtualServices in effect of a Gateway (`<namespace>/<name>`), as proxies of a namespace get them.
    pub fn of_gateway(
        &self,
        namespace: &str,
        gateway: &str,
    ) -> Vec<(Tier, &Arc<Resource<VirtualServiceSpec>>)> {
        let entries = self.by_gateway.get(gateway).map_or(&[][..], Vec::as_slice);
        let mut seen: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((tier(entry, namespace)?, &entry.resource)))
            .collect();
        seen.sort_by_key(|(tier, _)| *tier);
        seen
    }

    /// The VirtualService that clients of a namespace get for a host: that with the most specific of the hosts that
    /// cover it; among those private before exported before public, then the oldest (items 4, 7, 8 and 25).
    pub fn select(
        &self,
        namespace: &str,
        hostname: &str,
    ) -> Option<&Arc<Resource<VirtualServiceSpec>>> {
        self.by_host.matching(hostname).find_map(|entries| {
            entries
                .iter()
                .filter_map(|entry| Some((tier(entry, namespace)?, &entry.resource)))
                .min_by_key(|(tier, _)| *tier)
                .map(|(_, resource)| resource)
        })
    }

    /// Those in effect under this very host, oldest first, with who sees them.
    pub fn in_effect_for<'a>(
        &'a self,
        host: &str,
    ) -> impl Iterator<Item = (&'a Arc<Resource<VirtualServiceSpec>>, &'a Visibility)> {
        let entries = self.by_host.get(host).map_or(&[][..], Vec::as_slice);
        entries.iter().map(|entry| (&entry.resource, &entry.visibility))
    }
}

/// The hosts that a state routes for sidecars, each once.
fn mesh_hosts(
    state: Option<&VirtualServiceState>,
) -> impl Iterator<Item = (Arc<str>, &Arc<Resource<VirtualServiceSpec>>)> {
    let resource = state.and_then(|state| state.effective.as_ref());
    let resource = resource.filter(|resource| is_for_mesh(&resource.spec));
    resource.into_iter().flat_map(|resource| {
        let hosts: BTreeSet<Arc<str>> =
            resource.spec.hosts.iter().map(|host| host.as_str().into()).collect();
        hosts.into_iter().map(move |host| (host, resource))
    })
}

/// The Gateways that a state routes, each once.
fn bound(
    state: Option<&VirtualServiceState>,
) -> impl Iterator<Item = (Arc<str>, &Arc<Resource<VirtualServiceSpec>>)> {
    let resource = state.and_then(|state| state.effective.as_ref());
    resource.into_iter().flat_map(|resource| {
        gateways_of(&resource.spec).into_iter().map(move |name| (name.into(), resource))
    })
}

/// How close a VirtualService is to clients of a namespace; `None` when they do not see it.
fn tier(entry: &Entry, namespace: &str) -> Option<Tier> {
    match &entry.visibility {
        Visibility::Public => Some(Tier::Public),
        visibility if !visibility.includes(namespace) => None,
        _ if entry.resource.namespace() == namespace => Some(Tier::Private),
        _ => Some(Tier::Exported),
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
