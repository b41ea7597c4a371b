//! HTTP/2 connections: as many requests at once as both sides allow.
//!
//! A task belongs to each connection, and reads and writes its frames; a request and its response are driven by whoever has
//! them ([`super::stream`]). The task ends when the pool has let go of the connection and its last stream is over, or when
//! the endpoint ends it.

use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::{
    Member, Pool,
    connect::{Connection, ConnectionInfo},
    io::UpstreamIo,
};
use crate::{
    config::cluster::Cluster,
    http2::{self, Limits},
};

/// Largest header list of a response.
const MAX_HEAD: usize = 64 * 1024;
/// How long an endpoint may take to read the end of a connection.
const FAREWELL: Duration = Duration::from_secs(5);
/// A PING must be answered in this time, at least.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that its streams share.
pub struct Shared {
    sender: http2::Sender,
    info: Arc<ConnectionInfo>,
    active: Cell<u32>,
    served: Cell<u32>,
    /// What the connection's task knows.
    health: Rc<Health>,
    born: Instant,
    idle_since: Cell<Instant>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What the task of a connection tells those that use it.
#[derive(Debug)]
struct Health {
    /// Streams at once that the endpoint allows.
    allowed: Cell<usize>,
    /// A PING went unanswered.
    lost: Cell<bool>,
}

impl Shared {
    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// Whether new requests may go there at all.
    pub fn is_usable(&self, cluster: &Cluster) -> bool {
        let limit = cluster.max_requests_per_connection;
        self.is_open()
            && (limit == 0 || self.served.get() < limit)
            && cluster.max_connection_duration.is_none_or(|limit| self.born.elapsed() < limit)
    }

    /// Whether the endpoint takes requests: it has neither ended the connection nor said that it will.
    fn is_open(&self) -> bool {
        self.sender.is_open()
    }

    /// Whether there is room for one more request now.
    pub fn has_room(&self, cluster: &Cluster) -> bool {
        let active = self.active.get();
        active < cluster.max_concurrent_streams.max(1)
            && (active as usize) < self.health.allowed.get()
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
    /// The connection had served requests before.
    pub(super) reused: bool,
    connection: Rc<Shared>,
    pool: Weak<Pool>,
}

impl Lease {
    pub fn new(connection: &Rc<Shared>, pool: &Rc<Pool>) -> Self {
        connection.active.set(connection.active.get() + 1);
        let served = connection.served.get();
        connection.served.set(served.saturating_add(1));
        let pool = Rc::downgrade(pool);
        Self { reused: served > 0, connection: connection.clone(), pool }
    }

    /// What is known of the connection.
    pub(super) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.connection.info
    }

    /// Begins requests.
    pub(super) fn sender(&self) -> &http2::Sender {
        &self.connection.sender
    }

    /// The endpoint does not answer any more.
    pub(super) fn is_lost(&self) -> bool {
        self.connection.health.lost.get()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
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
pub fn begin(pool: &Rc<Pool>, cluster: &Cluster, connection: Connection) {
    // It pushes nothing.
    let limits = Limits { streams: 0, head: MAX_HEAD };
    let assumed = pool.allowed_streams.get();
    let (frames, sender) = http2::Connection::client(connection.io, limits, assumed);
    let health = Rc::new(Health {
        // Until the endpoint says what it allows, what its other connections allow is assumed.
        allowed: Cell::new(pool.allowed_streams.get()),
        lost: Cell::new(false),
    });
    let keepalive = cluster.http2_keepalive.map(Keepalive::new);
    let now = Instant::now();
    let shared = Rc::new(Shared {
        sender,
        info: connection.info,
        active: Cell::new(0),
        served: Cell::new(0),
        health: health.clone(),
        born: now,
        idle_since: Cell::new(now),
    });
    let driver = Driver {
        assumed: frames.allowed(),
        frames,
        keepalive,
        farewell: None,
        health,
        pool: Rc::downgrade(pool),
        _member: Member::join(pool),
    };
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "upstream HTTP/2 connection ended");
        }
    });
    pool.streams.borrow_mut().push(shared);
}

/// Reads and writes a connection's frames.
struct Driver {
    frames: http2::Connection<UpstreamIo>,
    /// Streams at once before the endpoint has said how many.
    assumed: usize,
    keepalive: Option<Keepalive>,
    /// Runs while the connection's end waits for the endpoint.
    farewell: Option<Pin<Box<Sleep>>>,
    health: Rc<Health>,
    pool: Weak<Pool>,
    _member: Member,
}

impl Future for Driver {
    type Output = Result<(), http2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut polled = this.frames.poll(cx);
        if let Some(keepalive) = &mut this.keepalive
            && keepalive.poll(&mut this.frames, cx).is_ready()
        {
            this.health.lost.set(true);
            return Poll::Ready(Ok(()));
        }
        if polled.is_pending()
            && let Poll::Ready(Err(error)) = this.frames.poll_send(cx)
        {
            polled = Poll::Ready(Err(error));
        }
        if polled.is_pending() && (this.frames.has_left() || this.frames.has_failed()) {
            let farewell = this.farewell.get_or_insert_with(|| Box::pin(sleep(FAREWELL)));
            if farewell.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        let now = this.frames.allowed();
        if now != this.assumed {
            this.assumed = now;
            this.health.allowed.set(now);
            if let Some(pool) = this.pool.upgrade() {
                pool.allowed_streams.set(now);
                pool.serve();
            }
        }
        polled
    }
}

/// Asks the endpoint now and then whether it is there.
struct Keepalive {
    interval: Duration,
    timer: Pin<Box<Sleep>>,
    /// It was asked.
    asked: bool,
}

impl Keepalive {
    fn new(interval: Duration) -> Self {
        Self { interval, timer: Box::pin(sleep(interval)), asked: false }
    }

    /// Ready when it has not answered in time.
    fn poll(
        &mut self,
        frames: &mut http2::Connection<UpstreamIo>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.asked && frames.was_answered() {
            self.wait(false, self.interval);
        }
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.asked {
                return Poll::Ready(());
            }
            frames.ask();
            self.wait(true, self.interval.max(PING_TIMEOUT));
        }
    }

    fn wait(&mut self, asked: bool, time: Duration) {
        self.asked = asked;
        self.timer.as_mut().reset(Instant::now() + time);
    }
}
