//! TLS contexts: mutual TLS of the mesh, and TLS that DestinationRules originate (`istio-behaviours` 2.8, item 44).

use weft_api::{
    names::{SECRET_DEFAULT, SECRET_ROOT_CA},
    xds::envoy::{
        config::core::v3::{DataSource, TransportSocket, data_source::Specifier},
        extensions::transport_sockets::{
            raw_buffer::v3::RawBuffer,
            tls::v3::{
                CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
                SdsSecretConfig, SubjectAltNameMatcher, TlsCertificate, TlsParameters,
                UpstreamTlsContext,
                common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
                subject_alt_name_matcher::SanType,
                tls_parameters::TlsProtocol,
            },
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
};
use weft_core::{mesh::MeshConfig, protocol::Protocol};
use weft_crds::networking::{ClientTlsMode, ClientTlsSettings};

use super::{
    matcher,
    message::{boolean, transport_socket},
};

pub(super) const TLS: &str = "envoy.transport_sockets.tls";
const RAW: &str = "envoy.transport_sockets.raw_buffer";

/// Where the system's certificate authorities are (Debian's place, which container images keep).
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What is offered by ALPN to a server of the mesh, by the protocol inside. What may be HTTP or not counts as bytes.
fn client_alpn(protocol: Protocol, exchange: MetadataExchange) -> &'static [&'static str] {
    match protocol {
        Protocol::Http2 | Protocol::Grpc => &["istio-h2", "istio", "h2"],
        Protocol::Http | Protocol::GrpcWeb => &["istio-http/1.1", "istio", "http/1.1"],
        _ => exchange.alpn(),
    }
}

/// Whether the proxy tells its peers on TCP who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataExchange {
    Spoken,
    /// A stock Envoy would pass what a peer says of itself on to the application.
    Unknown,
}

impl MetadataExchange {
    /// ALPN of bytes.
    pub(crate) fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Spoken => &["istio-peer-exchange", "istio"],
            Self::Unknown => &["istio"],
        }
    }
}

/// ALPN of clients of the mesh, whatever is inside.
pub(crate) const MESH_ALPN: [&str; 5] =
    ["istio-http/1.0", "istio-http/1.1", "istio-h2", "istio", "istio-peer-exchange"];
/// ALPN of clients of the mesh that speak HTTP.
pub(crate) const MESH_HTTP_ALPN: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN of clients of the mesh that promise no HTTP.
pub(crate) const MESH_TCP_ALPN: [&str; 2] = ["istio", "istio-peer-exchange"];

pub(super) fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

pub(super) fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.into(), sds_config: None }
}

fn versions(minimum: TlsProtocol) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: minimum.into(),
        // Stock Envoy's client would stop at 1.2 otherwise.
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    }
}

fn uri_san(matcher: StringMatcher) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(matcher),
        ..SubjectAltNameMatcher::default()
    }
}

/// Own certificate and trust bundle of the mesh; the peer must have one of these names.
fn mesh_context(peers: Vec<SubjectAltNameMatcher>, alpn: &[&str]) -> CommonTlsContext {
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: peers,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(SECRET_ROOT_CA)),
        ..CombinedCertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_params: Some(versions(TlsProtocol::TlSv13)),
        tls_certificate_sds_secret_configs: vec![secret(SECRET_DEFAULT)],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        alpn_protocols: strings(alpn),
        ..CommonTlsContext::default()
    }
}

/// The server's side of mutual TLS: a client certificate of the mesh's trust domains is required.
pub(crate) fn downstream(mesh: &MeshConfig, alpn: &[&str]) -> TransportSocket {
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let peers = domains.map(|domain| {
        uri_san(matcher::string(MatchPattern::Prefix(format!("spiffe://{domain}/"))))
    });
    let context = DownstreamTlsContext {
        common_tls_context: Some(mesh_context(peers.collect(), alpn)),
        require_client_certificate: Some(boolean(true)),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

/// The client's side of mutual TLS: the server must have one of these SPIFFE URIs, or any of the mesh when there are none.
pub(crate) fn mesh_upstream(
    sni: String,
    servers: Vec<String>,
    protocol: Protocol,
    exchange: MetadataExchange,
) -> TransportSocket {
    let peers = servers.into_iter().map(|server| uri_san(matcher::exact(server))).collect();
    let context = UpstreamTlsContext {
        common_tls_context: Some(mesh_context(peers, client_alpn(protocol, exchange))),
        sni,
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

/// No TLS.
pub(crate) fn plaintext() -> TransportSocket {
    transport_socket(RAW, &RawBuffer {})
}

pub(super) fn file(name: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(name.into())), ..DataSource::default() }
}

/// A name that a certificate outside the mesh must have: a URI, or a DNS name.
pub(super) fn subject(name: &String) -> SubjectAltNameMatcher {
    let kind = if name.contains("://") { SanType::Uri } else { SanType::Dns };
    SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(matcher::exact(name)),
        ..SubjectAltNameMatcher::default()
    }
}

/// TLS to a server outside the mesh, as a DestinationRule says (modes SIMPLE and MUTUAL).
pub(crate) fn originated(settings: &ClientTlsSettings, protocol: Protocol) -> TransportSocket {
    let alpn: &[&str] = match protocol {
        Protocol::Http2 | Protocol::Grpc => &["h2"],
        Protocol::Http | Protocol::GrpcWeb | Protocol::Unsupported => &["http/1.1"],
        _ => &[],
    };
    let verifies = !settings.insecure_skip_verify.unwrap_or_default();
    let roots = match settings.ca_certificates.as_str() {
        "" | "system" => SYSTEM_ROOTS,
        file => file,
    };
    let validation = verifies.then(|| {
        ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(file(roots)),
            crl: Some(&settings.ca_crl).filter(|crl| !crl.is_empty()).map(|crl| file(crl)),
            match_typed_subject_alt_names: settings.subject_alt_names.iter().map(subject).collect(),
            ..CertificateValidationContext::default()
        })
    });
    let own = TlsCertificate {
        certificate_chain: Some(file(&settings.client_certificate)),
        private_key: Some(file(&settings.private_key)),
        ..TlsCertificate::default()
    };
    let shows_own =
        settings.mode == ClientTlsMode::Mutual && !settings.client_certificate.is_empty();
    let common = CommonTlsContext {
        tls_params: Some(versions(TlsProtocol::TlSv12)),
        tls_certificates: if shows_own { vec![own] } else { Vec::new() },
        validation_context_type: validation,
        alpn_protocols: strings(alpn),
        ..CommonTlsContext::default()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: settings.sni.clone(),
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}
