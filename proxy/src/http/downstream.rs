//! A client's HTTP connection: which HTTP is spoken, limits and timeouts, draining; each request goes to the
//! `manager`.
//!
//! HTTP/1 is the proxy's own (`http1`); so are HTTP/2's frames (`crate::http2`), whose requests `http2` handles.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::manager::Closed;
use crate::{
    config::http::{CodecType, HttpConnectionManager},
    data::{
        bell::Place, connection::Connection, sniff::Sniffed, stream::Stream, thread::LAST_CHANCE,
    },
    net::{
        clock::{self, now_ms},
        tls::PeerInfo,
    },
    shared::Lifecycle,
    stats::GaugeGuard,
};

mod date;
mod handling;
pub mod http1;
mod http2;
mod io;

use http1::{Http1, Refused};
pub use io::ServerIo;

/// For a request's head where the settings say nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// For a connection without requests where the settings say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How often the end of [`LAST_CHANCE`] is looked for.
const LAST_CHANCE_TICK: Duration = Duration::from_millis(10);
/// What timers are rounded by, and as much again.
const TIMER: Duration = Duration::from_millis(2);
/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// To be told from the first bytes.
    Unknown,
}

impl Codec {
    /// What settings, ALPN and the first bytes say.
    pub fn new(codec: CodecType, tls: Option<&PeerInfo>, sniffed: &Sniffed) -> Self {
        let alpn = tls.and_then(|info| info.alpn.as_deref());
        match (codec, alpn) {
            (CodecType::Http1, _) => Self::Http1,
            (CodecType::Http2, _) => Self::Http2,
            (CodecType::Auto, Some(b"h2" | b"istio-h2")) => Self::Http2,
            (CodecType::Auto, Some(b"http/1.1" | b"http/1.0" | b"istio-http/1.1")) => Self::Http1,
            (CodecType::Auto, _) if tls.is_none() && sniffed.is_h2c() => Self::Http2,
            (CodecType::Auto, _) => Self::Unknown,
        }
    }
}

/// Requests of a connection, for its timeouts.
#[derive(Debug)]
pub struct Activity {
    active: Cell<usize>,
    served: Cell<u64>,
    changed: Cell<Instant>,
    /// Since when a head has begun and not ended, on the process's clock.
    head_since: Cell<Option<u64>>,
}

impl Activity {
    /// A head has begun to come in.
    fn head_begins(&self) {
        if self.head_since.get().is_none() {
            self.head_since.set(Some(now_ms()));
        }
    }

    /// The head is whole, or will never be.
    fn head_ended(&self) {
        self.head_since.set(None);
    }

    /// For how long a head has begun and not ended.
    fn in_head_for(&self) -> Option<Duration> {
        self.head_since.get().map(|since| Duration::from_millis(now_ms().saturating_sub(since)))
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Active(Rc<Activity>);

impl Active {
    fn new(activity: &Rc<Activity>) -> Self {
        activity.active.set(activity.active.get() + 1);
        activity.served.set(activity.served.get() + 1);
        Self(activity.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.changed.set(clock::now());
    }
}

/// A connection that speaks HTTP, ready to be served.
pub struct Serving {
    spoken: Spoken,
    _counted: GaugeGuard,
}

/// What a connection speaks. There may be tens of thousands of HTTP/1 connections: each has what it needs and no more.
#[expect(clippy::large_enum_variant, reason = "the large one is what most are")]
enum Spoken {
    Http1(Driver, Http1, Option<Watch>),
    Http2(Pin<Box<dyn Future<Output = ()>>>),
}

impl Serving {
    /// Runs it; ready at its end. No future of its own, since tasks have room in steps of 128 bytes.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.spoken {
            Spoken::Http1(driver, http, watch) => driver.poll_http1(http, watch, cx),
            Spoken::Http2(serving) => serving.as_mut().poll(cx),
        }
    }
}

/// Finds out what a connection speaks; `None`: nothing came that could be served.
pub async fn prepare(connection: Rc<Connection>, stream: Stream, codec: Codec) -> Option<Serving> {
    let (_, manager) = connection.manager().await?;
    let counted = connection.thread.http_counters(&manager.stat_prefix).connection();
    let mut io = ServerIo::new(stream);
    let codec = match codec {
        Codec::Unknown => {
            let limit = manager.request_headers_timeout.unwrap_or(HEAD_TIMEOUT);
            found_codec(&connection, &mut io, limit).await?
        }
        codec => codec,
    };
    let driver = Driver::new(connection, manager);
    let spoken = match codec {
        Codec::Http2 => Spoken::Http2(Box::pin(driver.http2(io))),
        Codec::Http1 | Codec::Unknown => {
            let (connection, activity) = (driver.connection.clone(), driver.activity.clone());
            let http = Http1::new(io, connection, activity, &driver.manager);
            Spoken::Http1(driver, http, None)
        }
    };
    Some(Serving { spoken, _counted: counted })
}

/// Which HTTP the first bytes are; `None`: nothing came, or not enough, for too long, or the client went away.
async fn found_codec(connection: &Connection, io: &mut ServerIo, limit: Duration) -> Option<Codec> {
    tokio::select! {
        found = timeout(limit, find_codec(io)) => found.ok()?.ok(),
        () = connection.thread.last_chance() => None,
    }
}

/// Tells HTTP/2 with prior knowledge from HTTP/1 by the preface.
async fn find_codec(io: &mut ServerIo) -> std::io::Result<Codec> {
    let mut bytes = BytesMut::with_capacity(1024);
    let codec = loop {
        let size = io.read_buf(&mut bytes).await?;
        if bytes.starts_with(PREFACE) {
            break Codec::Http2;
        }
        if !PREFACE.starts_with(&bytes) {
            break Codec::Http1;
        }
        if size == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    io.unread(bytes.freeze());
    Ok(codec)
}

/// Runs a connection: keeps the timeouts, passes on the end of the process.
struct Driver {
    connection: Rc<Connection>,
    manager: Arc<HttpConnectionManager>,
    activity: Rc<Activity>,
    born: Instant,
    place: Place,
    /// What the connection knows of the process.
    told: Lifecycle,
    /// Since when it drains.
    draining: Option<Instant>,
}

/// What the driver wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Continue,
    /// The pod leaves: clients are told where that costs no request.
    Leave,
    /// No further requests.
    Drain,
    /// The head did not come in time.
    HeadTimeout,
    /// At once.
    Close,
}

/// What an HTTP/1 connection's driver keeps between turns.
struct Watch {
    /// When the timeouts are looked at next.
    tick: Instant,
    timer: Pin<Box<Sleep>>,
    /// Who is woken by the timer and the lifecycle, and how that was then.
    listening: Option<(Waker, Lifecycle)>,
    /// The connection has been told to finish.
    drained: bool,
}

impl Watch {
    fn until(tick: Instant) -> Self {
        Self { tick, timer: Box::pin(sleep_until(tick)), listening: None, drained: false }
    }

    fn reset(&mut self, tick: Instant) {
        self.tick = tick;
        self.timer.as_mut().reset(tick);
        self.listening = None;
    }
}

impl Driver {
    fn new(connection: Rc<Connection>, manager: Arc<HttpConnectionManager>) -> Self {
        let now = Instant::now();
        let activity = Rc::new(Activity {
            active: Cell::new(0),
            served: Cell::new(0),
            changed: Cell::new(now),
            head_since: Cell::new(None),
        });
        let place = connection.thread.bell.place();
        Self {
            connection,
            manager,
            activity,
            born: now,
            place,
            told: Lifecycle::Running,
            draining: None,
        }
    }

    fn head_timeout(&self) -> Duration {
        self.manager.request_headers_timeout.unwrap_or(HEAD_TIMEOUT)
    }

    /// How often timeouts are looked at: often enough for the shortest.
    fn tick(&self) -> Duration {
        let idle = self.manager.idle_timeout.unwrap_or(IDLE_TIMEOUT);
        let life = self.manager.max_connection_duration.unwrap_or(IDLE_TIMEOUT);
        let shortest = self.head_timeout().min(idle).min(life);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(15))
    }

    /// Whether the connection still waits for its first request although the process drains.
    fn has_last_chance(&self) -> bool {
        self.activity.served.get() == 0
            && self.draining.is_some_and(|since| since.elapsed() < LAST_CHANCE)
    }

    /// Looks at the timeouts. `drained`: no further requests are taken, so that only what is unfinished can take too long.
    fn check(&self, drained: bool) -> Verdict {
        let now = Instant::now();
        let busy = self.activity.active.get() > 0;
        let waiting_for_first = self.activity.served.get() == 0;
        let waited = self.activity.in_head_for().or(waiting_for_first.then(|| now - self.born));
        if !busy && waited.is_some_and(|waited| waited >= self.head_timeout()) {
            return Verdict::HeadTimeout;
        }
        if drained || self.has_last_chance() {
            return Verdict::Continue;
        }
        let idle = self.manager.idle_timeout.unwrap_or(IDLE_TIMEOUT);
        let is_idle = !busy && waited.is_none() && now - self.activity.changed.get() >= idle;
        let is_old =
            self.manager.max_connection_duration.is_some_and(|limit| now - self.born >= limit);
        if self.draining.is_some() || is_idle || is_old || self.connection.is_retired() {
            Verdict::Drain
        } else {
            Verdict::Continue
        }
    }

    /// Waits for a reason to look at the connection. `drained`: it has been told to finish.
    async fn event(&mut self, drained: bool) -> Verdict {
        let mut timer = pin!(sleep_until(self.next_tick(drained)));
        poll_fn(|cx| self.poll_event(drained, timer.as_mut(), cx)).await
    }

    /// When the timeouts are looked at next.
    fn next_tick(&self, drained: bool) -> Instant {
        let tick = match self.draining {
            Some(_) if !drained => LAST_CHANCE_TICK,
            _ => self.tick(),
        };
        Instant::now() + tick
    }

    /// The same, at the latest when the timer says.
    fn poll_event(
        &mut self,
        drained: bool,
        timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Verdict> {
        let now = self.place.listen(cx);
        if self.is_news(now) {
            self.told = now;
            return Poll::Ready(match now {
                Lifecycle::Stopping => Verdict::Close,
                Lifecycle::Leaving => Verdict::Leave,
                Lifecycle::Running | Lifecycle::Draining => self.drain(drained),
            });
        }
        timer.poll(cx).map(|()| self.check(drained))
    }

    /// Whether the process leaves, drains (each is told once), or stops. Who leaves says so on inbound connections only.
    fn is_news(&self, now: Lifecycle) -> bool {
        match now {
            Lifecycle::Running => false,
            Lifecycle::Leaving => {
                self.told < Lifecycle::Leaving && self.connection.is_from_outside()
            }
            Lifecycle::Draining => self.told < Lifecycle::Draining,
            Lifecycle::Stopping => true,
        }
    }

    /// Begins to drain.
    fn drain(&mut self, drained: bool) -> Verdict {
        self.draining.get_or_insert_with(Instant::now);
        self.check(drained)
    }

    /// Serves an HTTP/1 connection; ready at its end. `watch` is made by the first poll.
    fn poll_http1(
        &mut self,
        http: &mut Http1,
        watch: &mut Option<Watch>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let watch = watch.get_or_insert_with(|| Watch::until(self.next_tick(false)));
        loop {
            let now = Instant::now();
            match clock::turn(now, || http.poll(cx)) {
                (Poll::Ready(()), _) => return Poll::Ready(()),
                // It may be taken back: then the timer, which stays, wakes the task in vain, once.
                (Poll::Pending, Some(at)) if at < watch.tick => watch.reset(at),
                (Poll::Pending, _) => {}
            }
            // What happens rarely is not asked for with every request: who waits for it is woken, and then one of these
            // has changed. A timer may be early by what it rounds.
            let lifecycle = self.connection.thread.bell.now();
            if let Some((waker, then)) = &watch.listening
                && waker.will_wake(cx.waker())
                && *then == lifecycle
                && now + TIMER < watch.tick
            {
                return Poll::Pending;
            }
            let Poll::Ready(verdict) = self.poll_event(watch.drained, watch.timer.as_mut(), cx)
            else {
                watch.listening = Some((cx.waker().clone(), lifecycle));
                return Poll::Pending;
            };
            if self.obey(verdict, http, &mut watch.drained) {
                return Poll::Ready(());
            }
            watch.reset(self.next_tick(watch.drained));
        }
    }

    /// Does what is wanted of an HTTP/1 connection; `true`: it ends at once.
    fn obey(&self, verdict: Verdict, http: &mut Http1, drained: &mut bool) -> bool {
        match verdict {
            Verdict::Continue => {}
            Verdict::Leave => http.leave(),
            Verdict::Drain => {
                *drained = true;
                http.finish();
            }
            Verdict::Close => return true,
            Verdict::HeadTimeout => {
                tracing::debug!(peer = %self.connection.peer, "no request in time");
                if self.activity.in_head_for().is_none() {
                    return true;
                }
                self.activity.head_ended();
                http.refuse(Refused::Timeout);
            }
        }
        false
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
