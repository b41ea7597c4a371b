//! A client's HTTP/1 connection: heads are read, each request is handled in this task, its response written, and so on.
//!
//! One future does all of it: the request's handler reads the request's body and talks to the upstream when it is polled
//! from here. While a request is handled, the client is listened to as far as nobody reads the body: when it leaves, the
//! request is given up. Who owns this decides about time and tells by [`Http1::finish`], [`Http1::refuse`].

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{Method, Response, StatusCode, Version};
use bytes::Bytes;
use http_body::Body;
use tokio::{
    io::AsyncWrite,
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::{
    Active, Activity, Closed, ServerIo, date,
    handling::{Asked, Handling},
    io::{LINGER, LINGER_BYTES},
};
use crate::{
    config::http::HttpConnectionManager,
    data::{connection::Connection, counters::HttpCounters, stream::Tunnel},
    h1::{
        body::{Decoder, Part},
        encode::{self, Answers},
        head::{Framing, HeadError, Limits, Scanner, skip_empty_lines},
        request,
    },
    http::{
        incoming::{BodyFailure, Wire},
        manager::Exchange,
        response::Tracked,
        upgrade::OnUpgrade,
    },
    net::spare,
};

/// How long a client may take to read the last response's end.
const FLUSH: Duration = Duration::from_secs(60);

/// Where a connection is.
enum State {
    /// Between requests, or in a head.
    Head,
    /// A request is handled.
    Handling(Handling),
    /// A response is written.
    Responding(Box<Responding>),
    /// What was queued goes out, then the connection is somebody else's.
    Switching,
    /// What was queued goes out, for some time, then our direction ends.
    Closing(Option<Pin<Box<Sleep>>>),
    /// The same, but the response is not whole: nothing may look like its end.
    Breaking(Option<Pin<Box<Sleep>>>),
    /// Our direction has ended; what the client still sends is thrown away.
    Lingering(Pin<Box<Sleep>>, usize),
    /// Over.
    Ended,
}

/// A response's body on its way.
struct Responding {
    body: Tracked,
    framing: Framing,
    /// Which trailers the response has announced, where the client takes any.
    trailers: Option<Box<str>>,
    /// The body has ended.
    ended: bool,
}

/// A client's connection.
pub struct Http1 {
    wire: Rc<RefCell<Wire>>,
    connection: Rc<Connection>,
    activity: Rc<Activity>,
    counters: Rc<HttpCounters>,
    limits: Limits,
    scanner: Scanner,
    state: State,
    /// The request that is answered.
    answers: Answers,
    /// The client takes trailers.
    takes_trailers: bool,
    /// Who takes the connection over when the protocol is switched.
    upgrade: Option<oneshot::Sender<Tunnel>>,
    /// The next response is the last one.
    leaving: bool,
    /// No further requests.
    finishing: bool,
}

impl Http1 {
    /// A connection of which nothing was read.
    pub fn new(
        io: ServerIo,
        connection: Rc<Connection>,
        activity: Rc<Activity>,
        manager: &HttpConnectionManager,
    ) -> Self {
        let limits = Limits {
            bytes: manager.max_request_headers_bytes,
            fields: manager.max_request_headers,
        };
        let counters = connection.thread.http_counters(&manager.stat_prefix);
        Self {
            wire: Wire::new(io),
            connection,
            activity,
            counters,
            limits,
            scanner: Scanner::default(),
            state: State::Head,
            answers: Answers { method: Method::GET, version: Version::HTTP_11, persists: true },
            takes_trailers: false,
            upgrade: None,
            leaving: false,
            finishing: false,
        }
    }

    /// The client is told with the next response, which is the last one. Until then it may still ask: others do not know yet
    /// that the pod leaves, and a request that meets a closing connection is lost.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// No further requests: what is under way is finished, and the client is told.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// Answers a head that will not be whole in time.
    pub fn refuse(&mut self, refusal: Refused) {
        if let Refused::Head(error) = refusal {
            tracing::debug!(peer = %self.connection.peer, %error, "request refused");
            self.counters.protocol_error();
        }
        self.answers = Answers { method: Method::GET, version: Version::HTTP_11, persists: false };
        (self.upgrade, self.takes_trailers) = (None, false);
        let (connection, active) = (self.connection.clone(), Active::new(&self.activity));
        let asked = Asked::Refused { connection, refused: refusal, active };
        self.state = State::Handling(Handling::new(asked));
    }

    /// Runs the connection to its end. Anew after [`Self::finish`] and [`Self::refuse`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Head => ready!(self.poll_head(cx)),
                State::Handling(handling) => match handling.poll(cx) {
                    Poll::Ready(Ok(response)) => self.respond(response),
                    Poll::Ready(Err(Closed)) => self.state = State::Ended,
                    Poll::Pending => {
                        if !poll_client(&mut self.wire.borrow_mut(), cx) {
                            return Poll::Pending;
                        }
                        self.state = State::Ended;
                    }
                },
                State::Responding(_) => ready!(self.poll_responding(cx)),
                State::Switching => ready!(self.poll_switching(cx)),
                State::Closing(_) | State::Breaking(_) => ready!(self.poll_closing(cx)),
                State::Lingering(..) => ready!(self.poll_lingering(cx)),
                State::Ended => {
                    self.activity.head_ended();
                    return Poll::Ready(());
                }
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wire = self.wire.clone();
        let mut wire = wire.borrow_mut();
        let wire = &mut *wire;
        let Some(io) = &mut wire.io else {
            self.state = State::Ended;
            return Poll::Ready(());
        };
        let found = loop {
            skip_empty_lines(&mut wire.incoming.bytes);
            if !wire.incoming.bytes.is_empty() {
                match request::find(&mut self.scanner, &wire.incoming.bytes, self.limits) {
                    Ok(None) => self.activity.head_begins(),
                    Ok(Some(end)) => break Ok(wire.incoming.take_head(end)),
                    Err(error) => break Err(error),
                }
            }
            let filled = wire.incoming.poll_fill(io, cx);
            // A request that is here already is still answered.
            if filled.is_pending() && self.finishing && wire.incoming.bytes.is_empty() {
                self.state = State::Closing(None);
                return Poll::Ready(());
            }
            match ready!(filled) {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    self.state = State::Ended;
                    return Poll::Ready(());
                }
            }
        };
        self.activity.head_ended();
        let parsed = found.and_then(|head| request::parse(&head, self.limits));
        match parsed {
            Ok(head) => {
                wire.decoder = Decoder::request(head.framing);
                wire.expects_continue = head.expects_continue;
                wire.failed = None;
                wire.request += 1;
                self.handle(head);
            }
            Err(error) => self.refuse(Refused::Head(error)),
        }
        Poll::Ready(())
    }

    fn handle(&mut self, head: request::RequestHead) {
        let parts = head.parts;
        self.answers = Answers {
            method: parts.method.clone(),
            version: parts.version,
            persists: head.persists,
        };
        self.takes_trailers = head.takes_trailers;
        let upgrade = if parts.method == Method::CONNECT || head.upgrade {
            let (sender, receiver) = oneshot::channel();
            self.upgrade = Some(sender);
            Some(OnUpgrade::new(receiver))
        } else {
            self.upgrade = None;
            None
        };
        let active = Active::new(&self.activity);
        let exchange = Exchange { upgrade, active };
        let (wire, connection) = (self.wire.clone(), self.connection.clone());
        let asked = Asked::Http1 { connection, parts, wire, exchange };
        self.state = State::Handling(Handling::new(asked));
    }

    /// Begins a response.
    fn respond(&mut self, response: Response<Tracked>) {
        let (parts, body) = response.into_parts();
        let mut wire = self.wire.borrow_mut();
        wire.expects_continue = false;
        if let Some(BodyFailure::Framing(error)) = wire.failed {
            tracing::debug!(peer = %self.connection.peer, %error, "request broken off");
            self.counters.protocol_error();
        }
        self.answers.persists &= !self.leaving && !self.finishing && wire.failed.is_none();
        if !wire.is_read() && body.is_own() {
            // The rest of the request is not waited for.
            self.answers.persists = false;
        }
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS
            || (self.answers.method == Method::CONNECT && parts.status.is_success());
        if switches && (self.upgrade.is_none() || !wire.is_read()) {
            // Whoever would take the connection over is not there, or the request is not over.
            drop(wire);
            self.state = State::Ended;
            return;
        }
        let framing = encode::response(
            wire.outgoing.format(),
            &mut self.answers,
            (parts.status, &parts.headers),
            body.size_hint().exact(),
            &date::now(),
        );
        drop(wire);
        if switches {
            self.state = State::Switching;
            return;
        }
        self.upgrade = None;
        let trailers = self.takes_trailers.then(|| encode::announced(&parts.headers));
        spare::give(parts.headers);
        let ended = body.is_end_stream();
        self.state = State::Responding(Box::new(Responding { body, framing, trailers, ended }));
    }

    /// Writes a response's body as it comes, and the end.
    fn poll_responding(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Responding(responding) = &mut self.state else { return Poll::Ready(()) };
        loop {
            let mut waits = false;
            while !responding.ended && self.wire.borrow().outgoing.has_room() {
                let Poll::Ready(frame) = Pin::new(&mut responding.body).poll_frame(cx) else {
                    waits = true;
                    break;
                };
                let mut wire = self.wire.borrow_mut();
                if responding.queue(&mut wire, frame.map(|frame| frame.map_err(drop))).is_err() {
                    drop(wire);
                    self.state = State::Breaking(None);
                    return Poll::Ready(());
                }
            }
            let mut wire = self.wire.borrow_mut();
            let wire = &mut *wire;
            let Some(io) = &mut wire.io else { break };
            if responding.ended && !self.answers.persists {
                io.ends_with_next_write();
            }
            let written = wire.outgoing.poll_write(io, cx, &mut 0);
            match written {
                Poll::Ready(Err(_)) => break,
                Poll::Pending => {
                    // Who does not read keeps the response from moving on.
                    if poll_client(wire, cx) || responding.body.has_expired(cx) {
                        break;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if responding.ended => {
                    let next = after(wire, &self.answers, cx);
                    self.state = next;
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(())) if waits => {
                    if poll_client(wire, cx) {
                        break;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {}
            }
        }
        self.state = State::Ended;
        Poll::Ready(())
    }

    fn poll_switching(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        self.state = State::Ended;
        let Some(mut io) = wire.io.take() else { return Poll::Ready(()) };
        match wire.outgoing.poll_write(&mut io, cx, &mut 0) {
            Poll::Pending => {
                wire.io = Some(io);
                self.state = State::Switching;
                return Poll::Pending;
            }
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) => {}
        }
        if !wire.incoming.bytes.is_empty() {
            // Bytes behind the head are the tunnel's.
            io.unread(Bytes::copy_from_slice(&wire.incoming.bytes));
            wire.incoming.bytes.clear();
            wire.incoming.release();
        }
        if let Some(taker) = self.upgrade.take() {
            let _ = taker.send(Tunnel::Http1(Box::new(io)));
        }
        Poll::Ready(())
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        let (mut limit, whole) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Closing(limit) => (limit, true),
            State::Breaking(limit) => (limit, false),
            _ => return Poll::Ready(()),
        };
        let Some(io) = &mut wire.io else { return Poll::Ready(()) };
        let flushed = match wire.outgoing.poll_write(io, cx, &mut 0) {
            Poll::Ready(Ok(())) if whole => Pin::new(&mut *io).poll_shutdown(cx),
            other => other,
        };
        match flushed {
            Poll::Pending => {
                let waiting = limit.get_or_insert_with(|| Box::pin(sleep(FLUSH)));
                if waiting.as_mut().poll(cx).is_pending() {
                    let state = if whole { State::Closing } else { State::Breaking };
                    self.state = state(limit);
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(()))
                if whole && (!wire.is_read() || !wire.incoming.bytes.is_empty()) =>
            {
                // What is closed with bytes unread is reset, and the client may lose the answer.
                wire.incoming.bytes.clear();
                self.state = State::Lingering(Box::pin(sleep(LINGER)), 0);
            }
            Poll::Ready(_) => {}
        }
        Poll::Ready(())
    }

    fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Lingering(limit, thrown_away) = &mut self.state else { return Poll::Ready(()) };
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        if let Some(io) = &mut wire.io {
            while *thrown_away < LINGER_BYTES {
                match wire.incoming.poll_fill(io, cx) {
                    Poll::Ready(Ok(size @ 1..)) => {
                        *thrown_away += size;
                        wire.incoming.bytes.clear();
                    }
                    Poll::Ready(_) => break,
                    Poll::Pending => {
                        ready!(limit.as_mut().poll(cx));
                        break;
                    }
                }
            }
        }
        self.state = State::Ended;
        Poll::Ready(())
    }
}

/// Why there is an answer to no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The head is not one.
    Head(HeadError),
    /// It did not come in time.
    Timeout,
}

impl Responding {
    /// Queues what comes of the body. `Err`: the response breaks off.
    fn queue(
        &mut self,
        wire: &mut Wire,
        frame: Option<Result<http_body::Frame<Bytes>, ()>>,
    ) -> Result<(), ()> {
        let frame = match frame {
            None => {
                self.ended = true;
                return self.queue_end(wire);
            }
            Some(frame) => frame?,
        };
        match frame.into_data() {
            Ok(data) => match &mut self.framing {
                // There is nothing to be sent, whatever comes.
                Framing::None => {}
                Framing::Chunked => wire.outgoing.chunk(data),
                Framing::Close => wire.outgoing.data(data),
                Framing::Length(left) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(())?;
                    wire.outgoing.data(data);
                }
            },
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.ended = true;
                match &self.trailers {
                    Some(told) if self.framing == Framing::Chunked => {
                        let told = |name: &::http::HeaderName| encode::is_announced(told, name);
                        encode::trailers(wire.outgoing.format(), &trailers, told);
                        return Ok(());
                    }
                    _ => return self.queue_end(wire),
                }
            }
        }
        if self.body.is_end_stream() {
            self.ended = true;
            return self.queue_end(wire);
        }
        Ok(())
    }

    fn queue_end(&self, wire: &mut Wire) -> Result<(), ()> {
        match self.framing {
            Framing::Chunked => wire.outgoing.last_chunk(),
            Framing::Length(1..) => return Err(()),
            _ => {}
        }
        Ok(())
    }
}

/// What follows a response.
fn after(wire: &mut Wire, answers: &Answers, cx: &mut Context<'_>) -> State {
    if !wire.is_read() && wire.failed.is_none() && answers.persists {
        read_on(wire, cx);
    }
    // A body that outlives its request reads nothing more.
    wire.request += 1;
    wire.watcher = None;
    if answers.persists && wire.is_read() && wire.failed.is_none() {
        State::Head
    } else {
        State::Closing(None)
    }
}

/// Throws away what has come of a request that was answered before its end.
fn read_on(wire: &mut Wire, cx: &mut Context<'_>) {
    loop {
        match wire.decoder.decode(&mut wire.incoming.bytes) {
            Ok(Part::Data(_)) => {}
            Ok(Part::Trailers(_) | Part::End) => return,
            Err(error) => {
                wire.failed = Some(BodyFailure::Framing(error));
                return;
            }
            Ok(Part::More) => {
                let Some(io) = &mut wire.io else { return };
                if !matches!(wire.incoming.poll_fill(io, cx), Poll::Ready(Ok(1..))) {
                    return;
                }
            }
        }
    }
}

/// Listens to the client while its request is under way; `true`: it has left. Bytes that come are the next request's.
fn poll_client(wire: &mut Wire, cx: &mut Context<'_>) -> bool {
    if let Some(io) = wire.io.as_mut().filter(|_| !wire.outgoing.is_empty())
        && matches!(wire.outgoing.poll_write(io, cx, &mut 0), Poll::Ready(Err(_)))
    {
        return true;
    }
    if !wire.is_read() {
        // Whoever reads the body hears it; what comes behind the body is listened to from then on.
        if wire.watcher.as_ref().is_none_or(|watcher| !watcher.will_wake(cx.waker())) {
            wire.watcher = Some(cx.waker().clone());
        }
        return false;
    }
    let Some(io) = &mut wire.io else { return false };
    wire.incoming.bytes.is_empty()
        && matches!(wire.incoming.poll_fill(io, cx), Poll::Ready(Ok(0) | Err(_)))
}

#[cfg(test)]
mod tests;
