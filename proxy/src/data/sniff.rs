//! Looking at a connection's first bytes: TLS, HTTP, or neither.
//!
//! Bounded in bytes and time; what was read is put back. Source: Envoy's TLS and HTTP inspectors.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{
    chain::Questions,
    client_hello::{self, Parsed},
    proxy_protocol::Version,
    stream::Prefixed,
};
use crate::config::listener::{Listener, TransportMatch};

/// Most bytes that are read before a decision.
const MOST: usize = 64 * 1024;
/// A request line that is longer is taken for HTTP by its beginning.
const LONGEST_LINE: usize = 8 * 1024;
/// Longest method.
const LONGEST_METHOD: usize = 32;
/// Where a listener waits without limit; such connections are as idle as any other.
const LONG: Duration = Duration::from_secs(3_600);
/// What an HTTP/2 client with prior knowledge sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sniffed {
    /// TLS or not.
    pub transport: TransportMatch,
    /// The server name asked for, lower-cased.
    pub server_name: Option<Box<str>>,
    /// ALPN on offer, or `http/1.0`, `http/1.1` or `h2c` where HTTP was found.
    pub protocols: Vec<Box<[u8]>>,
}

impl Default for Sniffed {
    fn default() -> Self {
        Self { transport: TransportMatch::Raw, server_name: None, protocols: Vec::new() }
    }
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// The client said nothing, or not enough, for too long.
    #[error("the client said too little in time")]
    TimedOut,
    /// The client closed the connection before it said anything.
    #[error("the client closed the connection")]
    Closed,
    /// The client's TLS cannot be read.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// A proxy should have said who its client is.
    #[error("the connection does not begin with the PROXY protocol's header")]
    Unannounced,
    /// A proxy says wrongly who its client is.
    #[error("the PROXY protocol's header ({0:?}) cannot be used: {1}")]
    Header(Version, &'static str),
    /// Reading failed.
    #[error("reading failed")]
    Io(#[source] io::Error),
}

/// When looking at first bytes ends that begins now.
pub fn deadline(listener: &Listener) -> Instant {
    Instant::now() + listener.inspect_timeout.unwrap_or(LONG)
}

/// Looks at the first bytes for what has to be known of them, within the listener's time, or what is left of it.
///
/// # Errors
/// The connection must be closed, see [`SniffError`].
pub async fn sniff(
    listener: &Listener,
    questions: Questions,
    stream: &mut Prefixed,
    until: Option<Instant>,
) -> Result<Sniffed, SniffError> {
    if questions == Questions::default() {
        return Ok(Sniffed::default());
    }
    let until = until.unwrap_or_else(|| deadline(listener));
    let mut buffer = BytesMut::with_capacity(1024);
    let result = read_until_decided(questions, stream, &mut buffer, until).await;
    stream.unread(buffer.freeze());
    match result {
        Err(SniffError::TimedOut) if listener.continue_on_timeout => Ok(Sniffed::default()),
        result => result,
    }
}

async fn read_until_decided(
    questions: Questions,
    stream: &mut Prefixed,
    buffer: &mut BytesMut,
    deadline: Instant,
) -> Result<Sniffed, SniffError> {
    loop {
        // Reading is cancel safe: what was read is in the buffer.
        let read = stream.read_buf(buffer);
        let size = timeout_at(deadline, read)
            .await
            .map_err(|_| SniffError::TimedOut)?
            .map_err(SniffError::Io)?;
        let decision = decide(questions.tls, questions.http, buffer);
        match decision {
            Decision::Is(sniffed) => return Ok(sniffed),
            Decision::Malformed => return Err(SniffError::Malformed),
            Decision::Undecided if buffer.is_empty() => return Err(SniffError::Closed),
            // The client is done: it will not become anything else.
            Decision::Undecided if size == 0 || buffer.len() >= MOST => {
                return Ok(Sniffed::default());
            }
            Decision::Undecided => {}
        }
    }
}

/// What the bytes so far allow to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Undecided,
    Malformed,
    Is(Sniffed),
}

fn decide(tls: bool, http: bool, bytes: &[u8]) -> Decision {
    if tls {
        match client_hello::parse(bytes) {
            Parsed::Partial => return Decision::Undecided,
            Parsed::Malformed => return Decision::Malformed,
            Parsed::Hello(hello) => {
                return Decision::Is(Sniffed {
                    transport: TransportMatch::Tls,
                    server_name: hello.server_name,
                    protocols: hello.alpn,
                });
            }
            Parsed::NotTls => {}
        }
    }
    let protocol = if http { http_protocol(bytes) } else { Some(None) };
    match protocol {
        None => Decision::Undecided,
        Some(protocol) => Decision::Is(Sniffed {
            protocols: protocol.map(Into::into).into_iter().collect(),
            ..Sniffed::default()
        }),
    }
}

/// `None`: more bytes are needed. `Some(None)`: not HTTP.
fn http_protocol(bytes: &[u8]) -> Option<Option<&'static [u8]>> {
    if bytes.starts_with(PREFACE) {
        return Some(Some(b"h2c"));
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    let is_token = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
    };
    let method = bytes.iter().take_while(|byte| is_token(byte)).count();
    if method == 0 || method > LONGEST_METHOD {
        return Some(None);
    }
    match bytes.get(method) {
        None => return None,
        Some(b' ') => {}
        Some(_) => return Some(None),
    }
    let rest = &bytes[method + 1..];
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        let plausible = rest.iter().all(|byte| *byte >= b' ' || *byte == b'\r');
        return match plausible {
            false => Some(None),
            true if bytes.len() >= LONGEST_LINE => Some(Some(b"http/1.1")),
            true => None,
        };
    };
    let line = rest[..end].trim_ascii_end();
    Some(if line.ends_with(b" HTTP/1.1") {
        Some(b"http/1.1")
    } else if line.ends_with(b" HTTP/1.0") {
        Some(b"http/1.0")
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(protocol: &str) -> Decision {
        Decision::Is(Sniffed { protocols: vec![protocol.as_bytes().into()], ..Sniffed::default() })
    }

    #[test]
    fn http_is_told_from_other_protocols() {
        let neither = || Decision::Is(Sniffed::default());
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], raw("http/1.1")),
            (b"FOO-BAR /x HTTP/1.0\r\n", raw("http/1.0")),
            (b"CONNECT a:80 HTTP/1.1\r\n", raw("http/1.1")),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nx", raw("h2c")),
            (b"PRI * HTTP/2.0\r\n", Decision::Undecided),
            (b"PRI * HTTP/1.1\r\n", raw("http/1.1")),
            (b"G", Decision::Undecided),
            (b"GET", Decision::Undecided),
            (b"GET /long", Decision::Undecided),
            (b"GET /\r\n", neither()),
            (b"SSH-2.0-OpenSSH_9\r\n", neither()),
            (b"PING\r\n", neither()),
            (b"*1\r\n$4\r\nPING\r\n", neither()),
            (b"\x00\x01", neither()),
            (b" GET / HTTP/1.1\r\n", neither()),
            (b"GET \x01", neither()),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", neither()),
        ] {
            assert_eq!(decide(true, true, bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
        let mut long = b"GET /".to_vec();
        long.resize(LONGEST_LINE, b'x');
        assert_eq!(decide(true, true, &long), raw("http/1.1"));
    }

    #[test]
    fn only_what_was_asked_for_is_looked_for() {
        assert_eq!(decide(true, false, b"GET / HTTP/1.1\r\n"), Decision::Is(Sniffed::default()));
        assert_eq!(decide(false, true, &[22, 3, 1]), Decision::Is(Sniffed::default()));
        assert_eq!(decide(true, true, &[22, 3, 1]), Decision::Undecided);
        assert_eq!(decide(true, true, &[22, 3, 1, 0, 0]), Decision::Malformed);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            decide(true, true, &bytes);
        }
    }
}
