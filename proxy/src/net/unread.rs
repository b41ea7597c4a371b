//! Bytes that were read before somebody asks for them.

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

/// Gives as much of them as there is room for; says how many bytes. With the last one their allocation is given back:
/// connections may live long.
pub fn give(unread: &mut Bytes, buf: &mut ReadBuf<'_>) -> usize {
    let size = unread.len().min(buf.remaining());
    buf.put_slice(&unread[..size]);
    unread.advance(size);
    if unread.is_empty() {
        *unread = Bytes::new();
    }
    size
}
