//! The services of the mesh, by every name and address that clients use for them.
//!
//! Fed by the index, one service for each namespace and hostname; read through [`crate::snapshot::Snapshot`].

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{Service, ServiceKey};
use crate::{
    host::HostMap,
    selector::{Labels, selects},
    store::Store,
};

/// Services that share a name or an address, the one that foreign clients prefer first.
type Candidates = Vec<Arc<Service>>;

/// How many ExternalName services a chain may have.
const MAX_ALIASES: usize = 10;

/// Services by hostname, address and selector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceTable {
    by_host: HostMap<Candidates>,
    by_address: Store<IpAddr, Candidates>,
    by_network: Arc<BTreeMap<IpNet, Candidates>>,
    /// By namespace and the first label of the selector.
    by_label: Store<Arc<str>, Candidates>,
    /// Services without a selector, by the addresses of their endpoints.
    by_endpoint: Store<IpAddr, BTreeSet<ServiceKey>>,
}

impl ServiceTable {
    /// The service with this key.
    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.by_host.get(&key.hostname)?.iter().find(|service| service.key == *key)
    }

    /// The services of this very hostname, one for each namespace that defines it.
    pub fn named(&self, hostname: &str) -> &[Arc<Service>] {
        self.by_host.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// Every service, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.values().flatten()
    }

    /// Adds or replaces a service; says whether that changed anything.
    pub fn set(&mut self, service: &Arc<Service>) -> bool {
        let old = self.get(&service.key).cloned();
        if old.as_ref() == Some(service) {
            return false;
        }
        if let Some(old) = old {
            self.edit_each(&old, |candidates| candidates.retain(|other| other.key != old.key));
        }
        self.edit_each(service, |candidates| {
            let at = candidates.partition_point(|other| preference(other, service).is_lt());
            candidates.insert(at, service.clone());
        });
        true
    }

    /// Removes a service; answers what it was.
    pub fn remove(&mut self, key: &ServiceKey) -> Option<Arc<Service>> {
        let old = self.get(key).cloned()?;
        self.edit_each(&old, |candidates| candidates.retain(|other| other.key != old.key));
        Some(old)
    }

    /// Says at which addresses a service without a selector has endpoints.
    pub fn set_endpoint_addresses(
        &mut self,
        key: &ServiceKey,
        old: &BTreeSet<IpAddr>,
        new: &BTreeSet<IpAddr>,
    ) {
        for address in old.difference(new) {
            self.by_endpoint.edit(address, |keys| _ = keys.remove(key));
        }
        for address in new.difference(old) {
            self.by_endpoint.edit(address, |keys| _ = keys.insert(key.clone()));
        }
    }

    /// The services of a namespace whose selector selects these labels.
    pub fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        labels
            .iter()
            .filter_map(move |(key, value)| self.by_label.get(&*label_key(namespace, key, value)))
            .flatten()
            .filter(move |service| selects(&service.selector, labels))
    }

    /// The services of a namespace without a selector that have an endpoint at this address.
    pub fn served_at<'a>(
        &'a self,
        namespace: &'a str,
        address: IpAddr,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let keys = self.by_endpoint.get(&address).into_iter().flatten();
        keys.filter(move |key| *key.namespace == *namespace).filter_map(|key| self.get(key))
    }

    /// The service that a client in `namespace` means by `host`: see [`crate::snapshot::Snapshot::service`].
    pub fn find(&self, namespace: &str, host: &str, domain: &str) -> Option<&Arc<Service>> {
        let mut service = self.find_once(namespace, host, domain)?;
        for _ in 0..MAX_ALIASES {
            let Some(target) = service.external_name.as_deref() else { return Some(service) };
            match best(self.by_host.get(target).map(Vec::as_slice), namespace) {
                Some(target) => service = target,
                None => return Some(service),
            }
        }
        None
    }

    /// Every service that a client sees, one for each hostname, ordered by hostname. Names that only stand for another
    /// service of the mesh are left out.
    pub fn visible(&self, namespace: &str) -> Vec<&Arc<Service>> {
        let is_alias = |service: &&Arc<Service>| {
            let target = service.external_name.as_deref().and_then(|name| self.by_host.get(name));
            best(target.map(Vec::as_slice), namespace).is_some()
        };
        let mut services: Vec<_> = self
            .by_host
            .values()
            .filter_map(|candidates| best(Some(candidates), namespace))
            .filter(|service| !is_alias(service))
            .collect();
        services.sort_unstable_by(|a, b| a.key.hostname.cmp(&b.key.hostname));
        services
    }

    fn find_once(&self, namespace: &str, host: &str, domain: &str) -> Option<&Arc<Service>> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = address.unwrap_or(&host).parse() {
            return self.find_address(namespace, address);
        }
        let forms = || forms(&host, namespace, domain);
        let exact = |name: &str| best(self.by_host.get(name).map(Vec::as_slice), namespace);
        forms()
            .find_map(|name| exact(&name))
            .or_else(|| forms().find_map(|name| self.find_headless(namespace, &name)))
            .or_else(|| self.by_host.matching(&host).find_map(|list| best(Some(list), namespace)))
    }

    /// The headless service of a name like `<pod>.<service>.<namespace>.svc.<domain>`.
    fn find_headless(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        let (_, parent) = name.split_once('.')?;
        best(self.by_host.get(parent).map(Vec::as_slice), namespace)
            .filter(|service| service.headless)
    }

    fn find_address(&self, namespace: &str, address: IpAddr) -> Option<&Arc<Service>> {
        best(self.by_address.get(&address).map(Vec::as_slice), namespace).or_else(|| {
            self.by_network
                .iter()
                .filter(|(network, _)| network.contains(&address))
                .filter_map(|(network, list)| Some((network, best(Some(list), namespace)?)))
                .max_by_key(|(network, _)| network.prefix_len())
                .map(|(_, service)| service)
        })
    }

    /// Edits the lists of everything that leads to a service.
    fn edit_each(&mut self, service: &Service, mut edit: impl FnMut(&mut Candidates)) {
        self.by_host.edit(&service.key.hostname, &mut edit);
        for address in service.addresses.iter().collect::<BTreeSet<_>>() {
            self.by_address.edit(address, &mut edit);
        }
        for network in service.networks.iter().collect::<BTreeSet<_>>() {
            let networks = Arc::make_mut(&mut self.by_network);
            let candidates = networks.entry(*network).or_default();
            edit(candidates);
            if candidates.is_empty() {
                networks.remove(network);
            }
        }
        if let Some((key, value)) = service.selector.iter().next() {
            let key = label_key(&service.key.namespace, key, value).into();
            self.by_label.edit(&key, edit);
        }
    }
}

fn label_key(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace}/{key}={value}")
}

/// Which of two services with a common name a client of neither namespace prefers (item 6).
fn preference(a: &Service, b: &Service) -> Ordering {
    let key = |service: &Service| (service.registry, service.created);
    key(a).cmp(&key(b)).then_with(|| a.key.cmp(&b.key))
}

/// The service of the client's own namespace, else the first that it sees.
fn best<'a>(candidates: Option<&'a [Arc<Service>]>, namespace: &str) -> Option<&'a Arc<Service>> {
    let mut visible =
        candidates?.iter().filter(|service| service.visibility.includes(namespace)).peekable();
    let first = visible.peek().copied();
    visible.find(|service| *service.key.namespace == *namespace).or(first)
}

/// The qualified names that a client may mean by a name, the most likely first (item 5).
fn forms(host: &str, namespace: &str, domain: &str) -> impl Iterator<Item = String> {
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    let qualified = match dots {
        0 => vec![format!("{host}.{namespace}.svc.{domain}")],
        _ if host.ends_with(".svc") => vec![format!("{host}.{domain}")],
        // `<service>.<namespace>`, or `<pod>.<headless service>`
        1 => vec![format!("{host}.svc.{domain}"), format!("{host}.{namespace}.svc.{domain}")],
        // `<pod>.<headless service>.<namespace>`
        2 => vec![format!("{host}.svc.{domain}")],
        _ => Vec::new(),
    };
    std::iter::once(host.to_owned()).chain(qualified)
}
