//! From what was said to what is in effect: warming, and the one swap.

use std::{collections::HashSet, sync::Arc, time::Instant};

use foldhash::HashMap;

use super::{
    Store,
    build::{self, Built},
    references::References,
    slot::{Accepted, Slot, Slots},
};
use crate::{
    config::{OnDemand, ProxyConfig, tls::SecretContent},
    shared::DemandKey,
};

/// Collects what slots name.
fn gather<T>(
    slots: &Slots<T>,
    names: &mut HashSet<Arc<str>>,
    of: impl Fn(&References) -> &[Arc<str>],
) {
    for references in slots.iter().flat_map(|(_, slot)| slot.references()) {
        for name in of(references) {
            if !names.contains(name) {
                names.insert(name.clone());
            }
        }
    }
}

impl Store {
    /// Brings the wanted names up to date, puts into effect what is complete, and gives the new configuration when
    /// anything that data threads see has changed. Whoever waits must be woken afterwards ([`Self::wake`]).
    pub fn publish(&mut self, now: Instant) -> Option<Arc<ProxyConfig>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        self.expire(now);
        self.want_referenced();
        self.set_secrets();
        self.build_clusters();
        self.promote();
        // What only the replaced versions named is not wanted any more.
        self.want_referenced();
        self.initialized |= self.is_initialized();
        let clusters = &self.clusters;
        self.built.retain(|name, _| clusters.contains(name));
        let config = self.config();
        if same(&config, &self.published) {
            return None;
        }
        self.published =
            Arc::new(ProxyConfig { generation: self.published.generation + 1, ..config });
        Some(self.published.clone())
    }

    /// Wakes those who wait for something that is answered now.
    pub fn wake(&mut self) {
        let published = &self.published;
        self.names.wake(|key| match key {
            DemandKey::Listener(name) => published.listeners.contains_key(name),
            DemandKey::VirtualHost(name) => published.virtual_hosts.contains_key(name),
        });
    }

    /// Gives up what was removed long enough ago; looks again later while there is more of it.
    fn expire(&mut self, now: Instant) {
        for (name, slot) in self.clusters.iter_mut() {
            if slot.expire(now) {
                self.built.remove(name);
            }
            self.dirty |= slot.is_removed();
        }
        for (_, slot) in self.endpoints.iter_mut() {
            slot.expire(now);
            self.dirty |= slot.is_removed();
        }
        for (_, slot) in self.routes.iter_mut() {
            slot.expire(now);
            self.dirty |= slot.is_removed();
        }
    }

    /// Wants what is named, and nothing else. Listeners and virtual hosts are wanted for themselves.
    fn want_referenced(&mut self) {
        let mut routes = HashSet::new();
        gather(&self.listeners, &mut routes, |references| &references.routes);
        self.routes.want_only(&routes);
        let mut clusters = self.kept.clone();
        gather(&self.listeners, &mut clusters, |references| &references.clusters);
        gather(&self.routes, &mut clusters, |references| &references.clusters);
        gather(&self.virtual_hosts, &mut clusters, |references| &references.clusters);
        self.clusters.want_only(&clusters);
        let mut secrets = HashSet::new();
        gather(&self.listeners, &mut secrets, |references| &references.secrets);
        gather(&self.clusters, &mut secrets, |references| &references.secrets);
        self.secrets.want_only(&secrets);
        let mut endpoints: HashSet<Arc<str>> =
            self.clusters.iter().filter_map(|(_, slot)| slot.latest()?.value.eds.clone()).collect();
        // A cluster that changes the name of its endpoints keeps the old ones until the new ones are there.
        endpoints
            .extend(self.clusters.iter().filter_map(|(_, slot)| slot.live()?.value.eds.clone()));
        self.endpoints.want_only(&endpoints);
        let names: HashSet<_> =
            build::names_to_resolve(&self.clusters).into_iter().map(|(name, _)| name).collect();
        self.addresses.retain(|name, _| names.contains(name));
    }

    /// Gives secrets their contents: whoever uses one has the new content at once.
    fn set_secrets(&mut self) {
        for (name, slot) in self.secrets.iter_mut() {
            slot.promote();
            self.decoder.set_secret(name, slot.live().map(|live| &live.value));
        }
    }

    /// Whether the control plane has answered for every secret that is named, be it that there is none.
    fn secrets_told(secrets: &Slots<SecretContent>, references: &References) -> bool {
        let told = |name: &Arc<str>| secrets.get(name).is_some_and(|slot| !slot.is_pending());
        references.secrets.iter().all(told)
    }

    /// Puts clusters together whose parts have all arrived.
    fn build_clusters(&mut self) {
        for (name, slot) in self.clusters.iter_mut() {
            let told =
                |accepted: &&Accepted<_>| Self::secrets_told(&self.secrets, &accepted.references);
            let complete = slot.latest().filter(told).and_then(|accepted| {
                build::parts(&accepted.value, &self.endpoints, &self.addresses)
            });
            let parts = match complete {
                Some(parts) => {
                    slot.promote();
                    Some(parts)
                }
                None => slot.live().and_then(|accepted| {
                    build::parts(&accepted.value, &self.endpoints, &self.addresses)
                }),
            };
            if let Some(parts) = parts {
                let old = self.built.remove(name);
                self.built.insert(name.clone(), Built::update(old, parts, &mut self.states));
            } else if slot.latest().is_none() {
                self.built.remove(name);
            }
        }
        for (_, slot) in self.endpoints.iter_mut() {
            slot.promote();
        }
    }

    /// Whether a cluster can be used, or is known not to exist. A newer version that still waits for its endpoints
    /// counts as not there: a route that comes with it may mean the new one.
    fn cluster_settled(&self, name: &str) -> bool {
        match self.clusters.get(name) {
            Some(slot) if slot.latest().is_some() => {
                self.built.contains_key(name) && !slot.is_warming()
            }
            Some(slot) => slot.is_absent(),
            None => false,
        }
    }

    fn promote(&mut self) {
        fn complete<T>(slots: &Slots<T>, ready: impl Fn(&References) -> bool) -> HashSet<Arc<str>> {
            slots
                .iter()
                .filter(|(_, slot)| slot.is_warming())
                .filter(|(_, slot)| {
                    slot.latest().is_some_and(|accepted| ready(&accepted.references))
                })
                .map(|(name, _)| name.clone())
                .collect()
        }
        fn promote<T>(slots: &mut Slots<T>, names: &HashSet<Arc<str>>) {
            for (_, slot) in slots.iter_mut().filter(|(name, _)| names.contains(*name)) {
                slot.promote();
            }
        }
        let clusters = |references: &References| {
            references.clusters.iter().all(|name| self.cluster_settled(name))
        };
        let routes = complete(&self.routes, clusters);
        let hosts = complete(&self.virtual_hosts, clusters);
        promote(&mut self.routes, &routes);
        promote(&mut self.virtual_hosts, &hosts);
        let listeners = complete(&self.listeners, |references| {
            let usable = |slot: &Slot<_>| slot.live().is_some() || slot.is_absent();
            references.clusters.iter().all(|name| self.cluster_settled(name))
                && Self::secrets_told(&self.secrets, references)
                && references.routes.iter().all(|name| self.routes.get(name).is_some_and(usable))
        });
        promote(&mut self.listeners, &listeners);
    }

    fn is_initialized(&self) -> bool {
        if self.every_listener {
            return self.listed && self.listeners.iter().all(|(_, slot)| !slot.is_warming());
        }
        let live = |name: &Arc<str>| self.listeners.get(name).is_some_and(|s| s.live().is_some());
        self.names.needed().all(live)
    }

    /// What is in effect; the generation is the published one's.
    fn config(&self) -> ProxyConfig {
        let listeners = on_demand(&self.listeners, |name| {
            self.names.last_used(&DemandKey::Listener(name.clone()))
        });
        let virtual_hosts = on_demand(&self.virtual_hosts, |name| {
            self.names.last_used(&DemandKey::VirtualHost(name.clone()))
        });
        let routes = self
            .routes
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), slot.live()?.value.clone())))
            .collect();
        let clusters =
            self.built.iter().map(|(name, built)| (name.clone(), built.cluster.clone())).collect();
        ProxyConfig {
            generation: self.published.generation,
            initialized: self.initialized,
            listeners,
            routes,
            virtual_hosts,
            clusters,
        }
    }
}

/// Slots in effect, or known to be absent.
fn on_demand<T>(
    slots: &Slots<T>,
    last_used: impl Fn(&Arc<str>) -> Arc<std::sync::atomic::AtomicU32>,
) -> HashMap<Arc<str>, Option<OnDemand<T>>> {
    slots
        .iter()
        .filter_map(|(name, slot)| match slot.live() {
            Some(live) => {
                let value = live.value.clone();
                Some((name.clone(), Some(OnDemand { value, last_used: last_used(name) })))
            }
            None => slot.is_absent().then(|| (name.clone(), None)),
        })
        .collect()
}

/// Whether data threads would see no difference.
fn same(a: &ProxyConfig, b: &ProxyConfig) -> bool {
    fn maps<T>(
        a: &HashMap<Arc<str>, T>,
        b: &HashMap<Arc<str>, T>,
        same: impl Fn(&T, &T) -> bool,
    ) -> bool {
        a.len() == b.len()
            && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
    }
    fn demanded<T>(a: &Option<OnDemand<T>>, b: &Option<OnDemand<T>>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => {
                Arc::ptr_eq(&a.value, &b.value) && Arc::ptr_eq(&a.last_used, &b.last_used)
            }
            (None, None) => true,
            _ => false,
        }
    }
    a.initialized == b.initialized
        && maps(&a.listeners, &b.listeners, demanded)
        && maps(&a.virtual_hosts, &b.virtual_hosts, demanded)
        && maps(&a.routes, &b.routes, Arc::ptr_eq)
        && maps(&a.clusters, &b.clusters, Arc::ptr_eq)
}
