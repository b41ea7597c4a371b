//! Services, endpoints and workloads: joins Services, EndpointSlices, Pods and ServiceEntries.
//!
//! Services and workloads are put into the next snapshot at once; endpoints when it is taken, each service's once however
//! many events touched it. Invariant: whatever an endpoint was made from leads back to its service, so that a change of
//! it makes the endpoints anew.

mod endpoints;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use weft_core::{
    change::Change,
    endpoint::{EndpointAddress, EndpointSet},
    resource::{Resource, ResourceRef},
    service::{Service, ServiceKey},
    snapshot::{PortEndpoints, Snapshot},
    workload::Workload,
};
use weft_crds::networking::ServiceEntrySpec;

use crate::{
    kubernetes::{
        pod::PodRecord,
        service::{Definition, key},
        slice::SliceRecord,
    },
    object::ObjectKey,
    service_entry,
};

/// A ServiceEntry's definition of a service.
#[derive(Clone, Debug)]
struct EntryDefinition {
    entry: Arc<Resource<ServiceEntrySpec>>,
    service: Arc<Service>,
}

/// What services and endpoints are made from.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    definitions: HashMap<ServiceKey, Definition>,
    entries: HashMap<ServiceKey, Vec<EntryDefinition>>,
    slices: HashMap<ServiceKey, BTreeMap<Arc<str>, SliceRecord>>,
    /// The service of each slice, by the slice's name.
    slice_services: HashMap<ObjectKey, ServiceKey>,
    pods: BTreeMap<Arc<str>, BTreeMap<Arc<str>, PodRecord>>,
    /// The services whose slices name a pod, or an address that may be a pod's.
    services_of_pod: HashMap<ObjectKey, BTreeMap<ServiceKey, usize>>,
    services_of_address: HashMap<IpAddr, BTreeMap<ServiceKey, usize>>,
    /// ExternalName services by what they stand for.
    aliases: BTreeMap<Arc<str>, BTreeSet<ServiceKey>>,
    /// Under which addresses the services without a selector were made known.
    served: HashMap<ServiceKey, BTreeSet<IpAddr>>,
    /// Services whose endpoints are to be made anew.
    stale: BTreeSet<ServiceKey>,
}

impl Registry {
    /// Adds, replaces or removes (`None`) a Kubernetes Service; says whether that changed anything.
    pub fn set_service(
        &mut self,
        key: &ServiceKey,
        definition: Option<Definition>,
        next: &mut Snapshot,
        change: &mut Change,
    ) -> bool {
        let old = self.definitions.get(key);
        if old == definition.as_ref() {
            return false;
        }
        if let Some(target) = old.and_then(|old| old.service.external_name.clone())
            && let Some(keys) = self.aliases.get_mut(&target)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.aliases.remove(&target);
            }
        }
        match definition {
            Some(definition) => {
                if let Some(target) = &definition.service.external_name {
                    self.aliases.entry(target.clone()).or_default().insert(key.clone());
                }
                self.definitions.insert(key.clone(), definition);
            }
            None => _ = self.definitions.remove(key),
        }
        self.define(key, next, change);
        true
    }

    /// Replaces what a ServiceEntry defines: `old` by `new`.
    pub fn set_entry(
        &mut self,
        old: Option<&Arc<Resource<ServiceEntrySpec>>>,
        new: Option<&Arc<Resource<ServiceEntrySpec>>>,
        next: &mut Snapshot,
        change: &mut Change,
    ) {
        let services =
            new.map(|entry| service_entry::services(entry, &next.mesh)).unwrap_or_default();
        let mut touched: BTreeSet<ServiceKey> = services.iter().map(|s| s.key.clone()).collect();
        if let Some(old) = old {
            for host in &old.spec.hosts {
                let key = ServiceKey {
                    namespace: old.reference.namespace.clone(),
                    hostname: host.to_ascii_lowercase().into(),
                };
                if let Some(entries) = self.entries.get_mut(&key) {
                    entries.retain(|other| other.entry.reference != old.reference);
                    if entries.is_empty() {
                        self.entries.remove(&key);
                    }
                }
                touched.insert(key);
            }
        }
        for service in services {
            let Some(entry) = new else { continue };
            let entries = self.entries.entry(service.key.clone()).or_default();
            entries.retain(|other| other.entry.reference != entry.reference);
            let at = entries.partition_point(|other| other.entry.oldest_first(entry).is_lt());
            let definition = EntryDefinition { entry: entry.clone(), service: Arc::new(service) };
            entries.insert(at, definition);
        }
        for key in touched {
            self.define(&key, next, change);
        }
    }

    /// Adds, replaces or removes (`None`) an EndpointSlice; says whether that changed anything.
    pub fn set_slice(
        &mut self,
        slice: &ResourceRef,
        record: Option<SliceRecord>,
        domain: &str,
    ) -> bool {
        let name = (slice.namespace.clone(), slice.name.clone());
        let old_key = self.slice_services.get(&name).cloned();
        let old = old_key.as_ref().and_then(|key| self.slices.get(key)?.get(&slice.name));
        if old == record.as_ref() {
            return false;
        }
        if let Some(key) = old_key {
            if let Some(slices) = self.slices.get_mut(&key) {
                let old = slices.remove(&slice.name);
                if slices.is_empty() {
                    self.slices.remove(&key);
                }
                self.link(&key, old.as_ref(), false);
            }
            self.slice_services.remove(&name);
            self.stale.insert(key);
        }
        if let Some(record) = record {
            let key = key(&slice.namespace, &record.service, domain);
            self.link(&key, Some(&record), true);
            self.slice_services.insert(name, key.clone());
            self.slices.entry(key.clone()).or_default().insert(slice.name.clone(), record);
            self.stale.insert(key);
        }
        true
    }

    /// Adds, replaces or removes (`None`) a Pod; says whether that changed anything.
    pub fn set_pod(
        &mut self,
        pod: &ResourceRef,
        mut record: Option<PodRecord>,
        next: &mut Snapshot,
        change: &mut Change,
    ) -> bool {
        let pods = self.pods.entry(pod.namespace.clone()).or_default();
        let old = pods.get(&pod.name).cloned();
        if old == record {
            return false;
        }
        if let (Some(old), Some(new)) = (&old, &mut record)
            && old.workload == new.workload
        {
            new.workload = old.workload.clone();
        }
        match &record {
            Some(record) => _ = pods.insert(pod.name.clone(), record.clone()),
            None => _ = pods.remove(&pod.name),
        }
        let changed = match &record {
            Some(record) => next.workloads.set(&record.workload),
            None => next.workloads.remove(&pod.namespace, &pod.name).is_some(),
        };
        if changed {
            change.namespaces.insert(pod.namespace.clone());
        }
        for workload in [&old, &record].into_iter().flatten().map(|record| &record.workload) {
            self.make_stale(workload, next);
        }
        true
    }

    /// Reads every definition anew under other settings of the mesh.
    pub fn reread(&mut self, next: &mut Snapshot, change: &mut Change) {
        let entries: Vec<_> = next.service_entries.iter().cloned().collect();
        for entry in &entries {
            self.set_entry(Some(entry), Some(entry), next, change);
        }
        let keys: Vec<ServiceKey> = self.definitions.keys().cloned().collect();
        for key in keys {
            self.define(&key, next, change);
        }
    }

    /// Makes the endpoints that are out of date.
    pub fn refresh_endpoints(&mut self, next: &mut Snapshot, change: &mut Change) {
        for key in std::mem::take(&mut self.stale) {
            let service = next.services.get(&key).cloned();
            let made = service.as_ref().map(|service| self.make(service, next)).unwrap_or_default();
            self.make_known(&key, service.as_deref(), &made, next, change);
            let old = next.endpoints.get(&key).cloned().unwrap_or_default();
            let mut ports = PortEndpoints::new();
            for (port, set) in made {
                let kept = old.get(&port).filter(|old| ***old == set).cloned();
                ports.insert(port, kept.unwrap_or_else(|| Arc::new(set)));
            }
            if ports == *old {
                continue;
            }
            change.endpoints.insert(key.hostname.clone());
            if ports.is_empty() {
                next.endpoints.remove(&key);
            } else {
                next.endpoints.set(key, Arc::new(ports));
            }
        }
    }

    /// Chooses among the definitions of a service: Kubernetes', else the oldest ServiceEntry's.
    fn define(&mut self, key: &ServiceKey, next: &mut Snapshot, change: &mut Change) {
        let kubernetes = self.definitions.get(key).map(|definition| definition.service(&next.mesh));
        let entry =
            || self.entries.get(key).and_then(|entries| Some(entries.first()?.service.clone()));
        let old = next.services.get(key).cloned();
        self.stale.insert(key.clone());
        let new = kubernetes.or_else(entry);
        if old == new {
            return;
        }
        match &new {
            Some(service) => _ = next.services.set(service),
            None => _ = next.services.remove(key),
        }
        self.touch_host(&key.hostname, change);
        change.namespaces.insert(key.namespace.clone());
    }

    /// A host, and the names that only stand for it.
    fn touch_host(&self, host: &Arc<str>, change: &mut Change) {
        let mut open = vec![host.clone()];
        let mut seen = BTreeSet::new();
        while let Some(host) = open.pop() {
            if seen.insert(host.clone()) {
                open.extend(
                    self.aliases.get(&host).into_iter().flatten().map(|key| key.hostname.clone()),
                );
            }
        }
        change.hosts.extend(seen);
    }

    /// The services that a pod may be an endpoint of get their endpoints anew.
    fn make_stale(&mut self, workload: &Workload, next: &Snapshot) {
        let selecting = next.services.selecting(&workload.namespace, &workload.labels);
        self.stale.extend(selecting.map(|service| service.key.clone()));
        let name = (workload.namespace.clone(), workload.name.clone());
        if let Some(services) = self.services_of_pod.get(&name) {
            self.stale.extend(services.keys().cloned());
        }
        for address in &workload.addresses {
            if let Some(services) = self.services_of_address.get(address) {
                self.stale.extend(services.keys().cloned());
            }
        }
    }

    /// Counts (or no longer counts) a slice among those that name its pods and addresses.
    fn link(&mut self, key: &ServiceKey, slice: Option<&SliceRecord>, add: bool) {
        fn count<K: std::hash::Hash + Eq>(
            map: &mut HashMap<K, BTreeMap<ServiceKey, usize>>,
            at: K,
            key: &ServiceKey,
            add: bool,
        ) {
            let services = map.entry(at).or_default();
            let slices = services.entry(key.clone()).or_default();
            *slices = if add { *slices + 1 } else { slices.saturating_sub(1) };
            if *slices == 0 {
                services.remove(key);
            }
        }
        for endpoint in slice.into_iter().flat_map(|slice| &slice.endpoints) {
            count(&mut self.services_of_address, endpoint.address, key, add);
            if let Some(pod) = &endpoint.pod {
                count(&mut self.services_of_pod, pod.clone(), key, add);
            }
        }
        if !add {
            for endpoint in slice.into_iter().flat_map(|slice| &slice.endpoints) {
                if self.services_of_address.get(&endpoint.address).is_some_and(BTreeMap::is_empty) {
                    self.services_of_address.remove(&endpoint.address);
                }
                if let Some(pod) = &endpoint.pod
                    && self.services_of_pod.get(pod).is_some_and(BTreeMap::is_empty)
                {
                    self.services_of_pod.remove(pod);
                }
            }
        }
    }

    /// Makes a service without a selector known at the addresses of its endpoints, for their inbound side.
    fn make_known(
        &mut self,
        key: &ServiceKey,
        service: Option<&Service>,
        made: &BTreeMap<u16, EndpointSet>,
        next: &mut Snapshot,
        change: &mut Change,
    ) {
        let has_no_selector = service.is_some_and(|service| service.selector.is_empty());
        let endpoints = made.values().flat_map(|set| &set.endpoints).filter(|_| has_no_selector);
        let new: BTreeSet<IpAddr> = endpoints
            .filter_map(|endpoint| match endpoint.address {
                EndpointAddress::Ip(address) => Some(address),
                EndpointAddress::Dns(_) | EndpointAddress::Unix(_) => None,
            })
            .collect();
        let old = self.served.remove(key).unwrap_or_default();
        next.services.set_endpoint_addresses(key, &old, &new);
        if old != new {
            change.namespaces.insert(key.namespace.clone());
        }
        if !new.is_empty() {
            self.served.insert(key.clone(), new);
        }
    }
}
