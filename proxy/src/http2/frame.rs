//! What every frame begins with, and the frames of few bytes (RFC 9113, 4 and 6).

use std::fmt;

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub const HEAD: usize = 9;
/// Largest payload that may be sent to whoever has not said otherwise.
pub const MOST: usize = 16_384;
/// Largest payload that we take from a server, and send to whoever takes it: a common buffer's size.
pub const LARGE: usize = 64 * 1024;

/// A frame's type.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// A frame's flags.
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// A setting's name.
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    /// Reads one.
    pub fn parse(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Writes it.
    pub fn put(&self, out: &mut Vec<u8>) {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags, d, e, f, g]);
    }
}

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Head { length: payload.len(), kind, flags, stream }.put(out);
    out.extend_from_slice(payload);
}

/// Why a stream or a connection ended (7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    fn name(self) -> &'static str {
        match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            _ => "an unknown error",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// `SETTINGS`.
pub fn settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let length = settings.len() * 6;
    Head { length, kind: kind::SETTINGS, flags: 0, stream: 0 }.put(out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// `SETTINGS` that answers.
pub fn settings_ack(out: &mut Vec<u8>) {
    put(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

/// `WINDOW_UPDATE`.
pub fn window_update(out: &mut Vec<u8>, stream: u32, size: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &size.to_be_bytes());
}

/// `RST_STREAM`.
pub fn reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    put(out, kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
}

/// `PING`, or its answer.
pub fn ping(out: &mut Vec<u8>, payload: [u8; 8], is_answer: bool) {
    put(out, kind::PING, if is_answer { flag::ACK } else { 0 }, 0, &payload);
}

/// `GOAWAY`.
pub fn go_away(out: &mut Vec<u8>, last: u32, reason: Reason) {
    let [a, b, c, d] = last.to_be_bytes();
    let [e, f, g, h] = reason.0.to_be_bytes();
    put(out, kind::GOAWAY, 0, 0, &[a, b, c, d, e, f, g, h]);
}

/// `HEADERS`, and `CONTINUATION` where one frame is too small for the block.
pub fn headers(
    out: &mut Vec<u8>,
    stream: u32,
    ends: bool,
    most: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let flags = if ends { flag::END_STREAM } else { 0 };
    let begin = out.len();
    let head = Head { length: 0, kind: kind::HEADERS, flags: flags | flag::END_HEADERS, stream };
    head.put(out);
    write(out);
    let length = out.len() - begin - HEAD;
    if length <= most {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        out[begin..begin + 3].copy_from_slice(&[a, b, c]);
        return;
    }
    let block = out.split_off(begin + HEAD);
    out.truncate(begin);
    let count = block.len().div_ceil(most);
    for (at, part) in block.chunks(most).enumerate() {
        let last = if at + 1 == count { flag::END_HEADERS } else { 0 };
        match at {
            0 => put(out, kind::HEADERS, flags | last, stream, part),
            _ => put(out, kind::CONTINUATION, last, stream, part),
        }
    }
}

/// `DATA`.
pub fn data(out: &mut Vec<u8>, stream: u32, ends: bool, payload: &[u8]) {
    put(out, kind::DATA, if ends { flag::END_STREAM } else { 0 }, stream, payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_too_large_is_continued() {
        let mut out = Vec::new();
        headers(&mut out, 3, true, 10, |out| out.extend_from_slice(&[7; 25]));
        let mut rest = &out[..];
        let mut frames = Vec::new();
        while let Some((head, more)) = rest.split_first_chunk() {
            let head = Head::parse(head);
            frames.push((head.kind, head.flags, head.stream, head.length));
            rest = &more[head.length..];
        }
        assert_eq!(frames, [(1, 1, 3, 10), (9, 0, 3, 10), (9, 4, 3, 5)]);
        out.clear();
        headers(&mut out, 3, true, 10, |out| out.extend_from_slice(&[7; 10]));
        assert_eq!(out[..HEAD], [0, 0, 10, 1, 5, 0, 0, 0, 3]);
    }
}
