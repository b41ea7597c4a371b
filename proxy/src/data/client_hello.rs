//! Reading a TLS ClientHello without answering it: server name and ALPN, for the choice of the filter chain.
//!
//! Bounded, and it never panics: what a peer sends is only looked at through checked slices. Source: RFC 8446, 4.1.2;
//! RFC 6066, 3; RFC 7301.

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, lower-cased.
    pub server_name: Option<Box<str>>,
    /// The protocols on offer, by preference.
    pub alpn: Vec<Box<[u8]>>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// Not TLS.
    NotTls,
    /// TLS, but not a ClientHello that can be read.
    Malformed,
    /// A ClientHello.
    Hello(ClientHello),
}

/// Longest handshake message that is read. A ClientHello with post-quantum key shares has about 2 KiB.
const LONGEST: usize = 32 * 1024;
/// Longest record, RFC 8446, 5.1.
const LONGEST_RECORD: usize = 16 * 1024 + 256;

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    match bytes {
        [] => return Parsed::Partial,
        [22] | [22, 3, ..] => {}
        _ => return Parsed::NotTls,
    }
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let [kind, major, _, high, low, after @ ..] = rest else { return Parsed::Partial };
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != 22 || *major != 3 || size == 0 || size > LONGEST_RECORD {
            return Parsed::Malformed;
        }
        let part = after.get(..size).unwrap_or(after);
        message.extend_from_slice(part);
        match handshake_size(&message) {
            Some(size) if size > LONGEST => return Parsed::Malformed,
            Some(size) if message.len() >= size => {
                return match hello(&message[4..size]) {
                    Some(hello) => Parsed::Hello(hello),
                    None => Parsed::Malformed,
                };
            }
            _ => {}
        }
        if message.first().is_some_and(|kind| *kind != 1) {
            return Parsed::Malformed;
        }
        if part.len() < size {
            return Parsed::Partial;
        }
        rest = &after[size..];
    }
}

/// The handshake message's size with its header.
fn handshake_size(message: &[u8]) -> Option<usize> {
    match message {
        [_, a, b, c, ..] => Some(4 + u32::from_be_bytes([0, *a, *b, *c]) as usize),
        _ => None,
    }
}

/// A position in bytes that were received whole.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, size: usize) -> Option<usize> {
        Some(self.take(size)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes with their length before them, in so many bytes.
    fn vector(&mut self, length_size: usize) -> Option<Reader<'a>> {
        let length = self.number(length_size)?;
        self.take(length).map(Reader)
    }
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    // Version and random.
    reader.take(2 + 32)?;
    reader.vector(1)?;
    reader.vector(2)?;
    reader.vector(1)?;
    let mut hello = ClientHello::default();
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = reader.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut content = extensions.vector(2)?;
        match kind {
            0 => hello.server_name = server_name(&mut content)?,
            16 => hello.alpn = protocols(&mut content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The first host name of the list.
fn server_name(content: &mut Reader<'_>) -> Option<Option<Box<str>>> {
    let mut list = content.vector(2)?;
    while !list.0.is_empty() {
        let kind = list.number(1)?;
        let name = list.vector(2)?;
        if kind == 0 {
            let name = std::str::from_utf8(name.0).ok()?;
            return Some(Some(name.to_ascii_lowercase().into()));
        }
    }
    Some(None)
}

fn protocols(content: &mut Reader<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut list = content.vector(2)?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector(1)?.0.into());
    }
    Some(protocols)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};

    use super::*;

    fn real_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let mut client =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same handshake message in records of so many bytes.
    fn fragmented(bytes: &[u8], size: usize) -> Vec<u8> {
        bytes[5..]
            .chunks(size)
            .flat_map(|part| {
                let size = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1, size[0], size[1]], part].concat()
            })
            .collect()
    }

    fn expected() -> Parsed {
        Parsed::Hello(ClientHello {
            server_name: Some("outbound_.80_._.order.default".into()),
            alpn: vec![b"istio-h2"[..].into(), b"h2"[..].into()],
        })
    }

    #[test]
    fn server_name_and_protocols_are_read_in_any_fragmentation() {
        let bytes = real_hello("OUTBOUND_.80_._.order.default", &["istio-h2", "h2"]);
        assert_eq!(parse(&bytes), expected());
        for size in [1, 2, 3, 100, 1_000] {
            let bytes = fragmented(&bytes, size);
            assert_eq!(parse(&bytes), expected(), "in records of {size}");
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Parsed::Partial, "{end} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn an_address_sends_no_server_name() {
        let bytes = real_hello("127.0.0.1", &[]);
        assert_eq!(parse(&bytes), Parsed::Hello(ClientHello::default()));
    }

    #[test]
    fn what_is_not_a_client_hello_is_told_from_it() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Parsed::NotTls),
            (&[22, 2, 0], Parsed::NotTls),
            (&[21, 3, 1, 0, 2, 1, 0], Parsed::NotTls),
            (&[22, 3, 1, 0, 0], Parsed::Malformed),
            (&[22, 3, 1, 255, 255], Parsed::Malformed),
            (&[22, 3, 1, 0, 1, 2], Parsed::Malformed),
            (&[22, 3, 1, 0, 4, 1, 255, 255, 255], Parsed::Malformed),
            (&[22, 3, 1, 0, 4, 1, 0, 0, 0], Parsed::Malformed),
            (&[], Parsed::Partial),
            (&[22], Parsed::Partial),
        ] {
            assert_eq!(parse(bytes), expected, "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            parse(&bytes);
            parse(&[&[22, 3, 1, 1, 0, 1, 0, 0, 252], &bytes[..]].concat());
        }

        #[test]
        fn damaged_hellos_are_survived(at in 0_usize..2_000, with: u8) {
            let mut bytes = real_hello("a.b", &["h2"]);
            let at = at % bytes.len();
            bytes[at] = with;
            parse(&bytes);
        }
    }
}
