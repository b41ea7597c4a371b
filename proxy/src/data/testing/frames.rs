//! HTTP/2 as bytes, for clients that do what no library lets them do.

use super::*;

/// What a client sends first: the preface and empty settings.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Kinds of frames (RFC 9113, 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags of frames.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&size[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A header block in which nothing is compressed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Sizes of seven bits, then the rest in groups of seven.
            match text.len().checked_sub(127) {
                None => block.push(u8::try_from(text.len()).unwrap()),
                Some(mut rest) => {
                    block.push(127);
                    while rest >= 128 {
                        block.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    block.push(u8::try_from(rest).unwrap());
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The head of a GET for `/`, with these fields instead of or behind its own.
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let own = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "shop")];
    let replaced = |name: &str| fields.iter().any(|field| field.0 == name);
    let kept = own.into_iter().filter(|(name, _)| !replaced(name));
    block(&kept.chain(fields.iter().copied()).collect::<Vec<_>>())
}

/// A request in one frame, which has no body.
pub fn get_on(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(&[]))
}

/// What a server says of a stream at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A response's status, where it is one of the common ones.
    Status(u16),
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection ends with this code.
    GoAway(u32),
    /// The connection has ended.
    Closed,
}

/// Reads frames.
pub struct Frames(pub tokio::net::tcp::OwnedReadHalf);

impl Frames {
    /// The next frame: kind, flags, stream, payload; none when the server is gone.
    pub async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((kind, flags, u32::from_be_bytes([d, e, f, g]), payload))
    }

    /// What becomes of a stream: the first frame that says so.
    pub async fn said_of(&mut self, wanted: u32) -> Said {
        let code = |payload: &[u8]| u32::from_be_bytes(*payload.first_chunk().unwrap());
        while let Some((kind, _, stream, payload)) = self.next().await {
            match kind {
                GOAWAY => return Said::GoAway(code(&payload[4..])),
                RST_STREAM if stream == wanted => return Said::Reset(code(&payload)),
                // The statuses of HPACK's static table.
                HEADERS if stream == wanted => {
                    let at = usize::from(payload[0]).wrapping_sub(0x88);
                    let known = [200, 204, 206, 304, 400, 404, 500];
                    return Said::Status(known.get(at).copied().unwrap_or_default());
                }
                _ => {}
            }
        }
        Said::Closed
    }
}

/// Sends bytes on a new connection behind [`HELLO`], and listens.
pub async fn send_frames(
    address: SocketAddr,
    bytes: &[u8],
) -> (Frames, tokio::net::tcp::OwnedWriteHalf) {
    let (answers, mut requests) = TcpStream::connect(address).await.unwrap().into_split();
    // A server that has seen enough may be gone.
    let _ = requests.write_all(HELLO).await;
    let _ = requests.write_all(bytes).await;
    (Frames(answers), requests)
}
