//! Streams that wait for what they share with others.
//!
//! They are called in the order in which they began to wait, and no more of them than what there is may be enough for. Who
//! is called need not come: while others are left, the connection's owner has another turn, at whose end it calls more of
//! them. So nobody's turn depends on what another does with its own.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Streams that wait, since when.
#[derive(Debug, Default)]
pub struct Waiting {
    streams: BinaryHeap<Reverse<(u64, u32)>>,
    /// How many were called last and left most of it: twice as many are called next.
    called: usize,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// One more waits.
    pub fn push(&mut self, since: u64, key: u32) {
        self.streams.push(Reverse((since, key)));
    }

    /// One does not any more.
    pub fn forget(&mut self, key: u32) {
        self.streams.retain(|Reverse((_, waiting))| *waiting != key);
    }

    /// Those who were called have used it.
    pub fn pause(&mut self) {
        self.called = 0;
    }

    /// Those for which there may be enough, the one that has waited longest first.
    pub fn call(&mut self, enough: usize) -> impl Iterator<Item = u32> {
        let size = enough.max(self.called * 2).min(self.streams.len());
        self.called = size;
        (0..size).filter_map(|_| self.streams.pop().map(|Reverse((_, key))| key))
    }
}
