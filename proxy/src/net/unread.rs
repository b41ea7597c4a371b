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

/// Bytes to be read again first, where hardly anybody has some: a connection that has none holds no room for them.
#[derive(Debug, Default)]
pub struct Unread(Option<Box<Bytes>>);

impl Unread {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Puts some before those that are there.
    pub fn put(&mut self, bytes: Bytes) {
        let bytes = match self.0.take() {
            None => bytes,
            Some(then) => [bytes, *then].concat().into(),
        };
        self.0 = (!bytes.is_empty()).then(|| Box::new(bytes));
    }

    /// Gives as much of them as there is room for.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) {
        if let Some(bytes) = &mut self.0 {
            give(bytes, buf);
            if bytes.is_empty() {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_back_last_is_read_first() {
        let mut unread = Unread::default();
        unread.put(Bytes::new());
        assert!(unread.is_empty());
        unread.put("four".into());
        unread.put("one two three ".into());
        let mut read = Vec::new();
        while !unread.is_empty() {
            let mut some = [0; 7];
            let mut buf = ReadBuf::new(&mut some);
            unread.give(&mut buf);
            read.extend_from_slice(buf.filled());
        }
        assert_eq!(read, b"one two three four");
    }
}
