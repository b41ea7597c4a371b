//! rustls configurations, built once per identity generation and settings and kept per thread.
//!
//! Resumption never outlives a generation: a server's ticket keys are made for one certificate and shared by the data
//! threads (a ticket may come back to another thread); a client's sessions live in the configuration itself.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientCertVerifierBuilder, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier,
    },
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::time::Instant;

use super::{
    TlsError,
    verify::{ClientVerifier, Names, ServerVerifier},
};
use crate::{
    config::tls::{DownstreamTls, TlsSource, TlsVersions, UpstreamTls},
    identity::Identity,
};

/// How often files are looked at for changes.
const FILE_CHECK: Duration = Duration::from_secs(10);
/// Sessions that a client configuration keeps.
const CLIENT_SESSIONS: usize = 64;
/// Where systems keep their trust bundle.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A data thread's TLS configurations.
#[derive(Debug)]
pub struct TlsContexts {
    identity: Arc<ArcSwapOption<Identity>>,
    provider: Arc<CryptoProvider>,
    servers: RefCell<HashMap<usize, Cached<DownstreamTls, ServerTls>>>,
    clients: RefCell<HashMap<usize, Cached<UpstreamTls, ClientTls>>>,
}

/// What accepting needs.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    pub(super) names: Arc<Names>,
    /// Client certificates are asked for.
    pub(super) asks: bool,
    /// And must be given.
    pub(super) requires: bool,
    pub(super) local_identity: Option<Arc<str>>,
}

/// What connecting needs.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) names: Arc<Names>,
    /// Chains are verified.
    pub(super) verifies: bool,
    pub(super) local_identity: Option<Arc<str>>,
}

/// A configuration, and what it was made of: keyed by the settings' address, alive as long as the settings are.
#[derive(Debug)]
struct Cached<S, T> {
    settings: Weak<S>,
    generation: Option<u64>,
    files: Vec<(PathBuf, Option<SystemTime>)>,
    checked: Instant,
    value: T,
}

impl<S, T: Clone> Cached<S, T> {
    fn get(&mut self, settings: &Arc<S>, generation: Option<u64>) -> Option<T> {
        let same = std::ptr::eq(self.settings.as_ptr(), Arc::as_ptr(settings));
        if !same || self.generation != generation {
            return None;
        }
        if !self.files.is_empty() && self.checked.elapsed() >= FILE_CHECK {
            if self.files.iter().any(|(path, seen)| modified(path) != *seen) {
                return None;
            }
            self.checked = Instant::now();
        }
        Some(self.value.clone())
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn material(
    what: impl Into<String>,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> TlsError {
    let what = what.into();
    move |source| TlsError::Material { what, source }
}

impl TlsContexts {
    /// `identity` is the workload's certificate as the control thread publishes it.
    pub fn new(identity: Arc<ArcSwapOption<Identity>>) -> Self {
        Self {
            identity,
            provider: provider(),
            servers: RefCell::default(),
            clients: RefCell::default(),
        }
    }

    /// What accepting with these settings needs; made on first use and when the identity or a file changed.
    ///
    /// # Errors
    /// There is no identity yet, or keys or roots cannot be read.
    pub fn server(&self, tls: &Arc<DownstreamTls>) -> Result<ServerTls, TlsError> {
        let identity = self.identity.load();
        let generation = identity.as_ref().map(|identity| identity.generation);
        let key = Arc::as_ptr(tls) as usize;
        let mut servers = self.servers.borrow_mut();
        if let Some(value) = servers.get_mut(&key).and_then(|cached| cached.get(tls, generation)) {
            return Ok(value);
        }
        let files = stamps([Some(&tls.identity), tls.trust.as_ref()]);
        let value = self.build_server(tls, identity.as_deref())?;
        servers.retain(|_, cached| cached.settings.strong_count() > 0);
        servers.insert(key, cached(tls, generation, files, value.clone()));
        Ok(value)
    }

    /// What connecting with these settings needs; made on first use and when the identity or a file changed.
    ///
    /// # Errors
    /// There is no identity yet, or keys or roots cannot be read.
    pub fn client(&self, tls: &Arc<UpstreamTls>) -> Result<ClientTls, TlsError> {
        let identity = self.identity.load();
        let generation = identity.as_ref().map(|identity| identity.generation);
        let key = Arc::as_ptr(tls) as usize;
        let mut clients = self.clients.borrow_mut();
        if let Some(value) = clients.get_mut(&key).and_then(|cached| cached.get(tls, generation)) {
            return Ok(value);
        }
        let files = stamps([tls.identity.as_ref(), tls.trust.as_ref()]);
        let value = self.build_client(tls, identity.as_deref())?;
        clients.retain(|_, cached| cached.settings.strong_count() > 0);
        clients.insert(key, cached(tls, generation, files, value.clone()));
        Ok(value)
    }

    fn build_server(
        &self,
        tls: &DownstreamTls,
        identity: Option<&Identity>,
    ) -> Result<ServerTls, TlsError> {
        let names = match &tls.trust {
            None => Names::Any,
            Some(TlsSource::Mesh) => Names::Workload {
                trust_domain: identity.ok_or(TlsError::NoIdentity)?.id.trust_domain.clone(),
                expected: tls.subject_alt_names.clone(),
            },
            Some(_) if tls.subject_alt_names.is_empty() => Names::Any,
            Some(_) => Names::Sans(tls.subject_alt_names.clone()),
        };
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions(tls.versions))
            .map_err(TlsError::Settings)?;
        let builder = match &tls.trust {
            None => builder.with_no_client_auth(),
            Some(trust) => {
                let roots = roots(trust, identity)?;
                let chain: ClientCertVerifierBuilder =
                    WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone());
                let chain = if tls.require_client_certificate {
                    chain
                } else {
                    chain.allow_unauthenticated()
                };
                let chain =
                    chain.build().map_err(|error| material("the trust bundle")(Box::new(error)))?;
                builder
                    .with_client_cert_verifier(Arc::new(ClientVerifier::new(chain, names.clone())))
            }
        };
        let (chain, key) = certificate(&tls.identity, identity)?;
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Settings)?;
        config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let mesh =
            tls.identity == TlsSource::Mesh && matches!(tls.trust, None | Some(TlsSource::Mesh));
        // Tickets carry the client's chain, verified under the bundle of the generation whose key sealed them; with
        // other bundles a ticket could cross from one chain's rules to another's.
        if mesh && let Some(identity) = identity {
            config.ticketer = tickets(identity).map_err(TlsError::Settings)?;
            config.send_tls13_tickets = 1;
        }
        Ok(ServerTls {
            config: Arc::new(config),
            names: Arc::new(names),
            asks: tls.trust.is_some(),
            requires: tls.require_client_certificate,
            local_identity: local_identity(&tls.identity, identity),
        })
    }

    fn build_client(
        &self,
        tls: &UpstreamTls,
        identity: Option<&Identity>,
    ) -> Result<ClientTls, TlsError> {
        let names = match &tls.trust {
            None => Names::Any,
            Some(TlsSource::Mesh) => Names::Workload {
                trust_domain: identity.ok_or(TlsError::NoIdentity)?.id.trust_domain.clone(),
                expected: tls.subject_alt_names.clone(),
            },
            Some(_) if !tls.subject_alt_names.is_empty() => {
                Names::Sans(tls.subject_alt_names.clone())
            }
            Some(_) if tls.sni.is_empty() && !tls.auto_sni => Names::Any,
            Some(_) => Names::ServerName,
        };
        let roots = tls.trust.as_ref().map(|trust| roots(trust, identity)).transpose()?;
        let verifier = ServerVerifier::new(self.provider.clone(), roots, names.clone());
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions(tls.versions))
            .map_err(TlsError::Settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(source) => {
                let (chain, key) = certificate(source, identity)?;
                builder.with_client_auth_cert(chain, key).map_err(TlsError::Settings)?
            }
        };
        config.enable_sni = tls.auto_sni || !tls.sni.is_empty();
        config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
        Ok(ClientTls {
            config: Arc::new(config),
            names: Arc::new(names),
            verifies: tls.trust.is_some(),
            local_identity: tls
                .identity
                .as_ref()
                .and_then(|source| local_identity(source, identity)),
        })
    }
}

fn cached<S, T>(
    settings: &Arc<S>,
    generation: Option<u64>,
    files: Vec<(PathBuf, Option<SystemTime>)>,
    value: T,
) -> Cached<S, T> {
    Cached { settings: Arc::downgrade(settings), generation, files, checked: Instant::now(), value }
}

fn local_identity(source: &TlsSource, identity: Option<&Identity>) -> Option<Arc<str>> {
    (*source == TlsSource::Mesh).then_some(identity)?.map(|identity| identity.id.to_string().into())
}

/// The process's cryptography: hybrid post-quantum key exchange first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

fn versions(versions: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static OLDER: [&SupportedProtocolVersion; 1] = [&TLS12];
    match versions {
        TlsVersions::Tls13 => &NEWEST,
        TlsVersions::Tls12And13 => &BOTH,
        TlsVersions::Tls12 => &OLDER,
    }
}

/// Ticket keys of a certificate, shared by the data threads as long as one of them has a configuration with them. Only
/// building a configuration takes the lock.
fn tickets(identity: &Identity) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    type Kept = (Vec<u8>, Weak<dyn ProducesTickets>);
    static TICKETS: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
    let leaf = identity.chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
    let mut tickets = TICKETS.lock().unwrap_or_else(PoisonError::into_inner);
    tickets.retain(|(_, ticketer)| ticketer.strong_count() > 0);
    let kept = tickets.iter().find(|(of, _)| *of == leaf);
    if let Some(ticketer) = kept.and_then(|(_, ticketer)| ticketer.upgrade()) {
        return Ok(ticketer);
    }
    let ticketer = aws_lc_rs::Ticketer::new()?;
    tickets.push((leaf, Arc::downgrade(&ticketer)));
    Ok(ticketer)
}

fn stamps<const N: usize>(sources: [Option<&TlsSource>; N]) -> Vec<(PathBuf, Option<SystemTime>)> {
    let mut stamps = Vec::new();
    for source in sources.into_iter().flatten() {
        if let TlsSource::Files { certificate, key, ca } = source {
            for path in [certificate, key, ca].into_iter().flatten() {
                stamps.push((path.clone(), modified(path)));
            }
        }
    }
    stamps
}

type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificate(source: &TlsSource, identity: Option<&Identity>) -> Result<Certificate, TlsError> {
    match source {
        TlsSource::Mesh => {
            let identity = identity.ok_or(TlsError::NoIdentity)?;
            Ok((identity.chain.clone(), identity.key.clone_key()))
        }
        TlsSource::Files { certificate: Some(certificate), key: Some(key), .. } => {
            parse_certificate(&read(certificate)?, &read(key)?)
        }
        TlsSource::Inline { certificate, key, .. } => parse_certificate(certificate, key),
        TlsSource::Files { .. } | TlsSource::System => {
            Err(missing("a certificate and its key", "none is configured"))
        }
    }
}

fn parse_certificate(chain: &[u8], key: &[u8]) -> Result<Certificate, TlsError> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| material("the certificate")(Box::new(error)))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| material("the key")(Box::new(error)))?;
    if chain.is_empty() {
        return Err(missing("the certificate", "it holds no certificate"));
    }
    Ok((chain, key))
}

fn missing(what: &str, why: &str) -> TlsError {
    material(what)(why.into())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| material(path.display().to_string())(Box::new(error)))
}

fn roots(source: &TlsSource, identity: Option<&Identity>) -> Result<Arc<RootCertStore>, TlsError> {
    match source {
        TlsSource::Mesh => {
            let identity = identity.ok_or(TlsError::NoIdentity)?;
            let mut roots = RootCertStore::empty();
            for root in &identity.roots {
                roots.add(root.clone()).map_err(TlsError::Settings)?;
            }
            Ok(Arc::new(roots))
        }
        TlsSource::Files { ca: Some(ca), .. } => parse_roots(&read(ca)?).map(Arc::new),
        TlsSource::Inline { ca, .. } => parse_roots(ca).map(Arc::new),
        TlsSource::Files { ca: None, .. } | TlsSource::System => system_roots(),
    }
}

fn parse_roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| material("the trust bundle")(Box::new(error)))?;
        roots.add(certificate).map_err(TlsError::Settings)?;
    }
    if roots.is_empty() {
        return Err(missing("the trust bundle", "it holds no certificate"));
    }
    Ok(roots)
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
