//! Who a certificate speaks for, and the rustls verifiers that ask.

use std::{fmt, net::IpAddr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::CryptoProvider,
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use weft_api::identity::SpiffeId;
use x509_parser::{extensions::GeneralName, prelude::*};

use super::{
    PeerCertificate, PeerError, PeerInfo,
    seen::{self, Chains},
};
use crate::config::matcher::StringMatcher;

/// Most names of a certificate that are looked at.
const MAX_NAMES: usize = 64;

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub certificate: Arc<PeerCertificate>,
    /// The workload's identity: the only URI SAN. Else there is none, there are several, or it is not an identity.
    pub identity: Result<SpiffeId, PeerError>,
    pub ip_sans: Vec<IpAddr>,
    /// Seconds since the epoch.
    pub not_after: i64,
}

impl Leaf {
    /// Parses what is needed of a leaf.
    ///
    /// # Errors
    /// It is not a certificate, or has too many names.
    pub fn parse(der: &[u8]) -> Result<Self, PeerError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| PeerError::Malformed)?;
        if !rest.is_empty() {
            return Err(PeerError::Malformed);
        }
        let mut told = PeerCertificate {
            subject: certificate.subject().to_string(),
            hash: hex(&Sha256::digest(der)),
            ..PeerCertificate::default()
        };
        let mut ip_sans = Vec::new();
        let names = certificate.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        if names.len() > MAX_NAMES {
            return Err(PeerError::Malformed);
        }
        for name in names {
            match name {
                GeneralName::URI(uri) => told.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(name) => told.dns_sans.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                        ip_sans.push(v4.into());
                    } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                        ip_sans.push(v6.into());
                    }
                }
                GeneralName::Invalid(..) => return Err(PeerError::Malformed),
                _ => {}
            }
        }
        let identity = match told.uri_sans.as_slice() {
            [uri] => uri.parse().map_err(|_| PeerError::NotSpiffe(uri.clone())),
            other => Err(PeerError::UriSans(other.len())),
        };
        told.identity = identity.as_ref().ok().cloned();
        Ok(Self {
            certificate: Arc::new(told),
            identity,
            ip_sans,
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    fn names(&self) -> Vec<String> {
        let PeerCertificate { uri_sans, dns_sans, .. } = &*self.certificate;
        let ips = self.ip_sans.iter().map(ToString::to_string);
        uri_sans.iter().chain(dns_sans).cloned().chain(ips).collect()
    }

    fn has_name(&self, matchers: &[StringMatcher]) -> Result<(), PeerError> {
        let names = self.names();
        if names.iter().any(|name| matchers.iter().any(|matcher| matches_name(matcher, name))) {
            Ok(())
        } else {
            Err(PeerError::Names(names))
        }
    }
}

/// An exact matcher also takes the certificate's `*.suffix` for one label, as Envoy does for DNS names.
fn matches_name(matcher: &StringMatcher, name: &str) -> bool {
    if matcher.matches(name) {
        return true;
    }
    match (matcher, name.strip_prefix("*.")) {
        (StringMatcher::Exact { value, .. }, Some(suffix)) => value
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix)),
        _ => false,
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What must be true of a peer's leaf, besides its chain.
#[derive(Clone, Debug)]
pub enum Names {
    /// It is a workload's: one SPIFFE identity, of this trust domain or named by one of the matchers.
    Workload { trust_domain: Arc<str>, expected: Vec<StringMatcher> },
    /// One of its names matches.
    Sans(Vec<StringMatcher>),
    /// It is valid for the server name of the connection.
    ServerName,
    /// Nothing.
    Any,
}

impl Names {
    /// Checks a leaf whose chain has been verified.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self, leaf: &Leaf) -> Result<(), PeerError> {
        match self {
            Self::Workload { trust_domain, expected } => {
                let identity = leaf.identity.as_ref().map_err(Clone::clone)?;
                if !expected.is_empty() {
                    leaf.has_name(expected)
                } else if identity.trust_domain == *trust_domain {
                    Ok(())
                } else {
                    Err(PeerError::TrustDomain(identity.clone()))
                }
            }
            Self::Sans(expected) => leaf.has_name(expected),
            Self::ServerName | Self::Any => Ok(()),
        }
    }
}

/// What a finished handshake says of the peer. Everything but the chain's signatures is checked again: a session may
/// have been resumed whose certificate has expired since, or which began under other rules.
///
/// # Errors
/// Says what is wrong with the peer's certificate.
pub fn examine(
    chain: Option<&[CertificateDer<'_>]>,
    names: &Names,
    now: UnixTime,
) -> Result<PeerInfo, PeerError> {
    let der = chain.and_then(<[_]>::first).ok_or(PeerError::Missing)?;
    let leaf = seen::leaf(der)?;
    if i64::try_from(now.as_secs()).is_ok_and(|now| leaf.not_after < now) {
        return Err(PeerError::Expired);
    }
    names.check(&leaf)?;
    Ok(PeerInfo { certificate: leaf.certificate.clone(), ..PeerInfo::default() })
}

fn refused(error: PeerError) -> Error {
    match error {
        PeerError::Malformed => CertificateError::BadEncoding.into(),
        PeerError::Expired => CertificateError::Expired.into(),
        other => CertificateError::Other(OtherError(Arc::new(other))).into(),
    }
}

/// Verifies servers.
#[derive(Debug)]
pub struct ServerVerifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any chain (`insecureSkipVerify`).
    roots: Option<Arc<RootCertStore>>,
    names: Names,
    seen: Chains,
}

impl ServerVerifier {
    pub fn new(
        provider: Arc<CryptoProvider>,
        roots: Option<Arc<RootCertStore>>,
        names: Names,
    ) -> Self {
        Self { provider, roots, names, seen: Chains::default() }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            self.seen.verify(end_entity, intermediates, now, || {
                verify_server_cert_signed_by_trust_anchor(
                    &ParsedCertificate::try_from(end_entity)?,
                    roots,
                    intermediates,
                    now,
                    self.provider.signature_verification_algorithms.all,
                )
            })?;
            if matches!(self.names, Names::ServerName) {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
        }
        seen::leaf(end_entity).and_then(|leaf| self.names.check(&leaf)).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies clients: the chain by rustls' own verifier, then the names.
#[derive(Debug)]
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    names: Names,
    seen: Chains,
}

impl ClientVerifier {
    pub fn new(chain: Arc<dyn ClientCertVerifier>, names: Names) -> Self {
        Self { chain, names, seen: Chains::default() }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A mesh has one bundle and its clients one certificate: hints would only make handshakes larger.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.seen.verify(end_entity, intermediates, now, || {
            self.chain.verify_client_cert(end_entity, intermediates, now).map(drop)
        })?;
        seen::leaf(end_entity).and_then(|leaf| self.names.check(&leaf)).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
