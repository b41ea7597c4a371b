//! Buffers of a thread for the time of one poll: whoever waits for a peer holds none of them.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    thread::LocalKey,
};

/// The size of a buffer.
pub const SIZE: usize = 128 * 1024;

/// Where a thread keeps a buffer.
pub type Slot = LocalKey<Cell<Vec<u8>>>;

/// A buffer of the thread's, while it is used. What is in it is arbitrary. Whoever finds none there, because it is lent
/// already (TLS inside of TLS), makes one.
#[derive(Debug)]
pub struct Scratch {
    bytes: Vec<u8>,
    slot: &'static Slot,
}

impl Scratch {
    /// Borrows the slot's buffer.
    pub fn take(slot: &'static Slot) -> Self {
        let mut bytes = slot.take();
        if bytes.is_empty() {
            bytes = vec![0; SIZE];
        }
        Self { bytes, slot }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.slot.set(std::mem::take(&mut self.bytes));
    }
}
