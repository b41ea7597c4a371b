//! Session tickets: what a server gives to a client to keep, sealed so that nobody else can read or make one.
//!
//! AES-256-GCM, a random nonce for each: a fraction of what AES-CBC with HMAC costs for a ticket that carries a client's chain. A
//! key is for six hours and opens tickets for twelve, as rustls' own; it seals no more than what random nonces allow for.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use rustls::{crypto::GetRandomFailed, server::ProducesTickets, ticketer::TicketRotator};

/// How long a key seals, in seconds.
const SEALS: u32 = 6 * 60 * 60;
/// How often a key may be used with random nonces of 96 bits, by half (NIST SP 800-38D, 8.3).
const MOST: u32 = 1 << 31;
/// Larger tickets are neither made nor looked at: a client's chain is most of one.
const LARGEST: usize = 16 * 1024;

/// A ticketer with keys of its own.
///
/// # Errors
/// The system gives no random numbers.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    let make = || Ok(Box::new(Sealed::new()?) as Box<dyn ProducesTickets>);
    Ok(Arc::new(TicketRotator::new(SEALS, make)?))
}

/// One key.
struct Sealed {
    key: RandomizedNonceKey,
    used: AtomicU32,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").finish_non_exhaustive()
    }
}

impl Sealed {
    fn new() -> Result<Self, GetRandomFailed> {
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(|_| GetRandomFailed)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| GetRandomFailed)?;
        Ok(Self { key, used: AtomicU32::new(0) })
    }

    /// Whether the key may be used once more.
    fn count(&self) -> bool {
        let more = |used: u32| (used < MOST).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl ProducesTickets for Sealed {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        SEALS * 2
    }

    /// The sealed text, its tag, and the nonce.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let size = plain.len() + AES_256_GCM.tag_len() + NONCE_LEN;
        if size > LARGEST || !self.count() {
            return None;
        }
        let mut ticket = Vec::with_capacity(size);
        ticket.extend_from_slice(plain);
        let nonce = self.key.seal_in_place_append_tag(Aad::empty(), &mut ticket).ok()?;
        ticket.extend_from_slice(nonce.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LARGEST {
            return None;
        }
        let (sealed, nonce) = ticket.split_last_chunk::<NONCE_LEN>()?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let size = self.key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(size);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_opened_by_its_key_and_no_other_and_as_it_is_and_not_otherwise() {
        let (mine, other) = (Sealed::new().unwrap(), Sealed::new().unwrap());
        for plain in [&b""[..], b"x", &[7; 1_000]] {
            let ticket = mine.encrypt(plain).unwrap();
            assert_eq!(mine.decrypt(&ticket).as_deref(), Some(plain));
            assert_eq!(other.decrypt(&ticket), None);
            assert!(plain.len() < 16 || !ticket.windows(16).any(|part| part == &plain[..16]));
            for at in 0..ticket.len() {
                let mut changed = ticket.clone();
                changed[at] ^= 1;
                assert_eq!(mine.decrypt(&changed), None, "byte {at}");
                assert_eq!(mine.decrypt(&ticket[..at]), None, "cut at {at}");
                assert_eq!(mine.decrypt(&ticket[at + 1..]), None, "without the first {at}");
            }
            assert_ne!(mine.encrypt(plain).unwrap(), ticket, "the same twice");
        }
    }

    #[test]
    fn what_is_too_large_or_too_much_gets_no_ticket() {
        let sealed = Sealed::new().unwrap();
        let most = LARGEST - AES_256_GCM.tag_len() - NONCE_LEN;
        let ticket = sealed.encrypt(&vec![1; most]).unwrap();
        assert_eq!(sealed.decrypt(&ticket), Some(vec![1; most]));
        assert_eq!(sealed.encrypt(&vec![1; most + 1]), None);
        assert_eq!(sealed.decrypt(&vec![1; LARGEST + 1]), None);
        sealed.used.store(MOST - 1, Ordering::Relaxed);
        assert!(sealed.encrypt(b"the last").is_some());
        assert_eq!(sealed.encrypt(b"one more"), None);
        assert_eq!(sealed.decrypt(&ticket).map(|plain| plain.len()), Some(most));
    }

    #[test]
    fn every_ticketer_has_keys_of_its_own() {
        let (mine, other) = (ticketer().unwrap(), ticketer().unwrap());
        let ticket = mine.encrypt(b"session").unwrap();
        assert_eq!(mine.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(mine.lifetime(), 12 * 60 * 60);
    }
}
