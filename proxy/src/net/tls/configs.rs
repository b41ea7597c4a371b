//! rustls configurations, built once per identity generation, secrets and settings and kept per thread.
//!
//! Resumption never outlives a generation: a server's ticket keys are made for one certificate and trust bundle and shared by the data
//! threads (a ticket may come back to another thread); a client's sessions live in the configuration itself.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustls::{
    CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientCertVerifierBuilder, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier,
    },
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    TlsError,
    handshake::Noting,
    keys,
    material::{Certificates, Stamp, certified, material, modified, roots, stamps},
    tickets,
    verify::{ClientVerifier, Names, ServerVerifier},
};
use crate::{
    config::tls::{DownstreamTls, SecretContent, TlsSource, TlsVersions, UpstreamTls},
    identity::Identity,
};

/// How often files are looked at for changes.
const FILE_CHECK: Duration = Duration::from_secs(10);
/// Sessions that a client configuration keeps.
const CLIENT_SESSIONS: usize = 64;
/// Tickets for a client: one for the connection after this, and one more where it may be a browser, which opens several at
/// once. Workloads show certificates; their proxies open connections as they need them.
const TICKETS: usize = 1;
const TICKETS_WITHOUT_CERTIFICATE: usize = 2;

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
    from: From,
    checked: Instant,
    value: T,
}

/// What of a configuration changes while its settings do not.
#[derive(Debug)]
struct From {
    generation: Option<u64>,
    secrets: Vec<Option<Arc<SecretContent>>>,
    files: Vec<Stamp>,
}

impl From {
    fn new<'a>(
        generation: Option<u64>,
        sources: impl IntoIterator<Item = &'a TlsSource> + Clone,
    ) -> Self {
        let secrets = secrets(sources.clone()).collect();
        Self { generation, secrets, files: stamps(sources) }
    }

    fn has_secrets<'a>(&self, sources: impl IntoIterator<Item = &'a TlsSource>) -> bool {
        let same = |(now, then): (Option<Arc<_>>, &Option<Arc<_>>)| match (&now, then) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (None, None) => true,
            _ => false,
        };
        secrets(sources).zip(&self.secrets).all(same)
    }

    fn has_files(&self) -> bool {
        self.files.iter().all(|(path, seen)| modified(path) == *seen)
    }
}

fn secrets<'a>(
    sources: impl IntoIterator<Item = &'a TlsSource>,
) -> impl Iterator<Item = Option<Arc<SecretContent>>> {
    sources.into_iter().filter_map(|source| match source {
        TlsSource::Secret(secret) => Some(secret.content()),
        _ => None,
    })
}

/// Whether a configuration can be used as it is.
enum State<T> {
    Fresh(T),
    /// A file has changed; good until the new content is.
    Outdated(T),
    Unusable,
}

impl<S, T: Clone> Cached<S, T> {
    fn state<'a>(
        &mut self,
        settings: &Arc<S>,
        generation: Option<u64>,
        sources: impl IntoIterator<Item = &'a TlsSource>,
    ) -> State<T> {
        let same = std::ptr::eq(self.settings.as_ptr(), Arc::as_ptr(settings));
        if !same || self.from.generation != generation || !self.from.has_secrets(sources) {
            return State::Unusable;
        }
        if !self.from.files.is_empty() && self.checked.elapsed() >= FILE_CHECK {
            self.checked = Instant::now();
            if !self.from.has_files() {
                return State::Outdated(self.value.clone());
            }
        }
        State::Fresh(self.value.clone())
    }
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

    /// What accepting with these settings needs; made on first use and when the identity, a secret or a file changed.
    ///
    /// # Errors
    /// There is no identity yet, or keys or roots cannot be read.
    pub fn server(&self, tls: &Arc<DownstreamTls>) -> Result<ServerTls, TlsError> {
        let identity = self.identity.load();
        let identity = identity.as_deref();
        let sources = || tls.certificates.iter().chain(&tls.trust);
        found(&self.servers, tls, identity, sources, || self.build_server(tls, identity))
    }

    /// What connecting with these settings needs; made on first use and when the identity, a secret or a file changed.
    ///
    /// # Errors
    /// There is no identity yet, or keys or roots cannot be read.
    pub fn client(&self, tls: &Arc<UpstreamTls>) -> Result<ClientTls, TlsError> {
        let identity = self.identity.load();
        let identity = identity.as_deref();
        let sources = || tls.identity.iter().chain(&tls.trust);
        found(&self.clients, tls, identity, sources, || self.build_client(tls, identity))
    }

    /// The process's cryptography, with only these of TLS 1.2's cipher suites where there are any, in this order. TLS 1.3
    /// has its own.
    fn offering(&self, suites: &[CipherSuite]) -> Arc<CryptoProvider> {
        if suites.is_empty() {
            return self.provider.clone();
        }
        let mut provider = CryptoProvider::clone(&self.provider);
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || suites.contains(&suite.suite()));
        provider
            .cipher_suites
            .sort_by_key(|suite| suites.iter().position(|wanted| *wanted == suite.suite()));
        Arc::new(provider)
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
        let builder = ServerConfig::builder_with_provider(self.offering(&tls.cipher_suites))
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
        let certificates = tls
            .certificates
            .iter()
            .map(|source| certified(source, identity))
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = certificates.first().and_then(|first| first.cert.first()).cloned();
        let mut config = match certificates.as_slice() {
            [only] => {
                let only = SingleCertAndKey::from(only.clone());
                builder.with_cert_resolver(Arc::new(Noting(only)))
            }
            _ => builder.with_cert_resolver(Arc::new(Noting(Certificates::new(certificates)))),
        };
        config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // Tickets carry the client's chain, verified under the bundle that their key is of: no other bundle's chains take
        // them. Everything else about the client is looked at after each handshake.
        if let Some(leaf) = leaf.filter(|_| tls.resumption) {
            let trust = tls.trust.as_ref().map(|trust| roots(trust, identity)).transpose()?;
            let key = ticket_scope(&leaf, trust.as_deref());
            config.ticketer = shared_tickets(key).map_err(TlsError::Settings)?;
            config.send_tls13_tickets =
                if tls.require_client_certificate { TICKETS } else { TICKETS_WITHOUT_CERTIFICATE };
        }
        Ok(ServerTls {
            config: Arc::new(config),
            names: Arc::new(names),
            asks: tls.trust.is_some(),
            requires: tls.require_client_certificate,
            local_identity: tls
                .certificates
                .first()
                .and_then(|source| local_identity(source, identity)),
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
                let certified = SingleCertAndKey::from(certified(source, identity)?);
                builder.with_client_cert_resolver(Arc::new(certified))
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

/// What was made of these settings before, where it still holds. What a file holds that is not good changes nothing.
fn found<'a, S, T: Clone, I>(
    held: &RefCell<HashMap<usize, Cached<S, T>>>,
    settings: &Arc<S>,
    identity: Option<&Identity>,
    sources: impl Fn() -> I,
    build: impl FnOnce() -> Result<T, TlsError>,
) -> Result<T, TlsError>
where
    I: Iterator<Item = &'a TlsSource> + Clone,
{
    let generation = identity.map(|identity| identity.generation);
    let key = Arc::as_ptr(settings) as usize;
    let mut held = held.borrow_mut();
    let state = match held.get_mut(&key) {
        Some(cached) => cached.state(settings, generation, sources()),
        None => State::Unusable,
    };
    let from = match state {
        State::Fresh(value) => return Ok(value),
        // What is changed while it is read is looked at again.
        State::Outdated(_) | State::Unusable => From::new(generation, sources()),
    };
    let value = match (build(), state) {
        (Ok(value), _) => value,
        (Err(error), State::Outdated(value)) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "files of TLS have changed and are not good: what they held before stays");
            value
        }
        (Err(error), _) => return Err(error),
    };
    held.retain(|_, cached| cached.settings.strong_count() > 0);
    let settings = Arc::downgrade(settings);
    held.insert(key, Cached { settings, from, checked: Instant::now(), value: value.clone() });
    Ok(value)
}

fn local_identity(source: &TlsSource, identity: Option<&Identity>) -> Option<Arc<str>> {
    (*source == TlsSource::Mesh).then_some(identity)?.map(|identity| identity.id.to_string().into())
}

/// The process's cryptography: hybrid post-quantum key exchange first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| cost(suite.suite()));
        let algorithms = &mut provider.signature_verification_algorithms;
        algorithms.mapping = keys::remembering(algorithms.mapping);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// The cheapest suites first, as Envoy has them: all are sound, SHA-256 costs processors a sixth of SHA-384, and
/// without instructions for AES `ChaCha20` is faster.
fn cost(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            if has_aes() {
                3
            } else {
                0
            }
        }
        _ => 2,
    }
}

/// Whether the processor has instructions for AES.
pub(super) fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
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

/// A certificate, and whom it is shown to: where both are the same, so are the tickets.
type TicketScope = [u8; 32];

fn ticket_scope(leaf: &[u8], trust: Option<&RootCertStore>) -> TicketScope {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(leaf);
    for root in trust.iter().flat_map(|trust| &trust.roots) {
        add(&root.subject);
        add(&root.subject_public_key_info);
        add(root.name_constraints.as_deref().unwrap_or_default());
    }
    // Nobody to trust is not the same as nobody asked.
    add(if trust.is_some() { b"clients" } else { b"" });
    digest.finalize().into()
}

/// Ticket keys, shared by the data threads as long as one of them has a configuration with them. Only building a
/// configuration takes the lock.
fn shared_tickets(scope: TicketScope) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    type Kept = (TicketScope, Weak<dyn ProducesTickets>);
    static TICKETS: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
    let mut tickets = TICKETS.lock().unwrap_or_else(PoisonError::into_inner);
    tickets.retain(|(_, ticketer)| ticketer.strong_count() > 0);
    let kept = tickets.iter().find(|(of, _)| *of == scope);
    if let Some(ticketer) = kept.and_then(|(_, ticketer)| ticketer.upgrade()) {
        return Ok(ticketer);
    }
    let ticketer = tickets::ticketer()?;
    tickets.push((scope, Arc::downgrade(&ticketer)));
    Ok(ticketer)
}
