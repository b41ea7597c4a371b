//! TLS contexts of Gateways' servers, and the names of their secrets.

use weft_api::xds::envoy::{
    config::core::v3::TransportSocket,
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        TlsCertificate, TlsParameters,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        tls_parameters::TlsProtocol as PbVersion,
    },
};
use weft_core::{credential, gateway::GatewayServer, mesh::MeshConfig};
use weft_crds::networking::{ServerTlsMode, ServerTlsSettings, TlsProtocol};

use crate::build::{
    message::{ads, boolean, transport_socket},
    tls,
};

const SCHEME: &str = "kubernetes://";
const AUTHORITIES: &str = "-cacert";

/// What the name of a secret in a TLS context means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretName<'a> {
    /// `kubernetes://<name>`: certificate and key.
    Pair(&'a str),
    /// `kubernetes://<name>-cacert`: authorities.
    Authorities(&'a str),
}

impl<'a> SecretName<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_prefix(SCHEME)?;
        Some(match name.strip_suffix(AUTHORITIES) {
            Some(own) => Self::Authorities(own),
            None => Self::Pair(name),
        })
    }

    /// Whether a server's settings name it.
    pub(super) fn is_of(self, settings: &ServerTlsSettings) -> bool {
        match self {
            Self::Pair(own) => pairs(settings).any(|name| plain(name) == own),
            Self::Authorities(own) => authorities(settings).is_some_and(|name| plain(name) == own),
        }
    }
}

/// The name of a Secret without what may stand before it. Whether it is one of the proxy's namespace was checked.
fn plain(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn pairs(settings: &ServerTlsSettings) -> impl Iterator<Item = &str> {
    let names = std::iter::once(&settings.credential_name).chain(&settings.credential_names);
    names.map(String::as_str).filter(|name| !name.is_empty())
}

fn authorities(settings: &ServerTlsSettings) -> Option<&str> {
    credential::authorities_of(settings)
}

fn sds(name: &str, suffix: &str) -> SdsSecretConfig {
    let mut config = tls::secret(&format!("{SCHEME}{}{suffix}", plain(name)));
    config.sds_config = Some(ads());
    config
}

/// How TLS with a server's clients ends here; `None` for a server that does not end it.
pub(super) fn downstream(
    mesh: &MeshConfig,
    server: &GatewayServer,
    alpn: &[&str],
) -> Option<TransportSocket> {
    let settings = server.tls()?;
    let asks = match settings.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::IstioMutual => return Some(tls::downstream(mesh, alpn)),
        ServerTlsMode::Simple => None,
        ServerTlsMode::Mutual => Some(true),
        ServerTlsMode::OptionalMutual => Some(false),
    };
    let mut common = CommonTlsContext {
        tls_params: Some(parameters(settings)),
        alpn_protocols: tls::strings(alpn),
        validation_context_type: asks.map(|_| validation(settings)),
        ..CommonTlsContext::default()
    };
    common.tls_certificate_sds_secret_configs = pairs(settings).map(|name| sds(name, "")).collect();
    if common.tls_certificate_sds_secret_configs.is_empty() {
        common.tls_certificates = files(settings);
    }
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(boolean(asks == Some(true))),
        ..DownstreamTlsContext::default()
    };
    Some(transport_socket(tls::TLS, &context))
}

fn files(settings: &ServerTlsSettings) -> Vec<TlsCertificate> {
    let one = (&settings.server_certificate, &settings.private_key);
    let several = settings.tls_certificates.iter();
    let several = several.map(|pair| (&pair.server_certificate, &pair.private_key));
    std::iter::once(one)
        .chain(several)
        .filter(|(certificate, key)| !certificate.is_empty() && !key.is_empty())
        .map(|(certificate, key)| TlsCertificate {
            certificate_chain: Some(tls::file(certificate)),
            private_key: Some(tls::file(key)),
            ..TlsCertificate::default()
        })
        .collect()
}

/// Whose certificates clients may have.
fn validation(settings: &ServerTlsSettings) -> ValidationContextType {
    let mut context = CertificateValidationContext {
        match_typed_subject_alt_names: settings
            .subject_alt_names
            .iter()
            .map(tls::subject)
            .collect(),
        ..CertificateValidationContext::default()
    };
    if let Some(name) = authorities(settings) {
        return ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(sds(name, AUTHORITIES)),
                ..CombinedCertificateValidationContext::default()
            },
        );
    }
    let own = std::iter::once(&settings.ca_certificates);
    let others = settings.tls_certificates.iter().map(|pair| &pair.ca_certificates);
    let file = own.chain(others).find(|file| !file.is_empty());
    context.trusted_ca = file.map(|file| tls::file(file));
    ValidationContextType::ValidationContext(context)
}

/// TLS 1.2 and 1.3 unless the server narrows that; older versions are not offered.
fn parameters(settings: &ServerTlsSettings) -> TlsParameters {
    let least = match settings.min_protocol_version {
        TlsProtocol::V1_3 => PbVersion::TlSv13,
        _ => PbVersion::TlSv12,
    };
    let most = match settings.max_protocol_version {
        TlsProtocol::Auto | TlsProtocol::V1_3 => PbVersion::TlSv13,
        _ => PbVersion::TlSv12,
    };
    TlsParameters {
        tls_minimum_protocol_version: least.into(),
        tls_maximum_protocol_version: most.into(),
        cipher_suites: settings
            .cipher_suites
            .iter()
            .filter_map(|suite| weft_crds::cipher_suites::offered(suite))
            .map(str::to_owned)
            .collect(),
        ..TlsParameters::default()
    }
}
