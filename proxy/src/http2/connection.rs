//! A connection: its bytes, and the frames that they are.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use http::request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Error, Reason, RecvStream, SendStream, Sender,
    core::{Core, Limits, Role},
    frame::{self, Head},
};

/// Most bytes of one read.
const READ: usize = 64 * 1024;
/// So many reads follow each other before others get their turn.
const READS: usize = 4;

thread_local! {
    /// What is read into, by whoever reads.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One end of a connection. Whoever owns it polls it, and sends what it and its streams have written.
#[derive(Debug)]
pub struct Connection<IO> {
    io: IO,
    core: Rc<RefCell<Core>>,
    /// A frame of which more follows.
    rest: Vec<u8>,
    /// The client has not said yet what it speaks.
    preface: bool,
}

impl<IO> Connection<IO> {
    /// The end of a server.
    pub fn server(io: IO, limits: Limits) -> Self {
        Self::new(io, Role::Server, limits)
    }

    /// The end of a client, and what begins its requests.
    /// The server is assumed to take so many streams until it says how many.
    pub fn client(io: IO, limits: Limits, assumed: usize) -> (Self, Sender) {
        let connection = Self::new(io, Role::Client, limits);
        connection.core.borrow_mut().assume(assumed);
        let sender = Sender::new(connection.core.clone());
        (connection, sender)
    }

    fn new(io: IO, role: Role, limits: Limits) -> Self {
        let core = Rc::new(RefCell::new(Core::new(role, limits)));
        Self { io, core, rest: Vec::new(), preface: role == Role::Server }
    }

    /// The next request that has come: its head, where the response goes, and what follows the head if something does.
    pub fn next_request(&mut self) -> Option<(request::Parts, SendStream, Option<RecvStream>)> {
        let (head, key) = self.core.borrow_mut().next_request()?;
        let outgoing = SendStream::new(self.core.clone(), key);
        let more = !self.core.borrow_mut().is_read(key);
        let incoming = more.then(|| RecvStream::of(&outgoing));
        Some((head, outgoing, incoming))
    }

    /// Takes no further requests than those that are on their way, and ends with the last of them.
    pub fn leave(&mut self) {
        self.core.borrow_mut().leave();
    }

    /// The same without waiting for the peer to know.
    pub fn leave_now(&mut self) {
        self.core.borrow_mut().leave_now();
    }

    /// Ends it, for this reason.
    pub fn end(&mut self, reason: Reason) {
        self.core.borrow_mut().broken(reason);
    }

    /// Whether it takes no further streams.
    pub fn has_left(&self) -> bool {
        self.core.borrow().has_left()
    }

    /// Whether it is over but for what is to be sent.
    pub fn has_failed(&self) -> bool {
        self.core.borrow().failure().is_some()
    }

    /// Asks the peer whether it is there.
    pub fn ask(&mut self) {
        self.core.borrow_mut().ask();
    }

    /// Whether the peer has answered that since it was looked for last.
    pub fn was_answered(&mut self) -> bool {
        self.core.borrow_mut().was_answered()
    }

    /// Bytes that wait to be sent.
    #[cfg(test)]
    pub fn unsent(&self) -> usize {
        self.core.borrow().unsent()
    }

    /// How many streams the peer takes at once.
    pub fn allowed(&self) -> usize {
        self.core.borrow().allowed()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// The connection's bytes, after its end.
    pub fn io(&mut self) -> &mut IO {
        &mut self.io
    }

    /// The owner has its turn, at the end of which it sends what there is.
    pub fn attend(&self, task: &Waker) {
        self.core.borrow_mut().attend(task);
    }

    /// Reads what comes. Ready when the connection is over, and everything was sent that is to be sent.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.attend(cx.waker());
        for _ in 0..READS {
            let (failure, ends, must_send) = {
                let core = &mut *self.core.borrow_mut();
                (core.failure().cloned(), core.ends(), core.must_send())
            };
            if let Some(error) = failure {
                // The peer is told why, if it listens.
                return self.poll_send(cx).map(|_| Err(error));
            }
            if ends {
                // So it is if the peer does not wait for the farewell.
                return self.poll_send(cx).map(|_| Ok(()));
            }
            if must_send {
                ready!(self.poll_send(cx))?;
            }
            if self.core.borrow().is_crowded() {
                // Whoever holds what is over lets go of it first.
                break;
            }
            if ready!(self.poll_read(cx)) == 0 {
                let kind = io::ErrorKind::BrokenPipe;
                let core = &mut *self.core.borrow_mut();
                if core.failure().is_none() {
                    core.fail(Error::Io(kind));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what there is to send.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let core = &mut *self.core.borrow_mut();
        let io = &mut self.io;
        let sent = match core.poll_send(|bytes| Pin::new(&mut *io).poll_write(cx, bytes)) {
            Poll::Ready(Ok(())) => Pin::new(io).poll_flush(cx),
            other => other,
        };
        sent.map_err(|error| {
            let error = Error::Io(error.kind());
            core.fail(error.clone());
            error
        })
    }

    /// Reads once, and takes the frames. Says how many bytes came; an error is one, and none come after it.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut scratch = Scratch::take();
        let held = self.rest.len();
        let mut space = ReadBuf::new(&mut scratch.0[held..held + READ]);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut space));
        let size = space.filled().len();
        if let Err(error) = read {
            self.core.borrow_mut().fail(Error::Io(error.kind()));
            return Poll::Ready(0);
        }
        scratch.0[..held].copy_from_slice(&self.rest);
        let bytes = &scratch.0[..held + size];
        let taken = self.take(bytes);
        self.rest.clear();
        self.rest.extend_from_slice(&bytes[taken..]);
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
        Poll::Ready(size)
    }

    /// Takes the frames at the front of the bytes; says how many bytes they are.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let core = &mut *self.core.borrow_mut();
        let mut rest = bytes;
        if self.preface {
            let size = rest.len().min(frame::PREFACE.len());
            if rest[..size] != frame::PREFACE[..size] {
                core.broken(Reason::PROTOCOL_ERROR);
                return bytes.len();
            }
            if size < frame::PREFACE.len() {
                return 0;
            }
            self.preface = false;
            rest = &rest[size..];
        }
        while let Some((head, more)) = rest.split_first_chunk() {
            let head = Head::parse(head);
            if head.length > core.most() {
                core.broken(Reason::FRAME_SIZE_ERROR);
            }
            if core.failure().is_some() {
                return bytes.len();
            }
            let Some((payload, more)) = more.split_at_checked(head.length) else { break };
            core.receive(head, payload);
            rest = more;
        }
        bytes.len() - rest.len()
    }
}

impl<IO> Drop for Connection<IO> {
    fn drop(&mut self) {
        self.core.borrow_mut().fail(Error::Io(io::ErrorKind::BrokenPipe));
    }
}

/// The thread's buffer, while it is used. HTTP/2 inside of HTTP/2 finds none there and makes its own.
struct Scratch(Vec<u8>);

impl Scratch {
    fn take() -> Self {
        let mut bytes = SCRATCH.take();
        if bytes.is_empty() {
            bytes = vec![0; frame::HEAD + frame::LARGE + READ];
        }
        Self(bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}
