//! The PROXY protocol: who connects on behalf of another says so ahead of everything else.
//!
//! Both versions, over TCP only, strict and bounded. What follows the header is put back. The extensions (TLVs) of version 2
//! are passed over. Source: the protocol's specification (2020/03/05), and Envoy's `proxy_protocol` listener filter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{sniff::SniffError, stream::Prefixed};
use crate::config::listener::ProxyProtocol;

/// What version 1 begins with.
const TEXT: &[u8] = b"PROXY ";
/// What version 2 begins with.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 1: the longest line, with its end.
const LONGEST_LINE: usize = 107;
/// Version 2: what stands before the addresses.
const FIXED: usize = 16;
/// Version 2: the most bytes that a header may have; what senders add (names, certificates' subjects) is far less.
const MOST: usize = 4096;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Both ends of the connection that the sender passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its version.
    pub version: Version,
    /// How many bytes it takes.
    pub length: usize,
    /// `None`: the sender speaks for itself, or does not know.
    pub addresses: Option<Addresses>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// They may become a header.
    Partial,
    /// They are none, of the versions that are taken.
    Absent,
    /// They begin as a header, and go on as none; says what is wrong.
    Malformed(Version, &'static str),
    /// A header.
    Header(Header),
}

/// Looks for a header of a version that is taken.
pub fn parse(settings: ProxyProtocol, bytes: &[u8]) -> Parsed {
    let begun = |wanted: bool, signature: &[u8]| {
        let size = signature.len().min(bytes.len());
        wanted && bytes[..size] == signature[..size]
    };
    if begun(settings.v1, TEXT) {
        return if bytes.len() < TEXT.len() { Parsed::Partial } else { text(bytes) };
    }
    if begun(settings.v2, BINARY) { binary(bytes) } else { Parsed::Absent }
}

fn text(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match line.len() {
            LONGEST_LINE => Parsed::Malformed(Version::V1, "the line is too long"),
            _ => Parsed::Partial,
        };
    };
    let words = line[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok());
    let Some(words) = words.and_then(|line| line.strip_prefix("PROXY ")) else {
        return Parsed::Malformed(Version::V1, "the line is no text that ends with CR and LF");
    };
    let (family, rest) = words.split_once(' ').unwrap_or((words, ""));
    let addresses = match family {
        // Whatever else the line says is nobody's business.
        "UNKNOWN" => Some(None),
        "TCP4" => addresses::<Ipv4Addr>(rest).map(Some),
        "TCP6" => addresses::<Ipv6Addr>(rest).map(Some),
        _ => return Parsed::Malformed(Version::V1, "the family is not TCP4, TCP6 or UNKNOWN"),
    };
    match addresses {
        Some(addresses) => {
            Parsed::Header(Header { version: Version::V1, length: end + 1, addresses })
        }
        None => Parsed::Malformed(Version::V1, "the line's addresses or ports are none"),
    }
}

/// `source destination source-port destination-port`.
fn addresses<T: std::str::FromStr + Into<IpAddr>>(text: &str) -> Option<Addresses> {
    let mut words = text.split(' ');
    let mut ip = || words.next()?.parse::<T>().ok().map(Into::into);
    let (source, destination) = (ip()?, ip()?);
    let mut port = || {
        let word = words.next()?;
        // No sign, no zeros before it.
        let plain = word == "0" || !word.starts_with(['0', '+']);
        word.parse::<u16>().ok().filter(|_| plain)
    };
    let (source_port, destination_port) = (port()?, port()?);
    let addresses = Addresses::new((source, source_port), (destination, destination_port));
    words.next().is_none().then_some(addresses)
}

impl Addresses {
    /// IPv4 within IPv6 is IPv4, as it is of the connections that are accepted.
    fn new(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        let end = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
        Self { source: end(source), destination: end(destination) }
    }
}

fn binary(bytes: &[u8]) -> Parsed {
    let Some([.., command, family, high, low]) = bytes.first_chunk::<FIXED>() else {
        return Parsed::Partial;
    };
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MOST {
        return Parsed::Malformed(Version::V2, "it is too long");
    }
    let body = || bytes.get(FIXED..length);
    let addresses = match (command, family) {
        // A health check of the sender's, or a family that it cannot say.
        (0x20, _) | (0x21, 0x00) => body().map(|_| Some(None)),
        (0x21, 0x11) => body().map(|body| ends::<4>(body).map(Some)),
        (0x21, 0x21) => body().map(|body| ends::<16>(body).map(Some)),
        (0x21, _) => {
            return Parsed::Malformed(Version::V2, "the family is not TCP over IPv4 or IPv6");
        }
        _ => return Parsed::Malformed(Version::V2, "the version is not 2, or the command is none"),
    };
    match addresses {
        None => Parsed::Partial,
        Some(None) => {
            Parsed::Malformed(Version::V2, "addresses or extensions do not fit the length")
        }
        Some(Some(addresses)) => Parsed::Header(Header { version: Version::V2, length, addresses }),
    }
}

/// Both addresses, both ports, and extensions, to the end.
fn ends<const N: usize>(body: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, mut rest) = rest.split_first_chunk::<2>()?;
    while let Some(([_, high, low], value)) = rest.split_first_chunk::<3>() {
        rest = value.get(usize::from(u16::from_be_bytes([*high, *low]))..)?;
    }
    rest.is_empty().then(|| {
        Addresses::new(
            (IpAddr::from(*source), u16::from_be_bytes(*source_port)),
            (IpAddr::from(*destination), u16::from_be_bytes(*destination_port)),
        )
    })
}

/// Takes the header from a connection's beginning. `None`: there is none, and there need not be one.
///
/// # Errors
/// The connection must be closed: it has no header or a bad one, or says too little until `deadline`.
pub async fn take(
    settings: ProxyProtocol,
    stream: &mut Prefixed,
    deadline: Instant,
) -> Result<Option<Header>, SniffError> {
    let mut buffer = BytesMut::with_capacity(512);
    let header = loop {
        match parse(settings, &buffer) {
            Parsed::Partial => {}
            Parsed::Header(header) => break Some(header),
            Parsed::Absent if settings.optional => break None,
            Parsed::Absent => return Err(SniffError::Unannounced),
            Parsed::Malformed(version, why) => return Err(SniffError::Header(version, why)),
        }
        // Reading is cancel safe: what was read is in the buffer.
        let size = timeout_at(deadline, stream.read_buf(&mut buffer))
            .await
            .map_err(|_| SniffError::TimedOut)?
            .map_err(SniffError::Io)?;
        if size == 0 {
            return Err(SniffError::Closed);
        }
    };
    let rest = buffer.split_off(header.map_or(0, |header| header.length));
    if !rest.is_empty() {
        stream.unread(rest.freeze());
    }
    Ok(header)
}

/// What a look for a header is counted as, by Envoy's names; `None`: the client did not get that far.
pub fn counter(taken: &Result<Option<Header>, SniffError>) -> Option<&'static str> {
    match taken {
        Ok(Some(Header { version: Version::V1, .. })) => Some("proxy_proto.versions.v1.found"),
        Ok(Some(Header { version: Version::V2, .. })) => Some("proxy_proto.versions.v2.found"),
        Ok(None) => Some("proxy_proto.not_found_allowed"),
        Err(SniffError::Unannounced) => Some("proxy_proto.not_found_disallowed"),
        Err(SniffError::Header(Version::V1, _)) => Some("proxy_proto.versions.v1.error"),
        Err(SniffError::Header(Version::V2, _)) => Some("proxy_proto.versions.v2.error"),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
