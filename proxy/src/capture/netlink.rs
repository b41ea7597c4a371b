//! Netlink: messages of attributes, and a socket that sends them. Knows the framing, not what the numbers mean.
//!
//! Source: Linux `include/uapi/linux/netlink.h`.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::SocketAddrNetlink, recvfrom, sendto, socket_with, sockopt,
};

/// A request that wants an answer.
pub const REQUEST: u16 = 0x1;
/// The answer says that it went well, too.
pub const ACK: u16 = 0x4;
/// All objects of a kind.
pub const DUMP: u16 = 0x300;
/// Replaces what is there.
pub const REPLACE: u16 = 0x100;
/// Makes what is not there.
pub const CREATE: u16 = 0x400;
/// At the end of a list.
pub const APPEND: u16 = 0x800;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// An attribute's type without its two bits of flags.
const TYPE_MASK: u16 = 0x3fff;
/// Of one batch of messages.
const SEND_BUFFER: usize = 1 << 20;
/// Of one datagram of answers: more than the kernel ever puts into one.
const RECEIVE: usize = 1 << 17;

/// Messages that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    /// Adds a message; answers its sequence number. `fixed` is the family's own header.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) -> u32 {
        self.messages += 1;
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        attributes(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages
    }
}

/// Writes attributes.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl<'a> Attributes<'a> {
    /// Writes at the end of these bytes.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// An attribute with these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.with(kind, |bytes| bytes.extend(value))
    }

    /// A number in network order.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Text with its end.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.with(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        })
    }

    /// An attribute that holds attributes. The flag that says so is left out, as in the kernel's own answers.
    pub fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.with(kind, |bytes| inner(&mut Attributes(bytes)))
    }

    fn with(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        value(self.0);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// The attributes in some bytes, by type; what is cut off or does not add up ends the list.
pub fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<ATTRIBUTE_HEADER>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let Some(value) = bytes.get(ATTRIBUTE_HEADER..length) else { break };
        found.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attribute of a type.
pub fn attribute<'a>(list: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    list.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
}

/// Text without its end.
pub fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A message of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// What the kernel said to a request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket does not work.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused a message.
    #[error("the kernel refused message {sequence}")]
    Refused {
        /// The message's sequence number.
        sequence: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer ended early.
    #[error("the kernel's answer is incomplete")]
    Incomplete,
}

/// A netlink socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A socket for a family of messages; `None` is the routing family, whose number is 0.
    ///
    /// # Errors
    /// The kernel has no such family, or gives no socket.
    pub fn open(protocol: Option<Protocol>) -> Result<Self, NetlinkError> {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).map_err(io)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(io)?;
        // A hint: what is too long for the buffer is refused by `send`.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        Ok(Self(socket))
    }

    /// The socket itself, for questions about interfaces.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Sends messages and reads what the kernel has to say about them: it answers before sending returns.
    ///
    /// # Errors
    /// A message was refused, and nothing of a transaction was done.
    pub fn send(&self, batch: &Batch) -> Result<(), NetlinkError> {
        self.write(batch)?;
        let mut refused = None;
        while let Some(datagram) = self.read(RecvFlags::DONTWAIT)? {
            for (kind, sequence, body) in messages(&datagram) {
                if let (ERROR, Some(source)) = (kind, failure(body)) {
                    refused.get_or_insert(NetlinkError::Refused { sequence, source });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks for all objects of a kind.
    ///
    /// # Errors
    /// The question was refused.
    pub fn dump(&self, batch: &Batch) -> Result<Vec<Answer>, NetlinkError> {
        self.write(batch)?;
        let mut answers = Vec::new();
        loop {
            let datagram = self.read(RecvFlags::empty())?.ok_or(NetlinkError::Incomplete)?;
            for (kind, sequence, body) in messages(&datagram) {
                match kind {
                    DONE => return Ok(answers),
                    ERROR => {
                        return match failure(body) {
                            Some(source) => Err(NetlinkError::Refused { sequence, source }),
                            None => Ok(answers),
                        };
                    }
                    kind => answers.push(Answer { kind, body: body.to_vec() }),
                }
            }
        }
    }

    fn write(&self, batch: &Batch) -> Result<(), NetlinkError> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &batch.bytes, SendFlags::empty(), &kernel).map_err(io)?;
        Ok(())
    }

    fn read(&self, flags: RecvFlags) -> Result<Option<Vec<u8>>, NetlinkError> {
        let mut buffer = vec![0; RECEIVE];
        match recvfrom(&self.0, &mut buffer[..], flags) {
            Ok((length, _, _)) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(io(error).into()),
        }
    }
}

fn io(error: rustix::io::Errno) -> io::Error {
    error.into()
}

/// Type, sequence number and body of each message.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = usize::try_from(word(0)).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push((u16::from_ne_bytes([header[4], header[5]]), word(8), body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The error of an error message; `None` is success.
fn failure(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut batch = Batch::default();
        batch.message(7, REQUEST, &[1, 0, 0, 0], |list| {
            list.text(1, "abc").number(2, 258).nested(3, |inner| {
                inner.bytes(4, &[9]);
            });
        });
        batch.message(8, ACK, &[], |_| {});
        let read = messages(&batch.bytes);
        let [(7, 1, first), (8, 2, [])] = read[..] else { panic!("{read:?}") };
        let list = attributes(&first[4..]);
        assert_eq!(text(attribute(&list, 1).unwrap()), b"abc");
        assert_eq!(attribute(&list, 2), Some(&[0, 0, 1, 2][..]));
        assert_eq!(attributes(attribute(&list, 3).unwrap()), [(4, &[9][..])]);
    }

    #[test]
    fn broken_bytes_end_the_list() {
        assert_eq!(attributes(&[]), []);
        assert_eq!(attributes(&[3, 0, 1, 0]), []);
        assert_eq!(attributes(&[200, 0, 1, 0, 5]), []);
        assert_eq!(messages(&[0; 15]), []);
        assert_eq!(messages(&[0; 16]), []);
        assert!(failure(&[]).is_none());
    }
}
