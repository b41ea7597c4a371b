//! Which VirtualServices are in effect, and which subsets are defined, so that the order of events never matters.
//!
//! A VirtualService takes effect when every subset that it names is defined; until then its last version in effect stays.
//! A subset that one in effect names stays defined after its rule is gone. Decided when a snapshot is taken, for those
//! VirtualServices alone that an event may have touched.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_core::{
    change::Change,
    destination_rule::table::Client,
    host,
    resource::{Resource, ResourceRef},
    selector::Labels,
    service::Visibility,
    snapshot::Snapshot,
    virtual_service::{
        SubsetRef,
        delegate::{delegates, expand},
        subsets,
        table::VirtualServiceState,
    },
};
use weft_crds::networking::{Subset, VirtualServiceSpec};

use crate::object::ObjectKey;

/// What VirtualServices depend on, and which of them to decide anew.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    stale: BTreeSet<ResourceRef>,
    /// Hosts (wildcards too) whose destination rules changed.
    stale_hosts: BTreeSet<Arc<str>>,
    /// By host, who names subsets of it, accepted or in effect.
    users: HashMap<Arc<str>, BTreeSet<ResourceRef>>,
    /// The hosts of which a VirtualService names subsets: the other way round.
    hosts_of: HashMap<ResourceRef, BTreeSet<Arc<str>>>,
    /// By delegate, the roots that name it.
    roots: HashMap<ObjectKey, BTreeSet<ResourceRef>>,
    /// The delegates of a root: the other way round.
    delegates_of: HashMap<ResourceRef, BTreeSet<ObjectKey>>,
}

impl Routing {
    /// A VirtualService was accepted, replaced or removed in the next snapshot's table.
    pub fn touch_virtual_service(&mut self, reference: &ResourceRef, next: &Snapshot) {
        let key = (reference.namespace.clone(), reference.name.clone());
        self.stale.extend(self.roots.get(&key).into_iter().flatten().cloned());
        self.stale.insert(reference.clone());
        let named: BTreeSet<_> = next
            .virtual_services
            .accepted
            .get(&reference.namespace, &reference.name)
            .into_iter()
            .flat_map(|resource| delegates(&resource.spec))
            .map(|delegate| (delegate.namespace.as_str().into(), delegate.name.as_str().into()))
            .collect();
        relink(&mut self.roots, &mut self.delegates_of, reference, named);
    }

    /// The destination rules of these hosts (wildcards too) changed.
    pub fn touch_destination_rules(&mut self, hosts: BTreeSet<Arc<str>>) {
        self.stale_hosts.extend(hosts);
    }

    /// Every VirtualService is decided anew.
    pub fn touch_all(&mut self, next: &Snapshot) {
        let all = next.virtual_services.accepted.iter();
        self.stale.extend(all.map(|resource| resource.reference.clone()));
    }

    /// Decides what has to be decided.
    pub fn refresh(&mut self, next: &mut Snapshot, change: &mut Change) {
        let mut subset_hosts = BTreeSet::new();
        for pattern in std::mem::take(&mut self.stale_hosts) {
            touch(&pattern, next, change);
            let used: Vec<Arc<str>> = if host::is_wildcard(&pattern) {
                self.users.keys().filter(|host| host::covers(&pattern, host)).cloned().collect()
            } else {
                self.users.contains_key(&pattern).then_some(pattern).into_iter().collect()
            };
            subset_hosts.extend(used);
        }
        self.touch_users(&subset_hosts);
        // A version that takes effect may keep a subset defined which another one waits for. Each round that touches
        // anything puts a version into effect or takes one away for good, so this ends.
        while !self.stale.is_empty() || !subset_hosts.is_empty() {
            for reference in std::mem::take(&mut self.stale) {
                subset_hosts.extend(self.decide(&reference, next, change));
            }
            let mut differing = BTreeSet::new();
            for host in std::mem::take(&mut subset_hosts) {
                let definitions = self.definitions(&host, next);
                if next.destination_rules.set_named_subsets(&host, definitions) {
                    touch(&host, next, change);
                    differing.insert(host);
                }
            }
            self.touch_waiting(&differing, next);
        }
    }

    fn touch_users(&mut self, hosts: &BTreeSet<Arc<str>>) {
        let users = hosts.iter().filter_map(|host| self.users.get(host)).flatten();
        self.stale.extend(users.cloned());
    }

    /// Those that wait for a subset of these hosts.
    fn touch_waiting(&mut self, hosts: &BTreeSet<Arc<str>>, next: &Snapshot) {
        let waits = |reference: &&ResourceRef| {
            let state = next.virtual_services.state(&reference.namespace, &reference.name);
            state.is_some_and(|state| {
                state.missing.iter().any(|subset| hosts.contains(&subset.host))
            })
        };
        let users = hosts.iter().filter_map(|host| self.users.get(host)).flatten();
        self.stale.extend(users.filter(waits).cloned());
    }

    /// Decides on one VirtualService; answers the hosts of which it names, or named, subsets.
    fn decide(
        &mut self,
        reference: &ResourceRef,
        next: &mut Snapshot,
        change: &mut Change,
    ) -> BTreeSet<Arc<str>> {
        let (namespace, name) = (&reference.namespace, &reference.name);
        let accepted = next.virtual_services.accepted.get(namespace, name).cloned();
        let state = accepted.as_ref().map(|accepted| judge(accepted, next));
        let named = state.as_ref().map(|state| {
            let effective = state.effective.as_ref().map(|effective| subsets(&effective.spec));
            let waiting = state.missing.iter().cloned();
            effective.into_iter().flatten().chain(waiting).map(|subset| subset.host).collect()
        });
        let named: BTreeSet<Arc<str>> = named.unwrap_or_default();
        let mut hosts = relink(&mut self.users, &mut self.hosts_of, reference, named.clone());
        hosts.extend(named);
        let visibility = accepted
            .as_ref()
            .map_or(Visibility::Hidden, |accepted| visibility(&accepted.spec, namespace, next));
        let touched = next.virtual_services.set_state(reference, state, &visibility);
        change.gateways |= touched.gateways;
        for host in touched.hosts {
            touch(&host, next, change);
        }
        hosts
    }

    /// The definitions of a host's subsets that VirtualServices in effect name: as the rules have it for the oldest
    /// that can say, else as it was.
    fn definitions(&self, host: &Arc<str>, next: &Snapshot) -> BTreeMap<Arc<str>, Subset> {
        let users = self.users.get(host).into_iter().flatten();
        let mut effective: Vec<&Arc<Resource<VirtualServiceSpec>>> = users
            .filter_map(|user| next.virtual_services.state(&user.namespace, &user.name))
            .filter_map(|state| state.effective.as_ref())
            .collect();
        effective.sort_by(|a, b| a.oldest_first(b));
        let mut definitions: BTreeMap<Arc<str>, Subset> = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        for resource in effective {
            for named in subsets(&resource.spec).into_iter().filter(|named| named.host == *host) {
                match defined(resource.namespace(), &named, next) {
                    Some(subset) => {
                        _ = definitions.entry(named.subset).or_insert_with(|| subset.clone());
                    }
                    None => _ = unknown.insert(named.subset),
                }
            }
        }
        let before = next.destination_rules.named_subsets(host);
        for name in unknown {
            if let Some(subset) = before.and_then(|before| before.get(&name)) {
                definitions.entry(name).or_insert_with(|| subset.clone());
            }
        }
        definitions
    }
}

/// Replaces what one depends on in a map and its reverse; answers what it depended on before.
fn relink<K: std::hash::Hash + Ord + Clone>(
    users: &mut HashMap<K, BTreeSet<ResourceRef>>,
    uses: &mut HashMap<ResourceRef, BTreeSet<K>>,
    user: &ResourceRef,
    new: BTreeSet<K>,
) -> BTreeSet<K> {
    let old = uses.remove(user).unwrap_or_default();
    for key in old.difference(&new) {
        if let Some(set) = users.get_mut(key) {
            set.remove(user);
            if set.is_empty() {
                users.remove(key);
            }
        }
    }
    for key in new.difference(&old) {
        users.entry(key.clone()).or_default().insert(user.clone());
    }
    if !new.is_empty() {
        uses.insert(user.clone(), new);
    }
    old
}

/// What becomes of an accepted VirtualService.
fn judge(accepted: &Arc<Resource<VirtualServiceSpec>>, next: &Snapshot) -> VirtualServiceState {
    let table = &next.virtual_services;
    let namespace = accepted.namespace();
    let (expanded, missing_delegates) = expand(accepted, |at, name| {
        let found = table.accepted.get(at, name)?;
        let seen = at == namespace
            || visibility(&found.spec, &found.reference.namespace, next).includes(namespace);
        seen.then(|| found.clone())
    });
    let is_defined = |named: &SubsetRef| {
        let kept = next.destination_rules.named_subsets(&named.host);
        kept.is_some_and(|kept| kept.contains_key(&named.subset))
            || defined(namespace, named, next).is_some()
    };
    let missing: BTreeSet<SubsetRef> =
        subsets(&expanded.spec).into_iter().filter(|named| !is_defined(named)).collect();
    let before = table.state(namespace, &accepted.reference.name);
    let effective = if missing.is_empty() {
        let same =
            before.and_then(|before| before.effective.clone()).filter(|old| *old == expanded);
        Some(same.unwrap_or(expanded))
    } else {
        before.and_then(|before| before.effective.clone())
    };
    VirtualServiceState { effective, missing, missing_delegates }
}

/// A subset as the destination rules that a namespace sees define it.
fn defined<'a>(namespace: &str, named: &SubsetRef, next: &'a Snapshot) -> Option<&'a Subset> {
    let labels = Labels::new();
    let client = Client { namespace, labels: &labels, root: &next.mesh.root_namespace };
    let service = namespace_of(&named.host, &next.mesh.domain);
    next.destination_rules.subset(client, &named.host, service, &named.subset)
}

/// The namespace in the name of a Kubernetes service.
fn namespace_of<'a>(hostname: &'a str, domain: &str) -> Option<&'a str> {
    let (_, namespace) = hostname.strip_suffix(domain)?.strip_suffix(".svc.")?.rsplit_once('.')?;
    Some(namespace)
}

fn visibility(spec: &VirtualServiceSpec, namespace: &Arc<str>, next: &Snapshot) -> Visibility {
    let default = &next.mesh.default_virtual_service_export_to;
    Visibility::from_export_to(&spec.export_to, default, namespace)
}

/// Names a host as changed, with the services that a wildcard covers; their workloads' inbound side follows the rules
/// for their services (`istio-behaviours` 2.4, item 38).
fn touch(pattern: &Arc<str>, next: &Snapshot, change: &mut Change) {
    if host::is_wildcard(pattern) {
        for service in next.services.iter().filter(|s| host::covers(pattern, s.hostname())) {
            change.hosts.insert(service.key.hostname.clone());
            change.namespaces.insert(service.key.namespace.clone());
        }
    } else {
        let services = next.services.named(pattern).iter();
        change.namespaces.extend(services.map(|service| service.key.namespace.clone()));
    }
    change.hosts.insert(pattern.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_read_from_a_kubernetes_hostname() {
        for (hostname, expected) in [
            ("reviews.prod.svc.cluster.local", Some("prod")),
            ("pod.reviews.prod.svc.cluster.local", Some("prod")),
            ("reviews.prod.svc.other.local", None),
            ("example.com", None),
        ] {
            assert_eq!(namespace_of(hostname, "cluster.local"), expected, "{hostname}");
        }
    }
}
