//! Buffers of one thread, borrowed while bytes are under way and given back when they are drained.
//!
//! An idle connection holds none. A buffer whose slices are still in use somewhere may be given back all the same: it is
//! lent again only once nobody looks at it.

use std::{cell::RefCell, thread::LocalKey};

use bytes::BytesMut;

/// A size of which there are buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For heads, and for what is short.
    Small,
    /// For bodies: 64 KiB and a head in one read.
    Large,
}

impl Size {
    /// What a buffer holds when it is lent.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Small => 16 * 1024,
            Self::Large => 80 * 1024,
        }
    }

    /// How many a thread keeps.
    const fn kept(self) -> usize {
        match self {
            Self::Small => 32,
            Self::Large => 4,
        }
    }

    const fn pool(self) -> &'static LocalKey<RefCell<Vec<BytesMut>>> {
        match self {
            Self::Small => &SMALL,
            Self::Large => &LARGE,
        }
    }

    /// An empty buffer of this size.
    pub fn take(self) -> BytesMut {
        let found = self.pool().with_borrow_mut(|pool| {
            let last = pool.len();
            let mut tried = (last.saturating_sub(TRIES)..last).rev();
            let found =
                tried.find(|at| pool.get_mut(*at).is_some_and(|b| b.try_reclaim(self.bytes())));
            found.map(|at| pool.swap_remove(at))
        });
        found.unwrap_or_else(|| BytesMut::with_capacity(self.bytes()))
    }

    /// Gives back a buffer that was lent; what is in it is thrown away. One that has grown is not kept.
    pub fn give(self, mut buffer: BytesMut) {
        buffer.clear();
        let grown = buffer.capacity() > self.bytes() + self.bytes() / 2;
        if buffer.capacity() == 0 || grown {
            return;
        }
        self.pool().with_borrow_mut(|pool| {
            if pool.len() < self.kept() {
                pool.push(buffer);
            }
        });
    }
}

/// How many are looked at before a new one is made.
const TRIES: usize = 4;

thread_local! {
    static SMALL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static LARGE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_nobody_looks_at_it() {
        for size in [Size::Small, Size::Large] {
            let mut buffer = size.take();
            buffer.extend_from_slice(b"head and body");
            let address = buffer.as_ptr();
            let head = buffer.split_to(4).freeze();
            size.give(buffer);
            let other = size.take();
            assert_ne!(other.as_ptr(), address);
            assert_eq!(head, "head");
            drop(head);
            let again = size.take();
            assert_eq!(again.as_ptr(), address);
            assert!((size.bytes()..2 * size.bytes()).contains(&again.capacity()));
        }
    }

    #[test]
    fn what_has_grown_is_not_kept() {
        let mut buffer = Size::Small.take();
        buffer.reserve(2 * Size::Small.bytes());
        Size::Small.give(buffer);
        SMALL.with_borrow(|pool| assert!(pool.is_empty()));
    }
}
