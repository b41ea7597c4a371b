//! Upstream HTTP connections of one data thread: by endpoint, reused, bounded by the cluster's circuit breakers.
//!
//! A request takes an idle HTTP/1 connection or a stream of an HTTP/2 connection, or waits in the endpoint's queue
//! while a connection is made for it; whichever connection is free first serves the queue. A connection that the
//! endpoint has closed is noticed when it closes, and looked for before it is used; a request that comes back unsent goes to
//! another connection.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Waker},
};

use foldhash::HashMap;
use tokio::{sync::oneshot, time::Instant};

use super::{
    cluster::count,
    upstreams::{ErrorKind, UpstreamError},
};
use crate::config::cluster::Cluster;

mod call;
pub mod connect;
mod exchange;
mod http1;
mod http2;
pub mod io;
mod response;
mod stream;
mod tunnel;

pub use exchange::send;
pub use response::ResponseBody;
pub use tunnel::Tunnel;

use connect::{Connection, Connector};

/// HTTP/2 streams that an endpoint is assumed to allow until it says so.
const ASSUMED_STREAMS: usize = 100;

/// What connections are kept apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The endpoint.
    pub address: SocketAddr,
    /// What is spoken unless ALPN says otherwise.
    pub http2: bool,
    /// The endpoint's transport socket.
    pub transport: Option<usize>,
    /// The server name where it is the request's authority.
    pub server_name: Option<Box<str>>,
}

/// The pools of one version of a cluster's transport settings.
#[derive(Debug, Default)]
pub struct PoolSet {
    pools: RefCell<HashMap<PoolKey, Rc<Pool>>>,
}

impl PoolSet {
    /// The endpoint's pool, made when it is missing.
    pub fn get(
        &self,
        key: PoolKey,
        cluster: &Arc<Cluster>,
        connector: impl FnOnce() -> Connector,
    ) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(&key) {
            if !Arc::ptr_eq(&pool.cluster.borrow(), cluster) {
                pool.cluster.replace(cluster.clone());
            }
            return pool.clone();
        }
        let pool = Rc::new(Pool::new(connector(), cluster.clone()));
        pools.insert(key, pool.clone());
        pool
    }

    /// Closes the pools of endpoints that are not there any more: idle connections at once, others after use.
    pub fn retain(&self, keep: impl Fn(&PoolKey) -> bool) {
        self.pools.borrow_mut().retain(|key, pool| {
            let keep = keep(key);
            if !keep {
                pool.close();
            }
            keep
        });
    }

    /// Closes connections that were idle, or lived, for too long.
    pub fn sweep(&self) {
        self.pools.borrow_mut().retain(|_, pool| {
            pool.sweep();
            !pool.is_unused() || Rc::strong_count(pool) > 1
        });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pools.borrow().is_empty()
    }

    /// Connections that are held now.
    pub fn connections(&self) -> usize {
        self.pools.borrow().values().map(|pool| pool.size.get()).sum()
    }
}

impl Drop for PoolSet {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

/// The connections to one endpoint.
#[derive(Debug)]
pub struct Pool {
    connector: Connector,
    /// The cluster's newest version.
    cluster: RefCell<Arc<Cluster>>,
    #[expect(clippy::vec_box, reason = "they change hands several times with each request")]
    idle: RefCell<Vec<Box<http1::Idle>>>,
    streams: RefCell<Vec<Rc<http2::Shared>>>,
    /// Wakes the task that looks at idle HTTP/1 connections when their endpoints say something.
    listener: RefCell<Option<Waker>>,
    listening: Cell<bool>,
    waiters: RefCell<VecDeque<oneshot::Sender<Handout>>>,
    /// Connections being made.
    connecting: Cell<usize>,
    /// Connections that are made and not closed.
    size: Cell<usize>,
    /// Streams at once that the endpoint allowed last.
    allowed_streams: Cell<usize>,
    closed: Cell<bool>,
}

/// What a waiter gets.
type Handout = Result<Lease, Rc<ConnectFailure>>;

/// A connection that could not be made.
#[derive(Debug)]
pub struct ConnectFailure {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The cause.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The use of a connection for one request.
#[derive(Debug)]
pub enum Lease {
    /// A whole HTTP/1 connection.
    Http1(http1::Lease),
    /// A stream of an HTTP/2 connection.
    Http2(http2::Lease),
}

impl Pool {
    fn new(connector: Connector, cluster: Arc<Cluster>) -> Self {
        Self {
            connector,
            cluster: RefCell::new(cluster),
            idle: RefCell::default(),
            streams: RefCell::default(),
            listener: RefCell::default(),
            listening: Cell::new(false),
            waiters: RefCell::default(),
            connecting: Cell::new(0),
            size: Cell::new(0),
            allowed_streams: Cell::new(ASSUMED_STREAMS),
            closed: Cell::new(false),
        }
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.cluster.borrow().clone()
    }

    /// A connection for one request: idle, or the first that is free or made. `care`: see `http1::revive`.
    ///
    /// # Errors
    /// A circuit breaker is open, or the connection could not be made.
    pub async fn lease(self: &Rc<Self>, care: bool) -> Result<Lease, UpstreamError> {
        let cluster = self.cluster();
        while let Some(idle) = self.pop_idle() {
            if let Some(lease) = http1::revive(idle, self, &cluster, care).await {
                return Ok(Lease::Http1(lease));
            }
        }
        if let Some(lease) = self.stream(&cluster) {
            return Ok(Lease::Http2(lease));
        }
        let Some(pending) = cluster.state.pending(&cluster.limits) else {
            return Err(UpstreamError::unsent(ErrorKind::Overflow));
        };
        let (sender, receiver) = oneshot::channel();
        self.waiters.borrow_mut().push_back(sender);
        self.grow();
        let handout = receiver.await;
        drop(pending);
        match handout {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(failure)) => Err(UpstreamError {
                source: failure.source.clone(),
                ..UpstreamError::unsent(failure.kind)
            }),
            Err(_) => Err(UpstreamError::unsent(ErrorKind::Connect)),
        }
    }

    fn pop_idle(&self) -> Option<Box<http1::Idle>> {
        self.idle.borrow_mut().pop()
    }

    /// A stream of a connection that has room.
    fn stream(self: &Rc<Self>, cluster: &Cluster) -> Option<http2::Lease> {
        let mut streams = self.streams.borrow_mut();
        streams.retain(|connection| connection.is_usable(cluster));
        streams
            .iter()
            .filter(|connection| connection.has_room(cluster))
            .min_by_key(|connection| connection.active())
            .map(|connection| http2::Lease::new(connection, self))
    }

    /// Begins a connection when those that wait need one more, as far as the circuit breaker allows.
    fn grow(self: &Rc<Self>) {
        let cluster = self.cluster();
        // Whoever went away in the meantime needs none.
        self.waiters.borrow_mut().retain(|waiter| !waiter.is_closed());
        let streams = match self.connector.is_http2() {
            true => self.allowed_streams.get().min(cluster.max_concurrent_streams as usize).max(1),
            false => 1,
        };
        let enough = self.waiters.borrow().len().div_ceil(streams);
        if self.connecting.get() >= enough {
            return;
        }
        let first = self.connecting.get() + self.size.get() == 0;
        let Some(permit) = cluster.state.connection(&cluster.limits, first) else { return };
        self.connecting.set(self.connecting.get() + 1);
        let (pool, connector) = (Rc::downgrade(self), self.connector.clone());
        tokio::task::spawn_local(async move {
            let made = connector.connect(&cluster, permit).await;
            let Some(pool) = pool.upgrade() else { return };
            let made = match made {
                Ok(connection) => {
                    pool.join(connection, &cluster);
                    Ok(())
                }
                Err(failure) => Err(failure),
            };
            pool.connecting.set(pool.connecting.get().saturating_sub(1));
            match made {
                Ok(()) => pool.serve(),
                Err(failure) => pool.failed(failure),
            }
        });
    }

    /// Takes a new connection in.
    fn join(self: &Rc<Self>, connection: Connection, cluster: &Cluster) {
        let http2 = match connection.info.alpn() {
            Some(b"h2" | b"istio-h2") => true,
            Some(b"http/1.1" | b"http/1.0" | b"istio-http/1.1" | b"istio-http/1.0") => false,
            _ => self.connector.is_http2(),
        };
        if http2 {
            http2::begin(self, cluster, connection);
        } else {
            if !self.listening.replace(true) {
                tokio::task::spawn_local(http1::listen(Rc::downgrade(self)));
            }
            self.put(http1::Idle::new(self, connection));
        }
    }

    /// One attempt failed: the one that waits longest hears of it, and the others get another attempt. With HTTP/2 all
    /// wait for the same connection, so all hear of it.
    fn failed(self: &Rc<Self>, failure: ConnectFailure) {
        let failure = Rc::new(failure);
        loop {
            let waiter = self.waiters.borrow_mut().pop_front();
            let Some(waiter) = waiter else { return };
            let heard = waiter.send(Err(failure.clone())).is_ok();
            if heard && !self.connector.is_http2() {
                break;
            }
        }
        self.grow();
    }

    /// Hands free connections to those that wait.
    fn serve(self: &Rc<Self>) {
        self.hand_out();
        if self.closed.get() && self.waiters.borrow().is_empty() {
            self.close();
        }
    }

    fn hand_out(self: &Rc<Self>) {
        let cluster = self.cluster();
        while self.has_waiter() {
            let idle = self.pop_idle().map(|idle| Lease::Http1(http1::Lease::new(idle, self)));
            let free = idle.or_else(|| self.stream(&cluster).map(Lease::Http2));
            let Some(lease) = free else { return self.grow() };
            let waiter = self.waiters.borrow_mut().pop_front();
            if let Some(waiter) = waiter {
                let _ = waiter.send(Ok(lease));
            }
        }
    }

    /// Whether somebody waits. Those that have gone are forgotten: a lease that nobody takes would come back here.
    fn has_waiter(&self) -> bool {
        let mut waiters = self.waiters.borrow_mut();
        while waiters.pop_front_if(|waiter| waiter.is_closed()).is_some() {}
        !waiters.is_empty()
    }

    /// A connection is free again.
    fn put(self: &Rc<Self>, mut idle: Box<http1::Idle>) {
        if self.has_waiter() {
            let waiter = self.waiters.borrow_mut().pop_front();
            if let Some(waiter) = waiter {
                let _ = waiter.send(Ok(Lease::Http1(http1::Lease::new(idle, self))));
            }
        } else if !self.closed.get() && self.is_quiet(&mut idle) {
            self.idle.borrow_mut().push(idle);
        }
    }

    /// Whether a connection may be kept: from now on the listener is woken when its endpoint says something.
    fn is_quiet(&self, idle: &mut http1::Idle) -> bool {
        // Before its first turn the listener has no waker; then it looks at all that are there.
        let listener = self.listener.borrow();
        listener.as_ref().is_none_or(|waker| idle.is_quiet(&mut Context::from_waker(waker)))
    }

    /// Lets go of idle connections whose endpoints said something; the others wake the context's task when they do.
    fn hear(&self, cx: &mut Context<'_>) {
        let mut idle = std::mem::take(&mut *self.idle.borrow_mut());
        idle.retain_mut(|idle| idle.is_quiet(cx));
        // Closing those that are gone has not brought any in: connections are made by tasks.
        self.idle.borrow_mut().append(&mut idle);
    }

    /// Keeps no connection any more; those that wait still get theirs.
    fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        if self.waiters.borrow().is_empty() {
            self.streams.borrow_mut().clear();
        }
    }

    fn is_unused(&self) -> bool {
        self.size.get() == 0 && self.connecting.get() == 0 && self.waiters.borrow().is_empty()
    }

    fn sweep(&self) {
        let (now, cluster) = (Instant::now(), self.cluster());
        self.idle.borrow_mut().retain(|idle| !idle.is_old(&cluster, now));
        self.streams
            .borrow_mut()
            .retain(|shared| shared.is_usable(&cluster) && !shared.is_idle(&cluster, now));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The listener ends when it finds the pool gone.
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
    }
}

/// A connection's membership, held beside it. When it ends, those that wait may need another connection.
#[derive(Debug)]
struct Member(Weak<Pool>);

impl Member {
    fn join(pool: &Rc<Pool>) -> Self {
        pool.size.set(pool.size.get() + 1);
        Self(Rc::downgrade(pool))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.size.set(pool.size.get().saturating_sub(1));
            count(&pool.cluster.borrow().state.totals.upstream_cx_destroy);
            if !pool.waiters.borrow().is_empty() {
                pool.grow();
            }
        }
    }
}
