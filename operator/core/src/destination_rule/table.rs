//! The destination rules of the mesh by host and namespace, and the choice among them (`istio-behaviours` 2.4,
//! items 33 to 35).
//!
//! Fed by the index; read through [`crate::snapshot::Snapshot`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_crds::networking::{DestinationRuleSpec, Subset};

use super::EffectiveDestinationRule;
use crate::{
    host::HostMap,
    resource::{Resource, table::ResourceTable},
    selector::{Labels, selects},
    service::Visibility,
    store::Store,
};

/// Who asks for a destination rule.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The client's namespace.
    pub namespace: &'a str,
    /// The client's labels.
    pub labels: &'a Labels,
    /// The mesh's root namespace.
    pub root: &'a str,
}

/// Rules of one host and namespace that count as one.
#[derive(Clone, Debug, PartialEq)]
struct MergedRule {
    rule: Arc<EffectiveDestinationRule>,
    visibility: Visibility,
}

impl MergedRule {
    fn selector(&self) -> Option<&Labels> {
        self.rule.spec.workload_selector.as_ref().map(|selector| &selector.match_labels)
    }

    /// Whether it reaches clients of another namespace: one with a selector never does.
    fn is_exported_to(&self, namespace: &str) -> bool {
        self.selector().is_none() && self.visibility.includes(namespace)
    }
}

/// The rules of one host and namespace.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    /// As accepted, oldest first, with who sees them.
    rules: Vec<(Arc<Resource<DestinationRuleSpec>>, Visibility)>,
    /// Those with a selector first, then oldest first.
    merged: Vec<MergedRule>,
}

type Groups = BTreeMap<Arc<str>, Arc<Group>>;

/// Destination rules by name, host and namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DestinationRuleTable {
    accepted: ResourceTable<DestinationRuleSpec>,
    by_host: HostMap<Groups>,
    /// The subsets that routes in effect name, by host: they are defined for every client, whatever became of the rule.
    named: Store<Arc<str>, Arc<BTreeMap<Arc<str>, Subset>>>,
}

impl DestinationRuleTable {
    /// What was accepted, hosts qualified.
    pub fn accepted(&self) -> &ResourceTable<DestinationRuleSpec> {
        &self.accepted
    }

    /// Adds or replaces a rule whose host is qualified; answers the hosts that it touches.
    pub fn set(
        &mut self,
        resource: Arc<Resource<DestinationRuleSpec>>,
        visibility: Visibility,
    ) -> BTreeSet<Arc<str>> {
        let (namespace, name) = (resource.reference.namespace.clone(), &resource.reference.name);
        if let Some(old) = self.accepted.get(&namespace, name)
            && *old == resource
            && self.visibility(old) == Some(&visibility)
        {
            return BTreeSet::new();
        }
        let mut touched = self.remove(&namespace, name);
        let host: Arc<str> = resource.spec.host.as_str().into();
        self.accepted.set(resource.clone());
        self.edit_group(&host, &namespace, |rules| {
            let at = rules.partition_point(|(other, _)| other.oldest_first(&resource).is_lt());
            rules.insert(at, (resource, visibility));
        });
        touched.insert(host);
        touched
    }

    /// Removes a rule; answers the hosts that it touched.
    pub fn remove(&mut self, namespace: &str, name: &str) -> BTreeSet<Arc<str>> {
        let Some(old) = self.accepted.remove(namespace, name) else { return BTreeSet::new() };
        let host: Arc<str> = old.spec.host.as_str().into();
        self.edit_group(&host, &old.reference.namespace, |rules| {
            rules.retain(|(rule, _)| rule.reference != old.reference);
        });
        [host].into()
    }

    /// Sets the definitions of the subsets of a host that routes in effect name; says whether that changed anything.
    pub fn set_named_subsets(
        &mut self,
        host: &Arc<str>,
        subsets: BTreeMap<Arc<str>, Subset>,
    ) -> bool {
        if subsets.is_empty() {
            return self.named.remove(host).is_some();
        }
        self.named.set(host.clone(), Arc::new(subsets))
    }

    /// The definitions of the subsets of a host that routes in effect name.
    pub fn named_subsets(&self, host: &str) -> Option<&Arc<BTreeMap<Arc<str>, Subset>>> {
        self.named.get(host)
    }

    /// The rule for a service and client: of the client's namespace, else exported by the service's, else exported by
    /// the root namespace; the first of these with any rule for the client decides alone (item 33).
    pub fn select(
        &self,
        client: Client<'_>,
        hostname: &str,
        service_namespace: &str,
    ) -> Option<Arc<EffectiveDestinationRule>> {
        let found = self.find(client, hostname, service_namespace);
        let Some(named) = self.named.get(hostname) else { return found.cloned() };
        let defines = |name: &str| found.is_some_and(|rule| rule.subset_labels(name).is_some());
        let mut absent = named.iter().filter(|(name, _)| !defines(name)).peekable();
        if absent.peek().is_none() {
            return found.cloned();
        }
        let mut rule = found.map_or_else(
            || EffectiveDestinationRule {
                sources: Vec::new(),
                spec: DestinationRuleSpec { host: hostname.to_owned(), ..Default::default() },
            },
            |rule| EffectiveDestinationRule::clone(rule),
        );
        rule.spec.subsets.extend(absent.map(|(_, subset)| subset.clone()));
        Some(Arc::new(rule))
    }

    /// Whether clients of a host may get different rules because of their labels.
    pub fn selects_clients(&self, hostname: &str) -> bool {
        let mut groups = self.by_host.matching(hostname).flat_map(BTreeMap::values);
        groups.any(|group| group.merged.iter().any(|rule| rule.selector().is_some()))
    }

    /// A subset of a host as the rules that a namespace sees define it: its own first, then those of the service's and
    /// the root namespace, then of others.
    pub fn subset(
        &self,
        client: Client<'_>,
        hostname: &str,
        service_namespace: Option<&str>,
        subset: &str,
    ) -> Option<&Subset> {
        let others: BTreeSet<&str> = self
            .by_host
            .matching(hostname)
            .flat_map(|groups| groups.keys().map(|ns| &**ns))
            .collect();
        let order = [client.namespace].into_iter().chain(service_namespace);
        order.chain([client.root]).chain(others).find_map(|namespace| {
            let visible = |rule: &&MergedRule| {
                if namespace == client.namespace {
                    rule.visibility.includes(namespace)
                } else {
                    rule.is_exported_to(client.namespace)
                }
            };
            let rules = self.first_in(namespace, hostname, visible)?;
            rules.into_iter().rev().find_map(|rule| {
                rule.rule.spec.subsets.iter().find(|defined| defined.name == subset)
            })
        })
    }

    fn find(
        &self,
        client: Client<'_>,
        hostname: &str,
        service_namespace: &str,
    ) -> Option<&Arc<EffectiveDestinationRule>> {
        let own = |rule: &&MergedRule| {
            let in_root = client.namespace == client.root;
            rule.visibility.includes(client.namespace)
                && !(in_root && rule.visibility == Visibility::Public)
                && rule.selector().is_none_or(|selector| selects(selector, client.labels))
        };
        let exported = |rule: &&MergedRule| rule.is_exported_to(client.namespace);
        self.first_in(client.namespace, hostname, own)
            .or_else(|| self.first_in(service_namespace, hostname, exported))
            .or_else(|| self.first_in(client.root, hostname, exported))
            .and_then(|rules| rules.into_iter().next())
            .map(|rule| &rule.rule)
    }

    /// The rules of a namespace under the most specific host that has any which are wanted.
    fn first_in(
        &self,
        namespace: &str,
        hostname: &str,
        wanted: impl Fn(&&MergedRule) -> bool,
    ) -> Option<Vec<&MergedRule>> {
        self.by_host
            .matching(hostname)
            .filter_map(|groups| groups.get(namespace))
            .map(|group| group.merged.iter().filter(&wanted).collect::<Vec<_>>())
            .find(|rules| !rules.is_empty())
    }

    fn visibility(&self, resource: &Resource<DestinationRuleSpec>) -> Option<&Visibility> {
        let group = self.by_host.get(&resource.spec.host)?.get(resource.namespace())?;
        let (_, visibility) =
            group.rules.iter().find(|(rule, _)| rule.reference == resource.reference)?;
        Some(visibility)
    }

    fn edit_group(
        &mut self,
        host: &Arc<str>,
        namespace: &Arc<str>,
        edit: impl FnOnce(&mut Vec<(Arc<Resource<DestinationRuleSpec>>, Visibility)>),
    ) {
        self.by_host.edit(host, |groups| {
            let group = Arc::make_mut(groups.entry(namespace.clone()).or_default());
            edit(&mut group.rules);
            group.merged = merge(&group.rules);
            if group.rules.is_empty() {
                groups.remove(namespace);
            }
        });
    }
}

/// Merges the rules of one host and namespace that have the same selector and visibility: subsets are put together,
/// the first of a name counts; the oldest traffic policy counts as a whole (item 34).
fn merge(rules: &[(Arc<Resource<DestinationRuleSpec>>, Visibility)]) -> Vec<MergedRule> {
    let mut merged: Vec<MergedRule> = Vec::new();
    for (resource, visibility) in rules {
        let spec = &resource.spec;
        let same = merged.iter_mut().find(|other| {
            other.rule.spec.workload_selector == spec.workload_selector
                && other.visibility == *visibility
        });
        let Some(other) = same else {
            merged.push(MergedRule {
                rule: Arc::new(EffectiveDestinationRule {
                    sources: vec![resource.reference.clone()],
                    spec: spec.clone(),
                }),
                visibility: visibility.clone(),
            });
            continue;
        };
        let rule = Arc::make_mut(&mut other.rule);
        rule.sources.push(resource.reference.clone());
        for subset in &spec.subsets {
            if !rule.spec.subsets.iter().any(|defined| defined.name == subset.name) {
                rule.spec.subsets.push(subset.clone());
            }
        }
        if rule.spec.traffic_policy.is_none() {
            rule.spec.traffic_policy.clone_from(&spec.traffic_policy);
        }
    }
    merged.sort_by_key(|rule| rule.selector().is_none());
    merged
}
