//! The proxy's configuration: xDS resources in a compact immutable form, without protobuf types.
//!
//! Decoded on the control thread (`control::decode`), swapped as one [`ProxyConfig`], read by the data threads.
//! Invariant: a route that is here names only clusters that are here, or that the control plane says do not exist.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use foldhash::HashMap;

pub mod access_log;
pub mod cluster;
pub mod filter;
pub mod health;
pub mod http;
pub mod listener;
pub mod matcher;
pub mod rbac;
pub mod route;
pub mod tls;

use cluster::Cluster;
use listener::Listener;
use route::{RouteConfig, VirtualHost};

/// Everything that the proxy holds at one moment. Maps are small: a proxy holds what its workload calls.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// Counts up with every swap.
    pub generation: u64,
    /// Everything that the proxy asks for from its start on has been told and is in effect.
    pub initialized: bool,
    /// Listeners by name: `virtualInbound`, `http_proxy`, outbound ones, a gateway's. `None`: known to be absent.
    pub listeners: HashMap<Arc<str>, Option<OnDemand<Listener>>>,
    /// Route configurations by name.
    pub routes: HashMap<Arc<str>, Arc<RouteConfig>>,
    /// Virtual hosts fetched on first use, by the name asked: `<route configuration>/<authority>`. `None`: absent.
    pub virtual_hosts: HashMap<Arc<str>, Option<OnDemand<VirtualHost>>>,
    /// Clusters by name, with their endpoints.
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
}

/// A resource that was asked for by name, and when it was last of use.
#[derive(Debug)]
pub struct OnDemand<T> {
    /// The resource.
    pub value: Arc<T>,
    /// Seconds on the process's coarse clock; shared across configuration swaps.
    pub last_used: Arc<AtomicU32>,
}

impl<T> Clone for OnDemand<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), last_used: self.last_used.clone() }
    }
}

impl<T> OnDemand<T> {
    /// Notes a use. `now` is in seconds on the process's coarse clock.
    pub fn touch(&self, now: u32) {
        if self.last_used.load(Ordering::Relaxed) != now {
            self.last_used.store(now, Ordering::Relaxed);
        }
    }
}
