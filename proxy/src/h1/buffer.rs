//! Buffers of one thread, borrowed while bytes are under way and given back when they are drained.
//!
//! An idle connection holds none. A buffer whose slices are still in use somewhere may be given back all the same: it is
//! lent again only once nobody looks at it.

use std::cell::RefCell;

use bytes::BytesMut;

/// What a buffer holds when it is lent.
pub const SIZE: usize = 16 * 1024;
/// Buffers that a thread keeps.
const KEPT: usize = 32;
/// One that has grown beyond this is not kept.
const LARGEST: usize = 4 * SIZE;
/// How many are looked at before a new one is made.
const TRIES: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`SIZE`] bytes.
pub fn take() -> BytesMut {
    let found = POOL.with_borrow_mut(|pool| {
        let last = pool.len();
        let found = (last.saturating_sub(TRIES)..last)
            .rev()
            .find(|at| pool.get_mut(*at).is_some_and(|buffer| buffer.try_reclaim(SIZE)));
        found.map(|at| pool.swap_remove(at))
    });
    found.unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Gives a buffer back; what is in it is thrown away.
pub fn give(mut buffer: BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < KEPT && buffer.capacity() <= LARGEST {
            pool.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_nobody_looks_at_it() {
        let mut buffer = take();
        buffer.extend_from_slice(b"head and body");
        let address = buffer.as_ptr();
        let head = buffer.split_to(4).freeze();
        give(buffer);
        let other = take();
        assert_ne!(other.as_ptr(), address);
        assert_eq!(head, "head");
        drop(head);
        assert_eq!(take().as_ptr(), address);
    }

    #[test]
    fn what_has_grown_is_not_kept() {
        let mut buffer = take();
        buffer.reserve(LARGEST + 1);
        give(buffer);
        POOL.with_borrow(|pool| assert!(pool.is_empty()));
    }
}
