//! TLS settings. Keys and roots of the mesh are not here: they are the proxy's own [`MeshIdentity`](TlsSource::Mesh).

use std::path::PathBuf;

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
    /// Own certificate.
    pub identity: TlsSource,
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
