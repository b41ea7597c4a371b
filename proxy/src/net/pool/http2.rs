//! HTTP/2 connections: as many requests at once as both sides allow.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use hyper::{
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    ConnectFailure, Member, Pool,
    connect::{Connection, ConnectionInfo},
};
use crate::{
    config::cluster::Cluster,
    net::{body::RequestBody, upstreams::ErrorKind},
};

/// Largest header list of a response.
const MAX_HEAD: u32 = 64 * 1024;
/// What a stream may send before we have read it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a connection may send before we have read it.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// After so many requests it is looked at again how many streams the endpoint allows.
const LOOK_EVERY: u32 = 64;
/// A PING must be answered in this time, at least.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A connection that its streams share.
#[derive(Debug)]
pub struct Shared {
    sender: SendRequest<RequestBody>,
    info: Arc<ConnectionInfo>,
    active: Cell<u32>,
    served: Cell<u32>,
    /// What the endpoint allows at once, as the connection's task saw it last.
    allowed: Rc<Cell<usize>>,
    /// Wakes the connection's task, which then looks at what is allowed: nothing else tells it of SETTINGS.
    driver: Rc<RefCell<Option<Waker>>>,
    born: Instant,
    idle_since: Cell<Instant>,
}

impl Shared {
    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// Whether new requests may go there at all.
    pub fn is_usable(&self, cluster: &Cluster) -> bool {
        let limit = cluster.max_requests_per_connection;
        !self.sender.is_closed()
            && (limit == 0 || self.served.get() < limit)
            && cluster.max_connection_duration.is_none_or(|limit| self.born.elapsed() < limit)
    }

    /// Whether there is room for one more request now.
    pub fn has_room(&self, cluster: &Cluster) -> bool {
        let active = self.active.get();
        active < cluster.max_concurrent_streams.max(1) && (active as usize) < self.allowed.get()
    }

    /// Whether it was idle for too long.
    pub fn is_idle(&self, cluster: &Cluster, now: Instant) -> bool {
        self.active.get() == 0
            && cluster.idle_timeout.is_some_and(|limit| now - self.idle_since.get() >= limit)
    }
}

/// A stream's place on a connection. When it is dropped, whoever waits for room gets it.
#[derive(Debug)]
pub struct Lease {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) info: Arc<ConnectionInfo>,
    /// The connection had served requests before.
    pub reused: bool,
    connection: Rc<Shared>,
    pool: Weak<Pool>,
}

impl Lease {
    pub fn new(connection: &Rc<Shared>, pool: &Rc<Pool>) -> Self {
        connection.active.set(connection.active.get() + 1);
        let served = connection.served.get();
        connection.served.set(served.saturating_add(1));
        Self {
            sender: connection.sender.clone(),
            info: connection.info.clone(),
            reused: served > 0,
            connection: connection.clone(),
            pool: Rc::downgrade(pool),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let served = self.connection.served.get();
        if served <= 2 || served.is_multiple_of(LOOK_EVERY) {
            let driver = self.connection.driver.borrow_mut().take();
            driver.inspect(Waker::wake_by_ref);
        }
        let active = self.connection.active.get().saturating_sub(1);
        self.connection.active.set(active);
        if active == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        if let Some(pool) = self.pool.upgrade()
            && !pool.waiters.borrow().is_empty()
        {
            pool.serve();
        }
    }
}

/// Speaks HTTP/2 on a new connection, and puts it into the pool.
pub async fn handshake(
    pool: &Rc<Pool>,
    cluster: &Cluster,
    connection: Connection,
) -> Result<(), ConnectFailure> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(cluster.http2_keepalive)
        .keep_alive_timeout(cluster.http2_keepalive.unwrap_or_default().max(PING_TIMEOUT))
        .keep_alive_while_idle(true);
    let (sender, mut driver) =
        builder.handshake(TokioIo::new(connection.io)).await.map_err(|error| ConnectFailure {
            kind: ErrorKind::Connect,
            source: Some(Arc::new(error)),
        })?;
    // Until the endpoint says what it allows, what its other connections allow is assumed.
    let allowed = Rc::new(Cell::new(pool.allowed_streams.get()));
    let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
    let now = Instant::now();
    let shared = Rc::new(Shared {
        sender,
        info: connection.info,
        active: Cell::new(0),
        served: Cell::new(0),
        allowed: allowed.clone(),
        driver: waker.clone(),
        born: now,
        idle_since: Cell::new(now),
    });
    let member = Member::join(pool);
    let watcher = Rc::downgrade(pool);
    tokio::task::spawn_local(async move {
        let mut polls = 0_u32;
        let ended = poll_fn(|cx| {
            let ended = Pin::new(&mut driver).poll(cx);
            waker.replace(Some(cx.waker().clone()));
            polls = polls.saturating_add(1);
            let now = driver.current_max_send_streams();
            // The first poll comes before anything was received.
            if polls > 1
                && allowed.replace(now) != now
                && let Some(pool) = watcher.upgrade()
            {
                pool.allowed_streams.set(now);
                pool.serve();
            }
            ended
        })
        .await;
        drop(member);
        if let Err(error) = ended {
            tracing::debug!(%error, "upstream HTTP/2 connection ended");
        }
    });
    pool.streams.borrow_mut().push(shared);
    Ok(())
}
