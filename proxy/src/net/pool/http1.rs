//! HTTP/1 connections: one request at a time, written and read by whoever has it.
//!
//! No task belongs to a connection. What is idle is listened to by its pool: a connection that its endpoint ends, or
//! that says something unasked, leaves the pool at once.

use std::{
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{io::AsyncWrite, task::yield_now, time::Instant};

use super::{
    Member, Pool,
    connect::{Connection, ConnectionInfo},
    io::{Pulse, UpstreamIo},
};
use crate::{
    config::cluster::Cluster,
    h1::wire::{Incoming, Source},
    net::{clock, cluster::count},
};

/// A connection without a request. Boxed wherever it goes: it changes hands several times with each request.
#[derive(Debug)]
pub struct Idle {
    pub(super) io: UpstreamIo,
    pub(super) incoming: Incoming,
    pub(super) info: Arc<ConnectionInfo>,
    served: u32,
    born: Instant,
    since: Instant,
    _member: Member,
}

impl Idle {
    /// A new connection, which is of the pool from now on.
    pub fn new(pool: &Rc<Pool>, connection: Connection) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            io: connection.io,
            incoming: Incoming::default(),
            info: connection.info,
            served: 0,
            born: now,
            since: now,
            _member: Member::join(pool),
        })
    }

    /// Whether it was idle, or has lived, for too long.
    pub fn is_old(&self, cluster: &Cluster, now: Instant) -> bool {
        cluster.idle_timeout.is_some_and(|limit| now - self.since >= limit)
            || cluster.max_connection_duration.is_some_and(|limit| now - self.born >= limit)
    }

    /// Whether it may serve another request.
    fn is_spent(&self, cluster: &Cluster) -> bool {
        let limit = cluster.max_requests_per_connection;
        limit > 0 && self.served >= limit
    }

    /// Whether the endpoint says nothing, as it should. The context's task is woken when that changes.
    pub fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.incoming.poll_fill(&mut self.io, cx).is_pending()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if self.io.is_tls() {
            // A goodbye, as far as there is room for it: nobody waits for this connection any more.
            let _ = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// A connection for one request; it goes back to its pool when it was not used.
#[derive(Debug)]
pub struct Lease {
    idle: Option<Box<Idle>>,
    pool: Weak<Pool>,
}

impl Lease {
    pub fn new(idle: Box<Idle>, pool: &Rc<Pool>) -> Self {
        Self { idle: Some(idle), pool: Rc::downgrade(pool) }
    }

    /// Takes the connection for a request.
    pub fn take(mut self) -> Option<Busy> {
        let mut idle = self.idle.take()?;
        let reused = idle.served > 0;
        idle.served = idle.served.saturating_add(1);
        Some(Busy { idle, reused, pool: self.pool.clone() })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(idle), Some(pool)) = (self.idle.take(), self.pool.upgrade()) {
            pool.put(idle);
        }
    }
}

/// A connection with a request. Dropped before the response is complete it is closed.
#[derive(Debug)]
pub struct Busy {
    pub(super) idle: Box<Idle>,
    /// It had served requests before.
    pub(super) reused: bool,
    pool: Weak<Pool>,
}

impl Busy {
    /// The response is complete and the connection may be used again: it goes back.
    pub fn finish(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let cluster = pool.cluster();
        self.idle.since = clock::now();
        if self.idle.is_spent(&cluster) {
            count(&cluster.state.totals.upstream_cx_max_requests);
        } else if !self.idle.is_old(&cluster, self.idle.since) {
            pool.put(self.idle);
        }
    }
}

/// Takes an idle connection into use if it still lives.
///
/// With `care` the socket itself is asked, which knows of an end that the runtime has not heard of yet: for requests that
/// cannot simply be repeated.
pub async fn revive(
    mut idle: Box<Idle>,
    pool: &Rc<Pool>,
    cluster: &Cluster,
    care: bool,
) -> Option<Lease> {
    if idle.is_old(cluster, clock::now()) || idle.is_spent(cluster) {
        return None;
    }
    if !care && idle.io.is_silent(&mut Context::from_waker(Waker::noop())) {
        return Some(Lease::new(idle, pool));
    }
    match idle.io.look() {
        Pulse::Quiet => return Some(Lease::new(idle, pool)),
        Pulse::Closed => return None,
        Pulse::Bytes if idle.io.is_tls() => {}
        // A response that nobody asked for.
        Pulse::Bytes => return None,
    }
    // A session ticket, or a goodbye: TLS says which once the runtime knows of the bytes.
    for _ in 0..2 {
        yield_now().await;
        let quiet = std::future::poll_fn(|cx| Poll::Ready(idle.is_quiet(cx))).await;
        if !quiet {
            return None;
        }
        match idle.io.look() {
            Pulse::Quiet => return Some(Lease::new(idle, pool)),
            Pulse::Closed => return None,
            Pulse::Bytes => {}
        }
    }
    None
}

/// Runs beside a pool: looks at what is idle when something comes from an endpoint.
pub async fn listen(pool: Weak<Pool>) {
    std::future::poll_fn(|cx| {
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        pool.listener.replace(Some(cx.waker().clone()));
        pool.hear(cx);
        Poll::Pending
    })
    .await;
}
