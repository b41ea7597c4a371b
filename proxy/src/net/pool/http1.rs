//! HTTP/1 connections: one request at a time.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    ConnectFailure, Member, Pool,
    connect::{Connection, ConnectionInfo},
    ear::{Ear, Heard},
    io::{Probe, Pulse},
};
use crate::{
    config::cluster::Cluster,
    net::{body::RequestBody, cluster::count, upstreams::ErrorKind},
};

/// Largest head of a response.
const MAX_HEAD: usize = 64 * 1024;
/// Read buffer at most; hyper needs it to hold a whole head.
const MAX_BUFFER: usize = 128 * 1024;

/// A connection without a request.
#[derive(Debug)]
pub struct Idle {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) ear: Ear,
    probe: Probe,
    served: u32,
    born: Instant,
    since: Instant,
}

impl Idle {
    /// Whether it was idle, or has lived, for too long, or is closed.
    pub fn is_old(&self, cluster: &Cluster, now: Instant) -> bool {
        self.sender.is_closed()
            || cluster.idle_timeout.is_some_and(|limit| now - self.since >= limit)
            || cluster.max_connection_duration.is_some_and(|limit| now - self.born >= limit)
    }

    /// Whether it may serve another request.
    fn is_spent(&self, cluster: &Cluster) -> bool {
        let limit = cluster.max_requests_per_connection;
        limit > 0 && self.served >= limit
    }
}

/// A connection for one request; it goes back to its pool when it was not used.
#[derive(Debug)]
pub struct Lease {
    idle: Option<Idle>,
    pool: Weak<Pool>,
}

impl Lease {
    pub fn new(idle: Idle, pool: &Rc<Pool>) -> Self {
        Self { idle: Some(idle), pool: Rc::downgrade(pool) }
    }

    /// Requests that the connection has served.
    pub fn served(&self) -> u32 {
        self.idle.as_ref().map_or(0, |idle| idle.served)
    }

    /// Takes the connection for a request.
    pub fn take(mut self) -> Option<Busy> {
        let mut idle = self.idle.take()?;
        idle.served = idle.served.saturating_add(1);
        idle.ear.listen();
        Some(Busy { idle, pool: self.pool.clone() })
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
    pub(super) idle: Idle,
    pool: Weak<Pool>,
}

impl Busy {
    /// The response is complete: the connection goes back as soon as hyper says that it is ready.
    pub fn finish(mut self) {
        if self.idle.sender.is_ready() {
            self.put();
        } else if !self.idle.sender.is_closed() {
            tokio::task::spawn_local(async move {
                if self.idle.sender.ready().await.is_ok() {
                    self.put();
                }
            });
        }
    }

    fn put(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let cluster = pool.cluster();
        self.idle.since = Instant::now();
        if self.idle.is_spent(&cluster) {
            count(&cluster.state.totals.upstream_cx_max_requests);
        } else if !self.idle.is_old(&cluster, self.idle.since) {
            pool.put(self.idle);
        }
    }
}

/// Takes an idle connection into use if it still lives.
pub async fn revive(idle: Idle, pool: &Rc<Pool>, cluster: &Cluster) -> Option<Lease> {
    if idle.is_old(cluster, Instant::now()) || idle.is_spent(cluster) {
        return None;
    }
    for _ in 0..2 {
        match idle.probe.look() {
            Pulse::Quiet if idle.sender.is_ready() => return Some(Lease::new(idle, pool)),
            Pulse::Closed => return None,
            // A TLS alert or session ticket, or a response that nobody asked for: its task will say which.
            _ => tokio::task::yield_now().await,
        }
        if idle.sender.is_closed() {
            return None;
        }
    }
    None
}

/// Speaks HTTP/1 on a new connection, and puts it into the pool.
pub async fn handshake(pool: &Rc<Pool>, connection: Connection) -> Result<(), ConnectFailure> {
    let probe = connection.io.probe();
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFER);
    let (io, ear) = Heard::new(connection.io);
    let (mut sender, driver) = builder.handshake(TokioIo::new(io)).await.map_err(|error| {
        ConnectFailure { kind: ErrorKind::Connect, source: Some(Arc::new(error)) }
    })?;
    let member = Member::join(pool);
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "upstream HTTP/1 connection ended");
        }
        drop(member);
    });
    sender.ready().await.map_err(|error| ConnectFailure {
        kind: ErrorKind::Connect,
        source: Some(Arc::new(error)),
    })?;
    let now = Instant::now();
    pool.put(Idle { sender, info: connection.info, ear, probe, served: 0, born: now, since: now });
    Ok(())
}
