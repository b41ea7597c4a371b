//! The Huffman code of strings (RFC 7541, 5.2 and appendix B), decoded by half bytes.
//!
//! The code is canonical: its lengths say all of it.

use std::sync::LazyLock;

use super::Broken;

/// Bits of each byte's code, and of the end of the string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The end of a string, which is never written.
const END: usize = 256;

/// Where half a byte leads from a node of the code's tree.
#[derive(Clone, Copy, Default)]
struct Step {
    next: u8,
    symbol: u8,
    /// A symbol has ended on the way.
    ends: bool,
    /// That is no code.
    broken: bool,
}

struct Tree {
    steps: Vec<[Step; 16]>,
    /// Where a string may end: after at most seven ones that begin no symbol.
    padding: Vec<bool>,
}

static TREE: LazyLock<Tree> = LazyLock::new(Tree::new);

/// A node's child: another node, or a symbol.
#[derive(Clone, Copy)]
enum Child {
    None,
    Node(usize),
    Symbol(usize),
}

/// What each byte is written as: the code, and its bits.
fn codes() -> Vec<(u32, u8)> {
    let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
    order.sort_by_key(|&symbol| (LENGTHS[symbol], symbol));
    let mut codes = vec![(0, 0); LENGTHS.len()];
    let (mut code, mut bits) = (0_u32, 0);
    for symbol in order {
        code <<= LENGTHS[symbol] - bits;
        bits = LENGTHS[symbol];
        codes[symbol] = (code, bits);
        code += 1;
    }
    codes
}

impl Tree {
    fn new() -> Self {
        let mut nodes = vec![[Child::None; 2]];
        let mut padding = vec![true];
        for (symbol, (code, bits)) in codes().into_iter().enumerate() {
            let mut node = 0;
            for bit in (0..bits).rev() {
                let side = (code >> bit & 1) as usize;
                if bit == 0 {
                    nodes[node][side] = Child::Symbol(symbol);
                } else if let Child::Node(next) = nodes[node][side] {
                    node = next;
                } else {
                    let next = nodes.len();
                    nodes[node][side] = Child::Node(next);
                    nodes.push([Child::None; 2]);
                    let depth = bits - bit;
                    padding.push(depth < 8 && code >> bit == (1 << depth) - 1);
                    node = next;
                }
            }
        }
        let step = |from: usize, half: usize| {
            let mut step = Step::default();
            let mut node = from;
            for bit in (0..4).rev() {
                match nodes[node][half >> bit & 1] {
                    Child::Node(next) => node = next,
                    Child::Symbol(symbol) if symbol != END => {
                        step.ends = true;
                        step.symbol = u8::try_from(symbol).unwrap_or_default();
                        node = 0;
                    }
                    Child::Symbol(_) | Child::None => return Step { broken: true, ..step },
                }
            }
            // There are 256 nodes: one less than symbols.
            Step { next: u8::try_from(node).unwrap_or_default(), ..step }
        };
        let steps = (0..nodes.len()).map(|node| std::array::from_fn(|half| step(node, half)));
        Self { steps: steps.collect(), padding }
    }
}

/// Appends what the bytes stand for.
pub fn decode(bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Broken> {
    let tree = &*TREE;
    let mut node = 0_usize;
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            let step = tree.steps[node][half as usize];
            if step.ends {
                text.push(step.symbol);
            }
            if step.broken {
                return Err(Broken);
            }
            node = step.next.into();
        }
    }
    if tree.padding[node] { Ok(()) } else { Err(Broken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &[u8]) -> Vec<u8> {
        let codes = codes();
        let (mut bytes, mut held, mut count) = (Vec::new(), 0_u64, 0);
        for byte in text {
            let (code, bits) = codes[*byte as usize];
            held = held << bits | u64::from(code);
            count += bits;
            while count >= 8 {
                count -= 8;
                bytes.push((held >> count) as u8);
            }
        }
        if count > 0 {
            bytes.push((held << (8 - count)) as u8 | (0xff >> count));
        }
        bytes
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut text = Vec::new();
        decode(bytes, &mut text).map(|()| text)
    }

    #[test]
    fn every_byte_comes_back() {
        assert_eq!(TREE.steps.len(), 256);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)).unwrap(), all);
        for byte in all {
            let text = vec![byte; byte as usize % 9 + 1];
            assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }
    }

    #[test]
    fn the_examples_of_the_rfc_are_understood() {
        let bytes = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&bytes).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn what_is_no_code_is_refused() {
        // Padding of eight bits, of zeros, and the end of the string.
        for bytes in [&[0xff][..], &[0x1f, 0xff], &[0x18], &[0xff, 0xff, 0xff, 0xff], &[0xfe]] {
            assert_eq!(decoded(bytes), Err(Broken), "{bytes:x?}");
        }
        assert_eq!(decoded(&[0x1f]).unwrap(), b"a");
    }
}
