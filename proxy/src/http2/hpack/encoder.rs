//! Blocks of headers to bytes. Strings are written as they are: between machines that are near each other the Huffman code
//! costs more than the bytes that it saves.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, Hasher as _},
};

use foldhash::fast::FixedState;

use super::{OVERHEAD, Secrecy, TABLE, table};

/// So many entries are compared at most.
const ENTRIES: usize = 48;
/// So many fields that were sent once are remembered.
const ONCE: usize = 64;

/// What the peer keeps of what it was sent.
#[derive(Debug)]
pub struct Encoder {
    /// The newest first. The peer may keep older ones, which are not referred to any more.
    entries: VecDeque<Entry>,
    /// Their hashes.
    hashes: VecDeque<u64>,
    size: usize,
    most: usize,
    /// The peer's limit has changed: the least that it was, which is said before the next block.
    changed: Option<usize>,
    /// Hashes of fields that were sent and not kept.
    once: Box<[u32; ONCE]>,
}

#[derive(Debug)]
struct Entry {
    name_len: usize,
    /// Name and value.
    bytes: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    fn is(&self, name: &str, value: &[u8]) -> bool {
        self.bytes.split_at(self.name_len) == (name.as_bytes(), value)
    }
}

impl Default for Encoder {
    fn default() -> Self {
        let once = Box::new([0; ONCE]);
        let (entries, hashes) = (VecDeque::new(), VecDeque::new());
        Self { entries, hashes, size: 0, most: TABLE, changed: None, once }
    }
}

impl Encoder {
    /// The peer keeps a table of this size.
    pub fn resize(&mut self, size: usize) {
        let size = size.min(TABLE);
        if size != self.most {
            self.most = size;
            self.changed = Some(self.changed.map_or(size, |least| least.min(size)));
            self.evict(0);
        }
    }

    /// What comes before a block's first field.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.changed.take() {
            if least < self.most {
                integer(out, 0x20, 5, least);
            }
            integer(out, 0x20, 5, self.most);
        }
    }

    /// A field that is in the table that everybody knows.
    pub fn known(out: &mut Vec<u8>, index: u8) {
        out.push(0x80 | index);
    }

    /// A field.
    pub fn field(&mut self, out: &mut Vec<u8>, name: &str, value: &[u8], secrecy: Secrecy) {
        let known = table::index_of(name);
        let size = name.len() + value.len() + OVERHEAD;
        if secrecy == Secrecy::Secret || is_secret(name) {
            return literal(out, (0x10, 4), known, (name, value));
        }
        if size > self.most / 2 {
            return literal(out, (0, 4), known, (name, value));
        }
        let hash = hash(name, value);
        if let Some(at) = self.hashes.iter().position(|known| *known == hash)
            && self.entries[at].is(name, value)
        {
            return integer(out, 0x80, 7, table::STATIC.len() + 1 + at);
        }
        let place = &mut self.once[hash as usize % ONCE];
        let rest = (hash >> 32) as u32;
        if *place != rest {
            *place = rest;
            return literal(out, (0, 4), known, (name, value));
        }
        literal(out, (0x40, 6), known, (name, value));
        self.evict(size);
        if self.entries.len() == ENTRIES {
            self.forget_last();
        }
        let bytes = [name.as_bytes(), value].concat().into_boxed_slice();
        self.entries.push_front(Entry { name_len: name.len(), bytes });
        self.hashes.push_front(hash);
        self.size += size;
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.most && self.forget_last() {}
    }

    fn forget_last(&mut self) -> bool {
        let last = self.entries.pop_back();
        self.hashes.pop_back();
        self.size -= last.as_ref().map_or(0, Entry::size);
        last.is_some()
    }
}

/// What nobody may find out by the sizes of blocks.
fn is_secret(name: &str) -> bool {
    matches!(name, "authorization" | "cookie" | "proxy-authorization" | "set-cookie")
}

fn hash(name: &str, value: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(name.as_bytes());
    hasher.write(value);
    hasher.finish()
}

/// Its kind's first bits, and how many bits of the first byte are left for the name.
type Kind = (u8, u8);

fn literal(out: &mut Vec<u8>, kind: Kind, known: Option<u8>, (name, value): (&str, &[u8])) {
    match known {
        Some(index) => integer(out, kind.0, kind.1, index.into()),
        None => {
            out.push(kind.0);
            string(out, name.as_bytes());
        }
    }
    string(out, value);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    integer(out, 0, 7, bytes.len());
    out.extend_from_slice(bytes);
}

/// An integer after a prefix of so many bits (5.1).
fn integer(out: &mut Vec<u8>, kind: u8, bits: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.push(kind | value as u8);
    }
    out.push(kind | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}
