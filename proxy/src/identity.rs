//! The workload's identity: its certificate, its key and whom it trusts.
//!
//! Made and renewed by `control::certificates`, read by the data threads (`net::tls`) and by the ADS channel.
//! Invariant: immutable; a renewal publishes a new value with a higher generation.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_api::identity::SpiffeId;

/// A certificate with everything that a TLS configuration is built of.
#[derive(Debug)]
pub struct Identity {
    /// Counts up with every renewal; TLS configurations and resumption state live within one generation.
    pub generation: u64,
    /// The one URI SAN of the certificate.
    pub id: SpiffeId,
    /// The leaf first, then intermediates; without roots.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key; it was made in this process and never leaves it.
    pub key: PrivateKeyDer<'static>,
    /// The mesh's trust bundle.
    pub roots: Vec<CertificateDer<'static>>,
    /// The leaf's serial number in hexadecimal.
    pub serial: Box<str>,
    /// Beginning of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}
