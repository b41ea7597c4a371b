//! Certificates as the state folder and the signing RPC carry them: PEM text beside its bytes, and the checks that a
//! user's own chain must pass before anything is signed with it.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// A chain longer than this is a mistake.
const MAX_DEPTH: usize = 8;
const END: &str = "-----END CERTIFICATE-----";

/// Why certificates cannot be used to sign for the mesh.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BundleError {
    /// No certificate where there must be one.
    #[error("holds no certificate")]
    Empty,
    /// A block is not an X.509 certificate.
    #[error("certificate {position} is not valid")]
    Certificate {
        /// Counted from 1.
        position: usize,
    },
    /// The signing certificate is not an authority's.
    #[error("is not the certificate of an authority")]
    NotAuthority,
    /// The signing certificate, or one above it, is out of date.
    #[error("{subject:?} is not valid now")]
    Expired {
        /// Whose certificate it is.
        subject: String,
    },
    /// No path leads to a root.
    #[error("no chain leads from {subject:?} to a root of root-cert.pem")]
    Unrooted {
        /// The certificate whose issuer was not found.
        subject: String,
    },
}

/// A certificate as text and as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemCertificate {
    /// One PEM block.
    pub pem: String,
    /// The same certificate in DER form.
    pub der: CertificateDer<'static>,
}

impl PemCertificate {
    /// The certificate, read.
    ///
    /// # Errors
    /// Never for what [`read`] gave.
    pub fn parse(&self) -> Result<X509Certificate<'_>, BundleError> {
        X509Certificate::from_der(&self.der)
            .map(|(_, certificate)| certificate)
            .map_err(|_| BundleError::Certificate { position: 1 })
    }

    /// Whether it is its own issuer.
    pub fn is_self_issued(&self) -> bool {
        self.parse().is_ok_and(|certificate| certificate.subject() == certificate.issuer())
    }

    /// The end of its life.
    ///
    /// # Errors
    /// Never for what [`read`] gave.
    pub fn not_after(&self) -> Result<OffsetDateTime, BundleError> {
        Ok(self.parse()?.validity().not_after.to_datetime())
    }
}

/// Reads every certificate of a PEM text; comments between them are dropped.
///
/// # Errors
/// When there is none, or one of them is damaged.
pub fn read(text: &str) -> Result<Vec<PemCertificate>, BundleError> {
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN CERTIFICATE-----") {
        let error = || BundleError::Certificate { position: certificates.len() + 1 };
        let end = rest[start..].find(END).ok_or_else(error)? + start + END.len();
        let pem = format!("{}\n", &rest[start..end]);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| error())?;
        let trailing = X509Certificate::from_der(&der).map_err(|_| error())?.0.len();
        if trailing > 0 {
            return Err(error());
        }
        certificates.push(PemCertificate { pem, der });
        rest = &rest[end..];
    }
    if certificates.is_empty() { Err(BundleError::Empty) } else { Ok(certificates) }
}

/// Finds the certificates between the signing certificate and a root, the signing certificate first unless it is a
/// root itself.
///
/// # Errors
/// When a certificate on the way is not valid now, or none leads to a root.
pub fn path_to_root(
    signer: &PemCertificate,
    intermediates: &[PemCertificate],
    roots: &[PemCertificate],
    now: OffsetDateTime,
) -> Result<Vec<PemCertificate>, BundleError> {
    if !signer.parse()?.is_ca() {
        return Err(BundleError::NotAuthority);
    }
    let mut path = Vec::new();
    let mut current = signer;
    for _ in 0..MAX_DEPTH {
        let certificate = current.parse()?;
        let subject = || certificate.subject().to_string();
        let validity = certificate.validity();
        if now < validity.not_before.to_datetime() || now > validity.not_after.to_datetime() {
            return Err(BundleError::Expired { subject: subject() });
        }
        if roots.iter().any(|root| root.der == current.der) {
            return Ok(path);
        }
        path.push(current.clone());
        let issued_by = |candidate: &&PemCertificate| {
            candidate.parse().is_ok_and(|issuer| {
                issuer.subject() == certificate.issuer()
                    && certificate.verify_signature(Some(issuer.public_key())).is_ok()
            })
        };
        let candidates = roots.iter().chain(intermediates);
        current = candidates
            .filter(|candidate| candidate.der != current.der)
            .find(issued_by)
            .ok_or_else(|| BundleError::Unrooted { subject: subject() })?;
    }
    Err(BundleError::Unrooted { subject: signer.parse()?.subject().to_string() })
}
