//! Header compression (RFC 7541): fields of a block to and from bytes.
//!
//! What repeats is a byte or two. A field of a table is parsed and checked once, when it gets there; the encoder puts there
//! what it has seen twice, so that values which never repeat take no place from those that do.

pub mod decoder;
pub mod encoder;
mod huffman;
mod table;

pub use decoder::{Block, Decoder, Item};
pub use encoder::Encoder;
pub use table::Field;

/// What an entry of a table counts beside its bytes (4.1).
const OVERHEAD: usize = 32;
/// Largest table of either side: what both assume where nobody says anything.
pub const TABLE: usize = 4096;

/// Whether a field may go into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// It may.
    Open,
    /// It must not, here or at any proxy that follows (7.1.3).
    Secret,
}

/// A block that is none: the connection's tables are not the same any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of headers is not compressed as HPACK says")]
pub struct Broken;

#[cfg(test)]
mod tests;
