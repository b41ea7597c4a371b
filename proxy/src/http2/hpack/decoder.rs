//! Blocks of headers from bytes.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;

use super::{
    Broken, OVERHEAD, Secrecy, TABLE, huffman,
    table::{Field, Name, PARSED},
};

/// What one side has sent so far, as far as it may refer to it.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first, each with what it counts.
    entries: VecDeque<(Field, usize)>,
    size: usize,
    most: usize,
}

/// A field of a block. What is in no table is parsed by whoever wants it.
#[derive(Debug)]
pub enum Item {
    /// A field.
    Whole(Field),
    /// Its name, where its value is in [`Block::text`], and whether it may go into a table.
    Text(Name, Range<usize>, Secrecy),
}

/// A block's fields.
#[derive(Debug, Default)]
pub struct Block {
    /// In order.
    pub items: Vec<Item>,
    /// Values.
    pub text: Vec<u8>,
    /// There were more than may be, and they are not here.
    pub too_large: bool,
    /// As the limit counts (RFC 9113, 6.5.2).
    size: usize,
}

impl Block {
    /// Whether it has become larger than what messages usually need.
    pub fn is_large(&self) -> bool {
        self.text.capacity() > 128 * 1024 || self.items.capacity() > 1024
    }

    fn clear(&mut self) {
        self.items.clear();
        self.text.clear();
        (self.too_large, self.size) = (false, 0);
    }

    /// Counts a field, and says whether it is still within the limit.
    fn count(&mut self, size: usize, limit: usize) -> bool {
        self.size += size;
        self.too_large |= self.size > limit;
        !self.too_large
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: TABLE }
    }
}

impl Decoder {
    /// Reads a whole block, of which more than `limit` is read but not kept.
    pub fn decode(&mut self, bytes: &[u8], limit: usize, block: &mut Block) -> Result<(), Broken> {
        block.clear();
        let mut rest = bytes;
        let mut sizes_may_come = true;
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                let size = integer(&mut rest, 5)?;
                if !sizes_may_come || size > TABLE {
                    return Err(Broken);
                }
                self.most = size;
                self.evict(0);
                continue;
            }
            sizes_may_come = false;
            if first & 0x80 != 0 {
                let (field, size) = self.entry(integer(&mut rest, 7)?)?;
                if block.count(*size, limit) {
                    block.items.push(Item::Whole(field.clone()));
                }
                continue;
            }
            let kept = first & 0x40 != 0;
            let (name, value, size) = self.literal(&mut rest, if kept { 6 } else { 4 }, block)?;
            let within = block.count(size, limit);
            if kept {
                let field = Field::new(name, Bytes::copy_from_slice(&block.text[value.clone()]));
                block.text.truncate(value.start);
                if within {
                    block.items.push(Item::Whole(field.clone()));
                }
                self.insert(field, size);
            } else if within {
                let secret = first & 0x10 != 0;
                let secrecy = if secret { Secrecy::Secret } else { Secrecy::Open };
                block.items.push(Item::Text(name, value, secrecy));
            } else {
                block.text.truncate(value.start);
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<&(Field, usize), Broken> {
        let index = index.checked_sub(1).ok_or(Broken)?;
        let known = &*PARSED;
        match known.get(index) {
            Some(entry) => Ok(entry),
            None => self.entries.get(index - known.len()).ok_or(Broken),
        }
    }

    /// A name that is an entry's or is written out, a value that is, and what both count.
    fn literal(
        &self,
        rest: &mut &[u8],
        bits: u8,
        block: &mut Block,
    ) -> Result<(Name, Range<usize>, usize), Broken> {
        let (name, name_size) = match integer(rest, bits)? {
            0 => {
                let name = string(rest, &mut block.text)?;
                let (begin, size) = (name.start, name.len());
                let parsed = Name::new(&block.text[name]);
                block.text.truncate(begin);
                (parsed, size)
            }
            index => {
                let (field, _) = self.entry(index)?;
                let name = field.name();
                let size = name_size(&name);
                (name, size)
            }
        };
        let value = string(rest, &mut block.text)?;
        let size = name_size + value.len() + OVERHEAD;
        Ok((name, value, size))
    }

    fn insert(&mut self, field: Field, size: usize) {
        self.evict(size);
        if size <= self.most {
            self.entries.push_front((field, size));
            self.size += size;
        }
    }

    /// Makes room.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.most
            && let Some((_, size)) = self.entries.pop_back()
        {
            self.size -= size;
        }
    }
}

/// What the name of a table's entry counts.
fn name_size(name: &Name) -> usize {
    match name {
        Name::Path => 5,
        Name::Method | Name::Scheme | Name::Status => 7,
        Name::Authority => 10,
        Name::Header(name) => name.as_str().len(),
        Name::Malformed(size) => *size,
    }
}

/// An integer after a prefix of so many bits (5.1).
fn integer(rest: &mut &[u8], bits: u8) -> Result<usize, Broken> {
    let (&first, mut bytes) = rest.split_first().ok_or(Broken)?;
    let most = (1_usize << bits) - 1;
    let mut value = first as usize & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (&byte, more) = bytes.split_first().ok_or(Broken)?;
            bytes = more;
            value += (byte as usize & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Nothing here is longer than 256 MiB, and zeros are no reason to write more bytes.
            if shift > 21 {
                return Err(Broken);
            }
        }
    }
    *rest = bytes;
    Ok(value)
}

/// A string (5.2): it is put behind the text.
fn string(rest: &mut &[u8], text: &mut Vec<u8>) -> Result<Range<usize>, Broken> {
    let coded = rest.first().ok_or(Broken)? & 0x80 != 0;
    let size = integer(rest, 7)?;
    let (bytes, more) = rest.split_at_checked(size).ok_or(Broken)?;
    *rest = more;
    let begin = text.len();
    if coded {
        huffman::decode(bytes, text)?;
    } else {
        text.extend_from_slice(bytes);
    }
    Ok(begin..text.len())
}
