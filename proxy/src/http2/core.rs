//! The state of a connection: what both sides have said, streams and windows, and the bytes that are to be sent.
//!
//! The connection's owner feeds it with frames (`receive`) and sends its bytes; those that hold streams read and
//! write here, and are woken from here. All on one thread. RFC 9113.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    task::{Context, Poll, Waker},
};

use http::request;

use super::{
    By, CLIENT_WINDOW, CONNECTION_WINDOW, Error, Reason, STREAM_WINDOW,
    frame::{self, setting},
    hpack::{Decoder, Encoder},
    streams::{Ended, Stream, Streams},
};

mod read;
mod receive;
mod send;
mod waiting;

use receive::{Idle, Partial, SLACK};
use waiting::Waiting;

/// Bytes that wait to be sent, at which nobody adds to a body.
const HELD: usize = 64 * 1024;
/// Bytes that answer the peer's frames and wait to be sent, at which nothing more is read.
const ANSWERS: usize = 32 * 1024;
/// Bytes that wait to be sent, at which nobody adds the head of a response, nor trailers. A server reads nothing more then; a
/// client always does, or both might wait for ever.
const HEADS: usize = 256 * 1024;
/// What a head, or a part of a body, is assumed to take of that when others are called.
const HEAD: usize = 4 * 1024;
const PART: usize = 16 * 1024;
/// So many buffers wait for the next that needs one, if they are no larger than this.
const SPARES: usize = 4;
const SPARE_SIZE: usize = 128 * 1024;
/// The window of those that have not said otherwise.
const DEFAULT_WINDOW: u32 = 65_535;
/// Highest number of a stream.
const LAST: u32 = 0x7fff_ffff;
/// The payload of the `PING` that follows the first `GOAWAY`.
const LEAVING: [u8; 8] = *b"leaving.";
/// The payload of the others.
const ALIVE: [u8; 8] = *b"alive?..";

thread_local! {
    /// Buffers for those that have something to send next.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// What the peer may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at once.
    pub streams: u32,
    /// Largest list of headers.
    pub head: usize,
}

/// What the peer has said.
#[derive(Debug)]
struct Settings {
    /// It has said something.
    said: bool,
    window: u32,
    frame: usize,
    streams: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    role: Role,
    limits: Limits,
    peer: Settings,
    streams: Streams,
    encoder: Encoder,
    decoder: Decoder,
    /// A block of headers of which more follows.
    partial: Option<Partial>,
    /// Requests that nobody has taken yet.
    requests: VecDeque<(request::Parts, u32)>,

    out: Vec<u8>,
    sent: usize,
    /// Bytes of [`Self::out`] that the peer makes us send.
    answers: usize,
    /// The connection's owner.
    task: Option<Waker>,
    /// It knows that there is something to do.
    awake: bool,

    /// What we may still send.
    window: i64,
    /// Those that wait for [`Self::window`], or until there are less than [`HELD`] in [`Self::out`].
    bodies: Waiting,
    /// Those that wait until there are less than [`HEADS`] in [`Self::out`].
    heads: Waiting,
    /// How often somebody has begun to wait.
    waits: u64,
    /// What the peer may still send.
    room: i64,
    /// At so many bytes of [`Self::unsaid`] it is told.
    half: u32,
    /// Bytes whose room was given back without the peer knowing.
    unsaid: u32,

    /// The highest stream that the peer has begun.
    last: u32,
    /// The next that we begin.
    next: u32,
    /// Those that may begin streams.
    pub senders: usize,
    /// Streams that were begun by either side.
    begun: usize,
    /// Those that the last one left out.
    skipped: std::ops::Range<u32>,
    /// Streams that were reset because the peer does not keep to the protocol.
    violations: usize,
    /// Frames in a row that say nothing.
    empty: usize,
    /// Frames of the peer's that ask for nothing.
    idle: Idle,
    /// `DATA` that were sent, as frames of the usual size.
    data_sent: usize,
    /// Streams that the peer has reset in this turn.
    resets: usize,
    /// The peer takes no more streams.
    refuses: bool,
    /// The peer was told that we will take no more streams.
    leaving: bool,
    /// We take no more streams than up to this one.
    left: Option<u32>,
    /// A `PING` was answered.
    answered: bool,
    /// It is over.
    failed: Option<Error>,
}

impl Core {
    /// A connection of which the peer knows nothing yet.
    pub fn new(role: Role, limits: Limits) -> Self {
        let mut out = Vec::new();
        let window = (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW);
        let head = u32::try_from(limits.head).unwrap_or(u32::MAX);
        let head = (setting::MAX_HEADER_LIST_SIZE, head);
        match role {
            Role::Client => {
                out.extend_from_slice(frame::PREFACE);
                let frame = (setting::MAX_FRAME_SIZE, frame::LARGE as u32);
                frame::settings(&mut out, &[(setting::ENABLE_PUSH, 0), window, frame, head]);
            }
            Role::Server => {
                let streams = (setting::MAX_CONCURRENT_STREAMS, limits.streams);
                frame::settings(&mut out, &[streams, window, head]);
            }
        }
        let room = match role {
            Role::Client => CLIENT_WINDOW,
            Role::Server => CONNECTION_WINDOW,
        };
        frame::window_update(&mut out, 0, room - DEFAULT_WINDOW);
        let peer = Settings {
            said: false,
            window: DEFAULT_WINDOW,
            frame: frame::MOST,
            streams: usize::MAX,
        };
        Self {
            role,
            limits,
            peer,
            streams: Streams::default(),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            partial: None,
            requests: VecDeque::new(),
            out,
            sent: 0,
            answers: 0,
            task: None,
            awake: false,
            window: DEFAULT_WINDOW.into(),
            bodies: Waiting::default(),
            heads: Waiting::default(),
            waits: 0,
            room: room.into(),
            half: room / 2,
            unsaid: 0,
            last: 0,
            next: 1,
            senders: 0,
            begun: 0,
            skipped: 0..0,
            violations: 0,
            empty: 0,
            idle: Idle::default(),
            data_sent: 0,
            resets: 0,
            refuses: false,
            leaving: false,
            left: None,
            answered: false,
            failed: None,
        }
    }

    /// The owner has its turn, at the end of which it sends what there is ([`Self::poll_send`]).
    pub fn attend(&mut self, task: &Waker) {
        (self.awake, self.resets) = (true, 0);
        if !self.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            self.task = Some(task.clone());
        }
    }

    fn rouse(&mut self) {
        if !std::mem::replace(&mut self.awake, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    /// Largest payload that the peer may send.
    pub fn most(&self) -> usize {
        match self.role {
            Role::Client => frame::LARGE,
            Role::Server => frame::MOST,
        }
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether so much waits to be sent that nobody should add to a body.
    fn is_full(&self) -> bool {
        self.unsent() >= HELD
    }

    /// Whether the peer must take something before more is read.
    pub fn must_send(&self) -> bool {
        self.role == Role::Server && self.unsent() >= HEADS || self.answers >= ANSWERS
    }

    /// Where answers to the peer's frames are written.
    fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let out = self.out();
        let before = out.len();
        write(out);
        self.answers += self.out.len() - before;
    }

    /// Sends what there is to send.
    pub fn poll_send(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        self.awake = false;
        self.pause_waiting();
        while self.sent < self.out.len() {
            match write(&self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(size)) => self.sent += size,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.out.drain(..self.sent);
                    self.sent = 0;
                    // Not each time that something is added for who takes nothing.
                    if self.out.capacity() > 2 * self.out.len() {
                        self.out.shrink_to_fit();
                    }
                    return Poll::Pending;
                }
            }
        }
        (self.sent, self.answers) = (0, 0);
        if self.out.capacity() > 0 {
            let mut out = std::mem::take(&mut self.out);
            out.clear();
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARES && out.capacity() <= SPARE_SIZE {
                    spare.push(out);
                }
            });
        }
        self.wake_waiting();
        Poll::Ready(Ok(()))
    }

    /// Where frames are written.
    fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.rouse();
        &mut self.out
    }

    /// The connection is over.
    pub fn fail(&mut self, error: Error) {
        if self.failed.is_some() {
            return;
        }
        match error {
            Error::GoAway(reason, By::Us) => {
                let last = self.left.unwrap_or(self.last);
                frame::go_away(self.out(), last, reason);
            }
            _ => (self.out, self.sent, self.answers) = (Vec::new(), 0, 0),
        }
        self.partial = None;
        self.end_streams(0, &error);
        self.failed = Some(error);
        self.rouse();
    }

    /// Ends streams of higher numbers.
    fn end_streams(&mut self, after: u32, error: &Error) {
        let open = |(key, stream): (u32, &mut Stream)| {
            (stream.id > after && (stream.receiving || stream.sending)).then_some(key)
        };
        let keys: Vec<u32> = self.streams.each().filter_map(open).collect();
        for key in keys {
            self.streams.close(key, Ended::ByPeer);
            let stream = self.streams.get(key);
            stream.error = Some(error.clone());
            stream.wake();
        }
    }

    /// Why it is over.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Says farewell when nobody wants anything of the connection any more, or will.
    pub fn ends(&mut self) -> bool {
        let unwanted = self.role == Role::Client && self.senders == 0;
        let over = (unwanted || self.refuses || self.left.is_some()) && self.streams.all() == 0;
        if over && self.left.is_none() {
            self.left = Some(self.last);
            let last = self.last;
            frame::go_away(self.out(), last, Reason::NO_ERROR);
        }
        over
    }

    /// Takes no streams but those that are on their way.
    pub fn leave(&mut self) {
        if !self.leaving && self.left.is_none() && self.failed.is_none() {
            self.leaving = true;
            let out = self.out();
            frame::go_away(out, LAST, Reason::NO_ERROR);
            frame::ping(out, LEAVING, false);
        }
    }

    /// Takes no streams but those that have come.
    pub fn leave_now(&mut self) {
        if self.left.is_none() && self.failed.is_none() {
            let last = self.last;
            self.left = Some(last);
            frame::go_away(self.out(), last, Reason::NO_ERROR);
        }
    }

    /// Whether it takes no streams any more.
    pub fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// So many streams are assumed to be allowed until the peer says how many are.
    pub fn assume(&mut self, streams: usize) {
        self.peer.streams = streams;
    }

    /// Whether many streams have been reset in this turn, which those that hold them should hear of before there are more.
    pub fn is_crowded(&self) -> bool {
        self.resets > SLACK / 2
    }

    /// Asks the peer whether it is there.
    pub fn ask(&mut self) {
        self.answered = false;
        frame::ping(self.out(), ALIVE, false);
    }

    /// Whether it has answered.
    pub fn was_answered(&mut self) -> bool {
        std::mem::take(&mut self.answered)
    }

    /// The next request that has come, on a stream that the caller holds now.
    pub fn next_request(&mut self) -> Option<(request::Parts, u32)> {
        self.requests.pop_front()
    }

    /// How many streams of ours the peer takes at once.
    pub fn allowed(&self) -> usize {
        self.peer.streams
    }

    /// Whether the peer takes further streams at all.
    pub fn is_open(&self) -> bool {
        self.failed.is_none() && !self.refuses && self.left.is_none() && self.next < LAST
    }

    /// Closes a stream on which both sides have said everything.
    fn close_whole(&mut self, key: u32) {
        let stream = self.streams.get(key);
        if !stream.receiving && !stream.sending {
            self.streams.close(key, Ended::Whole);
        }
    }

    /// Gives a stream up.
    pub fn reset(&mut self, key: u32, reason: Reason) {
        let stream = self.streams.get(key);
        let id = stream.id;
        if stream.receiving || stream.sending {
            stream.error = Some(Error::Reset(reason, By::Us));
            stream.wake();
            self.streams.close(key, Ended::ByUs);
            frame::reset(self.out(), id, reason);
        }
    }

    /// Whether the stream has broken off.
    pub fn is_broken(&mut self, key: u32) -> bool {
        self.streams.get(key).error.is_some()
    }

    /// Waits for the stream's breaking off.
    pub fn poll_reset(&mut self, key: u32, cx: &mut Context<'_>) -> Poll<Error> {
        let stream = self.streams.get(key);
        match &stream.error {
            Some(error) => Poll::Ready(error.clone()),
            None => {
                register(&mut stream.writer, cx);
                Poll::Pending
            }
        }
    }

    /// One more holds the stream.
    pub fn hold(&mut self, key: u32) {
        self.streams.get(key).holders += 1;
    }

    /// One less does. Without any it is given up.
    pub fn let_go(&mut self, key: u32) {
        let stream = self.streams.get(key);
        stream.holders -= 1;
        if stream.holders > 0 {
            return;
        }
        let answered = self.role == Role::Server && !stream.sending;
        let waits = stream.waits.is_some();
        let size = stream.discard();
        self.release_room(size);
        self.reset(key, if answered { Reason::NO_ERROR } else { Reason::CANCEL });
        if waits {
            self.forget(key);
        }
        self.streams.remove(key);
        self.rouse_to_end();
    }

    /// One that could begin streams is gone.
    pub fn sender_gone(&mut self) {
        self.senders -= 1;
        self.rouse_to_end();
    }

    fn rouse_to_end(&mut self) {
        let unwanted = self.role == Role::Client && self.senders == 0;
        if self.streams.all() == 0
            && (unwanted || self.refuses || self.left.is_some())
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }
}

fn register(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}
