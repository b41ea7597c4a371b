//! TLS contexts of listeners and clusters.
//!
//! Secrets are named, never sent: `default` and `ROOTCA` are the proxy's own; Istio's `file-cert:CHAIN~KEY` and
//! `file-root:CA` name files.

use std::path::PathBuf;

use weft_api::{
    names::{SECRET_DEFAULT, SECRET_ROOT_CA},
    xds::envoy::{
        config::core::v3::{
            DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
        },
        extensions::transport_sockets::{
            raw_buffer::v3::RawBuffer,
            tls::v3::{
                CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
                SdsSecretConfig, TlsCertificate, TlsParameters, UpstreamTlsContext,
                common_tls_context::ValidationContextType, tls_parameters::TlsProtocol,
            },
        },
    },
};

use super::{
    invalid::{At, Invalid, each, refuse_all},
    matcher,
    value::{flag, inline, is, type_name, unpack},
};
use crate::config::{
    matcher::StringMatcher,
    tls::{DownstreamTls, TlsSource, TlsVersions, UpstreamTls},
};

/// A listener's transport socket; `None` is plaintext.
pub fn downstream(socket: &TransportSocket) -> Result<Option<DownstreamTls>, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(Invalid::missing("typed_config"));
    };
    if is::<RawBuffer>(config) {
        return Ok(None);
    }
    if !is::<DownstreamTlsContext>(config) {
        return Err(Invalid::unsupported_value(type_name(config))).at("typed_config");
    }
    downstream_context(&unpack(config).at("typed_config")?).map(Some).at("typed_config")
}

fn downstream_context(context: &DownstreamTlsContext) -> Result<DownstreamTls, Invalid> {
    refuse_all(&[
        (context.ocsp_staple_policy != 0, "ocsp_staple_policy"),
        (flag(context.require_sni.as_ref()), "require_sni"),
    ])?;
    let common = context
        .common_tls_context
        .as_ref()
        .ok_or_else(|| Invalid::missing("common_tls_context"))?;
    let identity = certificate(common)
        .at("common_tls_context")?
        .ok_or_else(|| Invalid::missing("common_tls_context.tls_certificates"))?;
    let validation = validation(common).at("common_tls_context")?;
    let require_client_certificate = flag(context.require_client_certificate.as_ref());
    if require_client_certificate && validation.trust.is_none() {
        return Err(Invalid::missing("common_tls_context.validation_context"));
    }
    Ok(DownstreamTls {
        versions: versions(common, validation.trust.as_ref()).at("common_tls_context")?,
        identity,
        trust: validation.trust,
        require_client_certificate,
        subject_alt_names: validation.subject_alt_names,
        alpn: alpn(common),
    })
}

/// A cluster's transport socket; `None` is plaintext.
pub fn upstream(socket: &TransportSocket) -> Result<Option<UpstreamTls>, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(Invalid::missing("typed_config"));
    };
    if is::<RawBuffer>(config) {
        return Ok(None);
    }
    if !is::<UpstreamTlsContext>(config) {
        return Err(Invalid::unsupported_value(type_name(config))).at("typed_config");
    }
    upstream_context(&unpack(config).at("typed_config")?).map(Some).at("typed_config")
}

fn upstream_context(context: &UpstreamTlsContext) -> Result<UpstreamTls, Invalid> {
    refuse_all(&[
        (context.allow_renegotiation, "allow_renegotiation"),
        (context.auto_host_sni, "auto_host_sni"),
        (context.auto_sni_san_validation, "auto_sni_san_validation"),
    ])?;
    let common = context
        .common_tls_context
        .as_ref()
        .ok_or_else(|| Invalid::missing("common_tls_context"))?;
    let validation = validation(common).at("common_tls_context")?;
    Ok(UpstreamTls {
        identity: certificate(common).at("common_tls_context")?,
        versions: versions(common, validation.trust.as_ref()).at("common_tls_context")?,
        trust: validation.trust,
        subject_alt_names: validation.subject_alt_names,
        sni: context.sni.as_str().into(),
        auto_sni: false,
        alpn: alpn(common),
    })
}

fn alpn(common: &CommonTlsContext) -> Vec<Box<[u8]>> {
    common.alpn_protocols.iter().map(|protocol| protocol.as_bytes().into()).collect()
}

/// In the mesh TLS 1.3 only, unless the configuration forbids just that.
fn versions(common: &CommonTlsContext, trust: Option<&TlsSource>) -> Result<TlsVersions, Invalid> {
    let unset = TlsParameters::default();
    let parameters = common.tls_params.as_ref().unwrap_or(&unset);
    let protocol = |value: i32, field: &str| {
        TlsProtocol::try_from(value)
            .map_err(|_| Invalid::value(value.to_string(), "a TLS version"))
            .at("tls_params")
            .at(field)
    };
    let minimum =
        protocol(parameters.tls_minimum_protocol_version, "tls_minimum_protocol_version")?;
    let maximum =
        protocol(parameters.tls_maximum_protocol_version, "tls_maximum_protocol_version")?;
    match (minimum, maximum) {
        (_, TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            Err(Invalid::unsupported("tls_params.tls_maximum_protocol_version"))
        }
        (TlsProtocol::TlSv13, TlsProtocol::TlSv12) => {
            Err(Invalid::value("TLSv1_3 to TLSv1_2", "a range of TLS versions")).at("tls_params")
        }
        (_, TlsProtocol::TlSv12) => Ok(TlsVersions::Tls12),
        (TlsProtocol::TlSv13, _) => Ok(TlsVersions::Tls13),
        _ if trust == Some(&TlsSource::Mesh) => Ok(TlsVersions::Tls13),
        _ => Ok(TlsVersions::Tls12And13),
    }
}

/// The own certificate.
fn certificate(common: &CommonTlsContext) -> Result<Option<TlsSource>, Invalid> {
    refuse_all(&[
        (common.tls_certificate_provider_instance.is_some(), "tls_certificate_provider_instance"),
        (common.custom_tls_certificate_selector.is_some(), "custom_tls_certificate_selector"),
        (
            common.tls_certificate_certificate_provider.is_some(),
            "tls_certificate_certificate_provider",
        ),
        (
            common.tls_certificate_certificate_provider_instance.is_some(),
            "tls_certificate_certificate_provider_instance",
        ),
        (common.custom_handshaker.is_some(), "custom_handshaker"),
        (
            common.tls_certificates.len() + common.tls_certificate_sds_secret_configs.len() > 1,
            "tls_certificates beyond the first",
        ),
    ])?;
    if let Some(secret) = common.tls_certificate_sds_secret_configs.first() {
        return certificate_secret(secret)
            .map(Some)
            .at_index("tls_certificate_sds_secret_configs", 0);
    }
    common.tls_certificates.first().map(own_certificate).transpose().at_index("tls_certificates", 0)
}

fn certificate_secret(secret: &SdsSecretConfig) -> Result<TlsSource, Invalid> {
    if secret.name == SECRET_DEFAULT {
        return Ok(TlsSource::Mesh);
    }
    let files = secret.name.strip_prefix("file-cert:").and_then(|files| files.split_once('~'));
    match files {
        Some((certificate, key)) => Ok(TlsSource::Files {
            certificate: Some(PathBuf::from(certificate)),
            key: Some(PathBuf::from(key)),
            ca: None,
        }),
        None => Err(Invalid::unsupported_value(&secret.name)).at("name"),
    }
}

fn own_certificate(certificate: &TlsCertificate) -> Result<TlsSource, Invalid> {
    refuse_all(&[
        (certificate.pkcs12.is_some(), "pkcs12"),
        (certificate.private_key_provider.is_some(), "private_key_provider"),
        (certificate.password.is_some(), "password"),
    ])?;
    let chain = certificate
        .certificate_chain
        .as_ref()
        .ok_or_else(|| Invalid::missing("certificate_chain"))?;
    let key = certificate.private_key.as_ref().ok_or_else(|| Invalid::missing("private_key"))?;
    match (file(chain), file(key)) {
        (Some(chain), Some(key)) => {
            Ok(TlsSource::Files { certificate: Some(chain), key: Some(key), ca: None })
        }
        _ => Ok(TlsSource::Inline {
            certificate: inline(chain).at("certificate_chain")?.into(),
            key: inline(key).at("private_key")?.into(),
            ca: Box::default(),
        }),
    }
}

fn file(source: &DataSource) -> Option<PathBuf> {
    match &source.specifier {
        Some(Specifier::Filename(name)) => Some(PathBuf::from(name)),
        _ => None,
    }
}

/// Whom to trust.
#[derive(Default)]
struct Validation {
    trust: Option<TlsSource>,
    subject_alt_names: Vec<StringMatcher>,
}

fn validation(common: &CommonTlsContext) -> Result<Validation, Invalid> {
    use ValidationContextType as Type;
    match &common.validation_context_type {
        None => Ok(Validation::default()),
        Some(Type::ValidationContextSdsSecretConfig(secret)) => Ok(Validation {
            trust: Some(trust_secret(secret).at("validation_context_sds_secret_config")?),
            subject_alt_names: Vec::new(),
        }),
        Some(Type::ValidationContext(context)) => {
            validation_context(context).at("validation_context")
        }
        Some(Type::CombinedValidationContext(combined)) => {
            let mut validation = match &combined.default_validation_context {
                Some(context) => validation_context(context)
                    .at("default_validation_context")
                    .at("combined_validation_context")?,
                None => Validation::default(),
            };
            let secret =
                combined.validation_context_sds_secret_config.as_ref().ok_or_else(|| {
                    Invalid::missing(
                        "combined_validation_context.validation_context_sds_secret_config",
                    )
                })?;
            validation.trust = Some(
                trust_secret(secret)
                    .at("combined_validation_context.validation_context_sds_secret_config")?,
            );
            Ok(validation)
        }
        Some(Type::ValidationContextCertificateProvider(_)) => {
            Err(Invalid::unsupported("validation_context_certificate_provider"))
        }
        Some(Type::ValidationContextCertificateProviderInstance(_)) => {
            Err(Invalid::unsupported("validation_context_certificate_provider_instance"))
        }
    }
}

fn trust_secret(secret: &SdsSecretConfig) -> Result<TlsSource, Invalid> {
    if secret.name == SECRET_ROOT_CA {
        return Ok(TlsSource::Mesh);
    }
    match secret.name.strip_prefix("file-root:") {
        Some("system") => Ok(TlsSource::System),
        Some(ca) => {
            Ok(TlsSource::Files { certificate: None, key: None, ca: Some(PathBuf::from(ca)) })
        }
        None => Err(Invalid::unsupported_value(&secret.name)).at("name"),
    }
}

fn validation_context(context: &CertificateValidationContext) -> Result<Validation, Invalid> {
    refuse_all(&[
        (!context.verify_certificate_spki.is_empty(), "verify_certificate_spki"),
        (!context.verify_certificate_hash.is_empty(), "verify_certificate_hash"),
        (context.crl.is_some(), "crl"),
        (context.allow_expired_certificate, "allow_expired_certificate"),
        (context.trust_chain_verification != 0, "trust_chain_verification"),
        (context.custom_validator_config.is_some(), "custom_validator_config"),
        (context.ca_certificate_provider_instance.is_some(), "ca_certificate_provider_instance"),
    ])?;
    let trust = match (&context.trusted_ca, &context.system_root_certs) {
        (Some(source), _) => Some(match file(source) {
            Some(ca) => TlsSource::Files { certificate: None, key: None, ca: Some(ca) },
            None => TlsSource::Inline {
                certificate: Box::default(),
                key: Box::default(),
                ca: inline(source).at("trusted_ca")?.into(),
            },
        }),
        (None, Some(_)) => Some(TlsSource::System),
        (None, None) => None,
    };
    let mut subject_alt_names =
        each(&context.match_typed_subject_alt_names, "match_typed_subject_alt_names", |typed| {
            let matcher = typed.matcher.as_ref().ok_or_else(|| Invalid::missing("matcher"))?;
            matcher::string(matcher).at("matcher")
        })?;
    subject_alt_names.extend(each(
        &context.match_subject_alt_names,
        "match_subject_alt_names",
        matcher::string,
    )?);
    Ok(Validation { trust, subject_alt_names })
}
