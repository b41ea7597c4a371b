//! TLS settings. Keys and roots of the mesh are not here: they are the proxy's own [`MeshIdentity`](TlsSource::Mesh).

use std::{
    fmt,
    hash::{Hash, Hasher},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use rustls::{CipherSuite, RootCertStore, sign::CertifiedKey};

use super::matcher::StringMatcher;

/// Where a certificate or a trust bundle comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsSource {
    /// The workload's own certificate, or the mesh's trust bundle (secrets `default` and `ROOTCA`).
    Mesh,
    /// PEM files.
    Files { certificate: Option<PathBuf>, key: Option<PathBuf>, ca: Option<PathBuf> },
    /// PEM bytes from the configuration.
    Inline { certificate: Box<[u8]>, key: Box<[u8]>, ca: Box<[u8]> },
    /// The system's trust store.
    System,
    /// What the control plane holds under a name.
    Secret(Arc<Secret>),
}

/// A secret of the control plane (SDS): every use of a name shares one, and sees what it holds now.
#[derive(Debug)]
pub struct Secret {
    name: Box<str>,
    content: ArcSwapOption<SecretContent>,
}

/// What a secret holds.
#[derive(Debug)]
pub enum SecretContent {
    /// A certificate and its key.
    Certificate(Arc<CertifiedKey>),
    /// Whom to trust.
    Trust(Arc<RootCertStore>),
}

impl Secret {
    /// A secret of which nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), content: ArcSwapOption::empty() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds.
    pub fn content(&self) -> Option<Arc<SecretContent>> {
        self.content.load_full()
    }

    /// Gives it another content. For the control thread.
    pub fn set(&self, content: Option<Arc<SecretContent>>) {
        self.content.store(content);
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {}", self.name)
    }
}

/// By name: the content changes.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Oldest and newest TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersions {
    /// 1.3 only.
    Tls13,
    /// 1.2 and 1.3.
    Tls12And13,
    /// 1.2 only.
    Tls12,
}

/// `DownstreamTlsContext`.
#[derive(Clone, Debug)]
pub struct DownstreamTls {
    /// Own certificates, at least one; several for clients that can verify only one kind of key, or for several names.
    pub certificates: Vec<TlsSource>,
    /// Whom to trust; `None`: client certificates are not asked for.
    pub trust: Option<TlsSource>,
    /// A client certificate must be given.
    pub require_client_certificate: bool,
    /// Names that the client's certificate must have one of; empty: any.
    pub subject_alt_names: Vec<StringMatcher>,
    /// ALPN, by preference.
    pub alpn: Vec<Box<[u8]>>,
    /// Versions.
    pub versions: TlsVersions,
    /// The cipher suites of TLS 1.2 that are spoken; empty: all that are good.
    pub cipher_suites: Vec<CipherSuite>,
    /// Sessions may be resumed.
    pub resumption: bool,
}

/// `UpstreamTlsContext`.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Own certificate; `None`: none is shown.
    pub identity: Option<TlsSource>,
    /// Whom to trust; `None`: anyone (`insecureSkipVerify`).
    pub trust: Option<TlsSource>,
    /// Names that the server's certificate must have one of; empty: any (mesh), or the SNI (system roots).
    pub subject_alt_names: Vec<StringMatcher>,
    /// SNI; empty sends none.
    pub sni: Box<str>,
    /// SNI is the request's authority (`auto_sni`), and so is the name that is checked (`auto_san_validation`).
    pub auto_sni: bool,
    /// ALPN, by preference.
    pub alpn: Vec<Box<[u8]>>,
    /// Versions.
    pub versions: TlsVersions,
}

/// What a connection to an endpoint carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Bytes,
    Http1,
    Http2,
}

/// ALPN of the mesh for HTTP/1.1 and HTTP/2.
const MESH_HTTP1: [&[u8]; 3] = [b"istio-http/1.1", b"istio", b"http/1.1"];
const MESH_HTTP2: [&[u8]; 3] = [b"istio-h2", b"istio", b"h2"];

impl UpstreamTls {
    /// ALPN to offer, by preference. A server of the mesh tells HTTP from bytes by it, on ports that do not say what they
    /// speak: there the settings are those of bytes, and what is HTTP is offered as HTTP (Istio's `alpn` filter).
    pub fn offered(&self, carries: Carries) -> Vec<Vec<u8>> {
        let mesh = self.trust == Some(TlsSource::Mesh) && self.identity == Some(TlsSource::Mesh);
        let open = mesh && self.alpn.iter().any(|protocol| **protocol == *b"istio");
        match carries {
            Carries::Http1 if open => MESH_HTTP1.map(<[u8]>::to_vec).into(),
            Carries::Http2 if open => MESH_HTTP2.map(<[u8]>::to_vec).into(),
            _ => self.alpn.iter().map(|protocol| protocol.to_vec()).collect(),
        }
    }
}
