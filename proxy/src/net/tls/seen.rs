//! Certificates that were looked at before.
//!
//! In a mesh the same peers come again and again. Whether a chain leads to a set of roots depends on nothing but the two
//! and the time: a chain that did is not verified anew while all of its certificates are valid. What a certificate says never
//! changes at all. That the peer has the key is proved in every handshake, and its names are checked in every handshake.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::Error;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::*;

use super::{PeerError, verify::Leaf};

/// How many of each are kept.
const KEPT: usize = 32;
/// Larger chains are not kept.
const LARGEST: usize = 16 * 1024;

/// Keeps what is asked for again, most recent first.
#[derive(Debug)]
pub(super) struct Recent<T>(Vec<T>);

impl<T> Recent<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn find(&mut self, is: impl Fn(&T) -> bool) -> Option<&T> {
        let at = self.0.iter().position(is)?;
        self.0[..=at].rotate_right(1);
        self.0.first()
    }

    pub(super) fn keep(&mut self, value: T) {
        self.0.truncate(KEPT - 1);
        self.0.insert(0, value);
    }
}

/// What a leaf says, as [`Leaf::parse`].
///
/// # Errors
/// As [`Leaf::parse`].
pub fn leaf(der: &[u8]) -> Result<Arc<Leaf>, PeerError> {
    type Parsed = (Box<[u8]>, Arc<Leaf>);
    thread_local! {
        static LEAVES: RefCell<Recent<Parsed>> = const { RefCell::new(Recent::new()) };
    }
    LEAVES.with_borrow_mut(|leaves| {
        if let Some((_, leaf)) = leaves.find(|(seen, _)| **seen == *der) {
            return Ok(leaf.clone());
        }
        let leaf = Arc::new(Leaf::parse(der)?);
        if der.len() <= LARGEST {
            leaves.keep((der.into(), leaf.clone()));
        }
        Ok(leaf)
    })
}

/// A chain that led to the roots.
#[derive(Debug)]
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// When all of them are valid, in seconds since the epoch.
    valid: (i64, i64),
}

/// The chains that led to the roots of one verifier, which has always the same.
#[derive(Debug)]
pub struct Chains(Mutex<Recent<Chain>>);

impl Default for Chains {
    fn default() -> Self {
        Self(Mutex::new(Recent::new()))
    }
}

impl Chains {
    /// Verifies a chain, unless that was done before and holds still.
    ///
    /// # Errors
    /// What `verify` says.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        verify: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let all = || std::iter::once(leaf).chain(others);
        let known = |chain: &Chain| chain.valid.0 <= now && now < chain.valid.1;
        let found = {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.find(|chain| chain.certificates.iter().eq(all())).is_some_and(known)
        };
        if found {
            return Ok(());
        }
        verify()?;
        let size: usize = all().map(|certificate| certificate.len()).sum();
        if size <= LARGEST
            && let Some(valid) = validity(all())
        {
            let certificates = all().map(|certificate| certificate.clone().into_owned()).collect();
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.keep(Chain { certificates, valid });
        }
        Ok(())
    }
}

/// When all of the certificates are valid.
fn validity<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>) -> Option<(i64, i64)> {
    let mut valid = (i64::MIN, i64::MAX);
    for der in certificates {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let one = certificate.validity();
        valid.0 = valid.0.max(one.not_before.timestamp());
        valid.1 = valid.1.min(one.not_after.timestamp());
    }
    Some(valid)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;
    use crate::net::tls::tests::{Authority, Leaf as Signed};

    fn at(days: i64) -> UnixTime {
        let now = UnixTime::now().as_secs();
        UnixTime::since_unix_epoch(Duration::from_secs(now.strict_add_signed(days * 86_400)))
    }

    #[test]
    fn a_chain_is_verified_once_while_all_of_it_is_valid() {
        let authority = Authority::new();
        let sign = |days| {
            let mut leaf = Signed::workload(&["spiffe://a/ns/b/sa/c"]);
            leaf.days = days;
            authority.sign(leaf).0
        };
        let (leaf, other) = (sign((-1, 4)), sign((-1, 2)));
        let chains = Chains::default();
        let verified = Cell::new(0);
        let verify = |leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now| {
            let before = verified.get();
            let count = || {
                verified.set(before + 1);
                Ok(())
            };
            chains.verify(leaf, others, now, count).unwrap();
            verified.get() - before
        };
        let others = std::slice::from_ref(&other);
        for (case, leaf, others, day, times) in [
            ("the first time", &leaf, others, 0, 1),
            ("again", &leaf, others, 0, 0),
            ("another leaf", &other, others, 0, 1),
            ("a shorter chain", &leaf, &[], 0, 1),
            ("the first again", &leaf, others, 1, 0),
            ("the other one has expired", &leaf, others, 3, 1),
            ("without it the chain is valid", &leaf, &[], 3, 0),
            ("not yet valid", &leaf, &[], -2, 1),
        ] {
            assert_eq!(verify(leaf, others, at(day)), times, "{case}");
        }
    }

    #[test]
    fn what_was_refused_is_looked_at_again() {
        let leaf = Authority::new().sign(Signed::workload(&["spiffe://a/ns/b/sa/c"])).0;
        let chains = Chains::default();
        let refuse = || Err(Error::General("no".into()));
        assert!(chains.verify(&leaf, &[], at(0), refuse).is_err());
        assert!(chains.verify(&leaf, &[], at(0), refuse).is_err());
        assert!(chains.verify(&leaf, &[], at(0), || Ok(())).is_ok());
        assert!(chains.verify(&leaf, &[], at(0), refuse).is_ok());
    }

    #[test]
    fn only_the_most_recent_are_kept() {
        let mut recent = Recent::new();
        (0..100).for_each(|number| recent.keep(number));
        assert_eq!(recent.0.len(), KEPT);
        assert!(recent.find(|number| *number == 67).is_none());
        assert_eq!(recent.find(|number| *number == 68), Some(&68));
        (100..131).for_each(|number| recent.keep(number));
        assert!(recent.find(|number| *number == 68).is_some());
    }
}
