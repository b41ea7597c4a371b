//! A data thread's view of its clusters: choosing an endpoint, and sending requests or opening connections there.
//!
//! One [`Upstreams`] per data thread. [`Upstreams::get`] follows the configuration: a cluster that changed gets a new
//! [`ClusterRuntime`], which takes over the connections that are still of use.

use std::{
    cell::RefCell, collections::HashSet, net::SocketAddr, rc::Rc, sync::Arc, time::Duration,
};

use arc_swap::ArcSwapOption;
use foldhash::HashMap;
use http::{Request, Response};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    body::RequestBody,
    clock,
    cluster::{EndpointState, Permit, count, lb::Balancer, outlier::Outcome},
    outbound::Outbound,
    pool::{
        self, PoolKey, PoolSet, ResponseBody,
        connect::{Connection, Connector, report},
    },
    tls::TlsContexts,
};
use crate::{
    config::{
        ProxyConfig,
        cluster::{Cluster, Discovery, Endpoint, LbPolicy, TransportSocket, UpstreamProtocol},
        tls::Carries,
    },
    identity::Identity,
};

mod error;

pub use error::{BodyError, Cause, ErrorKind, UpstreamError};

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// Endpoints of their own that connections without a told endpoint may have at once, per cluster and thread.
const MAX_ORIGINAL: usize = 1_024;

/// A data thread's clusters.
#[derive(Debug)]
pub struct Upstreams {
    tls: Rc<TlsContexts>,
    clusters: RefCell<HashMap<Arc<str>, Rc<ClusterRuntime>>>,
}

impl Upstreams {
    /// For one data thread; to be called in its runtime (idle connections are looked after by a task of its own).
    pub fn new(identity: Arc<ArcSwapOption<Identity>>) -> Rc<Self> {
        let upstreams = Rc::new(Self {
            tls: Rc::new(TlsContexts::new(identity)),
            clusters: RefCell::default(),
        });
        let weak = Rc::downgrade(&upstreams);
        tokio::task::spawn_local(async move {
            let mut ticks = interval(SWEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(upstreams) = weak.upgrade() else { return };
                upstreams.sweep();
            }
        });
        upstreams
    }

    /// The thread's TLS configurations; acceptors use them too.
    pub fn tls(&self) -> &Rc<TlsContexts> {
        &self.tls
    }

    /// The cluster of this name in the configuration's version; `None` when it does not exist (`NC`).
    pub fn get(&self, config: &ProxyConfig, name: &str) -> Option<Rc<ClusterRuntime>> {
        let cluster = config.clusters.get(name)?;
        let mut clusters = self.clusters.borrow_mut();
        if let Some(runtime) = clusters.get(name)
            && Arc::ptr_eq(&runtime.cluster, cluster)
        {
            return Some(runtime.clone());
        }
        let previous = clusters.get(name).map(Rc::as_ref);
        let runtime = Rc::new(ClusterRuntime::new(cluster.clone(), self.tls.clone(), previous));
        clusters.insert(cluster.name.clone(), runtime.clone());
        Some(runtime)
    }

    /// Lets go of clusters and endpoints that the configuration does not have any more: idle connections are closed
    /// now, others after use. To be called when the configuration was swapped.
    pub fn reconcile(&self, config: &ProxyConfig) {
        let names: Vec<Arc<str>> = {
            let mut clusters = self.clusters.borrow_mut();
            clusters.retain(|name, _| config.clusters.contains_key(name));
            clusters.keys().cloned().collect()
        };
        for name in names {
            self.get(config, &name);
        }
    }

    fn sweep(&self) {
        for runtime in self.clusters.borrow().values() {
            // A request that began before its endpoint left may have made a pool since.
            runtime.prune();
            runtime.pools.sweep();
        }
    }
}

/// A cluster as one data thread uses it.
#[derive(Debug)]
pub struct ClusterRuntime {
    cluster: Arc<Cluster>,
    balancer: Balancer,
    pools: Rc<PoolSet>,
    tls: Rc<TlsContexts>,
    /// Endpoints of clusters that take the connection's own destination.
    original: RefCell<HashMap<SocketAddr, Arc<Endpoint>>>,
}

/// What the choice of an endpoint may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// For consistent hashing ([`super::cluster::hash`]); `None` chooses at random.
    pub hash: Option<u64>,
    /// The connection's own destination, for clusters that use it.
    pub destination: Option<SocketAddr>,
    /// Endpoints that were tried and are avoided where there are others.
    pub exclude: &'a [SocketAddr],
    /// The client speaks HTTP/2, for clusters that speak what the client speaks.
    pub http2: bool,
    /// The request's authority, for TLS settings that take their server name from it.
    pub authority: Option<&'a str>,
}

/// Why no endpoint could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// There is none, or none that is healthy (`UH`).
    #[error("no healthy upstream")]
    NoHealthyUpstream,
    /// The cluster takes the connection's own destination, and there is none (`UH`).
    #[error("the connection has no original destination")]
    NoDestination,
}

impl ClusterRuntime {
    fn new(cluster: Arc<Cluster>, tls: Rc<TlsContexts>, previous: Option<&Self>) -> Self {
        let kept = previous.filter(|previous| same_transport(&previous.cluster, &cluster));
        let pools = kept.map(|previous| previous.pools.clone()).unwrap_or_default();
        let balancer = Balancer::new(cluster.clone());
        let runtime = Self { cluster, balancer, pools, tls, original: RefCell::default() };
        runtime.prune();
        runtime
    }

    /// Closes the pools of endpoints that are not there any more.
    fn prune(&self) {
        if self.cluster.discovery != Discovery::OriginalDestination && !self.pools.is_empty() {
            let endpoints: HashSet<(SocketAddr, Option<usize>)> =
                self.cluster.endpoints.all.iter().map(|e| (e.address, e.transport)).collect();
            self.pools.retain(|key| endpoints.contains(&(key.address, key.transport)));
        }
    }

    /// The configuration.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    /// None is available.
    pub fn pick(self: &Rc<Self>, context: &PickContext<'_>) -> Result<Picked, PickError> {
        let original = self.cluster.discovery == Discovery::OriginalDestination
            || self.cluster.lb == LbPolicy::ClusterProvided;
        let endpoint = if original {
            let destination = context.destination.ok_or(PickError::NoDestination)?;
            // What is known of an endpoint counts although the client chose it.
            let known = self.cluster.endpoints.all.iter().find(|e| e.address == destination);
            known.cloned().unwrap_or_else(|| self.original(destination))
        } else {
            self.balancer.pick(context.hash, context.exclude, clock::now_ms()).ok_or_else(|| {
                count(&self.cluster.state.totals.upstream_cx_none_healthy);
                PickError::NoHealthyUpstream
            })?
        };
        let http2 = match self.cluster.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Downstream => context.http2,
        };
        let auto_sni = endpoint
            .transport
            .and_then(|index| self.cluster.transports.get(index)?.tls.as_ref())
            .is_some_and(|tls| tls.auto_sni);
        let server_name = context.authority.filter(|_| auto_sni).map(Into::into);
        Ok(Picked { runtime: self.clone(), endpoint, http2, server_name, repeated: false })
    }

    /// A place for a retry under the cluster's budget; `None` when it is used up (`URX`, counted).
    pub fn retry(&self) -> Option<Permit> {
        self.cluster.state.retry(&self.cluster.limits)
    }

    /// An endpoint for a connection's own destination. Its state is this thread's and lasts while it is in use.
    fn original(&self, address: SocketAddr) -> Arc<Endpoint> {
        let mut original = self.original.borrow_mut();
        if let Some(endpoint) = original.get(&address) {
            return endpoint.clone();
        }
        if original.len() >= MAX_ORIGINAL {
            original.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let plain: fn(&TransportSocket) -> bool = |transport| transport.matches.is_empty();
        let endpoint = Arc::new(Endpoint {
            address,
            hostname: None,
            priority: 0,
            weight: 1,
            healthy: true,
            transport: self.cluster.transports.iter().position(plain),
            locality: Default::default(),
            workload: None,
            state: Arc::<EndpointState>::default(),
        });
        original.insert(address, endpoint.clone());
        endpoint
    }
}

/// Whether connections made for one version of a cluster serve the other as well.
fn same_transport(a: &Cluster, b: &Cluster) -> bool {
    let sockets = |(a, b): (&TransportSocket, &TransportSocket)| match (&a.tls, &b.tls) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    a.protocol == b.protocol
        && a.tcp_keepalive == b.tcp_keepalive
        && a.bind_source == b.bind_source
        && a.http2_keepalive == b.http2_keepalive
        && a.transports.len() == b.transports.len()
        && a.transports.iter().zip(&b.transports).all(sockets)
        && Arc::ptr_eq(&a.state, &b.state)
}

/// A chosen endpoint.
#[derive(Clone, Debug)]
pub struct Picked {
    runtime: Rc<ClusterRuntime>,
    endpoint: Arc<Endpoint>,
    http2: bool,
    server_name: Option<Box<str>>,
    repeated: bool,
}

impl Picked {
    /// For a request that was sent before and failed.
    pub fn again(self) -> Self {
        Self { repeated: true, ..self }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// The cluster that it is of.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.runtime.cluster
    }

    /// Whether the endpoint is spoken to in TLS with the workload's own certificate.
    pub fn is_mutual_tls(&self) -> bool {
        self.endpoint
            .transport
            .and_then(|index| self.runtime.cluster.transports.get(index)?.tls.as_ref())
            .is_some_and(|tls| tls.identity.is_some())
    }

    fn connector(&self, carries: Carries) -> Connector {
        Connector {
            endpoint: self.endpoint.clone(),
            tls: self.runtime.tls.clone(),
            server_name: self.server_name.clone(),
            carries,
        }
    }

    /// The same for a request with an absolute URI (scheme, authority, path): `Host` or `:authority` and the version are
    /// set from it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn request(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let (parts, body) = request.into_parts();
        self.send(Outbound::of(&parts), body).await
    }

    /// Sends a request and waits for the response's head. Hop-by-hop headers are the caller's to remove.
    ///
    /// Dropping the future gives the request up. What the attempt came to is reported to outlier detection, except for
    /// a timeout of the caller's: see [`Self::timed_out`].
    ///
    /// # Errors
    /// See [`UpstreamError`]: a circuit breaker, the connection, or the exchange.
    pub async fn send(
        &self,
        request: Outbound<'_>,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let key = PoolKey {
            address: self.endpoint.address,
            http2: self.http2,
            transport: self.endpoint.transport,
            server_name: self.server_name.clone(),
        };
        let carries = if self.http2 { Carries::Http2 } else { Carries::Http1 };
        let pool = self.runtime.pools.get(key, &self.runtime.cluster, || self.connector(carries));
        pool::send(&pool, request, body, self.repeated).await
    }

    /// Opens a connection of its own, for bytes.
    ///
    /// # Errors
    /// The circuit breaker for connections is open, or the connection could not be made.
    pub async fn connect(&self) -> Result<Connection, UpstreamError> {
        let cluster = &self.runtime.cluster;
        let Some(permit) = cluster.state.connection(&cluster.limits, false) else {
            return Err(UpstreamError::unsent(ErrorKind::Overflow));
        };
        self.connector(Carries::Bytes).connect(cluster, permit).await.map_err(|failure| {
            UpstreamError { source: failure.source, ..UpstreamError::unsent(failure.kind) }
        })
    }

    /// The caller gave up waiting for a response (`per_try`: for this attempt, else for the whole request).
    pub fn timed_out(&self, per_try: bool) {
        let cluster = &self.runtime.cluster;
        let totals = &cluster.state.totals;
        count(if per_try {
            &totals.upstream_rq_per_try_timeout
        } else {
            &totals.upstream_rq_timeout
        });
        count(&self.endpoint.state.rq_error);
        report(cluster, &self.endpoint, Outcome::TimedOut);
    }
}

#[cfg(test)]
mod tests;
