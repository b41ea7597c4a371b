//! The streams of a connection: those that are open, by number, and those that somebody still holds.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::FixedState;
use http::{HeaderMap, response};
use std::task::Waker;

use super::{Error, STREAM_WINDOW};

/// So many streams that are over are remembered, and so many that we have reset: the peer may not know of those yet.
const REMEMBERED: usize = 128;
const RESET: usize = 512;
/// Places for so many streams are kept when there are none.
const KEPT: usize = 64;
/// Parts of a body that are smaller are put together while nobody takes them.
const SMALL: usize = 1024;
/// Up to this size.
const TOGETHER: usize = 4096;

/// What streams share, and wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Room for heads in what is to be sent.
    Heads,
    /// The connection's window, and room for bodies in what is to be sent.
    Bodies,
}

/// A stream that is open, or that somebody holds.
#[derive(Debug, Default)]
pub struct Stream {
    pub id: u32,
    /// Who holds it.
    pub holders: u32,
    /// The peer may send more.
    pub receiving: bool,
    /// We may send more.
    pub sending: bool,
    /// The peer has sent everything.
    pub ended: bool,
    /// It broke off.
    pub error: Option<Error>,

    /// The response's head, until somebody takes it.
    pub response: Option<response::Parts>,
    /// The message's head has come.
    pub headed: bool,
    /// The response is to `HEAD`.
    pub bodiless: bool,
    /// Responses before the final one.
    pub informational: u32,
    /// The client waits to be told to go on.
    pub expects_continue: bool,
    /// Nobody will read the body.
    pub unwanted: bool,
    /// The body, as far as nobody has taken it.
    data: VecDeque<Bytes>,
    pub trailers: Option<HeaderMap>,
    /// What `content-length` says.
    pub length: Option<u64>,
    /// What is missing of that.
    pub left: Option<u64>,
    /// What the peer may still send.
    pub room: i64,
    /// Bytes that came and whose room was not given back.
    pub held: usize,
    /// Bytes whose room was given back without the peer knowing.
    pub unsaid: u32,

    /// What we may still send.
    pub window: i64,
    /// Since when it waits to send something, while it does.
    pub order: Option<u64>,
    /// It is among those that wait for this.
    pub waits: Option<WaitsFor>,

    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

impl Stream {
    /// One that both sides may send on.
    pub fn new(id: u32, window: i64) -> Self {
        let room = STREAM_WINDOW.into();
        Self { id, holders: 1, receiving: true, sending: true, room, window, ..Self::default() }
    }

    /// Tells whoever reads or writes.
    pub fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    pub fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// A part of the body has come.
    pub fn push(&mut self, part: &[u8]) {
        self.held += part.len();
        if part.len() < SMALL
            && let Some(last) = self.data.back_mut()
            && last.len() + part.len() <= TOGETHER
        {
            *last = [last, part].concat().into();
        } else {
            self.data.push_back(Bytes::copy_from_slice(part));
        }
    }

    pub fn pop(&mut self) -> Option<Bytes> {
        self.data.pop_front()
    }

    pub fn has_data(&self) -> bool {
        !self.data.is_empty()
    }

    /// Forgets the body. Says how many bytes' room is to be given back.
    pub fn discard(&mut self) -> usize {
        self.data = VecDeque::new();
        std::mem::take(&mut self.held)
    }
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides have said everything.
    Whole,
    /// The peer has reset it.
    ByPeer,
    /// We have, and the peer may not know yet.
    ByUs,
}

/// All streams of a connection.
#[derive(Debug, Default)]
pub struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    open: HashMap<u32, u32, FixedState>,
    over: VecDeque<(u32, Ended)>,
    reset: VecDeque<u32>,
}

impl Streams {
    /// Adds one that is open.
    pub fn insert(&mut self, stream: Stream) -> u32 {
        let id = stream.id;
        let key = match self.free.pop() {
            Some(key) => {
                self.slots[key as usize] = Some(stream);
                key
            }
            None => {
                self.slots.push(Some(stream));
                (self.slots.len() - 1) as u32
            }
        };
        self.open.insert(id, key);
        key
    }

    /// One that somebody holds.
    pub fn get(&mut self, key: u32) -> &mut Stream {
        self.slots[key as usize].as_mut().expect("a stream stays while somebody holds it")
    }

    /// An open one.
    pub fn find(&self, id: u32) -> Option<u32> {
        self.open.get(&id).copied()
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How many there are, open or held.
    pub fn all(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All of them.
    pub fn each(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(key, slot)| Some((key as u32, slot.as_mut()?)))
    }

    /// It is not open any more.
    pub fn close(&mut self, key: u32, how: Ended) {
        let stream = self.get(key);
        (stream.receiving, stream.sending) = (false, false);
        let id = stream.id;
        if self.open.remove(&id).is_some() {
            self.remember(id, how);
        }
    }

    /// Remembers how one ended.
    pub fn remember(&mut self, id: u32, how: Ended) {
        if how == Ended::ByUs {
            keep(&mut self.reset, id, RESET);
        } else {
            keep(&mut self.over, (id, how), REMEMBERED);
        }
    }

    /// How one ended, while that is remembered.
    pub fn ended(&self, id: u32) -> Option<Ended> {
        if self.reset.contains(&id) {
            return Some(Ended::ByUs);
        }
        self.over.iter().rev().find(|(over, _)| *over == id).map(|(_, how)| *how)
    }

    /// Nobody holds it.
    pub fn remove(&mut self, key: u32) -> Option<Stream> {
        let stream = self.slots[key as usize].take();
        self.free.push(key);
        if self.all() == 0 && self.slots.capacity() > KEPT {
            (self.slots, self.free, self.open) = Default::default();
        }
        stream
    }
}

/// Adds one to the last ones.
fn keep<T>(last: &mut VecDeque<T>, one: T, most: usize) {
    if last.len() == most {
        last.pop_front();
    }
    last.push_back(one);
}
