//! A part of 127.0.0.0/8 that belongs to one mesh at a time.
//!
//! All of 127/8 can be bound without privileges, so every mesh gets a /16 of its own and uses the real port numbers.
//! A locked file per block keeps meshes of different processes apart; the lock goes with the process.

use std::{fs::File, io, net::Ipv4Addr, path::PathBuf};

use anyhow::{Context, bail};

/// The block that the YAML in `samples/mesh` is written for.
pub const SAMPLES: u8 = 10;

/// A /16 of the loopback network, held until it is dropped.
#[derive(Debug)]
pub struct Block {
    second: u8,
    _lock: File,
}

impl Block {
    /// Any free block.
    ///
    /// # Errors
    /// When all are taken, or the lock files cannot be written.
    pub fn any() -> anyhow::Result<Self> {
        // Start anywhere, so that processes that start together do not queue for the same block.
        let start = fastrand::u8(0..200);
        Self::first_free((0..200).map(|offset| 40 + (start + offset) % 200))
    }

    /// The block of the samples, so that addresses are as in the documents; any other when it is taken.
    ///
    /// # Errors
    /// As [`Block::any`].
    pub fn of_samples() -> anyhow::Result<Self> {
        Self::first_free([SAMPLES].into_iter().chain(11..40))
    }

    fn first_free(candidates: impl Iterator<Item = u8>) -> anyhow::Result<Self> {
        let folder = lock_folder();
        std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        for second in candidates {
            let path = folder.join(format!("127.{second}.lock"));
            let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { second, _lock: file }),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(error).context("flock"),
            }
        }
        bail!("every part of 127.0.0.0/8 is taken (locks in {})", folder.display())
    }

    /// `127.B.third.fourth`.
    pub fn address(&self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, third, fourth)
    }

    /// The operator's address.
    pub fn operator(&self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// YAML that is written for the samples' block, moved to this one.
    pub fn relocate(&self, yaml: &str) -> String {
        yaml.replace(&format!("127.{SAMPLES}."), &format!("127.{}.", self.second))
    }
}

fn lock_folder() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("weft-blocks-{user}"))
}

/// A listener's port that nobody uses now, on this address.
///
/// # Errors
/// When nothing can be bound.
pub fn free_port(address: Ipv4Addr) -> io::Result<u16> {
    Ok(std::net::TcpListener::bind((address, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_overlap() {
        let blocks: Vec<_> = (0..5).map(|_| Block::any().unwrap()).collect();
        let mut addresses: Vec<_> = blocks.iter().map(Block::operator).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
    }

    #[test]
    fn yaml_moves_to_the_block() {
        let block = Block::any().unwrap();
        let moved = block.relocate("podIP: 127.10.1.1\nname: a-127-10\n");
        assert_eq!(moved, format!("podIP: {}\nname: a-127-10\n", block.address(1, 1)));
    }
}
