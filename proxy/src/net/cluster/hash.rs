//! Consistent hashing as Envoy does it: xxHash64, the ring (ketama) and the Maglev table made with it.
//!
//! Every proxy, and stock Envoy, sends the same key to the same endpoint.

use std::sync::Arc;

use crate::config::cluster::Endpoint;

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// Largest ring; Envoy's default for `maximum_ring_size` is 8 M, which is too much memory for a sidecar.
const MAX_RING: usize = 65_536;

fn round(acc: u64, lane: u64) -> u64 {
    acc.wrapping_add(lane.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn merge(hash: u64, acc: u64) -> u64 {
    (hash ^ round(0, acc)).wrapping_mul(P1).wrapping_add(P4)
}

fn word64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// xxHash64.
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let stripes = bytes.chunks_exact(32);
    let mut rest = stripes.remainder();
    let mut hash = if bytes.len() >= 32 {
        let mut acc = [
            seed.wrapping_add(P1).wrapping_add(P2),
            seed.wrapping_add(P2),
            seed,
            seed.wrapping_sub(P1),
        ];
        for stripe in stripes {
            for (acc, lane) in acc.iter_mut().zip(stripe.chunks_exact(8)) {
                *acc = round(*acc, word64(lane));
            }
        }
        let [a, b, c, d] = acc;
        let sum = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        acc.into_iter().fold(sum, merge)
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let words = rest.chunks_exact(8);
    rest = words.remainder();
    for word in words {
        hash = (hash ^ round(0, word64(word))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    if let Some((word, tail)) = rest.split_at_checked(4) {
        hash = (hash ^ word64(word).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
        rest = tail;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P2);
    hash = (hash ^ hash >> 29).wrapping_mul(P3);
    hash ^ hash >> 32
}

/// Adds an input to a request's hash, in the order of the route's policies.
pub fn combine(so_far: Option<u64>, next: u64) -> u64 {
    match so_far {
        None => next,
        Some(hash) => hash.rotate_left(1) ^ next,
    }
}

/// Points of a circle; a key belongs to the next point.
#[derive(Debug)]
pub struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// Endpoints get points in proportion to their weights, at least `minimum` in all.
    pub fn new(hosts: &[Arc<Endpoint>], minimum: u32) -> Self {
        let total: f64 = hosts.iter().map(|host| f64::from(host.weight.max(1))).sum();
        let least = hosts.iter().map(|host| host.weight.max(1)).min().unwrap_or(1);
        let least = f64::from(least) / total.max(1.0);
        let minimum = (minimum as usize).clamp(1, MAX_RING) as f64;
        let scale = ((least * minimum).ceil() / least).min(MAX_RING as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut wanted, mut made) = (0.0, 0.0);
        for (index, host) in hosts.iter().enumerate() {
            let Ok(index) = u32::try_from(index) else { break };
            let address = host.address.to_string();
            wanted += scale * f64::from(host.weight.max(1)) / total.max(1.0);
            let mut i = 0;
            while made < wanted {
                points.push((xxh64(format!("{address}_{i}").as_bytes(), 0), index));
                i += 1;
                made += 1.0;
            }
        }
        points.sort_unstable();
        Self(points)
    }

    /// The index of the endpoint that a hash belongs to.
    pub fn get(&self, hash: u64) -> Option<usize> {
        let at = self.0.partition_point(|(point, _)| *point < hash);
        self.0.get(at).or_else(|| self.0.first()).map(|(_, index)| *index as usize)
    }
}

/// A table of a prime size in which every endpoint has entries in proportion to its weight.
#[derive(Debug)]
pub struct MaglevTable(Vec<u32>);

struct Build {
    offset: u64,
    skip: u64,
    weight: f64,
    target: f64,
    next: u64,
}

impl MaglevTable {
    /// Fills the table: each endpoint in turn takes the next free entry of its own permutation.
    pub fn new(hosts: &[Arc<Endpoint>], size: u32) -> Self {
        const FREE: u32 = u32::MAX;
        let size = u64::from(size.clamp(3, 5_000_011));
        let mut table = vec![FREE; usize::try_from(size).unwrap_or_default()];
        let most = hosts.iter().map(|host| host.weight.max(1)).max().unwrap_or(1);
        let mut builds: Vec<Build> = hosts
            .iter()
            .map(|host| {
                let address = host.address.to_string();
                Build {
                    offset: xxh64(address.as_bytes(), 0) % size,
                    skip: xxh64(address.as_bytes(), 1) % (size - 1) + 1,
                    weight: f64::from(host.weight.max(1)),
                    target: 0.0,
                    next: 0,
                }
            })
            .collect();
        let mut left = if builds.is_empty() { 0 } else { table.len() };
        let mut round = 1.0;
        while left > 0 {
            for (index, build) in builds.iter_mut().enumerate() {
                if left == 0 {
                    break;
                }
                if round * build.weight < build.target {
                    continue;
                }
                build.target += f64::from(most);
                loop {
                    let at = (build.offset + build.skip.wrapping_mul(build.next) % size) % size;
                    build.next += 1;
                    let entry = usize::try_from(at).ok().and_then(|at| table.get_mut(at));
                    // A size that is no prime may leave an endpoint's permutation without free entries.
                    let exhausted = build.next > 2 * size;
                    match entry {
                        Some(entry) if *entry == FREE => {
                            *entry = u32::try_from(index).unwrap_or(FREE);
                            left -= 1;
                            break;
                        }
                        _ if exhausted => break,
                        _ => {}
                    }
                }
            }
            if builds.iter().all(|build| build.next > 2 * size) {
                break;
            }
            round += 1.0;
        }
        Self(table)
    }

    /// The index of the endpoint that a hash belongs to.
    pub fn get(&self, hash: u64) -> Option<usize> {
        let at = hash % (self.0.len() as u64).max(1);
        self.0.get(usize::try_from(at).ok()?).map(|index| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_xxhash() {
        for (text, seed, expected) in [
            ("", 0, 0xEF46_DB37_51D8_E999),
            ("a", 0, 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0, 0x44BC_2CF5_AD77_0999),
            ("Nobody inspects the spammish repetition", 0, 0xFBCE_A83C_8A37_8BF1),
            ("xxhash", 0, 0x32DD_3895_2C4B_C720),
            ("xxhash", 20_141_025, 0xB559_B98D_844E_0635),
        ] {
            assert_eq!(xxh64(text.as_bytes(), seed), expected, "{text:?} {seed}");
        }
    }
}
