//! Certificates, keys and trust bundles, from wherever the settings say: read, parsed, and checked against each other.
//!
//! What is wrong is told by what it is and why, never with a key's bytes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{TlsError, configs::provider, verify::Leaf};
use crate::{
    config::tls::{SecretContent, TlsSource},
    identity::Identity,
};

/// Where systems keep their trust bundle.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A file as it was when it was read.
pub(super) type Stamp = (PathBuf, Option<SystemTime>);

/// The files of some sources.
pub(super) fn stamps<'a>(sources: impl IntoIterator<Item = &'a TlsSource>) -> Vec<Stamp> {
    let mut stamps = Vec::new();
    for source in sources {
        if let TlsSource::Files { certificate, key, ca } = source {
            for path in [certificate, key, ca].into_iter().flatten() {
                stamps.push((path.clone(), modified(path)));
            }
        }
    }
    stamps
}

/// When a file was changed last.
pub(super) fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Something that cannot be used, and why.
pub(super) fn material(
    what: impl Into<String>,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> TlsError {
    let what = what.into();
    move |source| TlsError::Material { what, source }
}

fn missing(what: &str, why: &str) -> TlsError {
    material(what)(why.into())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| material(path.display().to_string())(Box::new(error)))
}

/// A certificate with its key.
///
/// # Errors
/// It is not there, cannot be parsed, or the key is another certificate's.
pub(super) fn certified(
    source: &TlsSource,
    identity: Option<&Identity>,
) -> Result<Arc<CertifiedKey>, TlsError> {
    match source {
        TlsSource::Mesh => {
            let identity = identity.ok_or(TlsError::NoIdentity)?;
            with_key(identity.chain.clone(), identity.key.clone_key())
        }
        TlsSource::Files { certificate: Some(certificate), key: Some(key), .. } => {
            parse_certified(&read(certificate)?, &read(key)?)
        }
        TlsSource::Inline { certificate, key, .. } => parse_certified(certificate, key),
        TlsSource::Secret(secret) => match secret.content().as_deref() {
            Some(SecretContent::Certificate(certified)) => Ok(certified.clone()),
            Some(SecretContent::Trust(_)) => {
                Err(missing(&secret.to_string(), "it holds no certificate with a key"))
            }
            None => Err(missing(&secret.to_string(), "there is no such secret")),
        },
        TlsSource::Files { .. } | TlsSource::System => {
            Err(missing("a certificate and its key", "none is configured"))
        }
    }
}

/// A certificate with its key, both in PEM.
///
/// # Errors
/// See `certified`.
pub fn parse_certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| material("the certificate")(Box::new(error)))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| material("the key")(Box::new(error)))?;
    if chain.is_empty() {
        return Err(missing("the certificate", "it holds no certificate"));
    }
    with_key(chain, key)
}

fn with_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, TlsError> {
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            missing("the key", "it is not the key of the certificate")
        }
        Error::InvalidCertificate(_) => material("the certificate")(Box::new(error)),
        other => material("the key")(Box::new(other)),
    })
}

/// Whom to trust.
///
/// # Errors
/// It is not there, or cannot be parsed.
pub(super) fn roots(
    source: &TlsSource,
    identity: Option<&Identity>,
) -> Result<Arc<RootCertStore>, TlsError> {
    match source {
        TlsSource::Mesh => {
            let identity = identity.ok_or(TlsError::NoIdentity)?;
            let mut roots = RootCertStore::empty();
            for root in &identity.roots {
                roots.add(root.clone()).map_err(TlsError::Settings)?;
            }
            Ok(Arc::new(roots))
        }
        TlsSource::Files { ca: Some(ca), .. } => parse_roots(&read(ca)?),
        TlsSource::Inline { ca, .. } => parse_roots(ca),
        TlsSource::Secret(secret) => match secret.content().as_deref() {
            Some(SecretContent::Trust(roots)) => Ok(roots.clone()),
            Some(SecretContent::Certificate(_)) => {
                Err(missing(&secret.to_string(), "it holds no trust bundle"))
            }
            None => Err(missing(&secret.to_string(), "there is no such secret")),
        },
        TlsSource::Files { ca: None, .. } | TlsSource::System => system_roots(),
    }
}

/// A trust bundle in PEM.
///
/// # Errors
/// It cannot be parsed, or is empty.
pub fn parse_roots(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| material("the trust bundle")(Box::new(error)))?;
        roots.add(certificate).map_err(|error| material("the trust bundle")(Box::new(error)))?;
    }
    if roots.is_empty() {
        return Err(missing("the trust bundle", "it holds no certificate"));
    }
    Ok(Arc::new(roots))
}

/// The system's trust bundle, read once for the process. What of it rustls cannot use is left out.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: LazyLock<io::Result<Arc<RootCertStore>>> = LazyLock::new(|| {
        let path = SYSTEM_BUNDLES
            .iter()
            .find(|path| Path::new(path).exists())
            .ok_or(io::ErrorKind::NotFound)?;
        let pem = fs::read(path)?;
        let mut roots = RootCertStore::empty();
        roots
            .add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        Ok(Arc::new(roots))
    });
    match &*ROOTS {
        Ok(roots) => Ok(roots.clone()),
        Err(error) => {
            Err(material("the system's trust bundle")(Box::new(io::Error::from(error.kind()))))
        }
    }
}

/// Chooses among several certificates: of those whose key the client can verify the one that has the name asked for,
/// else the first (as Envoy does).
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<(Arc<CertifiedKey>, Vec<String>)>,
}

impl Certificates {
    pub(super) fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let names = |certified: &CertifiedKey| {
            let leaf = certified.cert.first().and_then(|der| Leaf::parse(der).ok());
            leaf.map(|leaf| leaf.certificate.dns_sans.clone()).unwrap_or_default()
        };
        let all = all.into_iter().map(|certified| (certified.clone(), names(&certified)));
        Self { all: all.collect() }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |certified: &CertifiedKey| {
            certified.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let mut usable = self.all.iter().filter(|(certified, _)| usable(certified)).peekable();
        let first = usable.peek().map(|(certified, _)| certified.clone());
        let asked = hello.server_name().unwrap_or_default();
        usable
            .find(|(_, names)| names.iter().any(|name| covers(name, asked)))
            .map(|(certified, _)| certified.clone())
            .or(first)
    }
}

/// A wildcard stands for one label.
fn covers(name: &str, asked: &str) -> bool {
    match name.strip_prefix('*') {
        None => name.eq_ignore_ascii_case(asked),
        Some(suffix) => asked.split_once('.').is_some_and(|(_, rest)| {
            suffix.strip_prefix('.').is_some_and(|s| s.eq_ignore_ascii_case(rest))
        }),
    }
}
