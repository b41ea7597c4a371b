//! TLS contexts of listeners and clusters.
//!
//! Secrets are named: `default` and `ROOTCA` are the proxy's own, Istio's `file-cert:CHAIN~KEY` and `file-root:CA` name files,
//! any other name is asked of the control plane.

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
                SdsSecretConfig, Secret as PbSecret, TlsCertificate, TlsParameters,
                UpstreamTlsContext, common_tls_context::ValidationContextType,
                downstream_tls_context::SessionTicketKeysType, secret::Type as SecretType,
                tls_parameters::TlsProtocol,
            },
        },
    },
};

use rustls::CipherSuite;

use super::{
    Context, cipher_suites,
    invalid::{At, Invalid, each, refuse_all},
    matcher,
    value::{flag, inline, is, type_name, unpack},
};
use crate::config::{
    matcher::StringMatcher,
    tls::{DownstreamTls, SecretContent, TlsSource, TlsVersions, UpstreamTls},
};
use crate::{
    control::certificates::with_causes,
    net::tls::{self as net, TlsError},
};

/// A listener's transport socket; `None` is plaintext.
pub fn downstream(
    context: &Context<'_>,
    socket: &TransportSocket,
) -> Result<Option<DownstreamTls>, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(Invalid::missing("typed_config"));
    };
    if is::<RawBuffer>(config) {
        return Ok(None);
    }
    if !is::<DownstreamTlsContext>(config) {
        return Err(Invalid::unsupported_value(type_name(config))).at("typed_config");
    }
    downstream_context(context, &unpack(config).at("typed_config")?).map(Some).at("typed_config")
}

fn downstream_context(
    context: &Context<'_>,
    tls: &DownstreamTlsContext,
) -> Result<DownstreamTls, Invalid> {
    use SessionTicketKeysType as Tickets;
    refuse_all(&[
        (tls.ocsp_staple_policy != 0, "ocsp_staple_policy"),
        (flag(tls.require_sni.as_ref()), "require_sni"),
    ])?;
    let resumption = match &tls.session_ticket_keys_type {
        None => true,
        Some(Tickets::DisableStatelessSessionResumption(disabled)) => !disabled,
        Some(Tickets::SessionTicketKeys(_)) => {
            return Err(Invalid::unsupported("session_ticket_keys"));
        }
        Some(Tickets::SessionTicketKeysSdsSecretConfig(_)) => {
            return Err(Invalid::unsupported("session_ticket_keys_sds_secret_config"));
        }
    };
    let common =
        tls.common_tls_context.as_ref().ok_or_else(|| Invalid::missing("common_tls_context"))?;
    let certificates = certificates(context, common).at("common_tls_context")?;
    if certificates.is_empty() {
        return Err(Invalid::missing("common_tls_context.tls_certificates"));
    }
    let validation = validation(context, common).at("common_tls_context")?;
    let require_client_certificate = flag(tls.require_client_certificate.as_ref());
    if require_client_certificate && validation.trust.is_none() {
        return Err(Invalid::missing("common_tls_context.validation_context"));
    }
    let (versions, cipher_suites) =
        parameters(common, validation.trust.as_ref()).at("common_tls_context")?;
    Ok(DownstreamTls {
        versions,
        cipher_suites,
        resumption,
        certificates,
        trust: validation.trust,
        require_client_certificate,
        subject_alt_names: validation.subject_alt_names,
        alpn: alpn(common),
    })
}

/// A cluster's transport socket; `None` is plaintext.
pub fn upstream(
    context: &Context<'_>,
    socket: &TransportSocket,
) -> Result<Option<UpstreamTls>, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(Invalid::missing("typed_config"));
    };
    if is::<RawBuffer>(config) {
        return Ok(None);
    }
    if !is::<UpstreamTlsContext>(config) {
        return Err(Invalid::unsupported_value(type_name(config))).at("typed_config");
    }
    upstream_context(context, &unpack(config).at("typed_config")?).map(Some).at("typed_config")
}

fn upstream_context(
    context: &Context<'_>,
    tls: &UpstreamTlsContext,
) -> Result<UpstreamTls, Invalid> {
    refuse_all(&[
        (tls.allow_renegotiation, "allow_renegotiation"),
        (tls.auto_host_sni, "auto_host_sni"),
        (tls.auto_sni_san_validation, "auto_sni_san_validation"),
    ])?;
    let common =
        tls.common_tls_context.as_ref().ok_or_else(|| Invalid::missing("common_tls_context"))?;
    let validation = validation(context, common).at("common_tls_context")?;
    let certificates = certificates(context, common).at("common_tls_context")?;
    if certificates.len() > 1 {
        return Err(Invalid::unsupported("common_tls_context.tls_certificates beyond the first"));
    }
    Ok(UpstreamTls {
        identity: certificates.into_iter().next(),
        versions: parameters(common, validation.trust.as_ref()).at("common_tls_context")?.0,
        trust: validation.trust,
        subject_alt_names: validation.subject_alt_names,
        sni: tls.sni.as_str().into(),
        auto_sni: false,
        alpn: alpn(common),
    })
}

fn alpn(common: &CommonTlsContext) -> Vec<Box<[u8]>> {
    common.alpn_protocols.iter().map(|protocol| protocol.as_bytes().into()).collect()
}

/// Versions, and the cipher suites of TLS 1.2 where there is a choice. In the mesh TLS 1.3 only, unless the configuration
/// forbids just that.
fn parameters(
    common: &CommonTlsContext,
    trust: Option<&TlsSource>,
) -> Result<(TlsVersions, Vec<CipherSuite>), Invalid> {
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
    let versions = match (minimum, maximum) {
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
    }?;
    if versions == TlsVersions::Tls13 || parameters.cipher_suites.is_empty() {
        return Ok((versions, Vec::new()));
    }
    let suites = cipher_suites::parse(&parameters.cipher_suites).at("tls_params")?;
    match (suites.is_empty(), versions) {
        (false, _) => Ok((versions, suites)),
        // None of them is good enough to be spoken here, and TLS 1.3 has others.
        (true, TlsVersions::Tls12And13) => Ok((TlsVersions::Tls13, suites)),
        (true, _) => {
            let all = parameters.cipher_suites.join(":");
            Err(Invalid::unsupported_value(all)).at("cipher_suites").at("tls_params")
        }
    }
}

/// Own certificates.
fn certificates(
    context: &Context<'_>,
    common: &CommonTlsContext,
) -> Result<Vec<TlsSource>, Invalid> {
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
    ])?;
    let mut all = each(&common.tls_certificates, "tls_certificates", own_certificate)?;
    all.extend(each(
        &common.tls_certificate_sds_secret_configs,
        "tls_certificate_sds_secret_configs",
        |secret| certificate_secret(context, secret),
    )?);
    Ok(all)
}

fn certificate_secret(
    context: &Context<'_>,
    secret: &SdsSecretConfig,
) -> Result<TlsSource, Invalid> {
    if secret.name == SECRET_DEFAULT && !context.standalone {
        return Ok(TlsSource::Mesh);
    }
    let files = secret.name.strip_prefix("file-cert:").and_then(|files| files.split_once('~'));
    match files {
        Some((certificate, key)) => Ok(TlsSource::Files {
            certificate: Some(PathBuf::from(certificate)),
            key: Some(PathBuf::from(key)),
            ca: None,
        }),
        None => named(context, &secret.name),
    }
}

fn named(context: &Context<'_>, name: &str) -> Result<TlsSource, Invalid> {
    if name.is_empty() {
        return Err(Invalid::missing("name"));
    }
    Ok(TlsSource::Secret(context.secret(name)))
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

fn validation(context: &Context<'_>, common: &CommonTlsContext) -> Result<Validation, Invalid> {
    use ValidationContextType as Type;
    match &common.validation_context_type {
        None => Ok(Validation::default()),
        Some(Type::ValidationContextSdsSecretConfig(secret)) => Ok(Validation {
            trust: Some(trust_secret(context, secret).at("validation_context_sds_secret_config")?),
            subject_alt_names: Vec::new(),
        }),
        Some(Type::ValidationContext(given)) => validation_context(given).at("validation_context"),
        Some(Type::CombinedValidationContext(combined)) => {
            let mut validation = match &combined.default_validation_context {
                Some(given) => validation_context(given)
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
                trust_secret(context, secret)
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

fn trust_secret(context: &Context<'_>, secret: &SdsSecretConfig) -> Result<TlsSource, Invalid> {
    if secret.name == SECRET_ROOT_CA && !context.standalone {
        return Ok(TlsSource::Mesh);
    }
    match secret.name.strip_prefix("file-root:") {
        Some("system") => Ok(TlsSource::System),
        Some(ca) => {
            Ok(TlsSource::Files { certificate: None, key: None, ca: Some(PathBuf::from(ca)) })
        }
        None => named(context, &secret.name),
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

/// `envoy.extensions.transport_sockets.tls.v3.Secret`: what it holds is read and checked here, once for all who use it.
pub fn secret(secret: &PbSecret) -> Result<SecretContent, Invalid> {
    match &secret.r#type {
        Some(SecretType::TlsCertificate(certificate)) => {
            secret_certificate(certificate).at("tls_certificate")
        }
        Some(SecretType::ValidationContext(context)) => {
            let Validation { trust, subject_alt_names } =
                validation_context(context).at("validation_context")?;
            if !subject_alt_names.is_empty() {
                return Err(Invalid::unsupported("validation_context.match_subject_alt_names"));
            }
            match trust {
                Some(TlsSource::Inline { ca, .. }) => net::parse_roots(&ca)
                    .map(SecretContent::Trust)
                    .map_err(|error| material(&error))
                    .at("validation_context.trusted_ca"),
                Some(_) => Err(Invalid::unsupported("validation_context.trusted_ca.filename")),
                None => Err(Invalid::missing("validation_context.trusted_ca")),
            }
        }
        Some(SecretType::SessionTicketKeys(_)) => Err(Invalid::unsupported("session_ticket_keys")),
        Some(SecretType::GenericSecret(_)) => Err(Invalid::unsupported("generic_secret")),
        None => Err(Invalid::missing("type")),
    }
}

fn secret_certificate(certificate: &TlsCertificate) -> Result<SecretContent, Invalid> {
    let TlsSource::Inline { certificate, key, .. } = own_certificate(certificate)? else {
        return Err(Invalid::unsupported("certificate_chain.filename"));
    };
    net::parse_certified(&certificate, &key)
        .map(SecretContent::Certificate)
        .map_err(|error| material(&error))
}

/// What is wrong with a certificate, a key or a bundle: never their bytes.
fn material(error: &TlsError) -> Invalid {
    Invalid::material(with_causes(error))
}
