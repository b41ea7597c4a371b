//! What the proxy holds of the control plane's resources, and which of it is in effect.
//!
//! Fed by responses (`control::ads`) and wishes (`Demand`); publishes `ProxyConfig`. Synchronous, one owner.
//! Invariant: a route or listener takes effect only when every cluster that it names has arrived with its endpoints,
//! or is known to be absent; a cluster leaves after the last use of it, or a grace period after it was removed.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use weft_api::{
    type_url,
    xds::{
        envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource as PbResource},
        google::protobuf::Any,
    },
};

use super::decode::{Decoder, Invalid, cluster::DecodedCluster, endpoint::Assignment};
use crate::{
    config::{
        ProxyConfig,
        listener::Listener,
        route::{RouteConfig, VirtualHost},
        tls::SecretContent,
    },
    net::cluster::StateStore,
    settings::Subscribed,
    shared::{DemandKey, NamedService},
};

mod build;
mod on_demand;
mod publish;
mod references;
pub mod slot;

pub use on_demand::OnDemandLimits;
use on_demand::OnDemandNames;
use references::References;
use slot::{Slot, Slots};

/// The longest name that is asked for on demand: a host name with a port, and what stands before it.
const LONGEST_NAME: usize = 512;

/// Stands for every resource of a type that there is for the proxy.
const WILDCARD: &str = "*";

/// Removed clusters and endpoints that something still uses stay for so long: the update that drops the use is
/// usually the next message.
const REMOVAL_GRACE: Duration = Duration::from_secs(5);

/// The types of resources, in the order in which they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Route,
    VirtualHost,
    Secret,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
        Self::Secret,
    ];

    /// The xDS type.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::CLUSTER_LOAD_ASSIGNMENT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE_CONFIGURATION,
            Self::VirtualHost => type_url::VIRTUAL_HOST,
            Self::Secret => type_url::SECRET,
        }
    }

    /// The kind of an xDS type.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// A resource that was refused.
#[derive(Debug)]
pub struct Rejection {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What is wrong with it.
    pub invalid: Invalid,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    decoder: Decoder,
    states: StateStore,
    listeners: Slots<Listener>,
    routes: Slots<RouteConfig>,
    virtual_hosts: Slots<VirtualHost>,
    secrets: Slots<SecretContent>,
    clusters: Slots<DecodedCluster>,
    endpoints: Slots<Assignment>,
    built: HashMap<Arc<str>, build::Built>,
    addresses: HashMap<Box<str>, build::Addresses>,
    names: OnDemandNames,
    /// Clusters that are wanted whether anything names them or not.
    kept: HashSet<Arc<str>>,
    published: Arc<ProxyConfig>,
    /// Every listener is wanted, not only those that are named.
    every_listener: bool,
    /// The control plane has said which listeners there are.
    listed: bool,
    initialized: bool,
    /// Something has happened since the last publication.
    dirty: bool,
}

impl Store {
    /// An empty store that wants the listeners which the proxy asks for, and those of the named services.
    pub fn new(
        decoder: Decoder,
        subscribed: Subscribed,
        named: &[NamedService],
        limits: OnDemandLimits,
    ) -> Self {
        let needed = match subscribed {
            Subscribed::Named(names) => names,
            Subscribed::All => &[],
        };
        let names = OnDemandNames::new(needed, named, limits);
        let mut store = Self {
            decoder,
            states: StateStore::default(),
            listeners: Slots::default(),
            routes: Slots::with_grace(),
            virtual_hosts: Slots::default(),
            secrets: Slots::default(),
            clusters: Slots::with_grace(),
            endpoints: Slots::with_grace(),
            built: HashMap::new(),
            addresses: HashMap::new(),
            names,
            kept: HashSet::new(),
            published: Arc::default(),
            every_listener: subscribed == Subscribed::All,
            listed: false,
            initialized: false,
            dirty: true,
        };
        for name in store.names.fixed() {
            store.listeners.want(name);
        }
        store
    }

    /// Wants these clusters, whether anything names them or not.
    pub fn keep_clusters<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            let name = self.decoder.intern(name);
            self.clusters.want(&name);
            self.kept.insert(name);
        }
    }

    /// A listener or cluster with something that it names and that nobody has told of: for a configuration that is whole.
    pub fn unknown_reference(&self) -> Option<(Arc<str>, String)> {
        let listeners =
            self.listeners.iter().map(|(name, slot)| (name, slot.latest().map(|a| &a.references)));
        let clusters =
            self.clusters.iter().map(|(name, slot)| (name, slot.latest().map(|a| &a.references)));
        listeners.chain(clusters).find_map(|(name, references)| {
            let references = references?;
            let cluster = references
                .clusters
                .iter()
                .find(|name| self.clusters.get(name).is_none_or(|slot| slot.latest().is_none()))
                .map(|cluster| format!("cluster {cluster:?}"));
            let route =
                references.routes.first().map(|route| format!("route configuration {route:?}"));
            let secret = references
                .secrets
                .iter()
                .find(|name| self.secrets.get(name).is_none_or(|slot| slot.latest().is_none()))
                .map(|secret| format!("secret {secret:?}"));
            Some((name.clone(), cluster.or(route).or(secret)?))
        })
    }

    /// Takes a response in. The good resources are taken even when others are refused.
    pub fn apply(&mut self, response: &DeltaDiscoveryResponse, now: Instant) -> Vec<Rejection> {
        let Some(kind) = Kind::of(&response.type_url) else {
            return Vec::new();
        };
        self.dirty = true;
        if kind == Kind::Listener && self.every_listener {
            self.list(response);
        }
        let mut rejections = Vec::new();
        for resource in &response.resources {
            if let Err(invalid) = self.apply_resource(kind, resource) {
                rejections.push(Rejection {
                    name: resource.name.clone(),
                    version: resource.version.clone(),
                    invalid,
                });
            }
        }
        for name in &response.removed_resources {
            match kind {
                Kind::Cluster => self.clusters.remove(name, now),
                Kind::Endpoints => self.endpoints.remove(name, now),
                Kind::Listener => self.listeners.remove(name, now),
                Kind::Route => self.routes.remove(name, now),
                Kind::VirtualHost => self.virtual_hosts.remove(name, now),
                Kind::Secret => self.remove_secret(name, now),
            }
        }
        rejections
    }

    /// Wants the listeners that there are, and those not any more that are gone.
    fn list(&mut self, response: &DeltaDiscoveryResponse) {
        self.listed = true;
        for resource in &response.resources {
            let name = self.decoder.intern(&resource.name);
            self.listeners.want(&name);
        }
        for name in &response.removed_resources {
            self.listeners.forget(name);
        }
    }

    fn apply_resource(&mut self, kind: Kind, resource: &PbResource) -> Result<(), Invalid> {
        let names: Vec<&str> = std::iter::once(&resource.name)
            .chain(&resource.aliases)
            .map(String::as_str)
            .filter(|name| self.wants(kind, name))
            .collect();
        let Some(first) = names.first() else {
            // Nobody wants it any more: the answer crossed with the unsubscription.
            return Ok(());
        };
        let Some(body) = &resource.resource else {
            for name in names {
                match kind {
                    Kind::VirtualHost => self.virtual_hosts.remove(name, Instant::now()),
                    Kind::Listener => self.listeners.remove(name, Instant::now()),
                    Kind::Secret => self.remove_secret(name, Instant::now()),
                    _ => {}
                }
            }
            return Ok(());
        };
        let version = &resource.version;
        let decoder = &self.decoder;
        match kind {
            Kind::Cluster => {
                let value =
                    decode(body, |body| decoder.cluster(first, body), References::of_cluster);
                self.clusters.store(&names, version, value)
            }
            Kind::Endpoints => {
                let value = decoder.assignment(body).map(|value| (value, References::default()));
                self.endpoints.store(&names, version, value)
            }
            Kind::Listener => {
                let value =
                    decode(body, |body| decoder.listener(first, body), References::of_listener);
                self.listeners.store(&names, version, value)
            }
            Kind::Route => {
                let value = decode(
                    body,
                    |body| decoder.route_configuration(first, body),
                    References::of_route,
                );
                self.routes.store(&names, version, value)
            }
            Kind::VirtualHost => {
                let value = decode(
                    body,
                    |body| decoder.virtual_host(first, body),
                    References::of_virtual_host,
                );
                self.virtual_hosts.store(&names, version, value)
            }
            Kind::Secret => {
                let value = decoder.secret(first, body).map(|value| (value, References::default()));
                self.secrets.store(&names, version, value)
            }
        }
    }

    /// The listeners of a response whose addresses cannot be had, by what `check` says or because a listener before them
    /// wants the same. They stay, and their addresses are tried again; the control plane learns of it.
    pub fn unbindable(
        &self,
        response: &DeltaDiscoveryResponse,
        check: impl Fn(SocketAddr) -> io::Result<()>,
    ) -> Vec<Rejection> {
        if !self.every_listener || Kind::of(&response.type_url) != Some(Kind::Listener) {
            return Vec::new();
        }
        let binds = |slot: &Slot<Listener>| slot.latest().map(|latest| latest.value.binds.clone());
        let failure = |name: &str| {
            let own = binds(self.listeners.get(name)?)?;
            own.into_iter().find_map(|address| {
                let earlier = self.listeners.iter().find(|(other, slot)| {
                    &***other < name && binds(slot).is_some_and(|all| all.contains(&address))
                });
                match earlier {
                    Some((other, _)) => {
                        Some(Invalid::bind(address, &format!("listener {other} has it")))
                    }
                    None => check(address).err().map(|error| Invalid::bind(address, &error)),
                }
            })
        };
        response
            .resources
            .iter()
            .filter_map(|resource| {
                let invalid = failure(&resource.name)?;
                let (name, version) = (resource.name.clone(), resource.version.clone());
                Some(Rejection { name, version, invalid })
            })
            .collect()
    }

    /// A secret that is taken away while something uses it stays as it was: what uses it goes first.
    fn remove_secret(&mut self, name: &str, now: Instant) {
        let held = self.secrets.get(name).is_some_and(|slot| slot.latest().is_some());
        if !held {
            self.secrets.remove(name, now);
        }
    }

    fn wants(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Cluster => self.clusters.contains(name),
            Kind::Endpoints => self.endpoints.contains(name),
            Kind::Listener => self.listeners.contains(name),
            Kind::Route => self.routes.contains(name),
            Kind::VirtualHost => self.virtual_hosts.contains(name),
            Kind::Secret => self.secrets.contains(name),
        }
    }

    /// The names of a type that are wanted now. A name that was dropped and wanted again has another number.
    pub fn wanted(&self, kind: Kind) -> HashMap<Arc<str>, u64> {
        match kind {
            Kind::Cluster => self.clusters.names(),
            Kind::Endpoints => self.endpoints.names(),
            Kind::Listener if self.every_listener => [(Arc::from(WILDCARD), 0)].into(),
            Kind::Listener => self.listeners.names(),
            Kind::Route => self.routes.names(),
            Kind::VirtualHost => self.virtual_hosts.names(),
            Kind::Secret => self.secrets.names(),
        }
    }

    /// The versions that are held, for the first request of a new stream.
    pub fn versions(&self, kind: Kind) -> HashMap<String, String> {
        match kind {
            Kind::Cluster => self.clusters.versions(),
            Kind::Endpoints => self.endpoints.versions(),
            Kind::Listener => self.listeners.versions(),
            Kind::Route => self.routes.versions(),
            Kind::VirtualHost => self.virtual_hosts.versions(),
            Kind::Secret => self.secrets.versions(),
        }
    }

    /// Notes a wish. `ready` fires at the next publication that answers it, or at once when it is answered already.
    pub fn demand(&mut self, key: &DemandKey, ready: oneshot::Sender<()>, now: u32) {
        // What was dropped since the last publication is not an answer any more.
        let answered = match key {
            DemandKey::Listener(name) => {
                self.listeners.contains(name) && self.published.listeners.contains_key(name)
            }
            DemandKey::VirtualHost(name) => {
                self.virtual_hosts.contains(name) && self.published.virtual_hosts.contains_key(name)
            }
        };
        if answered {
            let _ = ready.send(());
            return;
        }
        if name_of(key).len() > LONGEST_NAME {
            // Nobody has such a name; who waits learns it by the sender's end.
            return;
        }
        self.make_room(key);
        let key = match key {
            DemandKey::Listener(name) => DemandKey::Listener(self.decoder.intern(name)),
            DemandKey::VirtualHost(name) => DemandKey::VirtualHost(self.decoder.intern(name)),
        };
        match &key {
            DemandKey::Listener(name) => self.listeners.want(name),
            DemandKey::VirtualHost(name) => self.virtual_hosts.want(name),
        }
        self.names.wait(&key, ready, now);
        self.dirty = true;
    }

    fn make_room(&mut self, key: &DemandKey) {
        let victims = self.names.make_room(key, |key| self.worth(key));
        if victims.is_empty() {
            return;
        }
        for victim in &victims {
            self.forget(victim);
        }
        self.decoder.forget_unused_names();
    }

    /// How much it would cost to lose a name: those that are known to be absent cost least.
    fn worth(&self, key: &DemandKey) -> u8 {
        fn of<T>(slot: Option<&Slot<T>>) -> u8 {
            match slot {
                Some(slot) if slot.live().is_some_and(|live| live.references.any_cluster()) => 2,
                Some(slot) if slot.is_pending() => 1,
                _ => 0,
            }
        }
        match key {
            DemandKey::Listener(name) => of(self.listeners.get(name)),
            DemandKey::VirtualHost(name) => of(self.virtual_hosts.get(name)),
        }
    }

    /// Drops names that were not used for long; true when there were any.
    pub fn drop_idle(&mut self, now: u32) -> bool {
        let idle = self.names.idle(now);
        for key in &idle {
            self.forget(key);
        }
        if !idle.is_empty() {
            self.decoder.forget_unused_names();
        }
        !idle.is_empty()
    }

    fn forget(&mut self, key: &DemandKey) {
        self.dirty = true;
        self.names.remove(key);
        match key {
            DemandKey::Listener(name) => self.listeners.forget(name),
            DemandKey::VirtualHost(name) => self.virtual_hosts.forget(name),
        }
    }

    /// Names that clusters need addresses of, and how often they are looked up.
    pub fn names_to_resolve(&self) -> Vec<(Box<str>, Duration)> {
        build::names_to_resolve(&self.clusters)
    }

    /// Takes the addresses of a name in; what was known stays when there are none.
    pub fn resolved(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.dirty = true;
        build::resolved(&mut self.addresses, name, addresses);
    }

    /// What is in effect.
    pub fn published(&self) -> &Arc<ProxyConfig> {
        &self.published
    }

    /// Everything that is known of a type, for administration.
    pub fn overview(&self, kind: Kind) -> Vec<slot::Overview> {
        match kind {
            Kind::Cluster => self.clusters.overview(),
            Kind::Endpoints => self.endpoints.overview(),
            Kind::Listener => self.listeners.overview(),
            Kind::Route => self.routes.overview(),
            Kind::VirtualHost => self.virtual_hosts.overview(),
            Kind::Secret => self.secrets.overview(),
        }
    }
}

fn name_of(key: &DemandKey) -> &str {
    match key {
        DemandKey::Listener(name) | DemandKey::VirtualHost(name) => name,
    }
}

fn decode<T>(
    body: &Any,
    decode: impl FnOnce(&Any) -> Result<T, Invalid>,
    references: impl FnOnce(&T) -> References,
) -> Result<(T, References), Invalid> {
    let value = decode(body)?;
    let references = references(&value);
    Ok((value, references))
}

#[cfg(test)]
mod tests;
