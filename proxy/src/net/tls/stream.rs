//! A TLS connection's bytes, over rustls without its buffers.
//!
//! Records are decrypted in a buffer of the thread and encrypted into another one: a connection that waits holds neither,
//! only what a peer sent in part or did not take yet. One read takes a whole record or more, one write becomes records of
//! full size in one system call, and what belongs together (a head and its body) goes into one record.

use std::{
    cell::Cell,
    fmt,
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{
    CommonState, ProtocolVersion,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::scratch::{self, Scratch};

/// Most plaintext of a record.
const RECORD: usize = 16 * 1024;
/// More than a record adds to its plaintext, in any version and cipher suite.
const OVERHEAD: usize = 512;
/// Most plaintext that one write takes: 64 KiB and a head.
const WRITTEN: usize = 5 * RECORD;
/// Room for most servers' first flight, and for a ticket.
const FLIGHT: usize = 1024;
/// Less than this is not worth a read: there is always room for it, since a handshake message has at most 64 KiB.
const LEAST: usize = 4 * 1024;

/// A server's end of a connection.
pub type ServerStream<IO> = TlsStream<IO, UnbufferedServerConnection>;
/// A client's end of a connection.
pub type ClientStream<IO> = TlsStream<IO, UnbufferedClientConnection>;

/// One of rustls' connections without buffers.
pub trait Connection: Deref<Target: Deref<Target = CommonState>> + Unpin {
    /// What rustls keeps for this end.
    type Data;
    /// Whether what is left to say after the handshake can wait for the first bytes.
    const TICKETS: bool;

    /// Takes records from the front of the bytes.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const TICKETS: bool = true;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const TICKETS: bool = false;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// A connection over `IO`.
pub struct TlsStream<IO, C> {
    io: IO,
    connection: C,
    /// What was read and is not decrypted: a part of a record or of a message, or what there was no room for.
    incoming: Vec<u8>,
    /// There may be whole records in `incoming`.
    unread: bool,
    /// Plaintext that nobody has taken yet.
    plain: Vec<u8>,
    taken: usize,
    /// Records that are not sent yet.
    outgoing: Vec<u8>,
    sent: usize,
    /// The socket did not take all of them.
    blocked: bool,
    /// The peer said goodbye.
    ended: bool,
    /// What is written next is the last: our goodbye goes with it.
    last: bool,
    /// We said goodbye.
    closing: bool,
    /// rustls has found an error and is not asked again.
    broken: bool,
}

impl<IO: fmt::Debug, C> fmt::Debug for TlsStream<IO, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("io", &self.io).finish_non_exhaustive()
    }
}

/// How far records are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The handshake is done.
    Established,
    /// There is no room for plaintext.
    Full,
}

impl<IO, C: Connection> TlsStream<IO, C> {
    /// Whether nothing is to be had without a read of what carries the records.
    pub fn is_drained(&self) -> bool {
        let idle = self.plain.is_empty() && !self.unread && !self.blocked;
        idle && !self.ended && !self.broken
    }

    /// A connection before its handshake.
    pub fn new(io: IO, connection: C) -> Self {
        Self {
            io,
            connection,
            incoming: Vec::new(),
            unread: false,
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            blocked: false,
            ended: false,
            last: false,
            closing: false,
            broken: false,
        }
    }

    /// What carries the connection, and what is known of it.
    pub fn get_ref(&self) -> (&IO, &CommonState) {
        (&self.io, &self.connection)
    }

    /// What carries the connection.
    pub fn get_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// What is written next is all that there is to write: when it is taken whole, our goodbye shares its packet.
    pub fn ends_with_next_write(&mut self) {
        self.last = true;
    }

    /// Takes records off the front of `bytes`; says how many bytes are done with. Plaintext goes into `room` as far as there is
    /// some, and what must be answered into `outgoing`.
    fn decrypt(
        &mut self,
        bytes: &mut [u8],
        room: &mut ReadBuf<'_>,
        until: Until,
    ) -> io::Result<usize> {
        let mut at = 0;
        self.unread = false;
        while !self.ended {
            let enough = match until {
                Until::Full => room.remaining() == 0,
                Until::Established => !self.connection.is_handshaking() && self.plain.is_empty(),
            };
            if enough && at < bytes.len() {
                self.unread = true;
                break;
            }
            let UnbufferedStatus { discard, state, .. } = self.connection.process(&mut bytes[at..]);
            let mut more = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        let (now, later) =
                            record.payload.split_at(record.payload.len().min(room.remaining()));
                        room.put_slice(now);
                        self.plain.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(&mut self.outgoing, |space| message.encode(space).map_err(encoding))?;
                }
                // Bytes are sent when there is a chance to: rustls need not wait for it.
                Ok(ConnectionState::TransmitTlsData(all)) => all.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => self.ended = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    more = false;
                }
                Ok(_) => return Err(io::Error::other("TLS is in a state that was not asked for")),
                Err(error) => {
                    self.alert(&mut bytes[at + discard..]);
                    return Err(invalid(error));
                }
            }
            at += discard;
            if !more {
                break;
            }
        }
        Ok(at)
    }

    /// The peer is told why the connection ends, where there is something to say.
    fn alert(&mut self, rest: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(mut message)) = self.connection.process(rest).state
        {
            // What cannot be said is left unsaid: the connection ends with an error already.
            let _ = append(&mut self.outgoing, |space| message.encode(space).map_err(encoding));
        }
    }

    /// As [`Self::decrypt`], of what was read before.
    fn decrypt_held(&mut self, room: &mut ReadBuf<'_>, until: Until) -> io::Result<()> {
        let mut held = std::mem::take(&mut self.incoming);
        let done = self.decrypt(&mut held, room, until)?;
        held.drain(..done);
        if !held.is_empty() {
            self.incoming = held;
        }
        Ok(())
    }

    /// Lets `write` write, once everything that rustls has to say before is in `outgoing`.
    fn when_writable<T>(
        &mut self,
        write: impl FnOnce(&mut WriteTraffic<'_, C::Data>, &mut Vec<u8>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        loop {
            // All that is held is shown: rustls counts on seeing again what it has not discarded.
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process(&mut self.incoming);
            match state.inspect_err(|_| self.broken = true).map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let written = write(&mut traffic, &mut self.outgoing);
                    self.done_with(discard);
                    return written;
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        self.plain.extend_from_slice(record.map_err(invalid)?.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    append(&mut self.outgoing, |space| message.encode(space).map_err(encoding))?;
                }
                ConnectionState::TransmitTlsData(all) => all.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
            self.done_with(discard);
        }
    }

    /// Forgets what was held and is done with.
    fn done_with(&mut self, size: usize) {
        self.incoming.drain(..size);
        if self.incoming.is_empty() {
            (self.incoming, self.unread) = (Vec::new(), false);
        }
    }

    fn take_plain(&mut self, room: &mut ReadBuf<'_>) {
        let left = &self.plain[self.taken..];
        let size = left.len().min(room.remaining());
        room.put_slice(&left[..size]);
        self.taken += size;
        if self.taken == self.plain.len() {
            (self.plain, self.taken) = (Vec::new(), 0);
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Connection> TlsStream<IO, C> {
    /// Shakes hands.
    ///
    /// # Errors
    /// The peer is not acceptable, does not accept us, or is gone.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let nothing = &mut ReadBuf::new(&mut []);
        if self.outgoing.is_empty() && self.connection.is_handshaking() {
            self.speak_last(cx, |this| this.decrypt_held(nothing, Until::Established))?;
        }
        while self.connection.is_handshaking() {
            ready!(self.poll_send(cx))?;
            ready!(self.poll_fill(cx, &mut ReadBuf::new(&mut []), Until::Established))?;
        }
        // A client has seen all it needs: the tickets share a packet with the first answer.
        if C::TICKETS && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            return Poll::Ready(Ok(()));
        }
        self.when_writable(|_, _| Ok(()))?;
        self.poll_send(cx)
    }

    /// An error's alert is sent with what the socket takes at once.
    fn speak_last(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        act(self).inspect_err(|_| {
            self.broken = true;
            let _ = self.poll_send(cx);
        })
    }

    /// Reads from the socket and takes records of it.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
        until: Until,
    ) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut scratch = Scratch::take(&READING);
        let held = self.incoming.len();
        // A record at least, even where its plaintext will not find room at once.
        let most = room.remaining().clamp(RECORD, WRITTEN) + OVERHEAD;
        let end = most.max(held + LEAST).min(scratch::SIZE);
        if held >= end {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let mut space = ReadBuf::new(&mut scratch[held..end]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        let read = space.filled().len();
        if read == 0 {
            let message = "the peer closed the connection without saying so in TLS";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
        }
        scratch[..held].copy_from_slice(&self.incoming);
        self.incoming = Vec::new();
        let bytes = &mut scratch[..held + read];
        self.speak_last(cx, |this| {
            let done = this.decrypt(bytes, room, until)?;
            this.incoming = bytes[done..].to_vec();
            Ok(())
        })?;
        Poll::Ready(Ok(()))
    }

    /// Sends what there is to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match Pin::new(&mut self.io).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(size) => self.sent += size,
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        self.blocked = false;
        self.sent = 0;
        self.outgoing = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn poll_write_parts<'a>(
        &mut self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.blocked {
            ready!(self.poll_send(cx))?;
        }
        let mut records = Scratch::take(&WRITING);
        let (mut size, mut taken) = (0, 0);
        let last = self.last;
        let all = parts.clone().map(<[u8]>::len).sum::<usize>();
        self.closing = self.when_writable(|traffic, before| {
            size = before.len();
            records.get_mut(..size).ok_or(io::ErrorKind::OutOfMemory)?.copy_from_slice(before);
            let mut seal = |plain: &[u8]| {
                let sealed = traffic.encrypt(plain, &mut records[size..]);
                size += sealed.map_err(io::Error::other)?;
                taken += plain.len();
                io::Result::Ok(())
            };
            each_record(parts, &mut seal)?;
            let closing = last && taken == all;
            if closing {
                let farewell = traffic.queue_close_notify(&mut records[size..]);
                size += farewell.map_err(io::Error::other)?;
            }
            Ok(closing)
        })?;
        self.outgoing = Vec::new();
        let mut sent = 0;
        while sent < size {
            match Pin::new(&mut self.io).poll_write(cx, &records[sent..size])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(more) => sent += more,
                Poll::Pending => {
                    self.outgoing = records[sent..size].to_vec();
                    self.blocked = true;
                    break;
                }
            }
        }
        Poll::Ready(Ok(taken))
    }
}

/// Hands over plaintext record by record: large parts as they are, small ones together. At most [`WRITTEN`] bytes.
fn each_record<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    mut seal: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut gathered = Scratch::take(&GATHERING);
    let (mut size, mut left) = (0, WRITTEN);
    let mut parts = parts.filter(|part| !part.is_empty()).peekable();
    while let Some(mut part) = parts.next() {
        part = &part[..part.len().min(left)];
        left -= part.len();
        if size > 0 {
            let more = part.len().min(RECORD - size);
            gathered[size..size + more].copy_from_slice(&part[..more]);
            size += more;
            part = &part[more..];
            if size == RECORD {
                seal(&gathered[..size])?;
                size = 0;
            }
        }
        if part.is_empty() {
            continue;
        }
        let last = left == 0 || parts.peek().is_none();
        let whole = if last { part.len() } else { part.len() - part.len() % RECORD };
        if whole > 0 {
            seal(&part[..whole])?;
        }
        let rest = &part[whole..];
        gathered[..rest.len()].copy_from_slice(rest);
        size = rest.len();
    }
    if size > 0 { seal(&gathered[..size]) } else { Ok(()) }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Connection> AsyncRead for TlsStream<IO, C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = room.filled().len();
        if room.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.plain.is_empty() {
            this.take_plain(room);
            return Poll::Ready(Ok(()));
        }
        if this.unread && !this.broken {
            this.speak_last(cx, |this| this.decrypt_held(room, Until::Full))?;
        }
        while room.filled().len() == before && !this.ended {
            match this.poll_fill(cx, room, Until::Full) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    // What the socket did not take is offered to it again; tickets go out with what is written next.
                    if this.blocked
                        && let Poll::Ready(Err(error)) = this.poll_send(cx)
                    {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Connection> AsyncWrite for TlsStream<IO, C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_parts(cx, std::iter::once(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_parts(cx, parts.iter().map(Deref::deref))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.closing = true;
            let farewell = this.when_writable(|traffic, outgoing| {
                append(outgoing, |space| {
                    traffic.queue_close_notify(space).map_err(io::Error::other)
                })
            });
            // Without a connection there is nobody to take leave of.
            if let Err(error) = farewell {
                tracing::debug!(%error, "a TLS connection ends without a farewell");
            }
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Lets `write` write a message at the end of the bytes.
fn append(
    bytes: &mut Vec<u8>,
    write: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut scratch = Scratch::take(&WRITING);
    let size = write(&mut scratch)?;
    // A handshake's first flight is several messages.
    if bytes.capacity() == 0 {
        bytes.reserve(size.max(FLIGHT));
    }
    bytes.extend_from_slice(&scratch[..size]);
    Ok(())
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn encoding(error: rustls::unbuffered::EncodeError) -> io::Error {
    io::Error::other(error)
}

thread_local! {
    static READING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static GATHERING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
mod tests;
