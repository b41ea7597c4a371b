//! What a data thread has: its view of the configuration, its upstream connections, its counters, its connections.
//!
//! Made by [`run`](super::run), held in an `Rc` by everything that runs on the thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use arc_swap::{ArcSwap, Cache};
use foldhash::HashMap;
use tokio::sync::{Notify, watch};

use super::{
    bell::Bell,
    counters::{HttpCounters, ListenerCounters, RateLimitCounters, RbacCounters},
};
use crate::{
    config::ProxyConfig,
    http::{head::names, telemetry::Handles},
    net::{
        peer::{OwnMetadata, Peers},
        tls::TlsContexts,
        upstreams::Upstreams,
    },
    shared::{Lifecycle, Shared},
};

/// A connection without a request yet may bring its first for so long after draining has begun: it may be under way.
pub const LAST_CHANCE: Duration = Duration::from_secs(1);

/// A data thread's state.
#[derive(Debug)]
pub struct Thread {
    /// Its number.
    pub index: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Upstream connections and choices.
    pub upstreams: Rc<Upstreams>,
    /// What this workload tells its peers.
    pub own: OwnMetadata,
    /// What peers told.
    pub peers: Peers,
    /// Metrics of traffic.
    pub handles: Handles,
    config: ConfigCache,
    listeners: ByPrefix<ListenerCounters>,
    http: ByPrefix<HttpCounters>,
    rbac: ByPrefix<RbacCounters>,
    rate_limits: ByPrefix<RateLimitCounters>,
    /// Tells connections of the lifecycle.
    pub bell: Rc<Bell>,
    connections: Cell<usize>,
    idle: Notify,
}

/// The configuration as this thread saw it last.
struct ConfigCache(RefCell<Cache<Arc<ArcSwap<ProxyConfig>>, Arc<ProxyConfig>>>);

impl std::fmt::Debug for ConfigCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConfigCache")
    }
}

impl Thread {
    /// A thread without connections; to be called in its runtime, which can have tasks of the thread alone.
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let bell = Rc::new(Bell::default());
        tokio::task::spawn_local(bell.clone().follow(shared.lifecycle.clone()));
        let own = OwnMetadata::new(&shared.node);
        Rc::new(Self {
            index,
            upstreams: Upstreams::new(shared.identity.clone()),
            handles: Handles::new(shared.stats.thread(), own.workload.clone()),
            own,
            peers: Peers::default(),
            config: ConfigCache(RefCell::new(Cache::new(shared.config.clone()))),
            shared,
            listeners: RefCell::default(),
            http: RefCell::default(),
            rbac: RefCell::default(),
            rate_limits: RefCell::default(),
            bell,
            connections: Cell::new(0),
            idle: Notify::new(),
        })
    }

    /// The configuration in effect: one generation check, no lock.
    pub fn config(&self) -> Arc<ProxyConfig> {
        self.config.0.borrow_mut().load().clone()
    }

    /// TLS configurations.
    pub fn tls(&self) -> &TlsContexts {
        self.upstreams.tls()
    }

    /// A view of the lifecycle that can be awaited.
    pub fn lifecycle_changes(&self) -> watch::Receiver<Lifecycle> {
        self.shared.lifecycle.clone()
    }

    /// Completes when a connection that has not asked for anything yet has to go: [`LAST_CHANCE`] after draining began.
    pub async fn last_chance(&self) {
        let place = self.bell.place();
        poll_fn(|cx| match place.listen(cx) {
            Lifecycle::Running | Lifecycle::Leaving => Poll::Pending,
            Lifecycle::Draining | Lifecycle::Stopping => Poll::Ready(()),
        })
        .await;
        tokio::time::sleep(LAST_CHANCE).await;
    }

    /// Counts a connection until the guard is dropped.
    pub fn track(self: &Rc<Self>) -> ConnectionGuard {
        self.connections.set(self.connections.get() + 1);
        ConnectionGuard { thread: self.clone() }
    }

    /// Waits until no connection is open.
    pub async fn until_idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.connections.get() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Tells a peer who this workload is.
    pub fn add_own_metadata(&self, headers: &mut HeaderMap) {
        for (name, value) in self.own_metadata() {
            headers.insert(name, value);
        }
    }

    /// The headers that tell who this workload is.
    pub fn own_metadata(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let told = !self.shared.settings.standalone;
        let fields = told.then(|| {
            let (id, value) = (self.own.id.clone(), self.own.value.clone());
            [(names::PEER_METADATA_ID, id), (names::PEER_METADATA, value)]
        });
        fields.into_iter().flatten()
    }

    /// One more of what is counted under this name. For what happens rarely.
    pub fn count(&self, name: &str) {
        self.handles.stats().counter(name).inc();
    }

    /// What a bound listener counts. Those that are only names of destinations count nothing: there may be many.
    pub fn listener_counters(&self, name: &str) -> Rc<ListenerCounters> {
        found(&self.listeners, name, || ListenerCounters::new(self.handles.stats(), name))
    }

    /// What connection managers with this prefix count.
    pub fn http_counters(&self, prefix: &str) -> Rc<HttpCounters> {
        found(&self.http, prefix, || HttpCounters::new(self.handles.stats(), prefix))
    }

    /// What network policies with this prefix count.
    pub fn network_rbac(&self, prefix: &str) -> Rc<RbacCounters> {
        found(&self.rbac, prefix, || RbacCounters::new(self.handles.stats(), prefix))
    }

    /// What local rate limits with this prefix count.
    pub fn rate_limit(&self, prefix: &str) -> Rc<RateLimitCounters> {
        found(&self.rate_limits, prefix, || RateLimitCounters::new(self.handles.stats(), prefix))
    }
}

/// Counters by prefix. There are as many as there are prefixes in listeners: few.
type ByPrefix<T> = RefCell<HashMap<Box<str>, Rc<T>>>;

fn found<T>(held: &ByPrefix<T>, prefix: &str, make: impl FnOnce() -> T) -> Rc<T> {
    if let Some(found) = held.borrow().get(prefix) {
        return found.clone();
    }
    let made = Rc::new(make());
    held.borrow_mut().insert(prefix.into(), made.clone());
    made
}

/// A connection that is counted.
#[derive(Debug)]
pub struct ConnectionGuard {
    thread: Rc<Thread>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let left = self.thread.connections.get().saturating_sub(1);
        self.thread.connections.set(left);
        if left == 0 {
            self.thread.idle.notify_waiters();
        }
    }
}
