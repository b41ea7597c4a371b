//! The operator's TLS side: its own certificate, the mesh's roots, and who a peer is.
//!
//! TLS 1.3 only, the hybrid post-quantum key exchange first. A client certificate is optional in the handshake (a
//! workload without one comes for its first) and is verified against the mesh's roots when there is one.
//! [`TlsStore`] is rebuilt when the authority changes and before the serving certificate ends.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use time::OffsetDateTime;
use weft_api::identity::{SpiffeId, SpiffeIdError};
use weft_ca::authority::{Authority, AuthorityStore, SignError};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// Lifetime of the operator's own certificate; it is replaced at half of it.
const SERVING_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Why the TLS side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate for ourselves.
    #[error("cannot make the operator's certificate")]
    Serving(#[from] SignError),
    /// rustls refuses what the authority gave.
    #[error("the operator's certificate cannot be used")]
    Config(#[from] rustls::Error),
    /// The roots cannot verify anybody.
    #[error("the mesh's roots cannot be used")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// Why a verified client certificate does not say who its owner is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// Not X.509; cannot happen after verification.
    #[error("the certificate cannot be read")]
    Certificate,
    /// A workload's certificate has one URI, no more and no less.
    #[error("the certificate has {0} URIs, not one")]
    Uris(usize),
    /// The URI is no identity.
    #[error("{uri:?} is no identity")]
    Uri {
        /// The URI.
        uri: String,
        /// What is wrong with it.
        #[source]
        source: SpiffeIdError,
    },
    /// The identity is one of another mesh.
    #[error("{0} is not of this trust domain")]
    TrustDomain(SpiffeId),
}

struct Current {
    /// What the certificate is from.
    authority: Arc<Authority>,
    /// For proxies.
    config: Arc<ServerConfig>,
    /// For the API server, which calls webhooks without a certificate.
    webhooks: Arc<ServerConfig>,
    not_after: OffsetDateTime,
    renew_at: OffsetDateTime,
}

/// The TLS configuration for new connections.
pub struct TlsStore {
    authority: Arc<AuthorityStore>,
    names: Vec<String>,
    current: ArcSwap<Current>,
}

impl TlsStore {
    /// Makes a serving certificate for these names.
    ///
    /// # Errors
    /// When the authority cannot sign it.
    pub fn new(
        authority: Arc<AuthorityStore>,
        names: Vec<String>,
        now: OffsetDateTime,
    ) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(build(authority.current(), &names, now)?);
        Ok(Self { authority, names, current })
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// The configuration for the next connection of the API server.
    pub fn webhooks(&self) -> Arc<ServerConfig> {
        self.current.load().webhooks.clone()
    }

    /// The end of the serving certificate's life.
    pub fn not_after(&self) -> OffsetDateTime {
        self.current.load().not_after
    }

    /// Reads the authority's files again and renews what must be renewed. On an error all stays as it is.
    pub fn refresh(&self, now: OffsetDateTime) {
        if let Err(error) = self.authority.reload(now) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the authority's files cannot be used, the ones before stay in effect"
            );
        }
        let authority = self.authority.current();
        let current = self.current.load();
        let changed = !Arc::ptr_eq(&authority, &current.authority);
        if !changed && now < current.renew_at {
            return;
        }
        match build(authority, &self.names, now) {
            Ok(current) => {
                tracing::info!(changed, not_after = %current.not_after, "new serving certificate");
                self.current.store(Arc::new(current));
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no new serving certificate"
                );
            }
        }
    }
}

fn build(
    authority: Arc<Authority>,
    names: &[String],
    now: OffsetDateTime,
) -> Result<Current, TlsError> {
    let serving = authority.issue_serving(names, SERVING_LIFETIME, now)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let not_after = serving.not_after;
    let mut webhooks = server_config(provider.clone())?
        .with_no_client_auth()
        .with_single_cert(serving.chain.clone(), serving.key.clone_key())?;
    webhooks.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut config = server_config(provider)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(serving.chain, serving.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry an identity on that was never verified again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Current {
        authority,
        config: Arc::new(config),
        webhooks: Arc::new(webhooks),
        not_after,
        renew_at: now + (not_after - now) / 2,
    })
}

fn server_config(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])
}

/// Who a peer is, from its verified certificate, and until when that holds.
///
/// # Errors
/// When the certificate does not name exactly one identity of one of these trust domains.
pub fn peer_identity(
    certificate: &CertificateDer<'_>,
    trust_domain: &str,
) -> Result<(SpiffeId, OffsetDateTime), IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| IdentityError::Certificate)?;
    let uris: Vec<&str> = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(IdentityError::Uris(uris.len())) };
    let identity: SpiffeId =
        uri.parse().map_err(|source| IdentityError::Uri { uri: uri.to_owned(), source })?;
    if *identity.trust_domain != *trust_domain {
        return Err(IdentityError::TrustDomain(identity));
    }
    Ok((identity, certificate.validity().not_after.to_datetime()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use weft_ca::state::StateDir;

    use super::*;

    fn authority() -> (Arc<AuthorityStore>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let store =
            AuthorityStore::open(state, "cluster.local", OffsetDateTime::now_utc()).unwrap();
        (Arc::new(store), dir)
    }

    #[test]
    fn the_serving_certificate_is_renewed_in_time_and_when_the_authority_changes() {
        let (store, dir) = authority();
        let (other, other_dir) = authority();
        let now = OffsetDateTime::now_utc();
        let tls = TlsStore::new(store.clone(), vec!["localhost".into()], now).unwrap();
        let first = tls.config();
        tls.refresh(now + SERVING_LIFETIME / 2 - Duration::from_secs(1));
        assert!(Arc::ptr_eq(&first, &tls.config()));
        tls.refresh(now + SERVING_LIFETIME / 2);
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(tls.not_after() > now + SERVING_LIFETIME);
        fs::write(dir.path().join("root-cert.pem"), "damaged").unwrap();
        tls.refresh(now);
        assert!(Arc::ptr_eq(&second, &tls.config()));
        for file in ["ca-key.pem", "ca-cert.pem", "root-cert.pem"] {
            fs::copy(other_dir.path().join(file), dir.path().join(file)).unwrap();
        }
        tls.refresh(now);
        assert!(!Arc::ptr_eq(&second, &tls.config()));
        assert_eq!(store.current().roots(), other.current().roots());
    }

    #[test]
    fn a_certificate_names_exactly_one_workload_of_the_trust_domain() {
        let identify = |names: &[&str]| {
            let names = names.iter().map(|name| rcgen::SanType::URI((*name).try_into().unwrap()));
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names = names.collect();
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            peer_identity(certificate.der(), "td").map(|(identity, _)| identity)
        };
        let id = |domain: &str| SpiffeId::new(domain, "ns", "sa");
        assert_eq!(identify(&["spiffe://td/ns/ns/sa/sa"]), Ok(id("td")));
        assert_eq!(identify(&[]), Err(IdentityError::Uris(0)));
        let two = ["spiffe://td/ns/ns/sa/sa", "https://example.com"];
        assert_eq!(identify(&two), Err(IdentityError::Uris(2)));
        let foreign = identify(&["spiffe://other/ns/ns/sa/sa"]);
        assert_eq!(foreign, Err(IdentityError::TrustDomain(id("other"))));
        assert_eq!(
            identify(&["spiffe://td/workload"]),
            Err(IdentityError::Uri {
                uri: "spiffe://td/workload".into(),
                source: SpiffeIdError::Path
            })
        );
    }
}
