//! The authority: a signing key with its chain, kept in the state folder or wherever the runtime keeps [`CaFiles`].
//!
//! A folder without one gets a self-signed P-256 root of ten years; a folder with a user's `cacerts` files is used as
//! it is. A folder that holds half an authority is an error: a root is never replaced by accident.
//! [`AuthorityStore`] swaps the authority when the files change, so that a root can be rotated without a restart.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::sync::watch;
use weft_api::identity::SpiffeId;

use crate::{
    bundle::{self, BundleError, PemCertificate},
    csr::{CsrError, SigningRequest},
    state::{CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT, Secrecy, StateDir, StateError},
};

const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of the mesh may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The state folder could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Some of the files are there, and one that they need is not.
    #[error("{present} is there and {missing} is not: add it, or remove both to get a new root")]
    Incomplete {
        /// A file that is there.
        present: &'static str,
        /// The file that is not.
        missing: &'static str,
    },
    /// The files were there and no longer are.
    #[error("the authority's files have gone from the state folder")]
    Gone,
    /// A file's certificates cannot be used.
    #[error("{file}")]
    Bundle {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        #[source]
        source: BundleError,
    },
    /// The private key cannot be read, or is of a kind that we cannot sign with.
    #[error("{CA_KEY} is not a private key that can sign (P-256, P-384, Ed25519 or RSA)")]
    Key,
    /// The private key is another certificate's.
    #[error("{CA_KEY} is not the key of {CA_CERT}")]
    KeyMismatch,
    /// The random generator or signing failed.
    #[error("cannot make a certificate")]
    Crypto(#[source] rcgen::Error),
}

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is not sound.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The request asks for an identity that is not the requester's.
    #[error("the request asks for {requested:?}, its token is for {identity}")]
    Identity {
        /// What the request asks for.
        requested: String,
        /// Who the requester is.
        identity: SpiffeId,
    },
    /// The signing certificate ends before anything could be signed with it.
    #[error("the signing certificate has expired")]
    Expired,
    /// A name cannot stand in a certificate.
    #[error("{0:?} cannot be a name in a certificate")]
    Name(String),
    /// The random generator or signing failed.
    #[error("cannot sign")]
    Crypto(#[source] rcgen::Error),
}

/// A certificate with its key, for a server of ours.
pub struct ServingCertificate {
    /// The leaf, then what stands between it and a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key; it was never written anywhere.
    pub key: PrivateKeyDer<'static>,
    /// The end of its life.
    pub not_after: OffsetDateTime,
}

/// A signing key with its chain.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// From the signing certificate (unless it is a root) up to a root, without the root.
    path: Vec<PemCertificate>,
    roots: Vec<PemCertificate>,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Reads the state folder's authority, and makes one when there is none. Safe while others do the same.
    ///
    /// # Errors
    /// When the folder cannot be used or what it holds is not a whole, valid authority.
    pub fn load_or_create(
        state: &StateDir,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        if let Some(files) = CaFiles::read(state)? {
            return Self::from_files(&files, now);
        }
        let _lock = state.lock()?;
        if let Some(files) = CaFiles::read(state)? {
            return Self::from_files(&files, now);
        }
        let files = CaFiles::create(state, trust_domain, now)?;
        Self::from_files(&files, now)
    }

    fn from_files(files: &CaFiles, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let of = |file| move |source| AuthorityError::Bundle { file, source };
        let signer = bundle::read(&files.cert).map_err(of(CA_CERT))?.remove(0);
        let roots = bundle::read(&files.roots).map_err(of(ROOT_CERT))?;
        let intermediates = match &files.chain {
            Some(chain) if !chain.trim().is_empty() => {
                bundle::read(chain).map_err(of(CERT_CHAIN))?
            }
            _ => Vec::new(),
        };
        let key = KeyPair::from_pem(&files.key).map_err(|_| AuthorityError::Key)?;
        let certified = signer.parse().map_err(of(CA_CERT))?;
        if certified.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::KeyMismatch);
        }
        let path =
            bundle::path_to_root(&signer, &intermediates, &roots, now).map_err(of(CA_CERT))?;
        let not_after = signer.not_after().map_err(of(CA_CERT))?;
        let issuer = Issuer::from_ca_cert_der(&signer.der, key).map_err(AuthorityError::Crypto)?;
        Ok(Self { issuer, path, roots, not_after })
    }

    /// Signs a workload's request for the identity that its token proved. The certificate's only name is that
    /// identity; all else that the request asks for is ignored. Gives PEM: leaf, intermediates, and the trust bundle last.
    ///
    /// # Errors
    /// When the request is not sound or asks for somebody else's identity.
    pub fn sign_workload(
        &self,
        csr: &str,
        identity: &SpiffeId,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<String>, SignError> {
        let request = SigningRequest::from_pem(csr)?;
        let name = identity.to_string();
        if let Some(other) = request.uris.iter().find(|uri| **uri != name) {
            return Err(SignError::Identity {
                requested: other.clone(),
                identity: identity.clone(),
            });
        }
        let uri = name.as_str().try_into().map_err(|_| SignError::Name(name.clone()))?;
        let (params, _) = self.leaf(vec![SanType::URI(uri)], lifetime, now)?;
        let leaf =
            params.signed_by(&request.public_key, &self.issuer).map_err(SignError::Crypto)?;
        let intermediates = self.path.iter().map(|certificate| certificate.pem.clone());
        Ok(std::iter::once(leaf.pem()).chain(intermediates).chain([self.trust_bundle()]).collect())
    }

    /// Makes a key and a certificate for a server with these DNS names and IP addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue_serving(
        &self,
        names: &[String],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<ServingCertificate, SignError> {
        let names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name
                    .as_str()
                    .try_into()
                    .map(SanType::DnsName)
                    .map_err(|_| SignError::Name(name.clone())),
            })
            .collect::<Result<_, _>>()?;
        let (params, not_after) = self.leaf(names, lifetime, now)?;
        let key = KeyPair::generate().map_err(SignError::Crypto)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(SignError::Crypto)?;
        let path = self.path.iter().map(|certificate| certificate.der.clone());
        Ok(ServingCertificate {
            chain: std::iter::once(leaf.der().clone()).chain(path).collect(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_after,
        })
    }

    fn leaf(
        &self,
        names: Vec<SanType>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<(CertificateParams, OffsetDateTime), SignError> {
        let not_after = now.saturating_add(time::Duration::seconds(
            i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        ));
        let not_after = not_after.min(self.not_after);
        if not_after <= now {
            return Err(SignError::Expired);
        }
        let mut params = CertificateParams::default();
        // A tenth of the lifetime at most, so that half of a short life is not over at its start.
        params.not_before = now - CLOCK_SKEW.min(lifetime / 10);
        params.not_after = not_after;
        params.serial_number = Some(serial().map_err(SignError::Crypto)?);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok((params, not_after))
    }

    /// The trust bundle in PEM.
    pub fn trust_bundle(&self) -> String {
        self.roots.iter().map(|root| root.pem.as_str()).collect()
    }

    /// The trust bundle's certificates.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.iter().map(|root| root.der.clone()).collect()
    }

    /// The end of the signing certificate's life: nothing that it signs lives longer.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The first end of life among the roots.
    pub fn roots_not_after(&self) -> OffsetDateTime {
        let ends = self.roots.iter().filter_map(|root| root.not_after().ok());
        ends.min().unwrap_or(self.not_after)
    }
}

/// A random positive number of 127 bits: certificates of one key must still differ.
fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The texts that make an authority: the files of the state folder, the entries of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CaFiles {
    cert: String,
    key: String,
    roots: String,
    chain: Option<String>,
}

impl fmt::Debug for CaFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFiles").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl CaFiles {
    /// Takes the texts from where they are kept, by file name.
    ///
    /// # Errors
    /// When one that there must be is not there.
    pub fn from_entries(get: impl Fn(&str) -> Option<String>) -> Result<Self, AuthorityError> {
        let required = |name: &'static str, other: &'static str| {
            get(name).ok_or(AuthorityError::Incomplete { present: other, missing: name })
        };
        Ok(Self {
            cert: required(CA_CERT, CA_KEY)?,
            key: required(CA_KEY, CA_CERT)?,
            roots: required(ROOT_CERT, CA_CERT)?,
            chain: get(CERT_CHAIN),
        })
    }

    /// Makes a self-signed root.
    ///
    /// # Errors
    /// When the random generator fails.
    pub fn generate(trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Crypto)?;
        let cert = root(&key, trust_domain, now).map_err(AuthorityError::Crypto)?;
        Ok(Self { roots: cert.clone(), cert, key: key.serialize_pem(), chain: None })
    }

    /// The texts by file name. One of them is a private key.
    pub fn into_entries(self) -> BTreeMap<String, String> {
        let chain = self.chain.unwrap_or_default();
        [(CA_CERT, self.cert), (CA_KEY, self.key), (ROOT_CERT, self.roots), (CERT_CHAIN, chain)]
            .map(|(name, text)| (name.to_owned(), text))
            .into()
    }

    /// `None` when there is no authority, or only what an interrupted creation left.
    fn read(state: &StateDir) -> Result<Option<Self>, AuthorityError> {
        let chain = state.read(CERT_CHAIN)?;
        match (state.read(CA_KEY)?, state.read(CA_CERT)?, state.read(ROOT_CERT)?) {
            (Some(key), Some(cert), Some(roots)) => Ok(Some(Self { cert, key, roots, chain })),
            (_, None, None) => Ok(None),
            (Some(_), Some(cert), None) if is_root(&cert) => Ok(None),
            (None, Some(_), _) => {
                Err(AuthorityError::Incomplete { present: CA_CERT, missing: CA_KEY })
            }
            (_, None, Some(_)) => {
                Err(AuthorityError::Incomplete { present: ROOT_CERT, missing: CA_CERT })
            }
            (Some(_), Some(_), None) => {
                Err(AuthorityError::Incomplete { present: CA_CERT, missing: ROOT_CERT })
            }
        }
    }

    /// Makes a self-signed root; the caller holds the lock. The order of writing is such that whatever is missing
    /// after a crash can be made from what is there.
    fn create(
        state: &StateDir,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let key = match state.read(CA_KEY)? {
            Some(key) => KeyPair::from_pem(&key).map_err(|_| AuthorityError::Key)?,
            None => KeyPair::generate().map_err(AuthorityError::Crypto)?,
        };
        let cert = match state.read(CA_CERT)? {
            Some(cert) => cert,
            None => root(&key, trust_domain, now).map_err(AuthorityError::Crypto)?,
        };
        let key = key.serialize_pem();
        state.write(CA_KEY, &key, Secrecy::Private)?;
        state.write(CA_CERT, &cert, Secrecy::Public)?;
        state.write(ROOT_CERT, &cert, Secrecy::Public)?;
        Ok(Self { roots: cert.clone(), cert, key, chain: None })
    }
}

fn is_root(cert: &str) -> bool {
    bundle::read(cert).is_ok_and(|certificates| certificates[0].is_self_issued())
}

fn root(key: &KeyPair, trust_domain: &str, now: OffsetDateTime) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + ROOT_LIFETIME;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "Weft root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

/// The authority in use, replaced when the state folder's files change.
pub struct AuthorityStore {
    /// The folder that is read again; without one, whoever knows says what changed.
    state: Option<StateDir>,
    current: ArcSwap<(CaFiles, Arc<Authority>)>,
    /// Told of whenever the authority is another one.
    changes: watch::Sender<()>,
}

impl AuthorityStore {
    /// Opens the state folder's authority; see [`Authority::load_or_create`].
    ///
    /// # Errors
    /// As [`Authority::load_or_create`].
    pub fn open(
        state: StateDir,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let created = Authority::load_or_create(&state, trust_domain, now)?;
        let files = CaFiles::read(&state)?.ok_or(AuthorityError::Gone)?;
        Ok(Self::of(Some(state), files, created))
    }

    /// An authority from texts that are kept elsewhere.
    ///
    /// # Errors
    /// When they are not a whole, valid authority.
    pub fn new(files: CaFiles, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let authority = Authority::from_files(&files, now)?;
        Ok(Self::of(None, files, authority))
    }

    fn of(state: Option<StateDir>, files: CaFiles, authority: Authority) -> Self {
        let current = ArcSwap::from_pointee((files, Arc::new(authority)));
        Self { state, current, changes: watch::Sender::new(()) }
    }

    /// Changes when the authority is another one from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The authority to sign with now.
    pub fn current(&self) -> Arc<Authority> {
        self.current.load().1.clone()
    }

    /// The texts that the authority in use was made from.
    pub fn files(&self) -> CaFiles {
        self.current.load().0.clone()
    }

    /// Reads the folder again, where there is one, and says whether the authority is another one now.
    ///
    /// # Errors
    /// When the files are not a whole, valid authority; the one before stays in use.
    pub fn reload(&self, now: OffsetDateTime) -> Result<bool, AuthorityError> {
        let Some(state) = &self.state else { return Ok(false) };
        let files = CaFiles::read(state)?.ok_or(AuthorityError::Gone)?;
        self.replace(files, now)
    }

    /// Takes other texts, and says whether the authority is another one now.
    ///
    /// # Errors
    /// When they are not a whole, valid authority; the one before stays in use.
    pub fn replace(&self, files: CaFiles, now: OffsetDateTime) -> Result<bool, AuthorityError> {
        if files == self.current.load().0 {
            return Ok(false);
        }
        let authority = Authority::from_files(&files, now)?;
        self.current.store(Arc::new((files, Arc::new(authority))));
        self.changes.send_replace(());
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
