//! Header maps of one thread that are between two messages: what a map has allocated serves the next message.
//!
//! A map of a dozen fields is larger than what an allocator keeps at hand, so that making one for each message costs more
//! than filling it.

use std::cell::RefCell;

use http::HeaderMap;

/// Maps that a thread keeps.
const KEPT: usize = 64;
/// Fields that a map has room for. Larger ones are made for the few messages that need them, and not kept.
const ROOM: usize = 24;
/// Fields that are added to a message on its way.
const ADDED: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields, and for those that are added on the way; none when no map holds as many.
pub fn take(fields: usize) -> Option<HeaderMap> {
    let room = fields.saturating_add(ADDED).max(ROOM);
    let spare = if room == ROOM { SPARE.with_borrow_mut(Vec::pop) } else { None };
    spare.or_else(|| HeaderMap::try_with_capacity(room).ok())
}

/// Gives a map back; what is in it is dropped.
pub fn give(mut map: HeaderMap) {
    if map.capacity() != ROOM {
        return;
    }
    map.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_map_comes_back_empty_and_not_too_large() {
        let mut map = take(3).unwrap();
        map.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        map.append(header::ACCEPT, HeaderValue::from_static("text/html"));
        give(map);
        give(HeaderMap::new());
        give(HeaderMap::with_capacity(500));
        SPARE.with_borrow(|spare| assert_eq!(spare.len(), 1));
        assert!(take(40).unwrap().capacity() >= 40);
        assert_eq!(take(usize::MAX), None);
        let map = take(1).unwrap();
        assert!(map.is_empty() && map.capacity() == ROOM);
        SPARE.with_borrow(|spare| assert!(spare.is_empty()));
        (0..2 * KEPT).for_each(|_| give(HeaderMap::with_capacity(ROOM)));
        SPARE.with_borrow(|spare| assert_eq!(spare.len(), KEPT));
    }
}
